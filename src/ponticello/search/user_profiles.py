"""User profiles: one direction per user, by ridge regression of likes over the whole catalogue.

The direction scores high at the liked tracks and near 0 at all others. The catalogue's covariance
weighs the dimensions; plain similarity to liked tracks would count features that nearly all tracks
share. Tracks far from the mean score high or low for all users and appear in too many lists, as
hubs do. `UserProfiles.levels` returns factors that shrink their scores.

Dimensions: n tracks, s seeds, d vector size.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponticello.errors import DataError

MOST_SINGLE_SEEDS = 20_000  # tracks, evenly drawn: the spread in a direction to about 1 %
# of the mean spread: the least spread of a track near the mean, so that rounding does not grow
LEAST_SHARE = 0.1
BLOCK_LISTENERS = 4_096  # users computed at once
LEAST_SPREAD = 1e-12  # of a profile's scores: below it the profile is zero


@dataclass(frozen=True)
class UserProfiles:
    """Fitted regression of one space. mean: (d,) of the catalogue; the others (d, d); all float64.

    asking: second moment of the directions of profiles with one seed, over tracks of the catalogue.
    """

    mean: np.ndarray
    covariance: np.ndarray
    sharpened: np.ndarray
    asking: np.ndarray

    def shares(self, seeds: np.ndarray) -> np.ndarray:
        """Returns (s, d) float64, the share of each seed (s, d) in the profile, their sum."""
        shares: np.ndarray = (seeds.astype(np.float64) - self.mean) @ self.sharpened / len(seeds)
        spread = _spread(shares.sum(axis=0, keepdims=True), self.covariance)[0]
        return shares / spread if spread > LEAST_SPREAD else np.zeros_like(shares)

    def levels(self, vectors: np.ndarray, hub_correction: float) -> np.ndarray:
        """Returns (n,) float64 factors of the scores of tracks (n, d): spread ** -hub_correction.

        A track's spread is the root mean square of its scores over all single seeds of the
        catalogue; it counts as at least a tenth of the usual. hub_correction: 0 to 1; at 0 all
        factors are 1, at 1 all tracks have the same spread. Scaled so that the mean square of all
        scores over the catalogue does not depend on hub_correction. Cost: n x d x d.

        Source: ours, after the z scores of Adomavicius and Kwon 2008 and local scaling (Schnitzer
        et al. 2012).
        """
        centred = vectors - self.mean
        spread = _spread(centred, self.asking)
        usual = np.sqrt((spread**2).mean())
        spread = np.maximum(spread, max(LEAST_SHARE * usual, LEAST_SPREAD))
        factors = spread**-hub_correction
        scale = np.sqrt((spread**2).mean() / ((factors * spread) ** 2).mean())
        levels: np.ndarray = factors * scale
        return levels


def _spread(vectors: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """Returns (n,), the root mean square of v @ w, over vectors w with second moments (d, d)."""
    squares = np.einsum("nd,nd->n", vectors @ moments, vectors)
    spread: np.ndarray = np.sqrt(np.maximum(squares, 0.0))
    return spread


def fit_profiles(vectors: np.ndarray, ridge: float) -> UserProfiles:
    """Fits the profiles of a catalogue (n, d), n >= 1; DataError for a value that is not finite.

    ridge: above 0, as a share of the vectors' total variance. Large values approach similarity to
    the mean seed, small ones stress the differences between seeds and catalogue. Cost: n x d x d.

    Source: the implicit-feedback regression of Hu, Koren and Volinsky 2008 (equation 4) with
    content in place of item factors, equal confidence everywhere, and centred vectors.
    """
    if not np.isfinite(vectors).all():
        raise DataError("vectors hold NaN or infinity; embed them again")
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    covariance = centred.T @ centred / len(vectors)
    size = max(float(np.trace(covariance)), LEAST_SPREAD)
    sharpened = np.linalg.inv(covariance + ridge * size * np.eye(len(mean)))
    step = math.ceil(len(centred) / MOST_SINGLE_SEEDS)
    alone = centred[::step] @ sharpened  # (at most MOST_SINGLE_SEEDS, d)
    spread = _spread(alone, covariance)
    alone = alone[spread > LEAST_SPREAD] / spread[spread > LEAST_SPREAD, None]
    return UserProfiles(mean, covariance, sharpened, alone.T @ alone / max(1, len(alone)))


def score_directions(
    profiles: UserProfiles, vectors: np.ndarray, seeds: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns (m, d) float64, the profiles of m users. seeds: per user, rows of `vectors` (n, d).

    A track with vector v scores direction @ (v - mean), with mean 0 and deviation 1 over the
    catalogue; the score is a sum over the seeds. The direction is zero without seeds, and if their
    mean is the catalogue's. Cost: m x d x d; memory beside the result: a block of
    `BLOCK_LISTENERS`.
    """
    directions = np.zeros((len(seeds), vectors.shape[1]))
    asking = np.flatnonzero(list(map(len, seeds)))
    for start in range(0, len(asking), BLOCK_LISTENERS):
        block = asking[start : start + BLOCK_LISTENERS]
        lengths = np.array([len(seeds[listener]) for listener in block])
        liked = vectors[np.concatenate([seeds[listener] for listener in block])].astype(np.float64)
        means = np.add.reduceat(liked, np.cumsum(lengths) - lengths, axis=0) / lengths[:, None]
        raw = (means - profiles.mean) @ profiles.sharpened
        spread = _spread(raw, profiles.covariance)
        is_spread = spread > LEAST_SPREAD
        directions[block[is_spread]] = raw[is_spread] / spread[is_spread, None]
    return directions
