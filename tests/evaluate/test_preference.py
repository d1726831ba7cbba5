"""What is ranked for whom, on a log made by hand, and the scores by hand."""

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pytest

from ponticello.config import Config
from ponticello.data.splits import Splits
from ponticello.errors import DataError
from ponticello.evaluate.preference import Task, make_tasks, scores_at_random, scores_by_vectors

START = datetime(2024, 1, 1, tzinfo=UTC)
ROLES = {**dict.fromkeys("abcd", "train"), "v": "validation", "x": "test", "y": "test", "unheard": "train"}
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
    values = [(user, track, START + timedelta(hours=hour), event, s) for user, track, hour, event, s in rows]
    return pl.DataFrame(values, schema=schema, orient="row")


def _tasks(config: Config = CONFIG, usable: set[str] = USABLE) -> tuple[Task, Task]:
    warm, cold = make_tasks(_log(LOG), SPLITS, usable, config)
    return warm, cold


def test_warm_tracks_are_training_tracks_the_listener_has_not_played() -> None:
    """u1 met a, b, c before, so only d is open; u4 met d. u2 and u6 have no seed, u3, u5 and u7 nothing to find."""
    warm, _ = _tasks()
    assert warm.name == "warm"
    assert warm.candidates == ["a", "b", "c", "d"]
    assert warm.users == ["u1", "u4"]
    assert warm.allowed.tolist() == [[False, False, False, True], [True, True, True, False]]
    assert warm.relevant.tolist() == [[False, False, False, True], [False, False, True, False]]


def test_cold_tracks_are_test_tracks_whoever_has_heard_them() -> None:
    """u1 took x again and skipped y; u3 played y for thirty seconds."""
    _, cold = _tasks()
    assert cold.name == "cold"
    assert cold.candidates == ["x", "y"]
    assert cold.users == ["u1", "u3"]
    assert cold.relevant.tolist() == [[True, False], [False, True]]
    assert cold.allowed.all()


def test_seeds_are_training_tracks_liked_before_the_test_window_newest_first() -> None:
    """u1: a was last liked at hour 8, b at hour 1; c was skipped, x is of the test tracks, v of validation."""
    warm, cold = _tasks()
    assert warm.seeds == [["a", "b"], ["d"]]
    assert cold.seeds == [["a", "b"], ["b"]]


def test_only_so_many_recent_seeds_speak() -> None:
    warm, _ = _tasks(Config.from_preset("tiny", {"search": {"recent_seeds": 1}}))
    assert warm.seeds == [["a"], ["d"]]


def test_tracks_without_vectors_take_no_part() -> None:
    warm, cold = _tasks(usable=USABLE - {"d", "y", "a"})
    assert warm.candidates == ["b", "c"]
    assert warm.users == []
    assert warm.relevant.shape == (0, 2)
    assert (cold.candidates, cold.users, cold.seeds) == (["x"], ["u1"], [["b"]])


def test_log_that_ends_before_the_test_window_has_nobody_to_ask() -> None:
    early = [row for row in LOG if row[2] < 10]
    warm, cold = make_tasks(_log(early), SPLITS, USABLE, CONFIG)
    assert (warm.users, cold.users) == ([], [])
    assert cold.relevant.shape == cold.allowed.shape == (0, 2)


def test_order_of_the_log_is_irrelevant() -> None:
    first, second = make_tasks(_log(LOG), SPLITS, USABLE, CONFIG), make_tasks(_log(LOG[::-1]), SPLITS, USABLE, CONFIG)
    for one, two in zip(first, second, strict=True):
        assert (one.users, one.seeds, one.relevant.tolist()) == (two.users, two.seeds, two.relevant.tolist())


def test_splits_without_moments_are_refused() -> None:
    with pytest.raises(DataError, match="nothing is held out in time: import listening first, then run: ponticello"):
        make_tasks(_log(LOG), Splits(ROLES, None, None), USABLE, CONFIG)


VECTORS = {
    "a": np.array([1.0, 0.0]),
    "b": np.array([0.0, 1.0]),
    "c": np.array([0.6, 0.8]),
    "x": np.array([0.8, 0.6]),
    "y": np.array([-1.0, 0.0]),
}


def _task(seeds: list[list[str]]) -> Task:
    shape = (len(seeds), 2)
    return Task(
        "cold", [f"u{n}" for n in range(len(seeds))], seeds, ["x", "y"], np.ones(shape, bool), np.ones(shape, bool)
    )


def test_scores_are_the_mean_of_the_closest_seeds() -> None:
    """Cosines with x: a 0.8, b 0.6, c 0.96; with y: a -1, b 0, c -0.6. The two closest of each, or the only one."""
    scores = scores_by_vectors(_task([["a", "b", "c"], ["b"]]), VECTORS, 2)
    assert scores == pytest.approx(np.array([[(0.96 + 0.8) / 2, (0 - 0.6) / 2], [0.6, 0.0]]))


def test_one_agreeing_seed_is_the_closest() -> None:
    assert scores_by_vectors(_task([["a", "b", "c"]]), VECTORS, 1) == pytest.approx(np.array([[0.96, 0.0]]))


def test_nobody_to_ask_gives_no_scores() -> None:
    assert scores_by_vectors(_task([]), VECTORS, 3).shape == (0, 2)


def test_random_scores_are_seeded() -> None:
    task = _task([["a"], ["b"]])
    assert np.array_equal(scores_at_random(task, 1), scores_at_random(task, 1))
    assert not np.array_equal(scores_at_random(task, 1), scores_at_random(task, 2))
    assert scores_at_random(task, 1).shape == (2, 2)
