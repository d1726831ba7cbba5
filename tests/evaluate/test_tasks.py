"""What is ranked for whom, on logs made by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest

from ponticello.config import Config
from ponticello.errors import DataError
from ponticello.evaluate.tasks import (
    Task,
    audience,
    next_tracks,
    pair_ranking,
    playlist_continuation,
)
from ponticello.splits.splits import Splits

START = datetime(2024, 1, 1, tzinfo=UTC)
ROLES = {
    **dict.fromkeys("abcd", "train"),
    "v": "validation",
    "x": "test",
    "y": "test",
    "unheard": "train",
}
SPLITS = Splits(ROLES, START + timedelta(hours=5), START + timedelta(hours=10))
USABLE = {*"abcdvxy", "new"}
CONFIG = Config.from_preset("tiny")
LOG = [  # user, track, hour, event, seconds; the test window begins at hour 10
    ("u1", "a", 0, "like", None),
    ("u1", "b", 1, "complete", 50.0),
    ("u1", "c", 2, "skip", 3.0),
    ("u1", "x", 3, "like", None),
    ("u1", "v", 4, "like", None),
    ("u1", "a", 8, "like", None),
    ("u1", "d", 10, "like", None),
    ("u1", "a", 11, "like", None),
    ("u1", "x", 12, "collect", None),
    ("u1", "y", 13, "skip", 3.0),
    ("u2", "a", 1, "play", 29.0),
    ("u2", "d", 11, "like", None),
    ("u3", "b", 9, "playlist", None),
    ("u3", "a", 11, "dislike", None),
    ("u3", "y", 11, "play", 30.0),
    ("u4", "d", 9, "play", None),
    ("u4", "c", 12, "play", 30.0),
    ("u4", "v", 12, "like", None),
    ("u5", "unheard", 1, "like", None),
    ("u5", "c", 12, "like", None),
    ("u6", "c", 12, "like", None),
    ("u6", "a", 13, "like", None),
    ("u7", "a", 1, "like", None),
    ("u7", "new", 12, "like", None),
]


def _log(rows: list[tuple[str, str, int, str, float | None]]) -> pl.DataFrame:
    schema: dict[str, Any] = {
        "user_id": pl.String,
        "track_id": pl.String,
        "played_at": pl.Datetime("us", "UTC"),
        "event": pl.String,
        "played_s": pl.Float64,
    }
    values = [
        (user, track, START + timedelta(hours=hour), event, s)
        for user, track, hour, event, s in rows
    ]
    return pl.DataFrame(values, schema=schema, orient="row")


def _tasks(config: Config = CONFIG, usable: set[str] = USABLE) -> tuple[Task, Task]:
    warm, cold = next_tracks(_log(LOG), SPLITS, usable, config)
    return warm, cold


def test_warm_tracks_are_training_tracks_the_listener_has_not_played() -> None:
    """u1 met a, b, c before, so only d is open; u4 met d. u2 and u6 have no seed, u3, u5 and u7
    nothing to find.
    """
    warm, _ = _tasks()
    assert warm.name == "next_tracks_warm"
    assert warm.candidates == ["a", "b", "c", "d"]
    assert warm.queries == ["u1", "u4"]
    assert [columns.tolist() for columns in warm.excluded] == [[0, 1, 2], [3]]
    assert [columns.tolist() for columns in warm.relevant] == [[3], [2]]


def test_cold_tracks_are_test_tracks_whoever_has_heard_them() -> None:
    """u1 took x again and skipped y; u3 played y for thirty seconds."""
    _, cold = _tasks()
    assert cold.name == "next_tracks_cold"
    assert cold.candidates == ["x", "y"]
    assert cold.queries == ["u1", "u3"]
    assert [columns.tolist() for columns in cold.relevant] == [[0], [1]]
    assert not any(len(columns) for columns in cold.excluded)


def test_seeds_are_training_tracks_liked_before_the_test_window_newest_first() -> None:
    """u1: a was last liked at hour 8, b at hour 1; c was skipped, x is of the test tracks, v of
    validation.
    """
    warm, cold = _tasks()
    assert warm.seeds == [["a", "b"], ["d"]]
    assert cold.seeds == [["a", "b"], ["b"]]


def test_only_so_many_recent_seeds_speak() -> None:
    warm, _ = _tasks(Config.from_preset("tiny", {"search": {"n_seed_tracks": 1}}))
    assert warm.seeds == [["a"], ["d"]]


def test_tracks_without_vectors_take_no_part() -> None:
    warm, cold = _tasks(usable=USABLE - {"d", "y", "a"})
    assert warm.candidates == ["b", "c"]
    assert warm.queries == []
    assert warm.relevant == []
    assert (cold.candidates, cold.queries, cold.seeds) == (["x"], ["u1"], [["b"]])


def test_log_that_ends_before_the_test_window_has_nobody_to_ask() -> None:
    early = [row for row in LOG if row[2] < 10]
    warm, cold = next_tracks(_log(early), SPLITS, USABLE, CONFIG)
    assert (warm.queries, cold.queries) == ([], [])
    assert cold.relevant == cold.excluded == []


def test_order_of_the_log_is_irrelevant() -> None:
    first, second = (
        next_tracks(_log(LOG), SPLITS, USABLE, CONFIG),
        next_tracks(_log(LOG[::-1]), SPLITS, USABLE, CONFIG),
    )
    for one, two in zip(first, second, strict=True):
        assert (one.queries, one.seeds, [c.tolist() for c in one.relevant]) == (
            two.queries,
            two.seeds,
            [c.tolist() for c in two.relevant],
        )


def test_splits_without_moments_are_refused() -> None:
    with pytest.raises(DataError, match="the splits were made without a listening history"):
        next_tracks(_log(LOG), Splits(ROLES, None, None), USABLE, CONFIG)


ARTISTS = {"a": "ann", "b": "ann", "x": "xan", "y": "xan"}


def test_held_out_pairs_ask_with_a_training_track_and_cluster_by_its_artist() -> None:
    pairs = pl.DataFrame(
        {"anchor_id": ["a", "a", "b", "c", "lost"], "positive_id": ["x", "y", "y", "x", "x"]}
    )
    task = pair_ranking(pairs, SPLITS, USABLE, ARTISTS)
    assert (task.queries, task.clusters) == (["a", "b", "c"], ["ann", "ann", "c"])
    assert task.candidates == ["x", "y"]
    assert [columns.tolist() for columns in task.relevant] == [[0, 1], [1], [0]]
    assert task.seeds == [["a"], ["b"], ["c"]]


def _playlists(rows: list[tuple[str, str, int, str]]) -> pl.DataFrame:
    log = _log([(user, track, hour, "playlist", None) for user, track, hour, _ in rows])
    return log.with_columns(session_id=pl.Series([name for *_, name in rows]))


def test_playlists_are_continued_from_training_tracks_to_test_tracks() -> None:
    """Of u1's road: a and b speak, x is wanted; c came later and does not speak. u2's holds no test
    track.
    """
    log = _playlists(
        [
            ("u1", "b", 1, "road"),
            ("u1", "a", 2, "road"),
            ("u1", "x", 3, "road"),
            ("u1", "c", 12, "road"),
            ("u2", "a", 1, "road"),
        ]
    )
    cold, warm = playlist_continuation(log, SPLITS, USABLE)
    assert (cold.queries, cold.clusters, cold.seeds) == (["u1 / road"], ["u1"], [["b", "a"]])
    assert [columns.tolist() for columns in cold.relevant] == [[0]]
    assert warm.queries == []


def test_a_new_playlist_is_continued_by_its_second_half() -> None:
    """Three tracks: the first two speak and are not ranked, the third is wanted."""
    log = _playlists(
        [
            ("u1", "d", 10, "new"),
            ("u1", "a", 11, "new"),
            ("u1", "b", 12, "new"),
            ("u1", "x", 12, "new"),
        ]
    )
    _, warm = playlist_continuation(log, SPLITS, USABLE)
    assert (warm.queries, warm.candidates) == (["u1 / new"], ["a", "b", "c", "d"])
    assert warm.seeds == [["d", "a"]]
    assert [columns.tolist() for columns in warm.excluded] == [[0, 3]]
    assert [columns.tolist() for columns in warm.relevant] == [[1]]


def test_an_audience_is_every_listener_with_a_seed() -> None:
    """x was collected by u1 in the test window, y played long enough by u3; u1's earlier like of x
    is not asked.
    """
    task = audience(_log(LOG), SPLITS, USABLE, CONFIG, ARTISTS)
    assert (task.queries, task.clusters, task.candidates) == (
        ["x", "y"],
        ["xan", "xan"],
        ["u1", "u3", "u4", "u7"],
    )
    assert [columns.tolist() for columns in task.relevant] == [[0], [1]]
    assert task.seeds == [["a", "b"], ["b"], ["d"], ["a"]]
    assert task.seeds_of_candidates


def test_last_sessions_are_the_test_window_of_each_listener() -> None:
    """u1's own test window begins at hour 11: d, at hour 10, is validation and played before."""
    own = {"u1": (START + timedelta(hours=9), START + timedelta(hours=11))}
    splits = Splits(ROLES, None, None, own)
    warm, cold = next_tracks(_log(LOG), splits, USABLE, CONFIG)
    assert warm.queries == []
    assert (cold.queries, cold.seeds) == (["u1"], [["d", "a", "b"]])
