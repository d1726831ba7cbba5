"""List metrics against numbers worked out by hand, every order of small rankings, plain loops and
scikit-learn.
"""

import doctest
import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, ndcg_score

from ponticello.errors import ConfigError, DataError, ShapeError
from ponticello.metrics import beyond_accuracy as lists
from ponticello.metrics.beyond_accuracy import (
    average_precision,
    coverage,
    graded_ndcg_at_k,
    hubness,
    mean_popularity,
    same_artist_share,
    top_k,
    top_k_blocked,
)
from ponticello.metrics.ranking import average_precision_at_k, hit_rate_at_k

Scores = NDArray[np.float64]
Hits = NDArray[np.bool_]


def _orders(scores: Scores) -> list[list[int]]:
    """Every order, best first, that respects the scores: the product of the orders of each tie."""
    ties = [np.flatnonzero(scores == score).tolist() for score in sorted(set(scores), reverse=True)]
    return [
        list(itertools.chain(*order))
        for order in itertools.product(*map(itertools.permutations, ties))
    ]


def _plain_average_precision(hits: list[bool], k: int) -> float:
    return sum(sum(hits[: i + 1]) / (i + 1) for i in range(min(k, len(hits))) if hits[i]) / min(
        k, sum(hits)
    )


def _plain_ndcg(gains: list[float], k: int) -> float:
    def worth(ordered: list[float]) -> float:
        return sum(gain / math.log2(i + 2) for i, gain in enumerate(ordered[:k]))

    return worth(gains) / worth(sorted(gains, reverse=True))


def test_metrics_without_ties_equal_the_ones_worked_out_by_hand() -> None:
    """Order by score: a (hit, gain 1), b, c (hit, gain 3).

    average precision: (1/1 + 2/3) / 2 = 5/6; at 2: 1/1 of min(2, 2) = 1/2; at 1: 1/1 of min(1, 2) =
    1. graded ndcg@3: (1 + 3/log2 4) / (3 + 1/log2 3) = 2.5 / 3.6309297536.
    """
    scores, relevant, gains = (
        np.array([3.0, 2.0, 1.0]),
        np.array([True, False, True]),
        np.array([1.0, 0.0, 3.0]),
    )
    assert average_precision(scores, relevant) == pytest.approx(5 / 6, abs=1e-15)
    assert [average_precision_at_k(scores, relevant, k) for k in (1, 2, 9)] == pytest.approx(
        [1, 1 / 2, 5 / 6]
    )
    assert [hit_rate_at_k(scores, ~relevant, k) for k in (1, 2, 9)] == [0.0, 1.0, 1.0]
    assert graded_ndcg_at_k(scores, gains, 3) == pytest.approx(
        2.5 / (3 + 1 / math.log2(3)), abs=1e-15
    )


def test_metrics_with_ties_equal_the_ones_worked_out_by_hand() -> None:
    """Four equals, two of them hits: six orders of hits h and misses m.

    hit rate@2: all but mmhh: 5/6.  average precision at 2: hh 1, hm (twice) 1/2, mh (twice)
    (1/2)/2, mm 0: (1 + 2/2 + 2/4) / 6 = 5/12.  As scikit-learn has it, one step: precision 2/4.
    """
    scores, relevant = np.zeros(4), np.array([True, False, True, False])
    assert hit_rate_at_k(scores, relevant, 2) == pytest.approx(5 / 6, abs=1e-15)
    assert average_precision_at_k(scores, relevant, 2) == pytest.approx(5 / 12, abs=1e-15)
    assert average_precision(scores, relevant) == 0.5


def test_metrics_at_k_are_the_mean_over_every_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        n, k = int(rng.integers(1, 7)), int(rng.integers(1, 8))
        scores = rng.integers(0, int(rng.integers(1, 6)), n).astype(float)
        relevant, gains = rng.random(n) < 0.5, rng.integers(0, 3, n) * rng.random(n)
        orders = _orders(scores)
        rate, precision, graded = math.nan, math.nan, math.nan
        if relevant.any():
            ordered = [relevant[order].tolist() for order in orders]
            rate = sum(any(hits[:k]) for hits in ordered) / len(orders)
            precision = math.fsum(_plain_average_precision(hits, k) for hits in ordered) / len(
                orders
            )
        if gains.any():
            graded = math.fsum(_plain_ndcg(gains[order].tolist(), k) for order in orders) / len(
                orders
            )
        assert hit_rate_at_k(scores, relevant, k) == pytest.approx(rate, abs=1e-12, nan_ok=True)
        assert average_precision_at_k(scores, relevant, k) == pytest.approx(
            precision, abs=1e-12, nan_ok=True
        )
        assert graded_ndcg_at_k(scores, gains, k) == pytest.approx(graded, abs=1e-12, nan_ok=True)


def test_average_precision_and_graded_ndcg_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    for _ in range(1000):
        n, levels, k = (int(number) for number in rng.integers((2, 1, 1), (40, 12, 50)))
        scores, relevant = rng.integers(0, levels, n).astype(float), rng.random(n) < 0.3
        gains = rng.random(n) * (rng.random(n) < 0.5)
        expected = average_precision_score(relevant, scores) if relevant.any() else math.nan
        assert average_precision(scores, relevant) == pytest.approx(
            expected, abs=1e-12, nan_ok=True
        )
        expected = ndcg_score(gains[None], scores[None], k=k) if gains.any() else math.nan
        assert graded_ndcg_at_k(scores, gains, k) == pytest.approx(expected, abs=1e-12, nan_ok=True)


@pytest.mark.parametrize(
    ("n_hits", "k"),
    [(3, 20_000), (20_000, 3), (1, 1), (50, 30), (30_000, 70_000), (30_001, 70_000)],
)
def test_hit_rate_of_a_large_tie_stays_exact(n_hits: int, k: int) -> None:
    """1 - C(n - more, fewer) / C(n, fewer) in whole numbers, of hits and k; certain when they
    exceed n together.
    """
    n, (fewer, more) = 100_000, sorted((n_hits, k))
    missed = (
        Fraction(math.comb(n - more, fewer), math.comb(n, fewer)) if fewer < 100 else Fraction(0)
    )
    found = hit_rate_at_k(np.zeros(n), np.arange(n) < n_hits, k)
    assert found == pytest.approx(float(1 - missed), rel=1e-12)


def test_average_precision_of_a_large_tie_stays_exact() -> None:
    """All N equal and all hits: every precision is 1. One hit: 1/place of a place drawn at random,
    the mean of 1/i.
    """
    n = 100_000
    assert average_precision_at_k(np.zeros(n), np.ones(n, dtype=bool), n) == pytest.approx(
        1.0, abs=1e-12
    )
    harmonic = math.fsum(1 / i for i in range(1, n + 1)) / n
    assert average_precision_at_k(np.zeros(n), np.arange(n) == 7, n) == pytest.approx(
        harmonic, rel=1e-12
    )


@pytest.mark.parametrize("n", [0, 3])
def test_a_query_with_nothing_relevant_is_nan(n: int) -> None:
    scores, relevant = np.arange(float(n)), np.zeros(n, dtype=bool)
    assert math.isnan(hit_rate_at_k(scores, relevant, 2))
    assert math.isnan(average_precision_at_k(scores, relevant, 2))
    assert math.isnan(average_precision(scores, relevant))
    assert math.isnan(graded_ndcg_at_k(scores, np.zeros(n), 2))


def test_the_unit_of_the_gain_cancels() -> None:
    scores, gains = np.array([1.0, 2.0, 2.0, 0.0]), np.array([0.0, 1.0, 4.0, 2.0])
    expected = graded_ndcg_at_k(scores, gains, 3)
    for unit in (1e-300, 1e307):
        assert graded_ndcg_at_k(scores, gains * unit, 3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", [hit_rate_at_k, average_precision_at_k])
def test_bad_rankings_are_refused(metric: Callable[[Scores, Hits, int], float]) -> None:
    scores, relevant = np.array([1.0, 0.0]), np.array([True, False])
    with pytest.raises(ConfigError, match="k must be at least 1; found 0"):
        metric(scores, relevant, 0)
    with pytest.raises(ShapeError, match=r"relevant \(1,\) must have the shape of scores \(2,\)"):
        metric(scores, relevant[:1], 1)
    with pytest.raises(DataError, match="relevant must be bool"):
        metric(scores, scores, 1)
    with pytest.raises(DataError, match="score 1 is NaN"):
        metric(np.array([1.0, math.nan]), relevant, 1)


def test_bad_gains_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"gains \(1,\) must have the shape of scores \(2,\)"):
        graded_ndcg_at_k(np.zeros(2), np.zeros(1), 1)
    for gain in (-1.0, math.nan, math.inf):
        with pytest.raises(DataError, match="gains must be finite and not below 0"):
            graded_ndcg_at_k(np.zeros(2), np.array([1.0, gain]), 1)
    with pytest.raises(ConfigError, match="k must be at least 1"):
        graded_ndcg_at_k(np.zeros(2), np.zeros(2), 0)


def test_top_k_equals_a_plain_sort_whatever_the_block() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        shape = (int(rng.integers(0, 6)), int(rng.integers(0, 12)))
        scores = np.where(rng.random(shape) < 0.1, -np.inf, rng.integers(0, 4, shape).astype(float))
        allowed, k = rng.random(shape) < 0.7, int(rng.integers(1, 14))
        plain = np.full((shape[0], k), -1, dtype=np.int64)
        for user, row in enumerate(scores):
            columns = [
                column
                for column in range(shape[1])
                if allowed[user, column] and row[column] > -np.inf
            ]
            best = sorted(columns, key=lambda column: (-row[column], column))[:k]
            plain[user, : len(best)] = best
        np.testing.assert_array_equal(top_k(scores, k, allowed), plain)
        np.testing.assert_array_equal(top_k(np.where(allowed, scores, -np.inf), k), plain)
        offered = np.where(allowed, scores, -np.inf)
        for block in (1, 2, 9):
            blocked = top_k_blocked(lambda rows: offered[rows], len(scores), k, block)  # noqa: B023
            np.testing.assert_array_equal(blocked, plain)


def test_only_one_block_of_scores_is_asked_for_at_a_time() -> None:
    asked: list[tuple[int, int]] = []

    def score_block(rows: slice) -> Scores:
        asked.append((rows.start, rows.stop))
        return np.zeros((rows.stop - rows.start, 3))

    assert top_k_blocked(score_block, 5, 1, block=2).tolist() == [[0]] * 5
    assert asked == [(0, 2), (2, 4), (4, 5)]


def test_a_score_of_nan_counts_only_where_it_is_allowed() -> None:
    scores = np.array([[0.0, 1.0], [math.nan, 1.0]])
    assert top_k(scores, 2, ~np.isnan(scores)).tolist() == [[1, 0], [1, -1]]
    with pytest.raises(DataError, match="user 1: score 0 is NaN"):
        top_k(scores, 2)


def test_bad_scores_for_lists_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"scores \(2,\) must be \(users, items\)"):
        top_k(np.zeros(2), 1)
    with pytest.raises(ShapeError, match=r"allowed \(2, 2\) must be"):
        top_k(np.zeros((2, 3)), 1, np.ones((2, 2), dtype=bool))
    with pytest.raises(DataError, match="allowed must be bool"):
        top_k(np.zeros((2, 3)), 1, np.ones((2, 3)))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="k must be at least 1"):
        top_k(np.zeros((2, 3)), 0)
    with pytest.raises(ConfigError, match="block must be at least 1; found 0"):
        top_k_blocked(lambda _: np.zeros((1, 1)), 1, 1, 0)
    with pytest.raises(ShapeError, match=r"gave \(1, 3\) for users 0 to 1"):
        top_k_blocked(lambda _: np.zeros((1, 3)), 2, 1, 2)


def test_what_lists_hold_equals_the_numbers_worked_out_by_hand() -> None:
    """Lists [0, 2], [2, -], [-, -] over 4 items played 10, 20, 40, 80 times.

    coverage: items 0 and 2 of 4.  popularity: (10 + 40) / 2, 40, nothing.
    artists 5, 6, unknown, 6; seeds by 5, by the unknown, by 6: one of two, none of one, nothing.
    """
    shown = np.array([[0, 2], [2, -1], [-1, -1]])
    assert coverage(shown, 4) == 0.5
    np.testing.assert_array_equal(
        mean_popularity(shown, np.array([10, 20, 40, 80])), [25, 40, math.nan]
    )
    shares = same_artist_share(shown, np.array([5, 6, -1, 6]), [{5}, {-1}, {6}])
    np.testing.assert_array_equal(shares, [0.5, 0.0, math.nan])


def test_hubness_equals_the_number_worked_out_by_hand() -> None:
    """Every one of 4 items names item 0, which names 1: N = 3, 1, 0, 0, mean 1, deviations 2, 0,
    -1, -1.

    third moment (8 - 1 - 1) / 4 = 1.5, second (4 + 1 + 1) / 4 = 1.5: 1.5 / 1.5 ** 1.5 =
    0.8164965809.
    """
    assert hubness(np.array([[1], [0], [0], [0]]), 4) == pytest.approx(1.5**-0.5, abs=1e-15)
    assert hubness(np.array([[1], [2], [3], [0]]), 4) == 0.0


def test_bad_lists_are_refused() -> None:
    for found in (-2, 4):
        with pytest.raises(DataError, match=f"listed id {found} is not one of the 4 items"):
            coverage(np.array([[0, found]]), 4)
    with pytest.raises(ShapeError, match=r"lists must be \(users, k\); found \(2,\)"):
        hubness(np.array([0, 1]), 4)
    with pytest.raises(ConfigError, match="n_items must be at least 1; found 0"):
        coverage(np.array([[-1]]), 0)
    with pytest.raises(
        ShapeError, match=r"counts must hold one number an item, \(n,\); found \(1, 4\)"
    ):
        mean_popularity(np.array([[0]]), np.zeros((1, 4)))
    with pytest.raises(ShapeError, match="artist_numbers must hold one number an item"):
        same_artist_share(np.array([[0]]), np.zeros((1, 4), dtype=int), [set()])
    with pytest.raises(ShapeError, match="2 sets of seeds' artists for 1 lists"):
        same_artist_share(np.array([[0]]), np.zeros(4, dtype=int), [set(), set()])


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(lists).failed == 0
