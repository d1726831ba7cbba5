"""A beets library: counts that its plugins keep as flexible attributes."""

import os
import sqlite3
from collections.abc import Iterator

from ponticello.data.history.listen import Fault, Heard, Listen, Records, isrc_of, length, mbid_in, moment, number, text
from ponticello.data.history.sources import Source
from ponticello.data.history.sqlite_files import database, rows_of, tables_with

TABLES = frozenset(["items", "item_attributes"])
_PLAYS = ("play_count", "lastfm_play_count", "listenbrainz_play_count")
_COUNTS = (*_PLAYS, "skip_count")
_FIELDS = ("path", "title", "artist", "album", "length", "mb_trackid", "isrc", "added")
_QUERY = """SELECT i.id AS id, {fields}, a.key AS key, a.value AS value FROM items i
    JOIN item_attributes a ON a.entity_id = i.id AND a.key IN ({keys}) ORDER BY i.id"""


def read_beets(source: Source) -> Records:
    """One play event for all plays of an item, and one skip event for all skips; the counts are kept with them.

    Of several counts of plays the largest is taken, since each plugin may count the same ones. The date is
    `last_played`, else the day the item was added. `rating` is left: plugins compute it from the counts.
    """
    known = tables_with(source, TABLES, "beets")["items"]
    fields = ", ".join(f"i.{name}" for name in _FIELDS if name in known)
    keys = ", ".join(f"'{key}'" for key in (*_COUNTS, "last_played"))
    with database(source) as connection:
        item: sqlite3.Row | None = None
        said: dict[str, object] = {}
        for found in rows_of(connection, _QUERY.format(fields=fields, keys=keys)):
            if isinstance(found, Fault):
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


def _events(item: sqlite3.Row, said: dict[str, object]) -> Iterator[Listen | Fault]:
    row = item["id"]
    counts: dict[str, int] = {}
    for key in _COUNTS:
        count = number(said.get(key)) if key in said else 0.0
        if count is None or count < 0:
            yield Fault(row, key, said[key], "is not a count")
        else:
            counts[key] = int(count)
    n_plays = max((counts.get(key, 0) for key in _PLAYS), default=0)
    n_skips = counts.get("skip_count", 0)
    if not n_plays and not n_skips:
        return
    at_us = moment(said.get("last_played")) or moment(item["added"] if "added" in item.keys() else None)  # noqa: SIM118
    if at_us is None:
        yield Fault(row, "last_played", said.get("last_played"), "is no date, and neither is `added`")
        return
    heard = _heard(item)
    if heard.path is None and heard.title is None:
        yield Fault(row, "title", "", "is missing, and so is the path")
        return
    for event, n_times in (("play", n_plays), ("skip", n_skips)):
        if n_times:
            yield Listen(heard, at_us, event, n_times=n_times)


def _heard(item: sqlite3.Row) -> Heard:
    names = set(item.keys())
    path = item["path"] if "path" in names else None
    return Heard(
        mbid=mbid_in(item["mb_trackid"]) if "mb_trackid" in names else None,
        isrc=isrc_of(item["isrc"]) if "isrc" in names else None,
        path=os.fsdecode(path).encode("utf-8", "replace").decode() if isinstance(path, bytes) else text(path),
        artist=text(item["artist"]),
        title=text(item["title"]),
        album=text(item["album"]),
        duration_s=length(item["length"]) if "length" in names else None,
    )
