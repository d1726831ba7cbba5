"""Ranking and retrieval metrics, with ties counted by their expected value.

A metric is its expected value under a uniformly random order among equal scores, so the order of
rows never matters, and equal scores get what chance would give. A query without relevant items
gives nan and does not count.

`group_ties` sorts a query's scores once; all metrics, also of a subset of the relevant items, are
then computed from the groups. The cut-off k is at least 1 and may exceed the number of items.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ponticello.errors import DataError, ShapeError

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]

BLOCK_SCORES = 2**22  # scores held at once by retrieval_ranks: 32 MB of float64
# of |query| x |item|: above rounding of sums in another order, far below differences that matter
SAME_SCORE = 1e-12


@dataclass(frozen=True)
class TieGroups:
    """The groups of equal scores that hold a relevant item of one query, best first.

    n_items: number of ranked items. before, size, hits: (groups,) int, the number of items with a
    higher score, of items with that score, and of relevant ones among them.
    """

    n_items: int
    before: NDArray[np.int64]
    size: NDArray[np.int64]
    hits: NDArray[np.int64]

    @property
    def n_relevant(self) -> int:
        """The number of relevant items."""
        return int(self.hits.sum())


def group_ties(scores: Floats, hit_scores: Floats) -> TieGroups:
    """Returns the groups of one query.

    scores: (n,) of all ranked items; hit_scores: (r,) of the relevant ones among them. DataError
    for a NaN, which has no rank. Cost: one sort of n.
    """
    ordered = np.sort(scores)
    if len(ordered) and np.isnan(ordered[-1]):  # NaN sorts last
        raise DataError(
            f"score {int(np.isnan(scores).argmax())} is NaN and has no rank; leave that item out"
        )
    values, hits = np.unique(hit_scores, return_counts=True)
    values = values[::-1]
    hits = hits[::-1]
    not_above = np.asarray(np.searchsorted(ordered, values, side="right"))
    size = not_above - np.asarray(np.searchsorted(ordered, values, side="left"))
    return TieGroups(len(ordered), np.asarray(len(ordered) - not_above), size, hits)


def hit_groups(scores: Floats, relevant: Bools) -> TieGroups:
    """Returns the groups of one query. scores: (n,); relevant: (n,) bool, or ShapeError, DataError.

    >>> recall(hit_groups(np.array([0.9, 0.5, 0.1]), np.array([True, False, True])), k=2)
    0.5
    """
    if scores.ndim != 1 or relevant.shape != scores.shape:
        raise ShapeError(f"scores {scores.shape} and relevant {relevant.shape} must both be (n,)")
    if relevant.dtype != np.bool_:
        raise DataError(f"relevant must be bool, one for each score; found {relevant.dtype}")
    return group_ties(scores, scores[relevant])


@dataclass(frozen=True)
class MetricTerms:
    """What each group of hits adds to a metric, and what it would add in a perfect ranking.

    gains, ideals: (groups,); the metric is the sum of the one over that of the other. The
    first group, of the best scores, would be the first hits of the perfect ranking, and so on.
    """

    gains: Floats
    ideals: Floats

    @property
    def value(self) -> float:
        """The metric; nan without relevant items, or where no ranking can gain anything."""
        total = float(self.ideals.sum())
        return float(self.gains.sum()) / total if total else float("nan")


def metric_terms(groups: TieGroups, k: int) -> dict[str, MetricTerms]:
    """Returns the terms of every ranking metric of one query, by name."""
    return {
        f"NDCG@{k}": _ndcg_terms(groups, k),
        f"Recall@{k}": _recall_terms(groups, k),
        f"HitRate@{k}": _first_group_terms(groups, _hit_chance(groups, k)),
        f"MAP@{k}": _precision_terms(groups, k),
        "MRR": _first_group_terms(groups, _reciprocal_rank(groups)),
        "AUC": _auc_terms(groups),
    }


def all_metrics(groups: TieGroups, k: int) -> dict[str, float]:
    """Returns every ranking metric of one query, by name."""
    return {name: terms.value for name, terms in metric_terms(groups, k).items()}


def recall(groups: TieGroups, k: int) -> float:
    """Returns the expected hits in the first k, divided by min(k, number of relevant items)."""
    return _recall_terms(groups, k).value


def _recall_terms(groups: TieGroups, k: int) -> MetricTerms:
    n_in_top = np.clip(k - groups.before, 0, groups.size)  # positions of the first k, by group
    return MetricTerms(groups.hits * n_in_top / groups.size, _ideal_hits(groups, k))


def _ideal_hits(groups: TieGroups, k: int) -> NDArray[np.float64]:
    """Returns (groups,), how many of each group's hits a perfect ranking has in the first k."""
    last = np.minimum(np.cumsum(groups.hits), k)
    return np.diff(last, prepend=0).astype(np.float64)


def ndcg(groups: TieGroups, k: int) -> float:
    """Returns the normalised discounted cumulative gain of the first k; each hit counts 1.

    Position i, from 1, has the discount 1 / log2(i + 1); tied items share their mean discount.
    Source: Järvelin and Kekäläinen 2002; McSherry and Najork 2008 for ties, as in scikit-learn.
    """
    return _ndcg_terms(groups, k).value


def _ndcg_terms(groups: TieGroups, k: int) -> MetricTerms:
    k = min(k, groups.n_items)
    discounts = np.r_[0.0, np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))]  # sums of the first 0..k
    first = np.minimum(groups.before, k)
    end = np.minimum(groups.before + groups.size, k)
    gains = groups.hits * (discounts[end] - discounts[first]) / groups.size
    ideals = np.diff(discounts[np.minimum(np.cumsum(groups.hits), k)], prepend=0.0)
    return MetricTerms(gains, ideals)


def reciprocal_rank(groups: TieGroups) -> float:
    """Returns the expected 1 / rank of the first relevant item."""
    return _first_group_terms(groups, _reciprocal_rank(groups)).value


def _first_group_terms(groups: TieGroups, value: float) -> MetricTerms:
    """Returns the terms of a metric that the first group of hits decides alone."""
    is_first = (np.arange(len(groups.hits)) == 0).astype(np.float64)
    return MetricTerms(value * is_first, is_first)


def _reciprocal_rank(groups: TieGroups) -> float:
    """Returns the expected 1 / rank of the first hit; 0 without one.

    The first hit is in the first group, at position j of its s positions and r hits with p(j):
    p(1) = r / s and p(j + 1) / p(j) = (s - r - j + 1) / (s - j), the negative hypergeometric
    distribution; a product of factors in [0, 1] cannot overflow as binomials would.
    """
    if not groups.n_relevant:
        return 0.0
    before = int(groups.before[0])
    size = int(groups.size[0])
    hits = int(groups.hits[0])
    j = np.arange(1, size - hits + 1, dtype=np.float64)
    probabilities = np.cumprod(np.r_[hits / size, (size - hits - j + 1) / (size - j)])
    return float((probabilities / (before + np.arange(1, len(probabilities) + 1))).sum())


def auc(groups: TieGroups) -> float:
    """Returns the chance that a random relevant item outscores a random irrelevant one.

    A tie counts half. nan if no or every item is relevant.
    """
    return _auc_terms(groups).value


def _auc_terms(groups: TieGroups) -> MetricTerms:
    n_irrelevant = groups.n_items - groups.n_relevant
    n_above = groups.before - (np.cumsum(groups.hits) - groups.hits)  # irrelevant, higher scores
    n_tied = groups.size - groups.hits
    n_below = n_irrelevant - n_above - n_tied / 2
    return MetricTerms(groups.hits * n_below, 1.0 * groups.hits * n_irrelevant)


def hit_rate(groups: TieGroups, k: int) -> float:
    """Returns the chance that one of the first k items is relevant; misses are hypergeometric."""
    return _first_group_terms(groups, _hit_chance(groups, k)).value


def _hit_chance(groups: TieGroups, k: int) -> float:
    if not groups.n_relevant:
        return 0.0
    size = int(groups.size[0])
    hits = int(groups.hits[0])
    n_in_top = min(max(0, k - int(groups.before[0])), size)
    if n_in_top == 0 or n_in_top > size - hits:
        return float(n_in_top > 0)
    # C(size - hits, n_in_top) / C(size, n_in_top) is symmetric in hits and n_in_top.
    fewer, more = sorted((n_in_top, hits))
    return float(-np.expm1(np.log1p(-more / (size - np.arange(fewer))).sum()))


def average_precision_at_k(groups: TieGroups, k: int) -> float:
    """Returns the expected precision at each hit in the first k, summed, over min(k, hits in all).

    A perfect ranking gets 1.0 for any k; other definitions divide by the number of relevant items.
    Source: McSherry and Najork 2008, average precision with ties, cut at k.
    """
    return _precision_terms(groups, k).value


def _precision_terms(groups: TieGroups, k: int) -> MetricTerms:
    n_in_top = np.clip(k - groups.before, 0, groups.size)  # positions of the first k, by group
    group = np.repeat(np.arange(len(n_in_top)), n_in_top)
    group_starts = np.repeat(np.cumsum(n_in_top) - n_in_top, n_in_top)
    within = np.arange(len(group)) - group_starts  # from 0 in each group
    size = groups.size[group]
    hits = groups.hits[group]
    hits_above = (np.cumsum(groups.hits) - groups.hits)[group]
    tied_hits = within * (hits - 1) / np.maximum(size - 1, 1)  # expected before, in the same tie
    positions = groups.before[group] + within + 1
    precision = (hits_above + tied_hits + 1) / positions  # expected, if the item is a hit
    gains = np.bincount(group, hits / size * precision, minlength=len(n_in_top))
    return MetricTerms(1.0 * gains, _ideal_hits(groups, k))


def restrict_to(groups: TieGroups, hit_scores: Floats, is_member: Bools) -> TieGroups:
    """Returns `groups` without the relevant items that are not members.

    hit_scores: (r,) as given to `group_ties`; is_member: (r,).
    """
    group_of_hit = np.unique(-hit_scores, return_inverse=True)[1]  # best first
    kept = np.bincount(group_of_hit[is_member], minlength=len(groups.hits))
    removed = groups.hits - kept
    before = groups.before - (np.cumsum(removed) - removed)
    size = groups.size - removed
    has_hits = kept > 0
    n_items = groups.n_items - int(removed.sum())
    return TieGroups(n_items, before[has_hits], size[has_hits], kept[has_hits])


def metric_columns(rows: list[dict[str, float]]) -> dict[str, NDArray[np.float64]]:
    """Returns the metrics of all queries by name, (n,) each, from those of each query."""
    return {column.name: column.to_numpy() for column in pl.DataFrame(rows)}


def retrieval_ranks(queries: Floats, items: Floats, target: Ints) -> Floats:
    """Returns (n,) float64, the expected rank, from 1, of each query's target by dot product.

    queries: (n, d); items: (m, d), both finite, or DataError. target: (n,) int in [0, m). A tied
    item counts half; scores are tied if they differ by no more than float64 rounding.
    Cost: n x m x d, with at most 32 MB of scores held at once, or one row of m.
    """
    for name, vectors in (("queries", queries), ("items", items)):
        if not np.isfinite(vectors).all():
            raise DataError(f"{name} hold NaN or infinity; embed them again")
    items = items.astype(np.float64)
    queries = queries.astype(np.float64)
    longest = float(np.sqrt((items**2).sum(axis=1).max(initial=0.0)))
    ranks = np.empty(len(queries))
    step = max(1, BLOCK_SCORES // max(1, len(items)))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        scores = queries[block] @ items.T  # (block, m)
        target_scores = np.take_along_axis(scores, target[block, None], axis=1)
        slack = SAME_SCORE * longest * np.linalg.norm(queries[block], axis=1, keepdims=True)
        n_above = (scores > target_scores + slack).sum(axis=1)
        n_tied = (scores >= target_scores - slack).sum(axis=1) - n_above - 1  # without the target
        ranks[block] = 1 + n_above + n_tied / 2
    return ranks
