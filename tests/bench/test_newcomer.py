"""The first hour's clock: the made-up export is read as Spotify's, and the page says when the first answers came."""

from pathlib import Path

import numpy as np
import soundfile
from mutagen.flac import FLAC

from newcomer import PLAYS_A_SESSION, SESSIONS, Step, commands, make_export, transcript
from ponticello.api import Library
from ponticello.data.history.ingest import import_history
from ponticello.data.scan import scan_folder


def _song(path: Path, title: str, artist: str) -> None:
    soundfile.write(path, np.zeros(1_600), 16_000)
    tags = FLAC(path)
    tags["title"], tags["artist"] = title, artist
    tags.save()


def test_the_export_is_read_as_spotifys_and_finds_its_tracks(tmp_path: Path) -> None:
    music = tmp_path / "Music"
    music.mkdir()
    for number in range(4):
        _song(music / f"{number}.flac", f"Song {number}", f"Artist {number}")
    (music / "broken.mp3").write_bytes(b"no sound")
    n_plays = make_export(music, tmp_path / "export.zip")
    assert n_plays == SESSIONS * PLAYS_A_SESSION
    library = Library.create(tmp_path / "library", "small")
    with library.folder.lock():
        assert scan_folder(library.folder, music).n_new == 4
    done = import_history(library.folder, tmp_path / "export.zip", user="alice")
    assert (list(done.files.values()), done.n_read, done.n_matched) == (["spotify"], n_plays, n_plays)


def test_the_page_says_when_the_first_answers_came() -> None:
    listed = commands(Path("Music"))
    steps = [Step(command, "an answer", 10.0 * number, 10.0, 0) for number, command in enumerate(listed, 1)]
    page = transcript(steps, 4, 840)
    assert "answered 60 s after the first command (wanted: 300)" in page
    assert "own plays after 70 s (wanted: 900)" in page
    assert f"both stages had trained after {10 * (len(listed) - 1)} s" in page
    assert page.count("```console\n$ ponticello ") == len(listed)
