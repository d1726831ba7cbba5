"""scan: a folder becomes a catalogue and stays in step with it, and nothing that somebody wrote is
lost.
"""

import csv
import os
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
from mutagen.flac import FLAC

from ponticello.audio.tags import FileFacts
from ponticello.audio.worker_pool import Reply
from ponticello.errors import DataError, LibraryError
from ponticello.features.prepare import prepare_features
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.tracks import file_index as files_module
from ponticello.tracks import scan as scan_module
from ponticello.tracks.catalog import audio_files, import_tracks, read_tracks
from ponticello.tracks.scan import ScanResult, scan_folder


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    return create_library(tmp_path / "library", "tiny")


@pytest.fixture
def music(tmp_path: Path) -> Path:
    """Three tracks, in two folders, with titles A, B, C."""
    for number, name in enumerate(["one/a.flac", "one/b.flac", "two/c.flac"]):
        make(tmp_path / "music" / name, number, title=name[4].upper(), artist="Somebody")
    return tmp_path / "music"


def make(path: Path, seed: int, **tags: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).normal(0, 0.1, 8_000), 16_000, format="FLAC")
    retag(path, **tags)
    return path


def retag(path: Path, **tags: Any) -> None:
    file = FLAC(path)
    file.update(tags)
    file.save()
    later(path)


def later(path: Path) -> None:
    """Gives a file a new time, as a later write would."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def counts(done: ScanResult) -> dict[str, int]:
    return {
        name.removeprefix("n_"): value
        for name, value in vars(done).items()
        if name.startswith("n_") and value and name != "n_total"
    }


def rows(folder: LibraryPaths, *columns: str) -> dict[str, Any]:
    """{file name: the cells of its row}; one cell bare."""
    return {
        Path(row["path"]).name: row[columns[0]]
        if len(columns) == 1
        else tuple(row[column] for column in columns)
        for row in read_tracks(folder).iter_rows(named=True)
    }


def skipped(folder: LibraryPaths) -> list[tuple[str, str, str]]:
    if not folder.skipped.exists():
        return []
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        return [
            (Path(row["file"]).name, row["value"], row["reason"]) for row in csv.DictReader(file)
        ]


def duplicates(folder: LibraryPaths) -> list[tuple[str, str, str]]:
    with folder.duplicates.open(encoding="utf-8", newline="") as file:
        return [
            (row["group"], row["reason"], Path(row["path"]).name) for row in csv.DictReader(file)
        ]


def test_new_files_become_tracks_and_unchanged_ones_are_not_opened(
    folder: LibraryPaths, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (music / "cover.jpg").write_bytes(b"\xff\xd8\xff")
    done = scan_folder(folder, music)
    assert counts(done) == {"new": 3}
    assert (done.n_total, done.ignored) == (3, {".jpg": 1})
    assert rows(folder, "title", "artist", "duration_s") == {
        "a.flac": ("A", "Somebody", 0.5),
        "b.flac": ("B", "Somebody", 0.5),
        "c.flac": ("C", "Somebody", 0.5),
    }
    assert read_tracks(folder)["path"].to_list() == [
        str(music / name) for name in ("one/a.flac", "one/b.flac", "two/c.flac")
    ]
    before = folder.tracks.read_bytes()
    for path in music.rglob("*.flac"):
        path.chmod(0)
    monkeypatch.setattr(scan_module, "read_facts", None)  # no file may be read
    assert counts(scan_folder(folder, music)) == {"unchanged": 3}
    assert folder.tracks.read_bytes() == before
    assert skipped(folder) == []


def test_id_is_made_of_the_name_and_the_sound(folder: LibraryPaths, music: Path) -> None:
    make(music / "03 Été à Paris!.flac", 7)
    scan_folder(folder, music)
    files = pl.read_parquet(folder.files)
    for path, track_id, audio_hash in files.select("path", "track_id", "audio_hash").iter_rows():
        slug = {"a.flac": "a", "b.flac": "b", "c.flac": "c"}.get(Path(path).name, "03-été-à-paris")
        assert track_id == f"{slug}-{audio_hash[:10]}"


def test_paths_inside_the_library_are_relative(folder: LibraryPaths) -> None:
    make(folder.root / "music" / "a.flac", 0)
    scan_folder(folder, folder.root / "music")
    assert read_tracks(folder)["path"].to_list() == ["music/a.flac"]
    assert counts(scan_folder(folder, folder.root / "music")) == {"unchanged": 1}
    (folder.root / "music" / "a.flac").rename(folder.root / "music" / "b.flac")
    assert counts(scan_folder(folder, folder.root / "music")) == {"moved": 1}
    assert read_tracks(folder)["path"].to_list() == ["music/b.flac"]


def test_new_tags_change_their_cells_and_nothing_else(
    folder: LibraryPaths, music: Path, tmp_path: Path
) -> None:
    """Between two scans somebody adds a mood, corrects a title and tags c; the file of a then gets
    another album.
    """
    scan_folder(folder, music)
    ids = rows(folder, "track_id")
    (tmp_path / "mine.csv").write_text(
        "track_id,mood,title,tags\n"
        f"{ids['a.flac']},calm,My title,slow\n{ids['c.flac']},wild,C,fast\n"
    )
    import_tracks(folder, tmp_path / "mine.csv")
    retag(music / "one/a.flac", album="New album")
    retag(music / "two/c.flac", title="New title", artist=[])
    assert counts(scan_folder(folder, music)) == {"updated": 2, "unchanged": 1}
    assert rows(folder, "track_id") == ids
    assert rows(folder, "title", "album", "artist", "mood", "tags") == {
        "a.flac": ("My title", "New album", "Somebody", "calm", ["slow"]),
        "b.flac": ("B", None, "Somebody", None, None),
        "c.flac": ("New title", None, None, "wild", ["fast"]),
    }


def test_new_time_alone_changes_nothing(folder: LibraryPaths, music: Path) -> None:
    scan_folder(folder, music)
    before = read_tracks(folder)
    later(music / "one/a.flac")
    assert counts(scan_folder(folder, music)) == {"unchanged": 3}
    assert read_tracks(folder).equals(before)


def test_new_sound_in_the_same_place_keeps_the_track(folder: LibraryPaths, music: Path) -> None:
    scan_folder(folder, music)
    ids = rows(folder, "track_id")
    make(music / "one/a.flac", 99, title="A", artist="Somebody")
    later(music / "one/a.flac")
    assert counts(scan_folder(folder, music)) == {"updated": 1, "unchanged": 2}
    assert rows(folder, "track_id") == ids


@pytest.mark.parametrize("is_retagged", [False, True])
def test_moved_file_keeps_its_track_by_its_content_or_else_its_sound(
    folder: LibraryPaths, music: Path, is_retagged: bool
) -> None:
    scan_folder(folder, music)
    ids = rows(folder, "track_id")
    (music / "one/a.flac").rename(music / "two/x.flac")
    if is_retagged:
        retag(music / "two/x.flac", title="X")
    assert counts(scan_folder(folder, music)) == {"moved": 1, "unchanged": 2}
    assert rows(folder, "track_id", "title") == {
        "x.flac": (ids["a.flac"], "X" if is_retagged else "A"),
        "b.flac": (ids["b.flac"], "B"),
        "c.flac": (ids["c.flac"], "C"),
    }


@pytest.mark.parametrize(
    "moves",
    [
        {
            "one/a.flac": "two/x.flac",
            "two/c.flac": "one/a.flac",
        },  # into the place of one that moved on
        {"one/a.flac": "one/0.flac", "two/c.flac": "one/a.flac"},
        {"one/a.flac": "one/b.flac", "one/b.flac": "one/a.flac"},  # a swap
        {
            "one/a.flac": "one/b.flac",
            "one/b.flac": "two/c.flac",
            "two/c.flac": "two/d.flac",
        },  # numbered anew
        {
            "one/a.flac": "two/c.flac",
            "one/b.flac": "one/a.flac",
            "two/c.flac": "one/b.flac",
        },  # a round
    ],
)
def test_tracks_follow_their_files_through_any_renaming(
    folder: LibraryPaths, music: Path, moves: dict[str, str]
) -> None:
    scan_folder(folder, music)
    ids = {str(music / path): track_id for path, track_id in _ids_by_path(folder, music).items()}
    for old in moves:
        (music / old).rename(music / f"{old}.aside")
    for number, (old, new) in enumerate(moves.items()):
        (music / f"{old}.aside").rename(music / new)
        os.utime(
            music / new, ns=(0, number)
        )  # sizes are alike: only the time tells that a file is another
    assert scan_folder(folder, music).n_moved == len(moves)
    wanted = {str(music / moves.get(name, name)): ids[str(music / name)] for name in ORDER}
    assert {
        str(music / path): track_id for path, track_id in _ids_by_path(folder, music).items()
    } == wanted
    assert rows(folder, "title") == {
        Path(moves.get(name, name)).name: name[4].upper() for name in ORDER
    }
    assert counts(scan_folder(folder, music)) == {"unchanged": 3}


@pytest.mark.parametrize("n_a_batch", [1, 5000])
@pytest.mark.parametrize("n_read", [1, 2])
@pytest.mark.parametrize(
    ("moves", "other"),
    [
        ({"one/a.flac": "one/b.flac", "one/b.flac": "one/a.flac"}, None),
        (
            {"one/a.flac": "two/c.flac", "one/b.flac": "one/a.flac", "two/c.flac": "one/b.flac"},
            None,
        ),
        (
            {"one/a.flac": "two/x.flac", "two/c.flac": "two/y.flac"},
            "one/a.flac",
        ),  # other sound in the old place
        ({"one/b.flac": "one/a.flac"}, "one/b.flac"),
    ],
)
def test_scan_stopped_among_moves_is_as_if_it_had_not_been(
    folder: LibraryPaths,
    music: Path,
    monkeypatch: pytest.MonkeyPatch,
    moves: dict[str, str],
    other: str | None,
    n_read: int,
    n_a_batch: int,
) -> None:
    """With a table for each file as after a kill; the file that is no track yet is one that could
    not be read.
    """
    if "one/a.flac" not in moves:
        (music / "one/a.flac").write_bytes(b"none")
    scan_folder(folder, music)
    ids = _ids_by_path(folder, music)
    for old in moves:
        (music / old).rename(music / f"{old}.aside")
    for number, (old, new) in enumerate(moves.items()):
        (music / f"{old}.aside").rename(music / new)
        os.utime(music / new, ns=(0, number))
    if other:
        make(music / other, 99, title="Other")
        os.utime(music / other, ns=(0, 9))
    monkeypatch.setattr(scan_module, "_BATCH", n_a_batch)

    def stop(n_done: int, _: int) -> None:
        if n_done == n_read:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_folder(folder, music, on_progress=stop)
    scan_folder(folder, music)
    found = _ids_by_path(folder, music)
    assert {new: found[new] for new in moves.values()} == {
        new: ids[old] for old, new in moves.items()
    }
    assert len(set(found.values())) == len(found)
    if other:
        assert found[other] not in ids.values()
    assert scan_folder(folder, music).n_unchanged == len(found)


ORDER = ("one/a.flac", "one/b.flac", "two/c.flac")


def _ids_by_path(folder: LibraryPaths, music: Path) -> dict[str, str]:
    found = read_tracks(folder).select("path", "track_id").iter_rows()
    return {Path(path).relative_to(music).as_posix(): track_id for path, track_id in found}


def test_other_sound_in_the_place_of_a_moved_file_is_another_track(
    folder: LibraryPaths, music: Path
) -> None:
    scan_folder(folder, music)
    ids = rows(folder, "track_id")
    (music / "one/a.flac").rename(music / "two/x.flac")
    make(music / "one/a.flac", 99, title="Other")
    later(music / "one/a.flac")
    assert counts(scan_folder(folder, music)) == {"moved": 1, "new": 1, "unchanged": 2}
    assert rows(folder, "track_id", "title")["x.flac"] == (ids["a.flac"], "A")
    assert rows(folder, "title")["a.flac"] == "Other"
    assert rows(folder, "track_id")["a.flac"] not in ids.values()


def test_renamed_folder_moves_every_track(folder: LibraryPaths, music: Path) -> None:
    scan_folder(folder, music)
    ids = rows(folder, "track_id")
    (music / "one").rename(music / "uno")
    assert counts(scan_folder(folder, music)) == {"moved": 2, "unchanged": 1}
    assert rows(folder, "track_id") == ids
    assert counts(scan_folder(folder, music)) == {"unchanged": 3}
    assert skipped(folder) == []


def test_file_moved_to_another_scanned_folder_keeps_its_track_and_a_copy_is_new(
    folder: LibraryPaths, music: Path, tmp_path: Path
) -> None:
    scan_folder(folder, music)
    ids = rows(folder, "track_id")
    (tmp_path / "other").mkdir()
    (music / "one/a.flac").rename(tmp_path / "other/a.flac")
    shutil.copy(music / "one/b.flac", tmp_path / "other/b.flac")
    assert counts(scan_folder(folder, tmp_path / "other")) == {
        "moved": 1,
        "new": 1,
        "duplicates": 2,
    }
    tracks = read_tracks(folder)
    assert tracks.height == 4
    assert tracks.filter(pl.col("path") == str(tmp_path / "other/a.flac"))[
        "track_id"
    ].to_list() == [ids["a.flac"]]
    assert counts(scan_folder(folder, music)) == {"unchanged": 2, "duplicates": 2}


def test_file_that_has_gone_is_listed_and_its_row_stays(folder: LibraryPaths, music: Path) -> None:
    scan_folder(folder, music)
    ids = rows(folder, "track_id")
    held = (music / "two/c.flac").read_bytes()
    (music / "two/c.flac").unlink()
    for _ in range(2):
        done = scan_folder(folder, music)
        assert counts(done) == {"unchanged": 2, "gone": 1}
        assert done.n_total == 3
        assert skipped(folder) == [("c.flac", ids["c.flac"], "the file has gone; its track stays")]
    (music / "again.flac").write_bytes(held)
    assert counts(scan_folder(folder, music)) == {"unchanged": 2, "moved": 1}
    assert rows(folder, "track_id")["again.flac"] == ids["c.flac"]


def test_file_in_a_folder_that_is_closed_for_now_has_not_moved(
    folder: LibraryPaths, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan_folder(folder, music)
    ids = _ids_by_path(folder, music)
    shutil.copy2(music / "one/a.flac", music / "two/copy.flac")
    stat = Path.stat

    def closed(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        if "one" in path.parts:
            raise PermissionError(13, "Permission denied")
        return stat(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(Path, "stat", closed)
    assert counts(scan_folder(folder, music)) == {"new": 1, "unchanged": 1, "gone": 2, "skipped": 1}
    monkeypatch.undo()
    assert counts(scan_folder(folder, music)) == {"unchanged": 4, "duplicates": 2}
    assert _ids_by_path(folder, music).items() > ids.items()


def test_files_that_cannot_be_read_are_listed_until_they_can(
    folder: LibraryPaths, music: Path
) -> None:
    (music / "list.mp3").write_text("#EXTM3U\nhttp://example.org/stream\n")
    (music / "cover.flac").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    (music / "empty.wav").touch()
    os.mkfifo(music / "pipe.ogg")
    expected = [
        ("cover.flac", "", "is an image, not audio"),
        ("empty.wav", "", "the file is empty"),
        ("list.mp3", "", "is text (a playlist, a web page or the like), not audio"),
        ("pipe.ogg", "", "is a device or pipe, not a file"),
    ]
    assert counts(scan_folder(folder, music)) == {"new": 3, "skipped": 4}
    assert skipped(folder) == expected
    assert counts(scan_folder(folder, music)) == {"unchanged": 3, "skipped": 4}
    assert skipped(folder) == expected
    make(music / "cover.flac", 5, title="Found")
    (music / "pipe.ogg").unlink()
    assert counts(scan_folder(folder, music)) == {"new": 1, "unchanged": 3, "skipped": 2}
    assert rows(folder, "title")["cover.flac"] == "Found"


def test_track_whose_file_went_bad_keeps_its_row(folder: LibraryPaths, music: Path) -> None:
    scan_folder(folder, music)
    before = read_tracks(folder)
    good = (music / "one/a.flac").read_bytes()
    (music / "one/a.flac").write_bytes(b"<html>")
    assert counts(scan_folder(folder, music)) == {"unchanged": 2, "skipped": 1}
    assert read_tracks(folder).equals(before)
    assert skipped(folder)[0][:2] == ("a.flac", rows(folder, "track_id")["a.flac"])
    (music / "one/a.flac").write_bytes(good)
    later(music / "one/a.flac")
    assert counts(scan_folder(folder, music)) == {"updated": 1, "unchanged": 2}
    assert read_tracks(folder).equals(before)


@pytest.mark.parametrize("number", ["9" * 20, "9" * 400])
def test_number_that_no_album_has_is_left_out_and_stops_no_other_file(
    folder: LibraryPaths, music: Path, number: str
) -> None:
    retag(music / "one" / "b.flac", tracknumber=number, discnumber=number)
    retag(music / "two" / "c.flac", tracknumber="7/12", discnumber="2")
    assert counts(scan_folder(folder, music)) == {"new": 3}
    assert rows(folder, "track_number", "disc_number") == {
        "a.flac": (None, None),
        "b.flac": (None, None),
        "c.flac": (7, 2),
    }


@pytest.mark.parametrize("seconds", [2**34, -(2**34)])
def test_file_from_beyond_the_times_of_a_table_is_scanned_and_prepared(
    folder: LibraryPaths, music: Path, seconds: int
) -> None:
    """A time in ns fits into 64 bits up to 2262; 2**34 s are the year 2514."""
    os.utime(music / "one" / "b.flac", (seconds, seconds))
    if abs((music / "one" / "b.flac").stat().st_mtime_ns) < 2**63:
        pytest.skip("this file system knows no such time")
    assert counts(scan_folder(folder, music)) == {"new": 3}
    assert counts(scan_folder(folder, music)) == {"unchanged": 3}
    assert prepare_features(folder, audio_files(folder)).n_new == 3
    assert prepare_features(folder, audio_files(folder)).n_new == 0


def test_same_recording_is_reported_and_not_merged(folder: LibraryPaths, music: Path) -> None:
    """a and a copy of it tagged anew are one sound; b and c have one ISRC, written in two ways."""
    shutil.copy(music / "one/a.flac", music / "copy.flac")
    retag(music / "copy.flac", title="Other title")
    retag(music / "one/b.flac", isrc="SE-A01-99-00123")
    retag(music / "two/c.flac", isrc="sea019900123")
    done = scan_folder(folder, music)
    assert counts(done) == {"new": 4, "duplicates": 4}
    assert duplicates(folder) == [
        ("1", "same sound", "a.flac"),
        ("1", "same sound", "copy.flac"),
        ("2", "same ISRC", "b.flac"),
        ("2", "same ISRC", "c.flac"),
    ]
    for name in ("copy.flac", "two/c.flac"):
        (music / name).unlink()
    assert scan_folder(folder, music).n_duplicates == 0
    assert not folder.duplicates.exists()


def test_comment_in_the_place_of_an_isrc_makes_no_duplicates(
    folder: LibraryPaths, music: Path
) -> None:
    for name in ("one/a.flac", "one/b.flac"):
        retag(music / name, isrc="none", musicbrainz_trackid="unknown")
    assert scan_folder(folder, music).n_duplicates == 0
    mbid = "f27ec8db-af05-4f36-916e-3d57f91ecf5e"
    retag(music / "one/a.flac", musicbrainz_trackid=mbid)
    retag(music / "one/b.flac", musicbrainz_trackid=mbid.upper())
    assert scan_folder(folder, music).n_duplicates == 2
    assert {reason for _, reason, _ in duplicates(folder)} == {"same MusicBrainz recording"}


def test_two_copies_of_one_name_and_sound_are_two_tracks(folder: LibraryPaths, music: Path) -> None:
    shutil.copy(music / "one/a.flac", music / "two/a.flac")
    assert counts(scan_folder(folder, music)) == {"new": 4, "duplicates": 2}
    first, second = sorted(
        track_id for track_id in read_tracks(folder)["track_id"] if track_id.startswith("a-")
    )
    assert second.startswith(f"{first}-")


def test_imported_track_of_the_same_path_is_taken_over(
    folder: LibraryPaths, music: Path, tmp_path: Path
) -> None:
    (tmp_path / "t.csv").write_text(
        f"track_id,path,title,rating\nmine,{music / 'one/a.flac'},Mine,5\n"
    )
    import_tracks(folder, tmp_path / "t.csv")
    assert counts(scan_folder(folder, music)) == {"updated": 1, "new": 2}
    assert rows(folder, "track_id", "title", "artist", "rating")["a.flac"] == (
        "mine",
        "Mine",
        "Somebody",
        "5",
    )


def test_lost_catalogue_comes_back_with_its_ids(folder: LibraryPaths, music: Path) -> None:
    scan_folder(folder, music)
    before = read_tracks(folder)
    folder.tracks.unlink()
    scan_folder(folder, music)
    assert read_tracks(folder).equals(before)


def test_stopped_scan_keeps_what_is_done_and_goes_on(
    folder: LibraryPaths, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "_BATCH", 1)

    def stop(n_done: int, n_todo: int) -> None:
        assert n_todo == 3
        if n_done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_folder(folder, music, on_progress=stop)
    ids = rows(folder, "track_id")
    assert sorted(ids) == ["a.flac", "b.flac"]
    assert counts(scan_folder(folder, music)) == {"unchanged": 2, "new": 1}
    assert rows(folder, "track_id").items() > ids.items()


def test_kill_between_the_two_tables_makes_no_second_track(
    folder: LibraryPaths, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(files_module, "write_parquet", killed)  # files.parquet is not written
        with pytest.raises(KeyboardInterrupt):
            scan_folder(folder, music)
    before = read_tracks(folder)
    assert before.height == 3
    scan_folder(folder, music)
    assert read_tracks(folder).equals(before)
    assert counts(scan_folder(folder, music)) == {"unchanged": 3}


def test_file_that_kills_its_reader_costs_one_line(
    folder: LibraryPaths, music: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scan_module, "facts_reply", die_at_b)
    assert counts(scan_folder(folder, music, workers=2)) == {"new": 2, "skipped": 1}
    assert skipped(folder) == [("b.flac", "", "ends the process that reads it (exit code 9)")]


def die_at_b(path: Path) -> Reply:
    if path.name == "b.flac":
        os._exit(9)
    return Reply(asdict(FileFacts("1" * 32, path.name * 8, dict.fromkeys(files_module.TAG_SCHEMA))))


def test_column_that_cannot_take_tags_is_named(folder: LibraryPaths, music: Path) -> None:
    pl.DataFrame({"track_id": ["x"], "artists": ["one text"]}).write_parquet(folder.tracks)
    with pytest.raises(
        DataError,
        match=r"column 'artists' is String, and scan writes List\(String\); give yours another",
    ):
        scan_folder(folder, music)


def test_own_column_of_another_plain_type_takes_tags_as_text(
    folder: LibraryPaths, music: Path
) -> None:
    retag(music / "one/a.flac", comment="four")
    pl.DataFrame({"track_id": ["x"], "comment": [4]}).write_parquet(folder.tracks)
    scan_folder(folder, music)
    assert sorted(value for value in read_tracks(folder)["comment"] if value) == ["4", "four"]


def test_no_folder_and_damaged_state_are_clear_errors(folder: LibraryPaths, music: Path) -> None:
    with pytest.raises(DataError, match="gone is not a folder; check the path"):
        scan_folder(folder, music / "gone")
    folder.files.write_bytes(b"damaged")
    with pytest.raises(LibraryError, match=r"files\.parquet is damaged"):
        scan_folder(folder, music)
    pl.DataFrame({"path": ["x"]}).write_parquet(folder.files)
    with pytest.raises(
        LibraryError,
        match=r"files\.parquet is not what this version writes; delete it and scan again",
    ):
        scan_folder(folder, music)


def test_empty_folder_is_no_trouble(folder: LibraryPaths, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    done = scan_folder(folder, tmp_path / "nothing")
    assert counts(done) == {}
    assert not folder.tracks.exists()
