"""Parquet files, read by their own path and no other: `[ ] * ?` in a folder's name are letters, never a pattern."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ponticello.errors import DataError, PonticelloError


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


def has_rows(path: Path) -> bool:
    """Whether a Parquet file says that it has rows; DataError as `scan_parquet`."""
    with _readable(path.name), _opened(path) as file:
        return bool(file.metadata.num_rows)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """DataError if what goes wrong in the block is that `path` is damaged, which lazy rows tell only as they are read.

    Every engine has errors of its own for it, and polars may panic; so where one says nothing of Parquet, the file is
    read to see.
    """
    try:
        yield
    except PonticelloError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        with _readable(path.name):
            if isinstance(error, pl.exceptions.PanicException) or str(error).startswith("parquet: "):
                raise
            with _opened(path) as file:
                for number in range(file.num_row_groups):
                    file.read_row_group(number).validate(full=True)
        raise


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
