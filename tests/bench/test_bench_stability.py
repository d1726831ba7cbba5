"""The stability benchmark's parts: each change of a sound, other ways of listening, and the table."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ponticello.model.musicnn_frames import FRAME_SIZE

SCRIPT = Path(__file__).parents[2] / "bench" / "stability.py"
RATE = 48_000


@pytest.fixture
def stability(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("stability", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "stability", module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tone() -> np.ndarray:
    """One second of 1 kHz at amplitude 0.5, at 48 kHz."""
    return (0.5 * np.sin(2 * np.pi * 1000 * np.arange(RATE) / RATE)).astype(np.float32)


def test_a_lead_in_is_silence_and_then_the_sound_itself(stability: Any, tone: np.ndarray) -> None:
    changed, rate = stability.with_lead_in(tone, RATE)
    assert rate == RATE
    assert not changed[:57_600].any()  # 1.2 s
    np.testing.assert_array_equal(changed[57_600:], tone)


def test_six_db_less_is_about_half_the_amplitude(stability: Any, tone: np.ndarray) -> None:
    """10 ** (-6 / 20) = 0.5012."""
    changed, rate = stability.quieter(tone, RATE)
    assert rate == RATE
    assert changed.dtype == np.float32
    np.testing.assert_allclose(changed, 0.501187 * tone, rtol=1e-5)


def test_resampling_keeps_a_tone_and_says_the_new_rate(stability: Any, tone: np.ndarray) -> None:
    changed, rate = stability.at_cd_rate(tone, RATE)
    assert (len(changed), rate) == (44_100, 44_100)
    assert np.abs(np.fft.rfft(changed)).argmax() == 1000  # Hz: one second
    back, rate = stability.there_and_back(tone, RATE)
    assert rate == RATE
    np.testing.assert_allclose(back[500:-500], tone[500:-500], atol=1e-4)


def test_an_mp3_has_128_kbit_a_second_and_a_wav_every_sample(stability: Any, tone: np.ndarray, tmp_path: Path) -> None:
    sound = np.tile(tone, 20)
    stability.write_sound(tmp_path / "sound.mp3", sound, RATE)
    assert soundfile.info(tmp_path / "sound.mp3").format == "MP3"
    assert (tmp_path / "sound.mp3").stat().st_size * 8 / 20 == pytest.approx(128_000, rel=0.02)
    stability.write_sound(tmp_path / "sound.wav", sound, RATE)
    np.testing.assert_array_equal(soundfile.read(tmp_path / "sound.wav", dtype="float32")[0], sound)


def test_overlapping_patches_are_heard_at_both_phases(stability: Any, tone: np.ndarray, tmp_path: Path) -> None:
    """7 s hold two whole patches of 2.99 s from the start, and one from 1.5 s on (5.5 s left)."""
    soundfile.write(tmp_path / "sound.wav", np.tile(tone, 7), RATE, subtype="FLOAT")
    plain = stability.raw_frames(tmp_path / "sound.wav", 120.0)
    overlapping = stability.overlapping_frames(tmp_path / "sound.wav", 120.0)
    assert (len(plain), len(overlapping)) == (2, 3)
    np.testing.assert_array_equal(overlapping[:2], plain)


def test_the_sample_comes_from_the_seed_and_keeps_the_tables_order(stability: Any, tmp_path: Path) -> None:
    rows = "".join(f"{number},audio/{number}.opus\n" for number in range(20))
    (tmp_path / "tracks.csv").write_text(f"track_id,file\n{rows}", encoding="utf-8")
    everything = stability.excerpts(tmp_path, 0, seed=0)
    assert everything == [tmp_path / "audio" / f"{number}.opus" for number in range(20)]
    some = stability.excerpts(tmp_path, 5, seed=0)
    assert len(some) == 5
    assert some == [file for file in everything if file in some]
    assert some == stability.excerpts(tmp_path, 5, seed=0)
    assert some != stability.excerpts(tmp_path, 5, seed=1)


def test_a_row_says_mean_fifth_percentile_and_minimum(stability: Any) -> None:
    """Of 0.80, 0.81, ..., 1.00: mean 0.90, 5th percentile the second lowest, 0.81."""
    values = np.linspace(0.8, 1.0, 21)
    line = "| as it stands | front end | -6 dB | 0.9000 | 0.8100 | 0.8000 | 0.99 | **no** |"
    assert stability.row("as it stands", "front end", "-6 dB", values) == line
    assert stability.row("as it stands", "front end", "-6 dB", np.ones(3)).endswith("| 0.99 | yes |")


def test_cosines_are_of_matching_rows_whatever_their_lengths(stability: Any) -> None:
    left, right = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[8.0, 6.0], [0.0, 5.0]])
    np.testing.assert_allclose(stability.cosines(left, right), [0.96, 0.0], atol=1e-6)


def test_the_report_finds_the_block_that_moves(stability: Any) -> None:
    """Changed frames differ from the originals in the spectrum alone."""
    generator = np.random.default_rng(0)
    tracks = []
    for _ in range(12):
        frames = generator.normal(size=(4, FRAME_SIZE)).astype(np.float16)
        moved = frames.copy()
        moved[:, -192:] = generator.normal(size=(4, 192))
        tracks.append({("as it stands", "original"): frames, ("as it stands", "-6 dB"): moved})
    lines = {line.split(" | ")[1]: line.split(" | ") for line in stability.report(tracks, None)[2:]}
    assert list(lines) == ["front end", "- MSD tagger", "- MTT tagger", "- spectrum"]
    means = {name: float(cells[3]) for name, cells in lines.items()}
    assert means["- MSD tagger"] == means["- MTT tagger"] == 1.0
    assert means["- spectrum"] < 0.4
    assert means["- spectrum"] < means["front end"] < 1.0


def test_every_version_of_a_file_is_heard_by_who_asks_for_it(stability: Any, tone: np.ndarray, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "sound.wav", tone, RATE, subtype="FLOAT")

    def length(path: Path) -> np.ndarray:
        return np.array([[round(soundfile.info(path).duration, 2)]])

    asked = {"all": (length, tuple(stability.CHANGES)), "one": (length, (stability.LEAD_IN,))}
    heard = stability.heard(tmp_path / "sound.wav", asked)
    assert set(heard) == {("one", stability.LEAD_IN), *(("all", change) for change in stability.CHANGES)}
    assert heard["all", "original"][0, 0] == 1.0
    assert heard["one", stability.LEAD_IN][0, 0] == 2.2
