"""How vectors and factors answer a task: closeness to the seeds that agree, a dot product, one order, or chance.

Dimensions: q queries, n candidates, b queries of one block, d vector size, f factors, s seeds at most.
"""

from collections.abc import Iterable, Mapping

import numpy as np

from ponticello.evaluate.ranking import Scorer, Task

NO_SEED = -1
TILE = 2048  # candidates scored at once by `by_vectors`


def by_chance(task: Task, seed: int) -> Scorer:
    """Scores that know nothing; each query's depend on `seed` and its place alone."""

    def scores(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng([seed, int(row)]).random(len(task.candidates)) for row in rows])

    return scores


def by_order(values: np.ndarray) -> Scorer:
    """The same (n,) scores for every query: popularity."""
    return lambda rows: np.broadcast_to(values, (len(rows), len(values)))


def by_factors(queries: np.ndarray, candidates: np.ndarray) -> Scorer:
    """Dot products of (q, f) and (n, f)."""

    def scores(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = queries[rows] @ candidates.T
        return found

    return scores


def by_vectors(
    task: Task, vectors: Mapping[str, np.ndarray], n_agreeing: int, asking: Mapping[str, np.ndarray] | None = None
) -> Scorer:
    """How close each candidate is to the seeds closest to it: the mean cosine to its `n_agreeing` best.

    vectors: (d,) unit vectors by track id. asking: those of the seeds, where they differ (the dial scales them). In
    `audience` the seeds are the candidates', and the tracks are the queries.
    Cost: b x n x d a seed; n_agreeing + 2 tables of (b, n) float32.
    """
    known = sorted({track_id for seeds in task.seeds for track_id in seeds})
    place = {track_id: row for row, track_id in enumerate(known)}
    width = max((len(seeds) for seeds in task.seeds), default=0)
    numbers = np.full((len(task.seeds), width), NO_SEED, dtype=np.int64)  # (q, s); (n, s) for seeds of candidates
    for row, seeds in enumerate(task.seeds):
        numbers[row, : len(seeds)] = [place[track_id] for track_id in seeds]
    speaking = _stack(vectors if asking is None else asking, known)
    if task.seeds_of_candidates:
        tracks = _stack(vectors, task.queries)

        def listeners(rows: np.ndarray) -> np.ndarray:
            cosines = tracks[rows] @ speaking.T  # (b, seeds of all listeners)
            slots = (_masked(cosines[:, column], column) for column in numbers.T)
            return agreeing_mean(slots, n_agreeing)

        return listeners
    candidates = _stack(vectors, task.candidates)

    def tracks_for(rows: np.ndarray) -> np.ndarray:
        asked = numbers[rows]
        found = np.empty((len(rows), len(candidates)), dtype=np.float32)
        for start in range(0, len(candidates), TILE):  # a tile's tables stay in the processor's cache
            tile = candidates[start : start + TILE].T
            slots = (_masked(speaking[column] @ tile, column[:, None]) for column in asked.T)
            found[:, start : start + TILE] = agreeing_mean(slots, n_agreeing)
        return found

    return tracks_for


def _masked(cosines: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.where(column == NO_SEED, np.float32(-np.inf), cosines) if (column == NO_SEED).any() else cosines


def agreeing_mean(slots: Iterable[np.ndarray], n_agreeing: int) -> np.ndarray:
    """(b, n) mean of the `n_agreeing` highest of each place's values over all slots, or of as many as there are.

    slots: (b, n) each, used up as working memory; -inf = no value. At least one value a place. Kept are n_agreeing
    tables, so that the number of slots costs time but no memory.
    """
    best: list[np.ndarray] = []
    for slot in slots:
        rest = np.asarray(slot, dtype=np.float32)
        for number, kept in enumerate(best):
            best[number] = np.maximum(kept, rest)
            np.minimum(kept, rest, out=rest)
        if len(best) < n_agreeing:
            best.append(rest)
    total, count = np.zeros_like(best[0]), np.zeros_like(best[0])
    for kept in best:
        there = kept > -np.inf
        total += np.where(there, kept, 0)
        count += there
    mean: np.ndarray = total / count
    return mean


def _stack(vectors: Mapping[str, np.ndarray], track_ids: list[str]) -> np.ndarray:
    return np.stack([vectors[track_id] for track_id in track_ids]).astype(np.float32)
