"""What every reader gives: one `ListenEvent` for each event a source tells of, or a `BadRecord`
where it cannot be read.

A reader keeps what a `ListenEvent` has room for. Addresses, countries, devices, agents and account
names have none.

Events by the hundred thousand in little memory: what was heard is kept once, events point to it.

JSON a piece at a time: the lines of a JSONL file, the items of an array, in memory that does not
grow with the file.

What is broken costs itself: reading goes on at the next line, or at the next `}, {`.
"""

import codecs
import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, BinaryIO, NamedTuple

import polars as pl

from ponticello.storage.schema import (
    CONTEXT_TRACK_ID,
    EVENT,
    N_TIMES,
    PLAYED_AT,
    PLAYED_S,
    SESSION_ID,
    USER_ID,
    WEIGHT,
)
from ponticello.storage.validation import DTYPES, FIRST_YEAR, LAST_YEAR, MILLISECONDS_FROM

MICROSECONDS = 1_000_000
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
NO_DATE = f"is not a date between {FIRST_YEAR} and {LAST_YEAR}"
NOT_NAMED = "names neither a title nor an id"
_FIRST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_LAST = datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()
_SPELLED = re.compile(
    r"(\d{1,2}) ([A-Za-z]{3})[a-z]* (\d{4}),? (\d\d):(\d\d)(?::(\d\d))?$"
)  # 31 Dec 2019, 23:59
_MBID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_SPOTIFY = re.compile(
    r"(?:spotify:track:|https?://open\.spotify\.com/(?:intl-\w+/)?track/)([0-9A-Za-z]+)"
)


class TrackReference(NamedTuple):
    """What a source says of the track that was heard; None where it says nothing.

    msid: ListenBrainz's own id of a spelling, by which its feedback names a listen.
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
    """One event. at_us: microseconds since 1970, UTC. user: None = the person whose export it is.

    n_times: an event that stands for so many, of which only the last has a date; else None.
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
    """One record that cannot be used. line: from 1; in JSON arrays and databases the row."""

    line: int | None
    field: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class IgnoredRecord:
    """One record that is no listen to a track and need not be one: a podcast, a track that is still
    playing.
    """


Record = ListenEvent | BadRecord | IgnoredRecord
Records = Iterator[Record]


def parse_time_us(value: Any, zone: tzinfo = UTC) -> int | None:
    """Microseconds since 1970 of Unix seconds or milliseconds, ISO 8601 or `31 Dec 2019, 23:59`;
    None if it is no date.

    zone: where a text without a zone of its own was written. Dates before 1990 and after 2100 are
    clocks gone wrong.
    """
    seconds = parse_number(value)
    if seconds is not None:
        seconds = seconds / 1000 if seconds >= MILLISECONDS_FROM else seconds
    elif isinstance(value, str):
        seconds = _written(value.strip(), zone)
    if seconds is None or not _FIRST <= seconds < _LAST:
        return None
    return round(seconds * MICROSECONDS)


def parse_number(value: Any) -> float | None:
    """A finite number from a number or its text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def parse_duration_s(value: Any, unit: float = 1.0) -> float | None:
    """Seconds from a positive number of `unit` seconds each; None where nothing sensible is said."""
    found = parse_number(value)
    return found * unit if found is not None and found > 0 else None


def parse_text(value: Any) -> str | None:
    """Text, stripped; None for an empty one and for anything that is no text."""
    if not isinstance(value, str):
        return None
    return value.strip() or None


def parse_mbid(value: Any) -> str | None:
    """The MusicBrainz id in a text such as an id or a musicbrainz.org address, lower-cased; None
    without one.
    """
    found = _MBID.search(value) if isinstance(value, str) else None
    return found[0].lower() if found else None


def parse_uri(value: Any) -> str | None:
    """A platform's name of a track in one spelling: `spotify:track:ID` for each of Spotify's,
    others as they are.
    """
    found = parse_text(value)
    if found is None:
        return None
    spotify = _SPOTIFY.match(found)
    return f"spotify:track:{spotify[1]}" if spotify else found.rstrip("/")


def parse_isrc(value: Any) -> str | None:
    """An ISRC without hyphens, upper-cased; of several the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    found = parse_text(value)
    return re.split(r"[;,\s]", found)[0].replace("-", "").upper() if found else None


def _written(value: str, zone: tzinfo) -> float | None:
    spelled = _SPELLED.match(value)
    try:
        if spelled:
            day, month, year, hour, minute, second = spelled.groups()
            number_of = MONTHS.index(month.lower()) + 1
            date = datetime(
                int(year), number_of, int(day), int(hour), int(minute), int(second or 0)
            )
        else:
            date = datetime.fromisoformat(value)
        return (date if date.tzinfo else date.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return None


REFERENCE = "reference"  # which of `EventBuffer.references` an event is of
# rows of a table have the times they have; those of exports may be rounded to the minute
IS_TABLE = "is_table"
IS_KEPT = "is_kept"  # from an earlier import, where it found no track
EVENT_COLUMNS: dict[str, pl.DataType] = {
    USER_ID: pl.String(),
    REFERENCE: pl.UInt32(),
    PLAYED_AT: DTYPES["time"],
    EVENT: pl.String(),
    PLAYED_S: pl.Float64(),
    WEIGHT: pl.Float64(),
    CONTEXT_TRACK_ID: pl.String(),
    SESSION_ID: pl.String(),
    N_TIMES: pl.Int64(),
    IS_TABLE: pl.Boolean(),
    IS_KEPT: pl.Boolean(),
}
REFERENCE_COLUMNS: dict[str, pl.DataType] = {
    name: pl.Float64() if name == "duration_s" else pl.String() for name in TrackReference._fields
}
_BATCH = 50_000


class EventBuffer:
    """Events as a frame of `EVENT_COLUMNS`, and what they are of."""

    def __init__(self) -> None:
        self.references: list[TrackReference] = []
        self._place: dict[TrackReference, int] = {}
        self._frames: list[pl.DataFrame] = [pl.DataFrame(schema=EVENT_COLUMNS)]

    def place(self, heard: TrackReference) -> int:
        """The number of `heard`, given when it is first met."""
        if heard not in self._place:
            self._place[heard] = len(self.references)
            self.references.append(heard)
        return self._place[heard]

    def add(self, listens: Iterable[ListenEvent]) -> None:
        """Takes events of an export."""
        for batch in _batches(listens):
            n = len(batch)
            columns = {
                USER_ID: [listen.user for listen in batch],
                REFERENCE: [self.place(listen.track) for listen in batch],
                PLAYED_AT: pl.Series([listen.at_us for listen in batch], dtype=pl.Int64).cast(
                    DTYPES["time"]
                ),
                EVENT: [listen.event for listen in batch],
                PLAYED_S: [listen.played_s for listen in batch],
                WEIGHT: [None] * n,
                CONTEXT_TRACK_ID: [None] * n,
                SESSION_ID: [listen.session for listen in batch],
                N_TIMES: [listen.n_times for listen in batch],
                IS_TABLE: [False] * n,
                IS_KEPT: [False] * n,
            }
            counted = (
                pl.col(N_TIMES).cast(pl.Float64).log1p()
            )  # as a count of listens weighs everywhere
            self._frames.append(
                pl.DataFrame(columns, schema=EVENT_COLUMNS).with_columns(counted.alias(WEIGHT))
            )

    def add_rows(self, rows: pl.DataFrame) -> None:
        """Takes rows of a table: any columns of `EVENT_COLUMNS` but `heard`, and any of `TaggerOutput`."""
        for wanted in (EVENT_COLUMNS, REFERENCE_COLUMNS):
            missing = [
                pl.lit(None, kind).alias(name)
                for name, kind in wanted.items()
                if name not in rows.columns
            ]
            rows = rows.with_columns(missing)
        names = list(REFERENCE_COLUMNS)
        distinct = rows.select(names).unique(maintain_order=True)
        places = pl.Series(
            REFERENCE, [self.place(TrackReference(*row)) for row in distinct.iter_rows()], pl.UInt32
        )
        rows = rows.drop(REFERENCE).join(
            distinct.with_columns(places),
            on=names,
            how="left",
            nulls_equal=True,
            maintain_order="left",
        )
        flags = [pl.col(name).fill_null(False) for name in (IS_TABLE, IS_KEPT)]
        self._frames.append(
            rows.with_columns(flags).select(
                pl.col(name).cast(kind) for name, kind in EVENT_COLUMNS.items()
            )
        )

    def take_events(self) -> pl.DataFrame:
        """All events so far, which are then the caller's.

        Those that name a ListenBrainz spelling only are of the listen with that spelling.
        """
        spelled = {
            heard.msid: place
            for place, heard in enumerate(self.references)
            if heard.msid and heard.title
        }
        replaced = {
            place: spelled[heard.msid]
            for place, heard in enumerate(self.references)
            if heard.msid in spelled and heard.title is None and heard.mbid is None
        }
        events = pl.concat(self._frames)
        self._frames = [events.clear()]
        return events.with_columns(pl.col(REFERENCE).replace(replaced)) if replaced else events


def _batches(listens: Iterable[ListenEvent]) -> Iterator[list[ListenEvent]]:
    batch: list[ListenEvent] = []
    for listen in listens:
        batch.append(listen)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


LONGEST_ITEM = 4 << 20  # characters; one listen has some hundred, a page of a thousand a megabyte
_OVERLAP = 200  # characters looked at again when the window moves, in which `}, {` may begin
_NOT_UTF8 = re.compile("[\ud800-\udfff]")
_NEXT = re.compile(r"\}\s*,\s*(?=\{)")
_ARRAY = re.compile(r"\s*\[")
_BETWEEN = frozenset(" \t\r\n,")


def json_lines(stream: BinaryIO) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """(line, the object on it, or what is wrong) of every line of a JSONL file that is not empty."""
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
            item = json.loads(line)
        except (ValueError, RecursionError):
            item = None
        yield number, _checked(item, number, line)


def json_items(
    stream: BinaryIO, keys: tuple[str, ...] = ()
) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """(number from 1, the object, or what is wrong) of every item of a JSON array.

    The array is the file, or in it the first value of one of `keys`. A cut file gives its whole
    items, then a fault.
    """
    window = _Window(stream)
    named = re.compile(rf'"(?:{"|".join(keys)})"\s*:\s*\[') if keys else None
    text, _ = window.ahead()
    begin = _ARRAY.match(text) or (named.search(text) if named else None)
    if begin is None:
        yield 1, BadRecord(1, "", "", "holds no JSON array of listens")
        return
    window.at = begin.end()
    decoder = json.JSONDecoder()
    number = 0
    while True:
        text, start = window.ahead()
        while text[start : start + 1] in _BETWEEN:
            start += 1
        if text[start : start + 1] == "]":
            return
        number += 1
        if start == len(text):
            yield number, BadRecord(number, "", "", "the file ends early; get it again")
            return
        try:
            item, window.at = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            yield number, _broken(number)
            window.at = start
            if not window.skip_past(_NEXT):
                return
            continue
        yield number, _checked(item, number, text[start : window.at])


class _Window:
    """A text file seen through a window that moves on only. at: where in it reading has come to."""

    def __init__(self, stream: BinaryIO) -> None:
        self.at = 0
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
        self._text = ""
        self._is_last = False

    def ahead(self) -> tuple[str, int]:
        """(the window, `at` in it); from there on it shows `LONGEST_ITEM` characters, or all there
        are.
        """
        if not self._is_last and len(self._text) - self.at < LONGEST_ITEM:
            parts = [self._text[self.at :]]
            self.at = 0
            while not self._is_last and sum(map(len, parts)) < 2 * LONGEST_ITEM:
                chunk = self._stream.read(LONGEST_ITEM)
                self._is_last = not chunk
                parts.append(self._decoder.decode(chunk, final=self._is_last))
            self._text = "".join(parts)
        return self._text, self.at

    def skip_past(self, pattern: re.Pattern[str]) -> bool:
        """Moves behind the next `pattern`; False at the end of the file."""
        while True:
            text, start = self.ahead()
            if found := pattern.search(text, start):
                self.at = found.end()
                return True
            if self._is_last:
                return False
            self.at = max(len(text) - _OVERLAP, start + 1)


def _checked(item: Any, number: int, written: str) -> dict[str, Any] | BadRecord:
    if _NOT_UTF8.search(written):
        return BadRecord(number, "", "", "is not UTF-8")
    if not isinstance(item, dict):
        return _broken(number)
    if "\\u" in written and _NOT_UTF8.search(json.dumps(item, ensure_ascii=False)):
        return BadRecord(number, "", "", "is not text: half a surrogate pair")
    return item


def _broken(number: int) -> BadRecord:
    """Without what stands there: a whole record names accounts, addresses and countries."""
    return BadRecord(number, "", "", "is not a JSON object")
