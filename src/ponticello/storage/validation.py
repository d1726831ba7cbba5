"""Checks the values of a table: returns good rows in their columns' types, lists bad ones by line.

Each known column is cast to its kind. Casting is vectorised; only bad rows are visited one by one.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import (
    DURATION_S,
    EVENT,
    EVENTS,
    PLAYED_S,
    TRACK_ID,
    TRACKS,
    WEIGHT,
    WEIGHT_LIMIT,
    Kind,
    Table,
)
from ponticello.storage.tables import RawTable, read_raw, truncate_value

DTYPES: dict[Kind, pl.DataType] = {
    "text": pl.String(),
    "texts": pl.List(pl.String()),
    "number": pl.Float64(),
    "time": pl.Datetime("us", "UTC"),
}
FIRST_YEAR, LAST_YEAR = 1990, 2100  # a listening event outside is a clock or a unit gone wrong
_NOT_NEGATIVE = (DURATION_S, PLAYED_S, WEIGHT)
MILLISECONDS_FROM = 1e11  # as Unix seconds the year 5138, as milliseconds 1973
_ISO_8601 = (
    r"^(?<date>\d{4}-?\d\d-?\d\d)"
    r"(?:[Tt ](?<hour>\d\d):?(?<minute>\d\d)(?::?(?<second>\d\d)(?:[.,](?<part>\d+))?)?)?"
    r"\s*(?:[Zz]|(?<zone>[+-]\d\d):?(?<zone_minute>\d\d)?)?$"
)
_REASONS: dict[Kind, str] = {
    "text": "is not text",
    "texts": "is not a list of texts",
    "number": "is not a finite number",
    "time": f"is not a date (ISO 8601 or Unix time, {FIRST_YEAR} to {LAST_YEAR})",
}


@dataclass(frozen=True)
class ImportResult:
    """The result of an import, in rows. n_updated: known before and replaced. n_total: now."""

    n_new: int
    n_updated: int
    n_skipped: int
    n_total: int


def read_table(
    path: Path, table: Table, rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, list[SkippedRow]]:
    """Returns the good rows of a CSV, TSV, JSONL or Parquet file, and the bad ones by line.

    rename: our column name -> the file's own, as in {"track_id": "id"}.
    Known columns are cast to text (String), texts (List(String)), number (Float64, finite) or time
    (Datetime, UTC); they are stripped, and null where empty. Other columns stay as they came. A
    text is split into texts at `;` and `|`. A time is ISO 8601 (UTC where it names no zone), or
    Unix seconds or milliseconds. In `tracks` the first row of an id wins. Lines count from 1, the
    header included; a record over several lines goes by its first. In Parquet: rows from 1.

    DataError: no such file, another format, an empty or unreadable file, a required column that is
    missing.

        tracks, skipped = read_table(Path("tracks.csv"), TRACKS, {"track_id": "id"})
    """
    frame, _, skipped = read_numbered(path, table, rename)
    return frame, skipped


def read_numbered(
    path: Path, table: Table, rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, pl.Series, list[SkippedRow]]:
    """As `read_table`, with the lines of the good rows between the two."""
    return validate_table(read_raw(path, raw_kinds(table, rename)), path.name, table, rename)


def raw_kinds(table: Table, rename: Mapping[str, str] | None) -> dict[str, Kind]:
    """Returns the kinds of a table's columns by their names in a file."""
    return {(rename or {}).get(column, column): kind for column, kind in table.kinds.items()}


def validate_table(
    raw: RawTable, name: str, table: Table, rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, pl.Series, list[SkippedRow]]:
    """As `read_numbered`, of a table in memory. name: its name in lists and errors."""
    frame = _renamed(raw.frame, table, rename or {}, name)
    bad: dict[int, SkippedRow] = {}  # by row, with its first problem
    for column in table.kinds:
        if column not in frame.columns:
            continue
        before = _clean(frame[column])
        after = _cast(before, table.kinds[column], name)
        for is_bad, reason in _problems(before, after, table):
            for row in is_bad.arg_true().to_list():
                value = truncate_value(before[row])
                bad.setdefault(row, SkippedRow(name, raw.lines[row], column, value, reason))
        frame = frame.with_columns(after)
    if table.name == TRACKS.name:
        _refuse_repeated(frame[TRACK_ID], raw.lines, name, bad)
    good = pl.int_range(frame.height, eager=True)
    good = good.filter(~good.is_in(list(bad))) if bad else good
    skipped = raw.skipped + list(bad.values())
    skipped.sort(key=lambda row: row.line or 0)
    return frame[good], raw.lines[good], skipped


def _renamed(
    frame: pl.DataFrame, table: Table, rename: Mapping[str, str], name: str
) -> pl.DataFrame:
    """Renames columns to our names; DataError if one of `rename` or a required one is missing."""
    for column, old in rename.items():
        if old not in frame.columns:
            raise DataError(
                f"{name}: column {old!r} is missing; {_found(frame.columns)}; correct --columns"
            )
        if column != old and column in frame.columns and column not in rename.values():
            raise DataError(
                f"{name}: column {column!r} is there already; take {column}={old} out of --columns"
            )
    frame = frame.rename({old: column for column, old in rename.items()})
    for column in table.required:
        if column not in frame.columns:
            unknown = [present for present in frame.columns if present not in table.kinds]
            closest = difflib.get_close_matches(column, unknown, n=1, cutoff=0.0)
            advice = f"rename it or pass --columns {column}={closest[0]}" if closest else "add it"
            raise DataError(
                f"{name}: column {column!r} is missing; {_found(frame.columns)}; {advice}"
            )
    return frame


def _found(columns: list[str]) -> str:
    shown = ", ".join(repr(column) for column in columns[:8])
    return f"found {shown}, ..." if len(columns) > 8 else f"found {shown or 'none'}"


def _clean(values: pl.Series) -> pl.Series:
    """Strips text; null where it is empty."""
    if isinstance(values.dtype, pl.List | pl.Array) and _is_textual(values.dtype.inner):
        part = pl.element().cast(pl.String).str.strip_chars()
        values = values.cast(pl.List(values.dtype.inner)).list.eval(part.filter(part != ""))
        return values.set(values.list.len() == 0, None)
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype != pl.String:
        return values
    values = values.str.strip_chars()
    return values.set(values == "", None)


def _cast(values: pl.Series, kind: Kind, name: str) -> pl.Series:
    """Casts values to the type of their kind, else to null; DataError if the column's type cannot
    be cast.
    """
    dtype = values.dtype
    if dtype == pl.Null or (kind in ("text", "texts") and dtype == DTYPES[kind]):
        return values.cast(DTYPES[kind])
    if kind == "texts" and dtype == pl.String:
        return _clean(values.str.replace_all("|", ";", literal=True).str.split(";"))
    if kind == "text" and _is_textual(dtype):
        return values.cast(pl.String)
    if kind == "number" and (dtype.is_numeric() or dtype == pl.String):
        numbers = values.cast(pl.Float64, strict=False)
        return numbers.set(~numbers.is_finite(), None)
    if kind == "time" and (dtype.is_numeric() or dtype in (pl.String, pl.Date, pl.Datetime)):
        return _times(values)
    raise DataError(
        f"{name}: column {values.name!r} is {dtype}; wanted {kind}, save it as {DTYPES[kind]}"
    )


def _is_textual(dtype: Any) -> bool:
    return not (dtype.is_nested() or dtype in (pl.Binary, pl.Object))


def _times(values: pl.Series) -> pl.Series:
    """Returns UTC moments from dates, ISO 8601 text, or Unix seconds or milliseconds.

    Null outside 1990 to 2100.
    """
    if values.dtype.is_temporal():
        times = values.cast(DTYPES["time"])
    else:
        numbers = values.cast(pl.Float64, strict=False)
        micros = (
            numbers
            * pl.select(pl.when(numbers < MILLISECONDS_FROM).then(1e6).otherwise(1e3)).to_series()
        )
        times = micros.round().cast(pl.Int64, strict=False).cast(DTYPES["time"])
        if values.dtype == pl.String:
            times = pl.select(pl.coalesce(_iso_times(values), times)).to_series()
    return times.set(~times.dt.year().is_between(FIRST_YEAR, LAST_YEAR), None).alias(values.name)


def _iso_times(values: pl.Series) -> pl.Series:
    part = values.str.extract_groups(_ISO_8601).struct
    date = part.field("date").str.replace_all("-", "", literal=True)
    iso = pl.format(
        "{}T{}:{}:{}.{}{}:{}",
        date,
        part.field("hour").fill_null("00"),
        part.field("minute").fill_null("00"),
        part.field("second").fill_null("00"),
        part.field("part").fill_null("00"),
        part.field("zone").fill_null("+00"),
        part.field("zone_minute").fill_null("00"),
    )
    text = pl.select(iso).to_series()
    return text.str.to_datetime(
        "%Y%m%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False
    )


def _problems(before: pl.Series, after: pl.Series, table: Table) -> Iterator[tuple[pl.Series, str]]:
    """Yields (which rows, why) of every problem of one column."""
    column = after.name
    if column in table.required:
        yield before.is_null(), "is missing"
    yield before.is_not_null() & after.is_null(), _REASONS[table.kinds[column]]
    if column in _NOT_NEGATIVE:
        yield (after < 0).fill_null(False), "is negative"
    if column == WEIGHT:
        yield (after > WEIGHT_LIMIT).fill_null(False), f"is above {WEIGHT_LIMIT:,}"
    if column == EVENT:
        yield after.is_not_null() & ~after.is_in(EVENTS), f"is not one of {', '.join(EVENTS)}"


def _refuse_repeated(
    ids: pl.Series, lines: pl.Series, name: str, bad: dict[int, SkippedRow]
) -> None:
    """Adds to `bad` every further row of an id that a good row has had."""
    rows = pl.DataFrame({"row": pl.int_range(len(ids), eager=True), "id": ids, "line": lines})
    good = rows.filter(~pl.col("row").is_in(list(bad))) if bad else rows
    repeated = good.with_columns(first=pl.col("line").first().over("id")).filter(
        pl.col("line") != pl.col("first")
    )
    for row, track_id, line, first in repeated.iter_rows():
        bad[row] = SkippedRow(
            name, line, TRACK_ID, truncate_value(track_id), f"repeats the id of line {first}"
        )
