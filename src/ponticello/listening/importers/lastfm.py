"""Reads Last.fm exports of third-party programs: CSV with and without a header, JSON, NDJSON.

None of these formats is official, and their columns are in different orders. A header is read by
its names; without one the content decides, and `--columns artist=1` (counted from 1) overrides it.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import UTC, tzinfo
from typing import Any

from ponticello.errors import DataError
from ponticello.listening.importers import records
from ponticello.listening.importers.sources import HistoryFile

ARRAYS = ("track", "scrobbles", "recenttracks")  # keys of the list in an export that is an object
_TIME_NAMES = (
    "uts date_uts timestamp unix_timestamp unixtime played_at listened_at utc_time datetime "
    "date_time scrobble_time scrobbled_at time date"
)
# Our column -> the names that exports give it, the best first.
NAMES: dict[str, tuple[str, ...]] = {
    "played_at": tuple(_TIME_NAMES.split()),
    "artist": ("artist", "artist_name", "artistname"),
    "title": ("track", "track_name", "trackname", "title", "song", "name"),
    "album": ("album", "album_name", "albumname", "release", "release_name"),
    "mbid": ("track_mbid", "recording_mbid", "mbid"),
    "duration_s": ("duration", "length", "duration_s"),
}
_REQUIRED = ("played_at", "artist", "title")
_HEADERLESS = ["artist", "album", "title", "played_at"]  # the usual order without a header
_UNIVERSAL_SCROBBLER = ["artist", "title", "album", "played_at", "album_artist", "duration_s"]
_MIN_TITLES_PER_ALBUM = 1.5
_SAMPLE_LINES = 500
_DELIMITERS = ",;\t"


def read_lastfm(
    source: HistoryFile, zone: tzinfo = UTC, columns: Mapping[str, str] | None = None
) -> records.Records:
    """Yields plays.

    zone: of dates without one; Unix times need none. columns: our column -> theirs, or its number
    from 1. DataError: such a column is missing, or the order of columns cannot be detected.
    """
    head = source.head().removeprefix(b"\xef\xbb\xbf").lstrip()
    with source.open() as stream:
        if head.startswith((b"[", b"{")):
            is_object = re.match(rb'\{\s*"(?:recenttracks|username|track|scrobbles)"', head)
            is_lines = head.startswith(b"{") and not is_object
            items = records.json_lines(stream) if is_lines else records.json_items(stream, ARRAYS)
            yield from _read_items(items, zone)
        else:
            yield from _read_csv(stream, head.decode("utf-8", "replace"), columns, zone, source)


def sample_lines(head: str) -> tuple[list[str], str]:
    """Returns up to 500 non-empty lines of the beginning of a CSV file, and their delimiter."""
    lines = [line for line in io.StringIO(head, newline=None) if line.strip()][:_SAMPLE_LINES]
    return lines, max(_DELIMITERS, key=lines[0].count) if lines else ","


def normalize_column(name: str) -> str:
    """Returns a column's name in lower case with underscores, without what follows a `#`."""
    return re.sub(r"[^a-z0-9]+", "_", name.partition("#")[0].strip().lower()).strip("_")


def _read_csv(
    stream: Iterable[bytes],
    head: str,
    columns: Mapping[str, str] | None,
    zone: tzinfo,
    source: HistoryFile,
) -> records.Records:
    lines, delimiter = sample_lines(head)
    rows = []
    for line in lines:
        with suppress(csv.Error):
            rows.append(_split(line, delimiter))
    if not rows:
        return
    names = [normalize_column(name) for name in rows[0]]
    has_artist = any(name in names for name in NAMES["artist"])
    has_header = has_artist and not any(map(_is_date, rows[0]))
    order = _order_by_header(names) if has_header else _order_by_content(rows)
    order = _apply_columns(order, columns or {}, rows[0], source.name)
    for number, raw in enumerate(stream, 1):
        is_header = has_header and number == 1
        if not is_header and raw.strip(b"\xef\xbb\xbf \t\r\n"):
            yield _read_line(raw, number, order, delimiter, zone)


def _apply_columns(
    order: list[str], columns: Mapping[str, str], first_row: list[str], name: str
) -> list[str]:
    """Applies `--columns`; DataError if one is missing, or a required column is still unknown."""
    for field, file_column in columns.items():
        index = -1
        if file_column.isdigit():
            index = int(file_column) - 1
        elif file_column in first_row:
            index = first_row.index(file_column)
        is_field = field in NAMES or field == "album_artist"
        if not is_field or not 0 <= index < len(first_row):
            raise DataError(
                f"{name}: --columns {field}={file_column} names no column; "
                f"found {', '.join(first_row)}"
            )
        order = ["" if column == field else column for column in order]
        order[index] = field
    for column in _REQUIRED:
        if column not in order:
            raise DataError(
                f"{name}: cannot tell which column is {column!r}; "
                f"found {', '.join(map(repr, first_row))}; "
                f"pass --columns {column}=NUMBER, counted from 1"
            )
    return order


def _order_by_header(names: list[str]) -> list[str]:
    order = [""] * len(names)
    for field, known_names in NAMES.items():
        for name in known_names:
            if name in names:
                order[names.index(name)] = field
                break
    return order


def _order_by_content(rows: list[list[str]]) -> list[str]:
    """Detects the order of the columns of a CSV without a header.

    The date must be fourth. With more columns it is Universal Scrobbler's order; with four it is
    artist, album, title, date, or artist, title, album, date where the third repeats much more.
    """
    width = max(map(len, rows))
    full_rows = [row for row in rows if len(row) == width]
    unknown = [""] * width
    for index in range(min(width, 4)):
        n_dates = sum(_is_date(row[index]) for row in full_rows)
        is_date_column = n_dates > len(full_rows) / 2
        if is_date_column != (index == 3):
            return unknown
    if width < 4:
        return unknown
    if width > 4:
        return (_UNIVERSAL_SCROBBLER + unknown)[:width]
    n_second = len({row[1] for row in full_rows})
    n_third = len({row[2] for row in full_rows})
    if n_second > _MIN_TITLES_PER_ALBUM * n_third:
        return _UNIVERSAL_SCROBBLER[:4]
    return _HEADERLESS


def _is_date(value: str) -> bool:
    return records.parse_time_us(value) is not None


def _split(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, strict=True), [])


def _read_line(
    raw: bytes, line: int, order: list[str], delimiter: str, zone: tzinfo
) -> records.Record:
    try:
        row = _split(raw.decode("utf-8-sig" if line == 1 else "utf-8"), delimiter)
    except UnicodeDecodeError:
        return records.BadRecord(line, "", "", "is not UTF-8")
    except csv.Error as error:
        return records.BadRecord(line, "", "", f"is not valid CSV: {error}")
    if len(row) != len(order):
        return records.BadRecord(line, "", "", f"has {len(row)} fields, wanted {len(order)}")
    return _event(dict(zip(order, row, strict=True)), line, zone)


def _read_items(items: records.JsonItems, zone: tzinfo) -> records.Records:
    n_tracks = 0
    for number, item in items:
        if isinstance(item, records.BadRecord):
            yield item
            continue
        page = item.get("track")
        if not isinstance(page, list):
            n_tracks += 1
            yield _read_object(item, number, zone)
            continue
        for track in page:  # a page of Last.fm's own answer
            n_tracks += 1
            if isinstance(track, dict):
                yield _read_object(track, n_tracks, zone)
            else:
                yield records.BadRecord(n_tracks, "", "", "is not a JSON object")


def _read_object(item: dict[str, Any], row: int, zone: tzinfo) -> records.Record:
    """Reads a track of Last.fm's API, {"artist": {"#text": ...}, ...}, or one with plain values."""
    attributes = item.get("@attr")
    if isinstance(attributes, dict) and attributes.get("nowplaying"):
        return records.IgnoredRecord()
    values: dict[str, Any] = {}
    for key, value in item.items():
        if isinstance(value, dict):
            value = value.get("uts") or value.get("#text") or value.get("name")
        values[normalize_column(key)] = value
    fields = {}
    for field, names in NAMES.items():
        non_empty = [values[name] for name in names if values.get(name) not in (None, "")]
        fields[field] = non_empty[0] if non_empty else None
    return _event(fields, row, zone)


def _event(fields: Mapping[str, Any], line: int, zone: tzinfo) -> records.Record:
    artist = records.parse_text(fields.get("artist"))
    title = records.parse_text(fields.get("title"))
    if title is None or artist is None:
        return records.BadRecord(line, "title" if title is None else "artist", "", "is missing")
    at_us = records.parse_time_us(fields.get("played_at"), zone)
    if at_us is None:
        return records.BadRecord(line, "played_at", fields.get("played_at"), records.NO_DATE)
    track = records.TrackReference(
        mbid=records.parse_mbid(fields.get("mbid")),
        artist=artist,
        title=title,
        album=records.parse_text(fields.get("album")),
        duration_s=records.parse_duration_s(fields.get("duration_s")),
    )
    return records.ListenEvent(track, at_us)
