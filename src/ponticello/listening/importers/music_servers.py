"""Reads the SQLite databases of Navidrome and beets, without writing to or locking them."""

import logging
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from ponticello.errors import DataError
from ponticello.listening.importers import records
from ponticello.listening.importers.sources import HistoryFile

MAGIC = b"SQLite format 3\x00"
NAVIDROME_TABLES = frozenset(["media_file", "annotation"])
BEETS_TABLES = frozenset(["items", "item_attributes"])
MIN_LIKED_STARS = 4  # of five
MAX_DISLIKED_STARS = 1
MOST_BYTES_IN_ZIP = 2 << 30  # a database in a zip is held in memory
_WAL_OFFSET = 18
_NO_WAL = b"\x01\x01"  # replaces the two header bytes that ask for a log beside the file
_FILE_COLUMNS = ("path", "title", "artist", "album", "duration", "mbz_recording_id", "mbz_track_id")
_PLAY_COUNTS = ("play_count", "lastfm_play_count", "listenbrainz_play_count")
_SKIP_COUNTS = ("skip_count",)
_COUNTS = _PLAY_COUNTS + _SKIP_COUNTS
_DATES = ("last_played",)
_ITEM_COLUMNS = ("path", "title", "artist", "album", "length", "mb_trackid", "isrc", "added")
_UNKNOWN_FILE = "names a file that the database does not have"

_log = logging.getLogger(__name__)


@contextmanager
def database(source: HistoryFile) -> Iterator[sqlite3.Connection]:
    """Opens a read-only connection; text that is not UTF-8 gets replacement characters.

    Changes in a -wal file beside the database are not read; a warning is logged.
    DataError: not a database, or too large to be read in its zip.
    """
    if source.path is None:
        connection = _open_in_memory(source)
    else:
        wal = source.path.with_name(f"{source.path.name}-wal")
        if wal.is_file() and wal.stat().st_size:
            _log.warning(
                "%s holds changes that are not read; stop the program that writes it first", wal
            )
        address = f"file:{quote(source.path.resolve().as_posix())}?mode=ro&immutable=1"
        connection = sqlite3.connect(address, uri=True)
    try:
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for pragma in ("query_only = 1", "trusted_schema = 0", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError:
            # Opens a file that was cut off; query_only still forbids every write.
            connection.execute("PRAGMA writable_schema = 1")
        yield connection
    except sqlite3.DatabaseError as error:
        raise DataError(f"{source.name} is not a readable SQLite database: {error}") from None
    finally:
        connection.close()


def tables_of(source: HistoryFile) -> dict[str, set[str]]:
    """Returns {table: its columns}; {} for a file that is no readable database.

    Views are left out: they could run any query.
    """
    tables = {}
    try:
        with database(source) as connection:
            query = "SELECT name FROM sqlite_master WHERE type = 'table'"
            for (name,) in connection.execute(query).fetchall():
                columns = connection.execute("SELECT name FROM pragma_table_info(?)", (name,))
                tables[name] = {column for (column,) in columns}
    except DataError:
        return {}
    return tables


def read_navidrome(source: HistoryFile) -> records.Records:
    """Yields a play per scrobble; without scrobbles of a track, its play count as one event.

    A count has the date of the last play. A star, or a rating of four or five, is a like; a rating
    of one is a dislike. user: the account's name if the database has it, else its id.
    """
    tables = _tables_with(source, NAVIDROME_TABLES, "Navidrome")
    columns = [f"m.{name}" for name in _FILE_COLUMNS if name in tables["media_file"]]
    user = "e.user_id"
    user_join = ""
    if {"id", "user_name"} <= tables.get("user", set()):
        user = "COALESCE(u.user_name, e.user_id)"
        user_join = 'LEFT JOIN "user" u ON u.id = e.user_id'
    selected = f"{user} AS user, {', '.join(columns)}"
    scrobble_columns = {"media_file_id", "user_id", "submission_time"}
    has_scrobbles = scrobble_columns <= tables.get("scrobbles", set())
    is_scrobbled = "0"
    scrobble_join = ""
    if has_scrobbles:
        is_scrobbled = "s.user_id IS NOT NULL"
        # A join is looked up; EXISTS would go through all scrobbles for each annotation.
        scrobble_join = (
            "LEFT JOIN (SELECT DISTINCT user_id, media_file_id FROM scrobbles) s "
            "ON s.user_id = e.user_id AND s.media_file_id = e.item_id"
        )
    values = ["e.play_count", "e.play_date", "e.rating", "e.starred"]
    for name in ("starred_at", "rated_at"):
        if name in tables["annotation"]:
            values.append(f"e.{name}")
    scrobbles = (
        f"SELECT e.submission_time AS at, {selected} FROM scrobbles e "
        f"LEFT JOIN media_file m ON m.id = e.media_file_id {user_join} ORDER BY e.rowid"
    )
    annotations = (
        f"SELECT {', '.join(values)}, {is_scrobbled} AS is_scrobbled, {selected} "
        f"FROM annotation e LEFT JOIN media_file m ON m.id = e.item_id {user_join} "
        f"{scrobble_join} WHERE e.item_type = 'media_file' ORDER BY e.rowid"
    )
    with database(source) as connection:
        if has_scrobbles:
            yield from _read_rows(connection, scrobbles, _read_scrobble)
        yield from _read_rows(connection, annotations, _read_annotation)


def read_beets(source: HistoryFile) -> records.Records:
    """Yields one event for all plays of an item and one for all skips, with their counts.

    Of several counts of plays the largest is used, since each plugin may count the same plays. The
    date is `last_played`, else the day the item was added. `rating` is ignored, since plugins
    compute it from the counts.
    """
    item_columns = _tables_with(source, BEETS_TABLES, "beets")["items"]
    columns = ["i.id AS id"]
    columns += [f"i.{name} AS {name}" for name in _ITEM_COLUMNS if name in item_columns]
    keys = _COUNTS + _DATES
    columns += [f"MAX(CASE WHEN a.key = '{key}' THEN a.value END) AS {key}" for key in keys]
    query = (
        f"SELECT {', '.join(columns)} FROM items i JOIN item_attributes a ON a.entity_id = i.id "
        f"AND a.key IN ({', '.join(map(repr, keys))}) GROUP BY i.id ORDER BY i.id"
    )
    with database(source) as connection:
        yield from _read_rows(connection, query, _read_beets_item)


def _tables_with(
    source: HistoryFile, required: frozenset[str], program: str
) -> dict[str, set[str]]:
    tables = tables_of(source)
    if missing := sorted(required - tables.keys()):
        raise DataError(
            f"{source.name} is no {program} database that can be read: "
            f"table {missing[0]!r} is missing"
        )
    return tables


def _read_rows(
    connection: sqlite3.Connection,
    query: str,
    read_row: Callable[[dict[str, Any], int], records.Records],
) -> records.Records:
    """Yields the records of each row, numbered from 1; then a fault if rows are damaged."""
    number = 0
    try:
        for row in connection.execute(query):
            number += 1
            yield from read_row(dict(row), number)
    except sqlite3.DatabaseError as error:
        yield records.BadRecord(
            number + 1, "", "", f"the database is damaged from here on: {error}"
        )


def _open_in_memory(source: HistoryFile) -> sqlite3.Connection:
    if source.size > MOST_BYTES_IN_ZIP:
        raise DataError(
            f"{source.name} has {source.size:,} bytes, too many to be read in a zip; "
            "unpack it and pass the file"
        )
    with source.open() as stream:
        data = stream.read()
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data[:_WAL_OFFSET] + _NO_WAL + data[_WAL_OFFSET + len(_NO_WAL) :])
    return connection


def _read_scrobble(row: dict[str, Any], line: int) -> records.Records:
    track = _navidrome_track(row)
    at_us = records.parse_time_us(row["at"])
    if track is None:
        yield records.BadRecord(line, "media_file_id", "", _UNKNOWN_FILE)
    elif at_us is None:
        yield records.BadRecord(line, "submission_time", row["at"], records.NO_DATE)
    else:
        yield records.ListenEvent(track, at_us, user=records.parse_text(row["user"]))


def _read_annotation(row: dict[str, Any], line: int) -> records.Records:
    track = _navidrome_track(row)
    n_plays = int(records.parse_number(row["play_count"]) or 0)
    rating = records.parse_number(row["rating"]) or 0
    if track is None:
        if n_plays or row["starred"] or rating:
            yield records.BadRecord(line, "item_id", "", _UNKNOWN_FILE)
        return
    if n_plays > 0 and not row["is_scrobbled"]:
        at_us = records.parse_time_us(row["play_date"])
        if at_us is None:
            yield records.BadRecord(line, "play_date", row["play_date"], records.NO_DATE)
        else:
            yield records.ListenEvent(
                track, at_us, user=records.parse_text(row["user"]), n_times=n_plays
            )
    yield from _read_feedback(row, line, track, rating)


def _read_feedback(
    row: dict[str, Any], line: int, track: records.TrackReference, rating: float
) -> records.Records:
    event = "like"
    time_key = "rated_at"
    if row["starred"]:
        time_key = "starred_at"
    elif 0 < rating <= MAX_DISLIKED_STARS:
        event = "dislike"
    elif rating < MIN_LIKED_STARS:
        return
    for key in (time_key, "starred_at", "play_date"):
        at_us = records.parse_time_us(row.get(key))
        if at_us:
            yield records.ListenEvent(track, at_us, event, user=records.parse_text(row["user"]))
            return
    yield records.BadRecord(line, time_key, "", records.NO_DATE)


def _navidrome_track(row: dict[str, Any]) -> records.TrackReference | None:
    path = records.parse_text(row["path"])
    title = records.parse_text(row["title"])
    if path is None and title is None:
        return None
    return records.TrackReference(
        mbid=records.parse_mbid(row.get("mbz_recording_id"), row.get("mbz_track_id")),
        path=path,
        artist=records.parse_text(row.get("artist")),
        title=title,
        album=records.parse_text(row.get("album")),
        duration_s=records.parse_duration_s(row.get("duration")),
    )


def _read_beets_item(item: dict[str, Any], _line: int) -> records.Records:
    row = item["id"]
    counts = dict.fromkeys(_COUNTS, 0)
    for key in _COUNTS:
        count = 0.0 if item[key] is None else records.parse_number(item[key])
        if count is None or count < 0:
            yield records.BadRecord(row, key, item[key], "is not a count")
        else:
            counts[key] = int(count)
    n_plays = max(counts[key] for key in _PLAY_COUNTS)
    n_skips = counts["skip_count"]
    if not n_plays and not n_skips:
        return
    last_played = item["last_played"]
    at_us = records.parse_time_us(last_played) or records.parse_time_us(item.get("added"))
    track = _beets_track(item)
    if at_us is None:
        yield records.BadRecord(
            row, "last_played", last_played, "is no date, and neither is `added`"
        )
    elif track.path is None and track.title is None:
        yield records.BadRecord(row, "title", "", "is missing, and so is the path")
    else:
        if n_plays:
            yield records.ListenEvent(track, at_us, "play", n_times=n_plays)
        if n_skips:
            yield records.ListenEvent(track, at_us, "skip", n_times=n_skips)


def _beets_track(item: dict[str, Any]) -> records.TrackReference:
    path = item.get("path")
    if isinstance(path, bytes):
        path = os.fsdecode(path).encode("utf-8", "replace").decode()
    else:
        path = records.parse_text(path)
    return records.TrackReference(
        mbid=records.parse_mbid(item.get("mb_trackid")),
        isrc=records.parse_isrc(item.get("isrc")),
        path=path,
        artist=records.parse_text(item["artist"]),
        title=records.parse_text(item["title"]),
        album=records.parse_text(item["album"]),
        duration_s=records.parse_duration_s(item.get("length")),
    )
