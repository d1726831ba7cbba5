"""Melon Playlist: 148,826 playlists of a Korean service with the songs' names and genres; mel spectrograms, no audio.

`folder` holds `song_meta.json`, `genre_gn_all.json` and `train.json`, `val.json`, `test.json`, each one JSON value.
In these files a "line" of skipped.csv is the number of the entry, from 1.
"""

import json
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.data.columns import (
    ALBUM,
    ARTIST,
    EVENT,
    GENRES,
    PLAYED_AT,
    RELEASE_DATE,
    SESSION_ID,
    TITLE,
    TRACK_ID,
    USER_ID,
)
from ponticello.data.formats import shown
from ponticello.data.public.content import Content, event_table, optional, required, track_table
from ponticello.data.public.rows import LINE, refuse, times
from ponticello.errors import DataError
from ponticello.library import Skipped

HOW_TO_GET = "register at https://arena.kakao.com/melon_dataset"
_SONGS = "song_meta.json"
_GENRES = "genre_gn_all.json"
_PLAYLISTS = {"train.json": "train", "val.json": "validation", "test.json": "test"}


def read(folder: Path) -> Content:
    """Songs as tracks, and one `playlist` event a song of a playlist.

    tracks: no audio, and no tags, since a playlist's tags are not its songs'. genres: names of genres, then of their
    branches. interactions: user_id and session_id are the playlist's id, played_at its `updt_date` (which names no
    zone: taken as UTC), `split` the file it stands in. That date is the playlist's, not a listener's: a split by time
    means little. In val.json and test.json part of the songs are held back by the set itself.

    DataError: no song_meta.json, or a file that is not JSON of the set's shape.
    """
    skipped: list[Skipped] = []
    missing: list[str] = []
    path = required(folder, [_SONGS], "the songs' names", HOW_TO_GET)
    genres = optional(folder, _GENRES, missing)
    names = _json(genres, dict) if genres else {}
    tracks: dict[str, dict[str, Any]] = {}
    for number, song in enumerate(_json(path, list), 1):
        if reason := _song_problem(song, tracks):
            skipped.append(Skipped(path.name, number, "id", _shown(song), reason))
        else:
            tracks[str(song["id"])] = _track(song, names)
    files = {found: split for name, split in _PLAYLISTS.items() if (found := optional(folder, name, missing))}
    events = [_events(file, split, tracks, skipped) for file, split in files.items()]
    return Content(track_table(tracks.values()), pl.concat(events) if events else None, skipped, missing)


def _json(path: Path, kind: type) -> Any:
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path.name} is not JSON ({error}); to get it: {HOW_TO_GET}") from None
    if not isinstance(value, kind):
        raise DataError(f"{path.name} is a JSON {type(value).__name__}, wanted a {kind.__name__}; get it again")
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
    return _text(shown(value)) or ""


def _date(value: str | None) -> str | None:
    """`20140512` as 2014-05-12; 00 is unknown, so `20140500` is 2014-05."""
    if value is None or len(value) != 8 or not value.isdecimal() or value.startswith("0000"):
        return None
    known = [value[:4], *[part for part in (value[4:6], value[6:]) if part != "00"]]
    return "-".join(known if value[4:6] != "00" else known[:1])


def _events(path: Path, split: str, tracks: dict[str, dict[str, Any]], skipped: list[Skipped]) -> pl.DataFrame:
    rows: list[tuple[int, str, str, str | None]] = []
    for number, playlist in enumerate(_json(path, list), 1):
        if not isinstance(playlist, dict) or not _is_id(playlist.get("id")):
            skipped.append(
                Skipped(path.name, number, "id", _shown(playlist), "is not a playlist with a number as its id")
            )
            continue
        songs = playlist.get("songs")
        if not isinstance(songs, list) or not isinstance(playlist.get("updt_date"), str):
            skipped.append(Skipped(path.name, number, "songs", _shown(playlist), "lacks its songs or updt_date"))
            continue
        for song in songs:
            if str(song) in tracks:
                rows.append((number, str(playlist["id"]), str(song), _text(playlist["updt_date"])))
            else:
                skipped.append(Skipped(path.name, number, "songs", _shown(song), f"song is not in {_SONGS}"))
    events = pl.DataFrame(rows, [LINE, USER_ID, TRACK_ID, PLAYED_AT], orient="row").cast({LINE: pl.Int64})
    events = events.with_columns(pl.col(USER_ID, TRACK_ID, PLAYED_AT).cast(pl.String))
    is_repeated = ~pl.struct(USER_ID, TRACK_ID).is_first_distinct()
    events = refuse(events, is_repeated, TRACK_ID, "is in the playlist already", path.name, skipped)
    events = times(events, PLAYED_AT, path.name, skipped).drop(LINE)
    return event_table(
        events.with_columns(
            pl.col(USER_ID).alias(SESSION_ID), pl.lit("playlist").alias(EVENT), pl.lit(split).alias("split")
        )
    )
