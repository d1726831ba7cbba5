"""Reads table files (CSV, TSV, JSONL, Parquet): their raw columns, and the line of every row.

Only the format is checked here; `validation` checks the values. In the path of a Parquet file,
`[ ] * ?` are letters, never a pattern.
"""

import codecs
import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from ponticello.errors import DataError, PonticelloError
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import Kind


def read_parquet(
    source: Path | bytes, name: str, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    """Returns the rows of a Parquet file or of its bytes; only `columns`, if they are given.

    DataError: it is missing, damaged or no Parquet file, or lacks a column. name: in the error.
    """
    with _readable(name):
        with _opened(source) as file:
            table = file.read(columns=columns)
        table.validate(full=True)
        frame = pl.DataFrame(pl.from_arrow(table))
        return frame if columns is None else frame.select(columns)


def scan_parquet(path: Path) -> pl.LazyFrame:
    """As `read_parquet`, without loading the rows; DataError if the footer cannot be read."""
    with _readable(path.name):
        with _opened(path):
            rows = pl.scan_parquet(path, glob=False)
        rows.collect_schema()
        return rows


def count_rows(path: Path) -> int:
    """Returns the number of rows of a Parquet file, by its footer; DataError as `scan_parquet`."""
    with _readable(path.name), _opened(path) as file:
        n_rows: int = file.metadata.num_rows
        return n_rows


def write_parquet(path: Path, frame: pl.DataFrame) -> None:
    """Replaces a table of the library in one step."""
    with atomic_write(path) as temporary:
        frame.write_parquet(temporary, compression="zstd")


@contextmanager
def wrap_read_errors(path: Path) -> Iterator[None]:
    """Raises DataError for an error of the block if `path` is damaged.

    Lazy rows show damage only when they are read, each engine with errors of its own, and polars
    may panic. If the error does not name Parquet, the file is read to find out.
    """
    try:
        yield
    except PonticelloError:
        raise
    except (Exception, pl.exceptions.PanicException) as error:
        with _readable(path.name):
            is_panic = isinstance(error, pl.exceptions.PanicException)
            if is_panic or str(error).startswith("parquet: "):
                raise
            with _opened(path) as file:
                for number in range(file.num_row_groups):
                    file.read_row_group(number).validate(full=True)
        raise


def _opened(source: Path | bytes) -> pq.ParquetFile:
    file = pa.OSFile(str(source)) if isinstance(source, Path) else pa.BufferReader(source)
    return pq.ParquetFile(file)


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Raises DataError for errors of pyarrow, which reads first, since polars may panic."""
    try:
        yield
    except (
        OSError,
        ValueError,
        pa.ArrowException,
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
    ) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name} cannot be read as Parquet ({reason})") from None


SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_CHUNK_ROWS = 100_000  # rows held as Python objects at a time
_SHOWN = 200  # characters kept of a bad value
# Made once: json.dumps makes an encoder per call.
_TO_JSON = json.JSONEncoder(ensure_ascii=False, default=str).encode
_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes that are not UTF-8, decoded by surrogateescape


@dataclass(frozen=True)
class RawTable:
    """Columns as they came.

    lines: the line of each row, in Parquet its number from 1. skipped: lines that are no row.
    """

    frame: pl.DataFrame
    lines: pl.Series
    skipped: list[SkippedRow]


def read_raw(content: Path | bytes, name: str, kinds: Mapping[str, Kind]) -> RawTable:
    """Reads the rows of a file or of its bytes; the suffix of `name`, in `SUFFIXES`, is its format.

    CSV gives text columns. Parquet gives its own types. JSONL gives text for the columns in `kinds`
    (lists of text where the kind is "texts") and what polars makes of the others.

    DataError: no such file, another suffix, an empty or unreadable file, a header that cannot be
    used. It calls the file `name`.
    """
    suffix = Path(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise DataError(
            f"{name}: cannot read {suffix or 'a name without ending'!r}; use {', '.join(SUFFIXES)}"
        )
    if isinstance(content, Path) and not content.is_file():
        raise DataError(f"{content} is not a file; check the path")
    if suffix == ".parquet":
        frame = read_parquet(content, name)
        return RawTable(frame, pl.int_range(1, frame.height + 1, eager=True), [])
    data = content if isinstance(content, bytes) else content.read_bytes()
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data or data.isspace():
        raise DataError(f"{name} is empty; wanted at least a line that names the columns")
    if suffix in (".jsonl", ".ndjson"):
        return _read_jsonl(data, name, kinds)
    delimiter = "," if suffix == ".csv" else "\t"
    return _read_plain_csv(data, delimiter) or _read_csv(data, delimiter, name)


def lines_of(data: bytes) -> tuple[list[str], set[int]]:
    """Returns the lines of a text file with their ends, and the numbers of those not in UTF-8."""
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", "surrogateescape")
    lines = list(io.StringIO(text, newline=""))
    if not _SURROGATE.search(text):
        return lines, set()
    return lines, {number for number, line in enumerate(lines, 1) if _SURROGATE.search(line)}


def parse_json_object(text: str) -> dict[str, Any]:
    """Parses one JSON object; ValueError as in `check_json_object`."""
    try:
        item = json.loads(text)
    except (ValueError, RecursionError):
        item = None
    return check_json_object(item, text)


def check_json_object(item: Any, text: str) -> dict[str, Any]:
    """Returns `item`, an object that was parsed from `text`; ValueError gives the reason if not.

    Bytes that are not UTF-8 must have become surrogates in `text` ("surrogateescape").
    """
    if _SURROGATE.search(text):
        raise ValueError("is not UTF-8")
    if not isinstance(item, dict):
        raise ValueError("is not a JSON object")
    if "\\u" in text and _SURROGATE.search(_TO_JSON(item)):
        raise ValueError("is not text: half a surrogate pair")
    return item


def truncate_value(value: Any) -> str:
    """Returns the first 200 characters of a value for a list of skipped rows; "" for None."""
    return (_text(value) or "")[:_SHOWN]


def _bad_line(name: str, line: int, lines: list[str], reason: str) -> SkippedRow:
    value = truncate_value(lines[line - 1].rstrip("\r\n"))
    printable = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return SkippedRow(name, line, "", printable, reason)


def _read_plain_csv(data: bytes, delimiter: str) -> RawTable | None:
    """Reads a CSV without quotes and faults fast; None for any other, which `_read_csv` reads."""
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
    return RawTable(pl.DataFrame(table), pl.int_range(2, table.num_rows + 2, eager=True), [])


def _read_csv(data: bytes, delimiter: str, name: str) -> RawTable:
    lines, not_utf8 = lines_of(data)
    records = _records(lines, delimiter)
    _, end, fields, problem = next(records)
    header = [field.strip() for field in fields]
    if problem or not_utf8 & set(range(1, end + 1)):
        raise DataError(
            f"{name}: line 1 names the columns but {problem or 'is not UTF-8'}; "
            "save the file as UTF-8 CSV"
        )
    if repeated := sorted({column for column in header if header.count(column) > 1}):
        raise DataError(f"{name}: column {repeated[0]!r} is there twice; rename or drop one")
    schema = dict.fromkeys(header, pl.String)
    frames = []
    rows: list[list[str]] = []
    numbers: list[int] = []
    skipped = []
    for line, end, fields, problem in records:
        broken_lines = not_utf8.intersection(range(line, end + 1)) if not_utf8 else ()
        if broken_lines:
            skipped.append(_bad_line(name, min(broken_lines), lines, "is not UTF-8"))
        elif problem:
            skipped.append(_bad_line(name, line, lines, problem))
        else:
            rows.append(fields)
            numbers.append(line)
        if len(rows) == _CHUNK_ROWS:
            frames.append(pl.DataFrame(rows, schema, orient="row"))
            rows = []
    frames.append(pl.DataFrame(rows, schema, orient="row"))
    return RawTable(pl.concat(frames), pl.Series(numbers, dtype=pl.Int64), skipped)


def _records(lines: list[str], delimiter: str) -> Iterator[tuple[int, int, list[str], str]]:
    """Yields (first line, last line, fields, problem); a stray quote costs its own line only."""
    start = width = 0
    while start < len(lines):
        base = start
        problem = ""
        remaining = map(lines.__getitem__, range(start, len(lines)))  # islice would be quadratic
        reader = csv.reader(remaining, delimiter=delimiter, strict=True)
        while not problem and start < len(lines):
            try:
                fields = next(reader)
                end = base + reader.line_num
            except csv.Error as error:
                fields = []
                end = start + 1
                problem = f"is not valid CSV: {error}"
            width = width or len(fields)
            if fields and len(fields) != width:
                problem = f"has {len(fields)} fields, wanted {width}"
            if fields or problem:
                yield start + 1, end, fields, problem
            start = end


def _read_jsonl(data: bytes, name: str, kinds: Mapping[str, Kind]) -> RawTable:
    lines, _ = lines_of(data)
    columns: dict[str, list[Any]] = {}
    numbers: list[int] = []
    skipped = []
    for number, line in enumerate(lines, 1):
        if line.isspace():
            continue
        try:
            row = parse_json_object(line)
        except ValueError as error:
            skipped.append(_bad_line(name, number, lines, str(error)))
            continue
        for column, value in row.items():
            values = columns.setdefault(column, [])
            values += [None] * (len(numbers) - len(values))  # earlier rows without this key
            values.append(value)
        numbers.append(number)
    if not numbers:
        raise DataError(
            f"{name}: no line is a JSON object; line {skipped[0].line} {skipped[0].reason}"
        )
    series = []
    for column, values in columns.items():
        values += [None] * (len(numbers) - len(values))
        series.append(_json_column(column, values, kinds.get(column)))
    return RawTable(pl.DataFrame(series), pl.Series(numbers, dtype=pl.Int64), skipped)


def _json_column(name: str, values: list[Any], kind: Kind | None) -> pl.Series:
    """Returns a known column as text, so that a value of a wrong type is one bad row.

    Another column is as polars reads it, or the JSON text of each value where polars would lose
    something, such as a key that the first object lacks.
    """
    if kind == "texts":
        return pl.Series(name, [_texts(value) for value in values], pl.List(pl.String()))
    if kind is None:
        try:
            series = pl.Series(name, values)
            if not series.dtype.is_nested() or series.to_list() == values:
                return series
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            pass  # values of several types
    return pl.Series(name, [_text(value) for value in values], pl.String)


def _texts(value: Any) -> list[str | None] | None:
    if value is None:
        return None
    if isinstance(value, list):
        return [_text(item) for item in value]
    return list(re.split("[;|]", _text(value) or ""))


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return ", ".join(value)
    return _TO_JSON(value)
