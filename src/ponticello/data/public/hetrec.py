"""HetRec 2011 Last.fm: how often 1,892 users played 17,632 artists, and the tags they gave. Artists, not tracks.

`folder` holds the `.dat` files as unpacked: TAB-separated, without quoting.
"""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ponticello.data.columns import ARTIST, EVENT, PLAYED_AT, TAGS, TITLE, TRACK_ID, USER_ID, WEIGHT
from ponticello.data.public.content import Content, event_table, optional, required, track_table
from ponticello.data.public.rows import LINE, numbers, read_rows, refuse, unique_ids
from ponticello.library import Skipped

HOW_TO_GET = "hetrec2011-lastfm-2k.zip from https://grouplens.org/datasets/hetrec-2011/"
COUNTED_AT = datetime(2011, 5, 1, tzinfo=UTC)  # the month of the release: the set has counts, not times
_UNKNOWN = "artist is not in artists.dat"


def read(folder: Path) -> Content:
    """Artists as tracks, and one `collect` event a (user, artist).

    tracks: title and artist are the artist's name; tags: what users called it, most given first. No audio.
    interactions: weight is log(1 + listening count); played_at is `COUNTED_AT` for all, so a split by time means
    nothing here. A user has 50 artists at most; the others are unknown, not disliked.

    DataError: no artists.dat or user_artists.dat.
    """
    skipped: list[Skipped] = []
    missing: list[str] = []
    artists = _artists(required(folder, ["artists.dat"], "the artists' names", HOW_TO_GET), skipped)
    events = _events(required(folder, ["user_artists.dat"], "the listening counts", HOW_TO_GET), artists, skipped)
    given = optional(folder, "user_taggedartists.dat", missing)
    names = optional(folder, "tags.dat", missing)
    if given and names:
        artists = artists.join(_tags(given, names, artists, skipped), on=TRACK_ID, how="left", maintain_order="left")
    return Content(track_table(artists), event_table(events), skipped, missing)


def _artists(path: Path, skipped: list[Skipped]) -> pl.DataFrame:
    """Some copies have a header line in artists.dat and some have none."""
    frame, bad = read_rows(path, ["id", "name"], header=["id", "name", "url", "pictureURL"], n_header=0)
    skipped += bad
    frame = unique_ids(frame.filter((pl.col(LINE) > 1) | (pl.col("id") != "id")), "id", path.name, skipped)
    return frame.select(pl.col("id").alias(TRACK_ID), pl.col("name").alias(TITLE), pl.col("name").alias(ARTIST))


def _events(path: Path, artists: pl.DataFrame, skipped: list[Skipped]) -> pl.DataFrame:
    columns = [USER_ID, TRACK_ID, WEIGHT]  # the file's own header begins with // in some copies
    frame, bad = read_rows(path, columns, header=columns)
    skipped += bad
    for column in columns:
        frame = refuse(frame, pl.col(column).is_null(), column, "is missing", path.name, skipped)
    frame = numbers(frame, WEIGHT, path.name, skipped)
    known = artists[TRACK_ID].implode()
    frame = refuse(frame, ~pl.col(TRACK_ID).is_in(known), TRACK_ID, _UNKNOWN, path.name, skipped)
    is_repeated = ~pl.struct(USER_ID, TRACK_ID).is_first_distinct()
    frame = refuse(frame, is_repeated, TRACK_ID, "repeats an earlier user and artist", path.name, skipped)
    return frame.select(
        USER_ID,
        TRACK_ID,
        pl.lit(COUNTED_AT).alias(PLAYED_AT),
        pl.lit("collect").alias(EVENT),
        pl.col(WEIGHT).log1p(),
    )


def _tags(given: Path, names: Path, artists: pl.DataFrame, skipped: list[Skipped]) -> pl.DataFrame:
    """A row an artist: `track_id`, and its `tags`, most given first, then by name."""
    tags, bad = read_rows(names, ["tagID", "tagValue"], encoding="iso-8859-1")
    skipped += bad
    tags = unique_ids(tags, "tagID", names.name, skipped)
    rows, bad = read_rows(given, ["artistID", "tagID"])
    skipped += bad
    known = {"artistID": (artists[TRACK_ID], _UNKNOWN), "tagID": (tags["tagID"], f"tag is not in {names.name}")}
    for column, (ids, reason) in known.items():
        is_known = pl.col(column).is_in(ids.implode()).fill_null(False)
        rows = refuse(rows, ~is_known, column, reason, given.name, skipped)
    counts = rows.join(tags, on="tagID").group_by("artistID", "tagValue").len()
    counts = counts.filter(pl.col("tagValue").is_not_null()).sort("len", "tagValue", descending=[True, False])
    return counts.group_by(pl.col("artistID").alias(TRACK_ID), maintain_order=True).agg(pl.col("tagValue").alias(TAGS))
