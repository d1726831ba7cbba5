"""What is asked of every method on a library of the benches, meaning and taste, and how a variant
of it is trained.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ponticello.config import Config
from ponticello.evaluate.labels import probe_scores
from ponticello.evaluate.results import Scores
from ponticello.evaluate.retrieval import music_to_music_scores, retrieval_scores
from ponticello.evaluate.tasks import (
    Scorer,
    deduplicate_task,
    next_tracks,
    rank_task,
    score_by_profile,
)
from ponticello.evaluate.tuning import TunedBaselines
from ponticello.listening.log import read_interactions
from ponticello.metrics.bootstrap import bootstrap_mean
from ponticello.splits.splits import load_splits
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.names import lead_artists
from ponticello.tracks.text import track_texts

LABELS = ("genres", "machine_tags")
TASTE = ("cold NDCG@10", "cold AUC")
Done = TypeVar("Done")
Measured = dict[str, dict[str, np.ndarray]]  # {method: {metric: a number a query}} of one library
ROUNDS = 1000


def trained(
    folder: LibraryPaths,
    train: Callable[[LibraryPaths], Done],
    changed: Mapping[str, Any],
    seed: int,
) -> Done:
    """What `train` gives with the settings of a variant, its weights drawn from `seed`. changed:
    nested settings.
    """
    settings = folder.config.model_dump(mode="json")
    for part, values in changed.items():
        settings[part] |= values
    for stage in ("semantic", "preference"):
        settings[stage]["seed"] = seed
    return train(replace(folder, config=Config.model_validate(settings)))


class Asked:
    """What is asked of every method of a library: listeners and cold tracks, texts, labels; test
    tracks only.

    ids, texts: of every track, by id; test: the rows of the test tracks. drawn: {metric: a name a
    query}, what a
    bootstrap draws together: artists, labels; filled as metrics are measured. Listeners are drawn
    alone.
    """

    def __init__(self, folder: LibraryPaths) -> None:
        tracks = read_tracks(folder).sort(TRACK_ID)
        splits, log = load_splits(folder), read_interactions(folder)
        assert splits is not None
        self.ids, self.texts = tracks[TRACK_ID].to_list(), track_texts(tracks)
        self.roles = [splits.roles[track_id] for track_id in self.ids]
        artists = lead_artists(tracks)
        self.clusters = [artists.get(track_id, track_id) for track_id in self.ids]
        self.labels = {column: tracks[column].to_list() for column in LABELS}
        self.config, self.log, self.splits = folder.config, log, splits
        _, self.cold = next_tracks(log, splits, set(self.ids), folder.config)
        self.test = [row for row, role in enumerate(self.roles) if role == "test"]
        self.drawn: dict[str, list[str]] = {}

    def measure(
        self, vectors: np.ndarray, texts: np.ndarray | None, *, hold_text: bool = False
    ) -> dict[str, np.ndarray]:
        """A number a query in every metric; vectors: (n, d) unit, texts: (n, d) of a method that
        has a text tower.

        hold_text: the vectors hold the text, labels and all, so no label is to be read off them.
        """
        scorer = score_by_profile(
            self.cold, [(1.0, dict(zip(self.ids, vectors, strict=True)))], self.config.search
        )
        found = self._ranked(scorer)
        queries, clusters = (
            [self.ids[row] for row in self.test],
            [self.clusters[row] for row in self.test],
        )
        if texts is not None:
            scores = retrieval_scores(
                {"m": texts[self.test]}, {"m": vectors[self.test]}, queries, clusters
            )
            wanted = {("text_to_audio", "R@10"), ("text_to_audio", "MRR")}
            found |= {
                f"text {s.metric}": self._kept(f"text {s.metric}", s)
                for s in scores
                if (s.task, s.metric) in wanted
            }
        for column, labels in self.labels.items():
            if not hold_text:
                probed, _ = probe_scores(
                    {"m": vectors}, labels, self.roles, self.ids, self.clusters, column
                )
                found |= {
                    f"{column} probe": self._kept(f"{column} probe", one) for one in probed[:1]
                }
            sets = [set(labels[row] or ()) for row in self.test]
            near = music_to_music_scores({"m": vectors[self.test]}, sets, queries, clusters, column)
            found |= {f"same {column}": self._kept(f"same {column}", one) for one in near[:1]}
        return found

    def regress(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """The ALS factors of the listening before the test window, regressed from the vectors,
        tuned on validation.
        """
        content = dict(zip(self.ids, vectors, strict=True))
        config = self.config.model_copy(
            update={
                "evaluate": self.config.evaluate.model_copy(
                    update={"baselines": ("content_to_als",)}
                )
            }
        )
        scorers = TunedBaselines(self.log, self.splits, content, config, 0).scorers(
            deduplicate_task(self.cold, {})
        )
        return self._ranked(scorers["content_to_als"])

    def _ranked(self, scorer: Scorer) -> dict[str, np.ndarray]:
        metrics = rank_task(self.cold, scorer, 10).metrics
        return {name: metrics[name.removeprefix("cold ")] for name in TASTE}

    def _kept(self, name: str, scores: Scores) -> np.ndarray:
        self.drawn[name] = scores.clusters or scores.queries
        return scores.by_method["m"]


def table(
    libraries: Sequence[Measured], against: str, drawn: Sequence[Mapping[str, Sequence[str]]] = ()
) -> str:
    """A row a method: the mean over all libraries' queries; in brackets the interval of its paired
    gap to `against`.

    Queries of all libraries count alike. drawn: {metric: a name a query} of each library: what has
    one name is drawn together, in whichever libraries it is, but for listeners, of whom each
    library has its own; without it every query is drawn alone. A cell is empty where nothing was
    measured.
    """
    methods = list(dict.fromkeys(method for one in libraries for method in one))
    metrics = list(
        dict.fromkeys(name for one in libraries for found in one.values() for name in found)
    )
    lines = ["| | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method in methods:
        cells = []
        for metric in metrics:
            pairs = [
                (one[method][metric], one[against].get(metric))
                for one in libraries
                if metric in one.get(method, {})
            ]
            if not pairs:
                cells.append("")
                continue
            cell = f"{np.nanmean(np.concatenate([own for own, _ in pairs])):.3f}"
            if method != against and all(other is not None for _, other in pairs):
                gaps = np.concatenate([own - other for own, other in pairs])
                _, low, high = bootstrap_mean(
                    gaps, _clusters(libraries, method, metric, drawn), ROUNDS, 0
                )
                cell += f" [{low:+.3f}, {high:+.3f}]"
            cells.append(cell)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _clusters(
    libraries: Sequence[Measured],
    method: str,
    metric: str,
    drawn: Sequence[Mapping[str, Sequence[str]]],
) -> np.ndarray | None:
    """(queries,) a number a name, over all libraries that measured the metric; None where all are
    drawn alone.
    """
    if not drawn or metric in TASTE:
        return None
    names = [
        names[metric]
        for one, names in zip(libraries, drawn, strict=True)
        if metric in one.get(method, {})
    ]
    return np.unique([name for some in names for name in some], return_inverse=True)[1]
