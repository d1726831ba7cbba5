"""Full ranking, a block of queries at a time: never more scores in memory than one block of them.

Dimensions: q queries, n candidates, b queries of one block, k places of a list.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from ponticello.errors import DataError, ShapeError
from ponticello.evaluate.hits import all_metrics, place_hits, within
from ponticello.evaluate.lists import top_k

Scorer: TypeAlias = Callable[[np.ndarray], np.ndarray]  # (b,) int queries of a task -> (b, n) scores, higher = sooner
BLOCK_SCORES = 2**23  # of one block: 32 MB of float32, of which a scorer may need a few


@dataclass(frozen=True)
class Task:
    """Queries, each with its ranking of all candidates.

    candidates: track ids, or listeners where tracks are the queries. relevant, excluded: columns a query, ascending and
    disjoint; an excluded column is not in that query's ranking. seeds: track ids that speak for each query, or for each
    candidate if `seeds_of_candidates`. clusters: names of queries that are not independent; None = all are.
    """

    name: str
    queries: list[str]
    clusters: list[str] | None
    candidates: list[str]
    relevant: list[np.ndarray]
    excluded: list[np.ndarray]
    seeds: list[list[str]]
    seeds_of_candidates: bool = False

    def rows(self, chosen: np.ndarray) -> "Task":
        """The task of some of its queries only."""
        return replace(
            self,
            queries=[self.queries[row] for row in chosen],
            clusters=None if self.clusters is None else [self.clusters[row] for row in chosen],
            relevant=[self.relevant[row] for row in chosen],
            excluded=[self.excluded[row] for row in chosen],
            seeds=self.seeds if self.seeds_of_candidates else [self.seeds[row] for row in chosen],
        )


@dataclass(frozen=True)
class Ranked:
    """Each query's metrics by name, (q,) each; the same within each stratum of candidates; the first k places."""

    metrics: dict[str, np.ndarray]
    by_stratum: dict[str, dict[str, np.ndarray]]
    lists: np.ndarray  # (q, k) columns, -1 = no candidate left


def rank_task(task: Task, scorer: Scorer, k: int, strata: Mapping[str, np.ndarray] | None = None) -> Ranked:
    """Ranks every candidate for every query and measures where the relevant ones stand; ties as in `hits`.

    strata: (n,) bool by name; within one, only its own relevant candidates are asked for, and relevant ones of other
        strata are taken out of the ranking. A query with none there gets nan.
    DataError names a query with a score that is not finite; ShapeError for a scorer that gives other than (b, n).
    Cost: one sort of n a query, and a block of at most `BLOCK_SCORES` scores, or one query's.
    """
    strata = strata or {}
    n_queries, n = len(task.queries), len(task.candidates)
    rows: list[dict[str, float]] = []
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in strata}
    lists = np.full((n_queries, k), -1, dtype=np.int64)
    step = block_size(n)
    for start in range(0, n_queries, step):
        block = np.arange(start, min(start + step, n_queries))
        scores = scorer(block)
        if scores.shape != (len(block), n):
            raise ShapeError(
                f"{task.name}: scores must be {(len(block), n)}, queries by candidates; found {scores.shape}"
            )
        for query, own in zip(block.tolist(), scores, strict=True):
            _check_finite(own, task, query)
            relevant, excluded = task.relevant[query], task.excluded[query]
            kept = np.delete(own, excluded)
            groups = place_hits(kept, own[relevant])
            rows.append(all_metrics(groups, k))
            for name, members in strata.items():
                parts[name].append(all_metrics(within(groups, own[relevant], members[relevant]), k))
            open_to = own.copy()
            open_to[excluded] = -np.inf
            lists[query] = top_k(open_to[None], k)[0]
    return Ranked(_columns(rows), {name: _columns(found) for name, found in parts.items()}, lists)


def block_size(n_candidates: int) -> int:
    """Queries of one block."""
    return max(1, BLOCK_SCORES // max(1, n_candidates))


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in (rows[0] if rows else {})}


def _check_finite(scores: np.ndarray, task: Task, query: int) -> None:
    if not np.isfinite(scores).all():
        column = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(
            f"{task.name}, {task.queries[query]}: the score of {task.candidates[column]} is {scores[column]}; "
            "embed again, or leave that track out"
        )
