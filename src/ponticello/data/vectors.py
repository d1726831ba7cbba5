"""Vectors in a file that another program wrote, read as they are: `.npz` or Parquet, never a pickle."""

import zipfile
from pathlib import Path

import numpy as np
import polars as pl

from ponticello.data.columns import TRACK_ID
from ponticello.data.parquet import read_parquet
from ponticello.errors import DataError

NPZ_IDS, NPZ_VECTORS = "ids", "vectors"
VECTOR = "vector"


def read_vector_file(path: Path) -> tuple[list[str], list[np.ndarray]]:
    """The track ids of a file, and the vector of each, (d,) float64.

    `.npz` with arrays `ids` (n,) and `vectors` (n, d), or Parquet with columns `track_id` and `vector`, whose vectors
    may differ in size and are empty where the cell is. An id is text or a whole number. DataError names what is
    missing, of another shape, or listed twice.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist; give an .npz or .parquet file of vectors")
    ids, vectors = _read_npz(path) if path.suffix == ".npz" else _read_parquet(path)
    repeated = pl.Series(ids, dtype=pl.String)
    if repeated.is_duplicated().any():
        raise DataError(f"{path.name}: id {repeated.filter(repeated.is_duplicated())[0]!r} is listed twice")
    return ids, vectors


def _read_npz(path: Path) -> tuple[list[str], list[np.ndarray]]:
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
    if matrix.ndim != 2 or len(ids) != len(matrix) or not matrix.size:
        raise DataError(f"{path.name}: {len(ids)} ids and vectors of shape {matrix.shape}; wanted (n,) and (n, d)")
    names = [i.decode() if isinstance(i, bytes) else str(i) for i in ids.tolist()]
    return names, list(matrix.astype(np.float64))


def _read_parquet(path: Path) -> tuple[list[str], list[np.ndarray]]:
    table = read_parquet(path, path.name)
    for column in (TRACK_ID, VECTOR):
        if column not in table.columns:
            raise DataError(f"{path.name}: column {column!r} is missing; found {', '.join(table.columns)}")
    if table[TRACK_ID].null_count() or table.is_empty():
        raise DataError(
            f"{path.name}: every row needs an id; {table[TRACK_ID].null_count()} of {table.height} have none"
        )
    try:
        rows = table[VECTOR].cast(pl.List(pl.Float64)).fill_null([])
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path.name}: column {VECTOR!r} must hold lists of numbers: {error}") from None
    return table[TRACK_ID].cast(pl.String).to_list(), [row.to_numpy() for row in rows]
