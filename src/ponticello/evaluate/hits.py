"""Where a query's hits stand among equal scores, and every ranking metric drawn from that.

A metric is its expected value under a uniformly random order among equal scores; nan if nothing is relevant. A query is
placed with one sort; its metrics, also those of a part of its hits, then cost next to nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import DataError


@dataclass(frozen=True)
class HitGroups:
    """Where a query's relevant items stand: the groups of equal score that hold at least one, best first.

    before, size, hits: (groups,) int: ranked items that score higher, items of that score, relevant ones among them.
    """

    n_items: int  # ranked altogether
    before: NDArray[np.int64]
    size: NDArray[np.int64]
    hits: NDArray[np.int64]

    @property
    def n_relevant(self) -> int:
        """How many hits there are in all."""
        return int(self.hits.sum())


def place_hits(scores: NDArray[np.floating[Any]], hit_scores: NDArray[np.floating[Any]]) -> HitGroups:
    """The groups of one query. scores: (n,) of all ranked items; hit_scores: (r,) of the relevant ones among them.

    DataError for a NaN, which has no rank. Cost: one sort of n.
    """
    ordered = np.sort(scores)
    if len(ordered) and np.isnan(ordered[-1]):  # NaN sorts last
        raise DataError(f"score {int(np.isnan(scores).argmax())} is NaN and has no rank; leave that item out")
    values, hits = np.unique(hit_scores, return_counts=True)
    values, hits = values[::-1], hits[::-1]
    not_above = np.asarray(np.searchsorted(ordered, values, side="right"))
    size = not_above - np.asarray(np.searchsorted(ordered, values, side="left"))
    return HitGroups(len(ordered), np.asarray(len(ordered) - not_above), size, hits)


def recall_of(groups: HitGroups, k: int) -> float:
    """`recall_at_k` of placed hits."""
    if not groups.n_relevant:
        return float("nan")
    places = np.clip(k - groups.before, 0, groups.size)  # of the first k, those this group fills
    return float((groups.hits * places / groups.size).sum() / min(k, groups.n_relevant))


def ndcg_of(groups: HitGroups, k: int) -> float:
    """`ndcg_at_k` of placed hits."""
    if not groups.n_relevant:
        return float("nan")
    k = min(k, groups.n_items)
    worth = np.r_[0.0, np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))]  # of the first 0 to k places
    first, past = np.minimum(groups.before, k), np.minimum(groups.before + groups.size, k)
    return float((groups.hits * (worth[past] - worth[first]) / groups.size).sum() / worth[min(k, groups.n_relevant)])


def reciprocal_rank_of(groups: HitGroups, k: int | None) -> float:
    """`reciprocal_rank` of placed hits.

    The first hit lies in the first group, at place j of its s places and r hits with p(j):
    p(1) = r / s and p(j + 1) / p(j) = (s - r - j + 1) / (s - j), the negative hypergeometric distribution; a product of
    factors in [0, 1] cannot overflow as binomials would.
    """
    if not groups.n_relevant:
        return float("nan")
    before, size, hits = int(groups.before[0]), int(groups.size[0]), int(groups.hits[0])
    j = np.arange(1, size - hits + 1, dtype=np.float64)
    chance = np.cumprod(np.r_[hits / size, (size - hits - j + 1) / (size - j)])
    return float((chance / (before + np.arange(1, len(chance) + 1)))[: None if k is None else max(0, k - before)].sum())


def auc_of(groups: HitGroups) -> float:
    """`auc` of placed hits."""
    n_others = groups.n_items - groups.n_relevant
    if not groups.n_relevant or not n_others:
        return float("nan")
    above = groups.before - (np.cumsum(groups.hits) - groups.hits)  # irrelevant ones that score higher
    level = groups.size - groups.hits
    return float((groups.hits * (n_others - above - level / 2)).sum() / (groups.n_relevant * n_others))


def hit_rate_of(groups: HitGroups, k: int) -> float:
    """`hit_rate_at_k` of placed hits.

    The tie that the k-th place cuts is drawn from without replacement, so its misses are hypergeometric.
    """
    if not groups.n_relevant:
        return float("nan")
    size, hits = int(groups.size[0]), int(groups.hits[0])
    places = min(max(0, k - int(groups.before[0])), size)
    if places == 0 or places > size - hits:
        return float(places > 0)
    fewer, more = sorted((places, hits))  # C(size - hits, places) / C(size, places) is symmetric in the two
    return float(-np.expm1(np.log1p(-more / (size - np.arange(fewer))).sum()))


def average_precision_of(groups: HitGroups, k: int) -> float:
    """`average_precision_at_k` of placed hits."""
    if not groups.n_relevant:
        return float("nan")
    n_places = np.clip(k - groups.before, 0, groups.size)  # of the first k, those each group fills
    group = np.repeat(np.arange(len(n_places)), n_places)
    within = np.arange(len(group)) - np.repeat(np.cumsum(n_places) - n_places, n_places)  # from 0 in each group
    size, hits = groups.size[group], groups.hits[group]
    hits_above = (np.cumsum(groups.hits) - groups.hits)[group]
    earlier = within * (hits - 1) / np.maximum(size - 1, 1)  # other hits of the same tie
    precision = (hits_above + earlier + 1) / (groups.before[group] + within + 1)  # expected, if this place is a hit
    return float((hits / size * precision).sum() / min(k, groups.n_relevant))


def all_metrics(groups: HitGroups, k: int) -> dict[str, float]:
    """Every ranking metric of one query, by the name a table shows."""
    return {
        f"NDCG@{k}": ndcg_of(groups, k),
        f"Recall@{k}": recall_of(groups, k),
        f"HitRate@{k}": hit_rate_of(groups, k),
        f"MAP@{k}": average_precision_of(groups, k),
        "MRR": reciprocal_rank_of(groups, None),
        "AUC": auc_of(groups),
    }


def within(groups: HitGroups, hit_scores: NDArray[np.floating[Any]], is_member: NDArray[np.bool_]) -> HitGroups:
    """`groups` with only those relevant items that are members; the others are taken out of the ranking altogether.

    hit_scores: (r,) as given to `place_hits`; is_member: (r,).
    """
    _, number = np.unique(-hit_scores, return_inverse=True)  # the group of each relevant item, best first
    kept = np.bincount(number[is_member], minlength=len(groups.hits))
    gone = groups.hits - kept
    before, size = groups.before - (np.cumsum(gone) - gone), groups.size - gone
    some = kept > 0
    return HitGroups(groups.n_items - int(gone.sum()), before[some], size[some], kept[some])
