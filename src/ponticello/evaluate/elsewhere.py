"""Vectors of any encoder, from a file, so that it can stand in the same table."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ponticello.data.vectors import read_vector_file
from ponticello.errors import DataError
from ponticello.evaluate.baselines import unit

SHORTEST = 1e-12  # below, a vector has no direction


@dataclass(frozen=True)
class Elsewhere:
    """vectors: (d,) float32 unit vectors by track id; left_out: ids whose vector is not finite, or zero."""

    vectors: dict[str, np.ndarray]
    left_out: list[str]


def read_vectors(path: Path) -> Elsewhere:
    """The vectors of a file as `read_vector_file` takes it, all of one length and scaled to unit length.

    Errors: as there, and DataError where their lengths differ.
    """
    ids, rows = read_vector_file(path)
    lengths = sorted({len(row) for row in rows})
    if len(lengths) > 1 or not lengths[0]:
        raise DataError(f"{path.name}: every row needs an id and a vector of the same length; found lengths {lengths}")
    matrix = np.stack(rows)
    with np.errstate(all="ignore"):
        usable = np.isfinite(matrix).all(axis=1) & (np.linalg.norm(matrix, axis=1) > SHORTEST)
    scaled = unit(matrix[usable])
    kept = [track_id for track_id, is_usable in zip(ids, usable, strict=True) if is_usable]
    left_out = [track_id for track_id, is_usable in zip(ids, usable, strict=True) if not is_usable]
    return Elsewhere(dict(zip(kept, scaled, strict=True)), left_out)
