"""HetRec 2011: TAB-separated files without quoting, of which one is ISO-8859-1 and one lacks its
header.
"""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ponticello.datasets.registry import SETS
from ponticello.errors import DataError

ARTISTS = '1\tMALICE MIZER\thttp://a\thttp://b\n2\tDiary "of Dreams\thttp://a\thttp://b\n'


def _write(root: Path, artists: str = ARTISTS, plays: str = "2\t1\t13883\n2\t2\t0\n") -> None:
    (root / "artists.dat").write_text(artists)
    (root / "user_artists.dat").write_text("//userID\tartistID\tweight\n" + plays)
    (root / "tags.dat").write_bytes(
        "tagID\ttagValue\n1\tmetal\n2\ttropicália\n".encode("iso-8859-1")
    )
    (root / "user_taggedartists.dat").write_text(
        "userID\tartistID\ttagID\tday\tmonth\tyear\n2\t1\t1\t1\t4\t2009\n2\t1\t2\t1\t4\t2009\n3\t1\t2\t1\t4\t2009\n"
    )


def test_artists_and_their_tags_most_given_first(tmp_path: Path) -> None:
    _write(tmp_path)
    content = SETS["hetrec2011-lastfm"].read(tmp_path)
    assert content.tracks.rows() == [
        ("1", "MALICE MIZER", "MALICE MIZER", ["tropicália", "metal"]),
        ("2", 'Diary "of Dreams', 'Diary "of Dreams', None),
    ]
    assert (content.skipped, content.missing) == ([], [])


def test_counts_become_weighted_collect_events_at_one_moment(tmp_path: Path) -> None:
    """log(1 + 13883) and log(1 + 0) = 0."""
    _write(tmp_path)
    events = SETS["hetrec2011-lastfm"].read(tmp_path).interactions
    assert events is not None
    assert events.select("user_id", "track_id", "event").rows() == [
        ("2", "1", "collect"),
        ("2", "2", "collect"),
    ]
    assert events["weight"].to_list() == pytest.approx([math.log(13884), 0.0], abs=1e-12)
    assert events["played_at"].unique().to_list() == [datetime(2011, 5, 1, tzinfo=UTC)]


def test_header_of_the_artists_may_be_there(tmp_path: Path) -> None:
    _write(tmp_path, artists="id\tname\turl\tpictureURL\n" + ARTISTS)
    content = SETS["hetrec2011-lastfm"].read(tmp_path)
    assert content.tracks["track_id"].to_list() == ["1", "2"]
    assert content.skipped == []


def test_bad_rows_are_named_and_the_rest_is_kept(tmp_path: Path) -> None:
    _write(tmp_path, plays="2\t1\tmany\n2\t9\t5\n2\t1\t5\n2\t1\t6\n2\n")
    (tmp_path / "artists.dat").write_bytes(ARTISTS.encode() + b"3\tCaf\xe9\tu\tp\n1\tagain\tu\tp\n")
    content = SETS["hetrec2011-lastfm"].read(tmp_path)
    assert content.interactions is not None
    assert content.interactions["track_id"].to_list() == ["1"]
    assert sorted((row.file, row.line, row.reason) for row in content.skipped) == [
        ("artists.dat", 3, "is not UTF-8"),
        ("artists.dat", 4, "repeats an earlier id"),
        ("user_artists.dat", 2, "is not a number from 0 up"),
        ("user_artists.dat", 3, "artist is not in artists.dat"),
        ("user_artists.dat", 5, "repeats an earlier user and artist"),
        ("user_artists.dat", 6, "has 1 fields, wanted 3"),
    ]


def test_tags_are_optional_and_the_counts_are_not(tmp_path: Path) -> None:
    _write(tmp_path)
    (tmp_path / "tags.dat").unlink()
    content = SETS["hetrec2011-lastfm"].read(tmp_path)
    assert (content.missing, "tags" in content.tracks.columns) == (["tags.dat"], False)
    (tmp_path / "user_artists.dat").unlink()
    with pytest.raises(
        DataError,
        match=r"has no user_artists\.dat; wanted the listening counts; to get it: hetrec2011",
    ):
        SETS["hetrec2011-lastfm"].read(tmp_path)
