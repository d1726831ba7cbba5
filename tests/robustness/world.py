"""A small library to be broken: sounds, texts and listeners from a seed, models of seconds."""

import shutil
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.config import SimulationConfig
from ponticello.datasets.simulated import simulate_listeners
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.features.prepare import prepare_features
from ponticello.library import Library
from ponticello.listening.importers.run import import_history
from ponticello.pairs.mine import mine_library
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import audio_files, import_tracks
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic
from tests.logmel import toml
from tests.robustness.children import in_child
from tests.synthetic import SyntheticCatalogue, make_catalogue
from tests.tiny_bert import make_text_encoder

N_TRACKS, N_ARTISTS, SECONDS = 48, 16, 3.0
STAGE = {
    "batch_size": 8,
    "max_steps": 24,
    "min_steps": 0,
    "min_validations": 1,
    "early_stopping_patience": 2,
    "audio_lr": 1e-3,
    "heads_lr": 1e-3,
}
# Crops, dropout and wordings are drawn at each step, so a resumed run that draws others shows.
SETTINGS: dict[str, Any] = {
    "front_end": "logmel",
    "audio": {"crop_seconds": 2.0},
    "heads": {"hidden_sizes": [64], "embed_dim": 32, "fusion_hidden_sizes": [32], "dropout": 0.1},
    "pairs": {"sources": ["feedback", "session", "playlist"], "max_pairs_per_track": 10},
    "semantic": {**STAGE, "eval_steps": 3, "text_variants": 2},
    "preference": {**STAGE, "eval_steps": 4, "distillation_weight": 0.0},
}


def make_world(root: Path, seed: int, *, train: bool = False) -> Path:
    """Makes root/library with tracks, listening, log-mels and pairs; with `train` also both runs
    and an index.
    """

    def make() -> None:
        catalogue = make_catalogue(N_TRACKS, N_ARTISTS, SECONDS, seed)
        table = catalogue.write(root / "sounds")
        make_text_encoder(root / "bert")
        library = make_library(root / "library", table, simulated_log(catalogue, 60, seed))
        if train:
            train_both(library.folder.root)
            library.embed("semantic", "preference")

    in_child(make)
    return root / "library"


def simulated_log(catalogue: SyntheticCatalogue, n_listeners: int, seed: int) -> pl.DataFrame:
    """Returns the events of simulated listeners."""
    config = SimulationConfig(n_listeners=n_listeners, seed=seed)
    return simulate_listeners(catalogue.tracks[TRACK_ID].to_list(), catalogue.traits, config)


def make_library(root: Path, table: Path, log: pl.DataFrame) -> Library:
    """Returns a library of tracks and events, prepared and mined; `bert` beside it is its text
    encoder.
    """
    Library.create(root, "tiny")
    write_settings(root, SETTINGS)
    folder = Library.open(root).folder
    log.write_csv(root / "log.csv")
    import_tracks(folder, table)
    import_history(folder, root / "log.csv", pseudonyms=False)
    with folder.lock():
        prepare_features(folder, audio_files(folder))
        mine_library(folder)
    return Library.open(root)


def write_settings(root: Path, settings: dict[str, Any]) -> None:
    """Writes the library's ponticello.toml."""
    text = toml({"text": {"name": (root.parent / "bert").as_posix()}, **settings})
    (root / "ponticello.toml").write_text(text, encoding="utf-8")


def generation_of(root: Path) -> Path:
    """Returns the folder of the live index; its name is the hash of its content."""
    return root / "index" / (root / "index" / "CURRENT").read_text(encoding="utf-8").strip()


def train_stage(root: Path, stage: str) -> Path:
    """Trains one stage, or resumes its training; returns the run's folder."""
    folder = Library.open(root).folder
    if stage == "semantic":
        return train_semantic(folder, "semantic", retrieval_figures).folder
    return train_preference(folder, "preference", "semantic", retrieval_figures).folder


def train_both(root: Path) -> None:
    """Both stages."""
    for stage in ("semantic", "preference"):
        train_stage(root, stage)


def copy_library(source: Path, target: Path) -> Path:
    """Replaces `target` by a copy of the library, to be broken."""
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(source, target))
