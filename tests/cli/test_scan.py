"""scan: what it prints of a folder, and what it is asked to leave alone."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.errors import DataError, LibraryError
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.tracks.catalog import read_tracks
from tests.cli.commands import error, out
from tests.synthetic import make_catalogue


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    return create_library(tmp_path / "lib", "tiny")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three sounds without tags and a table of them."""
    make_catalogue(n_tracks=3, n_artists=3, seconds=0.5, seed=0).write(tmp_path / "music")
    return tmp_path / "music"


def test_scan_tells_what_is_new_and_what_is_next(folder: LibraryPaths, music: Path) -> None:
    assert out("scan", music, "-L", folder.root) == (
        "1 files that are not sound ignored (1 .csv)\n"
        f"3 tracks new, 0 updated, 0 unchanged, none skipped; 3 in {folder.tracks}; "
        f"next: ponticello prepare -L {folder.root}\n"
    )
    assert out("scan", music, "--workers", "1", "-L", folder.root).endswith(
        f"0 tracks new, 0 updated, 3 unchanged, none skipped; 3 in {folder.tracks}\n"
    )


def test_scan_tells_what_moved_went_and_is_there_twice(folder: LibraryPaths, music: Path) -> None:
    out("scan", music, "-L", folder.root)
    (music / "track-0000.wav").rename(music / "other name.wav")
    (music / "track-0001.wav").unlink()
    shutil.copy(music / "track-0002.wav", music / "copy.wav")
    (music / "song.mp3").write_text("#EXTM3U")
    assert out("scan", music, "-L", folder.root) == (
        f"1 files no longer exist; their tracks are kept (see {folder.skipped})\n"
        f"2 tracks share a recording (see {folder.duplicates})\n"
        "1 files that are not sound ignored (1 .csv)\n"
        f"1 tracks new, 0 updated, 1 moved, 1 unchanged, 1 skipped (see {folder.skipped}); "
        f"4 in {folder.tracks}; "
        f"next: ponticello prepare -L {folder.root}\n"
    )


def test_scan_as_json(folder: LibraryPaths, music: Path) -> None:
    assert json.loads(out("scan", music, "--json", "-L", folder.root)) == {
        "n_new": 3,
        "n_updated": 0,
        "n_moved": 0,
        "n_unchanged": 0,
        "n_gone": 0,
        "n_skipped": 0,
        "n_duplicates": 0,
        "n_total": 3,
        "ignored": {".csv": 1},
    }


def test_bar_of_scan_is_on_stderr(folder: LibraryPaths, music: Path) -> None:
    result = CliRunner().invoke(app, ["scan", str(music), "--json", "-L", str(folder.root)])
    assert "reading" in result.stderr
    assert "reading" not in result.stdout


def test_scanned_folder_can_be_prepared(folder: LibraryPaths, music: Path) -> None:
    (folder.root / "ponticello.toml").write_text(
        'preset = "tiny"\nfront_end = "logmel"\n', encoding="utf-8"
    )
    out("scan", music, "-L", folder.root)
    out("prepare", "--workers", "1", "-L", folder.root)
    assert FeatureStore(folder.mels).track_ids == sorted(read_tracks(folder)["track_id"])


def test_no_folder_and_a_busy_library_are_one_line(folder: LibraryPaths, music: Path) -> None:
    message = error(DataError, "scan", music / "gone", "-L", folder.root)
    assert message == f"{music / 'gone'} is not a folder; check the path"
    with folder.lock():
        assert "is being written by another process" in error(
            LibraryError, "scan", music, "-L", folder.root
        )
