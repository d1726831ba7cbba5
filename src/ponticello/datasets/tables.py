"""Reads the files of public data sets and turns them into tables of a library.

`SetFolder` finds a set's files and reads delimited text. `CheckedRows` holds the rows of one file;
its methods drop bad rows and record each with its line and the reason. The delimiter and the
quoting come from the caller, since these sets call TAB-separated files `.csv`.
"""

import ast
import bz2
import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import polars as pl

from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import INTERACTIONS, PATH, TRACKS, Table
from ponticello.storage.tables import truncate_value
from ponticello.storage.validation import DTYPES

OUTSIDE = r"^[/\\]|(^|[/\\])\.\.([/\\]|$)"  # a path that leads out of the set's folder
LINE = "line"  # column of each row's line in its file, from 1, headers included
_CHUNK_ROWS = 200_000  # rows held as Python objects at a time
_FIRST_YEAR = 1990
_LAST_YEAR = 2100
_FLAGS = {"True": True, "False": False}
_NOT_UTF8 = re.compile("[\ud800-\udfff]")  # what bytes that are not UTF-8 are decoded to
_Row = tuple[int, list[str], str]  # line, fields, problem


@dataclass(frozen=True)
class Content:
    """A public set as tables.

    tracks: one row per track, `track_id` unique; columns of `TRACKS`, and the set's own splits.
    interactions: columns of `INTERACTIONS`, or None for a set without listeners; every `track_id`
        is in `tracks`.
    skipped: rows that could not be used. missing: files that were not found.
    """

    tracks: pl.DataFrame
    interactions: pl.DataFrame | None
    skipped: list[SkippedRow]
    missing: list[str]


class CheckedRows:
    """The rows of one file, `frame`; the methods move bad rows to `skipped`."""

    def __init__(self, frame: pl.DataFrame, file: str, skipped: list[SkippedRow]) -> None:
        self.frame = frame
        self.file = file
        self._skipped = skipped

    def refuse(self, is_bad: pl.Expr, field: str, reason: str) -> None:
        """Drops the rows where `is_bad` is true; null counts as false."""
        frame = self.frame.with_columns(is_bad.fill_null(False).alias("_bad"))
        for line, value in frame.filter("_bad").select(LINE, field).iter_rows():
            self._skipped.append(SkippedRow(self.file, line, field, truncate_value(value), reason))
        self.frame = frame.filter(~pl.col("_bad")).drop("_bad")

    def require(self, *fields: str) -> None:
        """Drops rows without a value in one of `fields`."""
        for field in fields:
            self.refuse(pl.col(field).is_null(), field, "is missing")

    def require_unique(self, field: str) -> None:
        """Drops rows without an id in `field`, or with the id of an earlier row."""
        self.require(field)
        self.refuse(~pl.col(field).is_first_distinct(), field, "repeats an earlier id")

    def parse_numbers(self, *fields: str) -> None:
        """Makes text columns Float64; drops rows with other values than numbers >= 0 and nulls."""
        for field in fields:
            value = pl.col(field).cast(pl.Float64, strict=False)
            is_valid = (value.is_finite() & (value >= 0)).fill_null(False)
            is_bad = pl.col(field).is_not_null() & ~is_valid
            self.refuse(is_bad, field, "is not a number from 0 up")
            self.frame = self.frame.with_columns(value)

    def parse_flags(self, *fields: str) -> None:
        """Makes columns of `True` and `False` Boolean; drops rows with another value."""
        for field in fields:
            is_flag = pl.col(field).is_in(list(_FLAGS)).fill_null(False)
            self.refuse(~is_flag, field, "is not True or False")
            flag = pl.col(field).replace_strict(_FLAGS, return_dtype=pl.Boolean)
            self.frame = self.frame.with_columns(flag)

    def parse_lists(self, field: str, example: str) -> None:
        """Makes a column of Python list literals List(String); drops rows with another value."""
        lists = [_parse_list(value) for value in self.frame[field]]
        self.frame = self.frame.with_columns(pl.Series("_list", lists, pl.List(pl.String)))
        self.refuse(pl.col("_list").is_null(), field, f"is not a list such as {example}")
        self.frame = self.frame.drop(field).rename({"_list": field})

    def parse_times(self, field: str) -> None:
        """Makes a column such as `2019-02-20 12:28` or `2019-02-20 12:28:01.5` UTC datetimes.

        Drops rows with another value.
        """
        parse = partial(
            pl.col(field).str.to_datetime, time_unit="us", time_zone="UTC", strict=False
        )
        times = (parse("%Y-%m-%d %H:%M:%S%.f"), parse("%Y-%m-%d %H:%M"))
        self.frame = self.frame.with_columns(_time=pl.coalesce(times))
        year = pl.col("_time").dt.year()
        is_bad = ~year.is_between(_FIRST_YEAR, _LAST_YEAR).fill_null(False)
        self.refuse(is_bad, field, "is not a time such as 2019-02-20 12:28:01")
        self.frame = self.frame.drop(field).rename({"_time": field})


class SetFolder:
    """The folder of a public set.

    how_to_get: names the source of its files in errors. skipped, missing: as in `Content`.
    """

    def __init__(self, folder: Path, how_to_get: str) -> None:
        self.folder = folder
        self.how_to_get = how_to_get
        self.skipped: list[SkippedRow] = []
        self.missing: list[str] = []

    def skip(self, file: str, line: int | None, field: str, value: str, reason: str) -> None:
        """Records a row that cannot be used."""
        self.skipped.append(SkippedRow(file, line, field, value, reason))

    def required(self, names: Sequence[str], holds: str) -> Path:
        """Returns the first of the files `names` that exists; DataError if none does."""
        for name in names:
            if (self.folder / name).is_file():
                return self.folder / name
        raise DataError(
            f"{self.folder} has no {' or '.join(names)}; wanted {holds}; "
            f"to get it: {self.how_to_get}"
        )

    def optional(self, name: str) -> Path | None:
        """Returns the file `name`; if it is missing, notes that and returns None."""
        if (self.folder / name).is_file():
            return self.folder / name
        self.missing.append(name)
        return None

    def has_folder(self, name: str) -> bool:
        """Whether there is a folder `name`; if not, notes that it is missing."""
        if (self.folder / name).is_dir():
            return True
        self.missing.append(f"{name}/")
        return False

    def audio_path(self, *relatives: str) -> str | None:
        """Returns the absolute path of the first of `relatives` that is a file, or None."""
        for relative in relatives:
            try:
                if (self.folder / relative).is_file():
                    return (self.folder / relative).absolute().as_posix()
            except OSError:  # a name that no file can have
                continue
        return None

    def audio_paths(self, table: pl.DataFrame, relatives: Sequence[pl.Expr]) -> pl.Series:
        """Returns column `path` of a table: `audio_path` of the values of `relatives`."""
        names = table.select(pl.concat_list(relatives)).to_series().to_list()
        return pl.Series(PATH, [self.audio_path(*row) for row in names], pl.String)

    def rows(self, frame: pl.DataFrame, file: str) -> CheckedRows:
        """Returns a frame with a column `LINE` as rows to check."""
        return CheckedRows(frame, file, self.skipped)

    def read(
        self,
        path: Path,
        columns: Sequence[str] = (),
        *,
        delimiter: str = "\t",
        quoted: bool = False,
        header: Sequence[str] = (),
        n_header: int = 1,
        encoding: str = "utf-8",
    ) -> CheckedRows:
        """Reads `columns` of a text file as stripped text, null where empty, with `LINE`.

        columns: empty for all.
        quoted: fields may be in double quotes, with delimiters and line ends inside.
        header: the names of all columns, if the file has none or others than its first line.
        n_header: lines before the first row. A `.bz2` file is decompressed.

        DataError: the file is empty or unreadable, or lacks one of `columns`.
        """
        parse = _quoted if quoted else _plain
        rows = parse(_lines(path, encoding), delimiter)
        names = [name.strip() for name in header]
        try:
            for _ in range(n_header):
                _, fields, _ = next(rows)
                names = names or [field.strip() for field in fields]
            frame = self._collect(rows, names, columns or names, path.name)
        except StopIteration:
            raise DataError(
                f"{path.name} is empty; wanted a line that names the columns; get it again"
            ) from None
        except (OSError, EOFError) as error:
            raise DataError(f"{path.name} cannot be read ({error}); get it again") from None
        return self.rows(frame, path.name)

    def content(self, tracks: pl.DataFrame, interactions: pl.DataFrame | None = None) -> Content:
        """Returns the set with the columns of a library in their types; empty lists become null."""
        tracks = _typed(tracks, TRACKS)
        if interactions is not None:
            interactions = _typed(interactions, INTERACTIONS)
        return Content(tracks, interactions, self.skipped, self.missing)

    def _collect(
        self, rows: Iterator[_Row], names: list[str], columns: Sequence[str], file: str
    ) -> pl.DataFrame:
        for column in columns:
            if column not in names:
                present = ", ".join(repr(name) for name in names[:8])
                if len(names) > 8:
                    present += ", ..."
                raise DataError(
                    f"{file}: column {column!r} is missing; found {present}; get the file again"
                )
        positions = [names.index(column) for column in columns]
        schema = {LINE: pl.Int64(), **dict.fromkeys(columns, pl.String())}
        frames = [pl.DataFrame(schema=schema)]
        chunk: list[list[int | str]] = []
        for line, fields, problem in rows:
            if not problem and len(fields) != len(names):
                problem = f"has {len(fields)} fields, wanted {len(names)}"
            if problem:
                value = truncate_value("\t".join(fields)).encode("utf-8", "surrogateescape")
                self.skip(file, line, "", value.decode("utf-8", "replace"), problem)
                continue
            row: list[int | str] = [line]
            row.extend(fields[position] for position in positions)
            chunk.append(row)
            if len(chunk) == _CHUNK_ROWS:
                frames.append(pl.DataFrame(chunk, schema=schema, orient="row"))
                chunk.clear()
        frames.append(pl.DataFrame(chunk, schema=schema, orient="row"))
        text = pl.col(columns).str.strip_chars()
        return pl.concat(frames).with_columns(pl.when(text != "").then(text))


def _typed(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    if not frame.width:
        return pl.DataFrame(
            schema={column: DTYPES[table.kinds[column]] for column in table.required}
        )
    without_values = {pl.Null(): pl.String(), pl.List(pl.Null): pl.List(pl.String)}
    schema: dict[str, pl.DataType | type[pl.DataType]] = {}
    for column, dtype in frame.schema.items():
        schema[column] = without_values.get(dtype, dtype)
        if column in table.kinds:
            schema[column] = DTYPES[table.kinds[column]]
    lists = pl.col(pl.List(pl.String))
    return frame.cast(pl.Schema(schema)).with_columns(pl.when(lists.list.len() > 0).then(lists))


def _parse_list(value: str | None) -> list[str] | None:
    """Returns the items of a literal such as `['a', 'b']`, [] for None; None if it is no list."""
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
    """Reads CSV; a broken quote costs its own line, and reading resumes at the next."""
    text = list(lines)
    start = 0
    while start < len(text):
        base = start
        rest = (text[number] for number in range(base, len(text)))  # not copied
        reader = csv.reader(rest, delimiter=delimiter, strict=True)
        try:
            for fields in reader:
                first = start
                start = base + reader.line_num
                if fields:
                    yield first + 1, fields, _encoding_problem("".join(text[first:start]))
        except csv.Error as error:
            yield start + 1, [text[start].rstrip("\r\n")], f"is not valid CSV: {error}"
            start += 1


def _encoding_problem(text: str) -> str:
    return "is not UTF-8" if not text.isascii() and _NOT_UTF8.search(text) else ""
