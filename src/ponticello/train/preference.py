"""Stage two: trains a finished stage one further on listening."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor
from transformers import set_seed

from ponticello.config import Config, PreferenceConfig
from ponticello.errors import LibraryError
from ponticello.features.frontend import feature_extractor
from ponticello.model.htcl import HTCL
from ponticello.model.saving import front_end_weights, space_id
from ponticello.pairs.mine import read_pairs
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ANCHOR_ID, POSITIVE_ID
from ponticello.tracks.catalog import read_stored_table, read_tracks
from ponticello.tracks.text import fused_texts
from ponticello.train.contrastive import RetrievalReport, contrastive_task, require_rows
from ponticello.train.dataset import (
    StageData,
    TrackTuples,
    open_training_frames,
    pair_dataset,
    require_splits,
)
from ponticello.train.distributed import launch_info
from ponticello.train.loop import TrainingObserver, run_loop, training_device
from ponticello.train.preference_space import PreferenceScorer, train_preference_space
from ponticello.train.runs import (
    TrainedRun,
    finished_run,
    is_finished,
    log_sha256,
    note_listening,
    publish_run,
    run_fingerprint,
    training_folder,
)
from ponticello.train.selection import Scorer, SelectionResult, select_weights
from ponticello.train.stages import preference_stage

TEACHER_BATCH = 512  # tracks with their frames in memory at once


def train_preference(
    folder: LibraryPaths,
    name: str,
    start: str,
    retrieval: RetrievalReport,
    *,
    scorer: Scorer | None = None,
    space_scorer: PreferenceScorer | None = None,
    observers: Sequence[TrainingObserver] = (),
) -> TrainedRun:
    """Trains stage two from the finished stage-one run `start`.

    Over log-mels it trains the towers further on the mined pairs, as the paper does; over a frozen
    front end it trains a preference space beside the semantic one (`preference_space.py`).

    scorer: measures a model of log-mels on the validation tracks and listeners. With it the saved
        weights are chosen between `start` and the trained ones (`train/selection.py`); without it
        the trained weights are saved.
    space_scorer: the same for a preference space, as `train_preference_space`.
    Resumes and raises like `train_semantic`.
    """
    config = folder.config
    run = training_folder(folder, name)
    start_folder = folder.run(start)
    stage_one_id = space_id(start_folder) if is_finished(start_folder) else None
    finished = finished_run(run, "preference", config, stage_one_id)
    if finished is not None:
        return finished
    if stage_one_id is None or not finished_run(start_folder, "semantic", None):
        raise LibraryError(
            f"run {start!r} is not a finished stage one; train it with: ponticello train semantic"
        )
    read_sha256 = log_sha256(folder.interactions)
    if feature_extractor(config) is not None:
        require_log(folder)
        return train_preference_space(
            folder, run, start_folder, stage_one_id, read_sha256, space_scorer, observers
        )
    data = _read_data(folder, start_folder)
    require_rows("preference", data)
    set_seed(config.preference.seed)
    model = _initial_model(config, start_folder)
    teacher = None
    if config.preference.distillation_weight:
        teacher = teacher_vectors(model, data.training)
    select = None
    if scorer is not None:
        select = partial(_select, start_folder, scorer=scorer, settings=config.preference)
    if launch_info()[0] == 0:
        note_listening(folder, run, read_sha256)
    task = contrastive_task(preference_stage(config), model, data, retrieval, teacher)
    contents = data.training.contents()
    fingerprint = run_fingerprint("preference", model, contents, stage_one_id)
    result = run_loop(task, run, observers, fingerprint)
    n_rows = len(data.training)
    n_left_out = data.n_candidates - n_rows
    trained = TrainedRun(run, "preference", n_rows, n_left_out, result.n_steps, result.best)
    return publish_run(trained, model, select=select, stage_one_space_id=stage_one_id)


def require_log(folder: LibraryPaths) -> None:
    """Raises LibraryError without a listening log."""
    if not folder.interactions.is_file():
        raise LibraryError(
            "there is no listening to learn from",
            code="no_log",
            remedy="ponticello import-history FILE",
            library=folder.root,
        )


def _read_data(folder: LibraryPaths, start_folder: Path) -> StageData:
    if not folder.validation_pairs.is_file():
        raise LibraryError(
            "there are no validation pairs",
            code="no_pairs",
            remedy="ponticello mine-pairs",
            library=folder.root,
        )
    tracks = read_tracks(folder)
    splits = require_splits(folder)
    frames = open_training_frames(folder, front_end_weights(start_folder))
    texts = fused_texts(tracks, folder.config.front_end)
    pairs = read_pairs(folder)
    validation_pairs = read_stored_table(folder.validation_pairs)
    return StageData(
        training=pair_dataset(frames, texts, pairs),
        validation=pair_dataset(frames, texts, validation_pairs),
        splits=splits,
        n_candidates=pairs.n_unique([ANCHOR_ID, POSITIVE_ID]),
    )


def _initial_model(config: Config, start_folder: Path) -> HTCL:
    """Returns the stage-one model as stage two starts from it, on the device of the training."""
    model = HTCL.from_pretrained(start_folder)
    model.use_settings(config)
    if config.preference.reset_heads:
        model.reset_heads()
    model.to(training_device(config.preference))  # type: ignore[arg-type]
    return model


def teacher_vectors(model: HTCL, dataset: TrackTuples) -> Tensor:
    """Returns the unit vectors (n, d) by track number; zeros for tracks that are in no row."""
    track_ids = sorted(set(chain.from_iterable(dataset.rows)))
    vectors = torch.zeros(len(dataset.texts), model.settings.heads.embed_dim)
    for start in range(0, len(track_ids), TEACHER_BATCH):
        batch_ids = track_ids[start : start + TEACHER_BATCH]
        numbers = [dataset.track_numbers[track_id] for track_id in batch_ids]
        features = [dataset.store.read(track_id) for track_id in batch_ids]
        vectors[numbers] = torch.from_numpy(model.encode_features(features))
    return vectors


def _select(
    start_folder: Path, trained: HTCL, *, scorer: Scorer, settings: PreferenceConfig
) -> tuple[HTCL, SelectionResult]:
    """Returns the model to save and how it was chosen."""
    stage_one = HTCL.from_pretrained(start_folder)
    stage_one.to(trained.device)  # type: ignore[arg-type]
    selected, selection = select_weights(stage_one, trained, scorer, settings)
    selected.config.vector = selection.vector
    return selected, selection
