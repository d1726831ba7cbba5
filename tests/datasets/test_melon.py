"""Melon Playlist: JSON lists of songs and playlists."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from ponticello.datasets.registry import SETS
from ponticello.errors import DataError

SONG = {
    "id": 0,
    "song_name": "Feelings",
    "artist_name_basket": ["Various", "Bo"],
    "album_name": "Hits",
    "album_id": 2255639,
    "artist_id_basket": [2727],
    "issue_date": "20140512",
    "song_gn_gnr_basket": ["GN0900"],
    "song_gn_dtl_gnr_basket": ["GN0901", "GN0900"],
}
PLAYLIST = {
    "id": 61281,
    "plylst_title": "여행",
    "tags": ["락"],
    "songs": [0],
    "like_cnt": 71,
    "updt_date": "2013-12-19 18:36:19.000",
}


def _write(root: Path, **files: Any) -> None:
    for name, value in files.items():
        (root / f"{name}.json").write_text(json.dumps(value))


def test_song_becomes_a_track_with_names_for_its_genres(tmp_path: Path) -> None:
    _write(tmp_path, song_meta=[SONG], genre_gn_all={"GN0900": "POP"})
    content = SETS["melon"].read(tmp_path)
    assert content.tracks.to_dicts() == [
        {
            "track_id": "0",
            "title": "Feelings",
            "artist": "Various, Bo",
            "album": "Hits",
            "genres": ["POP", "GN0901"],
            "release_date": "2014-05-12",
        }
    ]
    assert content.interactions is None
    assert content.missing == ["train.json", "val.json", "test.json"]


@pytest.mark.parametrize(
    ("issued", "date"),
    [("20140500", "2014-05"), ("20140000", "2014"), ("00000000", None), ("", None)],
)
def test_unknown_parts_of_a_date_are_left_out(
    tmp_path: Path, issued: str, date: str | None
) -> None:
    _write(tmp_path, song_meta=[{**SONG, "issue_date": issued}], genre_gn_all={})
    assert SETS["melon"].read(tmp_path).tracks["release_date"].to_list() == [date]


def test_playlist_is_its_own_user_and_session_at_its_date(tmp_path: Path) -> None:
    _write(
        tmp_path,
        song_meta=[SONG],
        genre_gn_all={},
        train=[PLAYLIST],
        val=[{**PLAYLIST, "id": 2}],
        test=[],
    )
    content = SETS["melon"].read(tmp_path)
    assert content.interactions is not None
    moment = datetime(2013, 12, 19, 18, 36, 19, tzinfo=UTC)
    columns = ("user_id", "session_id", "track_id", "played_at", "event", "split")
    assert content.interactions.select(columns).rows() == [
        ("61281", "61281", "0", moment, "playlist", "train"),
        ("2", "2", "0", moment, "playlist", "validation"),
    ]
    assert (content.skipped, content.missing) == ([], [])


def test_bad_entries_are_named_by_number_and_the_rest_is_kept(tmp_path: Path) -> None:
    _write(
        tmp_path,
        song_meta=[SONG, {"id": "x"}, SONG, {"id": 5, "song_gn_gnr_basket": "GN"}],
        genre_gn_all={},
        train=[
            {**PLAYLIST, "songs": [0, 9, 0]},
            {"id": 3, "songs": None},
            7,
            {**PLAYLIST, "id": 4, "updt_date": "now"},
        ],
    )
    content = SETS["melon"].read(tmp_path)
    assert content.tracks["track_id"].to_list() == ["0"]
    assert content.interactions is not None
    assert content.interactions["user_id"].to_list() == ["61281"]
    assert sorted((row.file, row.line, row.reason) for row in content.skipped) == [
        ("song_meta.json", 2, "is not a song with a number as its id"),
        ("song_meta.json", 3, "repeats an earlier id"),
        ("song_meta.json", 4, "has a song_gn_gnr_basket that is not a list"),
        ("train.json", 1, "is in the playlist already"),
        ("train.json", 1, "song is not in song_meta.json"),
        ("train.json", 2, "lacks its songs or updt_date"),
        ("train.json", 3, "is not a playlist with a number as its id"),
        ("train.json", 4, "is not a time such as 2019-02-20 12:28:01"),
    ]


def test_half_a_surrogate_pair_does_not_stop_the_import(tmp_path: Path) -> None:
    _write(
        tmp_path,
        song_meta=[{**SONG, "song_name": "a\ud800"}, "\ud800"],
        genre_gn_all={"GN0900": "\ud800"},
    )
    content = SETS["melon"].read(tmp_path)
    assert content.tracks.select("title", "genres").rows() == [("a?", ["?", "GN0901"])]
    assert [row.value for row in content.skipped] == ["?"]


def test_missing_and_broken_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no song_meta\.json; wanted the songs' names; to get it: register"
    ):
        SETS["melon"].read(tmp_path)
    (tmp_path / "song_meta.json").write_text("[{")
    with pytest.raises(DataError, match=r"song_meta\.json is not JSON"):
        SETS["melon"].read(tmp_path)
    _write(tmp_path, song_meta={"id": 1})
    with pytest.raises(DataError, match=r"song_meta\.json is a JSON dict, wanted a list"):
        SETS["melon"].read(tmp_path)
