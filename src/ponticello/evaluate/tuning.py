"""The baselines that are ranked beside the encoders, tuned on validation data.

The settings of each come from a small grid, by NDCG@10 on the validation window; those for cold
tracks on the validation tracks, which are in no training event either. It is then fitted on the
events that stage two may learn from: all before the test window, of training tracks and, where
`preference.refit` is on, of validation tracks. A note names the tasks that a baseline cannot
answer.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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
    Factors,
    as_matrix,
    choose,
    fit_als,
    fit_content_knn,
    fit_ease,
    fit_item_knn,
)
from ponticello.evaluate.content_baselines import (
    CONTENT_GRIDS,
    MLP_TO_ALS,
    ON_ALS,
    PROFILE_AND_ALS,
    SUMMED,
    TrainingLikes,
    add_standardised,
    beside_text,
    fit_content_model,
)
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import RANDOM, pick
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
    role_tracks,
    score_at_random,
    score_by_factors,
    score_by_order,
)
from ponticello.listening.log import is_positive
from ponticello.splits.splits import Splits, before_test, before_validation, one_window_earlier
from ponticello.storage.schema import TRACK_ID, USER_ID

NEED_IMPLICIT = ("als", *ON_ALS, PROFILE_AND_ALS)  # their ALS has l2 and alpha as tuned for warm
SASRECS = ("sasrec", "sasrec_content")
NOT_KEPT = ("item_knn", "ease")  # their models of before validation are not needed after tuning
MAX_TUNING_USERS = 2_000  # more are sampled; all candidates are ranked for them
MAX_SEQUENCE = 1_000  # latest liked tracks of a user that SASRec learns from
MIN_SEQUENCES = 2  # users with two liked tracks, the least that SASRec can learn from


@dataclass(frozen=True)
class Baseline:
    """A baseline's grid of settings, and the tasks that it can and cannot answer.

    max_tracks: of the catalogue; None = no limit.
    """

    grid: list[dict[str, Any]]
    tasks: tuple[str, ...]
    cannot: str
    max_tracks: int | None = None


# In the order in which a task's methods are reported.
BASELINES = {
    "item_knn": Baseline(GRIDS["item_knn"], (WARM,), CANNOT["item_knn"]),
    # Three matrices of that many rows and columns must fit in memory.
    "ease": Baseline(GRIDS["ease"], (WARM,), CANNOT["ease"], max_tracks=10_000),
    "als": Baseline(GRIDS["als"], (WARM,), CANNOT["als"]),
    "sasrec": Baseline(GRID_SASREC, (WARM,), CANNOT_SASREC["sasrec"], max_tracks=LARGEST_SASREC),
    "sasrec_content": Baseline(
        GRID_SASREC,
        (WARM, COLD, AUDIENCE),
        CANNOT_SASREC["sasrec_content"],
        max_tracks=LARGEST_SASREC,
    ),
    "content_knn": Baseline(
        GRID_CONTENT_KNN, (WARM, COLD, AUDIENCE), CANNOT_FROM_CONTENT["content_knn"]
    ),
}
BASELINES |= {
    name: Baseline(grid, (COLD, AUDIENCE), CANNOT_FROM_CONTENT[name])
    for name, grid in (CONTENT_GRIDS | {PROFILE_AND_ALS: [{}]}).items()
}


class TunedBaselines:
    """The baselines of one library's log, each fitted when it is first needed.

    content: unit vectors by track id, which extend the baselines to cold tracks. texts: the unit
    vector of the text in a fused vector, by track id, which is read beside the content; empty if no
    fused vectors are compared. Randomness: `seed`.
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
        self.config = config
        self.content = _with_texts(content, texts or {})
        self.seed = seed
        self.notes: list[str] = []
        past = before_test(splits, interactions)
        warm, cold = next_tracks(
            past, one_window_earlier(splits), set(content), config, cold_role="validation"
        )
        early_ids = warm.candidates
        late_ids = list(early_ids)
        if config.preference.refit:
            late_ids += role_tracks(splits, "validation", set(content))
        self.early = TrainingMatrix(before_validation(splits, interactions), early_ids, config)
        self.late = TrainingMatrix(past, late_ids, config)
        self.tuning = {WARM: self._sample(warm), COLD: self._sample(cold)}
        self.models: dict[tuple[str, str, bool], Any] = {}  # name, settings, is fitted on late
        self.settings: dict[tuple[str, str], dict[str, Any]] = {}

    def scorers(self, deduplicated: DeduplicatedTask) -> dict[str, Scorer]:
        """Returns a scorer of recordings by method: random, popularity (or activity), baselines."""
        task = deduplicated.tracks
        scorers = {RANDOM: deduplicated.scorer(score_at_random(task, self.seed))}
        if task.seeds_of_candidates:
            counts = dict(self.late.events.group_by(USER_ID).len().iter_rows())
            activity = [counts.get(user_id, 0) for user_id in task.candidates]
            scorers["activity"] = score_by_order(np.array(activity, dtype=np.float64))
        else:
            scorers["popularity"] = score_by_order(deduplicated.plays(self.late.liked))
        for name in self._available(task):
            scorer = self._scorer(name, self._tune(name, task.name), self.late, task)
            scorers[name] = deduplicated.scorer(scorer)
        return scorers

    def _sample(self, task: Task) -> Task:
        n = len(task.queries)
        if n <= MAX_TUNING_USERS:
            return task
        self.notes.append(f"Settings are chosen on {MAX_TUNING_USERS:,} of {n:,} listeners.")
        sample = np.random.default_rng(self.seed).choice(n, MAX_TUNING_USERS, replace=False)
        return task.rows(np.sort(sample))

    def _available(self, task: Task) -> list[str]:
        """Returns the baselines that can answer the task; notes why others cannot."""
        available: list[str] = []
        for name, baseline in BASELINES.items():
            if task.name not in baseline.tasks or name not in self.config.evaluate.baselines:
                continue
            reason = self._hindrance(name, task)
            if reason:
                self.notes.append(
                    f"{display_name(name)} is not measured on {display_name(task.name)}: {reason}"
                )
            else:
                available.append(name)
                self.notes.append(f"{display_name(name)} cannot answer: {baseline.cannot}.")
        return available

    def _hindrance(self, name: str, task: Task) -> str:
        """Returns why a baseline cannot be fitted to this library; "" if it can."""
        n_tracks = len(self.late.track_ids)
        max_tracks = BASELINES[name].max_tracks
        if name in NEED_IMPLICIT and find_spec("implicit") is None:
            return "it needs the package implicit; run: pip install implicit"
        if max_tracks is not None and n_tracks > max_tracks:
            return f"{n_tracks:,} tracks are too many for it; {max_tracks:,} are the most"
        has_queries = bool(self.tuning[_tuning_task(task.name)].queries)
        if name in NEED_IMPLICIT:
            has_queries = has_queries and bool(self.tuning[WARM].queries)
        if not has_queries or not self.early.matrix.nnz:
            return "the validation window holds nothing to choose its settings by."
        if name in SASRECS:
            n_sequences = sum(len(liked) > 1 for liked in self.early.sequences())
            if n_sequences < MIN_SEQUENCES:
                return f"fewer than {MIN_SEQUENCES} listeners liked two tracks."
        if name == MLP_TO_ALS and len(np.unique(self.early.matrix.indices)) < 2:
            return "fewer than two tracks are liked."
        return ""

    def _tune(self, name: str, task_name: str) -> dict[str, Any]:
        """Returns the settings with the highest NDCG@10 on the validation window."""
        tuning_task = _tuning_task(task_name)
        if (name, tuning_task) in self.settings:
            return self.settings[name, tuning_task]
        if len(BASELINES[name].grid) == 1:
            return BASELINES[name].grid[0]
        task = self.tuning[tuning_task]
        grid = {str(point): point for point in BASELINES[name].grid}
        fits = {}
        for label, point in grid.items():
            fits[label] = partial(self._scorer, name, point, self.early, task)
        best = choose(
            fits, lambda scorer: float(np.nanmean(rank_task(task, scorer, 10).metrics["NDCG@10"]))
        )
        self.settings[name, tuning_task] = grid[best]
        for key in list(self.models):
            if key[0] == name and key[1] != best:
                del self.models[key]  # of settings that were not chosen
        settings = [f"{setting} {value:g}" for setting, value in grid[best].items()]
        self.notes.append(
            f"{display_name(name)}, {tuning_task.rpartition('_')[2]}: {', '.join(settings)}, "
            "chosen on the validation window."
        )
        return grid[best]

    def _scorer(
        self, name: str, settings: dict[str, Any], training: "TrainingMatrix", task: Task
    ) -> Scorer:
        """Returns the baseline with these settings, fitted on `training`, as a scorer of `task`."""
        track_ids = task.queries if task.seeds_of_candidates else task.candidates
        users = training.rows(task.candidates if task.seeds_of_candidates else task.queries)
        model: Any
        if name == "content_knn":
            new_content = None if task.name == WARM else self._content(track_ids)
            known = self._content(training.track_ids)
            model = fit_content_knn(training.matrix, known, new_content, **settings)
            if task.seeds_of_candidates:
                matrix = training.matrix[users]
                by_track = model.weights.tocsc()
                return lambda rows: np.asarray((matrix @ by_track[:, rows]).toarray().T)
        elif task.name == WARM:
            model = self._model(name, settings, training)
        if task.name == WARM or name == "content_knn":
            n_candidates = len(track_ids)  # the first columns; validation tracks follow
            return lambda rows: model(users[rows])[:, :n_candidates]
        factors = self._cold_factors(name, settings, training, track_ids)
        if task.seeds_of_candidates:
            return score_by_factors(factors.items, factors.users[users])
        return score_by_factors(factors.users[users], factors.items)

    def _cold_factors(
        self, name: str, settings: dict[str, Any], training: "TrainingMatrix", track_ids: list[str]
    ) -> Factors:
        """Returns the factors of all users of `training` and of these tracks, by their content."""
        if name == PROFILE_AND_ALS:
            terms = []
            for term in SUMMED:
                terms.append(self._cold_factors(term, self._tune(term, COLD), training, track_ids))
            return add_standardised(terms)
        model = self._model(name, settings, training)
        return Factors(model.users, model.items(self._content(track_ids)))

    def _model(self, name: str, settings: dict[str, Any], training: "TrainingMatrix") -> Any:
        if name in NOT_KEPT and training is self.early:
            return self._fit(name, settings, training)
        key = (name, str(settings), training is self.late)
        if key not in self.models:
            self.models[key] = self._fit(name, settings, training)
        return self.models[key]

    def _fit(self, name: str, settings: dict[str, Any], training: "TrainingMatrix") -> Any:
        match name:
            case "item_knn":
                return fit_item_knn(training.matrix, **settings)
            case "ease":
                return fit_ease(training.matrix, **settings)
            case "als":
                return fit_als(training.matrix, **settings, seed=self.seed)
        content = None if name == "sasrec" else self._content(training.track_ids)
        if content is not None and name in CONTENT_GRIDS:
            catalog = self._content(sorted(self.content))
            als = partial(self._als, training)
            likes = TrainingLikes(training.matrix, content, catalog, als, self.seed)
            return fit_content_model(name, likes, settings)
        n_tracks = len(training.track_ids)
        return fit_sasrec(
            training.sequences(), n_tracks, **settings, seed=self.seed, content=content
        )

    def _als(self, training: "TrainingMatrix", factors: int) -> Factors:
        """Returns ALS of so many factors, with the other settings as tuned for warm tracks."""
        settings = self._tune("als", WARM) | {"factors": factors}
        model: Factors = self._model("als", settings, training)
        return model

    def _content(self, track_ids: list[str]) -> np.ndarray:
        return np.stack(pick(self.content, track_ids))


def _with_texts(
    content: Mapping[str, np.ndarray], texts: Mapping[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Returns the content by track id, beside the text where there are texts."""
    if not texts:
        return dict(content)
    no_text = np.zeros_like(next(iter(texts.values())))
    text_vectors = [texts.get(track_id, no_text) for track_id in content]
    joined = beside_text(np.stack(list(content.values())), np.stack(text_vectors))
    return dict(zip(content, joined, strict=True))


def _tuning_task(task_name: str) -> str:
    """Returns the task of the validation window that a task's settings are chosen on."""
    return WARM if task_name == WARM else COLD


class TrainingMatrix:
    """The log up to a moment, as baselines are fitted on."""

    def __init__(self, events: pl.DataFrame, track_ids: list[str], config: Config) -> None:
        self.events = events.filter(pl.col(TRACK_ID).is_in(track_ids))
        self.track_ids = track_ids
        self.users = sorted(self.events[USER_ID].unique())
        self.row_of = {user_id: row for row, user_id in enumerate(self.users)}
        self.min_played_s = config.pairs.min_played_s
        self.liked = self.events.filter(is_positive(self.min_played_s))
        self.matrix = as_matrix(self.events, self.users, track_ids, self.min_played_s)

    def rows(self, user_ids: list[str]) -> np.ndarray:
        """Returns (U,), the matrix rows of users, all of whom have events."""
        return np.array(pick(self.row_of, user_ids), dtype=np.int64)

    def sequences(self) -> list[np.ndarray]:
        """Returns the liked tracks of each user in order, as column numbers."""
        return as_sequences(
            self.events, self.users, self.track_ids, self.min_played_s, MAX_SEQUENCE
        )
