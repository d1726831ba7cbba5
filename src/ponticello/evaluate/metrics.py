"""How good a ranking is, how good a retrieval is, and how sure we are of a mean.

Ties: every ranking metric is its expected value under a uniformly random order among equal scores. The order of rows
therefore never matters, and a model that scores everything alike gets what chance would give it.

A query with nothing relevant gives nan: it cannot be ranked well or badly, so it must not count.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import ConfigError, DataError, ShapeError

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
    return _recall(_tie_groups(scores, relevant), _checked_k(k))


def ndcg_at_k(scores: Floats, relevant: Bools, k: int) -> float:
    """Normalised discounted cumulative gain of the first k places, each hit counting 1; nan if nothing is relevant.

    scores, relevant, k: as in `recall_at_k`. Place i, from 1, is worth 1 / log2(i + 1); tied items share the mean worth
    of their places.

    Source: Järvelin and Kekäläinen 2002 with the tie average of McSherry and Najork 2008, as in scikit-learn.
    """
    return _ndcg(_tie_groups(scores, relevant), _checked_k(k))


def reciprocal_rank(scores: Floats, relevant: Bools, k: int | None = None) -> float:
    """Expected 1 / rank of the first relevant item, 0 where that rank exceeds k; nan if nothing is relevant.

    scores, relevant, k: as in `recall_at_k`; k = None never cuts.
    """
    return _reciprocal_rank(_tie_groups(scores, relevant), None if k is None else _checked_k(k))


def auc(scores: Floats, relevant: Bools) -> float:
    """Chance that a random relevant item outscores a random other one, a tie counting half.

    scores, relevant: as in `recall_at_k`. nan if nothing or everything is relevant.
    """
    return _auc(_tie_groups(scores, relevant))


def rank_metrics(scores: Floats, relevant: Bools, k: int, candidates: Bools | None = None) -> dict[str, Floats]:
    """Each user's metrics as {"recall@k", "ndcg@k", "mrr" (never cut), "auc"}, arrays of (U,) float64.

    scores: (U, n); relevant, candidates: (U, n) bool, or ShapeError. An item whose candidate is False is not in that
        user's ranking at all (already played, say): its score may be NaN and its relevance is ignored.
    Cost: one sort a user; a second for 1,000 users and 10,000 items.
    """
    k = _checked_k(k)
    if scores.ndim != 2 or (candidates is not None and candidates.shape != scores.shape):
        found = "" if candidates is None else f" and candidates {candidates.shape}"
        raise ShapeError(f"scores {scores.shape}{found} must be (users, items), of equal shape")
    _check_relevant(scores, relevant)
    rows = np.empty((4, len(scores)))
    for user in range(len(scores)):
        kept = slice(None) if candidates is None else candidates[user]
        groups = _tie_groups(scores[user][kept], relevant[user][kept])
        rows[:, user] = _recall(groups, k), _ndcg(groups, k), _reciprocal_rank(groups, None), _auc(groups)
    return dict(zip((f"recall@{k}", f"ndcg@{k}", "mrr", "auc"), rows, strict=True))


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


class Interval(NamedTuple):
    """A mean and the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Floats, clusters: Ints | None, rounds: int, seed: int) -> Interval:
    """The mean of `values` with its 95 % percentile bootstrap interval; nan values are left out.

    values: (n,); clusters: (n,) int, or None. Rows of one cluster (a listener, an artist) are drawn together, because
        they are not independent. rounds >= 1 (ConfigError).
    No value at all gives nans; a single cluster gives its mean and nan ends, as there is nothing to compare it with.
    Randomness: numpy's default generator, from `seed`.
    """
    if rounds < 1:
        raise ConfigError(f"rounds must be at least 1; found {rounds}")
    if values.ndim != 1 or (clusters is not None and clusters.shape != values.shape):
        found = "" if clusters is None else f" and clusters {clusters.shape}"
        raise ShapeError(f"values {values.shape}{found} must be one-dimensional and of equal length")
    kept = ~np.isnan(values)
    if not kept.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    values = values[kept].astype(np.float64)
    number = np.arange(len(values)) if clusters is None else np.unique(clusters[kept], return_inverse=True)[1]
    sums, sizes = np.bincount(number, values), np.bincount(number)
    mean = float(values.mean())
    if len(sums) == 1:
        return Interval(mean, float("nan"), float("nan"))
    generator = np.random.default_rng(seed)
    means = np.empty(rounds)
    for i in range(rounds):
        drawn = generator.integers(0, len(sums), len(sums))
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(mean, float(low), float(high))


def paired_difference(a: Floats, b: Floats, clusters: Ints | None, rounds: int, seed: int) -> Interval:
    """The mean of a - b with its interval, as `bootstrap_mean`; pairs where either is nan are left out.

    a, b: (n,), row i of both about the same query; ShapeError if they differ in length.
    """
    if a.shape != b.shape:
        raise ShapeError(f"a {a.shape} and b {b.shape} must have the same shape: they are compared row by row")
    return bootstrap_mean(a.astype(np.float64) - b.astype(np.float64), clusters, rounds, seed)


@dataclass(frozen=True)
class _TieGroups:
    """Items of equal score, best first, as three (groups,) arrays of counts."""

    before: NDArray[np.int64]  # items that score higher
    size: NDArray[np.int64]
    hits: NDArray[np.int64]  # relevant ones among `size`

    @property
    def n_relevant(self) -> int:
        return int(self.hits.sum())


def _tie_groups(scores: Floats, relevant: Bools) -> _TieGroups:
    if scores.ndim != 1:
        raise ShapeError(f"scores must be one query's, (n,); found {scores.shape}")
    _check_relevant(scores, relevant)
    if np.isnan(scores).any():
        raise DataError(f"score {int(np.isnan(scores).argmax())} is NaN and has no rank; leave that item out")
    order = np.argsort(-scores.astype(np.float64))
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    if not len(starts):  # reduceat refuses an empty list
        return _TieGroups(starts, starts, starts)
    hits = np.add.reduceat(relevant[order].astype(np.int64), starts)
    return _TieGroups(starts, np.diff(starts, append=len(ordered)), hits)


def _recall(groups: _TieGroups, k: int) -> float:
    if not groups.n_relevant:
        return float("nan")
    places = np.clip(k - groups.before, 0, groups.size)  # of the first k, those this group fills
    return float((groups.hits * places / groups.size).sum() / min(k, groups.n_relevant))


def _ndcg(groups: _TieGroups, k: int) -> float:
    if not groups.n_relevant:
        return float("nan")
    n = int(groups.size.sum())
    worth = 1.0 / np.log2(np.arange(n) + 2.0)
    worth[k:] = 0.0
    mean_worth = np.add.reduceat(worth, groups.before) / groups.size
    return float((groups.hits * mean_worth).sum() / worth[: groups.n_relevant].sum())


def _reciprocal_rank(groups: _TieGroups, k: int | None) -> float:
    """The first hit lies in the first group with any, at place j of its s places and r hits with p(j):

    p(1) = r / s and p(j + 1) / p(j) = (s - r - j + 1) / (s - j), the negative hypergeometric distribution; a product of
    factors in [0, 1] cannot overflow as binomials would.
    """
    if not groups.n_relevant:
        return float("nan")
    first = int((groups.hits > 0).argmax())
    before, size, hits = int(groups.before[first]), int(groups.size[first]), int(groups.hits[first])
    j = np.arange(1, size - hits + 1, dtype=np.float64)
    chance = np.cumprod(np.r_[hits / size, (size - hits - j + 1) / (size - j)])
    return float((chance / (before + np.arange(1, len(chance) + 1)))[: None if k is None else max(0, k - before)].sum())


def _auc(groups: _TieGroups) -> float:
    others = groups.size - groups.hits
    n_pairs = groups.n_relevant * int(others.sum())
    if not n_pairs:
        return float("nan")
    below = others.sum() - np.cumsum(others)
    return float((groups.hits * (below + others / 2)).sum() / n_pairs)


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
