"""Vectors from a file: both kinds come back the same, and what cannot be used is named."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import DataError
from ponticello.evaluate.vectors import read_vectors

VECTORS = np.array([[3.0, 4.0], [0.0, 2.0], [np.nan, 1.0], [0.0, 0.0]])
IDS = ["a", "b", "broken", "zero"]


def _npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def _parquet(path: Path, **columns: object) -> Path:
    pl.DataFrame(columns).write_parquet(path)
    return path


def test_both_kinds_of_file_give_unit_vectors_by_id(tmp_path: Path) -> None:
    """(3, 4) has length 5: (0.6, 0.8)."""
    files = [_npz(tmp_path / "v.npz", ids=np.array(IDS), vectors=VECTORS)]
    files.append(_parquet(tmp_path / "v.parquet", track_id=IDS, vector=VECTORS.tolist()))
    for file in files:
        vectors, left_out = read_vectors(file)
        assert list(vectors) == ["a", "b"]
        np.testing.assert_allclose(vectors["a"], [0.6, 0.8], rtol=1e-6)
        np.testing.assert_allclose(vectors["b"], [0.0, 1.0])
        assert left_out == ["broken", "zero"]


def test_ids_may_be_whole_numbers_and_columns_fixed_size(tmp_path: Path) -> None:
    assert list(
        read_vectors(_npz(tmp_path / "n.npz", ids=np.array([7, 8]), vectors=np.eye(2)))[0]
    ) == ["7", "8"]
    table = pl.DataFrame(
        {"track_id": [7, 8], "vector": np.eye(2)},
        schema_overrides={"vector": pl.Array(pl.Float32, 2)},
    )
    table.write_parquet(tmp_path / "n.parquet")
    assert list(read_vectors(tmp_path / "n.parquet")[0]) == ["7", "8"]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"ids": np.array(["a"])}, "v.npz: array 'vectors' is missing; found ids"),
        (
            {"ids": np.array(["a"]), "vectors": np.ones(3)},
            r"1 ids and vectors of shape \(3,\); wanted \(n,\) and",
        ),
        (
            {"ids": np.array(["a"]), "vectors": np.ones((2, 3))},
            r"1 ids and vectors of shape \(2, 3\)",
        ),
        ({"ids": np.array(["a", "a"]), "vectors": np.eye(2)}, "v.npz: id 'a' is listed twice"),
        ({"ids": np.array([0.5]), "vectors": np.ones((1, 3))}, "ids must be text or whole numbers"),
        ({"ids": np.array(["a"]), "vectors": np.array([["x"]])}, "vectors numbers; found"),
    ],
)
def test_bad_arrays_are_refused_by_name(
    tmp_path: Path, arrays: dict[str, np.ndarray], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_vectors(_npz(tmp_path / "v.npz", **arrays))


def test_a_pickle_is_never_read(tmp_path: Path) -> None:
    _npz(tmp_path / "v.npz", ids=np.array([{"a": 1}], dtype=object), vectors=np.ones((1, 2)))
    with pytest.raises(
        DataError, match=r"v.npz cannot be read as .npz without pickles: Object arrays"
    ):
        read_vectors(tmp_path / "v.npz")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"id": ["a"]}, "v.parquet: column 'track_id' is missing; found id"),
        ({"track_id": ["a"]}, "v.parquet: column 'vector' is missing; found track_id"),
        (
            {"track_id": ["a", "b"], "vector": [[1.0], [1.0, 2.0]]},
            "every row needs an id and a vector of the same length",
        ),
        ({"track_id": ["a", None], "vector": [[1.0], [1.0]]}, "every row needs an id"),
        ({"track_id": ["a"], "vector": ["long"]}, "column 'vector' must hold lists of numbers"),
    ],
)
def test_bad_columns_are_refused_by_name(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read_vectors(_parquet(tmp_path / "v.parquet", **columns))


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"none\.npz does not exist; give an \.npz or \.parquet file of vectors"
    ):
        read_vectors(tmp_path / "none.npz")
    whole = io.BytesIO()
    np.savez(whole, ids=np.array(IDS), vectors=VECTORS)
    for name in ("cut.npz", "cut.parquet"):
        (tmp_path / name).write_bytes(whole.getvalue()[:50])
        with pytest.raises(DataError, match=f"{name} cannot be read as"):
            read_vectors(tmp_path / name)
