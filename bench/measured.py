"""What is asked of every method on a library of the benches, meaning and taste, and how a variant of it is trained."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ponticello.config import Config
from ponticello.data.catalog import artists_of, read_tracks
from ponticello.data.columns import TRACK_ID
from ponticello.data.interactions import read_interactions
from ponticello.data.splits import load_splits
from ponticello.data.text import track_texts
from ponticello.evaluate.collapse import collapse
from ponticello.evaluate.contenders import Contenders
from ponticello.evaluate.intervals import bootstrap_mean
from ponticello.evaluate.probe import probe_scores
from ponticello.evaluate.ranking import Scorer, rank_task
from ponticello.evaluate.scorers import by_profile
from ponticello.evaluate.semantic import music_to_music_scores, retrieval_scores
from ponticello.evaluate.tasks import next_tracks
from ponticello.library import Folder

LABELS = ("genres", "machine_tags")
TASTE = ("cold NDCG@10", "cold AUC")
Done = TypeVar("Done")
Measured = dict[str, dict[str, np.ndarray]]  # {method: {metric: a number a query}} of one library
ROUNDS = 1000


def trained(folder: Folder, train: Callable[[Folder], Done], changed: Mapping[str, Any], seed: int) -> Done:
    """What `train` gives with the settings of a variant, its weights drawn from `seed`. changed: nested settings."""
    settings = folder.config.model_dump(mode="json")
    for part, values in changed.items():
        settings[part] |= values
    for stage in ("semantic", "preference"):
        settings[stage]["seed"] = seed
    return train(replace(folder, config=Config.model_validate(settings)))


class Asked:
    """What is asked of every method of a library: listeners and cold tracks, texts, labels; test tracks only.

    ids, texts: of every track, by id; test: the rows of the test tracks.
    """

    def __init__(self, folder: Folder) -> None:
        tracks = read_tracks(folder).sort(TRACK_ID)
        splits, log = load_splits(folder), read_interactions(folder)
        assert splits is not None
        self.ids, self.texts = tracks[TRACK_ID].to_list(), track_texts(tracks)
        self.roles = [splits.roles[track_id] for track_id in self.ids]
        artists = artists_of(tracks)
        self.clusters = [artists.get(track_id, track_id) for track_id in self.ids]
        self.labels = {column: tracks[column].to_list() for column in LABELS}
        self.config, self.log, self.splits = folder.config, log, splits
        _, self.cold = next_tracks(log, splits, set(self.ids), folder.config)
        self.test = [row for row, role in enumerate(self.roles) if role == "test"]

    def measure(self, vectors: np.ndarray, texts: np.ndarray | None) -> dict[str, np.ndarray]:
        """A number a query in every metric; vectors: (n, d) unit, texts: (n, d) of a method that has a text tower."""
        scorer = by_profile(self.cold, [(1.0, dict(zip(self.ids, vectors, strict=True)))], self.config.search)
        found = self._ranked(scorer)
        queries, clusters = [self.ids[row] for row in self.test], [self.clusters[row] for row in self.test]
        if texts is not None:
            scores = retrieval_scores({"m": texts[self.test]}, {"m": vectors[self.test]}, queries, clusters)
            wanted = {("text to audio", "R@10"), ("text to audio", "MRR")}
            found |= {f"text {s.metric}": s.by_method["m"] for s in scores if (s.task, s.metric) in wanted}
        for column, labels in self.labels.items():
            probed, _ = probe_scores({"m": vectors}, labels, self.roles, self.ids, self.clusters, column)
            if probed:
                found[f"{column} probe"] = probed[0].by_method["m"]
            sets = [set(labels[row] or ()) for row in self.test]
            near = music_to_music_scores({"m": vectors[self.test]}, sets, queries, clusters, column)
            if near:
                found[f"same {column}"] = near[0].by_method["m"]
        return found

    def regress(self, vectors: np.ndarray) -> dict[str, np.ndarray]:
        """The ALS factors of the listening before the test window, regressed from the vectors, tuned on validation."""
        content = dict(zip(self.ids, vectors, strict=True))
        config = self.config.model_copy(
            update={"evaluate": self.config.evaluate.model_copy(update={"baselines": ("vectors to factors",)})}
        )
        scorers = Contenders(self.log, self.splits, content, {}, config, 0).scorers(collapse(self.cold, {}))
        return self._ranked(scorers["vectors to factors"])

    def _ranked(self, scorer: Scorer) -> dict[str, np.ndarray]:
        metrics = rank_task(self.cold, scorer, 10).metrics
        return {name: metrics[name.removeprefix("cold ")] for name in TASTE}


def table(libraries: Sequence[Measured], against: str) -> str:
    """A row a method: the mean over all libraries' queries; in brackets the interval of its paired gap to `against`.

    Queries of all libraries count alike: each has its own listeners and test tracks. A cell is empty where nothing was
    measured.
    """
    methods = list(dict.fromkeys(method for one in libraries for method in one))
    metrics = list(dict.fromkeys(name for one in libraries for found in one.values() for name in found))
    lines = ["| | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method in methods:
        cells = []
        for metric in metrics:
            pairs = [
                (one[method][metric], one[against].get(metric)) for one in libraries if metric in one.get(method, {})
            ]
            if not pairs:
                cells.append("")
                continue
            cell = f"{np.nanmean(np.concatenate([own for own, _ in pairs])):.3f}"
            if method != against and all(other is not None for _, other in pairs):
                gaps = np.concatenate([own - other for own, other in pairs])
                _, low, high = bootstrap_mean(gaps, None, ROUNDS, 0)
                cell += f" [{low:+.3f}, {high:+.3f}]"
            cells.append(cell)
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
