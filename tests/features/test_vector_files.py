"""Vectors another program wrote: read as they are, ragged rows and empty cells too (more errors:
test_elsewhere).
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import DataError
from ponticello.features.precomputed import read_vector_file


def test_both_kinds_of_file_give_the_same_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "v.npz", ids=np.array(["a", "b"]), vectors=np.array([[1, 2], [3, 4]]))
    pl.DataFrame({"track_id": ["a", "b"], "vector": [[1, 2], [3, 4]]}).write_parquet(
        tmp_path / "v.parquet"
    )
    for name in ("v.npz", "v.parquet"):
        ids, vectors = read_vector_file(tmp_path / name)
        assert ids == ["a", "b"]
        np.testing.assert_array_equal(np.stack(vectors), [[1.0, 2.0], [3.0, 4.0]])
        assert vectors[0].dtype == np.float64


def test_parquet_rows_may_differ_in_size_or_be_empty(tmp_path: Path) -> None:
    table = pl.DataFrame({"track_id": [7, 8, 9], "vector": [[1.0, 2.0], None, [3.0]]})
    table.write_parquet(tmp_path / "v.parquet")
    ids, vectors = read_vector_file(tmp_path / "v.parquet")
    assert ids == ["7", "8", "9"]
    assert [row.tolist() for row in vectors] == [[1.0, 2.0], [], [3.0]]


def test_a_table_without_rows_or_with_a_repeated_id_is_refused(tmp_path: Path) -> None:
    pl.DataFrame(schema={"track_id": pl.String, "vector": pl.List(pl.Float64)}).write_parquet(
        tmp_path / "e.parquet"
    )
    with pytest.raises(DataError, match=r"e\.parquet: every row needs an id; 0 of 0 have none"):
        read_vector_file(tmp_path / "e.parquet")
    pl.DataFrame({"track_id": ["a", "a"], "vector": [[1.0], [2.0]]}).write_parquet(
        tmp_path / "r.parquet"
    )
    with pytest.raises(DataError, match=r"r\.parquet: id 'a' is listed twice"):
        read_vector_file(tmp_path / "r.parquet")
