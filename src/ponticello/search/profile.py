"""A listener's taste as one direction: ridge regression of what they like over the whole catalogue.

Asked for is the line that is high at the liked tracks and near nothing at all others; the catalogue's own spread
decides which directions say something. Closeness to single tracks would count what nearly all tracks share.

Dimensions: n tracks, s seeds, d vector size.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponticello.errors import DataError

LEAST_SPREAD = 1e-12  # of a profile's scores: below it the seeds say nothing


@dataclass(frozen=True)
class Profiles:
    """How profiles are made in one space. mean: (d,) of the catalogue; covariance, sharpened: (d, d), float64."""

    mean: np.ndarray
    covariance: np.ndarray
    sharpened: np.ndarray

    def direction(self, seeds: np.ndarray) -> np.ndarray:
        """(d,) float64: a track with vector v scores direction @ (v - mean), mean 0 and deviation 1 over all tracks.

        seeds: (s, d) vectors of liked tracks, s >= 1, all of one weight. Zeros if they say nothing, as their mean is
        the catalogue's. The score is a sum over seeds: seed i adds its own sharpened closeness.
        """
        raw = self.sharpened @ (seeds.mean(axis=0, dtype=np.float64) - self.mean)
        spread = float(np.sqrt(raw @ self.covariance @ raw))
        unit: np.ndarray = raw / spread if spread > LEAST_SPREAD else np.zeros_like(raw)
        return unit


def fit_profiles(vectors: np.ndarray, ridge: float) -> Profiles:
    """From the vectors of a catalogue, (n, d), n >= 1; DataError if one is not finite.

    ridge: above 0, as a share of the vectors' total variance: large = closeness to the mean seed, small = what sets the
    seeds apart counts more. Cost: n x d x d.

    Source: the implicit-feedback regression of Hu, Koren and Volinsky 2008 (equation 4) with content in place of item
    factors, equal confidence everywhere, and centred vectors.
    """
    if not np.isfinite(vectors).all():
        raise DataError("vectors hold NaN or infinity; embed them again")
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    covariance = centred.T @ centred / len(vectors)
    size = max(float(np.trace(covariance)), LEAST_SPREAD)
    return Profiles(mean, covariance, np.linalg.inv(covariance + ridge * size * np.eye(len(mean))))


def directions(profiles: Profiles, vectors: np.ndarray, seeds: Sequence[np.ndarray]) -> np.ndarray:
    """(m, d): `Profiles.direction` of each of m listeners. seeds: rows of `vectors` (n, d), one array a listener."""
    return np.stack([profiles.direction(vectors[rows]) for rows in seeds])
