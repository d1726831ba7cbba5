"""Vectors of any encoder, from a file, so that it can stand in the same table."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.data.columns import TRACK_ID
from ponticello.errors import DataError
from ponticello.evaluate.baselines import unit

NPZ_IDS, NPZ_VECTORS = "ids", "vectors"
VECTOR = "vector"
SHORTEST = 1e-12  # below, a vector has no direction


@dataclass(frozen=True)
class Elsewhere:
    """vectors: (d,) float32 unit vectors by track id; left_out: ids whose vector is not finite, or zero."""

    vectors: dict[str, np.ndarray]
    left_out: list[str]


def read_vectors(path: Path) -> Elsewhere:
    """`.npz` with arrays `ids` (n,) text and `vectors` (n, d), or `.parquet` with columns `track_id` and `vector`.

    Any length; they are scaled to unit length. DataError names what is missing, of another shape, or listed twice.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give an .npz or .parquet file of vectors")
    ids, matrix = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    if matrix.ndim != 2 or len(ids) != len(matrix) or not matrix.size:
        raise DataError(f"{path.name}: {len(ids)} ids and vectors of shape {matrix.shape}; wanted (n,) and (n, d)")
    repeated = pl.Series(ids, dtype=pl.String)
    if repeated.is_duplicated().any():
        raise DataError(f"{path.name}: id {repeated.filter(repeated.is_duplicated())[0]!r} is listed twice")
    with np.errstate(all="ignore"):
        usable = np.isfinite(matrix).all(axis=1) & (np.linalg.norm(matrix, axis=1) > SHORTEST)
    scaled = unit(matrix[usable])
    kept = [track_id for track_id, is_usable in zip(ids, usable, strict=True) if is_usable]
    left_out = [track_id for track_id, is_usable in zip(ids, usable, strict=True) if not is_usable]
    return Elsewhere(dict(zip(kept, scaled, strict=True)), left_out)


def _read_npz(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            missing = {NPZ_IDS, NPZ_VECTORS} - set(arrays.files)
            if missing:
                raise DataError(f"{path.name}: array {min(missing)!r} is missing; found {', '.join(arrays.files)}")
            ids, matrix = arrays[NPZ_IDS], arrays[NPZ_VECTORS]
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise DataError(f"{path.name} cannot be read as .npz without pickles: {str(error).splitlines()[0]}") from None
    if ids.ndim != 1 or ids.dtype.kind not in "UiuS" or matrix.dtype.kind not in "fiu":
        raise DataError(
            f"{path.name}: ids must be text or whole numbers and vectors numbers; found {ids.dtype}, {matrix.dtype}"
        )
    return [i.decode() if isinstance(i, bytes) else str(i) for i in ids.tolist()], matrix.astype(np.float64)


def _read_parquet(path: Path) -> tuple[list[str], np.ndarray]:
    try:
        table = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path.name} cannot be read as Parquet: {str(error).splitlines()[0]}") from None
    for column in (TRACK_ID, VECTOR):
        if column not in table.columns:
            raise DataError(f"{path.name}: column {column!r} is missing; found {', '.join(table.columns)}")
    try:
        lengths = table[VECTOR].cast(pl.List(pl.Float64)).list.len().unique().to_list()
        if len(lengths) > 1 or table[VECTOR].null_count() or table[TRACK_ID].null_count():
            raise DataError(
                f"{path.name}: every row needs an id and a vector of the same length; found lengths {lengths}"
            )
        flat = table[VECTOR].cast(pl.List(pl.Float64)).explode().to_numpy()
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path.name}: column {VECTOR!r} must hold lists of numbers: {error}") from None
    return table[TRACK_ID].cast(pl.String).to_list(), flat.reshape(table.height, -1)
