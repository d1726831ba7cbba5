"""Last.fm, as other people's programs export it: CSV with and without a header, JSON, NDJSON,
Universal Scrobbler.

None of them is official and their columns stand in different orders. A header is read by its names;
without one the order is told by what the columns hold, and `--columns artist=1` (counted from 1)
overrules it.
"""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, tzinfo
from typing import Any

from ponticello.errors import DataError
from ponticello.listening.importers.records import (
    NO_DATE,
    BadRecord,
    IgnoredRecord,
    ListenEvent,
    Record,
    Records,
    TrackReference,
    json_items,
    json_lines,
    parse_duration_s,
    parse_mbid,
    parse_text,
    parse_time_us,
)
from ponticello.listening.importers.sources import HistoryFile

ARRAYS = ("track", "scrobbles", "recenttracks")  # where an export that is one object keeps its list
NAMES: dict[str, tuple[str, ...]] = {
    "played_at": (
        *(
            "uts",
            "date_uts",
            "timestamp",
            "unix_timestamp",
            "unixtime",
            "played_at",
            "listened_at",
            "utc_time",
        ),
        *("datetime", "date_time", "scrobble_time", "scrobbled_at", "time", "date"),
    ),
    "artist": ("artist", "artist_name", "artistname"),
    "title": ("track", "track_name", "trackname", "title", "song", "name"),
    "album": ("album", "album_name", "albumname", "release", "release_name"),
    "mbid": ("track_mbid", "recording_mbid", "mbid"),
    "duration_s": ("duration", "length", "duration_s"),
}
_HEADERLESS = (
    "artist",
    "album",
    "title",
    "played_at",
)  # the usual order of exports without a header
_UNIVERSAL = ("artist", "title", "album", "played_at", "album_artist", "duration_s")
_MUCH_MORE = 1.5  # distinct titles an album's name goes with
_SAMPLE_LINES = 500
_DELIMITERS = ",;\t"


def read_lastfm(
    source: HistoryFile, zone: tzinfo = UTC, columns: Mapping[str, str] | None = None
) -> Records:
    """Plays. zone: in which dates without a zone were written; Unix times need none.

    columns: our column -> theirs, or its number from 1. DataError: a column that is not there, or
    an order that cannot be told.
    """
    head = source.head().removeprefix(b"\xef\xbb\xbf").lstrip()
    with source.open() as stream:
        if head[:1] in (b"[", b"{"):
            is_lines = head[:1] == b"{" and not re.match(
                rb'\{\s*"(?:recenttracks|username|track|scrobbles)"', head
            )
            items: Iterator[tuple[int, dict[str, Any] | BadRecord]]
            items = json_lines(stream) if is_lines else json_items(stream, ARRAYS)
            yield from _json(items, zone)
        else:
            order, delimiter, has_header = column_order(
                head.decode("utf-8", "replace"), columns, source.name
            )
            lines = enumerate(stream, 1)
            if has_header:
                next(lines, None)
            for line, raw in lines:
                if raw.strip(b"\xef\xbb\xbf \t\r\n"):
                    yield _csv(raw, line, order, delimiter, zone)


def column_order(
    head: str, columns: Mapping[str, str] | None, name: str
) -> tuple[tuple[str, ...], str, bool]:
    """(our name of each column, the delimiter, whether the first line is a header) of a CSV, from
    how it begins.
    """
    lines = [line for line in io.StringIO(head, newline=None) if line.strip()][:_SAMPLE_LINES]
    delimiter = max(_DELIMITERS, key=lambda sign: lines[0].count(sign)) if lines else ","
    rows = [row for row in (_fields(line, delimiter) for line in lines) if row]
    first = [
        re.sub(r"[^a-z0-9]+", "_", name.partition("#")[0].strip().lower()).strip("_")
        for name in rows[0]
    ]
    columns = columns or {}
    has_header = any(first.count(found) for found in NAMES["artist"]) and not any(
        map(_is_date, rows[0])
    )
    order = _by_header(first) if has_header else _by_content(rows)
    for ours, theirs in columns.items():
        place = (
            int(theirs) - 1
            if theirs.isdigit()
            else next((i for i, x in enumerate(rows[0]) if x == theirs), -1)
        )
        if ours not in (*NAMES, "album_artist") or not 0 <= place < len(rows[0]):
            raise DataError(
                f"{name}: --columns {ours}={theirs} names no column; found {', '.join(rows[0])}"
            )
        order = ["" if column == ours else column for column in order]
        order[place] = ours
    if missing := [column for column in ("played_at", "artist", "title") if column not in order]:
        raise DataError(
            f"{name}: cannot tell which column is {missing[0]!r}; found {', '.join(map(repr, rows[0]))}; "
            f"pass --columns {missing[0]}=NUMBER, counted from 1"
        )
    return tuple(order), delimiter, has_header


def _by_header(first: list[str]) -> list[str]:
    order = [""] * len(first)
    for ours, names in NAMES.items():
        if place := [first.index(name) for name in names if name in first]:
            order[place[0]] = ours
    return order


def _by_content(rows: list[list[str]]) -> list[str]:
    """Artist, album, track, date; or with a date in fourth place and more behind it, Universal
    Scrobbler's order.

    Where the third column repeats itself much more than the second, it is the album, whatever is
    usual.
    """
    width = max(map(len, rows))
    whole = [row for row in rows if len(row) == width]
    dates = [
        place
        for place in range(width)
        if sum(_is_date(row[place]) for row in whole) > len(whole) / 2
    ]
    if dates[:1] != [3]:
        return [""] * width
    if width > 4:
        return [*_UNIVERSAL[:width], *[""] * (width - len(_UNIVERSAL))]
    second, third = (len({row[place] for row in whole}) for place in (1, 2))
    return list(_UNIVERSAL[:4]) if second > _MUCH_MORE * third else list(_HEADERLESS)


def _is_date(value: str) -> bool:
    """Whether a field is a moment; a bare number counts if it is a Unix time."""
    return parse_time_us(value) is not None


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True), [])
    except csv.Error:
        return []


def _csv(raw: bytes, line: int, order: tuple[str, ...], delimiter: str, zone: tzinfo) -> Record:
    try:
        written = raw.decode("utf-8-sig" if line == 1 else "utf-8")
    except UnicodeDecodeError:
        return BadRecord(line, "", "", "is not UTF-8")
    try:
        row = next(csv.reader([written], delimiter=delimiter, strict=True), [])
    except csv.Error as error:
        return BadRecord(line, "", "", f"is not valid CSV: {error}")
    if len(row) != len(order):
        return BadRecord(line, "", "", f"has {len(row)} fields, wanted {len(order)}")
    return _listen(
        {ours: value for ours, value in zip(order, row, strict=True) if ours}, line, zone
    )


def _json(items: Iterator[tuple[int, dict[str, Any] | BadRecord]], zone: tzinfo) -> Records:
    row = 0
    for number, item in items:
        if isinstance(item, BadRecord):
            yield item
        elif isinstance(page := item.get("track"), list):  # a page of Last.fm's own answer
            for track in page:
                row += 1
                is_object = isinstance(track, dict)
                yield (
                    _object(track, row, zone)
                    if is_object
                    else BadRecord(row, "", "", "is not a JSON object")
                )
        else:
            row += 1
            yield _object(item, number, zone)


def _object(item: dict[str, Any], row: int, zone: tzinfo) -> Record:
    """A track as Last.fm's API gives it, {"artist": {"#text": ...}, "date": {"uts": ...}}, or with
    plain values.
    """
    if isinstance(item.get("@attr"), dict) and item["@attr"].get("nowplaying"):
        return IgnoredRecord()
    plain = {
        re.sub(r"[^a-z0-9]+", "_", key.lower()).strip("_"): _plain(value)
        for key, value in item.items()
    }
    found = {}
    for ours, names in NAMES.items():
        found[ours] = next(
            (plain[name] for name in names if plain.get(name) not in (None, "")), None
        )
    return _listen(found, row, zone)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return value.get("uts") or value.get("#text") or value.get("name")
    return value


def _listen(found: Mapping[str, Any], line: int, zone: tzinfo) -> Record:
    artist, title = parse_text(found.get("artist")), parse_text(found.get("title"))
    if title is None or artist is None:
        return BadRecord(line, "artist" if title else "title", "", "is missing")
    at_us = parse_time_us(found.get("played_at"), zone)
    if at_us is None:
        return BadRecord(line, "played_at", found.get("played_at"), NO_DATE)
    heard = TrackReference(
        mbid=parse_mbid(found.get("mbid")),
        artist=artist,
        title=title,
        album=parse_text(found.get("album")),
        duration_s=parse_duration_s(found.get("duration_s")),
    )
    return ListenEvent(heard, at_us)
