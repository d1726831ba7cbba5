"""Metrics of lists, spaces and retrieval against slow plain ones, 1,000 random cases each, ties and
empties among them.

The ranking metrics of a query stand in test_metrics.py and test_lists.py, against scikit-learn and
every order.
"""

import math
from collections import Counter

import numpy as np
import pytest
from scipy.stats import skew

from ponticello.metrics.beyond_accuracy import (
    EMPTY,
    coverage,
    hubness,
    mean_popularity,
    same_artist_share,
    top_k,
)
from ponticello.metrics.embedding_space import alignment, modality_gap, neighbour_overlap
from ponticello.metrics.ranking import retrieval_ranks

N_CASES = 1000


def _unit(generator: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Unit rows out of few directions, so that many cosines tie."""
    choices = np.concatenate([np.eye(d), -np.eye(d), np.full((1, d), 1 / math.sqrt(d))])
    return choices[generator.integers(len(choices), size=n)]


def test_retrieval_ranks() -> None:
    generator = np.random.default_rng(0)
    for _ in range(N_CASES):
        n, m, d = (int(number) for number in generator.integers((0, 1, 1), (9, 12, 4)))
        queries, items = _unit(generator, n, d), _unit(generator, m, d)
        target = generator.integers(m, size=n)
        plain = []
        for query, wanted in zip(queries, target, strict=True):
            cosines = [
                round(sum(a * b for a, b in zip(query, item, strict=True)), 9) for item in items
            ]
            above = sum(cosine > cosines[wanted] for cosine in cosines)
            plain.append(1 + above + (sum(cosine == cosines[wanted] for cosine in cosines) - 1) / 2)
        assert retrieval_ranks(queries, items, target).tolist() == plain


def test_what_lists_hold() -> None:
    generator = np.random.default_rng(1)
    for _ in range(N_CASES):
        n_users, n, k = (int(number) for number in generator.integers((1, 1, 1), (8, 12, 6)))
        scores, allowed = (
            generator.integers(0, 4, (n_users, n)).astype(float),
            generator.random((n_users, n)) < 0.6,
        )
        lists = top_k(np.where(allowed, scores, -np.inf), k)
        plain = []
        for row, may in zip(scores, allowed, strict=True):
            best = [i for i in np.lexsort((np.arange(n), -row)).tolist() if may[i]][:k]
            plain.append(best + [EMPTY] * (k - len(best)))
        assert lists.tolist() == plain
        shown = [[i for i in row if i != EMPTY] for row in plain]
        counts, artists = generator.integers(0, 50, n), generator.integers(-1, 3, n)
        own = [set(generator.integers(-1, 3, 2).tolist()) for _ in range(n_users)]
        assert coverage(lists, n) == pytest.approx(
            len({i for row in shown for i in row}) / n, abs=1e-12
        )
        plays = [sum(int(counts[i]) for i in row) / len(row) if row else math.nan for row in shown]
        np.testing.assert_allclose(mean_popularity(lists, counts), plays, rtol=0, atol=1e-12)
        share = [
            sum(artists[i] in seeds - {EMPTY} for i in row) / len(row) if row else math.nan
            for row, seeds in zip(shown, own, strict=True)
        ]
        np.testing.assert_allclose(
            same_artist_share(lists, artists, own), share, rtol=0, atol=1e-12
        )
        times = Counter(i for row in shown for i in row)
        often = [times[i] for i in range(n)]
        expected = float(skew(often)) if len(set(often)) > 1 else 0.0
        assert hubness(lists, n) == pytest.approx(expected, abs=1e-12)


def test_alignment_and_gap() -> None:
    generator = np.random.default_rng(2)
    for _ in range(N_CASES):
        n, d = (int(number) for number in generator.integers((1, 1), (8, 5)))
        left, right = _unit(generator, n, d), _unit(generator, n, d)
        squares = [
            sum((a - b) ** 2 for a, b in zip(x, y, strict=True))
            for x, y in zip(left, right, strict=True)
        ]
        assert alignment(left, right) == pytest.approx(math.fsum(squares) / n, abs=1e-12)
        means = [[math.fsum(column) / n for column in side.T] for side in (left, right)]
        gap = math.sqrt(math.fsum((a - b) ** 2 for a, b in zip(*means, strict=True)))
        assert modality_gap(left, right) == pytest.approx(gap, abs=1e-12)


def test_neighbour_overlap() -> None:
    generator = np.random.default_rng(3)
    for _ in range(N_CASES):
        n, d = (int(number) for number in generator.integers((2, 1), (9, 4)))
        k = int(generator.integers(1, n))
        before, after = _unit(generator, n, d), _unit(generator, n, d)
        plain = []
        for row in range(n):
            near = []
            for side in (before, after):
                cosines = np.round(side @ side[row], 9)
                others = [i for i in np.lexsort((np.arange(n), -cosines)).tolist() if i != row]
                near.append(set(others[:k]))
            plain.append(len(near[0] & near[1]) / k)
        np.testing.assert_allclose(neighbour_overlap(before, after, k), plain, rtol=0, atol=1e-12)
