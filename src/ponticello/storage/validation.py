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
from ponticello.storage import schema
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import Kind, Table
from ponticello.storage.tables import RawTable, read_raw, truncate_value

DTYPES: dict[Kind, pl.DataType] = {
    "text": pl.String(),
    "texts": pl.List(pl.String()),
    "number": pl.Float64(),
    "time": pl.Datetime("us", "UTC"),
}
FIRST_YEAR, LAST_YEAR = 1990, 2100  # a listening event outside is a clock or a unit gone wrong
_NOT_NEGATIVE = (schema.DURATION_S, schema.PLAYED_S, schema.WEIGHT)
MILLISECONDS_FROM = 1e11  # as Unix seconds the year 5138, as milliseconds 1973
_ISO_8601 = (
    r"^(?<date>\d{4}-?\d\d-?\d\d)"
    r"(?:[Tt ](?<hour>\d\d):?(?<minute>\d\d)(?::?(?<second>\d\d)(?:[.,](?<fraction>\d+))?)?)?"
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
) -> tuple[pl.DataFrame, pl.Series, list[SkippedRow]]:
    """Reads a CSV, TSV, JSONL or Parquet file: (good rows, their lines, bad rows).

    rename: our column name -> the file's own, as in {"track_id": "id"}.
    Known columns are cast to text (String), texts (List(String)), number (Float64, finite) or time
    (Datetime, UTC); they are stripped, and null where empty. Other columns stay as they came. A
    text is split into texts at `;` and `|`. A time is ISO 8601 (UTC where it names no zone), or
    Unix seconds or milliseconds. In `tracks` the first row of an id wins. Lines count from 1, the
    header included; in Parquet, rows do.

    DataError: as `read_raw`, or a required column is missing.
    """
    raw = read_raw(path, path.name, raw_kinds(table, rename))
    return validate_table(raw, path.name, table, rename)


def raw_kinds(table: Table, rename: Mapping[str, str] | None) -> dict[str, Kind]:
    """Returns the kinds of a table's columns by their names in a file."""
    return {(rename or {}).get(column, column): kind for column, kind in table.kinds.items()}


def validate_table(
    raw: RawTable, name: str, table: Table, rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, pl.Series, list[SkippedRow]]:
    """As `read_table`, of a table in memory. name: its name in lists and errors."""
    frame = _renamed(raw.frame, table, rename or {}, name)
    bad: dict[int, SkippedRow] = {}  # by row, with its first problem
    for column in table.kinds:
        if column not in frame.columns:
            continue
        before = _clean(frame[column])
        after = _cast(before, table.kinds[column], name)
        for is_bad, reason in _problems(before, after, table):
            for row in is_bad.arg_true():
                value = truncate_value(before[row])
                bad.setdefault(row, SkippedRow(name, raw.lines[row], column, value, reason))
        frame = frame.with_columns(after)
    rows = pl.DataFrame({"line": raw.lines}).with_row_index("row")
    rows = rows.filter(~pl.col("row").is_in(pl.Series(list(bad), dtype=pl.UInt32).implode()))
    if table.name == schema.TRACKS.name:
        rows = rows.with_columns(frame[schema.TRACK_ID][rows["row"]])
        rows = rows.with_columns(first=pl.col("line").first().over(schema.TRACK_ID))
        is_first = pl.col("line") == pl.col("first")
        for row, line, track_id, first in rows.filter(~is_first).iter_rows():
            reason = f"repeats the id of line {first}"
            bad[row] = SkippedRow(name, line, schema.TRACK_ID, truncate_value(track_id), reason)
        rows = rows.filter(is_first)
    skipped = raw.skipped + list(bad.values())
    skipped.sort(key=lambda row: row.line or 0)
    return frame[rows["row"]], rows["line"], skipped


def _renamed(
    frame: pl.DataFrame, table: Table, rename: Mapping[str, str], name: str
) -> pl.DataFrame:
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
        text = pl.element().cast(pl.String).str.strip_chars()
        values = values.cast(pl.List(values.dtype.inner)).list.eval(text.filter(text != ""))
        return values.set(values.list.len() == 0, None)
    if values.dtype in (pl.Categorical, pl.Enum):
        values = values.cast(pl.String)
    if values.dtype != pl.String:
        return values
    values = values.str.strip_chars()
    return values.set(values == "", None)


def _cast(values: pl.Series, kind: Kind, name: str) -> pl.Series:
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
    """Returns UTC moments of dates, ISO 8601 or Unix times; null outside 1990 to 2100."""
    if values.dtype.is_temporal():
        times = values.cast(DTYPES["time"])
    else:
        numbers = values.cast(pl.Float64, strict=False)
        unit_us = pl.select(pl.when(numbers < MILLISECONDS_FROM).then(1e6).otherwise(1e3))
        micros = (numbers * unit_us.to_series()).round()
        times = micros.cast(pl.Int64, strict=False).cast(DTYPES["time"])
        if values.dtype == pl.String:
            times = pl.select(pl.coalesce(_iso_times(values), times)).to_series()
    return times.set(~times.dt.year().is_between(FIRST_YEAR, LAST_YEAR), None).alias(values.name)


def _iso_times(values: pl.Series) -> pl.Series:
    groups = values.str.extract_groups(_ISO_8601).struct.unnest()
    iso = pl.format(
        "{}T{}:{}:{}.{}{}:{}",
        pl.col("date").str.replace_all("-", "", literal=True),
        pl.col("hour").fill_null("00"),
        pl.col("minute").fill_null("00"),
        pl.col("second").fill_null("00"),
        pl.col("fraction").fill_null("00"),
        pl.col("zone").fill_null("+00"),
        pl.col("zone_minute").fill_null("00"),
    )
    time = iso.str.to_datetime(
        "%Y%m%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False
    )
    return groups.select(time).to_series()


def _problems(before: pl.Series, after: pl.Series, table: Table) -> Iterator[tuple[pl.Series, str]]:
    """Yields (which rows, why) of every problem of one column."""
    column = after.name
    if column in table.required:
        yield before.is_null(), "is missing"
    yield before.is_not_null() & after.is_null(), _REASONS[table.kinds[column]]
    if column in _NOT_NEGATIVE:
        yield (after < 0).fill_null(False), "is negative"
    if column == schema.WEIGHT:
        yield (after > schema.WEIGHT_LIMIT).fill_null(False), f"is above {schema.WEIGHT_LIMIT:,}"
    if column == schema.EVENT:
        yield (
            after.is_not_null() & ~after.is_in(schema.EVENTS),
            f"is not one of {', '.join(schema.EVENTS)}",
        )
