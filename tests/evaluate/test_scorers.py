"""Scorers against plain loops over seeds."""

import numpy as np
import pytest

from ponticello.evaluate import scorers
from ponticello.evaluate.ranking import Task
from ponticello.evaluate.scorers import agreeing_mean, by_chance, by_factors, by_order, by_vectors
from ponticello.search.recommend import agreement

GENERATOR = np.random.default_rng(0)
IDS = [f"t{number}" for number in range(50)]
UNIT = GENERATOR.standard_normal((50, 8))
VECTORS = dict(zip(IDS, (UNIT / np.linalg.norm(UNIT, axis=1, keepdims=True)).astype(np.float32), strict=True))
SEEDS = [GENERATOR.choice(IDS, int(GENERATOR.integers(1, 7)), replace=False).tolist() for _ in range(9)]
NOTHING: list[np.ndarray] = [np.array([], dtype=np.int64)] * 9
TASK = Task("next", [f"u{number}" for number in range(9)], None, IDS, NOTHING, NOTHING, SEEDS)


@pytest.mark.parametrize("tile", [1, 7, 2048])
@pytest.mark.parametrize("n_agreeing", [1, 3, 20])
def test_closeness_is_that_of_the_seeds_that_agree(tile: int, n_agreeing: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorers, "TILE", tile)
    found = by_vectors(TASK, VECTORS, n_agreeing)(np.arange(9))
    matrix = np.stack([VECTORS[track_id] for track_id in IDS])
    for row, seeds in enumerate(SEEDS):
        plain, _ = agreement(np.stack([VECTORS[seed] for seed in seeds]) @ matrix.T, n_agreeing)
        np.testing.assert_allclose(found[row], plain, rtol=0, atol=1e-6)


def test_a_block_of_queries_gets_what_all_at_once_get() -> None:
    scorer = by_vectors(TASK, VECTORS, 3)
    np.testing.assert_allclose(scorer(np.array([2, 7])), scorer(np.arange(9))[[2, 7]], rtol=0, atol=1e-6)


def test_an_audience_is_the_same_closeness_seen_from_the_track() -> None:
    listeners = Task("audience", IDS, None, TASK.queries, NOTHING, NOTHING, SEEDS, seeds_of_candidates=True)
    forwards, backwards = by_vectors(TASK, VECTORS, 3)(np.arange(9)), by_vectors(listeners, VECTORS, 3)(np.arange(50))
    np.testing.assert_allclose(backwards, forwards.T, rtol=0, atol=1e-6)


def test_seeds_may_ask_with_other_vectors_than_answer() -> None:
    """Asking vectors twice as long double every score."""
    twice = {track_id: 2 * vector for track_id, vector in VECTORS.items()}
    doubled, plain = by_vectors(TASK, VECTORS, 3, twice)(np.arange(9)), by_vectors(TASK, VECTORS, 3)(np.arange(9))
    np.testing.assert_allclose(doubled, 2 * plain, rtol=1e-6)


def test_agreeing_mean_takes_the_highest_and_fewer_where_there_are_fewer() -> None:
    """Place one: 3, 1, 2 -> (3 + 2) / 2. Place two: only 5."""
    slots = [np.array([[3.0, -np.inf]]), np.array([[1.0, 5.0]]), np.array([[2.0, -np.inf]])]
    assert agreeing_mean(slots, 2).tolist() == [[2.5, 5.0]]


def test_chance_depends_on_seed_and_query_alone() -> None:
    scorer = by_chance(TASK, 4)
    np.testing.assert_array_equal(scorer(np.array([3, 5])), scorer(np.arange(9))[[3, 5]])
    assert not np.array_equal(scorer(np.array([3])), scorer(np.array([5])))
    assert not np.array_equal(scorer(np.array([3])), by_chance(TASK, 5)(np.array([3])))


def test_one_order_and_factors_score_as_written() -> None:
    assert by_order(np.array([2.0, 1.0]))(np.array([0, 4])).tolist() == [[2.0, 1.0], [2.0, 1.0]]
    left, right = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    assert by_factors(left, right)(np.array([1])).tolist() == [[3.0, 4.0, 7.0]]
