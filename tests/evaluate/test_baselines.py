"""The simple rows by hand: mel statistics of two tiny mels, plays counted, vectors that know
nothing.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import DataError
from ponticello.evaluate.baselines import popularity
from ponticello.evaluate.vectors import frame_means, mel_statistics
from ponticello.features.store import (
    MANIFEST_SCHEMA,
    FeatureStore,
    hash_features,
    write_manifest,
    write_shard,
)

MELS = {
    "a": np.array([[0, 2], [4, 2]], dtype=np.float16),
    "b": np.array([[1, 0], [1, 4]], dtype=np.float16),
    "c": np.array([[3, 5], [3, 5], [3, 5]], dtype=np.float16),
}


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    """Three mels of two bands."""
    number = write_shard(tmp_path, list(MELS.values()))
    rows, start = [], 0
    for track_id, mel in MELS.items():
        rows.append((track_id, number, start, len(mel), hash_features(mel), "a.wav", 1, 1, "key"))
        start += len(mel)
    write_manifest(tmp_path, pl.DataFrame(rows, schema=MANIFEST_SCHEMA, orient="row"))
    return FeatureStore(tmp_path)


def test_mel_statistics_by_hand(store: FeatureStore) -> None:
    """Means and deviations over time: a (2, 2 | 2, 0), b (1, 2 | 0, 2), c (3, 5 | 0, 0).

    Over a, c: mean (2.5, 3.5 | 1, 0), deviation (0.5, 1.5 | 1, 0). Standardised, a is (-1, -1, 1,
    0) and c (1, 1, -1, 0): unit vectors of thirds.
    """
    found = mel_statistics(store, ["c", "a"], ["a", "c"])
    third = 3**-0.5
    assert np.allclose(found, [[third, third, -third, 0], [-third, -third, third, 0]], atol=1e-6)
    assert found.dtype == np.float32


def test_mel_statistics_are_standardised_over_the_reference_tracks_only(
    store: FeatureStore,
) -> None:
    """Over a, b: mean (1.5, 2 | 1, 1), deviation (0.5, 0 | 1, 1); so a is (1, 0, 1, -1) whoever
    else is described.
    """
    third = 3**-0.5
    for ids in (["a"], ["a", "c"], ["a", "b", "c"]):
        assert np.allclose(
            mel_statistics(store, ids, ["a", "b"])[0], [third, 0, third, -third], atol=1e-6
        )


def test_frame_means_by_hand(store: FeatureStore) -> None:
    """Means: a (2, 2), c (3, 5); over both: mean (2.5, 3.5), deviation (0.5, 1.5). So a is (-1,
    -1), c (1, 1).
    """
    half = 2**-0.5
    found = frame_means(store, ["c", "a"], ["a", "c"])
    assert np.allclose(found, [[half, half], [-half, -half]], atol=1e-6)
    assert found.dtype == np.float32


def test_track_that_is_just_average_has_no_direction(store: FeatureStore) -> None:
    assert mel_statistics(store, ["a"], ["a"]).tolist() == [[0, 0, 0, 0]]


def test_mel_statistics_of_an_unprepared_track_are_refused(store: FeatureStore) -> None:
    with pytest.raises(DataError, match="track 'z' has no prepared features"):
        mel_statistics(store, ["z"], ["a"])


def test_popularity_counts_every_event_and_cold_tracks_have_none() -> None:
    events = pl.DataFrame(
        {"track_id": ["a", "b", "a", "z", "a"], "event": ["play", "skip", "like", "play", "play"]}
    )
    assert popularity(events, ["b", "cold", "a"]).tolist() == [1.0, 0.0, 3.0]
    assert popularity(events.clear(), ["b"]).tolist() == [0.0]
