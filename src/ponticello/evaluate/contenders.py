"""Everything that is ranked beside the two stages: who else could answer a taste task, tuned on validation only.

Collaborative models know warm tracks alone; a cold track is reached by regression from what can be heard to their
factors. Each is chosen from a small declared grid on the validation window, then fitted anew on all the past.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.data.columns import PLAYED_AT, TRACK_ID, USER_ID
from ponticello.data.splits import Splits
from ponticello.evaluate.baselines import popularity
from ponticello.evaluate.collaborative import (
    GRIDS,
    Factors,
    Interactions,
    Scorer,
    as_matrix,
    choose,
    content_to_factors,
    fit_als,
    fit_bpr,
    fit_ease,
    fit_item_knn,
)
from ponticello.evaluate.metrics import rank_metrics
from ponticello.evaluate.preference import Task, make_tasks, scores_at_random

LARGEST_EASE = 10_000  # tracks; EASE inverts a matrix of that many rows, three of which must fit in memory
REGRESSION_GRID = (0.1, 1.0, 10.0, 100.0)  # ridge strength from vectors to factors
NEEDS_IMPLICIT = ("ALS", "BPR")


class Contenders:
    """The other methods of one library's log, fitted when first asked for.

    vectors: unit vectors by track id, from which the factors of cold tracks are regressed.
    """

    def __init__(
        self,
        interactions: pl.DataFrame,
        splits: Splits,
        vectors: Mapping[str, np.ndarray],
        config: Config,
    ) -> None:
        self.config, self.vectors = config, vectors
        self.past = interactions.filter(pl.col(PLAYED_AT) < splits.validation_until)
        earlier = replace(splits, validation_until=splits.train_until)
        self.tuning = make_tasks(self.past, earlier, set(vectors), config, cold_role="validation")
        early = self.past.filter(pl.col(PLAYED_AT) < splits.train_until)
        warm = self.tuning[0].candidates
        self.early, self.late = (_Fits(events, warm, config) for events in (early, self.past))
        self.chosen: dict[str, tuple[dict[str, Any], Scorer]] = {}
        self.notes: list[str] = []

    def scores(self, task: Task) -> dict[str, np.ndarray]:
        """(U, n) scores by method, for `warm` or for `cold`."""
        plays = self.late.plays
        found = {
            "random": scores_at_random(task, self.config.evaluate.seed),
            "popularity": np.tile(popularity(plays, task.candidates), (len(task.users), 1)),
        }
        if not self.early.users or not self.tuning[0].users:
            self.notes.append("Collaborative baselines are not measured: the validation window is empty.")
            return found
        return {**found, **(self._warm(task) if task.name == "warm" else self._cold(task))}

    def _warm(self, task: Task) -> dict[str, np.ndarray]:
        found = {}
        for name in GRIDS:
            if name in NEEDS_IMPLICIT and find_spec("implicit") is None:
                self.notes.append(f"{name} is not measured: pip install implicit")
            elif name == "EASE" and len(task.candidates) > LARGEST_EASE:
                self.notes.append(f"EASE is not measured: {len(task.candidates):,} tracks are too many for it")
            else:
                point, scorer = self._tuned(name)
                found[name] = self.late.rank(scorer, task)
                shown = ", ".join(f"{key} {value:g}" for key, value in point.items())
                self.notes.append(f"{name}: {shown}, chosen on the validation window.")
        return found

    def _cold(self, task: Task) -> dict[str, np.ndarray]:
        """Ridge regression from stage-one vectors to ALS factors, for tracks the factors do not know."""
        tuning = self.tuning[1]
        if find_spec("implicit") is None or not tuning.users:
            self.notes.append("Regression to factors is not measured: it needs implicit and validation events.")
            return {}
        point, late = self._tuned("ALS")
        assert isinstance(late, Factors)
        early = fit_als(self.early.matrix, **point, seed=self.config.evaluate.seed)
        by_strength = {l2: self._regressed(early, self.early, tuning, l2) for l2 in REGRESSION_GRID}
        best = max(by_strength, key=lambda l2: _ndcg(by_strength[l2], tuning))
        self.notes.append(f"vectors to factors, ridge strength {best:g}, chosen on validation tracks.")
        return {"vectors to factors": self._regressed(late, self.late, task, best)}

    def _regressed(self, factors: Factors, fits: "_Fits", task: Task, l2: float) -> np.ndarray:
        known = np.stack([self.vectors[track_id] for track_id in fits.track_ids])
        new = np.stack([self.vectors[track_id] for track_id in task.candidates])
        items = content_to_factors(factors.items, known, new, l2)
        scores: np.ndarray = factors.users[fits.rows(task.users)] @ items.T
        return scores

    def _tuned(self, name: str) -> tuple[dict[str, Any], Scorer]:
        """The grid point with the highest validation NDCG, and its model fitted on all the past; searched for once."""
        if name not in self.chosen:
            self.chosen[name] = self._search_grid(name)
        return self.chosen[name]

    def _search_grid(self, name: str) -> tuple[dict[str, Any], Scorer]:
        seed, tuning = self.config.evaluate.seed, self.tuning[0]
        points = {str(point): point for point in GRIDS[name]}
        fits = {label: partial(_fit, name, self.early.matrix, point, seed) for label, point in points.items()}
        best, _ = choose(fits, lambda scorer: _ndcg(self.early.rank(scorer, tuning), tuning))
        return points[best], _fit(name, self.late.matrix, points[best], seed)


class _Fits:
    """The log up to a moment, as the matrix collaborative models are fitted on."""

    def __init__(self, events: pl.DataFrame, track_ids: list[str], config: Config) -> None:
        self.plays = events.filter(pl.col(TRACK_ID).is_in(track_ids))
        self.track_ids, self.users = track_ids, sorted(self.plays[USER_ID].unique())
        self.place = {user: row for row, user in enumerate(self.users)}
        self.matrix = as_matrix(self.plays, self.users, track_ids, config.pairs.min_played_s)

    def rows(self, users: list[str]) -> np.ndarray:
        """(U,) the matrix rows of `users`, all of whom have a past."""
        return np.array([self.place[user] for user in users], dtype=np.int64)

    def rank(self, scorer: Scorer, task: Task) -> np.ndarray:
        """(U, n) scores of a task over the very tracks of the matrix."""
        return scorer(self.rows(task.users))


def _fit(name: str, matrix: Interactions, point: Mapping[str, Any], seed: int) -> Scorer:
    fits: dict[str, Callable[..., Scorer]] = {
        "item-kNN": fit_item_knn,
        "EASE": fit_ease,
        "ALS": partial(fit_als, seed=seed),
        "BPR": partial(fit_bpr, seed=seed),
    }
    return fits[name](matrix, **point)


def _ndcg(scores: np.ndarray, task: Task) -> float:
    return float(np.nanmean(rank_metrics(scores, task.relevant, 10, task.allowed)["ndcg@10"]))
