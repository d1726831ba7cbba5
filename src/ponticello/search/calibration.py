"""How cosines lie in a space. Raw cosines of two spaces cannot be compared: a cosine c counts as (c - mean) / std."""

from dataclasses import dataclass

import numpy as np

CALIBRATION_PAIRS = 20_000  # random pairs: mean and standard deviation to about 1 %


@dataclass(frozen=True)
class Calibration:
    """Mean and standard deviation of cosines between random queries and tracks."""

    mean: float
    std: float


@dataclass(frozen=True)
class Space:
    """One of the two spaces: the run it comes from, its id, and how cosines are distributed in it."""

    run: str
    space_id: str
    audio: Calibration  # between two tracks
    text: Calibration  # between a text and a track


def calibrate(queries: np.ndarray, vectors: np.ndarray, seed: int = 0) -> Calibration:
    """Mean and standard deviation of the cosine between random rows of `queries` (q, d) and of `vectors` (n, d).

    When both are the same array, a row is never paired with itself.
    """
    generator = np.random.default_rng(seed)
    left = generator.integers(len(queries), size=CALIBRATION_PAIRS)
    right = generator.integers(len(vectors), size=CALIBRATION_PAIRS)
    if queries is vectors:
        left, right = left[left != right], right[left != right]
    cosines = np.einsum("id,id->i", queries[left], vectors[right]) if len(left) else np.zeros(1)
    return Calibration(float(cosines.mean()), max(float(cosines.std()), 1e-6))
