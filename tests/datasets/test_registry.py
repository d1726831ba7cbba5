"""The table of public sets, and importing one into a library."""

import csv
from pathlib import Path

import pytest

from ponticello.datasets.registry import SETS, import_dataset, read_set
from ponticello.errors import DataError
from ponticello.listening.log import read_interactions
from ponticello.storage.layout import create_library
from ponticello.tracks.catalog import read_tracks


def _hetrec(root: Path) -> Path:
    root.mkdir()
    (root / "artists.dat").write_text("1\tBo\tu\tp\n2\tAda\tu\tp\n")
    (root / "user_artists.dat").write_text("userID\tartistID\tweight\n7\t1\t3\n7\t9\t3\n")
    return root


def test_every_set_says_what_a_user_must_know() -> None:
    assert len(SETS) == 10
    for name, public in SETS.items():
        assert name == public.name
        assert all([public.title, public.licence, public.how_to_get, public.metric])
        assert public.source.startswith("https://")


def test_import_adds_both_tables_and_lists_what_was_left_out(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    done = import_dataset(folder, "hetrec2011-lastfm", _hetrec(tmp_path / "set"))
    assert (done.n_tracks_new, done.n_tracks_updated, done.n_tracks) == (2, 0, 2)
    assert (done.n_events_new, done.n_events, done.n_skipped) == (1, 1, 1)
    assert done.missing == ["user_taggedartists.dat", "tags.dat"]
    assert read_tracks(folder)["title"].to_list() == ["Bo", "Ada"]
    assert read_interactions(folder).select("user_id", "track_id", "event").rows() == [
        ("7", "1", "collect")
    ]
    with folder.skipped.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert (row["step"], row["file"], row["line"]) == ("import-dataset", "user_artists.dat", "3")


def test_second_import_updates_and_counts_no_event_twice(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    source = _hetrec(tmp_path / "set")
    import_dataset(folder, "hetrec2011-lastfm", source)
    done = import_dataset(folder, "hetrec2011-lastfm", source)
    assert (done.n_tracks_new, done.n_tracks_updated, done.n_events_new, done.n_events) == (
        0,
        2,
        0,
        1,
    )


def test_unknown_set_missing_folder_and_no_usable_track_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"data set 'gztan' is unknown; use one of mtg-jamendo, .*, hetrec2011-lastfm",
    ):
        read_set("gztan", tmp_path)
    with pytest.raises(DataError, match="is not a folder; to get GTZAN: the audio"):
        read_set("gtzan", tmp_path / "gone")
    (tmp_path / "song_describer.csv").write_text(
        "caption_id,track_id,caption,is_valid_subset,familiarity,artist_id,album_id,path,duration\n1,2\n"
    )
    with pytest.raises(
        DataError,
        match=r"no usable track of Song Describer Dataset; first: song_describer\.csv has 2",
    ):
        read_set("song-describer", tmp_path)
