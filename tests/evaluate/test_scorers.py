"""Scorers against plain loops over queries."""

import numpy as np
import pytest

from ponticello.config import SearchConfig
from ponticello.errors import ShapeError
from ponticello.evaluate.tasks import (
    Task,
    score_at_random,
    score_by_factors,
    score_by_order,
    score_by_profile,
    score_by_similarity,
)

GENERATOR = np.random.default_rng(0)
IDS = [f"t{number}" for number in range(50)]
UNIT = GENERATOR.standard_normal((50, 8))
VECTORS = dict(
    zip(IDS, (UNIT / np.linalg.norm(UNIT, axis=1, keepdims=True)).astype(np.float32), strict=True)
)
SEEDS = [
    GENERATOR.choice(IDS, int(GENERATOR.integers(1, 7)), replace=False).tolist() for _ in range(9)
]
NOTHING: list[np.ndarray] = [np.array([], dtype=np.int64)] * 9
TASK = Task("next", [f"u{number}" for number in range(9)], None, IDS, NOTHING, NOTHING, SEEDS)


def _asked(ridge: float = 0.1, hub_correction: float = 0.0) -> SearchConfig:
    return SearchConfig(profile_l2=ridge, hub_correction=hub_correction)


def _plain(seeds: list[str], ridge: float, ids: list[str] = IDS) -> np.ndarray:
    """(50,) scores of one listener: mean-seed regression over all tracks, brought to deviation 1,
    without shortcuts.
    """
    matrix = np.stack([VECTORS[track_id] for track_id in ids]).astype(np.float64)
    centred = matrix - matrix.mean(axis=0)
    covariance = centred.T @ centred / len(ids)
    wanted = np.mean([VECTORS[seed] for seed in seeds], axis=0) - matrix.mean(axis=0)
    line = np.linalg.solve(covariance + ridge * np.trace(covariance) * np.eye(8), wanted)
    raw = centred @ line
    return np.asarray(raw / raw.std())


@pytest.mark.parametrize("ridge", [0.01, 0.1, 1.0])
def test_a_profile_is_the_regression_of_the_seeds_over_all_tracks(ridge: float) -> None:
    found = score_by_profile(TASK, [(1.0, VECTORS)], _asked(ridge))(np.arange(9))
    for row, seeds in enumerate(SEEDS):
        np.testing.assert_allclose(found[row], _plain(seeds, ridge), rtol=0, atol=1e-4)


@pytest.mark.parametrize("hub_correction", [0.5, 1.0])
def test_hubs_are_levelled_by_their_scores_from_every_single_seed(hub_correction: float) -> None:
    """Each track's column over 50 listeners of one seed each gives its spread; the mean square of
    all stays 1.
    """
    alone = np.stack([_plain([seed], 0.1) for seed in IDS])
    spread = np.sqrt((alone**2).mean(axis=0))
    factors = spread**-hub_correction
    factors /= np.sqrt(((factors * spread) ** 2).mean())
    found = score_by_profile(TASK, [(1.0, VECTORS)], _asked(0.1, hub_correction))(np.arange(9))
    for row, seeds in enumerate(SEEDS):
        np.testing.assert_allclose(found[row], factors * _plain(seeds, 0.1), rtol=0, atol=1e-4)


def test_the_dial_adds_both_spaces_profiles() -> None:
    other = {track_id: np.roll(vector, 1) * np.float32(-1) for track_id, vector in VECTORS.items()}
    one, two = (
        score_by_profile(TASK, [(1.0, side)], _asked())(np.arange(9)) for side in (VECTORS, other)
    )
    both = score_by_profile(TASK, [(0.25, VECTORS), (0.75, other)], _asked())(np.arange(9))
    np.testing.assert_allclose(both, 0.25 * one + 0.75 * two, rtol=0, atol=1e-4)


def test_a_block_of_queries_gets_what_all_at_once_get() -> None:
    scorer = score_by_profile(TASK, [(1.0, VECTORS)], _asked())
    np.testing.assert_allclose(
        scorer(np.array([2, 7])), scorer(np.arange(9))[[2, 7]], rtol=0, atol=1e-5
    )


def test_an_audience_is_the_same_profile_seen_from_the_track() -> None:
    listeners = Task(
        "audience", IDS, None, TASK.queries, NOTHING, NOTHING, SEEDS, seeds_of_candidates=True
    )
    forwards = score_by_profile(TASK, [(1.0, VECTORS)], _asked())(np.arange(9))
    backwards = score_by_profile(listeners, [(1.0, VECTORS)], _asked())(np.arange(50))
    np.testing.assert_allclose(backwards, forwards.T, rtol=0, atol=1e-5)


def test_closeness_is_the_cosine_to_the_one_seed() -> None:
    task = Task("pairs", ["a", "b"], None, IDS, NOTHING[:2], NOTHING[:2], [["t3"], ["t9"]])
    matrix = np.stack([VECTORS[track_id] for track_id in IDS])
    found = score_by_similarity(task, VECTORS)(np.arange(2))
    np.testing.assert_allclose(
        found, np.stack([VECTORS["t3"], VECTORS["t9"]]) @ matrix.T, rtol=0, atol=1e-6
    )
    with pytest.raises(ShapeError, match="next: similarity needs one seed per query"):
        score_by_similarity(TASK, VECTORS)


def test_chance_depends_on_seed_and_query_alone() -> None:
    scorer = score_at_random(TASK, 4)
    np.testing.assert_array_equal(scorer(np.array([3, 5])), scorer(np.arange(9))[[3, 5]])
    assert not np.array_equal(scorer(np.array([3])), scorer(np.array([5])))
    assert not np.array_equal(scorer(np.array([3])), score_at_random(TASK, 5)(np.array([3])))


def test_one_order_and_factors_score_as_written() -> None:
    assert score_by_order(np.array([2.0, 1.0]))(np.array([0, 4])).tolist() == [
        [2.0, 1.0],
        [2.0, 1.0],
    ]
    left, right = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert score_by_factors(left, right)(np.array([1])).tolist() == [[3.0, 4.0, 7.0]]
