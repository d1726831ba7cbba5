"""Navidrome's database: scrobbles in newer ones, play counts in all, stars and ratings."""

import sqlite3
from collections.abc import Iterator

from ponticello.data.history.listen import (
    NO_DATE,
    Fault,
    Heard,
    Listen,
    Records,
    length,
    mbid_in,
    moment,
    number,
    text,
)
from ponticello.data.history.sources import Source
from ponticello.data.history.sqlite_files import database, rows_of, tables_with

TABLES = frozenset(["media_file", "annotation"])
LIKED_FROM, DISLIKED_UP_TO = 4, 1  # stars of five
_FILE = ("path", "title", "artist", "album", "duration", "mbz_recording_id", "mbz_track_id", "isrc")


def read_navidrome(source: Source) -> Records:
    """A scrobble is a play. Where a listener has none of a track, the play count is one event for so many plays.

    Its date is that of the last play. A star is a like on the day it was given; so are four and five stars of a
    rating, and one star is a dislike. user: the account's name, where the database has it, else its id.
    """
    tables = tables_with(source, TABLES, "Navidrome")
    with database(source) as connection:
        columns = [f"m.{name}" for name in _FILE if name in tables["media_file"]]
        has_names = {"id", "user_name"} <= tables.get("user", set())
        user = "COALESCE(u.user_name, e.user_id)" if has_names else "e.user_id"
        names = 'LEFT JOIN "user" u ON u.id = e.user_id' if has_names else ""
        picked = f"{user} AS user, {', '.join(columns)}"
        has_scrobbles = {"media_file_id", "user_id", "submission_time"} <= tables.get("scrobbles", set())
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
        fields = ", ".join(f"e.{name}" for name in ("play_count", "play_date", "rating", "starred", *told))
        yield from _annotations(
            rows_of(
                connection,
                f"SELECT {fields}, {is_scrobbled} AS is_scrobbled, {picked} FROM annotation e "
                f"LEFT JOIN media_file m ON m.id = e.item_id {names} {scrobbled if has_scrobbles else ''} "
                "WHERE e.item_type = 'media_file' ORDER BY e.rowid",
            )
        )


def _scrobbles(rows: Iterator[tuple[int, sqlite3.Row] | Fault]) -> Records:
    for found in rows:
        if isinstance(found, Fault):
            yield found
            continue
        line, row = found
        heard, at_us = _heard(row), moment(row["at"])
        if heard is None:
            yield Fault(line, "media_file_id", "", "names a file that the database does not have")
        elif at_us is None:
            yield Fault(line, "submission_time", row["at"], NO_DATE)
        else:
            yield Listen(heard, at_us, user=text(row["user"]))


def _annotations(rows: Iterator[tuple[int, sqlite3.Row] | Fault]) -> Records:
    for found in rows:
        if isinstance(found, Fault):
            yield found
            continue
        line, row = found
        heard, user = _heard(row), text(row["user"])
        n_plays, rating = number(row["play_count"]) or 0, number(row["rating"]) or 0
        if heard is None:
            if n_plays or row["starred"] or rating:
                yield Fault(line, "item_id", "", "names a file that the database does not have")
            continue
        played = moment(row["play_date"])
        if n_plays >= 1 and not row["is_scrobbled"]:
            if played is None:
                yield Fault(line, "play_date", row["play_date"], NO_DATE)
            else:
                yield Listen(heard, played, user=user, n_times=int(n_plays))
        likes = [(row["starred"], "like", "starred_at"), (rating >= LIKED_FROM, "like", "rated_at")]
        likes.append((0 < rating <= DISLIKED_UP_TO, "dislike", "rated_at"))
        given = next(((event, when) for is_given, event, when in likes if is_given), None)
        if given:
            dates = [moment(row[name]) for name in (given[1], "starred_at", "play_date") if name in row.keys()]  # noqa: SIM118
            if at_us := next((date for date in dates if date), None):
                yield Listen(heard, at_us, given[0], user=user)
            else:
                yield Fault(line, given[1], "", NO_DATE)


def _heard(row: sqlite3.Row) -> Heard | None:
    names = row.keys()
    path, title = text(row["path"]), text(row["title"])
    if path is None and title is None:
        return None
    artist, album = (text(row[name]) if name in names else None for name in ("artist", "album"))
    ids = [mbid_in(row[name]) for name in ("mbz_recording_id", "mbz_track_id") if name in names]
    return Heard(
        mbid=next((found for found in ids if found), None),
        path=path,
        artist=artist,
        title=title,
        album=album,
        duration_s=length(row["duration"]) if "duration" in names else None,
    )
