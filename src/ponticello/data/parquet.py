"""Parquet files, read by their own path and no other: `[ ] * ?` in a folder's name are letters, never a pattern."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ponticello.errors import DataError


def read_parquet(source: Path | bytes, name: str, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows of a Parquet file or of its bytes; only `columns`, if they are given.

    DataError: it is missing, damaged or no Parquet file, or lacks a column. name: what the error calls it.
    """
    with _readable(name):
        with _opened(source) as file:
            table = file.read(columns=columns)
        table.validate(full=True)
        frame = pl.DataFrame(pl.from_arrow(table))
        return frame if columns is None else frame.select(columns)


def scan_parquet(path: Path) -> pl.LazyFrame:
    """As `read_parquet`, without loading the rows; DataError if the file does not say what columns it has."""
    with _readable(path.name):
        with _opened(path):
            rows = pl.scan_parquet(path, glob=False)
        rows.collect_schema()
        return rows


def _opened(source: Path | bytes) -> pq.ParquetFile:
    return pq.ParquetFile(pa.OSFile(str(source)) if isinstance(source, Path) else pa.BufferReader(source))


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """DataError for what pyarrow and polars raise. pyarrow reads first: at some damaged files polars panics."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name} cannot be read as Parquet ({reason})") from None
