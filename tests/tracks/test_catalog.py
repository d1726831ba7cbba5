"""How tracks come into the catalogue and out of it."""

import csv
from pathlib import Path

import polars as pl
import pytest

from ponticello.errors import DataError, LibraryError
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.storage.schema import TRACKS
from ponticello.storage.validation import ImportResult
from ponticello.tracks.catalog import audio_path, import_track_list, import_tracks, read_tracks


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    return create_library(tmp_path / "library", "tiny")


def _write(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")
    return path


def _skipped(folder: LibraryPaths) -> list[list[str]]:
    with folder.skipped.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))[1:]


def test_audio_is_stored_from_the_library_or_absolute(folder: LibraryPaths, tmp_path: Path) -> None:
    inside = _write(folder.root / "audio/in.wav")
    outside = _write(tmp_path / "music/out.wav")
    table = _write(tmp_path / "music/t.csv", f"track_id,path\na,{inside}\nb,out.wav\nc,\n")
    assert import_tracks(folder, table) == ImportResult(
        n_new=3, n_updated=0, n_skipped=0, n_total=3
    )
    stored = read_tracks(folder)["path"].to_list()
    assert stored == ["audio/in.wav", outside.as_posix(), None]
    assert [audio_path(folder, path) for path in stored[:2]] == [inside, outside]
    assert not folder.skipped.exists()


def test_unusable_audio_paths_are_listed(folder: LibraryPaths, tmp_path: Path) -> None:
    music = tmp_path / "music"
    secret = _write(tmp_path / "secret.wav")
    _write(music / "good.wav")
    (music / "link.wav").symlink_to(secret)
    rows = [
        "a,good.wav",
        "b,../secret.wav",
        "c,link.wav",
        "d,none.wav",
        "e,.",
        f"f,{'x' * 300}",
        "g,nul\0.wav",
    ]
    table = _write(tmp_path / "t.csv", "\n".join(["track_id,path", *rows]))
    assert import_tracks(folder, table, audio_root=music) == ImportResult(1, 0, 6, 1)
    reasons = [[*row[2:4], row[5]] for row in _skipped(folder)]
    assert reasons[:4] == [
        ["3", "path", f"leaves the audio folder {music}"],
        ["4", "path", f"leaves the audio folder {music}"],
        ["5", "path", f"does not exist ({music}/none.wav)"],
        ["6", "path", "is not a regular file"],
    ]
    assert all(row[2].startswith("is not a usable path: ") for row in reasons[4:])


def test_update_replaces_given_columns_and_keeps_the_others(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    import_tracks(folder, _write(tmp_path / "1.csv", "track_id,title,artist\na,A,x\nb,B,y\n"))
    second = _write(tmp_path / "2.csv", "track_id,title,mood\nc,C,calm\na,New,\nb,,sad\n")
    assert import_tracks(folder, second) == ImportResult(
        n_new=1, n_updated=2, n_skipped=0, n_total=3
    )
    assert read_tracks(folder).select("track_id", "title", "artist", "mood").rows() == [
        ("a", "New", "x", ""),
        ("b", None, "y", "sad"),
        ("c", "C", None, "calm"),
    ]
    third = _write(tmp_path / "3.csv", "track_id\nd\n")
    assert import_tracks(folder, third) == ImportResult(1, 0, 0, 4)
    assert read_tracks(folder)["mood"].to_list() == ["", "sad", "calm", None]


def test_further_column_of_another_type_is_refused(folder: LibraryPaths, tmp_path: Path) -> None:
    import_tracks(folder, _write(tmp_path / "1.csv", "track_id,mood\na,calm\n"))
    pl.DataFrame({"track_id": ["b"], "mood": [["calm"]]}).write_parquet(tmp_path / "2.parquet")
    with pytest.raises(DataError) as error:
        import_tracks(folder, tmp_path / "2.parquet")
    wanted = (
        "2.parquet: column 'mood' is List(String) but String in the library; give it the same type"
    )
    assert str(error.value) == wanted
    assert read_tracks(folder)["mood"].to_list() == ["calm"]


def test_columns_are_renamed_and_bad_rows_of_the_last_import_stay_listed(
    folder: LibraryPaths, tmp_path: Path
) -> None:
    table = _write(tmp_path / "t.csv", "id,len\na,x\nb,2\n")
    assert import_tracks(
        folder, table, columns={"track_id": "id", "duration_s": "len"}
    ) == ImportResult(1, 0, 1, 1)
    assert _skipped(folder) == [
        ["import-tracks", "t.csv", "2", "duration_s", "x", "is not a finite number"]
    ]


def test_catalogue_has_every_column(folder: LibraryPaths, tmp_path: Path) -> None:
    import_tracks(folder, _write(tmp_path / "t.csv", "track_id\na\n"))
    tracks = read_tracks(folder)
    assert set(tracks.columns) == set(TRACKS.kinds)
    assert tracks["genres"].dtype == pl.List(pl.String)
    assert tracks.null_count().row(0) == tuple(
        int(column != "track_id") for column in tracks.columns
    )


def test_list_of_files_becomes_tracks_with_stable_ids(folder: LibraryPaths, tmp_path: Path) -> None:
    """Each id ends in the first 16 hex digits of SHA-256 over `Album X/03_slow-piano.wav` and
    `Été.wav`.
    """
    music = tmp_path / "music"
    _write(music / "Album X/03_slow-piano.wav")
    _write(music / "Été.wav")
    lines = [
        "#EXTM3U",
        "",
        "Album X/03_slow-piano.wav",
        f"{music}/Été.wav",
        "./Été.wav",
        "none.wav",
        "../x.wav",
    ]
    path = _write(music / "all.m3u8", "\ufeff" + "\r\n".join(lines))
    assert import_track_list(folder, path) == ImportResult(
        n_new=2, n_updated=0, n_skipped=3, n_total=2
    )
    tracks = read_tracks(folder)
    assert tracks["track_id"].to_list() == [
        "album-x-03-slow-piano-1c4f1d4edd537059",
        "été-03a374df1e80d33f",
    ]
    assert tracks["title"].to_list() == ["slow piano", "Été"]
    assert [(row[2], row[5]) for row in _skipped(folder)] == [
        ("5", "repeats the file of line 4"),
        ("6", f"does not exist ({music}/none.wav)"),
        ("7", f"leaves the audio folder {music}"),
    ]
    assert import_track_list(folder, path) == ImportResult(0, 2, 3, 2)


def test_files_of_one_slug_are_tracks_of_their_own(folder: LibraryPaths, tmp_path: Path) -> None:
    """The names differ after 60 characters, and their hashes after 24 bits."""
    names = [f"{'x' * 60} {n}.wav" for n in (11258, 11321)]
    for name in names:
        _write(tmp_path / name)
    assert import_track_list(folder, _write(tmp_path / "all.txt", "\n".join(names))).n_new == 2


@pytest.mark.parametrize(
    ("stem", "title"),
    [
        ("01 - Artist - Song", "Artist - Song"),
        ("at-demo-2", "at demo 2"),
        ("1979", "1979"),
        ("07", "07"),
        ("12. A", "A"),
    ],
)
def test_file_name_becomes_a_readable_title(
    folder: LibraryPaths, tmp_path: Path, stem: str, title: str
) -> None:
    _write(tmp_path / f"{stem}.wav")
    import_track_list(folder, _write(tmp_path / "all.txt", f"{stem}.wav\n"))
    assert read_tracks(folder)["title"].to_list() == [title]


def test_list_line_that_is_not_utf8_is_named(folder: LibraryPaths, tmp_path: Path) -> None:
    (tmp_path / "all.m3u").write_bytes(b"caf\xe9.wav\n")
    assert import_track_list(folder, tmp_path / "all.m3u") == ImportResult(0, 0, 1, 0)
    assert _skipped(folder) == [
        ["import-tracks", "all.m3u", "1", "", "caf\ufffd.wav", "is not UTF-8"]
    ]


def test_what_cannot_be_used_is_refused(folder: LibraryPaths, tmp_path: Path) -> None:
    with pytest.raises(LibraryError, match="has no tracks; run: ponticello scan MUSIC"):
        read_tracks(folder)
    with pytest.raises(
        DataError, match=r"all\.xml: cannot read '\.xml' as a list; use \.txt, \.m3u, \.m3u8"
    ):
        import_track_list(folder, tmp_path / "all.xml")
    with pytest.raises(DataError, match=r"none\.txt is not a file; check the path"):
        import_track_list(folder, tmp_path / "none.txt")
    table = _write(tmp_path / "t.csv", "track_id\na\n")
    with pytest.raises(DataError, match="is not a folder; check the path"):
        import_tracks(folder, table, audio_root=tmp_path / "none")
    with folder.lock(), pytest.raises(LibraryError, match="is being written by another process"):
        import_tracks(folder, table)
    _write(folder.tracks, "not parquet")
    with pytest.raises(
        LibraryError, match=r"tracks\.parquet is damaged .*; delete it and import again"
    ):
        read_tracks(folder)
