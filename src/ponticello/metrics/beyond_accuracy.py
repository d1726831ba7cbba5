"""Metrics of lists: graded NDCG, average precision, coverage, popularity, artists and hubness.

Ties as in `metrics.ranking`, unless a docstring differs. A query without relevant items gives nan.

Dimensions: U users, n items, k positions of a list, b users of one block. An empty position holds
-1.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import ConfigError, DataError, ShapeError
from ponticello.metrics.ranking import Bools, Floats, Ints, _checked_k, _hit_groups

EMPTY = -1  # the id of an empty position, and the number of an unknown artist


def average_precision(scores: Floats, relevant: Bools) -> float:
    """Returns the precision at each distinct score, weighted by the recall it adds.

    scores, relevant: as in `hit_rate_at_k`. A tie is one step of the precision-recall curve, not
    the mean over its orders, as in scikit-learn's `average_precision_score`.

    >>> average_precision(np.array([0.5, 0.5]), np.array([True, False]))
    0.5
    """
    groups = _hit_groups(scores, relevant)
    if not groups.n_relevant:
        return float("nan")
    precision = np.cumsum(groups.hits) / (groups.before + groups.size)
    return float((groups.hits * precision).sum() / groups.n_relevant)


def graded_ndcg_at_k(scores: Floats, gains: Floats, k: int) -> float:
    """Returns the normalised discounted cumulative gain of the first k, with a gain per item.

    scores, k: as in `hit_rate_at_k`; gains: (n,), finite and >= 0, or DataError; ShapeError if the
    two differ. Position i, from 1, has the discount 1 / log2(i + 1). The gain is linear, not
    2 ** gain - 1, so its unit (plays, s) cancels. nan if no item has a gain.

    Source: as `ranking.ndcg_at_k`; scikit-learn's `ndcg_score`, which gives 0 instead of nan where
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
    discounts = 1.0 / np.log2(np.arange(len(scores)) + 2.0)
    discounts[k:] = 0.0
    mean_discounts = np.add.reduceat(discounts, starts) / np.diff(starts, append=len(scores))
    gain = (np.add.reduceat(ordered, starts) * mean_discounts).sum()
    ideal = np.sort(ordered)[::-1]
    return float(gain / (ideal * discounts).sum())


def top_k(scores: Floats, k: int, allowed: Bools | None = None) -> NDArray[np.int64]:
    """Returns (U, k) columns of each user's k best items, best first; -1 = no item left.

    scores: (U, n); NaN only where not allowed, or DataError. A score of -inf is never listed. Equal
    scores are in order of column. k: as in `hit_rate_at_k`. allowed: (U, n) bool; ShapeError if of
    another shape. `top_k_blocked` is for scores that do not fit in memory.

    >>> top_k(np.array([[0.1, 0.9, 0.9]]), k=2, allowed=np.array([[True, False, True]])).tolist()
    [[2, 0]]
    """
    if scores.ndim != 2 or (allowed is not None and allowed.shape != scores.shape):
        also = "" if allowed is None else f" and allowed {allowed.shape}"
        raise ShapeError(f"scores {scores.shape}{also} must be (users, items), of equal shape")
    if allowed is not None and allowed.dtype != np.bool_:
        raise DataError(f"allowed must be bool, one for each score; found {allowed.dtype}")

    def allowed_scores(rows: slice) -> Floats:
        return scores[rows] if allowed is None else np.where(allowed[rows], scores[rows], -np.inf)

    return top_k_blocked(allowed_scores, len(scores), k, block=1)


def top_k_blocked(
    score_block: Callable[[slice], Floats], n_users: int, k: int, block: int
) -> NDArray[np.int64]:
    """Returns (n_users, k) columns as `top_k`, from scores of `block` users at a time.

    score_block: returns the (b, n) scores of a slice of users, ShapeError otherwise; -inf for an
    item that must not be listed. block >= 1 (ConfigError).
    Cost: b x n scores and the (n_users, k) result in memory; 0.2 ms per user for n = 100,000.
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
                f"score_block gave {scores.shape} for users {start} to {rows.stop - 1}; "
                "wanted one row each"
            )
        for user, row in enumerate(scores, start):
            if np.isnan(row).any():
                raise DataError(
                    f"user {user}: score {int(np.isnan(row).argmax())} is NaN and has no rank; "
                    "give it -inf"
                )
            best = _best(row, k)
            lists[user, : len(best)] = best
    return lists


def coverage(lists: Ints, n_items: int) -> float:
    """Returns the share of the n_items that are in at least one list, in [0, 1].

    lists: (U, k) int, -1 = empty; ShapeError if of other dimensions, DataError for an id
    outside [-1, n_items). n_items >= 1 (ConfigError).

    >>> coverage(np.array([[0, 1], [1, -1]]), n_items=4)
    0.5
    """
    return len(np.unique(_listed(lists, n_items))) / n_items


def mean_popularity(lists: Ints, counts: Floats | Ints) -> NDArray[np.float64]:
    """Returns (U,), the mean count of the items in each list; nan for an empty list.

    lists: as in `coverage`; counts: (n,), how often each item was played.

    >>> mean_popularity(np.array([[0, 1], [1, -1]]), np.array([10, 20])).tolist()
    [15.0, 20.0]
    """
    _check_per_item("counts", counts)
    _listed(lists, len(counts))
    return _mean_of_filled(counts[lists].astype(np.float64), lists != EMPTY)


def same_artist_share(
    lists: Ints, artist_numbers: Ints, seeds_artists: list[set[int]]
) -> NDArray[np.float64]:
    """Returns (U,), the share of each list by an artist of the user's seeds; nan if it is empty.

    lists: as in `coverage`; artist_numbers: (n,) int, each item's artist, -1 = unknown, which never
    matches. seeds_artists: U sets of such numbers, or ShapeError.

    >>> same_artist_share(np.array([[0, 1]]), np.array([7, 8]), [{8, 9}]).tolist()
    [0.5]
    """
    _check_per_item("artist_numbers", artist_numbers)
    _listed(lists, len(artist_numbers))
    if len(seeds_artists) != len(lists):
        raise ShapeError(
            f"{len(seeds_artists)} sets of seeds' artists for {len(lists)} lists; give one each"
        )
    is_same = np.zeros(lists.shape)
    for row, (artists, seed_artists) in enumerate(
        zip(artist_numbers[lists], seeds_artists, strict=True)
    ):
        is_same[row] = np.isin(artists, list(seed_artists - {EMPTY}))
    return _mean_of_filled(is_same, lists != EMPTY)


def hubness(neighbours: Ints, n_items: int) -> float:
    """Returns the skewness of how often each item is a neighbour of another; 0 if equally often.

    neighbours: as lists in `coverage`, row i those of item i. Far above 0, a few hubs are near
    everything.

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
    """Returns the columns of the k best scores above -inf, best first, ties by column."""
    n_cut = len(scores) - k
    worst = np.partition(scores, n_cut)[n_cut] if n_cut > 0 else -np.inf
    chosen = np.flatnonzero(scores > worst)
    if worst > -np.inf:
        chosen = np.concatenate([chosen, np.flatnonzero(scores == worst)[: k - len(chosen)]])
    best: NDArray[np.int64] = chosen[np.argsort(-scores[chosen].astype(np.float64), kind="stable")]
    return best


def _listed(lists: Ints, n_items: int) -> Ints:
    """Returns the ids in all filled positions, flat; DataError for one that is not an id."""
    if n_items < 1:
        raise ConfigError(f"n_items must be at least 1; found {n_items}")
    if lists.ndim != 2:
        raise ShapeError(f"lists must be (users, k); found {lists.shape}")
    outside = (lists < EMPTY) | (lists >= n_items)
    if outside.any():
        raise DataError(
            f"listed id {lists[outside][0]} is not one of the {n_items} items, counted from 0, "
            "nor -1"
        )
    filled: Ints = lists[lists != EMPTY]
    return filled


def _check_per_item(name: str, values: Floats | Ints) -> None:
    if values.ndim != 1:
        raise ShapeError(f"{name} must hold one number an item, (n,); found {values.shape}")


def _mean_of_filled(values: NDArray[np.float64], filled: Bools) -> NDArray[np.float64]:
    """Returns (U,), the mean of each row's filled positions; nan if there are none."""
    n_filled = filled.sum(axis=1)
    totals = np.where(filled, values, 0.0).sum(axis=1)
    means = np.full(len(values), np.nan)
    np.divide(totals, n_filled, out=means, where=n_filled > 0)
    return means
