"""Ranking metrics `metrics.py` lacks, the k best of a catalogue of any size, and what lists of
recommendations hold.

Ties as in `metrics.py`: a metric is its expected value under a uniformly random order among equal
scores, unless its docstring says otherwise. A query with nothing relevant gives nan.

Dimensions: U listeners, n items, k places of a list, b listeners of one block. A place that stays
empty holds -1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import ConfigError, DataError, ShapeError
from ponticello.metrics.ranking import Bools, Floats, Ints, _checked_k, _hit_groups

EMPTY = (
    -1
)  # the id of a place for which no item was left; also the number of an artist nobody knows


def average_precision(scores: Floats, relevant: Bools) -> float:
    """Area under the precision-recall curve: the precision at each distinct score, weighted by the
    recall it adds.

    scores, relevant: as in `hit_rate_at_k`. nan if nothing is relevant.
    A tie is one step of the curve, all of it or none, not the mean over its orders: exactly
    scikit-learn's `average_precision_score`, so that numbers compare with published ones.

    >>> average_precision(np.array([0.5, 0.5]), np.array([True, False]))
    0.5
    """
    groups = _hit_groups(scores, relevant)
    if not groups.n_relevant:
        return float("nan")
    precision = np.cumsum(groups.hits) / (groups.before + groups.size)
    return float((groups.hits * precision).sum() / groups.n_relevant)


def graded_ndcg_at_k(scores: Floats, gains: Floats, k: int) -> float:
    """Normalised discounted cumulative gain of the first k places, each item counting its gain; nan
    if none has any.

    scores, k: as in `hit_rate_at_k`; gains: (n,), finite and >= 0, or DataError; ShapeError if the
    two differ. Place i, from 1, is worth 1 / log2(i + 1). The gain is linear, not 2 ** gain - 1, so
    its unit (plays, s) cancels.

    Source: as `metrics.ndcg_at_k`; scikit-learn's `ndcg_score`, which gives 0 instead of nan where
    no item has a gain.

    >>> graded_ndcg_at_k(np.array([0.9, 0.5]), np.array([3.0, 1.0]), k=2)
    1.0
    """
    k = _checked_k(k)
    if gains.shape != scores.shape:
        raise ShapeError(f"gains {gains.shape} must have the shape of scores {scores.shape}")
    if not (np.isfinite(gains) & (gains >= 0)).all():
        raise DataError(
            "gains must be finite and not below 0; leave out items whose gain is unknown"
        )
    if np.isnan(scores).any():
        raise DataError(
            f"score {int(np.isnan(scores).argmax())} is NaN and has no rank; leave that item out"
        )
    if not (gains > 0).any():
        return float("nan")
    order = np.argsort(-scores.astype(np.float64))
    ordered = (gains / gains.max())[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    worth = 1.0 / np.log2(np.arange(len(scores)) + 2.0)
    worth[k:] = 0.0
    mean_worth = np.add.reduceat(worth, starts) / np.diff(starts, append=len(scores))
    best = np.sort(ordered)[::-1]
    return float((np.add.reduceat(ordered, starts) * mean_worth).sum() / (best * worth).sum())


def top_k(scores: Floats, k: int, allowed: Bools | None = None) -> NDArray[np.int64]:
    """(U, k) columns of each listener's k best items, best first; equal scores in order of column,
    -1 = no item left.

    scores: (U, n); NaN only where not allowed, or DataError. A score of -inf is never listed. k: as
    in `hit_rate_at_k`.
    allowed: (U, n) bool, False = not to be listed; ShapeError if of another shape.
    Where the scores do not fit in memory: `top_k_blocked`.

    >>> top_k(np.array([[0.1, 0.9, 0.9]]), k=2, allowed=np.array([[True, False, True]])).tolist()
    [[2, 0]]
    """
    if scores.ndim != 2 or (allowed is not None and allowed.shape != scores.shape):
        found = "" if allowed is None else f" and allowed {allowed.shape}"
        raise ShapeError(f"scores {scores.shape}{found} must be (users, items), of equal shape")
    if allowed is not None and allowed.dtype != np.bool_:
        raise DataError(f"allowed must be bool, one for each score; found {allowed.dtype}")

    def offered(rows: slice) -> Floats:
        return scores[rows] if allowed is None else np.where(allowed[rows], scores[rows], -np.inf)

    return top_k_blocked(offered, len(scores), k, block=1)


def top_k_blocked(
    score_block: Callable[[slice], Floats], n_users: int, k: int, block: int
) -> NDArray[np.int64]:
    """(n_users, k) columns as `top_k`, from scores computed `block` listeners at a time and
    dropped.

    score_block: takes slice(first, past the last) of listeners, gives their (b, n) scores,
    ShapeError otherwise; -inf
        for an item that listener must not get. block >= 1 (ConfigError).
    Cost: b x n scores and the (n_users, k) answer in memory; a selection of n a listener, 0.2 ms
    for n = 100,000.
    """
    k = _checked_k(k)
    if block < 1:
        raise ConfigError(f"block must be at least 1; found {block}")
    lists = np.full((n_users, k), EMPTY, dtype=np.int64)
    for start in range(0, n_users, block):
        rows = slice(start, min(start + block, n_users))
        scores = score_block(rows)
        if scores.ndim != 2 or len(scores) != rows.stop - start:
            raise ShapeError(
                f"score_block gave {scores.shape} for users {start} to {rows.stop - 1}; wanted one row each"
            )
        for user, row in enumerate(scores, start):
            if np.isnan(row).any():
                raise DataError(
                    f"user {user}: score {int(np.isnan(row).argmax())} is NaN and has no rank; give it -inf"
                )
            best = _best(row, k)
            lists[user, : len(best)] = best
    return lists


def coverage(lists: Ints, n_items: int) -> float:
    """Share of the n_items that stand in at least one list, in [0, 1].

    lists: (U, k) int, -1 = empty place; ShapeError if of other dimensions, DataError for an id
    outside [-1, n_items). n_items >= 1 (ConfigError).

    >>> coverage(np.array([[0, 1], [1, -1]]), n_items=4)
    0.5
    """
    return len(np.unique(_listed(lists, n_items))) / n_items


def mean_popularity(lists: Ints, counts: Floats | Ints) -> NDArray[np.float64]:
    """(U,) mean count of the items each listener is shown; nan for an empty list, which
    `bootstrap_mean` leaves out.

    lists: as in `coverage`; counts: (n,) how often each item was played, in whatever unit the
    answer shall have.

    >>> mean_popularity(np.array([[0, 1], [1, -1]]), np.array([10, 20])).tolist()
    [15.0, 20.0]
    """
    _check_per_item("counts", counts)
    _listed(lists, len(counts))
    return _mean_of_filled(counts[lists].astype(np.float64), lists != EMPTY)


def same_artist_share(
    lists: Ints, artist_numbers: Ints, seeds_artists: list[set[int]]
) -> NDArray[np.float64]:
    """(U,) share of each list that is by an artist of that listener's seeds, in [0, 1]; nan for an
    empty list.

    lists: as in `coverage`; artist_numbers: (n,) int, each item's artist, -1 = unknown and so
    nobody's.
    seeds_artists: U sets of such numbers, or ShapeError.

    >>> same_artist_share(np.array([[0, 1]]), np.array([7, 8]), [{8, 9}]).tolist()
    [0.5]
    """
    _check_per_item("artist_numbers", artist_numbers)
    _listed(lists, len(artist_numbers))
    if len(seeds_artists) != len(lists):
        raise ShapeError(
            f"{len(seeds_artists)} sets of seeds' artists for {len(lists)} lists; give one each"
        )
    shown = artist_numbers[lists]
    own = [
        np.isin(row, list(artists - {EMPTY}))
        for row, artists in zip(shown, seeds_artists, strict=True)
    ]
    return _mean_of_filled(np.array(own, dtype=np.float64).reshape(lists.shape), lists != EMPTY)


def hubness(neighbours: Ints, n_items: int) -> float:
    """Skewness of how often each item is among the k neighbours of another; 0 if all are equally
    often.

    neighbours: as lists in `coverage`, row i the neighbours of item i. Far above 0, a few hubs are
    near everything.

    Source: Radovanovic, Nanopoulos and Ivanovic 2010, S of N_k; population moments, uncorrected.

    >>> hubness(np.array([[1], [2], [0]]), n_items=3)
    0.0
    """
    occurrences = np.bincount(_listed(neighbours, n_items), minlength=n_items)
    if occurrences.min() == occurrences.max():
        return 0.0
    deviation = occurrences - occurrences.mean()
    return float((deviation**3).mean() / (deviation**2).mean() ** 1.5)


def _best(scores: Floats, k: int) -> NDArray[np.int64]:
    """Columns of the k best above -inf, best first, ties by column; fewer if there are fewer."""
    n_cut = len(scores) - k
    worst = np.partition(scores, n_cut)[n_cut] if n_cut > 0 else -np.inf
    chosen = np.flatnonzero(scores > worst)
    if worst > -np.inf:
        chosen = np.concatenate([chosen, np.flatnonzero(scores == worst)[: k - len(chosen)]])
    best: NDArray[np.int64] = chosen[np.argsort(-scores[chosen].astype(np.float64), kind="stable")]
    return best


def _listed(lists: Ints, n_items: int) -> Ints:
    """The ids in all filled places, flat, once they are known to be ids."""
    if n_items < 1:
        raise ConfigError(f"n_items must be at least 1; found {n_items}")
    if lists.ndim != 2:
        raise ShapeError(f"lists must be (users, k); found {lists.shape}")
    outside = (lists < EMPTY) | (lists >= n_items)
    if outside.any():
        raise DataError(
            f"listed id {lists[outside][0]} is not one of the {n_items} items, counted from 0, nor -1"
        )
    filled: Ints = lists[lists != EMPTY]
    return filled


def _check_per_item(name: str, values: Floats | Ints) -> None:
    if values.ndim != 1:
        raise ShapeError(f"{name} must hold one number an item, (n,); found {values.shape}")


def _mean_of_filled(values: NDArray[np.float64], filled: Bools) -> NDArray[np.float64]:
    """(U,) means of each row's filled places; nan where none is."""
    n_filled = filled.sum(axis=1)
    totals = np.where(filled, values, 0.0).sum(axis=1)
    means = np.full(len(values), np.nan)
    np.divide(totals, n_filled, out=means, where=n_filled > 0)
    return means
