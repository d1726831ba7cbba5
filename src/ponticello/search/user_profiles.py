"""A listener's taste as one direction: ridge regression of what they like over the whole catalogue.

Asked for is the line that is high at the liked tracks and near nothing at all others; the
catalogue's own spread decides which directions say something. Closeness to single tracks would
count what nearly all tracks share.

Some tracks lie far out and score high or low with everyone: they crowd the lists as hubs do.
`UserProfiles.levels` says by how much to shrink each one's scores.

Dimensions: n tracks, s seeds, d vector size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponticello.errors import DataError

MOST_SINGLE_SEEDS = (
    20_000  # tracks, evenly drawn, that tell how scores spread: to about 1 % in each direction
)
# of the usual spread of scores: what a track in the very middle is levelled by, lest rounding grows
LEAST_SHARE = 0.1
BLOCK_LISTENERS = 4_096  # whose seeds are looked up at once
LEAST_SPREAD = 1e-12  # of a profile's scores: below it the seeds say nothing


@dataclass(frozen=True)
class UserProfiles:
    """How profiles are made in one space. mean: (d,) of the catalogue; the others (d, d); all
    float64.

    asking: second moment of the directions that tracks of the catalogue, each a seed alone, would
    ask with.
    """

    mean: np.ndarray
    covariance: np.ndarray
    sharpened: np.ndarray
    asking: np.ndarray

    def direction(self, seeds: np.ndarray) -> np.ndarray:
        """(d,) float64: what a listener asks with who likes the tracks of these vectors (s, d), as
        `score_directions`.
        """
        found: np.ndarray = score_directions(self, seeds, [np.arange(len(seeds))])[0]
        return found

    def shares(self, seeds: np.ndarray) -> np.ndarray:
        """(s, d) float64: what each of the seeds (s, d) adds to `direction`; the rows add up to it."""
        raw = (seeds.astype(np.float64) - self.mean) @ self.sharpened / len(seeds)
        spread = self.spread(raw.sum(axis=0, keepdims=True))[0]
        shares: np.ndarray = raw / spread if spread > LEAST_SPREAD else np.zeros_like(raw)
        return shares

    def spread(self, raw: np.ndarray) -> np.ndarray:
        """(m,) float64: the deviation, over the catalogue's tracks, of what each of the directions
        (m, d) scores.
        """
        spread: np.ndarray = np.sqrt(
            np.maximum(np.einsum("md,md->m", raw @ self.covariance, raw), 0.0)
        )
        return spread

    def levels(self, vectors: np.ndarray, hub_correction: float) -> np.ndarray:
        """(n,) float64 factors of the scores of the catalogue's tracks, (n, d): spread **
        -hub_correction.

        A track's spread is how far its scores lie from 0 over all single seeds of the catalogue.
        hub_correction: 0 to 1; at 0 all factors are 1, at 1 every track's scores spread alike.
        Scaled so that the mean square of all scores over the catalogue stays what it is at 0; a
        spread below a tenth of the usual counts as that. Cost: n x d x d.

        Source: ours, after the z scores of Adomavicius and Kwon 2008 and local scaling (Schnitzer
        et al. 2012).
        """
        centred = vectors - self.mean
        squares = np.einsum("nd,nd->n", centred @ self.asking, centred)
        spread = np.sqrt(np.maximum(squares, max(LEAST_SHARE**2 * squares.mean(), LEAST_SPREAD**2)))
        factors = spread**-hub_correction
        levels: np.ndarray = factors * np.sqrt(
            (spread**2).mean() / ((factors * spread) ** 2).mean()
        )
        return levels


def fit_profiles(vectors: np.ndarray, ridge: float) -> UserProfiles:
    """From the vectors of a catalogue, (n, d), n >= 1; DataError if one is not finite.

    ridge: above 0, as a share of the vectors' total variance: large = closeness to the mean seed,
    small = what sets the seeds apart counts more. Cost: n x d x d.

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
    alone = (
        centred[:: -(-len(centred) // MOST_SINGLE_SEEDS)] @ sharpened
    )  # (at most MOST_SINGLE_SEEDS, d)
    spread = np.sqrt(np.maximum(np.einsum("nd,nd->n", alone @ covariance, alone), 0.0))
    alone = alone[spread > LEAST_SPREAD] / spread[spread > LEAST_SPREAD, None]
    return UserProfiles(mean, covariance, sharpened, alone.T @ alone / max(1, len(alone)))


def score_directions(
    profiles: UserProfiles, vectors: np.ndarray, seeds: Sequence[np.ndarray]
) -> np.ndarray:
    """(m, d) float64: what each of m listeners asks with. seeds: rows of `vectors` (n, d), one
    array a listener.

    A track with vector v scores direction @ (v - mean): mean 0 and deviation 1 over all tracks of
    the catalogue, a sum to which each seed adds its own sharpened closeness. Zeros if the seeds say
    nothing: there are none, or their mean is the catalogue's. Cost: m x d x d; memory beside the
    answer: a block of `BLOCK_LISTENERS`.
    """
    found = np.zeros((len(seeds), vectors.shape[1]))
    asking = np.flatnonzero([len(rows) > 0 for rows in seeds])
    for start in range(0, len(asking), BLOCK_LISTENERS):
        block = asking[start : start + BLOCK_LISTENERS]
        lengths = np.array([len(seeds[listener]) for listener in block])
        liked = vectors[np.concatenate([seeds[listener] for listener in block])].astype(np.float64)
        means = np.add.reduceat(liked, np.cumsum(lengths) - lengths, axis=0) / lengths[:, None]
        raw = (means - profiles.mean) @ profiles.sharpened
        spread = profiles.spread(raw)
        told = spread > LEAST_SPREAD
        found[block[told]] = raw[told] / spread[told, None]
    return found
