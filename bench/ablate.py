"""What every part of the method is worth: each switched off, meaning and taste side by side, over seeds.

    python bench/ablate.py PATH/TO/freemusic --seeds 5 --work WORK_FOLDER --json figures.json

Every seed draws its own game- and artist-disjoint split, its own SIMULATED listeners and its own initial weights.
Prints Markdown: the tables of `docs/benchmarks.md`. WORK_FOLDER keeps the prepared frames, so that a second run is
quick; each seed's library in it is made anew.
"""

import argparse
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from freemusic import prepared, world
from ponticello.config import Config
from ponticello.data.catalog import artists_of, read_tracks
from ponticello.data.columns import TRACK_ID
from ponticello.data.interactions import read_interactions
from ponticello.data.splits import load_splits
from ponticello.data.store import FrameStore
from ponticello.data.text import track_texts
from ponticello.evaluate.baselines import frame_means, mel_statistics, unit
from ponticello.evaluate.contenders import Contenders
from ponticello.evaluate.guard import judge_on_validation
from ponticello.evaluate.intervals import bootstrap_mean
from ponticello.evaluate.probe import probe_scores
from ponticello.evaluate.ranking import Scorer, rank_task
from ponticello.evaluate.scorers import by_profile
from ponticello.evaluate.semantic import music_to_music_scores, retrieval_figures, retrieval_scores
from ponticello.evaluate.tasks import next_tracks
from ponticello.library import Folder
from ponticello.model.front_end import N_TAGGED
from ponticello.model.htcl import HTCL
from ponticello.train.run import train_preference, train_semantic

ROUNDS = 1000
LABELS = ("genres", "machine_tags")
TASTE = ("cold NDCG@10", "cold AUC")
SERVED = "stage two"
STAGE_ONE = "stage one"
# What is switched off, by row of the table: settings of stage two on top of the defaults.
VARIANTS: dict[str, dict[str, Any]] = {
    SERVED: {},
    "without audio-text loss": {"preference": {"audio_text": 0.0}},
    "without audio-audio loss": {"preference": {"audio_audio": 0.0}},
    "without audio-fusion loss": {"preference": {"audio_fusion": 0.0}},
    "without the teacher": {"preference": {"keep": 0.0}},
    "without multi-positives": {"preference": {"multi_positive": False}},
    "without interpolation": {"preference": {"meaning_budget": 1e9}},
    "without teacher and interpolation": {"preference": {"keep": 0.0, "meaning_budget": 1e9}},
    "without co-occurrence pairs": {"pairs": {"sources": ["feedback", "session", "playlist"]}},
    "without pre-training": {"preference": {"reset_heads": True}},
}


@dataclass(frozen=True)
class World:
    """One seed's library and what is asked of it. measured: {method: {metric: a number a query}}."""

    folder: Folder
    seed: int
    measured: dict[str, dict[str, np.ndarray]]


def run_seed(work: Path, base: Folder, source: Path, seed: int, settings: dict[str, Any], chosen: list[str]) -> World:
    """Trains every variant on the seed's library and measures it, and what it stands beside."""
    root = work / f"seed-{seed}"
    shutil.rmtree(root, ignore_errors=True)
    folder = world(root, base, source, seed, settings)
    one = World(folder, seed, {})
    ask = _asked(folder)
    splits = load_splits(folder)
    assert splits is not None
    store, frames = FrameStore(folder.mels), FrameStore(folder.frames)
    ids = sorted(read_tracks(folder)[TRACK_ID])
    training = [track_id for track_id in ids if splits.roles[track_id] == "train"]
    states = HTCL.from_settings(folder.config).encode_text_states(ask.texts)
    _run(folder, lambda own: train_semantic(own, "semantic", retrieval_figures), {}, seed)
    first = HTCL.from_pretrained(folder.run("semantic"))
    vectors = {
        "mel statistics": mel_statistics(store, ids, training),
        "MusiCNN": frame_means(frames, ids, training, N_TAGGED),
        "text only": unit(states),
    }
    for method, found in vectors.items():
        one.measured[method] = ask.measure(found, None)
    audio = first.encode_mels([frames.read(track_id) for track_id in ids])
    one.measured[STAGE_ONE] = ask.measure(audio, first.encode_text(ask.texts))
    for method, found in {**vectors, STAGE_ONE: audio}.items():
        one.measured[f"{method} -> ALS factors"] = ask.regress(found)
    for name in chosen:
        own = folder
        if "pairs" in VARIANTS[name]:
            shutil.rmtree(work / f"seed-{seed}-pairs", ignore_errors=True)
            own = world(work / f"seed-{seed}-pairs", base, source, seed, {**settings, **VARIANTS[name]})
            shutil.copytree(folder.run("semantic"), own.run("semantic"))
        run = name.replace(" ", "-")
        judge = judge_on_validation(own)
        train = lambda lib, run=run, judge=judge: train_preference(  # noqa: E731
            lib, run, "semantic", retrieval_figures, judge=judge
        )
        done = _run(own, train, VARIANTS[name], seed)
        model = HTCL.from_pretrained(own.run(run))
        tracks = [frames.read(track_id) for track_id in ids]
        audio, text = model.encode_mels(tracks), model.encode_text(ask.texts)
        fused = model.encode_fused(tracks, states)
        one.measured[name] = ask.measure(audio, text)
        if name == SERVED:
            one.measured[f"{name}, fused"] = ask.measure(fused, None)
            one.measured[f"{name} -> ALS factors"] = ask.regress(audio)
        print(f"seed {seed}: {name}: {done.n_steps} steps; {done.balance}"[:160], flush=True)
    return one


def _run(folder: Folder, train: Callable[[Folder], Any], changed: Mapping[str, Any], seed: int) -> Any:
    """Trains with the settings of a variant, its weights drawn from `seed`."""
    settings = folder.config.model_dump(mode="json")
    for part, values in changed.items():
        settings[part] |= values
    for stage in ("semantic", "preference"):
        settings[stage]["seed"] = seed
    return train(replace(folder, config=Config.model_validate(settings)))


class _asked:
    """What is asked of every method of a library: listeners and cold tracks, texts, labels; test tracks only."""

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
        scorers = Contenders(self.log, self.splits, content, {}, config, 0).scorers(self.cold)
        return self._ranked(scorers["vectors to factors"])

    def _ranked(self, scorer: Scorer) -> dict[str, np.ndarray]:
        metrics = rank_task(self.cold, scorer, 10).metrics
        return {name: metrics[name.removeprefix("cold ")] for name in TASTE}


def table(worlds: list[World], against: str) -> str:
    """A row a method: the mean over all seeds' queries; in brackets the interval of the paired difference to `against`.

    Queries of all seeds count alike: each seed has its own listeners and test tracks.
    """
    methods = list(dict.fromkeys(method for one in worlds for method in one.measured))
    metrics = list(dict.fromkeys(name for one in worlds for found in one.measured.values() for name in found))
    lines = ["| | " + " | ".join(metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method in methods:
        cells = []
        for metric in metrics:
            pairs = [
                (one.measured[method][metric], one.measured[against].get(metric))
                for one in worlds
                if metric in one.measured.get(method, {})
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


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="the freemusic folder")
    parser.add_argument("--work", type=Path, required=True, help="where libraries are made")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--set", action="append", default=[], help="section.key=value for all")
    parser.add_argument("--json", type=Path, help="every number of every query")
    options = parser.parse_args()
    started = time.monotonic()
    base = prepared(options.work / "base", options.source, options.workers)
    settings: dict[str, dict[str, Any]] = defaultdict(dict)
    for setting in options.set:
        path, value = setting.split("=", 1)
        section, key = path.split(".")
        settings[section][key] = json.loads(value)
    worlds = []
    for seed in range(options.first_seed, options.first_seed + options.seeds):
        worlds.append(run_seed(options.work, base, options.source, seed, dict(settings), options.only))
        print(f"seed {seed} done after {time.monotonic() - started:.0f} s", flush=True)
    if options.json:
        record = {
            one.seed: {m: {k: v.tolist() for k, v in found.items()} for m, found in one.measured.items()}
            for one in worlds
        }
        options.json.write_text(json.dumps(record))
    print(f"\n{len(worlds)} seeds, {time.monotonic() - started:.0f} s; brackets: minus {SERVED}, paired\n")
    print(table(worlds, SERVED if SERVED in options.only else STAGE_ONE))


if __name__ == "__main__":
    main()
