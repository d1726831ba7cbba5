"""Copies of made-up tunes are found among different ones, whatever was done to them on the way."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import soxr
from numpy.typing import NDArray

from ponticello.errors import DataError, LibraryError
from ponticello.features import fingerprint as duplicates_module
from ponticello.features.fingerprint import SAME_RECORDING, near_duplicates
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.pairs.mine import find_duplicates
from ponticello.storage.layout import LibraryPaths, create_library, open_library

RATE = 16_000
Sound = NDArray[np.float64]


def _tune(seed: int, seconds: float = 20.0) -> Sound:
    """Notes of random pitch, length and loudness, in which no two tunes agree."""
    generator = np.random.default_rng(seed)
    sound, start = np.zeros(int(seconds * RATE)), 0
    while start < len(sound):
        time = np.arange(int(generator.uniform(0.15, 0.7) * RATE)) / RATE
        pitch, level = 110 * 2 ** generator.uniform(0, 3), generator.uniform(0.05, 0.3)
        note = (
            sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
            * np.exp(-3 * time)
            * level
        )
        end = min(len(sound), start + len(time))
        sound[start:end] += note[: end - start]
        start += int(len(time) * 0.8)
    noise: Sound = generator.normal(0, 0.002, len(sound))
    return sound + noise


def _store(root: Path, files: dict[str, Path]) -> FeatureStore:
    folder: LibraryPaths = create_library(root / "library", "tiny")
    prepare_features(folder, files)
    return FeatureStore(folder.mels)


def _write(path: Path, sound: Sound, rate: int = RATE, **options: str | float) -> Path:
    soundfile.write(path, sound, rate, **options)
    return path


@pytest.fixture(scope="module")
def tunes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Thirty tunes of 20 s."""
    folder = tmp_path_factory.mktemp("tunes")
    return {f"tune{n:02d}": _write(folder / f"{n}.wav", _tune(n)) for n in range(30)}


def test_different_tunes_are_never_called_the_same(tmp_path: Path, tunes: dict[str, Path]) -> None:
    store = _store(tmp_path, tunes)
    assert near_duplicates(store, store.track_ids).is_empty()


def _write_quietly(path: Path, sound: Sound) -> Path:
    return _write(path.with_suffix(".wav"), 0.5 * sound)


def _write_mp3(path: Path, sound: Sound) -> Path:
    """At the lowest constant rate there is for 16 kHz, 8 kbit/s."""
    return _write(
        path.with_suffix(".mp3"),
        sound,
        format="MP3",
        bitrate_mode="CONSTANT",
        compression_level=0.99,
    )


def _write_vorbis(path: Path, sound: Sound) -> Path:
    return _write(
        path.with_suffix(".ogg"), sound, format="OGG", subtype="VORBIS", compression_level=1.0
    )


def _write_at_22_khz(path: Path, sound: Sound) -> Path:
    return _write(path.with_suffix(".wav"), soxr.resample(sound, RATE, 22_050), 22_050)


def _write_later(path: Path, sound: Sound) -> Path:
    return _write(path.with_suffix(".wav"), sound[int(0.5 * RATE) :])


def _write_earlier(path: Path, sound: Sound) -> Path:
    return _write(path.with_suffix(".wav"), np.concatenate([np.zeros(int(0.3 * RATE)), sound]))


def _write_softer_later_and_shorter(path: Path, sound: Sound) -> Path:
    return _write_vorbis(path, 0.5 * sound[RATE : -2 * RATE])


@pytest.mark.parametrize(
    "write",
    [
        _write_quietly,
        _write_mp3,
        _write_vorbis,
        _write_at_22_khz,
        _write_later,
        _write_earlier,
        _write_softer_later_and_shorter,
    ],
)
def test_a_copy_is_found_among_other_tunes(
    tmp_path: Path, tunes: dict[str, Path], write: Callable[[Path, Sound], Path]
) -> None:
    copies = {f"copy{n:02d}": write(tmp_path / f"copy{n}", _tune(n)) for n in (3, 7)}
    store = _store(tmp_path, {**tunes, **copies})
    expected = [("copy03", "tune03"), ("copy07", "tune07")]
    everything = near_duplicates(store, store.track_ids)
    assert everything.select("track_id", "other_id").rows() == expected
    assert everything["similarity"].min() >= SAME_RECORDING  # type: ignore[operator]
    assert near_duplicates(store, ["copy07", "tune01", "copy07"]).row(0)[:2] == ("copy07", "tune07")
    assert near_duplicates(store, ["tune07"]).row(0)[:2] == ("tune07", "copy07")
    assert near_duplicates(store, ["tune01"]).is_empty()
    assert near_duplicates(store, store.track_ids, threshold=1.01).is_empty()


def test_mels_of_other_settings_are_refused_and_not_read_with_these(
    tmp_path: Path, tunes: dict[str, Path]
) -> None:
    """Frames of 96 ms, taken for such of 48 ms, would be joined two by two, and no copy found."""
    folder = create_library(tmp_path / "library", "tiny")
    prepare_features(folder, {"tune00": tunes["tune00"], "tune01": tunes["tune01"]})
    assert find_duplicates(folder, None) is not None
    with pytest.raises(
        LibraryError, match="mels were prepared with other settings; run: ponticello prepare"
    ):
        find_duplicates(open_library(folder.root, ["mel.hop_length=768"]), None)


def test_copies_are_found_on_mels_of_a_finer_hop(tmp_path: Path, tunes: dict[str, Path]) -> None:
    """The base preset's 20 ms: five frames are taken as one. Quieter and cut by 0.5 s; 9 s is too
    short, as ever.
    """
    folder = create_library(tmp_path / "library", "base")
    assert folder.config.mel.hop_length == 320
    copies = {
        "copy03": _write_quietly(tmp_path / "3", _tune(3)),
        "copy07": _write_later(tmp_path / "7", _tune(7)),
    }
    short = _write(tmp_path / "short.wav", _tune(0, 9.0))
    prepare_features(folder, {**tunes, **copies, "short-a": short, "short-b": short})
    found = find_duplicates(folder, None)
    assert found is not None
    assert found.select("track_id", "other_id").rows() == [
        ("copy03", "tune03"),
        ("copy07", "tune07"),
    ]


def test_the_same_file_twice_has_similarity_one(tmp_path: Path, tunes: dict[str, Path]) -> None:
    store = _store(tmp_path, {"a": tunes["tune00"], "b": tunes["tune00"], "c": tunes["tune01"]})
    found = near_duplicates(store, store.track_ids)
    assert found.select("track_id", "other_id").rows() == [("a", "b")]
    assert found["similarity"].item() == pytest.approx(1.0, abs=1e-5)


def test_short_and_silent_tracks_are_not_compared(tmp_path: Path) -> None:
    """9 s is below LEAST_FRAMES; silence resembles nothing, itself included."""
    short = _write(tmp_path / "short.wav", _tune(0, 9.0))
    silent = _write(tmp_path / "silent.wav", np.zeros(20 * RATE))
    store = _store(tmp_path, {"a": short, "b": short, "c": silent, "d": silent})
    assert near_duplicates(store, store.track_ids).is_empty()
    assert near_duplicates(store, []).schema == {
        "track_id": pl.String,
        "other_id": pl.String,
        "similarity": pl.Float64,
    }


def test_an_unknown_track_is_refused(tmp_path: Path, tunes: dict[str, Path]) -> None:
    store = _store(tmp_path, {"a": tunes["tune00"]})
    with pytest.raises(
        DataError, match="track 'b' has no prepared features; run: ponticello prepare"
    ):
        near_duplicates(store, ["b"])


@pytest.mark.parametrize("block", [1, 70, 10_000])
def test_pairs_worth_a_look_are_the_same_for_any_block(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Against a plain double loop over 60 vectors near three centres, the first 25 of which are
    asked about.
    """
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(3, 16))[generator.integers(3, size=60)] + generator.normal(
        0, 0.4, (60, 16)
    )
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    slow = [(i, j) for i in range(25) for j in range(i + 1, 60) if vectors[i] @ vectors[j] >= 0.82]
    monkeypatch.setattr(duplicates_module, "_BLOCK_COSINES", block)
    assert list(duplicates_module._candidates(vectors.astype(np.float32), 25)) == slow
    assert 100 < len(slow) < 700


def test_similarity_is_the_correlation_at_the_best_start() -> None:
    """Rows 5 onwards of one are the first rows of the other; against numpy's correlation over all
    whole starts.
    """
    generator = np.random.default_rng(1)
    long = generator.normal(size=(200, 8)).astype(np.float32)
    assert duplicates_module._similarity(long, long[5:]) == pytest.approx(1.0, abs=1e-6)
    other = (0.6 * long + 0.8 * generator.normal(size=long.shape)).astype(np.float32)
    alone = np.corrcoef(long[4:].ravel(), other[4:].ravel())[0, 1]
    assert duplicates_module._similarity(long, other[4:]) == pytest.approx(alone, abs=0.02)
    assert duplicates_module._similarity(long, np.zeros_like(long)) == 0.0
