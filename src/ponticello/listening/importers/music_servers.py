"""Navidrome's database: scrobbles in newer ones, play counts in all, stars and ratings.

SQLite databases of other programs: opened for reading only, as they lie, and never written or
locked.

A beets library: counts that its plugins keep as flexible attributes.
"""

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from ponticello.errors import DataError
from ponticello.listening.importers.records import (
    NO_DATE,
    BadRecord,
    ListenEvent,
    Records,
    TrackReference,
    parse_duration_s,
    parse_isrc,
    parse_mbid,
    parse_number,
    parse_text,
    parse_time_us,
)
from ponticello.listening.importers.sources import HistoryFile

MAGIC = b"SQLite format 3\x00"
MOST_BYTES_IN_ZIP = 2 << 30  # a database in a zip is held in memory
_WAL_AT, _NO_WAL = 18, b"\x01\x01"  # two bytes of the header that ask for a log beside the file

_log = logging.getLogger(__name__)


@contextmanager
def database(source: HistoryFile) -> Iterator[sqlite3.Connection]:
    """A connection that reads, with rows by name; text that is not UTF-8 is kept with replacement
    characters.

    What a program still holds in a -wal file beside the database is not seen, and a warning says
    so.
    DataError: not a database, or one too large to be read in its zip.
    """
    if source.path is not None:
        wal = source.path.with_name(f"{source.path.name}-wal")
        if wal.is_file() and wal.stat().st_size:
            _log.warning(
                "%s holds changes that are not read; stop the program that writes it first", wal
            )
        address = f"file:{quote(source.path.resolve().as_posix())}?mode=ro&immutable=1"
        connection = sqlite3.connect(address, uri=True)
    else:
        connection = _in_memory(source)
    try:
        connection.row_factory = sqlite3.Row
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        for pragma in ("query_only = 1", "trusted_schema = 0", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
        try:
            connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
        except (
            sqlite3.DatabaseError
        ):  # a file that was cut is opened so only; nothing can be written either way
            connection.execute("PRAGMA writable_schema = 1")
        yield connection
    except sqlite3.DatabaseError as error:
        raise DataError(f"{source.name} is not a readable SQLite database: {error}") from None
    finally:
        connection.close()


def tables_of(source: HistoryFile) -> dict[str, set[str]]:
    """{table: its columns}; {} for a file that is no readable database. Views do not count: they
    may run anything.
    """
    try:
        with database(source) as connection:
            names = [
                row[0]
                for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            ]
            return {
                name: {
                    row[1]
                    for row in connection.execute("SELECT * FROM pragma_table_info(?)", (name,))
                }
                for name in names
            }
    except DataError:
        return {}


def tables_with(source: HistoryFile, wanted: frozenset[str], program: str) -> dict[str, set[str]]:
    """`tables_of`; DataError where one that is wanted is not there."""
    tables = tables_of(source)
    if missing := sorted(wanted - tables.keys()):
        raise DataError(
            f"{source.name} is no {program} database that can be read: table {missing[0]!r} is missing"
        )
    return tables


def rows_of(
    connection: sqlite3.Connection, query: str
) -> Iterator[tuple[int, sqlite3.Row] | BadRecord]:
    """(number from 1, row) of what a query gives; where the file is damaged, a last fault in the
    place of the rest.
    """
    number = 0
    try:
        for row in connection.execute(query):
            number += 1
            yield number, row
    except sqlite3.DatabaseError as error:
        yield BadRecord(number + 1, "", "", f"the database is damaged from here on: {error}")


def _in_memory(source: HistoryFile) -> sqlite3.Connection:
    if source.size > MOST_BYTES_IN_ZIP:
        raise DataError(
            f"{source.name} has {source.size:,} bytes, too many to be read in a zip; unpack it and pass the file"
        )
    with source.open() as stream:
        data = stream.read()
    connection = sqlite3.connect(":memory:")
    connection.deserialize(data[:_WAL_AT] + _NO_WAL + data[_WAL_AT + len(_NO_WAL) :])
    return connection


BEETS_TABLES = frozenset(["items", "item_attributes"])
_PLAYS = ("play_count", "lastfm_play_count", "listenbrainz_play_count")
_COUNTS = (*_PLAYS, "skip_count")
_FIELDS = ("path", "title", "artist", "album", "length", "mb_trackid", "isrc", "added")
_QUERY = """SELECT i.id AS id, {fields}, a.key AS key, a.value AS value FROM items i
    JOIN item_attributes a ON a.entity_id = i.id AND a.key IN ({keys}) ORDER BY i.id"""


def read_beets(source: HistoryFile) -> Records:
    """One play event for all plays of an item, and one skip event for all skips; the counts are
    kept with them.

    Of several counts of plays the largest is taken, since each plugin may count the same ones. The
    date is `last_played`, else the day the item was added. `rating` is left: plugins compute it
    from the counts.
    """
    known = tables_with(source, BEETS_TABLES, "beets")["items"]
    fields = ", ".join(f"i.{name}" for name in _FIELDS if name in known)
    keys = ", ".join(f"'{key}'" for key in (*_COUNTS, "last_played"))
    with database(source) as connection:
        item: sqlite3.Row | None = None
        said: dict[str, object] = {}
        for found in rows_of(connection, _QUERY.format(fields=fields, keys=keys)):
            if isinstance(found, BadRecord):
                if item is not None:
                    yield from _events(item, said)
                    item = None
                yield found
                continue
            _, row = found
            if item is not None and row["id"] != item["id"]:
                yield from _events(item, said)
                said = {}
            item = row
            said[row["key"]] = row["value"]
        if item is not None:
            yield from _events(item, said)


def _events(item: sqlite3.Row, said: dict[str, object]) -> Iterator[ListenEvent | BadRecord]:
    row = item["id"]
    counts: dict[str, int] = {}
    for key in _COUNTS:
        count = parse_number(said.get(key)) if key in said else 0.0
        if count is None or count < 0:
            yield BadRecord(row, key, said[key], "is not a count")
        else:
            counts[key] = int(count)
    n_plays = max((counts.get(key, 0) for key in _PLAYS), default=0)
    n_skips = counts.get("skip_count", 0)
    if not n_plays and not n_skips:
        return
    at_us = parse_time_us(said.get("last_played")) or parse_time_us(
        item["added"] if "added" in item.keys() else None  # noqa: SIM118
    )
    if at_us is None:
        yield BadRecord(
            row, "last_played", said.get("last_played"), "is no date, and neither is `added`"
        )
        return
    heard = _beets_track(item)
    if heard.path is None and heard.title is None:
        yield BadRecord(row, "title", "", "is missing, and so is the path")
        return
    for event, n_times in (("play", n_plays), ("skip", n_skips)):
        if n_times:
            yield ListenEvent(heard, at_us, event, n_times=n_times)


def _beets_track(item: sqlite3.Row) -> TrackReference:
    names = set(item.keys())
    path = item["path"] if "path" in names else None
    return TrackReference(
        mbid=parse_mbid(item["mb_trackid"]) if "mb_trackid" in names else None,
        isrc=parse_isrc(item["isrc"]) if "isrc" in names else None,
        path=os.fsdecode(path).encode("utf-8", "replace").decode()
        if isinstance(path, bytes)
        else parse_text(path),
        artist=parse_text(item["artist"]),
        title=parse_text(item["title"]),
        album=parse_text(item["album"]),
        duration_s=parse_duration_s(item["length"]) if "length" in names else None,
    )


NAVIDROME_TABLES = frozenset(["media_file", "annotation"])
LIKED_FROM, DISLIKED_UP_TO = 4, 1  # stars of five
_FILE = ("path", "title", "artist", "album", "duration", "mbz_recording_id", "mbz_track_id", "isrc")


def read_navidrome(source: HistoryFile) -> Records:
    """A scrobble is a play. Where a listener has none of a track, the play count is one event for
    so many plays.

    Its date is that of the last play. A star is a like on the day it was given; so are four and
    five stars of a rating, and one star is a dislike. user: the account's name, where the database
    has it, else its id.
    """
    tables = tables_with(source, NAVIDROME_TABLES, "Navidrome")
    with database(source) as connection:
        columns = [f"m.{name}" for name in _FILE if name in tables["media_file"]]
        has_names = {"id", "user_name"} <= tables.get("user", set())
        user = "COALESCE(u.user_name, e.user_id)" if has_names else "e.user_id"
        names = 'LEFT JOIN "user" u ON u.id = e.user_id' if has_names else ""
        picked = f"{user} AS user, {', '.join(columns)}"
        has_scrobbles = {"media_file_id", "user_id", "submission_time"} <= tables.get(
            "scrobbles", set()
        )
        if has_scrobbles:
            yield from _scrobbles(
                rows_of(
                    connection,
                    f"SELECT e.submission_time AS at, {picked} FROM scrobbles e "
                    f"LEFT JOIN media_file m ON m.id = e.media_file_id {names} ORDER BY e.rowid",
                )
            )
        told = [name for name in ("starred_at", "rated_at") if name in tables["annotation"]]
        # Joined to be looked up: EXISTS would go through all scrobbles for each annotation.
        scrobbled = (
            "LEFT JOIN (SELECT DISTINCT user_id, media_file_id FROM scrobbles) s "
            "ON s.user_id = e.user_id AND s.media_file_id = e.item_id"
        )
        is_scrobbled = "s.user_id IS NOT NULL" if has_scrobbles else "0"
        fields = ", ".join(
            f"e.{name}" for name in ("play_count", "play_date", "rating", "starred", *told)
        )
        yield from _annotations(
            rows_of(
                connection,
                f"SELECT {fields}, {is_scrobbled} AS is_scrobbled, {picked} FROM annotation e "
                f"LEFT JOIN media_file m ON m.id = e.item_id {names} {scrobbled if has_scrobbles else ''} "
                "WHERE e.item_type = 'media_file' ORDER BY e.rowid",
            )
        )


def _scrobbles(rows: Iterator[tuple[int, sqlite3.Row] | BadRecord]) -> Records:
    for found in rows:
        if isinstance(found, BadRecord):
            yield found
            continue
        line, row = found
        heard, at_us = _navidrome_track(row), parse_time_us(row["at"])
        if heard is None:
            yield BadRecord(
                line, "media_file_id", "", "names a file that the database does not have"
            )
        elif at_us is None:
            yield BadRecord(line, "submission_time", row["at"], NO_DATE)
        else:
            yield ListenEvent(heard, at_us, user=parse_text(row["user"]))


def _annotations(rows: Iterator[tuple[int, sqlite3.Row] | BadRecord]) -> Records:
    for found in rows:
        if isinstance(found, BadRecord):
            yield found
            continue
        line, row = found
        heard, user = _navidrome_track(row), parse_text(row["user"])
        n_plays, rating = parse_number(row["play_count"]) or 0, parse_number(row["rating"]) or 0
        if heard is None:
            if n_plays or row["starred"] or rating:
                yield BadRecord(line, "item_id", "", "names a file that the database does not have")
            continue
        played = parse_time_us(row["play_date"])
        if n_plays >= 1 and not row["is_scrobbled"]:
            if played is None:
                yield BadRecord(line, "play_date", row["play_date"], NO_DATE)
            else:
                yield ListenEvent(heard, played, user=user, n_times=int(n_plays))
        likes = [(row["starred"], "like", "starred_at"), (rating >= LIKED_FROM, "like", "rated_at")]
        likes.append((0 < rating <= DISLIKED_UP_TO, "dislike", "rated_at"))
        given = next(((event, when) for is_given, event, when in likes if is_given), None)
        if given:
            dates = [
                parse_time_us(row[name])
                for name in (given[1], "starred_at", "play_date")
                if name in row.keys()  # noqa: SIM118
            ]
            if at_us := next((date for date in dates if date), None):
                yield ListenEvent(heard, at_us, given[0], user=user)
            else:
                yield BadRecord(line, given[1], "", NO_DATE)


def _navidrome_track(row: sqlite3.Row) -> TrackReference | None:
    names = row.keys()
    path, title = parse_text(row["path"]), parse_text(row["title"])
    if path is None and title is None:
        return None
    artist, album = (
        parse_text(row[name]) if name in names else None for name in ("artist", "album")
    )
    ids = [parse_mbid(row[name]) for name in ("mbz_recording_id", "mbz_track_id") if name in names]
    return TrackReference(
        mbid=next((found for found in ids if found), None),
        path=path,
        artist=artist,
        title=title,
        album=album,
        duration_s=parse_duration_s(row["duration"]) if "duration" in names else None,
    )
