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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from freemusic import prepared, world
from measured import Asked, table, trained
from ponticello.evaluate.baselines import unit
from ponticello.evaluate.content_baselines import beside_text
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.evaluate.validation import score_spaces_on_validation
from ponticello.evaluate.vectors import BlendedTower, frame_means, mel_statistics
from ponticello.features.store import FeatureStore
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import load_splits
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic

SERVED = "stage two"
STAGE_ONE = "stage one"
TEXT = "text only"
PREFERENCE = "preference space alone"
# Rows of the table: settings on top of the defaults. "Stage two" is both spaces at the default
# blend; the other rows are, too.
VARIANTS: dict[str, dict[str, Any]] = {
    SERVED: {},
    "the regression alone": {"preference": {"epochs_tried": []}},
    "listener sets alone": {"preference": {"regression_l2_tried": []}},
    "no loss of words": {"preference": {"words_loss_weight": 0.0}},
    "no modality dropout": {"preference": {"modality_dropout": 0.0}},
    "not fitted again": {"preference": {"refit": False}},
}
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
        "MusiCNN": frame_means(frames, ids, training),
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
        train = lambda lib, run=run: train_preference(  # noqa: E731
            lib,
            run,
            "semantic",
            retrieval_figures,
            space_scorer=score_spaces_on_validation(lib),
        )
        done = trained(own, train, VARIANTS[name], seed)
        assert done.selection is not None
        model = HTCL.from_pretrained(own.run(run))
        tracks = [frames.read(track_id) for track_id in ids]
        fused = model.encode_fused(tracks, beside)
        served = BlendedTower([first, model], [audio, fused], ask.texts, own.config.search.blend)
        text = served.encode_text(ask.texts)
        one.measured[name] = ask.measure(served.tracks, text, hold_text=True)
        if name == SERVED:
            text = model.encode_text(ask.texts)
            one.measured[PREFERENCE] = ask.measure(fused, text, hold_text=True)
            one.measured[f"{PREFERENCE} -> ALS factors"] = ask.regress(fused)
        print(f"seed {seed}: {name}: {done.selection['sentence']}", flush=True)
    return one


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
