"""HetRec 2011 Last.fm and the Melon Playlist Dataset: listening and playlists, without audio.

HetRec: how often 1,892 users played 17,632 artists, and the tags they gave. Its tracks are artists.
`folder` holds the `.dat` files as unpacked: TAB-separated, without quoting.

Melon: 148,826 playlists of a Korean service with the songs' names and genres. `folder` holds
`song_meta.json`, `genre_gn_all.json` and `train.json`, `val.json`, `test.json`, each one JSON
value. In these files a "line" of skipped.csv is the number of the entry, from 1.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.datasets.tables import LINE, Content, SetFolder
from ponticello.errors import DataError
from ponticello.storage import schema
from ponticello.storage.tables import truncate_value

COUNTED_AT = datetime(2011, 5, 1, tzinfo=UTC)  # the month of the release: there are no times
_UNKNOWN_ARTIST = "artist is not in artists.dat"


def read_hetrec(files: SetFolder) -> Content:
    """Reads artists as tracks, and one `collect` event per user and artist.

    tracks: title and artist are the artist's name; tags: the users' tags, most given first. No
    audio. interactions: weight is log(1 + listening count); played_at is `COUNTED_AT` for all, so a
    split by time has no meaning. A user has at most 50 artists; others are unknown, not disliked.

    DataError: no artists.dat or user_artists.dat.
    """
    artists = _artists(files, files.required(["artists.dat"], "the artists' names"))
    path = files.required(["user_artists.dat"], "the listening counts")
    events = _hetrec_events(files, path, artists)
    taggings = files.optional("user_taggedartists.dat")
    tags = files.optional("tags.dat")
    if taggings and tags:
        artist_tags = _artist_tags(files, taggings, tags, artists)
        artists = artists.join(artist_tags, on=schema.TRACK_ID, how="left", maintain_order="left")
    return files.content(artists, events)


def _artists(files: SetFolder, path: Path) -> pl.DataFrame:
    header = ["id", "name", "url", "pictureURL"]
    rows = files.read(path, ["id", "name"], header=header, n_header=0)
    is_header = (pl.col(LINE) == 1) & (pl.col("id") == "id")  # in some copies only
    rows.frame = rows.frame.filter(~is_header.fill_null(False))
    rows.require_unique("id")
    name = pl.col("name")
    return rows.frame.select(
        pl.col("id").alias(schema.TRACK_ID), name.alias(schema.TITLE), name.alias(schema.ARTIST)
    )


def _hetrec_events(files: SetFolder, path: Path, artists: pl.DataFrame) -> pl.DataFrame:
    columns = [
        schema.USER_ID,
        schema.TRACK_ID,
        schema.WEIGHT,
    ]  # the file's own header begins with // in some copies
    rows = files.read(path, columns, header=columns)
    rows.require(schema.USER_ID, schema.TRACK_ID, schema.WEIGHT)
    rows.parse_numbers(schema.WEIGHT)
    is_unknown = ~pl.col(schema.TRACK_ID).is_in(artists[schema.TRACK_ID].implode())
    rows.refuse(is_unknown, schema.TRACK_ID, _UNKNOWN_ARTIST)
    is_repeated = ~pl.struct(schema.USER_ID, schema.TRACK_ID).is_first_distinct()
    rows.refuse(is_repeated, schema.TRACK_ID, "repeats an earlier user and artist")
    return rows.frame.select(
        schema.USER_ID,
        schema.TRACK_ID,
        pl.lit(COUNTED_AT).alias(schema.PLAYED_AT),
        pl.lit("collect").alias(schema.EVENT),
        pl.col(schema.WEIGHT).log1p(),
    )


def _artist_tags(
    files: SetFolder, taggings: Path, tags: Path, artists: pl.DataFrame
) -> pl.DataFrame:
    """Returns a row per artist: `track_id`, and `tags`, most given first, then by name."""
    names = files.read(tags, ["tagID", "tagValue"], encoding="iso-8859-1")
    names.require_unique("tagID")
    rows = files.read(taggings, ["artistID", "tagID"])
    valid_ids = {
        "artistID": (artists[schema.TRACK_ID], _UNKNOWN_ARTIST),
        "tagID": (names.frame["tagID"], f"tag is not in {tags.name}"),
    }
    for column, (ids, reason) in valid_ids.items():
        is_valid = pl.col(column).is_in(ids.implode()).fill_null(False)
        rows.refuse(~is_valid, column, reason)
    counts = rows.frame.join(names.frame, on="tagID").group_by("artistID", "tagValue").len()
    counts = counts.filter(pl.col("tagValue").is_not_null())
    counts = counts.sort("len", "tagValue", descending=[True, False])
    by_artist = counts.group_by(pl.col("artistID").alias(schema.TRACK_ID), maintain_order=True)
    return by_artist.agg(pl.col("tagValue").alias(schema.TAGS))


_SONGS = "song_meta.json"
_GENRES = "genre_gn_all.json"
_PLAYLISTS = {"train.json": "train", "val.json": "validation", "test.json": "test"}


def read_melon(files: SetFolder) -> Content:
    """Reads songs as tracks, and one `playlist` event per song of a playlist.

    tracks: no audio, and no tags, since a playlist's tags are not its songs'. genres: names of
    genres, then of their branches. interactions: user_id and session_id are the playlist's id;
    split is its file; played_at is its `updt_date`, which names no zone and is taken as UTC. It is
    the date of the playlist, not of a listen, so a split by time means little. In val.json and
    test.json the set holds back some of the songs.

    DataError: no song_meta.json, or a file that is not JSON of the set's shape.
    """
    path = files.required([_SONGS], "the songs' names")
    genres_path = files.optional(_GENRES)
    genre_names = _read_json(files, genres_path, dict) if genres_path else {}
    tracks: dict[str, dict[str, Any]] = {}
    for number, song in enumerate(_read_json(files, path, list), 1):
        if reason := _song_problem(song, tracks):
            files.skip(path.name, number, "id", _display(song), reason)
        else:
            tracks[str(song["id"])] = _track(song, genre_names)
    frames = []
    for name, split in _PLAYLISTS.items():
        if playlists := files.optional(name):
            frames.append(_melon_events(files, playlists, split, tracks))
    table = pl.DataFrame(list(tracks.values()), infer_schema_length=None)
    return files.content(table, pl.concat(frames) if frames else None)


def _read_json(files: SetFolder, path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path.name} is not JSON ({error}); to get it: {files.how_to_get}"
        ) from None
    if not isinstance(value, kind):
        raise DataError(
            f"{path.name} is a JSON {type(value).__name__}, wanted a {kind.__name__}; get it again"
        )
    return value


def _song_problem(song: Any, tracks: dict[str, dict[str, Any]]) -> str:
    if not isinstance(song, dict) or type(song.get("id")) is not int:
        return "is not a song with a number as its id"
    if str(song["id"]) in tracks:
        return "repeats an earlier id"
    for key in ("song_gn_gnr_basket", "song_gn_dtl_gnr_basket", "artist_name_basket"):
        if not isinstance(song.get(key, []), list):
            return f"has a {key} that is not a list"
    return ""


def _track(song: dict[str, Any], genre_names: dict[str, Any]) -> dict[str, Any]:
    codes = song.get("song_gn_gnr_basket", []) + song.get("song_gn_dtl_gnr_basket", [])
    genres = [_text(genre_names.get(str(code), code)) for code in codes]
    artists = [str(name) for name in song.get("artist_name_basket", [])]
    return {
        schema.TRACK_ID: str(song["id"]),
        schema.TITLE: _text(song.get("song_name")),
        schema.ARTIST: _text(", ".join(artists)),
        schema.ALBUM: _text(song.get("album_name")),
        schema.GENRES: list(dict.fromkeys(genres)),
        schema.RELEASE_DATE: _date(_text(song.get("issue_date"))),
    }


def _text(value: Any) -> str | None:
    """Returns the value as text; half a surrogate pair, legal in JSON, becomes a question mark."""
    return None if value is None else str(value).encode("utf-8", "replace").decode().strip() or None


def _display(value: Any) -> str:
    return _text(truncate_value(value)) or ""


def _date(value: str | None) -> str | None:
    """Returns `20140512` as 2014-05-12; 00 is unknown, so `20140500` becomes 2014-05."""
    if value is None or len(value) != 8 or not value.isdecimal() or value.startswith("0000"):
        return None
    date = value[:4]
    for number in (value[4:6], value[6:]):
        if number == "00":
            break
        date += f"-{number}"
    return date


def _melon_events(
    files: SetFolder, path: Path, split: str, tracks: dict[str, dict[str, Any]]
) -> pl.DataFrame:
    entries: list[tuple[int, str, str, str | None]] = []
    for number, playlist in enumerate(_read_json(files, path, list), 1):
        if not isinstance(playlist, dict) or type(playlist.get("id")) is not int:
            reason = "is not a playlist with a number as its id"
            files.skip(path.name, number, "id", _display(playlist), reason)
            continue
        songs = playlist.get("songs")
        date = playlist.get("updt_date")
        if not isinstance(songs, list) or not isinstance(date, str):
            reason = "lacks its songs or updt_date"
            files.skip(path.name, number, "songs", _display(playlist), reason)
            continue
        for song in songs:
            if str(song) in tracks:
                entries.append((number, str(playlist["id"]), str(song), _text(date)))
            else:
                reason = f"song is not in {_SONGS}"
                files.skip(path.name, number, "songs", _display(song), reason)
    text_columns = [schema.USER_ID, schema.TRACK_ID, schema.PLAYED_AT]
    dtypes = {LINE: pl.Int64(), **dict.fromkeys(text_columns, pl.String())}
    rows = files.rows(pl.DataFrame(entries, dtypes, orient="row"), path.name)
    is_repeated = ~pl.struct(schema.USER_ID, schema.TRACK_ID).is_first_distinct()
    rows.refuse(is_repeated, schema.TRACK_ID, "is in the playlist already")
    rows.parse_times(schema.PLAYED_AT)
    return rows.frame.drop(LINE).with_columns(
        pl.col(schema.USER_ID).alias(schema.SESSION_ID),
        pl.lit("playlist").alias(schema.EVENT),
        pl.lit(split).alias("split"),
    )
