"""List metrics against numbers worked out by hand, every order of small rankings, plain loops and
scikit-learn.
"""

import doctest
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, ndcg_score

from ponticello.errors import DataError
from ponticello.metrics import beyond_accuracy as lists
from ponticello.metrics import ranking
from ponticello.metrics.beyond_accuracy import (
    coverage,
    graded_ndcg_at_k,
    hubness,
    mean_popularity,
    same_artist_share,
    top_k,
)
from ponticello.metrics.ranking import hit_groups

Scores = NDArray[np.float64]
Hits = NDArray[np.bool_]


def average_precision(scores: Scores, relevant: Hits) -> float:
    return lists.average_precision(hit_groups(scores, relevant))


def average_precision_at_k(scores: Scores, relevant: Hits, k: int) -> float:
    return ranking.average_precision_at_k(hit_groups(scores, relevant), k)


def hit_rate_at_k(scores: Scores, relevant: Hits, k: int) -> float:
    return ranking.hit_rate(hit_groups(scores, relevant), k)


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


def test_top_k_equals_a_plain_sort() -> None:
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
        np.testing.assert_array_equal(top_k(np.where(allowed, scores, -np.inf), k), plain)


def test_a_score_of_nan_has_no_rank() -> None:
    with pytest.raises(DataError, match="user 1: score 0 is NaN"):
        top_k(np.array([[0.0, 1.0], [math.nan, 1.0]]), 2)


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


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(lists).failed == 0
