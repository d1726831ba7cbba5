"""What every part of the method is worth: each switched off, meaning and taste side by side, over
seeds.

    python bench/ablate.py PATH/TO/freemusic --seeds 5 --work WORK_FOLDER --json figures.json

Every seed draws its own game- and artist-disjoint split, its own SIMULATED listeners and its own
initial weights.
Prints Markdown: the tables of `docs/benchmarks.md`. WORK_FOLDER keeps the prepared frames, so that
a second run is quick; each seed's library in it is made anew.
"""

import argparse
import json
import shutil
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from freemusic import prepared, world
from measured import Asked, table, trained
from ponticello.config import PreferenceConfig
from ponticello.evaluate.baselines import beside_text, unit
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.evaluate.validation import score_on_validation
from ponticello.evaluate.vectors import frame_means, mel_statistics
from ponticello.features.musicnn_frontend import TAGGERS_SIZE
from ponticello.features.store import FeatureStore
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import load_splits
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts
from ponticello.train.preference import train_preference
from ponticello.train.selection import Scorer, ValidationScores, is_significant_gain
from ponticello.train.semantic import train_semantic

SERVED = "stage two"
STAGE_ONE = "stage one"
TEXT = "text only"
TRAINED = (
    "as trained"  # stage two's last word, fused, without a choice between it and what it began from
)
# Rows of the table: settings on top of the defaults. A row that is chosen is what the command would
# serve.
CHOSEN: dict[str, dict[str, Any]] = {
    SERVED: {},
    "any loss of meaning allowed": {"preference": {"max_semantic_drop": 1e9}},
    "without co-occurrence pairs": {"pairs": {"sources": ["feedback", "session", "playlist"]}},
    "50 pairs a track": {"pairs": {"max_pairs_per_track": 50}},
    "pairs twice as likely as chance": {"pairs": {"min_lift": 2.0}},
}
AS_TRAINED: dict[str, dict[str, Any]] = {
    TRAINED: {},
    f"{TRAINED}, audio-text loss too": {"preference": {"audio_text_loss_weight": 1.0}},
    f"{TRAINED}, audio-fusion loss too": {"preference": {"audio_fusion_loss_weight": 1.0}},
    f"{TRAINED}, audio-fusion loss alone": {
        "preference": {"audio_audio_loss_weight": 0.0, "audio_fusion_loss_weight": 1.0}
    },
    f"{TRAINED}, no teacher": {"preference": {"distillation_weight": 0.0}},
    f"{TRAINED}, partners alone as targets": {"preference": {"multi_positive": False}},
    f"{TRAINED}, beginning at random": {"preference": {"init": "random"}},
    f"{TRAINED}, the paper's losses alone": {
        "preference": {
            "audio_text_loss_weight": 1.0,
            "audio_fusion_loss_weight": 1.0,
            "distillation_weight": 0.0,
            "multi_positive": False,
            "init": "random",
        }
    },
    f"{TRAINED}, no pre-training": {"preference": {"reset_heads": True}},
}
VARIANTS = {**CHOSEN, **AS_TRAINED}
EIGHT_WORDINGS = f"{STAGE_ONE}, eight wordings a text"


@dataclass(frozen=True)
class World:
    """One seed's library and what is asked of it. measured: {method: {metric: a number a query}};
    drawn: `ResolvedQuery`'s.
    """

    folder: LibraryPaths
    seed: int
    measured: dict[str, dict[str, np.ndarray]]
    drawn: dict[str, list[str]]


def run_seed(
    work: Path,
    base: LibraryPaths,
    source: Path,
    seed: int,
    settings: dict[str, Any],
    chosen: list[str],
) -> World:
    """Trains every variant on the seed's library and measures it, and what it stands beside."""
    root = work / f"seed-{seed}"
    shutil.rmtree(root, ignore_errors=True)
    folder = world(root, base, source, seed, settings)
    ask = Asked(folder)
    one = World(folder, seed, {}, ask.drawn)
    splits = load_splits(folder)
    assert splits is not None
    store, frames = FeatureStore(folder.mels), FeatureStore(folder.frames)
    ids = sorted(read_tracks(folder)[TRACK_ID])
    training = [track_id for track_id in ids if splits.roles[track_id] == "train"]
    catalogue = read_tracks(folder).sort(TRACK_ID)
    told = HTCL.from_settings(folder.config)
    states = told.encode_text_states(ask.texts)
    beside = told.encode_text_states(list(fused_texts(catalogue, folder.config.front_end).values()))
    trained(folder, lambda own: train_semantic(own, "semantic", retrieval_figures), {}, seed)
    first = HTCL.from_pretrained(folder.run("semantic"))
    vectors = {
        "mel statistics": mel_statistics(store, ids, training),
        "MusiCNN": frame_means(frames, ids, training, TAGGERS_SIZE),
        TEXT: unit(states),
    }
    for method, found in vectors.items():
        one.measured[method] = ask.measure(found, None, hold_text=method == TEXT)
    audio = first.encode_features([frames.read(track_id) for track_id in ids])
    one.measured[STAGE_ONE] = ask.measure(audio, first.encode_text(ask.texts))
    both = {
        f"{method} and text": beside_text(heard, beside)
        for method, heard in {"MusiCNN": vectors["MusiCNN"], STAGE_ONE: audio}.items()
    }
    for method, found in both.items():
        one.measured[method] = ask.measure(found, None, hold_text=True)
    for method, found in {**vectors, STAGE_ONE: audio, **both}.items():
        one.measured[f"{method} -> ALS factors"] = ask.regress(found)
    fixed = {"semantic": {"text_variants": 8}}
    trained(
        folder, lambda own: train_semantic(own, "eight-wordings", retrieval_figures), fixed, seed
    )
    one.measured[EIGHT_WORDINGS] = ask.measure(
        audio, HTCL.from_pretrained(folder.run("eight-wordings")).encode_text(ask.texts)
    )
    for name in chosen:
        own = folder
        if "pairs" in VARIANTS[name]:
            shutil.rmtree(work / f"seed-{seed}-pairs", ignore_errors=True)
            own = world(
                work / f"seed-{seed}-pairs", base, source, seed, {**settings, **VARIANTS[name]}
            )
            shutil.copytree(folder.run("semantic"), own.run("semantic"))
        run = "".join(
            letter for letter in name.replace(" ", "-") if letter.isalnum() or letter == "-"
        )
        scorer = Watched(score_on_validation(own)) if name in CHOSEN else None
        train = lambda lib, run=run, scorer=scorer: train_preference(  # noqa: E731
            lib, run, "semantic", retrieval_figures, scorer=scorer
        )
        done = trained(own, train, VARIANTS[name], seed)
        model = HTCL.from_pretrained(own.run(run))
        tracks = [frames.read(track_id) for track_id in ids]
        audio, text = model.encode_features(tracks), model.encode_text(ask.texts)
        fused = model.encode_fused(tracks, beside)
        is_fused = name in AS_TRAINED or model.config.vector == "fused"
        one.measured[name] = ask.measure(fused if is_fused else audio, text, hold_text=is_fused)
        if name == SERVED:
            one.measured[f"{name}, audio"] = ask.measure(audio, text)
            one.measured[f"{name}, fused"] = ask.measure(fused, text, hold_text=True)
            one.measured[f"{name} -> ALS factors"] = ask.regress(audio)
            one.measured[f"{name}, fused -> ALS factors"] = ask.regress(fused)
        kept = (
            f"{done.selection['endpoint']} {done.selection['alpha']:g} {done.selection['vector']}"
            if done.selection
            else "its end"
        )
        by_chance = (
            f"; by chance alone a gain stands out in {left_by_chance(scorer.seen, seed):.0%}"
            if scorer
            else ""
        )
        print(f"seed {seed}: {name}: {done.n_steps} steps; kept: {kept}{by_chance}", flush=True)
    return one


@dataclass
class Watched:
    """A scorer that remembers what it said: of stage one first, as `select_weights` asks."""

    scorer: Scorer
    seen: list[ValidationScores] = field(default_factory=list)

    def __call__(self, model: HTCL) -> ValidationScores:
        self.seen.append(self.scorer(model))
        return self.seen[-1]


def left_by_chance(seen: Sequence[ValidationScores], seed: int, rounds: int = 500) -> float:
    """How often some position would stand out from stage one if no listener gained: each listener's
    gaps, all positions and vectors together, get the other sign or do not, by a coin. Budgets of
    meaning are left aside, so it is at most.
    """
    start = seen[0].by_user["audio"]
    gaps = np.stack(
        [found - start for one in seen[1:] for found in one.by_user.values()]
    )  # (options, listeners)
    flips = np.random.default_rng(seed).choice((-1.0, 1.0), (rounds, len(start)))
    baseline = np.zeros(len(start))
    confidence = PreferenceConfig().gain_confidence
    n_rounds_with_gain = 0
    for flip in flips:
        if any(is_significant_gain(gap, baseline, confidence) for gap in gaps * flip):
            n_rounds_with_gain += 1
    return n_rounds_with_gain / rounds


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        worlds.append(
            run_seed(options.work, base, options.source, seed, dict(settings), options.only)
        )
        print(f"seed {seed} done after {time.monotonic() - started:.0f} s", flush=True)
    if options.json:
        record = {
            one.seed: {
                m: {k: v.tolist() for k, v in found.items()} for m, found in one.measured.items()
            }
            for one in worlds
        }
        options.json.write_text(json.dumps(record))
    seconds = time.monotonic() - started
    print(f"\n{len(worlds)} seeds, {seconds:.0f} s; brackets: minus {SERVED}, paired\n")
    print(
        table(
            [one.measured for one in worlds],
            SERVED if SERVED in options.only else STAGE_ONE,
            [one.drawn for one in worlds],
        )
    )


if __name__ == "__main__":
    main()
