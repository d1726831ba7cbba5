"""Reads a table file and checks it at the door: good rows go on, every bad row is listed with its line.

A file becomes a `_Raw` (columns as they came, and the line of each row); then each known column is cast to its kind.
Casting is vectorised; only bad rows are visited one by one. Longer than 300 lines because one door has three formats:
what reads them starts at `_read`, what checks them at `_renamed`, and only `read_numbered` calls either.
"""

import codecs
import csv
import difflib
import io
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv

from ponticello.data.columns import DURATION_S, EVENT, EVENTS, PLAYED_S, TRACK_ID, TRACKS, WEIGHT, Kind, Table
from ponticello.errors import DataError
from ponticello.library import Skipped

SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
DTYPES: dict[Kind, pl.DataType] = {
    "text": pl.String(),
    "texts": pl.List(pl.String()),
    "number": pl.Float64(),
    "time": pl.Datetime("us", "UTC"),
}
FIRST_YEAR, LAST_YEAR = 1990, 2100  # a listening event outside is a clock or a unit gone wrong
_NOT_NEGATIVE = (DURATION_S, PLAYED_S, WEIGHT)
_MILLISECONDS_FROM = 1e11  # as Unix seconds the year 5138, as milliseconds 1973
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
_CHUNK_ROWS = 100_000  # rows held as Python objects at a time
_SHOWN = 200  # characters kept of a bad value
_TO_JSON = json.JSONEncoder(ensure_ascii=False, default=str).encode  # made once: json.dumps makes one a call
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what bytes that are not UTF-8 become when decoded below


@dataclass(frozen=True)
class Imported:
    """What an import did, in rows: new, known before and replaced, left out, and in the library now."""

    n_new: int
    n_updated: int
    n_skipped: int
    n_total: int


@dataclass(frozen=True)
class _Raw:
    """Columns as they came, the line of each row, and the lines that are no row."""

    frame: pl.DataFrame
    lines: pl.Series
    skipped: list[Skipped]


def read_table(path: Path, table: Table, rename: Mapping[str, str] | None = None) -> tuple[pl.DataFrame, list[Skipped]]:
    """The good rows of a CSV, TSV, JSONL or Parquet file, and one `Skipped` for each bad row, by line.

    rename: our column name -> the file's own, as in {"track_id": "id"}.
    Known columns are cast to text (String), texts (List(String)), number (Float64, finite) or time (Datetime, UTC);
    they are stripped, and null where empty. Other columns stay as they came.
    A text is split into texts at `;` and `|`. A time is ISO 8601 (UTC where it names no zone), or Unix seconds or
    milliseconds. In `tracks` the first row of an id wins.
    Lines count from 1, the header included; a record over several lines goes by its first. In Parquet: rows from 1.

    DataError: no such file, another format, an empty or unreadable file, a required column that is missing.

        tracks, skipped = read_table(Path("tracks.csv"), TRACKS, {"track_id": "id"})
    """
    frame, _, skipped = read_numbered(path, table, rename)
    return frame, skipped


def read_numbered(
    path: Path, table: Table, rename: Mapping[str, str] | None = None
) -> tuple[pl.DataFrame, pl.Series, list[Skipped]]:
    """`read_table` with the line of every good row between the two, for callers that check further."""
    rename = rename or {}
    raw = _read(path, {rename.get(column, column): kind for column, kind in table.kinds.items()})
    frame = _renamed(raw.frame, table, rename, path.name)
    bad: dict[int, Skipped] = {}  # by row; the first problem found is the one told
    for column in [column for column in table.kinds if column in frame.columns]:
        before = _clean(frame[column])
        after = _cast(before, table.kinds[column], path.name)
        for is_bad, reason in _problems(before, after, table):
            for row in is_bad.arg_true().to_list():
                value = _text(before[row])
                bad.setdefault(row, Skipped(path.name, raw.lines[row], column, (value or "")[:_SHOWN], reason))
        frame = frame.with_columns(after)
    if table.name == TRACKS.name:
        _refuse_repeated(frame[TRACK_ID], raw.lines, path.name, bad)
    good = pl.int_range(frame.height, eager=True)
    good = good.filter(~good.is_in(list(bad))) if bad else good
    skipped = sorted([*raw.skipped, *bad.values()], key=lambda row: row.line or 0)
    return frame[good], raw.lines[good], skipped


def lines_of(data: bytes) -> tuple[list[str], set[int]]:
    """The lines of a text file with their ends, and the numbers (from 1) of those that are not UTF-8."""
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    lines = list(io.StringIO(text, newline=""))
    if not _NOT_UTF8.search(text):
        return lines, set()
    return lines, {number for number, line in enumerate(lines, 1) if _NOT_UTF8.search(line)}


def _read(path: Path, kinds: Mapping[str, Kind]) -> _Raw:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(f"{path.name}: cannot read {suffix or 'a name without ending'!r}; use {', '.join(SUFFIXES)}")
    if not path.is_file():
        raise DataError(f"{path} is not a file; check the path")
    if suffix == ".parquet":
        return _read_parquet(path)
    data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if not data or data.isspace():
        raise DataError(f"{path.name} is empty; wanted at least a line that names the columns")
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(data, path.name, kinds)
    delimiter = "," if suffix == ".csv" else "\t"
    return _read_plain_csv(data, delimiter) or _read_csv(data, delimiter, path.name)


def _read_parquet(path: Path) -> _Raw:
    try:
        frame = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = str(error).partition("\n")[0]
        raise DataError(f"{path.name} is not a readable Parquet file: {first}") from None
    return _Raw(frame, pl.int_range(1, frame.height + 1, eager=True), [])


def _read_plain_csv(data: bytes, delimiter: str) -> _Raw | None:
    """The fast way, for a CSV without quotes or faults; None sends it to `_read_csv`, which says what is wrong."""
    end = data.find(b"\n")
    if end < 0 or b'"' in data:
        return None
    try:
        header = [name.strip() for name in data[:end].decode().split(delimiter)]
        if len(header) == 1 or len(set(header)) < len(header):
            return None
        table = pa.csv.read_csv(
            pa.BufferReader(data),
            pa.csv.ReadOptions(column_names=header, skip_rows=1),
            pa.csv.ParseOptions(delimiter=delimiter, quote_char=False, ignore_empty_lines=False),
            pa.csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string())),
        )
    except (UnicodeDecodeError, pa.ArrowInvalid):
        return None
    n_lines = data.count(b"\n") + (not data.endswith(b"\n"))
    if n_lines != table.num_rows + 1:  # a lone carriage return ended a row
        return None
    return _Raw(pl.DataFrame(table), pl.int_range(2, table.num_rows + 2, eager=True), [])


def _read_csv(data: bytes, delimiter: str, name: str) -> _Raw:
    """The exact way: about 2 us a field, with every fault by its line."""
    lines, not_utf8 = lines_of(data)
    records = _records(lines, delimiter)
    _, end, fields, problem = next(records)
    header = [field.strip() for field in fields]
    if problem or not_utf8 & set(range(1, end + 1)):
        raise DataError(f"{name}: line 1 names the columns but {problem or 'is not UTF-8'}; save the file as UTF-8 CSV")
    if repeated := sorted({column for column in header if header.count(column) > 1}):
        raise DataError(f"{name}: column {repeated[0]!r} is there twice; rename or drop one")
    frames = [pl.DataFrame(schema=dict.fromkeys(header, pl.String))]
    rows: list[list[str]] = []
    numbers: list[int] = []
    skipped = []
    for line, end, fields, problem in records:
        broken = min(not_utf8.intersection(range(line, end + 1)), default=None) if not_utf8 else None
        if broken or problem:
            skipped.append(_bad_line(name, broken or line, lines, "is not UTF-8" if broken else problem))
            continue
        rows.append(fields)
        numbers.append(line)
        if len(rows) == _CHUNK_ROWS:
            frames.append(_frame(header, rows))
            rows.clear()
    return _Raw(pl.concat([*frames, _frame(header, rows)]), pl.Series(numbers, dtype=pl.Int64), skipped)


def _frame(header: list[str], rows: list[list[str]]) -> pl.DataFrame:
    columns = zip(*rows, strict=True) if rows else [()] * len(header)
    return pl.DataFrame([pl.Series(name, column, pl.String) for name, column in zip(header, columns, strict=True)])


def _records(lines: list[str], delimiter: str) -> Iterator[tuple[int, int, list[str], str]]:
    """(first line, last line, fields, problem) of every record. A stray quote costs its own line, not the file."""
    start = width = 0
    while start < len(lines):
        base, problem = start, ""
        reader = csv.reader(map(lines.__getitem__, range(start, len(lines))), delimiter=delimiter, strict=True)
        while not problem and start < len(lines):
            try:
                fields = next(reader)
                end = base + reader.line_num
            except csv.Error as error:
                fields, end, problem = [], start + 1, f"is not valid CSV: {error}"
            width = width or len(fields)
            if fields and len(fields) != width:
                problem = f"has {len(fields)} fields, wanted {width}"
            if fields or problem:
                yield start + 1, end, fields, problem
            start = end


def _read_jsonl(data: bytes, name: str, kinds: Mapping[str, Kind]) -> _Raw:
    lines, not_utf8 = lines_of(data)
    columns: dict[str, list[Any]] = {}
    numbers: list[int] = []
    skipped = []
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        row = None if number in not_utf8 else _json_object(line)
        if row is None:
            reason = "is not UTF-8" if number in not_utf8 else "is not a JSON object"
            skipped.append(_bad_line(name, number, lines, reason))
            continue
        for column in row:
            if column not in columns:
                columns[column] = [None] * len(numbers)
        for column, values in columns.items():
            values.append(row.get(column))
        numbers.append(number)
    if not numbers:
        raise DataError(f"{name}: no line is a JSON object; line {skipped[0].line} {skipped[0].reason}")
    series = [_json_column(column, values, kinds.get(column)) for column, values in columns.items()]
    return _Raw(pl.DataFrame(series), pl.Series(numbers, dtype=pl.Int64), skipped)


def _json_object(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
        if "\\u" in line:
            _TO_JSON(row).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _json_column(name: str, values: list[Any], kind: Kind | None) -> pl.Series:
    """A known column as text, so that a value of a wrong type is one bad row; another as polars reads it."""
    if kind == "texts":
        return pl.Series(name, [_texts(value) for value in values], DTYPES[kind])
    if kind is None:
        try:
            return pl.Series(name, values)
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            pass  # values of several types: their JSON text keeps them all
    return pl.Series(name, [value if type(value) is str else _text(value) for value in values], pl.String)


def _texts(value: Any) -> list[str | None] | None:
    if value is None:
        return None
    return [_text(item) for item in value] if isinstance(value, list) else list(re.split("[;|]", _text(value) or ""))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return _TO_JSON(value)


def _bad_line(name: str, line: int, lines: list[str], reason: str) -> Skipped:
    value = lines[line - 1].rstrip("\r\n")[:_SHOWN]
    return Skipped(name, line, "", value.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), reason)


def _renamed(frame: pl.DataFrame, table: Table, rename: Mapping[str, str], name: str) -> pl.DataFrame:
    """`frame` under our column names; DataError if a required one, or one that `rename` names, is not there."""
    for ours, theirs in rename.items():
        if theirs not in frame.columns:
            raise DataError(f"{name}: column {theirs!r} is missing; {_found(frame.columns)}; correct --columns")
        if ours != theirs and ours in frame.columns and ours not in rename.values():
            raise DataError(f"{name}: column {ours!r} is there already; take {ours}={theirs} out of --columns")
    frame = frame.rename({theirs: ours for ours, theirs in rename.items()})
    for column in table.required:
        if column not in frame.columns:
            others = [found for found in frame.columns if found not in table.kinds]
            closest = difflib.get_close_matches(column, others, n=1, cutoff=0.0)
            advice = f"rename it or pass --columns {column}={closest[0]}" if closest else "add it"
            raise DataError(f"{name}: column {column!r} is missing; {_found(frame.columns)}; {advice}")
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
    """The values in the type of their kind, null where that cannot be; DataError if the whole column cannot."""
    dtype = values.dtype
    if dtype == pl.Null or (kind in ("text", "texts") and dtype == DTYPES[kind]):
        return values.cast(DTYPES[kind])
    if kind == "texts" and dtype == pl.String:
        return _clean(values.str.replace_all("|", ";", literal=True).str.split(";"))
    if kind == "text" and _is_textual(dtype):
        return values.cast(pl.String)
    if kind == "number" and (dtype.is_numeric() or dtype in (pl.String, pl.Null)):
        numbers = values.cast(pl.Float64, strict=False)
        return numbers.set(~numbers.is_finite(), None)
    if (
        kind == "time"
        and dtype not in (pl.Time, pl.Duration)
        and (dtype.is_numeric() or dtype.is_temporal() or dtype == pl.String)
    ):
        return _times(values)
    raise DataError(f"{name}: column {values.name!r} is {dtype}; wanted {kind}, save it as {DTYPES[kind]}")


def _is_textual(dtype: Any) -> bool:
    return not (dtype.is_nested() or dtype in (pl.Binary, pl.Object))


def _times(values: pl.Series) -> pl.Series:
    """UTC moments from dates, ISO 8601 text, or Unix seconds or milliseconds; null outside 1990 to 2100."""
    if values.dtype.is_temporal():
        times = values.cast(DTYPES["time"])
    else:
        numbers = values.cast(pl.Float64, strict=False)
        micros = numbers * pl.select(pl.when(numbers < _MILLISECONDS_FROM).then(1e6).otherwise(1e3)).to_series()
        times = micros.round().cast(pl.Int64, strict=False).cast(DTYPES["time"])
        if values.dtype == pl.String:
            times = pl.select(pl.coalesce(times, _iso_times(values))).to_series()
    return times.set(~times.dt.year().is_between(FIRST_YEAR, LAST_YEAR), None).alias(values.name)


def _iso_times(values: pl.Series) -> pl.Series:
    part = values.str.extract_groups(_ISO_8601).struct
    date = part.field("date").str.replace_all("-", "", literal=True)
    clock = [part.field(name).fill_null("00") for name in ("hour", "minute", "second", "part")]
    zone = [part.field("zone").fill_null("+00"), part.field("zone_minute").fill_null("00")]
    text = pl.select(pl.format("{}T{}:{}:{}.{}{}:{}", date, *clock, *zone)).to_series()
    return text.str.to_datetime("%Y%m%dT%H:%M:%S%.f%:z", time_unit="us", time_zone="UTC", strict=False)


def _problems(before: pl.Series, after: pl.Series, table: Table) -> Iterator[tuple[pl.Series, str]]:
    """(which rows, why) of everything that can be wrong with one column."""
    column = after.name
    if column in table.required:
        yield before.is_null(), "is missing"
    yield before.is_not_null() & after.is_null(), _REASONS[table.kinds[column]]
    if column in _NOT_NEGATIVE:
        yield (after < 0).fill_null(False), "is negative"
    if column == EVENT:
        yield after.is_not_null() & ~after.is_in(EVENTS), f"is not one of {', '.join(EVENTS)}"


def _refuse_repeated(ids: pl.Series, lines: pl.Series, name: str, bad: dict[int, Skipped]) -> None:
    """Adds to `bad` every further row of an id that a good row has had."""
    rows = pl.DataFrame({"row": pl.int_range(len(ids), eager=True), "id": ids, "line": lines})
    good = rows.filter(~pl.col("row").is_in(list(bad))) if bad else rows
    repeated = good.with_columns(first=pl.col("line").first().over("id")).filter(pl.col("line") != pl.col("first"))
    for row, track_id, line, first in repeated.iter_rows():
        bad[row] = Skipped(name, line, TRACK_ID, track_id[:_SHOWN], f"repeats the id of line {first}")
