"""A small made-up library to be broken: sounds, texts and listeners from a seed, and models that
train in seconds.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.config import SimulationConfig
from ponticello.datasets.simulated import simulate_listeners
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.features.prepare import prepare_features
from ponticello.library import Library
from ponticello.listening.log import import_interactions
from ponticello.pairs.mine import mine_library
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import audio_files, import_tracks
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic
from tests.robustness.children import in_child
from tests.synthetic import make_catalogue
from tests.tiny_bert import make_text_encoder

N_TRACKS, N_ARTISTS, SECONDS = 48, 16, 3.0
STAGE = {
    "batch_size": 8,
    "max_steps": 24,
    "min_steps": 0,
    "early_stopping_patience": 2,
    "audio_lr": 1e-3,
    "heads_lr": 1e-3,
}
# Crops, dropout and wordings are drawn anew at each step: whatever of that a resumed run draws
# otherwise shows.
SETTINGS: dict[str, Any] = {
    "front_end": "logmel",
    "audio": {"crop_seconds": 2.0},
    "heads": {"hidden_sizes": [64], "embed_dim": 32, "fusion_hidden_sizes": [32], "dropout": 0.1},
    "pairs": {"sources": ["feedback", "session", "playlist"], "max_pairs_per_track": 10},
    "semantic": {**STAGE, "eval_steps": 3, "text_variants": 2},
    "preference": {**STAGE, "eval_steps": 4, "distillation_weight": 0.0, "multi_positive": False},
}


def settings_toml(text_encoder: Path, settings: dict[str, Any] = SETTINGS) -> str:
    """The text of a ponticello.toml with preset tiny."""
    tables = {"text": {"name": text_encoder.as_posix()}, **settings}
    lines = ['preset = "tiny"']
    lines += [
        f"{key} = {json.dumps(value)}"
        for key, value in tables.items()
        if not isinstance(value, dict)
    ]
    for section, values in tables.items():
        if isinstance(values, dict):
            lines += [
                f"[{section}]",
                *(f"{key} = {json.dumps(value)}" for key, value in values.items()),
            ]
    return "\n".join(lines) + "\n"


def make_world(root: Path, seed: int, *, train: bool = False) -> Path:
    """The library at root/library: tracks, listening, log-mels and pairs; with `train` both runs
    and an index too.
    """

    def make() -> None:
        catalogue = make_catalogue(N_TRACKS, N_ARTISTS, SECONDS, seed)
        table = catalogue.write(root / "sounds")
        config = SimulationConfig(n_listeners=60, seed=seed)
        log = simulate_listeners(catalogue.tracks[TRACK_ID].to_list(), catalogue.traits, config)
        log.write_csv(root / "sounds" / "log.csv")
        library = new_library(root / "library", make_text_encoder(root / "bert"))
        import_tracks(library.folder, table)
        import_interactions(library.folder, root / "sounds" / "log.csv")
        with library.folder.lock():
            prepare_features(library.folder, audio_files(library.folder))
            mine_library(library.folder)
        if train:
            train_both(root / "library")
            Library.open(root / "library").embed("semantic", "preference")

    in_child(make)
    return root / "library"


def new_library(root: Path, text_encoder: Path) -> Library:
    """An empty library with the suite's settings."""
    Library.create(root, "tiny")
    (root / "ponticello.toml").write_text(settings_toml(text_encoder), encoding="utf-8")
    return Library.open(root)


def train_stage(root: Path, stage: str) -> Path:
    """Trains, or goes on training, one stage of the library at `root`; the run's folder."""
    folder = Library.open(root).folder
    if stage == "semantic":
        return train_semantic(folder, "semantic", retrieval_figures).folder
    return train_preference(folder, "preference", "semantic", retrieval_figures).folder


def train_both(root: Path) -> None:
    """Both stages."""
    for stage in ("semantic", "preference"):
        train_stage(root, stage)


def copy_library(source: Path, target: Path) -> Path:
    """A copy that may be broken."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))


def track_ids(root: Path) -> list[str]:
    """The catalogue's, sorted; in a child only."""
    return sorted(pl.read_parquet(root / "tracks.parquet")[TRACK_ID].to_list())
