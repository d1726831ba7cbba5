"""Records that every reader yields, parsers of their fields, and readers of large JSON files.

A reader keeps only what a `ListenEvent` has room for: addresses, countries, devices, agents and
account names have no field. Damage costs one record: reading goes on at the next line, or in a JSON
array at the next `}, {`. Memory does not grow with the file.
"""

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import polars as pl

from ponticello.storage import schema
from ponticello.storage.tables import check_json_object, parse_json_object
from ponticello.storage.validation import DTYPES, FIRST_YEAR, LAST_YEAR, MILLISECONDS_FROM

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
NO_DATE = f"is not a date between {FIRST_YEAR} and {LAST_YEAR}"
NOT_NAMED = "names neither a title nor an id"
_FIRST_S = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_LAST_S = datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()
# 31 Dec 2019, 23:59
_WRITTEN_DATE = re.compile(r"(\d{1,2}) ([A-Za-z]{3})[a-z]* (\d{4}),? (\d\d):(\d\d)(?::(\d\d))?$")
_MBID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_SPOTIFY = re.compile(
    r"(?:spotify:track:|https?://open\.spotify\.com/(?:intl-\w+/)?track/)([0-9A-Za-z]+)"
)


class TrackReference(NamedTuple):
    """The fields of an event's track in a history; None where it has no value.

    msid: ListenBrainz's id of a spelling, by which its feedback refers to a listen.
    """

    track_id: str | None = None
    mbid: str | None = None
    isrc: str | None = None
    uri: str | None = None
    path: str | None = None
    artist: str | None = None
    title: str | None = None
    album: str | None = None
    duration_s: float | None = None
    msid: str | None = None


@dataclass(frozen=True, slots=True)
class ListenEvent:
    """One event of a history.

    at_us: microseconds since 1970, UTC. user: None for the maker of the export. n_times: the number
    of plays that the event counts, of which only the last has a date; None for one play.
    """

    track: TrackReference
    at_us: int
    event: str = "play"
    played_s: float | None = None
    user: str | None = None
    session: str | None = None
    n_times: int | None = None


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be used. line: from 1; in JSON arrays and databases the row."""

    line: int | None
    field: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class IgnoredRecord:
    """A record that is no listening event, such as a podcast or a track that is still playing."""


Record = ListenEvent | BadRecord | IgnoredRecord
Records = Iterator[Record]


def parse_time_us(value: Any, zone: tzinfo = UTC) -> int | None:
    """Returns microseconds since 1970, or None if `value` is no date from 1990 to 2100.

    value: Unix seconds or milliseconds, ISO 8601, or `31 Dec 2019, 23:59`. zone: of a text that
    names none.
    """
    seconds = parse_number(value)
    if seconds is not None and seconds >= MILLISECONDS_FROM:
        seconds /= 1000
    if seconds is None and isinstance(value, str):
        seconds = _parse_date(value.strip(), zone)
    if seconds is None or not _FIRST_S <= seconds < _LAST_S:
        return None
    return round(seconds * 1_000_000)


def _parse_date(value: str, zone: tzinfo) -> float | None:
    written = _WRITTEN_DATE.match(value)
    try:
        if written:
            day, month_name, year, hour, minute, second = written.groups()
            month = MONTHS.index(month_name.lower()) + 1
            date = datetime(int(year), month, int(day), int(hour), int(minute), int(second or 0))
        else:
            date = datetime.fromisoformat(value)
        if date.tzinfo is None:
            date = date.replace(tzinfo=zone)
        return date.timestamp()
    except (ValueError, OverflowError):
        return None


def parse_number(value: Any) -> float | None:
    """Returns a finite number from a number or its text; None for any other value."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_duration_s(value: Any, unit_s: float = 1.0) -> float | None:
    """Returns seconds from a positive number of units; None for any other value."""
    number = parse_number(value)
    return number * unit_s if number is not None and number > 0 else None


def parse_text(value: Any) -> str | None:
    """Returns a stripped text; None if it is empty or no text."""
    if not isinstance(value, str):
        return None
    return value.strip() or None


def parse_mbid(*values: Any) -> str | None:
    """Returns the first MusicBrainz id in texts such as a musicbrainz.org address, or None."""
    for value in values:
        match = _MBID.search(value) if isinstance(value, str) else None
        if match:
            return match[0].lower()
    return None


def parse_uri(value: Any) -> str | None:
    """Returns a platform's address of a track; all forms of Spotify's become `spotify:track:ID`."""
    uri = parse_text(value)
    if uri is None:
        return None
    spotify = _SPOTIFY.match(uri)
    return f"spotify:track:{spotify[1]}" if spotify else uri.rstrip("/")


def parse_isrc(value: Any) -> str | None:
    """Returns an ISRC without hyphens in upper case; the first of several."""
    if isinstance(value, list):
        value = value[0] if value else None
    isrc = parse_text(value)
    return re.split(r"[;,\s]", isrc)[0].replace("-", "").upper() if isrc else None


REFERENCE = "reference"  # index of an event's reference in `EventBuffer.references`
IS_TABLE = "is_table"  # rows of a table have exact times; those of exports may be rounded
IS_KEPT = "is_kept"  # from an earlier import that found no track
EVENT_COLUMNS: dict[str, pl.DataType] = {
    schema.USER_ID: pl.String(),
    REFERENCE: pl.UInt32(),
    schema.PLAYED_AT: DTYPES["time"],
    schema.EVENT: pl.String(),
    schema.PLAYED_S: pl.Float64(),
    schema.WEIGHT: pl.Float64(),
    schema.CONTEXT_TRACK_ID: pl.String(),
    schema.SESSION_ID: pl.String(),
    schema.N_TIMES: pl.Int64(),
    IS_TABLE: pl.Boolean(),
    IS_KEPT: pl.Boolean(),
}
REFERENCE_COLUMNS: dict[str, pl.DataType] = {
    name: pl.Float64() if name == "duration_s" else pl.String() for name in TrackReference._fields
}
_BATCH = 50_000


class EventBuffer:
    """Collects events; each distinct track reference is stored once, and events hold its index."""

    def __init__(self) -> None:
        self.references: list[TrackReference] = []
        self._indices: dict[TrackReference, int] = {}
        self._frames: list[pl.DataFrame] = [pl.DataFrame(schema=EVENT_COLUMNS)]

    def add(self, events: Iterable[ListenEvent]) -> None:
        """Adds events of an export. The weight of a count of plays is ln(1 + count)."""
        weight = pl.col(schema.N_TIMES).log1p().alias(schema.WEIGHT)
        iterator = iter(events)
        while batch := list(islice(iterator, _BATCH)):
            columns = {
                schema.USER_ID: [event.user for event in batch],
                REFERENCE: [self._index(event.track) for event in batch],
                schema.PLAYED_AT: [event.at_us for event in batch],
                schema.EVENT: [event.event for event in batch],
                schema.PLAYED_S: [event.played_s for event in batch],
                schema.SESSION_ID: [event.session for event in batch],
                schema.N_TIMES: pl.Series([event.n_times for event in batch], dtype=pl.Int64),
            }
            self._append(pl.DataFrame(columns, strict=False).with_columns(weight))

    def add_rows(self, rows: pl.DataFrame) -> None:
        """Adds rows of a table, with columns of `EVENT_COLUMNS` and `REFERENCE_COLUMNS`."""
        rows = _fill(rows, REFERENCE_COLUMNS)
        fields = list(REFERENCE_COLUMNS)
        distinct = rows.select(fields).unique(maintain_order=True)
        indices = [self._index(TrackReference(*row)) for row in distinct.iter_rows()]
        distinct = distinct.with_columns(pl.Series(REFERENCE, indices, pl.UInt32))
        rows = rows.drop(REFERENCE, strict=False)
        self._append(
            rows.join(distinct, on=fields, how="left", nulls_equal=True, maintain_order="left")
        )

    def _append(self, rows: pl.DataFrame) -> None:
        rows = _fill(rows, EVENT_COLUMNS).with_columns(pl.col(IS_TABLE, IS_KEPT).fill_null(False))
        self._frames.append(rows.select(list(EVENT_COLUMNS)))

    def take_events(self) -> pl.DataFrame:
        """Returns and forgets all events; those with a ListenBrainz spelling alone are resolved."""
        by_msid = {}
        for index, reference in enumerate(self.references):
            if reference.msid and reference.title:
                by_msid[reference.msid] = index
        resolved = {}
        for index, reference in enumerate(self.references):
            is_msid_only = reference.title is None and reference.mbid is None
            if is_msid_only and reference.msid in by_msid:
                resolved[index] = by_msid[reference.msid]
        events = pl.concat(self._frames)
        self._frames = [events.clear()]
        if resolved:
            events = events.with_columns(pl.col(REFERENCE).replace(resolved))
        return events

    def _index(self, reference: TrackReference) -> int:
        index = self._indices.get(reference)
        if index is None:
            index = len(self.references)
            self._indices[reference] = index
            self.references.append(reference)
        return index


def _fill(rows: pl.DataFrame, dtypes: Mapping[str, pl.DataType]) -> pl.DataFrame:
    columns = []
    for name, dtype in dtypes.items():
        column = pl.col(name) if name in rows.columns else pl.lit(None)
        columns.append(column.cast(dtype).alias(name))
    return rows.with_columns(columns)


LONGEST_ITEM = 4 << 20  # characters; a listen has some hundred, a page of a thousand 1 MB
_OVERLAP = 200  # characters before a window's end in which `}, {` may begin
_NEXT_ITEM = re.compile(r"\}\s*,\s*(?=\{)")
_ARRAY = re.compile(r"\s*\[")
_SEPARATORS = frozenset(" \t\r\n,")
JsonItems = Iterator[tuple[int, dict[str, Any] | BadRecord]]


def json_lines(stream: BinaryIO) -> JsonItems:
    """Yields (line, object) of a JSONL file, or its fault without the text, which names people."""
    number = 0
    while raw := stream.readline(LONGEST_ITEM):
        number += 1
        rest = raw
        while len(rest) == LONGEST_ITEM and not rest.endswith(b"\n"):
            rest = stream.readline(LONGEST_ITEM)
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        line = raw.decode("utf-8", "surrogateescape")
        if not line.strip():
            continue
        try:
            yield number, parse_json_object(line)
        except ValueError as error:
            yield number, BadRecord(number, "", "", str(error))


def json_items(stream: BinaryIO, keys: tuple[str, ...] = ()) -> JsonItems:
    """Yields (number from 1, object) of every item of a JSON array, or its fault.

    The array is the file, or the first value of one of `keys` in it. Of a file that is cut off the
    complete items come first, then a `BadRecord`.
    """
    window = _Window(stream)
    text, _ = window.view()
    begin = _ARRAY.match(text)
    if begin is None and keys:
        begin = re.search(rf'"(?:{"|".join(keys)})"\s*:\s*\[', text)
    if begin is None:
        yield 1, BadRecord(1, "", "", "holds no JSON array of listens")
        return
    window.position = begin.end()
    decoder = json.JSONDecoder()
    number = 0
    while True:
        text, start = window.view()
        while text[start : start + 1] in _SEPARATORS:
            start += 1
        if text[start : start + 1] == "]":
            return
        number += 1
        if start == len(text):
            yield number, BadRecord(number, "", "", "the file ends early; get it again")
            return
        try:
            item, window.position = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            yield number, BadRecord(number, "", "", "is not a JSON object")
            window.position = start
            if not window.skip_past(_NEXT_ITEM):
                return
            continue
        try:
            yield number, check_json_object(item, text[start : window.position])
        except ValueError as error:
            yield number, BadRecord(number, "", "", str(error))


class _Window:
    """A text file of which a part is in memory. position: of the next character, in that part."""

    def __init__(self, stream: BinaryIO) -> None:
        self.position = 0
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text = ""
        self._is_last = False

    def view(self) -> tuple[str, int]:
        """Returns (text, position) with `LONGEST_ITEM` characters from there on, or all others."""
        if not self._is_last and len(self._text) - self.position < LONGEST_ITEM:
            pieces = [self._text[self.position :]]
            self.position = 0
            while not self._is_last and sum(map(len, pieces)) < 2 * LONGEST_ITEM:
                chunk = self._stream.read(LONGEST_ITEM)
                self._is_last = not chunk
                pieces.append(self._decoder.decode(chunk, final=self._is_last))
            self._text = "".join(pieces)
        return self._text, self.position

    def skip_past(self, pattern: re.Pattern[str]) -> bool:
        """Moves behind the next match; returns False at the end of the file."""
        while True:
            text, start = self.view()
            match = pattern.search(text, start)
            if match:
                self.position = match.end()
                return True
            if self._is_last:
                return False
            self.position = max(len(text) - _OVERLAP, start + 1)
