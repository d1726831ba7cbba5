"""init, import-tracks: receipts, what is skipped and where that is written."""

import csv
import json
import os
from pathlib import Path

import pytest

from ponticello.errors import PonticelloError
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.tracks.catalog import read_tracks
from tests.cli.commands import error, out


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    return create_library(tmp_path / "lib", "tiny")


def _write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _skipped(folder: LibraryPaths) -> list[dict[str, str]]:
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


# init


@pytest.mark.parametrize("preset", ["paper", "base", "small", "tiny"])
def test_init_makes_a_library_of_the_preset_and_says_what_is_next(
    tmp_path: Path, preset: str
) -> None:
    root = tmp_path / "lib"
    assert out("init", root, "--preset", preset) == (
        f"created {root} with preset {preset}; "
        f"next: ponticello scan FOLDER (or import-tracks TABLE) -L {root}\n"
    )
    assert open_library(root).config.preset == preset


def test_init_without_a_preset_makes_a_small_one(tmp_path: Path) -> None:
    out("init", tmp_path / "lib")
    assert open_library(tmp_path / "lib").config.preset == "small"


def test_init_twice_is_refused_and_changes_nothing(folder: LibraryPaths) -> None:
    before = (folder.root / "ponticello.toml").read_bytes()
    wanted = f"{folder.root} is a library already; use it, or choose another folder"
    assert error(PonticelloError, "init", folder.root, "--preset", "paper") == wanted
    assert (folder.root / "ponticello.toml").read_bytes() == before


def test_init_with_an_unknown_preset_names_the_known_ones_and_makes_no_folder(
    tmp_path: Path,
) -> None:
    message = error(PonticelloError, "init", tmp_path / "lib", "--preset", "huge")
    assert message == "preset 'huge' is unknown; use one of paper, base, small, tiny"
    assert not (tmp_path / "lib").exists()


# import-tracks


def test_import_counts_what_is_new_and_what_is_updated(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    first = _write(tmp_path / "a.csv", "track_id,title", "a,Alpha", "b,Beta")
    second = _write(tmp_path / "b.csv", "track_id,title", "b,Better", "c,Gamma")
    assert (
        out("import-tracks", first, "-L", folder.root)
        == f"2 tracks new, 0 updated, none skipped; 2 in {folder.tracks}\n"
    )
    assert (
        out("import-tracks", second, "-L", folder.root)
        == f"1 tracks new, 1 updated, none skipped; 3 in {folder.tracks}\n"
    )
    assert dict(read_tracks(folder).select("track_id", "title").iter_rows()) == {
        "a": "Alpha",
        "b": "Better",
        "c": "Gamma",
    }
    assert not folder.skipped.exists()


def test_bad_row_is_counted_and_named_and_the_rest_kept(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    """Line 3 has no id, line 4 repeats one, line 5 names a file that is not there."""
    _write(tmp_path / "here.wav", "any bytes: import looks only whether the file exists")
    table = _write(
        tmp_path / "t.csv",
        "track_id,path,title",
        "a,here.wav,A",
        ",here.wav,B",
        "a,here.wav,C",
        "d,gone.wav,D",
    )
    assert out("import-tracks", table, "-L", folder.root) == (
        f"1 tracks new, 0 updated, 3 skipped (see {folder.skipped}); 1 in {folder.tracks}\n"
    )
    assert [(row["step"], row["file"], row["line"], row["field"]) for row in _skipped(folder)] == [
        ("import-tracks", "t.csv", "3", "track_id"),
        ("import-tracks", "t.csv", "4", "track_id"),
        ("import-tracks", "t.csv", "5", "path"),
    ]
    assert read_tracks(folder)["track_id"].to_list() == ["a"]


def test_columns_rename_what_the_table_calls_otherwise(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    table = _write(tmp_path / "t.csv", "id,song", "7,Blue Hour")
    out(
        "import-tracks",
        table,
        "--columns",
        "track_id=id",
        "--columns",
        "title=song",
        "-L",
        folder.root,
    )
    assert read_tracks(folder).select("track_id", "title").rows() == [("7", "Blue Hour")]


def test_missing_column_is_named_with_the_option_that_helps(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    table = _write(tmp_path / "t.csv", "id,song", "7,Blue Hour")
    assert error(PonticelloError, "import-tracks", table, "-L", folder.root) == (
        "t.csv: column 'track_id' is missing; found 'id', 'song'; "
        "rename it or pass --columns track_id=id"
    )


def test_paths_start_from_the_audio_root(folder: LibraryPaths, tmp_path: Path) -> None:
    (tmp_path / "music").mkdir()
    _write(tmp_path / "music" / "x.wav", "bytes")
    table = _write(tmp_path / "t.csv", "track_id,path", "x,x.wav")
    out("import-tracks", table, "--audio-root", tmp_path / "music", "-L", folder.root)
    assert read_tracks(folder)["path"].to_list() == [(tmp_path / "music" / "x.wav").as_posix()]


@pytest.mark.parametrize("name", ["all.txt", "all.m3u", "ALL.M3U8"])
def test_list_of_paths_is_imported_with_a_title_from_the_file_name(
    folder: LibraryPaths, tmp_path: Path, name: str
) -> None:
    _write(tmp_path / "03_slow-piano.wav", "bytes")
    listed = _write(tmp_path / name, "#EXTM3U", "03_slow-piano.wav", "gone.wav")
    assert out("import-tracks", listed, "-L", folder.root) == (
        f"1 tracks new, 0 updated, 1 skipped (see {folder.skipped}); 1 in {folder.tracks}\n"
    )
    assert read_tracks(folder)["title"].to_list() == ["slow piano"]
    assert [(row["line"], row["value"]) for row in _skipped(folder)] == [("3", "gone.wav")]


@pytest.mark.parametrize("option", [["--columns", "path=file"], ["--audio-root", "."]])
def test_list_of_paths_refuses_the_options_of_tables(
    folder: LibraryPaths, tmp_path: Path, option: list[str]
) -> None:
    listed = _write(tmp_path / "all.txt", "a.wav")
    assert error(PonticelloError, "import-tracks", listed, *option, "-L", folder.root) == (
        "all.txt is a list of paths: it has no columns, and its paths start from its own folder; "
        "leave --columns and --audio-root out"
    )
    assert not folder.tracks.exists()


def test_import_of_tracks_as_json(folder: LibraryPaths, tmp_path: Path) -> None:
    table = _write(tmp_path / "t.csv", "track_id", "a", '""', "b")
    printed = json.loads(out("import-tracks", table, "--json", "-L", folder.root))
    assert printed == {"n_new": 2, "n_updated": 0, "n_skipped": 1, "n_total": 2}


@pytest.mark.parametrize("name", ["gone.csv", "notes.doc"])
def test_file_that_is_no_table_is_refused(folder: LibraryPaths, tmp_path: Path, name: str) -> None:
    message = error(PonticelloError, "import-tracks", tmp_path / name, "-L", folder.root)
    assert (
        message
        == {
            "gone.csv": f"{tmp_path / 'gone.csv'} is not a file; check the path",
            "notes.doc": "notes.doc: cannot read '.doc'; use .csv, .tsv, .jsonl, .ndjson, .parquet",
        }[name]
    )


def test_library_that_is_being_written_is_left_alone(folder: LibraryPaths, tmp_path: Path) -> None:
    table = _write(tmp_path / "t.csv", "track_id", "a")
    with folder.lock():
        message = error(PonticelloError, "import-tracks", table, "-L", folder.root)
    assert message.startswith(f"{folder.root} is being written by another process (")
    assert not folder.tracks.exists()


def test_relative_library_is_told_with_its_full_path(
    folder: LibraryPaths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _write(tmp_path / "t.csv", "track_id", "a")
    monkeypatch.chdir(tmp_path)
    printed = out("import-tracks", "t.csv", "-L", os.path.relpath(folder.root, tmp_path))
    assert printed.endswith(f"1 in {folder.tracks}\n")


def test_malformed_columns_are_refused(folder: LibraryPaths, tmp_path: Path) -> None:
    message = error(
        PonticelloError,
        "import-tracks",
        tmp_path / "t.csv",
        "--columns",
        "track_id",
        "-L",
        folder.root,
    )
    assert message == "--columns 'track_id' must look like ours=theirs, such as track_id=id"
