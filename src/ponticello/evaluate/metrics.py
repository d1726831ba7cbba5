"""How good a ranking is, and how good a retrieval is.

Ties: every ranking metric is its expected value under a uniformly random order among equal scores. The order of rows
therefore never matters, and a model that scores everything alike gets what chance would give it.

A query with nothing relevant gives nan: it cannot be ranked well or badly, so it must not count.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import ConfigError, DataError, ShapeError
from ponticello.evaluate.hits import (
    HitGroups,
    all_metrics,
    auc_of,
    average_precision_of,
    hit_rate_of,
    ndcg_of,
    place_hits,
    recall_of,
    reciprocal_rank_of,
)

Floats = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]
Ints = NDArray[np.integer[Any]]

BLOCK_SCORES = 2**22  # scores held at once by retrieval_ranks: 32 MB of float64
SAME_SCORE = 1e-12  # of |query| x |item|: above what summing in another order changes, far below what vectors mean


def recall_at_k(scores: Floats, relevant: Bools, k: int) -> float:
    """Expected hits in the first k places, divided by min(k, number of relevant items); nan if there are none.

    scores: (n,), no NaN (DataError); relevant: (n,) bool. k >= 1 (ConfigError), and may exceed n.
    The denominator is what a perfect ranking would hit, so 1.0 can always be reached.

    >>> recall_at_k(np.array([0.9, 0.5, 0.1]), np.array([True, False, True]), k=2)
    0.5
    """
    return recall_of(_hit_groups(scores, relevant), _checked_k(k))


def ndcg_at_k(scores: Floats, relevant: Bools, k: int) -> float:
    """Normalised discounted cumulative gain of the first k places, each hit counting 1; nan if nothing is relevant.

    scores, relevant, k: as in `recall_at_k`. Place i, from 1, is worth 1 / log2(i + 1); tied items share the mean worth
    of their places.

    Source: Järvelin and Kekäläinen 2002 with the tie average of McSherry and Najork 2008, as in scikit-learn.
    """
    return ndcg_of(_hit_groups(scores, relevant), _checked_k(k))


def reciprocal_rank(scores: Floats, relevant: Bools, k: int | None = None) -> float:
    """Expected 1 / rank of the first relevant item, 0 where that rank exceeds k; nan if nothing is relevant.

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

    scores: (n,), no NaN (DataError); relevant: (n,) bool, or ShapeError, DataError. k >= 1 (ConfigError), may exceed n.
    Source: the tie that the k-th place cuts is drawn from without replacement, so its misses are hypergeometric.

    >>> round(hit_rate_at_k(np.array([0.5, 0.5, 0.5, 0.5]), np.array([True, True, False, False]), k=2), 4)
    0.8333
    """
    return hit_rate_of(_hit_groups(scores, relevant), _checked_k(k))


def average_precision_at_k(scores: Floats, relevant: Bools, k: int) -> float:
    """Expected sum of the precision at each hit in the first k places, divided by min(k, number of relevant items).

    scores, relevant, k: as in `hit_rate_at_k`. nan if nothing is relevant. With that denominator, a perfect ranking
    gets 1.0 whatever k is; others divide by the number of relevant items and cannot compare values of k.

    Source: McSherry and Najork 2008, average precision with ties, cut at k.

    >>> average_precision_at_k(np.array([0.9, 0.5, 0.1]), np.array([True, False, True]), k=2)
    0.5
    """
    return average_precision_of(_hit_groups(scores, relevant), _checked_k(k))


def rank_metrics(scores: Floats, relevant: Bools, k: int, candidates: Bools | None = None) -> dict[str, Floats]:
    """Each user's metrics by the names of `hits.all_metrics`, arrays of (U,) float64.

    scores: (U, n); relevant, candidates: (U, n) bool, or ShapeError. An item whose candidate is False is not in that
        user's ranking at all (already played, say): its score may be NaN and its relevance is ignored.
    Cost: one sort a user; a second for 1,000 users and 10,000 items. Where the scores do not fit in memory:
    `ranking.rank_task`.
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
    names = all_metrics(place_hits(np.zeros(1), np.zeros(1)), k)
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}


def retrieval_ranks(queries: Floats, items: Floats, target: Ints) -> Floats:
    """Expected rank, from 1, of each query's target among all items by dot product; (n,) float64.

    queries: (n, d); items: (m, d); unit length makes the dot product a cosine. target: (n,) int in [0, m). DataError
        for a target outside or a vector that is not finite, ShapeError for other shapes.
    A tied item counts half; scores are tied when they differ by no more than float64 rounding explains.
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


def _hit_groups(scores: Floats, relevant: Bools) -> HitGroups:
    if scores.ndim != 1:
        raise ShapeError(f"scores must be one query's, (n,); found {scores.shape}")
    _check_relevant(scores, relevant)
    return place_hits(scores, scores[relevant])


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
        raise ShapeError(f"queries {queries.shape} and items {items.shape} must be (n, d) and (m, d)")
    if target.shape != (len(queries),):
        raise ShapeError(f"target {target.shape} must hold one item for each of {len(queries)} queries")
    outside = (target < 0) | (target >= len(items))
    if outside.any():
        raise DataError(f"target {int(target[outside][0])} is not one of the {len(items)} items, counted from 0")
    for name, vectors in (("queries", queries), ("items", items)):
        if not np.isfinite(vectors).all():
            raise DataError(f"{name} hold NaN or infinity; embed them again")
