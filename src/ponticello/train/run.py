"""A training run from a library's tables to a model folder: stage one, or stage two on top of it."""

import hashlib
import logging
import shutil
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback, set_seed

from ponticello.data.catalog import read_tracks, stored_table
from ponticello.data.columns import ANCHOR_ID, POSITIVE_ID
from ponticello.data.dataset import Collator, TrackTuples, pair_dataset, track_dataset
from ponticello.data.forget import note_listening
from ponticello.data.pairs import read_pairs
from ponticello.errors import DataError, LibraryError
from ponticello.library import Folder
from ponticello.model.frame_encoder import AnchoredHead, FrameEncoder, fit_front_end
from ponticello.model.front_end import front_end_of
from ponticello.model.htcl import HTCL
from ponticello.model.htcl_config import MODEL_PARTS
from ponticello.model.space import front_end_weights, space_id
from ponticello.model.starter import lay_starter, starter_fits
from ponticello.train.arguments import BEST_BY, training_arguments, training_device
from ponticello.train.balance import Balance, Judge, choose_balance
from ponticello.train.checkpoints import begin, last_checkpoint, publish, write_record
from ponticello.train.departure import begin_at_random, begin_departure, listening_factors
from ponticello.train.distributed import launched, while_first_works
from ponticello.train.finished import RUN_FILE, STAGE_ONE, STARTER, TrainedRun, finished_run, is_finished
from ponticello.train.inputs import Rows, likes_to_learn, read_inputs, teacher_of, text_states_of, wordings_of
from ponticello.train.losses import TasteGraph
from ponticello.train.lost import told_to_stop
from ponticello.train.progress import LogFile, ProgressBar
from ponticello.train.stages import Stage, preference_stage, semantic_stage
from ponticello.train.stop import Stopping
from ponticello.train.trainer import HTCLTrainer, RetrievalReport

logger = logging.getLogger(__name__)

WEIGHTS = "front end weights"  # beside the settings, what a run that goes on must agree with


def train_semantic(
    folder: Folder,
    name: str,
    retrieval: RetrievalReport,
    *,
    allow_download: bool = False,
    callbacks: list[TrainerCallback] | None = None,
) -> TrainedRun:
    """Stage one on the training tracks that have audio and text, from a pretrained text tower.

    A run of this name that was interrupted goes on where its last checkpoint stands; a finished one is returned as it
    is. LibraryError says which earlier step is missing, DataError that there is too little to train on,
    CheckpointError that a run of this name was made with other settings or data, Stopped that SIGTERM ended it.
    """
    run = _run_to_train(folder, name)
    if finished := finished_run(run, "semantic", folder.config):
        return finished
    stage = semantic_stage(folder.config)
    tracks, settings = read_tracks(folder), folder.config.semantic
    store, texts, splits = read_inputs(folder, stage, tracks)
    variants = wordings_of(tracks, settings.text_variants, settings.seed)
    training, validation = (
        track_dataset(store, texts, [track_id for track_id in texts if splits.roles.get(track_id) == role], variants)
        for role in ("train", "validation")
    )
    rows = Rows(training, validation, splits, sum(role == "train" for role in splits.roles.values()))
    _require_rows(stage, rows)
    set_seed(stage.settings.seed)
    front_end = front_end_of(folder.config)
    frame_size = store.frame_size if front_end else None
    model = HTCL.from_settings(folder.config, allow_download, frame_size, store.weights)
    if folder.config.semantic.from_starter and starter_fits(folder.config):
        lay_starter(model)
    elif front_end and isinstance(model.audio_encoder, FrameEncoder) and isinstance(model.audio_head, AnchoredHead):
        heard = [track_id for track_id in store.track_ids if splits.roles.get(track_id) == "train"]
        means = np.array([store.read(track_id).mean(axis=0, dtype=np.float64) for track_id in heard])
        fit_front_end(model.audio_encoder, model.audio_head, means, front_end.blocks(store.frame_size))
    _place(model, training_device(stage.settings))
    return _train(run, stage, model, rows, retrieval, callbacks or [])


def train_preference(
    folder: Folder,
    name: str,
    start: str,
    retrieval: RetrievalReport,
    *,
    judge: Judge | None = None,
    callbacks: list[TrainerCallback] | None = None,
) -> TrainedRun:
    """Stage two on the mined pairs, from the finished stage-one run `start`, heads included.

    judge: measures a model on what is held out for validation; with it the weights that are kept lie so far from
    `start` as helps taste and loses no more meaning than `preference.meaning_budget` (`train/balance.py`).
    Resumes and raises like `train_semantic`.
    """
    run = _run_to_train(folder, name)
    begun_from = space_id(folder.run(start)) if is_finished(folder.run(start)) else None
    if finished := finished_run(run, "preference", folder.config, begun_from):
        return finished
    if begun_from is None or not finished_run(folder.run(start), "semantic", None):
        raise LibraryError(f"run {start!r} is not a finished stage one; train it with: ponticello train semantic")
    if not folder.validation_pairs.is_file():
        raise LibraryError("there are no validation pairs; run: ponticello pairs")
    settings, stage = folder.config.preference, preference_stage(folder.config)
    store, texts, splits = read_inputs(folder, stage, read_tracks(folder), front_end_weights(folder.run(start)))
    tables = read_pairs(folder), stored_table(folder.validation_pairs)
    training, validation = (pair_dataset(store, texts, pairs) for pairs in tables)
    rows = Rows(training, validation, splits, tables[0].n_unique([ANCHOR_ID, POSITIVE_ID]))
    _require_rows(stage, rows)
    likes = likes_to_learn(folder, splits)
    factors = listening_factors(training, likes, folder.config.heads.taste_dim, folder.config.pairs.min_listeners)
    if settings.multi_positive:
        stage = preference_stage(folder.config, TasteGraph(factors))
    set_seed(stage.settings.seed)

    model = HTCL.from_pretrained(folder.run(start))
    model.use_settings(folder.config)
    if settings.reset_heads:
        model.reset_heads()
    if model.is_anchored and not settings.begin_from_listening:
        begin_at_random(model)  # drawn before it is placed: the same on any device
    _place(model, training_device(settings))
    if model.is_anchored and settings.begin_from_listening:
        begin_departure(model, training, factors, text_states_of(model, training)[:, 0])
    begun = {"begun": _place(deepcopy(model), torch.device("cpu"))} if model.is_anchored and judge else {}
    teacher = teacher_of(model, training) if settings.keep else None

    def finish(trained: HTCL) -> tuple[HTCL, Balance | None]:
        if judge is None:
            return trained, None
        first = _place(HTCL.from_pretrained(folder.run(start)), trained.device)
        ends = {"trained": trained, **{name: _place(each, trained.device) for name, each in begun.items()}}
        kept, balance = choose_balance(first, ends, judge, settings.meaning_budget)
        kept.config.vector = balance.vector
        return kept, balance

    if launched()[0] == 0:
        note_listening(folder, run)
    return _train(run, stage, model, rows, retrieval, callbacks or [], teacher, finish, begun_from)


def _place(model: nn.Module, device: torch.device) -> Any:
    """`model` itself, moved to a device."""
    return model.to(device)


def _run_to_train(folder: Folder, name: str) -> Path:
    if name == STARTER:
        raise LibraryError(f"run {name!r} is the model that comes with the package; choose another --name")
    return folder.run(name)


def _train(
    run: Path,
    stage: Stage,
    model: HTCL,
    rows: Rows,
    retrieval: RetrievalReport,
    callbacks: list[TrainerCallback],
    teacher: Tensor | None = None,
    finish: Callable[[HTCL], tuple[HTCL, Balance | None]] = lambda trained: (trained, None),
    begun_from: str | None = None,
) -> TrainedRun:
    """Trains until the schedule or the patience ends, keeps the best weights, and writes the run's folder.

    finish: what becomes of the best weights before they are written. begun_from: the space of stage one, in stage two.
    """
    stopping = Stopping()
    bar = ProgressBar(f"stage {stage.name}") if launched()[0] == 0 else None
    shown: list[TrainerCallback] = [bar] if bar else []
    trainer = _trainer(run, stage, model, rows, retrieval, [*shown, stopping, *callbacks], teacher)
    checkpoints, parts = run / "checkpoints", model.parts
    if launched()[0] == 0:
        begin(run, {**_start(stage, model, rows.training), STAGE_ONE: begun_from})
    try:
        with told_to_stop(stopping.tell):
            trainer.go_on(last_checkpoint(checkpoints))
    finally:
        if bar:
            bar.stop()  # which hides the cursor while it is there
    stopping.require_end()
    trainer.accelerator.wait_for_everyone()  # another process may still be reading the best checkpoint
    record: dict[str, Any] = {
        "stage": stage.name,
        "n_rows": len(rows.training),
        "n_left_out": rows.n_candidates - len(rows.training),
        "n_steps": trainer.state.global_step,
        "best": _best_validation(trainer.state.log_history),
    }
    with while_first_works():  # on a large catalogue the balance takes longer than a collective waits
        if trainer.args.should_save:
            kept, balance = finish(model)
            record["balance"] = {**asdict(balance), "sentence": balance.sentence()} if balance else None
            kept.save_pretrained(run / "finished")
            publish(run / "finished", run)
            settings = parts.model_dump(mode="json")
            write_record(run / RUN_FILE, {**record, STAGE_ONE: begun_from, "settings": settings})
            shutil.rmtree(checkpoints, ignore_errors=True)
    return TrainedRun(folder=run, **record)


def _trainer(
    run: Path,
    stage: Stage,
    model: HTCL,
    rows: Rows,
    retrieval: RetrievalReport,
    callbacks: list[TrainerCallback],
    teacher: Tensor | None,
) -> HTCLTrainer:
    """What trains the stage, and writes the run's log."""
    training, parts, n_processes = rows.training, model.parts, launched()[1]
    batch_size = _batch_size(stage, training)
    n_batches = len(training) // (batch_size * n_processes)
    collator = Collator(
        model.tokenizer,
        parts.mel if parts.front_end == "logmel" else None,
        model.audio_encoder.min_frames,
        parts.text.max_tokens,
        None if parts.text.trainable else text_states_of(model, training),
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


def _require_rows(stage: Stage, rows: Rows) -> None:
    """DataError if there are too few rows to train on, before anything is computed or written for them."""
    n_training, n_validation = len(rows.training), len(rows.validation)
    if min(n_training // launched()[1], n_validation) < 2:
        until = "; until then stage one answers alone" if stage.tracks_per_row == 2 else ""
        raise DataError(
            f"stage {stage.name}: {n_training} training and {n_validation} validation {_rows_of(stage)}; at least 2 of "
            f"each are needed: import more tracks or listening, lower pairs.min_listeners, or change the splits{until}"
        )


def _batch_size(stage: Stage, training: TrackTuples) -> int:
    """The stage's batch size, or less where there are fewer rows, said aloud."""
    batch_size = min(stage.settings.batch_size, len(training) // launched()[1])
    if batch_size < stage.settings.batch_size:
        wanted, n_rows = stage.settings.batch_size, len(training)
        logger.warning("batch size %d instead of %d: there are %d %s", batch_size, wanted, n_rows, _rows_of(stage))
    return batch_size


def _rows_of(stage: Stage) -> str:
    return "tracks with audio and text" if stage.tracks_per_row == 1 else "pairs with audio and text on both sides"


def _start(stage: Stage, model: HTCL, training: TrackTuples) -> dict[str, Any]:
    """What a run that goes on must still agree with: settings, and the very rows in their order."""
    rows = hashlib.sha256(repr([training.rows, sorted(training.texts.items())]).encode()).hexdigest()
    parts = model.parts.model_dump(mode="json")
    made_of = {**{part: parts[part] for part in MODEL_PARTS}, WEIGHTS: model.config.front_end_weights or None}
    return {stage.name: parts[stage.name], **made_of, "training rows": rows}


def _best_validation(history: list[dict[str, float]]) -> dict[str, float]:
    """The validation whose weights were kept: the first with the highest mean reciprocal rank."""
    validations = [entry for entry in history if BEST_BY in entry]
    best = max(validations, key=lambda entry: entry[BEST_BY], default={})
    return {name.removeprefix("eval_"): value for name, value in best.items()}
