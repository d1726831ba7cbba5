"""The made-up catalogue: what is planted can be heard, and a seed gives the same bytes."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from tests.synthetic import SAMPLE_RATE, TRAITS, WORDS, make_catalogue, synthesize


def _peak_hz(waveform: np.ndarray) -> float:
    """The loudest frequency."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)[spectrum.argmax()])


def _sound(**traits: float) -> np.ndarray:
    values = [traits.get(name, 0.0) for name in TRAITS]
    return synthesize(np.array(values), 2.0, np.random.default_rng(0))


@pytest.mark.parametrize(("pitch", "wanted_hz"), [(-1.0, 77.78), (0.0, 220.0), (1.0, 622.25)])
def test_pitch_moves_the_peak_of_the_spectrum(pitch: float, wanted_hz: float) -> None:
    """220 Hz * 2 ** (1.5 * pitch): three octaves in all; the resolution of 2 s is 0.5 Hz."""
    assert _peak_hz(_sound(pitch=pitch, brightness=-1.0, noise=-1.0)) == pytest.approx(
        wanted_hz, abs=0.6
    )


def test_brighter_sounds_have_more_above_their_fundamental() -> None:
    def share_above(waveform: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(waveform)) ** 2
        hz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
        return float(power[hz > 330].sum() / power.sum())

    dark, middle, bright = (
        share_above(_sound(brightness=value, noise=-1.0)) for value in (-1.0, 0.0, 1.0)
    )
    assert dark < middle < bright


def test_noisier_sounds_are_less_tonal() -> None:
    """The share of power outside the twelve harmonics grows by some 4 ** noise in amplitude."""

    def hiss(waveform: np.ndarray) -> float:
        power = np.abs(np.fft.rfft(waveform)) ** 2
        hz = np.fft.rfftfreq(len(waveform), 1 / SAMPLE_RATE)
        return float(power[hz > 4000].mean())

    quiet, loud = hiss(_sound(noise=-1.0)), hiss(_sound(noise=1.0))
    assert loud / quiet == pytest.approx(
        256, rel=0.2
    )  # (4 ** 2) ** 2: two steps of amplitude, as power


def test_sounds_are_float32_within_full_scale() -> None:
    for seed in range(5):
        traits = np.random.default_rng(seed).uniform(-1, 1, len(TRAITS))
        waveform = synthesize(traits, 0.5, np.random.default_rng(seed))
        assert waveform.shape == (8000,)
        assert waveform.dtype == np.float32
        assert np.abs(waveform).max() <= 1
        assert np.abs(waveform).max() > 0.05


def test_one_seed_gives_the_same_bytes_and_another_other_ones() -> None:
    first, same, other = (make_catalogue(6, 3, 0.25, seed) for seed in (4, 4, 5))
    assert all(
        a.tobytes() == b.tobytes() for a, b in zip(first.waveforms, same.waveforms, strict=True)
    )
    assert np.array_equal(first.traits, same.traits)
    assert first.tracks.equals(same.tracks)
    assert not np.array_equal(first.traits, other.traits)
    assert first.waveforms[0].tobytes() != other.waveforms[0].tobytes()


def test_tags_tell_pitch_brightness_and_tempo_in_three_words() -> None:
    """Below -1/3 the first word, above 1/3 the third."""
    catalogue = make_catalogue(40, 10, 0.05, 0)
    for tags, traits in zip(catalogue.tracks["tags"], catalogue.traits, strict=True):
        values = dict(zip(TRAITS, traits, strict=True))
        assert tags.to_list() == [
            WORDS[name][int(values[name] >= -1 / 3) + int(values[name] > 1 / 3)] for name in WORDS
        ]


def test_traits_lie_in_range_and_tracks_of_one_artist_are_alike() -> None:
    catalogue = make_catalogue(200, 20, 0.01, 1)
    assert np.abs(catalogue.traits).max() <= 1
    artists = np.array(catalogue.tracks["artist"].to_list())
    assert len(set(artists)) == 20
    distances = np.linalg.norm(catalogue.traits[:, None] - catalogue.traits[None], axis=2)
    is_same = artists[:, None] == artists[None]
    np.fill_diagonal(distances, np.nan)
    assert np.nanmean(distances[is_same]) < 0.7 * np.nanmean(distances[~is_same])


def test_written_sounds_and_table_are_read_back(tmp_path: Path) -> None:
    catalogue = make_catalogue(3, 2, 0.25, 0)
    table = pl.read_csv(catalogue.write(tmp_path / "new"))
    assert table["track_id"].to_list() == ["track-0000", "track-0001", "track-0002"]
    assert table["artist"].to_list() == ["Artist 0", "Artist 1", "Artist 0"]
    assert table["tags"].to_list() == [";".join(tags) for tags in catalogue.tracks["tags"]]
    for path, waveform in zip(table["path"], catalogue.waveforms, strict=True):
        sound, rate = soundfile.read(tmp_path / "new" / path, dtype="float32")
        assert rate == SAMPLE_RATE
        assert np.abs(sound - waveform).max() <= 2 / 2**15  # 16-bit
