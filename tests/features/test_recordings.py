"""Copies share a recording: worked groups, and only what is new is compared."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from ponticello.features import fingerprint as copies
from ponticello.features.fingerprint import (
    HOP_S,
    find_recordings,
    merge_recordings,
    near_duplicates,
)
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import LibraryPaths, create_library

RATE = 16_000


def _tune(seed: int) -> np.ndarray:
    """12 s of notes of random pitch and length, in which no two tunes agree."""
    generator = np.random.default_rng(seed)
    notes: list[np.ndarray] = []
    while sum(len(note) for note in notes) < 12 * RATE:
        time = np.arange(int(generator.uniform(0.15, 0.7) * RATE)) / RATE
        pitch = 110 * 2 ** generator.uniform(0, 3)
        notes.append(
            sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
            * np.exp(-3 * time)
            * 0.1
        )
    tune: np.ndarray = np.concatenate(notes)[: 12 * RATE]
    return tune


def _prepared(folder: LibraryPaths, sounds: dict[str, np.ndarray]) -> None:
    files = {}
    for track_id, sound in sounds.items():
        files[track_id] = folder.root / f"{track_id}.wav"
        if not files[track_id].exists():
            soundfile.write(files[track_id], sound, RATE)
    prepare_features(folder, files)


@pytest.fixture
def folder(tmp_path: Path) -> LibraryPaths:
    """Three tunes, the second also at half its level under another id."""
    made = create_library(tmp_path / "library", "tiny")
    _prepared(made, {"a": _tune(1), "b": _tune(2), "c": _tune(3), "z": 0.5 * _tune(2)})
    return made


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The track ids of every comparison that was asked for."""
    calls: list[list[str]] = []

    def noted(store: FeatureStore, track_ids: Sequence[str], hop_s: float) -> pl.DataFrame:
        calls.append(list(track_ids))
        return near_duplicates(store, track_ids, hop_s=hop_s)

    monkeypatch.setattr(copies, "near_duplicates", noted)
    return calls


def _pairs(*pairs: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(
        list(pairs), schema={"track_id": pl.String, "other_id": pl.String}, orient="row"
    )


def _of(found: pl.DataFrame) -> dict[str, str]:
    return dict(found.select("track_id", "recording").iter_rows())


def test_pairs_in_a_chain_are_one_recording_under_its_smallest_id() -> None:
    ids, unnamed = pl.Series(["d", "c", "b", "a"]), pl.Series([None] * 4, dtype=pl.String)
    assert merge_recordings(ids, unnamed, _pairs(("b", "c"), ("c", "d"))) == ["b", "b", "b", "a"]
    assert merge_recordings(ids, unnamed, _pairs()) == ["d", "c", "b", "a"]


def test_names_of_before_hold_together_and_take_in_what_is_new() -> None:
    """b and d were one under the name of a track that is gone; c comes to d, and a stays alone."""
    ids, names = pl.Series(["a", "b", "c", "d"]), pl.Series([None, "gone", None, "gone"])
    assert merge_recordings(ids, names, _pairs(("c", "d"))) == ["a", "b", "b", "b"]


def test_a_softer_copy_is_the_same_recording_and_other_tunes_are_not(folder: LibraryPaths) -> None:
    assert _of(find_recordings(folder.mels, None, HOP_S)) == {
        "a": "a",
        "b": "b",
        "c": "c",
        "z": "b",
    }


def test_mels_of_another_hop_are_compared_by_their_seconds(tmp_path: Path) -> None:
    """Frames of 20 ms, as `base` has them; a copy that begins half a second later is found by its
    moments.
    """
    made = create_library(tmp_path / "library", "base")
    _prepared(made, {"a": _tune(1), "b": _tune(2), "late": _tune(2)[RATE // 2 :]})
    found = find_recordings(made.mels, None, made.config.mel.hop_s)
    assert made.config.mel.hop_s == pytest.approx(0.02)
    assert _of(found) == {"a": "a", "b": "b", "late": "b"}


def test_nothing_is_compared_again_while_the_mels_stay(
    folder: LibraryPaths, compared: list[list[str]]
) -> None:
    first = find_recordings(folder.mels, None, HOP_S)
    assert find_recordings(folder.mels, first, HOP_S).equals(first)
    assert compared == [["a", "b", "c", "z"], []]


def test_a_new_copy_joins_the_recording_of_before(
    folder: LibraryPaths, compared: list[list[str]]
) -> None:
    first = find_recordings(folder.mels, None, HOP_S)
    sounds = {"a": _tune(1), "b": _tune(2), "c": _tune(3), "z": _tune(2), "B": 0.7 * _tune(2)}
    _prepared(folder, sounds)
    assert _of(find_recordings(folder.mels, first, HOP_S)) == {
        "a": "a",
        "b": "B",
        "c": "c",
        "z": "B",
        "B": "B",
    }
    assert compared[1:] == [["B"]]


def test_a_track_that_sounds_otherwise_now_leaves_its_recording(
    folder: LibraryPaths, compared: list[list[str]]
) -> None:
    first = find_recordings(folder.mels, None, HOP_S)
    (folder.root / "z.wav").unlink()
    _prepared(
        folder,
        {"a": _tune(1), "b": _tune(2), "c": _tune(3), "z": np.concatenate([_tune(4), _tune(5)])},
    )
    assert _of(find_recordings(folder.mels, first, HOP_S)) == {
        "a": "a",
        "b": "b",
        "c": "c",
        "z": "z",
    }
    assert compared[1:] == [["z"]]


def test_before_anything_is_prepared_no_recording_is_known(tmp_path: Path) -> None:
    found = find_recordings(create_library(tmp_path / "library", "tiny").mels, None, HOP_S)
    assert found.columns == ["track_id", "mel_sha256", "recording"]
    assert found.is_empty()
