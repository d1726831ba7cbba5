"""Melon Playlist: 148,826 playlists of a Korean service with the songs' names and genres; mel
spectrograms, no audio.

`folder` holds `song_meta.json`, `genre_gn_all.json` and `train.json`, `val.json`, `test.json`, each
one JSON value. In these files a "line" of skipped.csv is the number of the entry, from 1.

HetRec 2011 Last.fm: how often 1,892 users played 17,632 artists, and the tags they gave. Artists,
not tracks.

`folder` holds the `.dat` files as unpacked: TAB-separated, without quoting.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.datasets.tables import (
    LINE,
    Content,
    event_table,
    numbers,
    optional,
    read_rows,
    refuse,
    required,
    times,
    track_table,
    unique_ids,
)
from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import (
    ALBUM,
    ARTIST,
    EVENT,
    GENRES,
    PLAYED_AT,
    RELEASE_DATE,
    SESSION_ID,
    TAGS,
    TITLE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)
from ponticello.storage.tables import truncate_value

HETREC_HOW = "hetrec2011-lastfm-2k.zip from https://grouplens.org/datasets/hetrec-2011/"
COUNTED_AT = datetime(
    2011, 5, 1, tzinfo=UTC
)  # the month of the release: the set has counts, not times
_UNKNOWN = "artist is not in artists.dat"


def read_hetrec(folder: Path) -> Content:
    """Artists as tracks, and one `collect` event a (user, artist).

    tracks: title and artist are the artist's name; tags: what users called it, most given first. No
    audio.
    interactions: weight is log(1 + listening count); played_at is `COUNTED_AT` for all, so a split
    by time means nothing here. A user has 50 artists at most; the others are unknown, not disliked.

    DataError: no artists.dat or user_artists.dat.
    """
    skipped: list[SkippedRow] = []
    missing: list[str] = []
    artists = _artists(required(folder, ["artists.dat"], "the artists' names", HETREC_HOW), skipped)
    events = _hetrec_events(
        required(folder, ["user_artists.dat"], "the listening counts", HETREC_HOW), artists, skipped
    )
    given = optional(folder, "user_taggedartists.dat", missing)
    names = optional(folder, "tags.dat", missing)
    if given and names:
        artists = artists.join(
            _tags(given, names, artists, skipped), on=TRACK_ID, how="left", maintain_order="left"
        )
    return Content(track_table(artists), event_table(events), skipped, missing)


def _artists(path: Path, skipped: list[SkippedRow]) -> pl.DataFrame:
    """Some copies have a header line in artists.dat and some have none."""
    frame, bad = read_rows(
        path, ["id", "name"], header=["id", "name", "url", "pictureURL"], n_header=0
    )
    skipped += bad
    frame = unique_ids(
        frame.filter((pl.col(LINE) > 1) | (pl.col("id") != "id")), "id", path.name, skipped
    )
    return frame.select(
        pl.col("id").alias(TRACK_ID), pl.col("name").alias(TITLE), pl.col("name").alias(ARTIST)
    )


def _hetrec_events(path: Path, artists: pl.DataFrame, skipped: list[SkippedRow]) -> pl.DataFrame:
    columns = [USER_ID, TRACK_ID, WEIGHT]  # the file's own header begins with // in some copies
    frame, bad = read_rows(path, columns, header=columns)
    skipped += bad
    for column in columns:
        frame = refuse(frame, pl.col(column).is_null(), column, "is missing", path.name, skipped)
    frame = numbers(frame, WEIGHT, path.name, skipped)
    known = artists[TRACK_ID].implode()
    frame = refuse(frame, ~pl.col(TRACK_ID).is_in(known), TRACK_ID, _UNKNOWN, path.name, skipped)
    is_repeated = ~pl.struct(USER_ID, TRACK_ID).is_first_distinct()
    frame = refuse(
        frame, is_repeated, TRACK_ID, "repeats an earlier user and artist", path.name, skipped
    )
    return frame.select(
        USER_ID,
        TRACK_ID,
        pl.lit(COUNTED_AT).alias(PLAYED_AT),
        pl.lit("collect").alias(EVENT),
        pl.col(WEIGHT).log1p(),
    )


def _tags(
    given: Path, names: Path, artists: pl.DataFrame, skipped: list[SkippedRow]
) -> pl.DataFrame:
    """A row an artist: `track_id`, and its `tags`, most given first, then by name."""
    tags, bad = read_rows(names, ["tagID", "tagValue"], encoding="iso-8859-1")
    skipped += bad
    tags = unique_ids(tags, "tagID", names.name, skipped)
    rows, bad = read_rows(given, ["artistID", "tagID"])
    skipped += bad
    known = {
        "artistID": (artists[TRACK_ID], _UNKNOWN),
        "tagID": (tags["tagID"], f"tag is not in {names.name}"),
    }
    for column, (ids, reason) in known.items():
        is_known = pl.col(column).is_in(ids.implode()).fill_null(False)
        rows = refuse(rows, ~is_known, column, reason, given.name, skipped)
    counts = rows.join(tags, on="tagID").group_by("artistID", "tagValue").len()
    counts = counts.filter(pl.col("tagValue").is_not_null()).sort(
        "len", "tagValue", descending=[True, False]
    )
    return counts.group_by(pl.col("artistID").alias(TRACK_ID), maintain_order=True).agg(
        pl.col("tagValue").alias(TAGS)
    )


MELON_HOW = "register at https://arena.kakao.com/melon_dataset"
_SONGS = "song_meta.json"
_GENRES = "genre_gn_all.json"
_PLAYLISTS = {"train.json": "train", "val.json": "validation", "test.json": "test"}


def read_melon(folder: Path) -> Content:
    """Songs as tracks, and one `playlist` event a song of a playlist.

    tracks: no audio, and no tags, since a playlist's tags are not its songs'. genres: names of
    genres, then of their branches. interactions: user_id and session_id are the playlist's id,
    played_at its `updt_date` (which names no
    zone: taken as UTC), `split` the file it stands in. That date is the playlist's, not a
    listener's: a split by time means little. In val.json and test.json part of the songs are held
    back by the set itself.

    DataError: no song_meta.json, or a file that is not JSON of the set's shape.
    """
    skipped: list[SkippedRow] = []
    missing: list[str] = []
    path = required(folder, [_SONGS], "the songs' names", MELON_HOW)
    genres = optional(folder, _GENRES, missing)
    names = _json(genres, dict) if genres else {}
    tracks: dict[str, dict[str, Any]] = {}
    for number, song in enumerate(_json(path, list), 1):
        if reason := _song_problem(song, tracks):
            skipped.append(SkippedRow(path.name, number, "id", _shown(song), reason))
        else:
            tracks[str(song["id"])] = _track(song, names)
    files = {
        found: split
        for name, split in _PLAYLISTS.items()
        if (found := optional(folder, name, missing))
    }
    events = [_melon_events(file, split, tracks, skipped) for file, split in files.items()]
    return Content(
        track_table(tracks.values()), pl.concat(events) if events else None, skipped, missing
    )


def _json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not JSON ({error}); to get it: {MELON_HOW}") from None
    if not isinstance(value, kind):
        raise DataError(
            f"{path.name} is a JSON {type(value).__name__}, wanted a {kind.__name__}; get it again"
        )
    return value


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _song_problem(song: Any, tracks: dict[str, dict[str, Any]]) -> str:
    if not isinstance(song, dict) or not _is_id(song.get("id")):
        return "is not a song with a number as its id"
    if str(song["id"]) in tracks:
        return "repeats an earlier id"
    for key in ("song_gn_gnr_basket", "song_gn_dtl_gnr_basket", "artist_name_basket"):
        if not isinstance(song.get(key, []), list):
            return f"has a {key} that is not a list"
    return ""


def _track(song: dict[str, Any], names: dict[str, Any]) -> dict[str, Any]:
    codes = [*song.get("song_gn_gnr_basket", []), *song.get("song_gn_dtl_gnr_basket", [])]
    return {
        TRACK_ID: str(song["id"]),
        TITLE: _text(song.get("song_name")),
        ARTIST: _text(", ".join(map(str, song.get("artist_name_basket", [])))),
        ALBUM: _text(song.get("album_name")),
        GENRES: list(dict.fromkeys(_text(names.get(str(code), code)) for code in codes)),
        RELEASE_DATE: _date(_text(song.get("issue_date"))),
    }


def _text(value: Any) -> str | None:
    """Half a surrogate pair, which JSON can hold and text cannot, becomes a question mark."""
    return None if value is None else str(value).encode("utf-8", "replace").decode().strip() or None


def _shown(value: Any) -> str:
    return _text(truncate_value(value)) or ""


def _date(value: str | None) -> str | None:
    """`20140512` as 2014-05-12; 00 is unknown, so `20140500` is 2014-05."""
    if value is None or len(value) != 8 or not value.isdecimal() or value.startswith("0000"):
        return None
    known = [value[:4], *[part for part in (value[4:6], value[6:]) if part != "00"]]
    return "-".join(known if value[4:6] != "00" else known[:1])


def _melon_events(
    path: Path, split: str, tracks: dict[str, dict[str, Any]], skipped: list[SkippedRow]
) -> pl.DataFrame:
    rows: list[tuple[int, str, str, str | None]] = []
    for number, playlist in enumerate(_json(path, list), 1):
        if not isinstance(playlist, dict) or not _is_id(playlist.get("id")):
            skipped.append(
                SkippedRow(
                    path.name,
                    number,
                    "id",
                    _shown(playlist),
                    "is not a playlist with a number as its id",
                )
            )
            continue
        songs = playlist.get("songs")
        if not isinstance(songs, list) or not isinstance(playlist.get("updt_date"), str):
            skipped.append(
                SkippedRow(
                    path.name, number, "songs", _shown(playlist), "lacks its songs or updt_date"
                )
            )
            continue
        for song in songs:
            if str(song) in tracks:
                rows.append((number, str(playlist["id"]), str(song), _text(playlist["updt_date"])))
            else:
                skipped.append(
                    SkippedRow(path.name, number, "songs", _shown(song), f"song is not in {_SONGS}")
                )
    events = pl.DataFrame(rows, [LINE, USER_ID, TRACK_ID, PLAYED_AT], orient="row").cast(
        {LINE: pl.Int64}
    )
    events = events.with_columns(pl.col(USER_ID, TRACK_ID, PLAYED_AT).cast(pl.String))
    is_repeated = ~pl.struct(USER_ID, TRACK_ID).is_first_distinct()
    events = refuse(events, is_repeated, TRACK_ID, "is in the playlist already", path.name, skipped)
    events = times(events, PLAYED_AT, path.name, skipped).drop(LINE)
    return event_table(
        events.with_columns(
            pl.col(USER_ID).alias(SESSION_ID),
            pl.lit("playlist").alias(EVENT),
            pl.lit(split).alias("split"),
        )
    )
