"""How good a ranking is, and how good a retrieval is.

Ties: every ranking metric is its expected value under a uniformly random order among equal scores.
The order of rows therefore never matters, and a model that scores everything alike gets what chance
would give it.

A query with nothing relevant gives nan: it cannot be ranked well or badly, so it must not count.

Where a query's hits stand among equal scores, and every ranking metric drawn from that.

A metric is its expected value under a uniformly random order among equal scores; nan if nothing is
relevant. A query is placed with one sort; its metrics, also those of a part of its hits, then cost
next to nothing.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import ConfigError, DataError, ShapeError


@dataclass(frozen=True)
class TieGroups:
    """Where a query's relevant items stand: the groups of equal score that hold at least one, best
    first.

    before, size, hits: (groups,) int: ranked items that score higher, items of that score, relevant
    ones among them.
    """

    n_items: int  # ranked altogether
    before: NDArray[np.int64]
    size: NDArray[np.int64]
    hits: NDArray[np.int64]

    @property
    def n_relevant(self) -> int:
        """How many hits there are in all."""
        return int(self.hits.sum())


def group_ties(
    scores: NDArray[np.floating[Any]], hit_scores: NDArray[np.floating[Any]]
) -> TieGroups:
    """The groups of one query. scores: (n,) of all ranked items; hit_scores: (r,) of the relevant
    ones among them.

    DataError for a NaN, which has no rank. Cost: one sort of n.
    """
    ordered = np.sort(scores)
    if len(ordered) and np.isnan(ordered[-1]):  # NaN sorts last
        raise DataError(
            f"score {int(np.isnan(scores).argmax())} is NaN and has no rank; leave that item out"
        )
    values, hits = np.unique(hit_scores, return_counts=True)
    values, hits = values[::-1], hits[::-1]
    not_above = np.asarray(np.searchsorted(ordered, values, side="right"))
    size = not_above - np.asarray(np.searchsorted(ordered, values, side="left"))
    return TieGroups(len(ordered), np.asarray(len(ordered) - not_above), size, hits)


def recall_of(groups: TieGroups, k: int) -> float:
    """`recall_at_k` of placed hits."""
    if not groups.n_relevant:
        return float("nan")
    places = np.clip(k - groups.before, 0, groups.size)  # of the first k, those this group fills
    return float((groups.hits * places / groups.size).sum() / min(k, groups.n_relevant))


def ndcg_of(groups: TieGroups, k: int) -> float:
    """`ndcg_at_k` of placed hits."""
    if not groups.n_relevant:
        return float("nan")
    k = min(k, groups.n_items)
    worth = np.r_[0.0, np.cumsum(1.0 / np.log2(np.arange(k) + 2.0))]  # of the first 0 to k places
    first, past = np.minimum(groups.before, k), np.minimum(groups.before + groups.size, k)
    return float(
        (groups.hits * (worth[past] - worth[first]) / groups.size).sum()
        / worth[min(k, groups.n_relevant)]
    )


def reciprocal_rank_of(groups: TieGroups, k: int | None) -> float:
    """`reciprocal_rank` of placed hits.

    The first hit lies in the first group, at place j of its s places and r hits with p(j):
    p(1) = r / s and p(j + 1) / p(j) = (s - r - j + 1) / (s - j), the negative hypergeometric
    distribution; a product of factors in [0, 1] cannot overflow as binomials would.
    """
    if not groups.n_relevant:
        return float("nan")
    before, size, hits = int(groups.before[0]), int(groups.size[0]), int(groups.hits[0])
    j = np.arange(1, size - hits + 1, dtype=np.float64)
    chance = np.cumprod(np.r_[hits / size, (size - hits - j + 1) / (size - j)])
    return float(
        (chance / (before + np.arange(1, len(chance) + 1)))[
            : None if k is None else max(0, k - before)
        ].sum()
    )


def auc_of(groups: TieGroups) -> float:
    """`auc` of placed hits."""
    n_others = groups.n_items - groups.n_relevant
    if not groups.n_relevant or not n_others:
        return float("nan")
    above = groups.before - (
        np.cumsum(groups.hits) - groups.hits
    )  # irrelevant ones that score higher
    level = groups.size - groups.hits
    return float(
        (groups.hits * (n_others - above - level / 2)).sum() / (groups.n_relevant * n_others)
    )


def hit_rate_of(groups: TieGroups, k: int) -> float:
    """`hit_rate_at_k` of placed hits.

    The tie that the k-th place cuts is drawn from without replacement, so its misses are
    hypergeometric.
    """
    if not groups.n_relevant:
        return float("nan")
    size, hits = int(groups.size[0]), int(groups.hits[0])
    places = min(max(0, k - int(groups.before[0])), size)
    if places == 0 or places > size - hits:
        return float(places > 0)
    fewer, more = sorted(
        (places, hits)
    )  # C(size - hits, places) / C(size, places) is symmetric in the two
    return float(-np.expm1(np.log1p(-more / (size - np.arange(fewer))).sum()))


def average_precision_of(groups: TieGroups, k: int) -> float:
    """`average_precision_at_k` of placed hits."""
    if not groups.n_relevant:
        return float("nan")
    n_places = np.clip(k - groups.before, 0, groups.size)  # of the first k, those each group fills
    group = np.repeat(np.arange(len(n_places)), n_places)
    within = np.arange(len(group)) - np.repeat(
        np.cumsum(n_places) - n_places, n_places
    )  # from 0 in each group
    size, hits = groups.size[group], groups.hits[group]
    hits_above = (np.cumsum(groups.hits) - groups.hits)[group]
    earlier = within * (hits - 1) / np.maximum(size - 1, 1)  # other hits of the same tie
    precision = (hits_above + earlier + 1) / (
        groups.before[group] + within + 1
    )  # expected, if this place is a hit
    return float((hits / size * precision).sum() / min(k, groups.n_relevant))


def all_metrics(groups: TieGroups, k: int) -> dict[str, float]:
    """Every ranking metric of one query, by the name a table shows."""
    return {
        f"NDCG@{k}": ndcg_of(groups, k),
        f"Recall@{k}": recall_of(groups, k),
        f"HitRate@{k}": hit_rate_of(groups, k),
        f"MAP@{k}": average_precision_of(groups, k),
        "MRR": reciprocal_rank_of(groups, None),
        "AUC": auc_of(groups),
    }


def restrict_to(
    groups: TieGroups, hit_scores: NDArray[np.floating[Any]], is_member: NDArray[np.bool_]
) -> TieGroups:
    """`groups` with only those relevant items that are members; the others are taken out of the
    ranking altogether.

    hit_scores: (r,) as given to `group_ties`; is_member: (r,).
    """
    _, number = np.unique(
        -hit_scores, return_inverse=True
    )  # the group of each relevant item, best first
    kept = np.bincount(number[is_member], minlength=len(groups.hits))
    gone = groups.hits - kept
    before, size = groups.before - (np.cumsum(gone) - gone), groups.size - gone
    some = kept > 0
    return TieGroups(groups.n_items - int(gone.sum()), before[some], size[some], kept[some])


Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]

BLOCK_SCORES = 2**22  # scores held at once by retrieval_ranks: 32 MB of float64
# of |query| x |item|: above what summing in another order changes, far below what vectors mean
SAME_SCORE = 1e-12


def recall_at_k(scores: Floats, relevant: Bools, k: int) -> float:
    """Expected hits in the first k places, divided by min(k, number of relevant items); nan if
    there are none.

    scores: (n,), no NaN (DataError); relevant: (n,) bool. k >= 1 (ConfigError), and may exceed n.
    The denominator is what a perfect ranking would hit, so 1.0 can always be reached.

    >>> recall_at_k(np.array([0.9, 0.5, 0.1]), np.array([True, False, True]), k=2)
    0.5
    """
    return recall_of(_hit_groups(scores, relevant), _checked_k(k))


def ndcg_at_k(scores: Floats, relevant: Bools, k: int) -> float:
    """Normalised discounted cumulative gain of the first k places, each hit counting 1; nan if
    nothing is relevant.

    scores, relevant, k: as in `recall_at_k`. Place i, from 1, is worth 1 / log2(i + 1); tied items
    share the mean worth of their places.

    Source: Järvelin and Kekäläinen 2002 with the tie average of McSherry and Najork 2008, as in
    scikit-learn.
    """
    return ndcg_of(_hit_groups(scores, relevant), _checked_k(k))


def reciprocal_rank(scores: Floats, relevant: Bools, k: int | None = None) -> float:
    """Expected 1 / rank of the first relevant item, 0 where that rank exceeds k; nan if nothing is
    relevant.

    scores, relevant, k: as in `recall_at_k`; k = None never cuts.
    """
    return reciprocal_rank_of(_hit_groups(scores, relevant), None if k is None else _checked_k(k))


def auc(scores: Floats, relevant: Bools) -> float:
    """Chance that a random relevant item outscores a random other one, a tie counting half.

    scores, relevant: as in `recall_at_k`. nan if nothing or everything is relevant.
    """
    return auc_of(_hit_groups(scores, relevant))


def hit_rate_at_k(scores: Floats, relevant: Bools, k: int) -> float:
    """Chance that at least one of the first k places holds a relevant item; nan if there are none.

    scores: (n,), no NaN (DataError); relevant: (n,) bool, or ShapeError, DataError. k >= 1
    (ConfigError), may exceed n.
    Source: the tie that the k-th place cuts is drawn from without replacement, so its misses are
    hypergeometric.

    >>> round(hit_rate_at_k(np.array([0.5, 0.5, 0.5, 0.5]), np.array([True, True, False, False]), k=2), 4)
    0.8333
    """
    return hit_rate_of(_hit_groups(scores, relevant), _checked_k(k))


def average_precision_at_k(scores: Floats, relevant: Bools, k: int) -> float:
    """Expected sum of the precision at each hit in the first k places, divided by min(k, number of
    relevant items).

    scores, relevant, k: as in `hit_rate_at_k`. nan if nothing is relevant. With that denominator, a
    perfect ranking gets 1.0 whatever k is; others divide by the number of relevant items and cannot
    compare values of k.

    Source: McSherry and Najork 2008, average precision with ties, cut at k.

    >>> average_precision_at_k(np.array([0.9, 0.5, 0.1]), np.array([True, False, True]), k=2)
    0.5
    """
    return average_precision_of(_hit_groups(scores, relevant), _checked_k(k))


def rank_metrics(
    scores: Floats, relevant: Bools, k: int, candidates: Bools | None = None
) -> dict[str, Floats]:
    """Each user's metrics by the names of `hits.all_metrics`, arrays of (U,) float64.

    scores: (U, n); relevant, candidates: (U, n) bool, or ShapeError. An item whose candidate is
    False is not in that
        user's ranking at all (already played, say): its score may be NaN and its relevance is
        ignored.
    Cost: one sort a user; a second for 1,000 users and 10,000 items. Where the scores do not fit in
    memory: `ranking.rank_task`.
    """
    k = _checked_k(k)
    if scores.ndim != 2 or (candidates is not None and candidates.shape != scores.shape):
        found = "" if candidates is None else f" and candidates {candidates.shape}"
        raise ShapeError(f"scores {scores.shape}{found} must be (users, items), of equal shape")
    _check_relevant(scores, relevant)
    rows = []
    for user in range(len(scores)):
        kept = slice(None) if candidates is None else candidates[user]
        rows.append(all_metrics(_hit_groups(scores[user][kept], relevant[user][kept]), k))
    names = all_metrics(group_ties(np.zeros(1), np.zeros(1)), k)
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}


def retrieval_ranks(queries: Floats, items: Floats, target: Ints) -> Floats:
    """Expected rank, from 1, of each query's target among all items by dot product; (n,) float64.

    queries: (n, d); items: (m, d); unit length makes the dot product a cosine. target: (n,) int in
    [0, m). DataError
        for a target outside or a vector that is not finite, ShapeError for other shapes.
    A tied item counts half; scores are tied when they differ by no more than float64 rounding
    explains.
    Cost: n x m x d, with at most 32 MB of scores held at once, or one row of m.
    """
    _check_retrieval(queries, items, target)
    items = items.astype(np.float64)
    queries = queries.astype(np.float64)
    longest = float(np.sqrt((items**2).sum(axis=1).max(initial=0.0)))
    ranks = np.empty(len(queries))
    step = max(1, BLOCK_SCORES // max(1, len(items)))
    for start in range(0, len(queries), step):
        block = slice(start, start + step)
        scores = queries[block] @ items.T  # (block, m)
        own = np.take_along_axis(scores, target[block, None], axis=1)
        slack = SAME_SCORE * longest * np.linalg.norm(queries[block], axis=1, keepdims=True)
        above = (scores > own + slack).sum(axis=1)
        level = (scores >= own - slack).sum(axis=1) - above - 1  # the target itself does not count
        ranks[block] = 1 + above + level / 2
    return ranks


def _hit_groups(scores: Floats, relevant: Bools) -> TieGroups:
    if scores.ndim != 1:
        raise ShapeError(f"scores must be one query's, (n,); found {scores.shape}")
    _check_relevant(scores, relevant)
    return group_ties(scores, scores[relevant])


def _checked_k(k: int) -> int:
    if k < 1:
        raise ConfigError(f"k must be at least 1; found {k}")
    return k


def _check_relevant(scores: Floats, relevant: Bools) -> None:
    if relevant.shape != scores.shape:
        raise ShapeError(f"relevant {relevant.shape} must have the shape of scores {scores.shape}")
    if relevant.dtype != np.bool_:
        raise DataError(f"relevant must be bool, one for each score; found {relevant.dtype}")


def _check_retrieval(queries: Floats, items: Floats, target: Ints) -> None:
    if queries.ndim != 2 or items.ndim != 2 or queries.shape[1] != items.shape[1]:
        raise ShapeError(
            f"queries {queries.shape} and items {items.shape} must be (n, d) and (m, d)"
        )
    if target.shape != (len(queries),):
        raise ShapeError(
            f"target {target.shape} must hold one item for each of {len(queries)} queries"
        )
    outside = (target < 0) | (target >= len(items))
    if outside.any():
        raise DataError(
            f"target {int(target[outside][0])} is not one of the {len(items)} items, counted from 0"
        )
    for name, vectors in (("queries", queries), ("items", items)):
        if not np.isfinite(vectors).all():
            raise DataError(f"{name} hold NaN or infinity; embed them again")
