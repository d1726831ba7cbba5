"""What bench/ingest.py compares is the same work."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

import ingest
from ponticello.audio.mel import mel_of_file


def excerpts(place: Path) -> Path:
    """A folder like freemusic with three sounds of 2 s."""
    (place / "audio").mkdir()
    generator = np.random.default_rng(0)
    for number in range(3):
        soundfile.write(
            place / "audio" / f"{number}.wav",
            generator.normal(0, 0.1, 2 * ingest.FILE_RATE),
            ingest.FILE_RATE,
        )
    return place


def test_sound_is_stereo_of_the_length_and_its_sides_differ(tmp_path: Path) -> None:
    sound = ingest.sound_of(excerpts(tmp_path), 5)
    assert sound.shape == (5 * ingest.FILE_RATE, 2)
    assert np.abs(sound[:, 0] - sound[:, 1]).max() > 0.1


@pytest.mark.filterwarnings(
    "ignore:.*deprecated and slated for removal:DeprecationWarning"
)  # librosa reads through audioread
def test_ours_and_librosa_give_the_same_numbers_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sound.flac"
    soundfile.write(path, ingest.sound_of(excerpts(tmp_path), 3), ingest.FILE_RATE)
    ours, theirs = mel_of_file(path, ingest.MEL), ingest.by_librosa(path).T
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(np.float32) - theirs).max() < 0.05  # float16 at -80 dB steps by 0.06


def test_random_reads_are_counted_and_compared_with_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest, "READ_TRACKS", 5)
    monkeypatch.setattr(ingest, "RUNS", 1)
    per_s, least, copying = ingest.reads(tmp_path)
    assert per_s == least > 0
    assert copying[1] > 0
