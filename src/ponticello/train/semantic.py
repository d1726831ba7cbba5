"""Stage one: trains the text tower and the audio tower to agree, from a library's tables."""

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl
from transformers import set_seed

from ponticello.config import Config
from ponticello.features.frontend import feature_extractor
from ponticello.model.adapter import fit_feature_projection
from ponticello.model.htcl import HTCL
from ponticello.model.starter import load_starter_weights, starter_fits
from ponticello.splits.splits import Splits, with_role
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import track_texts, track_variants
from ponticello.train.contrastive import RetrievalReport, contrastive_task, require_rows
from ponticello.train.dataset import StageData, open_training_frames, require_splits, track_dataset
from ponticello.train.loop import TrainingObserver, run_loop, training_device
from ponticello.train.runs import (
    TrainedRun,
    finished_run,
    publish_run,
    run_fingerprint,
    training_folder,
)
from ponticello.train.stages import semantic_stage


def train_semantic(
    folder: LibraryPaths,
    name: str,
    retrieval: RetrievalReport,
    *,
    allow_download: bool = False,
    observers: Sequence[TrainingObserver] = (),
) -> TrainedRun:
    """Trains stage one on the training tracks that have audio and text.

    The text tower starts pretrained. An interrupted run of this name continues from its last
    checkpoint; a finished one is returned without training.

    Raises LibraryError if an earlier step is missing, DataError if there is too little data,
    CheckpointError if a run of this name was made with other settings or data, and Stopped after
    SIGTERM.
    """
    config = folder.config
    run = training_folder(folder, name)
    finished = finished_run(run, "semantic", config)
    if finished is not None:
        return finished
    data = _read_data(folder)
    require_rows("semantic", data)
    set_seed(config.semantic.seed)
    model = _build_model(config, data, allow_download)
    model.to(training_device(config.semantic))  # type: ignore[arg-type]
    task = contrastive_task(semantic_stage(config), model, data, retrieval)
    result = run_loop(
        task, run, observers, run_fingerprint("semantic", model, data.training.contents())
    )
    n_rows = len(data.training)
    n_left_out = data.n_candidates - n_rows
    trained = TrainedRun(run, "semantic", n_rows, n_left_out, result.n_steps, result.best)
    return publish_run(trained, model)


def _read_data(folder: LibraryPaths) -> StageData:
    tracks = read_tracks(folder)
    splits = require_splits(folder)
    frames = open_training_frames(folder)
    settings = folder.config.semantic
    texts = dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True))
    variants = _text_variants(tracks, settings.text_variants, settings.seed)
    train_ids = _with_role(texts, splits, "train")
    validation_ids = _with_role(texts, splits, "validation")
    return StageData(
        training=track_dataset(frames, texts, train_ids, variants),
        validation=track_dataset(frames, texts, validation_ids, variants),
        splits=splits,
        n_candidates=len(with_role(splits, "train")),
    )


def _with_role(track_ids: Iterable[str], splits: Splits, role: str) -> list[str]:
    return [track_id for track_id in track_ids if splits.roles.get(track_id) == role]


def _text_variants(tracks: pl.DataFrame, n: int, seed: int) -> dict[str, list[str]]:
    """Returns n - 1 other wordings of each track's text by track id; empty strings without text."""
    variants = {}
    for track_id, wordings in zip(tracks[TRACK_ID], track_variants(tracks, n, seed), strict=True):
        variants[track_id] = wordings[1:] or [""] * (n - 1)
    return variants


def _build_model(config: Config, data: StageData, allow_download: bool) -> HTCL:
    """Returns a fresh model; over a frozen front end its projection is fitted or the starter's."""
    frames = data.training.store
    front_end = feature_extractor(config)
    frame_size = frames.frame_size if front_end else None
    model = HTCL.from_settings(config, allow_download, frame_size, frames.weights)
    if config.semantic.init_from_pretrained and starter_fits(config):
        load_starter_weights(model)
    elif front_end:
        train_ids = _with_role(frames.track_ids, data.splits, "train")
        means = [frames.read(track_id).mean(axis=0, dtype=np.float64) for track_id in train_ids]
        blocks = front_end.blocks(frames.frame_size)
        fit_feature_projection(model.audio_encoder, model.audio_head, np.array(means), blocks)
    return model
