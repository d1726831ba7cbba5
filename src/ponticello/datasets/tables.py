"""Delimited text as public sets have it: rows in, text columns and the line of every row out.

Unlike `formats`, the delimiter and the quoting come from the caller: these sets call TAB-separated
files `.csv`.

What a public set becomes, and how its files are found.
"""

import ast
import bz2
import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import INTERACTIONS, TRACKS, Table
from ponticello.storage.tables import truncate_value
from ponticello.storage.validation import DTYPES

# found in a path of a set's own files that would lead out of its folder
OUTSIDE = r"^[/\\]|(^|[/\\])\.\.([/\\]|$)"


@dataclass(frozen=True)
class Content:
    """A public set as our tables: rows that could not be used are in `skipped`, files that were not
    there in `missing`.

    tracks: one row a track, `track_id` unique; columns of `TRACKS` in their types, and the set's
    own splits.
    interactions: columns of `INTERACTIONS`, or None for a set without listeners;
        every `track_id` is in `tracks`.
    """

    tracks: pl.DataFrame
    interactions: pl.DataFrame | None
    skipped: list[SkippedRow]
    missing: list[str]


def track_table(rows: pl.DataFrame | Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Rows as tracks: columns of `TRACKS` in their types, empty lists as null, further columns as
    they are.
    """
    return _typed(rows, TRACKS)


def event_table(rows: pl.DataFrame | Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Rows as interactions: columns of `INTERACTIONS` in their types, further columns as they are."""
    return _typed(rows, INTERACTIONS)


def _typed(rows: pl.DataFrame | Iterable[dict[str, Any]], table: Table) -> pl.DataFrame:
    frame = (
        rows
        if isinstance(rows, pl.DataFrame)
        else pl.DataFrame(list(rows), infer_schema_length=None)
    )
    if not frame.width:
        frame = pl.DataFrame(schema=dict.fromkeys(table.required, pl.Null))
    known = {
        column: DTYPES[kind] for column, kind in table.kinds.items() if column in frame.columns
    }
    guessed = {
        pl.Null(): pl.String(),
        pl.List(pl.Null): pl.List(pl.String),
    }  # what polars makes of empty columns
    others = {
        column: guessed.get(dtype, dtype)
        for column, dtype in frame.schema.items()
        if column not in known
    }
    frame = frame.cast(pl.Schema(known | others))
    texts = [column for column, dtype in frame.schema.items() if dtype == pl.List(pl.String)]
    return frame.with_columns(
        pl.when(pl.col(column).list.len() > 0).then(pl.col(column)) for column in texts
    )


def required(folder: Path, names: Iterable[str], holds: str, how_to_get: str) -> Path:
    """The first of the files `names` that is in `folder`; DataError saying what they hold and how
    to get them.
    """
    names = list(names)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(
        f"{folder} has no {' or '.join(names)}; wanted {holds}; to get it: {how_to_get}"
    )


def optional(folder: Path, name: str, missing: list[str]) -> Path | None:
    """The file `name` of `folder`; None if it is not there, and then `missing` has its name."""
    if (folder / name).is_file():
        return folder / name
    missing.append(name)
    return None


def audio_at(folder: Path, *relatives: str) -> str | None:
    """The absolute path of the first of `relatives` that is a file in `folder`, or None."""
    for relative in relatives:
        try:
            if (folder / relative).is_file():
                return (folder / relative).absolute().as_posix()
        except OSError:  # a name that no file can have
            continue
    return None


LINE = "line"  # the column that holds each row's line, from 1, headers included
_CHUNK_ROWS = 200_000  # rows held as Python objects at a time
_FIRST_YEAR, _LAST_YEAR = 1990, 2100  # as for every listening event
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what bytes that are not UTF-8 become when decoded below
_Row = tuple[int, list[str], str]  # line, fields, what is wrong


def read_rows(
    path: Path,
    columns: Sequence[str],
    *,
    delimiter: str = "\t",
    quoted: bool = False,
    header: Sequence[str] = (),
    n_header: int = 1,
    encoding: str = "utf-8",
) -> tuple[pl.DataFrame, list[SkippedRow]]:
    """`columns` of a text file as stripped text (null where empty), with `line`; and the rows that
    are none.

    quoted: fields may stand in double quotes, with delimiters and line ends inside.
    header: the names of all columns, where the file has none or others; else its first line has
    them.
    n_header: lines before the first row. A `.bz2` is unpacked on the way.

    DataError: the file is empty or unreadable, or lacks one of `columns`.
    """
    rows = (_quoted if quoted else _plain)(_lines(path, encoding), delimiter)
    try:
        names = [name.strip() for name in header]
        for _ in range(n_header):
            _, fields, _ = next(rows)
            names = names or [field.strip() for field in fields]
        places = _places(names, columns, path.name)
        return _collect(rows, columns, places, len(names), path.name)
    except StopIteration:
        raise DataError(
            f"{path.name} is empty; wanted a line that names the columns; get it again"
        ) from None
    except (OSError, EOFError) as error:
        raise DataError(f"{path.name} cannot be read ({error}); get it again") from None


def column_names(path: Path, delimiter: str = "\t") -> list[str]:
    """The names in the first line of a text file, without their quotes."""
    first = next(_lines(path, "utf-8"), "")
    return [name.strip() for name in next(csv.reader([first], delimiter=delimiter), [])]


def refuse(
    frame: pl.DataFrame,
    is_bad: pl.Expr,
    field: str,
    reason: str,
    file: str,
    skipped: list[SkippedRow],
) -> pl.DataFrame:
    """The rows of `frame` where `is_bad` is not true; each other row goes to `skipped` with its
    line.
    """
    frame = frame.with_columns(is_bad.fill_null(False).alias("_bad"))
    bad = frame.filter("_bad").select(LINE, field)
    skipped.extend(
        SkippedRow(file, line, field, truncate_value(value), reason)
        for line, value in bad.iter_rows()
    )
    return frame.filter(~pl.col("_bad")).drop("_bad")


def unique_ids(
    frame: pl.DataFrame, field: str, file: str, skipped: list[SkippedRow]
) -> pl.DataFrame:
    """The rows that have an id in `field` which no earlier row has."""
    frame = refuse(frame, pl.col(field).is_null(), field, "is missing", file, skipped)
    return refuse(
        frame, ~pl.col(field).is_first_distinct(), field, "repeats an earlier id", file, skipped
    )


def numbers(frame: pl.DataFrame, field: str, file: str, skipped: list[SkippedRow]) -> pl.DataFrame:
    """`frame` with the text column `field` as Float64; refuses what is no number >= 0. Null stays
    null.
    """
    value = pl.col(field).cast(pl.Float64, strict=False)
    is_bad = pl.col(field).is_not_null() & ~(value.is_finite() & (value >= 0)).fill_null(False)
    return refuse(frame, is_bad, field, "is not a number from 0 up", file, skipped).with_columns(
        value
    )


def times(frame: pl.DataFrame, field: str, file: str, skipped: list[SkippedRow]) -> pl.DataFrame:
    """`frame` with `field`, such as `2019-02-20 12:28` or `2019-02-20 12:28:01.5`, as UTC; refuses
    what is no time.
    """
    full, short = (
        pl.col(field).str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
        for form in ("%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%d %H:%M")
    )
    frame = frame.with_columns(_time=pl.coalesce(full, short))
    is_bad = ~pl.col("_time").dt.year().is_between(_FIRST_YEAR, _LAST_YEAR).fill_null(False)
    frame = refuse(frame, is_bad, field, "is not a time such as 2019-02-20 12:28:01", file, skipped)
    return frame.drop(field).rename({"_time": field})


def text_list(value: str | None) -> list[str] | None:
    """The texts of a Python list literal such as `['a', 'b']`, [] for None; None if `value` is
    something else.
    """
    if value is None:
        return []
    try:
        parsed = ast.literal_eval(value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return [str(item).strip() for item in parsed] if isinstance(parsed, list) else None


def _lines(path: Path, encoding: str) -> Iterator[str]:
    opener = bz2.open if path.suffix == ".bz2" else open
    with opener(path, "rt", encoding=encoding, errors="surrogateescape", newline="\n") as file:
        for number, line in enumerate(file):
            yield line.removeprefix("\ufeff") if number == 0 else line


def _plain(lines: Iterator[str], delimiter: str) -> Iterator[_Row]:
    for number, line in enumerate(lines, 1):
        if line := line.rstrip("\r\n"):
            yield number, line.split(delimiter), _encoding_problem(line)


def _quoted(lines: Iterator[str], delimiter: str) -> Iterator[_Row]:
    """A broken quote costs its own line: reading starts again at the next."""
    every = list(lines)
    start = 0
    while start < len(every):
        base = start
        reader = csv.reader(
            map(every.__getitem__, range(base, len(every))), delimiter=delimiter, strict=True
        )
        try:
            for fields in reader:
                first, start = start, base + reader.line_num
                if fields:
                    yield first + 1, fields, _encoding_problem("".join(every[first:start]))
        except csv.Error as error:
            yield start + 1, [every[start].rstrip("\r\n")], f"is not valid CSV: {error}"
            start += 1


def _encoding_problem(text: str) -> str:
    return "is not UTF-8" if not text.isascii() and _NOT_UTF8.search(text) else ""


def _places(names: list[str], columns: Sequence[str], file: str) -> list[int]:
    for column in columns:
        if column not in names:
            found = ", ".join(repr(name) for name in names[:8]) + (
                ", ..." if len(names) > 8 else ""
            )
            raise DataError(
                f"{file}: column {column!r} is missing; found {found}; get the file again"
            )
    return [names.index(column) for column in columns]


def _collect(
    rows: Iterator[_Row], columns: Sequence[str], places: list[int], width: int, file: str
) -> tuple[pl.DataFrame, list[SkippedRow]]:
    schema = {LINE: pl.Int64(), **dict.fromkeys(columns, pl.String())}
    frames = [pl.DataFrame(schema=schema)]
    skipped: list[SkippedRow] = []
    chunk: list[list[int | str]] = []
    for line, fields, problem in rows:
        if not problem and len(fields) != width:
            problem = f"has {len(fields)} fields, wanted {width}"
        if problem:
            value = (
                truncate_value("\t".join(fields))
                .encode("utf-8", "surrogateescape")
                .decode("utf-8", "replace")
            )
            skipped.append(SkippedRow(file, line, "", value, problem))
            continue
        chunk.append([line, *(fields[place] for place in places)])
        if len(chunk) == _CHUNK_ROWS:
            frames.append(pl.DataFrame(chunk, schema=schema, orient="row"))
            chunk.clear()
    frames.append(pl.DataFrame(chunk, schema=schema, orient="row"))
    frame = pl.concat(frames).with_columns(pl.col(columns).str.strip_chars())
    return frame.with_columns(
        pl.when(pl.col(column) != "").then(pl.col(column)) for column in columns
    ), skipped
