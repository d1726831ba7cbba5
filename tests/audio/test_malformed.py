"""Malformed files among good ones: nothing crashes, hangs or calls out, and the good ones come out
as if alone.
"""

import csv
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import LibraryPaths, create_library, open_library
from ponticello.tracks.catalog import audio_files, read_tracks
from ponticello.tracks.scan import scan_folder
from tests.audio.test_decode import WITH_AV, write_with_av
from tests.malformed import make_malformed, sounds

LIMITS = "[limits]\nseconds = 5\n"  # of processor time a file; 20 by the clock


@pytest.fixture
def extra(tmp_path: Path) -> dict[str, bytes]:
    """The formats that PyAV writes, by suffix."""
    noise = np.random.default_rng(0).normal(0, 0.1, 24_000).astype(np.float32)
    return {
        kind: write_with_av(tmp_path / f"x.{kind}", noise, kind).read_bytes()
        for kind in ("m4a", "aac", "wma")
    }


def good_library(root: Path, music: Path, n_tracks: int) -> LibraryPaths:
    """A library over `music`, into which `n_tracks` good sounds are put."""
    music.mkdir(parents=True, exist_ok=True)
    for number in range(n_tracks):
        samples = np.random.default_rng(1_000 + number).normal(0, 0.1, 16_000)
        soundfile.write(music / f"good {number}.flac", samples, 16_000, format="FLAC")
    create_library(root, "tiny")
    (root / "ponticello.toml").write_text(f'preset = "tiny"\n{LIMITS}', encoding="utf-8")
    return open_library(root)


def run(folder: LibraryPaths, music: Path, workers: int) -> None:
    """Scans and prepares."""
    with folder.lock():
        scan_folder(folder, music, workers=workers)
        prepare_features(folder, audio_files(folder), workers=workers)


def check(tmp_path: Path, n_files: int, n_good: int, seed: int, extra: dict[str, bytes]) -> None:
    """Compares good files in one library with the same among `n_files` malformed ones."""
    alone = good_library(tmp_path / "alone", tmp_path / "good", n_good)
    run(alone, tmp_path / "good", 2)
    mixed = good_library(tmp_path / "mixed", tmp_path / "music", n_good)
    bad = make_malformed(tmp_path / "music" / "bad", n_files, seed, extra)
    run(mixed, tmp_path / "music", 2)
    ids = read_tracks(alone)["track_id"].to_list()
    here = read_tracks(mixed).filter(pl.col("track_id").is_in(ids)).drop("path").sort("track_id")
    assert here.equals(read_tracks(alone).drop("path").sort("track_id"))
    for track_id in ids:
        np.testing.assert_array_equal(
            FeatureStore(mixed.mels).read(track_id), FeatureStore(alone.mels).read(track_id)
        )
    with mixed.skipped.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [
        row for row in rows if re.search("given up|process that reads|memory", row["reason"])
    ] == []
    listed = {row["file"] for row in rows}
    prepared = set(FeatureStore(mixed.mels).track_ids)
    by_path = dict(read_tracks(mixed).select("path", "track_id").iter_rows())
    unaccounted = [
        path for path in bad if str(path) not in listed and by_path.get(str(path)) not in prepared
    ]
    assert unaccounted == []
    assert FeatureStore(mixed.mels).verify() == []


def test_good_files_come_through_beside_malformed_ones(
    tmp_path: Path, extra: dict[str, bytes]
) -> None:
    check(tmp_path, n_files=120, n_good=3, seed=0, extra=extra)


@pytest.mark.slow
def test_two_thousand_malformed_files_cost_their_own_lines_only(
    tmp_path: Path, extra: dict[str, bytes]
) -> None:
    check(tmp_path, n_files=2_000, n_good=20, seed=1, extra=extra)


CALLS = """
import sys
from pathlib import Path

def watch(event, arguments):
    if event.startswith("socket.") or event in ("subprocess.Popen", "os.system", "urllib.Request"):
        print(event, arguments)

from ponticello.audio.decode import load_audio
from ponticello.audio.tags import read_facts
from ponticello.errors import AudioError
sys.addaudithook(watch)
for path in sorted(Path(sys.argv[1]).iterdir()):
    for read in (read_facts, load_audio):
        try:
            read(path)
        except AudioError:
            pass
"""


def test_no_file_makes_its_reader_call_out(tmp_path: Path, extra: dict[str, bytes]) -> None:
    """Python's own sockets are watched; FFmpeg's and libsndfile's would reach the address in the
    playlists.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        make_malformed(tmp_path / "bad", 60, 2, extra)
        for suffix in (*extra, "mp3", "flac", "opus", "wav"):
            for number, text in enumerate(
                (f"#EXTM3U\n{address}\n", f"ffconcat version 1.0\nfile {address}\n")
            ):
                (tmp_path / "bad" / f"list-{number}.{suffix}").write_text(text)
        command = [sys.executable, "-c", CALLS, str(tmp_path / "bad")]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        assert result.stdout == ""
        with pytest.raises(BlockingIOError):
            server.accept()


def test_every_format_is_among_the_malformed(extra: dict[str, bytes]) -> None:
    assert set(sounds(0, extra)) == {
        "wav",
        "aiff",
        "flac",
        "ogg",
        "opus",
        "mp3",
        "m4a",
        "aac",
        "wma",
    }
    assert set(extra) < set(WITH_AV)
