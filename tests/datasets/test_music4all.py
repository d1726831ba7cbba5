"""Music4All: TAB-separated files called .csv, and a log of its own or of Onion."""

import bz2
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ponticello.datasets.registry import SETS
from ponticello.errors import DataError

INFORMATION = (
    "id\tartist\tsong\talbum_name\n0009fFIM\tCheryl\tRain on Me\t3 Words\n0010xmHR\tBo\tStay\tOne\n"
)


def _write(root: Path, **files: str) -> None:
    for name, text in files.items():
        (root / f"{name}.csv").write_text(text)


def test_tracks_are_joined_from_all_the_files(tmp_path: Path) -> None:
    _write(
        tmp_path,
        id_information=INFORMATION,
        id_metadata="id\tspotify_id\tpopularity\trelease\ttempo\tduration_ms\n0009fFIM\t3eO\t50.0\t2009\t99.0\t229947\n",
        id_genres="id\tgenres\n0009fFIM\thard rock,rock\n",
        id_tags="id\ttags\n0009fFIM\tpop, british,\n",
        id_lang="id\tlang\n0009fFIM\ten\n",
    )
    (tmp_path / "audios").mkdir()
    (tmp_path / "audios" / "0009fFIM.mp3").write_bytes(b"sound")
    content = SETS["music4all-onion"].read(tmp_path)
    first, second = content.tracks.to_dicts()
    assert first == {
        "track_id": "0009fFIM",
        "artist": "Cheryl",
        "title": "Rain on Me",
        "album": "3 Words",
        "spotify_id": "3eO",
        "release_date": "2009",
        "duration_s": 229.947,
        "genres": ["hard rock", "rock"],
        "tags": ["pop", "british"],
        "language": "en",
        "path": (tmp_path / "audios" / "0009fFIM.mp3").as_posix(),
    }
    assert (second["title"], second["genres"], second["path"]) == ("Stay", None, None)
    assert content.interactions is None
    assert content.missing == ["userid_trackid_timestamp.tsv (or listening_history.csv)"]


def test_listening_is_plays_in_utc_and_bad_rows_are_named(tmp_path: Path) -> None:
    _write(
        tmp_path,
        id_information=INFORMATION,
        listening_history="user\tsong\ttimestamp\nu1\t0009fFIM\t2019-02-20 12:28\n"
        "u1\tgone\t2019-02-20 12:28\n"
        "u1\t0009fFIM\tlate\n\t0009fFIM\t2019-02-20 12:28\nu1\t0009fFIM\n",
    )
    content = SETS["music4all-onion"].read(tmp_path)
    assert content.interactions is not None
    assert content.interactions.select("user_id", "track_id", "played_at", "event").rows() == [
        ("u1", "0009fFIM", datetime(2019, 2, 20, 12, 28, tzinfo=UTC), "play")
    ]
    assert sorted((row.line, row.field, row.reason) for row in content.skipped) == [
        (3, "track_id", "is not in id_information.csv"),
        (4, "timestamp", "is not a time such as 2019-02-20 12:28:01"),
        (5, "user", "is missing"),
        (6, "", "has 2 fields, wanted 3"),
    ]


@pytest.mark.parametrize(
    "name", ["userid_trackid_timestamp.tsv", "userid_trackid_timestamp.tsv.bz2"]
)
def test_log_of_onion_alone_gives_tracks_by_id_and_comes_first(tmp_path: Path, name: str) -> None:
    log = (
        b"user_id\ttrack_id\ttimestamp\n7\t0010xmHR\t2013-01-27 21:42:38\n"
        b"7\t0009fFIM\t2013-01-27 21:40:00\n"
    )
    (tmp_path / name).write_bytes(bz2.compress(log) if name.endswith("bz2") else log)
    _write(tmp_path, listening_history="user\tsong\ttimestamp\n")
    content = SETS["music4all-onion"].read(tmp_path)
    assert content.tracks.rows() == [("0009fFIM",), ("0010xmHR",)]
    assert content.interactions is not None
    assert content.interactions["played_at"][0] == datetime(2013, 1, 27, 21, 42, 38, tzinfo=UTC)
    assert content.missing == ["id_information.csv"]


def test_broken_archive_and_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"has no id_information\.csv and no listening log; to get them: Music4All"
    ):
        SETS["music4all-onion"].read(tmp_path)
    (tmp_path / "userid_trackid_timestamp.tsv.bz2").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"timestamp\.tsv\.bz2 cannot be read"):
        SETS["music4all-onion"].read(tmp_path)
