"""Everything that is ranked beside the two stages: who else could answer a taste task, tuned on
validation only.

Each method's settings come from its small declared grid, by NDCG@10 on the validation window; it is
then fitted anew on all events before the test window. What a method cannot answer it is not asked,
and a note says so.
"""

from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.evaluate.baselines import (
    CANNOT,
    CANNOT_FROM_CONTENT,
    GRID_CONTENT_KNN,
    GRIDS,
    as_matrix,
    beside_text,
    choose,
    content_to_factors,
    fit_als,
    fit_content_knn,
    fit_ease,
    fit_item_knn,
)
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import RANDOM
from ponticello.evaluate.sasrec import (
    CANNOT_SASREC,
    GRID_SASREC,
    LARGEST_SASREC,
    as_sequences,
    fit_sasrec,
)
from ponticello.evaluate.tasks import (
    AUDIENCE,
    COLD,
    WARM,
    DeduplicatedTask,
    Scorer,
    Task,
    next_tracks,
    rank_task,
    score_at_random,
    score_by_factors,
    score_by_order,
)
from ponticello.listening.log import is_positive
from ponticello.splits.splits import Splits, before_test, before_validation, one_window_earlier
from ponticello.storage.schema import TRACK_ID, USER_ID

WITH_TEXT = "vectors_text_to_factors"
RIDGES = [{"ridge": strength} for strength in (0.1, 1.0, 10.0, 100.0)]
ANSWERS = {  # which method answers which task
    WARM: ("item_knn", "ease", "als", "sasrec", "sasrec_content", "content_knn"),
    COLD: ("vectors_to_factors", WITH_TEXT, "sasrec_content", "content_knn"),
    AUDIENCE: ("vectors_to_factors", WITH_TEXT, "sasrec_content", "content_knn"),
}
ALL_GRIDS: dict[str, list[dict[str, Any]]] = {
    **GRIDS,
    "sasrec": GRID_SASREC,
    "sasrec_content": GRID_SASREC,
    "content_knn": GRID_CONTENT_KNN,
    "vectors_to_factors": RIDGES,
    WITH_TEXT: RIDGES,
}
LIMITS = {**CANNOT, **CANNOT_FROM_CONTENT, **CANNOT_SASREC}
ON_FACTORS = ("vectors_to_factors", WITH_TEXT)  # they carry ALS's factors, as tuned for warm tracks
NEED_IMPLICIT = ("als", *ON_FACTORS)
ASKED_ONCE = (
    "item_knn",
    "ease",
)  # of what they learn before validation, nothing is needed after tuning
LARGEST = {  # tracks
    "ease": 10_000,  # three matrices of that many rows and columns must fit in memory
    "sasrec": LARGEST_SASREC,
    "sasrec_content": LARGEST_SASREC,
}
LEAST_SEQUENCES = (
    2  # listeners with something that follows something, without which SASRec has nothing to learn
)
TUNING_LISTENERS = 2_000  # drawn where there are more; all candidates are ranked for them


class TunedBaselines:
    """The other methods of one library's log, each fitted when first asked for.

    content: unit vectors by track id, from which cold tracks are reached. texts: the unit vector
    of what fused vectors read beside the sound, by track id; empty where none are compared.
    Randomness: `seed`.
    """

    def __init__(
        self,
        interactions: pl.DataFrame,
        splits: Splits,
        content: Mapping[str, np.ndarray],
        config: Config,
        seed: int,
        texts: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        self.config, self.content, self.seed = config, content, seed
        self.texts = texts or {}
        self.notes: list[str] = []
        past = before_test(splits, interactions)
        warm, cold = next_tracks(
            past, one_window_earlier(splits), set(content), config, cold_role="validation"
        )
        self.early = TrainingMatrix(
            before_validation(splits, interactions), warm.candidates, config
        )
        self.late = TrainingMatrix(past, warm.candidates, config)
        self.tuning = {
            WARM: self._sampled(warm),
            COLD: self._sampled(cold),
            AUDIENCE: self._sampled(cold),
        }
        self.models: dict[tuple[str, str, bool], Any] = {}
        self.points: dict[tuple[str, str], dict[str, Any]] = {}

    def scorers(self, collapsed: DeduplicatedTask) -> dict[str, Scorer]:
        """A scorer of recordings a method; only chance and popularity where no other is declared in
        `ANSWERS`.
        """
        task = collapsed.tracks
        counts = dict(self.late.events.group_by(USER_ID).len().iter_rows())
        order = (
            {
                "activity": score_by_order(
                    np.array([counts.get(user, 0) for user in task.candidates], dtype=np.float64)
                )
            }
            if task.seeds_of_candidates
            else {"popularity": score_by_order(collapsed.plays(self.late.liked))}
        )
        others = {name: collapsed.scorer(self._tuned(name, task)) for name in self._able(task)}
        return {RANDOM: collapsed.scorer(score_at_random(task, self.seed)), **order, **others}

    def _sampled(self, task: Task) -> Task:
        if len(task.queries) <= TUNING_LISTENERS:
            return task
        self.notes.append(
            f"Settings are chosen on {TUNING_LISTENERS:,} of {len(task.queries):,} listeners."
        )
        drawn = np.random.default_rng(self.seed).choice(
            len(task.queries), TUNING_LISTENERS, replace=False
        )
        return task.rows(np.sort(drawn))

    def _able(self, task: Task) -> list[str]:
        able: list[str] = []
        for name in ANSWERS.get(task.name, ()):
            if name not in self.config.evaluate.baselines:
                continue
            reason = self._hindrance(name, task)
            if reason:
                self.notes.append(
                    f"{display_name(name)} is not measured on {display_name(task.name)}: {reason}"
                )
            else:
                able.append(name)
                self.notes.append(f"{display_name(name)} cannot answer: {LIMITS[name]}.")
        return able

    def _hindrance(self, name: str, task: Task) -> str:
        n_tracks = len(self.late.track_ids)
        needed = (task.name, WARM) if name in ON_FACTORS else (task.name,)
        if name == WITH_TEXT and not self.texts:
            return "no vector that is compared holds a text."
        if name in NEED_IMPLICIT and find_spec("implicit") is None:
            return "it needs the package implicit; run: pip install implicit"
        if n_tracks > LARGEST.get(name, n_tracks):
            return f"{n_tracks:,} tracks are too many for it; {LARGEST[name]:,} are the most"
        if any(not self.tuning[kind].queries for kind in needed) or not self.early.matrix.nnz:
            return "the validation window holds nothing to choose its settings by."
        if (
            name in ("sasrec", "sasrec_content")
            and sum(len(liked) > 1 for liked in self.early.sequences()) < LEAST_SEQUENCES
        ):
            return f"fewer than {LEAST_SEQUENCES} listeners liked two tracks."
        return ""

    def _tuned(self, name: str, task: Task) -> Scorer:
        return self._scorer(name, self._point(name, task.name), self.late, task)

    def _point(self, name: str, kind: str) -> dict[str, Any]:
        """The grid point with the highest NDCG@10 on the validation window; searched for once."""
        kind = COLD if kind == AUDIENCE else kind
        if (name, kind) not in self.points:
            grid, task = {str(point): point for point in ALL_GRIDS[name]}, self.tuning[kind]
            fits = {
                label: partial(self._scorer, name, point, self.early, task)
                for label, point in grid.items()
            }
            best, _ = choose(
                fits,
                lambda scorer: float(np.nanmean(rank_task(task, scorer, 10).metrics["NDCG@10"])),
            )
            self.points[name, kind] = grid[best]
            self._forget(name, grid[best])
            shown = ", ".join(f"{key} {value:g}" for key, value in grid[best].items())
            self.notes.append(
                f"{display_name(name)}, {kind.rpartition('_')[2]}: {shown}, chosen on the validation window."
            )
        return self.points[name, kind]

    def _scorer(
        self, name: str, point: dict[str, Any], fits: "TrainingMatrix", task: Task
    ) -> Scorer:
        """The method with the settings of `point`, fitted on `fits`, as asked by `task`."""
        listeners = fits.rows(task.candidates if task.seeds_of_candidates else task.queries)
        tracks = task.queries if task.seeds_of_candidates else task.candidates
        if name == "content_knn":
            new = None if task.name == WARM else self._contents(tracks)
            weights = fit_content_knn(fits.matrix, self._contents(fits.track_ids), new, **point)
            if not task.seeds_of_candidates:
                return lambda rows: weights(listeners[rows])
            own, by_track = fits.matrix[listeners], weights.weights.tocsc()
            return lambda rows: np.asarray((own @ by_track[:, rows]).toarray().T)
        model = self._model(name, point, fits)
        if task.name == WARM:
            return lambda rows: model(listeners[rows])
        users = model.users[listeners]
        items = self._cold_items(name, model, point, fits, tracks)
        return (
            score_by_factors(items, users)
            if task.seeds_of_candidates
            else score_by_factors(users, items)
        )

    def _cold_items(
        self,
        name: str,
        model: Any,
        point: dict[str, Any],
        fits: "TrainingMatrix",
        tracks: list[str],
    ) -> np.ndarray:
        """(m, f) of tracks that nobody has played."""
        if name in ("vectors_to_factors", WITH_TEXT):
            read = self._contents_and_texts if name == WITH_TEXT else self._contents
            return content_to_factors(
                model.items, read(fits.track_ids), read(tracks), point["ridge"]
            )
        items: np.ndarray = model.items(self._contents(tracks))
        return items

    def _model(self, name: str, point: dict[str, Any], fits: "TrainingMatrix") -> Any:
        if name in ON_FACTORS:
            return self._model("als", self._point("als", WARM), fits)
        if name in ASKED_ONCE and fits is self.early:
            return self._fit(name, point, fits)
        key = (name, str(point), fits is self.late)
        if key not in self.models:
            self.models[key] = self._fit(name, point, fits)
        return self.models[key]

    def _forget(self, name: str, kept: dict[str, Any]) -> None:
        """Drops the models of settings that were not chosen."""
        for key in [key for key in self.models if key[0] == name and key[1] != str(kept)]:
            del self.models[key]

    def _fit(self, name: str, point: dict[str, Any], fits: "TrainingMatrix") -> Any:
        match name:
            case "item_knn":
                return fit_item_knn(fits.matrix, **point)
            case "ease":
                return fit_ease(fits.matrix, **point)
            case "als":
                return fit_als(fits.matrix, **point, seed=self.seed)
        content = None if name == "sasrec" else self._contents(fits.track_ids)
        return fit_sasrec(
            fits.sequences(), len(fits.track_ids), **point, seed=self.seed, content=content
        )

    def _contents(self, track_ids: list[str]) -> np.ndarray:
        return np.stack([self.content[track_id] for track_id in track_ids])

    def _contents_and_texts(self, track_ids: list[str]) -> np.ndarray:
        nothing = np.zeros_like(next(iter(self.texts.values())))
        texts = [self.texts.get(track_id, nothing) for track_id in track_ids]
        return beside_text(self._contents(track_ids), np.stack(texts))


class TrainingMatrix:
    """The log up to a moment, as methods are fitted on."""

    def __init__(self, events: pl.DataFrame, track_ids: list[str], config: Config) -> None:
        self.events = events.filter(pl.col(TRACK_ID).is_in(track_ids))
        self.track_ids, self.users = track_ids, sorted(self.events[USER_ID].unique())
        self.place = {user: row for row, user in enumerate(self.users)}
        self.min_played_s = config.pairs.min_played_s
        self.liked = self.events.filter(is_positive(self.min_played_s))
        self.matrix = as_matrix(self.events, self.users, track_ids, self.min_played_s)

    def rows(self, users: list[str]) -> np.ndarray:
        """(U,) the matrix rows of `users`, all of whom have a past."""
        return np.array([self.place[user] for user in users], dtype=np.int64)

    def sequences(self) -> list[np.ndarray]:
        """Returns the liked tracks of each listener in order, as column numbers."""
        return as_sequences(self.events, self.users, self.track_ids, self.min_played_s, MAX_LENGTH)


MAX_LENGTH = 1_000  # latest liked tracks of a listener that SASRec learns from
