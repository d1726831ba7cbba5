"""Metrics against numbers worked out by hand, every order of small rankings, and scikit-learn."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.metrics import ndcg_score, roc_auc_score

from ponticello.errors import DataError, ShapeError
from ponticello.metrics import ranking as metrics
from ponticello.metrics.ranking import hit_groups, retrieval_ranks

Case = tuple[NDArray[np.float64], NDArray[np.bool_]]
cases = st.lists(
    st.tuples(st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()), min_size=1, max_size=30
)


def recall_at_k(scores: NDArray[Any], relevant: NDArray[np.bool_], k: int) -> float:
    return metrics.recall(hit_groups(scores, relevant), k)


def ndcg_at_k(scores: NDArray[Any], relevant: NDArray[np.bool_], k: int) -> float:
    return metrics.ndcg(hit_groups(scores, relevant), k)


def reciprocal_rank(scores: NDArray[Any], relevant: NDArray[np.bool_]) -> float:
    return metrics.reciprocal_rank(hit_groups(scores, relevant))


def auc(scores: NDArray[Any], relevant: NDArray[np.bool_]) -> float:
    return metrics.auc(hit_groups(scores, relevant))


def _case(*rows: tuple[float, bool]) -> Case:
    return np.array([score for score, _ in rows]), np.array([hit for _, hit in rows], dtype=bool)


def _orders(scores: NDArray[np.float64], relevant: NDArray[np.bool_]) -> list[list[bool]]:
    """The hits and misses, best first, of every order that respects the scores."""
    orders = itertools.permutations(range(len(scores)))
    respecting = [
        o for o in orders if all(scores[a] >= scores[b] for a, b in itertools.pairwise(o))
    ]
    return [relevant[list(o)].tolist() for o in respecting]


def _plain_recall(hits: list[bool], k: int) -> float:
    return sum(hits[:k]) / min(k, sum(hits))


def test_metrics_without_ties_equal_the_ones_worked_out_by_hand() -> None:
    """Order by score: b (hit), a, d (hit), c (hit).

    recall@2: 1 hit of min(2, 3) = 1/2.  ndcg@2: (1/log2 2) / (1/log2 2 + 1/log2 3) = 1 /
    1.6309297536. reciprocal rank 1.  auc: of the pairs (hit, a), only b is above a: 1/3.
    """
    scores, relevant = _case((0.8, False), (0.9, True), (0.1, True), (0.5, True))
    assert recall_at_k(scores, relevant, 2) == 0.5
    assert ndcg_at_k(scores, relevant, 2) == pytest.approx(1 / (1 + 1 / math.log2(3)), abs=1e-15)
    assert reciprocal_rank(scores, relevant) == 1.0
    assert auc(scores, relevant) == pytest.approx(1 / 3, abs=1e-15)


def test_metrics_with_ties_equal_the_ones_worked_out_by_hand() -> None:
    """One miss above a tie of three with one hit.

    The hit is at rank 2, 3 or 4, a third each. recall@2: 1/3.  rr: (1/2 + 1/3 + 1/4) / 3 = 13/36.
    ndcg@2: (1/log2 3) / 3.  auc: below 1, level with 2 misses: (0 + 1/2 + 1/2) / 3 = 1/3.
    """
    scores, relevant = _case((2.0, False), (1.0, False), (1.0, True), (1.0, False))
    assert recall_at_k(scores, relevant, 2) == pytest.approx(1 / 3, abs=1e-15)
    assert reciprocal_rank(scores, relevant) == pytest.approx(13 / 36, abs=1e-15)
    assert ndcg_at_k(scores, relevant, 2) == pytest.approx(1 / math.log2(3) / 3, abs=1e-15)
    assert auc(scores, relevant) == pytest.approx(1 / 3, abs=1e-15)


def test_recall_and_reciprocal_rank_are_the_mean_over_every_order() -> None:
    rng = np.random.default_rng(0)
    for _ in range(1000):
        n = int(rng.integers(1, 7))
        scores, relevant = rng.integers(0, 3, n).astype(float), rng.random(n) < 0.5
        if not relevant.any():
            continue
        orders = _orders(scores, relevant)
        for k in (1, 2, 4, 7):
            recall = sum(_plain_recall(hits, k) for hits in orders) / len(orders)
            assert recall_at_k(scores, relevant, k) == pytest.approx(recall, abs=1e-12)
        first = sum(1 / (hits.index(True) + 1) for hits in orders) / len(orders)
        assert reciprocal_rank(scores, relevant) == pytest.approx(first, abs=1e-12)


def test_ndcg_and_auc_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    for _ in range(1000):
        n, levels = int(rng.integers(2, 40)), int(rng.integers(1, 12))
        scores, relevant = rng.integers(0, levels, n).astype(float), rng.random(n) < 0.4
        relevant[:2] = True, False
        k = int(rng.integers(1, 50))
        assert ndcg_at_k(scores, relevant, k) == pytest.approx(
            ndcg_score(relevant[None].astype(int), scores[None], k=k, ignore_ties=False), abs=1e-12
        )
        assert auc(scores, relevant) == pytest.approx(roc_auc_score(relevant, scores), abs=1e-12)


def test_reciprocal_rank_of_a_large_tie_stays_exact() -> None:
    """One hit among N equals: the mean of 1/1 .. 1/N. All but one: 1 - 1/N at rank 1, else rank 2:
    1 - 1/(2N).
    """
    n = 100_000
    scores, one = np.zeros(n), np.arange(n) == 7
    assert reciprocal_rank(scores, one) == pytest.approx(
        math.fsum(1 / i for i in range(1, n + 1)) / n, rel=1e-12
    )
    assert reciprocal_rank(scores, ~one) == pytest.approx(1 - 1 / (2 * n), rel=1e-12)


@given(cases, st.integers(1, 40), st.randoms(use_true_random=False))
def test_row_order_changes_nothing(rows: list[tuple[float, bool]], k: int, random: object) -> None:
    shuffled = list(rows)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for metric in (
        lambda s, r: recall_at_k(s, r, k),
        lambda s, r: ndcg_at_k(s, r, k),
        reciprocal_rank,
        auc,
    ):
        np.testing.assert_equal(metric(*_case(*rows)), metric(*_case(*shuffled)))


@given(cases, st.integers(1, 40))
def test_metrics_lie_between_0_and_1_or_are_nan(rows: list[tuple[float, bool]], k: int) -> None:
    scores, relevant = _case(*rows)
    for value in (
        recall_at_k(scores, relevant, k),
        ndcg_at_k(scores, relevant, k),
        reciprocal_rank(scores, relevant),
    ):
        assert math.isnan(value) if not relevant.any() else 0 <= value <= 1 + 1e-12


@pytest.mark.parametrize("n", [0, 3])
def test_a_query_with_nothing_relevant_is_nan(n: int) -> None:
    scores, relevant = np.arange(float(n)), np.zeros(n, dtype=bool)
    assert math.isnan(recall_at_k(scores, relevant, 2))
    assert math.isnan(ndcg_at_k(scores, relevant, 2))
    assert math.isnan(reciprocal_rank(scores, relevant))
    assert math.isnan(auc(scores, relevant))


def test_a_query_with_everything_relevant_is_perfect_and_has_no_auc() -> None:
    scores, relevant = np.array([1.0, 1.0, 0.0]), np.ones(3, dtype=bool)
    assert recall_at_k(scores, relevant, 10) == 1.0
    assert ndcg_at_k(scores, relevant, 10) == pytest.approx(1.0, abs=1e-15)
    assert reciprocal_rank(scores, relevant) == 1.0
    assert math.isnan(auc(scores, relevant))


def test_infinite_scores_rank_first_and_last() -> None:
    scores, relevant = _case((-np.inf, False), (0.0, True), (np.inf, False))
    assert reciprocal_rank(scores, relevant) == 0.5


def test_retrieval_ranks_count_a_tie_as_half() -> None:
    """Query (1, 0) scores items 1, 0.6, 0.6, 0: ranks 1, 2.5, 2.5, 4."""
    items = np.array([[1, 0], [0.6, 0.8], [0.6, -0.8], [0, 1]], dtype=np.float32)
    queries = np.repeat(np.array([[1, 0]], dtype=np.float32), 4, axis=0)
    assert retrieval_ranks(queries, items, np.arange(4)).tolist() == [1.0, 2.5, 2.5, 4.0]


def test_retrieval_in_blocks_equals_sorting_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    queries, items, target = (
        rng.normal(size=(23, 6)),
        rng.normal(size=(40, 6)),
        rng.integers(0, 40, 23),
    )
    scores = queries @ items.T
    plain = [1 + int((row > row[t]).sum()) for row, t in zip(scores, target, strict=True)]
    monkeypatch.setattr(metrics, "BLOCK_SCORES", 100)  # two queries at a time
    assert retrieval_ranks(queries, items, target).tolist() == plain


def test_copies_of_an_item_share_their_rank() -> None:
    """Seven copies of the one target: 1 + 6/2."""
    rng = np.random.default_rng(4)
    items = np.repeat(rng.normal(size=(1, 101)), 7, axis=0)
    ranks = retrieval_ranks(rng.normal(size=(50, 101)), items, rng.integers(0, 7, 50))
    assert (ranks == 4.0).all()


def test_no_query_has_no_rank() -> None:
    assert retrieval_ranks(np.empty((0, 3)), np.empty((0, 3)), np.empty(0, dtype=int)).shape == (0,)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: auc(np.array([1.0, np.nan]), np.ones(2, bool)), DataError, "score 1 is NaN"),
        (lambda: auc(np.ones(2), np.ones(3, bool)), ShapeError, "relevant .3,. must both be"),
        (lambda: auc(np.ones((2, 2)), np.ones((2, 2), bool)), ShapeError, "scores .2, 2."),
        (
            lambda: auc(np.ones(2), np.ones(2)),  # type: ignore[arg-type]
            DataError,
            "must be bool, one for each score; found float64",
        ),
        (
            lambda: retrieval_ranks(np.ones((1, 1)), np.full((1, 1), np.nan), np.array([0])),
            DataError,
            "items hold NaN",
        ),
    ],
)
def test_bad_input_is_refused_by_name(
    call: Callable[[], object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def test_terms_of_ndcg_are_worked_out_by_hand() -> None:
    """Hits at ranks 1 and 4: what they add, and what they would add at ranks 1 and 2."""
    scores = np.array([4.0, 3.0, 2.0, 1.0])
    relevant = np.array([True, False, False, True])
    terms = metrics.metric_terms(hit_groups(scores, relevant), 10)["NDCG@10"]
    np.testing.assert_allclose(terms.gains, [1.0, 1 / math.log2(5)])
    np.testing.assert_allclose(terms.ideals, [1.0, 1 / math.log2(3)])


@pytest.mark.parametrize("k", [1, 3, 40])
def test_every_hit_of_a_perfect_ranking_adds_its_ideal(k: int) -> None:
    """So drawing other hits leaves a perfect ranking at 1."""
    scores = np.arange(9.0, 0.0, -1.0)
    groups = hit_groups(scores, scores > 5)
    for terms in metrics.metric_terms(groups, k).values():
        np.testing.assert_allclose(terms.gains, terms.ideals)
        assert terms.value == 1.0


@given(cases)
def test_no_hit_adds_more_than_its_ideal_and_the_rest_of_its_tie(case: list[Any]) -> None:
    scores = np.array([score for score, _ in case])
    relevant = np.array([is_relevant for _, is_relevant in case])
    groups = hit_groups(scores, relevant)
    for name, terms in metrics.metric_terms(groups, 5).items():
        assert terms.gains.shape == terms.ideals.shape == groups.hits.shape
        if name != "MAP@5":  # a precision may make up for what an earlier hit lost
            assert (np.cumsum(terms.gains) <= np.cumsum(terms.ideals) + 1e-9).all()
