"""Checks a table at the door: good rows go on in their columns' types, every bad row is listed with
its line.

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
    r"^(?<date>\d{4}-?\d\d-?\d\d)(?:[Tt ](?<hour>\d\d):?(?<minute>\d\d)(?::?(?<second>\d\d)(?:[.,](?<part>\d+))?)?)?"
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
    """What an import did, in rows: new, known before and replaced, left out, and in the library
    now.
    """

    n_new: int
    n_updated: int
    n_skipped: int
    n_total: int


def read_table(
    path: Path, table: Table, rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, list[SkippedRow]]:
    """The good rows of a CSV, TSV, JSONL or Parquet file, and one `SkippedRow` for each bad row, by
    line.

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
    """`read_table` with the line of every good row between the two, for callers that check further."""
    return validate_table(read_raw(path, raw_kinds(table, rename)), path.name, table, rename)


def raw_kinds(table: Table, rename: Mapping[str, str] | None) -> dict[str, Kind]:
    """The kinds of a table's columns by the names that a file gives them."""
    return {(rename or {}).get(column, column): kind for column, kind in table.kinds.items()}


def validate_table(
    raw: RawTable, name: str, table: Table, rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, pl.Series, list[SkippedRow]]:
    """`read_numbered` of a table that is in memory. name: what lists and errors call it."""
    frame = _renamed(raw.frame, table, rename or {}, name)
    bad: dict[int, SkippedRow] = {}  # by row; the first problem found is the one told
    for column in [column for column in table.kinds if column in frame.columns]:
        before = _clean(frame[column])
        after = _cast(before, table.kinds[column], name)
        for is_bad, reason in _problems(before, after, table):
            for row in is_bad.arg_true().to_list():
                bad.setdefault(
                    row,
                    SkippedRow(name, raw.lines[row], column, truncate_value(before[row]), reason),
                )
        frame = frame.with_columns(after)
    if table.name == TRACKS.name:
        _refuse_repeated(frame[TRACK_ID], raw.lines, name, bad)
    good = pl.int_range(frame.height, eager=True)
    good = good.filter(~good.is_in(list(bad))) if bad else good
    skipped = sorted([*raw.skipped, *bad.values()], key=lambda row: row.line or 0)
    return frame[good], raw.lines[good], skipped


def _renamed(
    frame: pl.DataFrame, table: Table, rename: Mapping[str, str], name: str
) -> pl.DataFrame:
    """`frame` under our column names; DataError if a required one, or one that `rename` names, is
    not there.
    """
    for ours, theirs in rename.items():
        if theirs not in frame.columns:
            raise DataError(
                f"{name}: column {theirs!r} is missing; {_found(frame.columns)}; correct --columns"
            )
        if ours != theirs and ours in frame.columns and ours not in rename.values():
            raise DataError(
                f"{name}: column {ours!r} is there already; take {ours}={theirs} out of --columns"
            )
    frame = frame.rename({theirs: ours for ours, theirs in rename.items()})
    for column in table.required:
        if column not in frame.columns:
            others = [found for found in frame.columns if found not in table.kinds]
            closest = difflib.get_close_matches(column, others, n=1, cutoff=0.0)
            advice = f"rename it or pass --columns {column}={closest[0]}" if closest else "add it"
            raise DataError(
                f"{name}: column {column!r} is missing; {_found(frame.columns)}; {advice}"
            )
    return frame


def _found(columns: list[str]) -> str:
    shown = ", ".join(repr(column) for column in columns[:8])
    return f"found {shown}, ..." if len(columns) > 8 else f"found {shown or 'none'}"


def _clean(values: pl.Series) -> pl.Series:
    """The same values with text stripped; null where nothing is left."""
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
    """The values in the type of their kind, null where that cannot be; DataError if the whole
    column cannot.
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
    """UTC moments from dates, ISO 8601 text, or Unix seconds or milliseconds; null outside 1990 to
    2100.
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
    clock = [part.field(name).fill_null("00") for name in ("hour", "minute", "second", "part")]
    zone = [part.field("zone").fill_null("+00"), part.field("zone_minute").fill_null("00")]
    text = pl.select(pl.format("{}T{}:{}:{}.{}{}:{}", date, *clock, *zone)).to_series()
    return text.str.to_datetime(
        "%Y%m%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False
    )


def _problems(before: pl.Series, after: pl.Series, table: Table) -> Iterator[tuple[pl.Series, str]]:
    """(which rows, why) of everything that can be wrong with one column."""
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
