"""A training run from a library's tables to a model folder: stage one, or stage two on top of it.

What a stage reads: frames, texts and roles, and what is computed once before the first step.

The same training with several seeds: what each run is called, and its settings.
"""

import hashlib
import logging
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, set_seed

from ponticello.errors import DataError, LibraryError
from ponticello.features.frontend import feature_extractor, open_frames
from ponticello.features.store import PooledFrames
from ponticello.listening.log import is_positive, scan_interactions
from ponticello.model.adapter import AdapterHead, FeaturePooling, fit_feature_projection
from ponticello.model.config import MODEL_PARTS
from ponticello.model.htcl import HTCL
from ponticello.model.saving import front_end_weights, space_id
from ponticello.model.starter import load_starter_weights, starter_fits
from ponticello.pairs.mine import read_pairs
from ponticello.splits.splits import Splits, load_splits, train_events
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ANCHOR_ID, PLAYED_AT, POSITIVE_ID, TRACK_ID, USER_ID
from ponticello.storage.tables import wrap_read_errors
from ponticello.tracks.catalog import read_stored_table, read_tracks
from ponticello.tracks.text import fused_texts, track_texts
from ponticello.tracks.text_augmentation import track_variants
from ponticello.train.dataset import (
    NO_TEXT,
    Collator,
    Frames,
    TrackTuples,
    pair_dataset,
    track_dataset,
)
from ponticello.train.distributed import launch_info, main_process_first, terminate_gracefully
from ponticello.train.loop import (
    BEST_BY,
    HTCLTrainer,
    LogFile,
    ProgressBar,
    RetrievalReport,
    StopRequest,
    training_arguments,
    training_device,
)
from ponticello.train.losses import TasteAffinity
from ponticello.train.preference_init import (
    init_preference_head,
    init_preference_head_randomly,
    listening_factors,
)
from ponticello.train.runs import (
    RUN_FILE,
    STAGE_ONE,
    STARTER,
    TrainedRun,
    finalize_run,
    finished_run,
    is_finished,
    last_checkpoint,
    note_listening,
    start_run,
    write_record,
)
from ponticello.train.selection import Scorer, SelectionResult, select_weights
from ponticello.train.stages import Stage, preference_stage, semantic_stage

PART_SIZE = 512  # tracks in memory at once


@dataclass(frozen=True)
class StageData:
    """What a stage trains on and is validated on. n_candidates: rows there were before those
    without audio or text.
    """

    training: TrackTuples
    validation: TrackTuples
    splits: Splits
    n_candidates: int


def read_inputs(
    folder: LibraryPaths, stage: Stage, tracks: pl.DataFrame, weights: str = ""
) -> tuple[Frames, dict[str, str], Splits]:
    """What the audio tower reads, the text of every track, and who is held out; LibraryError if
    nothing is.

    Stage two over a frozen front end reads the texts that are fused with the sound (`fused_texts`).
    weights: of the front end under stage one; errors as `open_frames`.
    """
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError("nothing is held out yet; run: ponticello mine-pairs")
    frames = open_frames(folder, folder.config, weights)
    # The tower over a frozen front end only sees a track's mean.
    store = PooledFrames(frames) if folder.config.front_end != "logmel" else frames
    if stage.tracks_per_row == 2:
        return store, fused_texts(tracks, folder.config.front_end), splits
    return store, dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True)), splits


def likes_to_learn(folder: LibraryPaths, splits: Splits) -> pl.DataFrame:
    """Who likes what in the training window, of training tracks alone: user_id and track_id, each
    pair once.

    DataError if the log is damaged.
    """
    liked = is_positive(folder.config.pairs.min_played_s)
    liked_events = scan_interactions(folder).filter(liked).select(USER_ID, TRACK_ID, PLAYED_AT)
    with wrap_read_errors(folder.interactions):
        events = liked_events.collect(engine="streaming")
    return train_events(events, splits).select(USER_ID, TRACK_ID).unique().sort(USER_ID, TRACK_ID)


def text_variants_of(tracks: pl.DataFrame, n: int, seed: int) -> dict[str, list[str]]:
    """n - 1 other wordings of every track's text, by track id; as many empty ones where there is no
    text.
    """
    variants = track_variants(tracks, n, seed)
    return {
        track_id: own[1:] or [""] * (n - 1)
        for track_id, own in zip(tracks[TRACK_ID], variants, strict=True)
    }


def teacher_vectors(model: HTCL, dataset: TrackTuples) -> Tensor:
    """(n, d) the model's unit vector of every track number that stands in a row; the others stay 0."""
    used = sorted({track_id for row in dataset.rows for track_id in row})
    vectors = torch.zeros(len(dataset.texts), model.parts.heads.embed_dim)
    for first in range(0, len(used), PART_SIZE):
        part = used[first : first + PART_SIZE]
        numbers = [dataset.track_numbers[track_id] for track_id in part]
        vectors[numbers] = torch.from_numpy(
            model.encode_mels([dataset.store.read(track_id) for track_id in part])
        )
    return vectors


def compute_text_states(model: HTCL, dataset: TrackTuples) -> Tensor:
    """(n + 1, V, D) the frozen text encoder's vectors of the V wordings of every text number.

    Numbers no track's text has stay 0, and so does the last row, for `NO_TEXT`.
    """
    texts = {
        dataset.text_numbers[track_id]: dataset.wordings(track_id) for track_id in dataset.texts
    }
    texts.pop(NO_TEXT, None)
    n_wordings = len(next(iter(texts.values()), ("",)))
    states = torch.zeros(len(dataset.texts) + 1, n_wordings, model.text_encoder.config.hidden_size)
    if texts:
        distinct = {
            text: place
            for place, text in enumerate(dict.fromkeys(t for own in texts.values() for t in own))
        }
        found = torch.from_numpy(model.encode_text_states(list(distinct)))
        states[list(texts)] = found[
            torch.tensor([[distinct[text] for text in own] for own in texts.values()])
        ]
    return states


logger = logging.getLogger(__name__)

WEIGHTS = "front end weights"  # beside the settings, what a run that goes on must agree with


def train_semantic(
    folder: LibraryPaths,
    name: str,
    retrieval: RetrievalReport,
    *,
    allow_download: bool = False,
    callbacks: list[TrainerCallback] | None = None,
) -> TrainedRun:
    """Stage one on the training tracks that have audio and text, from a pretrained text tower.

    A run of this name that was interrupted goes on where its last checkpoint stands; a finished one
    is returned as it is. LibraryError says which earlier step is missing, DataError that there is
    too little to train on, CheckpointError that a run of this name was made with other settings or
    data, Stopped that SIGTERM ended it.
    """
    run = _run_to_train(folder, name)
    if finished := finished_run(run, "semantic", folder.config):
        return finished
    stage = semantic_stage(folder.config)
    tracks, settings = read_tracks(folder), folder.config.semantic
    store, texts, splits = read_inputs(folder, stage, tracks)
    variants = text_variants_of(tracks, settings.text_variants, settings.seed)
    training, validation = (
        track_dataset(
            store,
            texts,
            [track_id for track_id in texts if splits.roles.get(track_id) == role],
            variants,
        )
        for role in ("train", "validation")
    )
    rows = StageData(
        training, validation, splits, sum(role == "train" for role in splits.roles.values())
    )
    _require_rows(stage, rows)
    set_seed(stage.settings.seed)
    front_end = feature_extractor(folder.config)
    frame_size = store.frame_size if front_end else None
    model = HTCL.from_settings(folder.config, allow_download, frame_size, store.weights)
    if folder.config.semantic.init_from_pretrained and starter_fits(folder.config):
        load_starter_weights(model)
    elif (
        front_end
        and isinstance(model.audio_encoder, FeaturePooling)
        and isinstance(model.audio_head, AdapterHead)
    ):
        heard = [track_id for track_id in store.track_ids if splits.roles.get(track_id) == "train"]
        means = np.array(
            [store.read(track_id).mean(axis=0, dtype=np.float64) for track_id in heard]
        )
        fit_feature_projection(
            model.audio_encoder, model.audio_head, means, front_end.blocks(store.frame_size)
        )
    _place(model, training_device(stage.settings))
    return _train(run, stage, model, rows, retrieval, callbacks or [])


def train_preference(
    folder: LibraryPaths,
    name: str,
    start: str,
    retrieval: RetrievalReport,
    *,
    judge: Scorer | None = None,
    callbacks: list[TrainerCallback] | None = None,
) -> TrainedRun:
    """Stage two on the mined pairs, from the finished stage-one run `start`, heads included.

    judge: measures a model on what is held out for validation; with it the weights that are kept
    lie so far from `start` as helps taste and loses no more meaning than
    `preference.max_semantic_drop` (`train/selection.py`). Resumes and raises like `train_semantic`.
    """
    run = _run_to_train(folder, name)
    begun_from = space_id(folder.run(start)) if is_finished(folder.run(start)) else None
    if finished := finished_run(run, "preference", folder.config, begun_from):
        return finished
    if begun_from is None or not finished_run(folder.run(start), "semantic", None):
        raise LibraryError(
            f"run {start!r} is not a finished stage one; train it with: ponticello train semantic"
        )
    if not folder.validation_pairs.is_file():
        raise LibraryError("there are no validation pairs; run: ponticello mine-pairs")
    settings, stage = folder.config.preference, preference_stage(folder.config)
    store, texts, splits = read_inputs(
        folder, stage, read_tracks(folder), front_end_weights(folder.run(start))
    )
    tables = read_pairs(folder), read_stored_table(folder.validation_pairs)
    training, validation = (pair_dataset(store, texts, pairs) for pairs in tables)
    rows = StageData(training, validation, splits, tables[0].n_unique([ANCHOR_ID, POSITIVE_ID]))
    _require_rows(stage, rows)
    likes = likes_to_learn(folder, splits)
    factors = listening_factors(
        training, likes, folder.config.heads.preference_dim, folder.config.pairs.min_users
    )
    if settings.multi_positive:
        stage = preference_stage(folder.config, TasteAffinity(factors))
    set_seed(stage.settings.seed)

    model = HTCL.from_pretrained(folder.run(start))
    model.use_settings(folder.config)
    if settings.reset_heads:
        model.reset_heads()
    if model.is_anchored and settings.init == "random":
        init_preference_head_randomly(model)  # drawn before it is placed: the same on any device
    _place(model, training_device(settings))
    if model.is_anchored and settings.init == "ridge":
        init_preference_head(model, training, factors, compute_text_states(model, training)[:, 0])
    begun = (
        {"begun": _place(deepcopy(model), torch.device("cpu"))}
        if model.is_anchored and judge
        else {}
    )
    teacher = teacher_vectors(model, training) if settings.distillation_weight else None

    def finish(trained: HTCL) -> tuple[HTCL, SelectionResult | None]:
        if judge is None:
            return trained, None
        first = _place(HTCL.from_pretrained(folder.run(start)), trained.device)
        ends = {
            "trained": trained,
            **{name: _place(each, trained.device) for name, each in begun.items()},
        }
        kept, balance = select_weights(first, ends, judge, settings.max_semantic_drop)
        kept.config.vector = balance.vector
        return kept, balance

    if launch_info()[0] == 0:
        note_listening(folder, run)
    return _train(run, stage, model, rows, retrieval, callbacks or [], teacher, finish, begun_from)


def _place(model: nn.Module, device: torch.device) -> Any:
    """`model` itself, moved to a device."""
    return model.to(device)


def _run_to_train(folder: LibraryPaths, name: str) -> Path:
    if name == STARTER:
        raise LibraryError(
            f"run {name!r} is the model that comes with the package; choose another --name"
        )
    return folder.run(name)


def _train(
    run: Path,
    stage: Stage,
    model: HTCL,
    rows: StageData,
    retrieval: RetrievalReport,
    callbacks: list[TrainerCallback],
    teacher: Tensor | None = None,
    finish: Callable[[HTCL], tuple[HTCL, SelectionResult | None]] = lambda trained: (trained, None),
    begun_from: str | None = None,
) -> TrainedRun:
    """Trains until the schedule or the patience ends, keeps the best weights, and writes the run's
    folder.

    finish: what becomes of the best weights before they are written. begun_from: the space of stage
    one, in stage two.
    """
    stopping = StopRequest()
    bar = ProgressBar(f"stage {stage.name}") if launch_info()[0] == 0 else None
    shown: list[TrainerCallback] = [bar] if bar else []
    trainer = _trainer(run, stage, model, rows, retrieval, [*shown, stopping, *callbacks], teacher)
    checkpoints, parts = run / "checkpoints", model.parts
    if launch_info()[0] == 0:
        start_run(run, {**_start(stage, model, rows.training), STAGE_ONE: begun_from})
    try:
        with terminate_gracefully(stopping.tell):
            trainer.go_on(last_checkpoint(checkpoints))
    finally:
        if bar:
            bar.stop()  # which hides the cursor while it is there
    stopping.require_end()
    # another process may still be reading the best checkpoint
    trainer.accelerator.wait_for_everyone()
    record: dict[str, Any] = {
        "stage": stage.name,
        "n_rows": len(rows.training),
        "n_left_out": rows.n_candidates - len(rows.training),
        "n_steps": trainer.state.global_step,
        "best": _best_validation(trainer.state.log_history),
    }
    with (
        main_process_first()
    ):  # on a large catalogue the balance takes longer than a collective waits
        if trainer.args.should_save:
            kept, balance = finish(model)
            record["balance"] = (
                {**asdict(balance), "sentence": balance.sentence()} if balance else None
            )
            kept.save_pretrained(run / "finished")
            finalize_run(run / "finished", run)
            settings = parts.model_dump(mode="json")
            write_record(run / RUN_FILE, {**record, STAGE_ONE: begun_from, "settings": settings})
            shutil.rmtree(checkpoints, ignore_errors=True)
    return TrainedRun(folder=run, **record)


def _trainer(
    run: Path,
    stage: Stage,
    model: HTCL,
    rows: StageData,
    retrieval: RetrievalReport,
    callbacks: list[TrainerCallback],
    teacher: Tensor | None,
) -> HTCLTrainer:
    """What trains the stage, and writes the run's log."""
    training, parts, n_processes = rows.training, model.parts, launch_info()[1]
    batch_size = _batch_size(stage, training)
    n_batches = len(training) // (batch_size * n_processes)
    collator = Collator(
        model.tokenizer,
        parts.mel if parts.front_end == "logmel" else None,
        model.audio_encoder.min_frames,
        parts.text.max_tokens,
        None if parts.text.trainable else compute_text_states(model, training),
        teacher,
    )
    stage.freeze_idle(model)
    return HTCLTrainer(
        model,
        stage,
        training,
        rows.validation,
        collator,
        training_arguments(stage.settings, run / "checkpoints", batch_size, n_batches),
        frozenset(track_id for track_id, role in rows.splits.roles.items() if role == "validation"),
        retrieval,
        [LogFile(run / "log.jsonl"), *callbacks],
    )


def _require_rows(stage: Stage, rows: StageData) -> None:
    """DataError if there are too few rows to train on, before anything is computed or written for
    them.
    """
    n_training, n_validation = len(rows.training), len(rows.validation)
    if min(n_training // launch_info()[1], n_validation) < 2:
        until = "; until then stage one answers alone" if stage.tracks_per_row == 2 else ""
        raise DataError(
            f"stage {stage.name}: {n_training} training and {n_validation} validation {_rows_of(stage)}; at least 2 of "
            f"each are needed: import more tracks or listening, lower pairs.min_users, or change the splits{until}"
        )


def _batch_size(stage: Stage, training: TrackTuples) -> int:
    """The stage's batch size, or less where there are fewer rows, said aloud."""
    batch_size = min(stage.settings.batch_size, len(training) // launch_info()[1])
    if batch_size < stage.settings.batch_size:
        wanted, n_rows = stage.settings.batch_size, len(training)
        logger.warning(
            "batch size %d instead of %d: there are %d %s",
            batch_size,
            wanted,
            n_rows,
            _rows_of(stage),
        )
    return batch_size


def _rows_of(stage: Stage) -> str:
    return (
        "tracks with audio and text"
        if stage.tracks_per_row == 1
        else "pairs with audio and text on both sides"
    )


def _start(stage: Stage, model: HTCL, training: TrackTuples) -> dict[str, Any]:
    """What a run that goes on must still agree with: settings, and the very rows in their order."""
    rows = hashlib.sha256(
        repr([training.rows, sorted(training.texts.items())]).encode()
    ).hexdigest()
    parts = model.parts.model_dump(mode="json")
    made_of = {
        **{part: parts[part] for part in MODEL_PARTS},
        WEIGHTS: model.config.front_end_weights or None,
    }
    return {stage.name: parts[stage.name], **made_of, "training rows": rows}


def _best_validation(history: list[dict[str, float]]) -> dict[str, float]:
    """The validation whose weights were kept: the first with the highest mean reciprocal rank."""
    validations = [entry for entry in history if BEST_BY in entry]
    best = max(validations, key=lambda entry: entry[BEST_BY], default={})
    return {name.removeprefix("eval_"): value for name, value in best.items()}


def seed_run(name: str, number: int) -> str:
    """The run of the `number`-th seed, from 1: `semantic`, `semantic-2`, `semantic-3`, ..."""
    return name if number == 1 else f"{name}-{number}"


def with_seed(
    folder: LibraryPaths, stage: Literal["semantic", "preference"], number: int
) -> LibraryPaths:
    """`folder` with the stage's configured seed plus `number` - 1."""
    settings = getattr(folder.config, stage)
    seeded = settings.model_copy(update={"seed": settings.seed + number - 1})
    return replace(folder, config=folder.config.model_copy(update={stage: seeded}))
