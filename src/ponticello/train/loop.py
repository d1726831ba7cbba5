"""The training loop of both stages: a `transformers.Trainer`, its callbacks, the run's folder.

A run that gets SIGTERM finishes its step, writes a checkpoint and stops. Started again, it ends
with the losses and weights of a run that was not stopped.
"""

import hashlib
import json
import logging
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments

from ponticello.config import StageConfig
from ponticello.errors import DataError, LibraryError, Stopped
from ponticello.model.batching import random_crop
from ponticello.model.config import MODEL_SECTIONS
from ponticello.model.htcl import HTCL, Embeddings
from ponticello.model.saving import report_write_errors
from ponticello.splits.splits import with_role
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths
from ponticello.train.dataset import NO_TEXT, Collator, StageData, TrackTuples, compute_text_states
from ponticello.train.distributed import launch_info, main_process_first, terminate_gracefully
from ponticello.train.gradcache import VECTOR_NAMES, cached_backward
from ponticello.train.runs import (
    RUN_FILE,
    STARTER,
    TrainedRun,
    finalize_run,
    last_checkpoint,
    mark_complete,
    read_unlogged,
    start_run,
    write_record,
    write_unlogged,
)
from ponticello.train.selection import SelectionResult
from ponticello.train.stages import Stage, StageName, decays, learning_rate

logger = logging.getLogger(__name__)

LOG_EVERY = 5  # steps; logged loss terms are means over them
VALIDATION_ROWS = 2048  # at most; the validation loss contrasts all of them at once
# Not the loss: with few tracks it rises with confidence while the ranking still improves.
BEST_BY = "eval_mrr"
ROW_NAMES = {
    "semantic": "tracks with audio and text",
    "preference": "pairs with audio and text on both sides",
}
TEXT_INPUTS = ("text_states", "input_ids", "attention_mask")  # (B, V, ...), V wordings a text
LOSS_INPUTS = ("track_numbers", "text_numbers", "teacher")  # of a batch; the model takes the others

RetrievalReport = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
"""(queries (n, d), items (m, d), targets (n,)) -> metrics with "mrr"; passed in, since `evaluate`
imports this package."""


def training_device(settings: StageConfig) -> torch.device:
    """Returns the device that the Trainer will use for a stage."""
    return training_arguments(settings, Path(), batch_size=2, steps_per_epoch=1).device


def training_arguments(
    settings: StageConfig, checkpoints: Path, batch_size: int, steps_per_epoch: int
) -> TrainingArguments:
    """Returns a stage's settings as arguments of the Trainer."""
    is_distributed = "WORLD_SIZE" in os.environ
    has_gpu = torch.cuda.is_available()
    max_steps = settings.max_steps
    if max_steps < 1 and settings.epochs * steps_per_epoch < settings.min_steps:
        max_steps = settings.min_steps
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=batch_size,
        num_train_epochs=settings.epochs,
        max_steps=max_steps,
        learning_rate=settings.heads_lr,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_share,
        lr_scheduler_type="cosine" if settings.schedule == "cosine" else "constant_with_warmup",
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        # bf16 needs it; without it each of several processes would silently train alone.
        use_cpu=(settings.bf16 or is_distributed) and not has_gpu,
        seed=settings.seed,
        data_seed=settings.seed,
        eval_strategy="steps",
        eval_steps=settings.eval_steps,
        save_strategy="steps",
        save_steps=settings.eval_steps,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model=BEST_BY,
        greater_is_better=True,
        logging_steps=LOG_EVERY,
        logging_nan_inf_filter=False,
        dataloader_drop_last=True,
        dataloader_pin_memory=has_gpu,
        ddp_find_unused_parameters=False,
        ddp_backend="gloo" if is_distributed and not has_gpu else None,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )


def draw_wordings(batch: dict[str, Any]) -> dict[str, Tensor]:
    """Returns a batch's texts (B, V, ...) with one wording a row, (B, ...), drawn at random."""
    texts = {name: batch[name] for name in TEXT_INPUTS if name in batch}
    n_rows, n_wordings = next(iter(texts.values())).shape[:2]
    drawn = torch.zeros(n_rows, dtype=torch.long)
    if n_wordings > 1:
        drawn = torch.randint(n_wordings, (n_rows,))
    return {name: value[torch.arange(n_rows), drawn] for name, value in texts.items()}


class LazyBatch:
    """A batch that reads and pads features when rows are requested, one chunk at a time.

    Wordings and crops are drawn once, in the order of a step without chunks, so that a row is the
    same each time.

    batch: as `Collator.unpadded` returns it, without `LOSS_INPUTS`. pad: `Collator.pad`.
    crop_frames: 0 = no crops.
    """

    def __init__(
        self,
        batch: dict[str, Any],
        pad: Callable[[Sequence[np.ndarray]], tuple[Tensor, Tensor]],
        crop_frames: int,
        device: torch.device,
    ) -> None:
        self.features: list[np.ndarray] = batch["unpadded_features"]
        self.texts = {"has_text": batch["has_text"]} | draw_wordings(batch)
        self.pad = pad
        self.crop_frames = crop_frames
        self.device = device
        self.crop_positions = torch.rand(len(self.features)) if crop_frames else torch.zeros(0)

    def chunks(self, size: int) -> list[Tensor]:
        """Returns row numbers, at most `size` each; rows of similar length share a chunk."""
        n_frames = torch.tensor([len(features) for features in self.features])
        if self.crop_frames:
            n_frames = n_frames.clamp(max=self.crop_frames)
        return list(torch.split(n_frames.argsort(stable=True), size))

    def rows(self, numbers: Tensor) -> dict[str, Tensor]:
        """Returns the model's inputs for the row numbers (n,)."""
        features, padding_mask = self.pad([self.features[row] for row in numbers.tolist()])
        if self.crop_frames:
            positions = self.crop_positions[numbers]
            features, padding_mask = random_crop(
                features, padding_mask, self.crop_frames, positions
            )
        inputs = {name: value[numbers.to(value.device)] for name, value in self.texts.items()}
        inputs["features"] = features.to(self.device)
        inputs["padding_mask"] = padding_mask.to(self.device)
        return inputs


class ProgressCallback(TrainerCallback):
    """Reports every step, with the newest loss and validation, as (text, step, all steps)."""

    def __init__(self, title: str, on_progress: Callable[[str, int, int], None]) -> None:
        self.title = title
        self.on_progress = on_progress
        self.loss = ""
        self.validation = ""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts at the step the run resumes from."""
        self._report(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Reports the step."""
        self._report(state)

    def on_log(
        self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any
    ) -> None:
        """Keeps the newest loss or validation for the next report."""
        if logs and "loss" in logs:
            self.loss = f"  loss {logs['loss']:.3f}"
        if logs and BEST_BY in logs:
            self.validation = f"  MRR {logs[BEST_BY]:.3f}"

    def _report(self, state: Any) -> None:
        text = f"{self.title}{self.loss}{self.validation}"
        self.on_progress(text, state.global_step, state.max_steps)


class LogFile(TrainerCallback):
    """Writes log.jsonl after each checkpoint: one line a logged step or validation."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the log up to this checkpoint."""
        self._write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the whole log."""
        self._write(state)

    def _write(self, state: Any) -> None:
        if not state.is_world_process_zero:
            return
        lines = [json.dumps(entry) + "\n" for entry in state.log_history]
        with atomic_write(self.path) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


class StopRequest(TrainerCallback):
    """Ends training, with a checkpoint, after the step in which any process got a signal."""

    def __init__(self) -> None:
        self._is_requested = False
        self._last_step: int | None = None

    def handle_signal(self, *_: Any) -> None:
        """Requests the end; a signal handler."""
        self._is_requested = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Agrees with all processes, since a checkpoint takes all of them."""
        is_requested = torch.tensor(int(self._is_requested), device=args.device)
        if dist.is_initialized():
            dist.all_reduce(is_requested, dist.ReduceOp.MAX)
        if is_requested.item():
            self._last_step = state.global_step
            control.should_save = True
            control.should_training_stop = True

    def raise_if_stopped(self) -> None:
        """Raises Stopped if training ended on request."""
        if self._last_step is not None:
            raise Stopped(
                f"stopped after step {self._last_step}, with a checkpoint; "
                "run the same command again to go on from there"
            )


class EarlyStopping(TrainerCallback):
    """Ends training after `patience` validations in a row without a better one.

    Unlike the Trainer's own callback it counts in the log, which a resumed run still has.
    """

    def __init__(self, patience: int, metric: str) -> None:
        self._patience = patience
        self._metric = metric

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Runs after each validation, which is already in the log."""
        control.should_training_stop |= self.is_over(state)

    def is_over(self, state: Any) -> bool:
        """Returns whether a run with this state should end."""
        values = [entry[self._metric] for entry in state.log_history if self._metric in entry]
        if not values:
            return False
        n_since_best = len(values) - 1 - values.index(max(values))
        return n_since_best >= self._patience


class HTCLTrainer(Trainer):
    """A Trainer with the loss of a stage, over the embeddings of one forward pass.

    unseen: the validation tracks; a validation row holds one, in stage two with a training track.
    """

    def __init__(
        self,
        model: HTCL,
        stage: Stage,
        training: TrackTuples,
        validation: TrackTuples,
        collator: Collator,
        arguments: TrainingArguments,
        unseen: frozenset[str],
        retrieval: RetrievalReport,
        callbacks: list[TrainerCallback],
    ) -> None:
        self.unwrapped_model = model
        self.stage = stage
        self.validation = validation
        self.unseen = unseen
        self.retrieval = retrieval
        self.collator = collator
        self.batch_size = arguments.per_device_train_batch_size
        self.crop_frames = model.crop_frames
        # Not by the Trainer: its name for it changes between versions.
        model.audio_encoder.gradient_checkpointing = stage.settings.gradient_checkpointing
        if stage.settings.compile:
            # Not by the Trainer: its flag stays in the process's environment. dynamic=False, since
            # inductor 2.13 fails on the convolutions where the length is a symbol.
            model.audio_encoder.compile(dynamic=False)
        self.loss_terms: dict[str, list[float]] = defaultdict(list)
        self.early_stopping = EarlyStopping(stage.settings.early_stopping_patience, BEST_BY)
        callbacks = callbacks.copy()
        callbacks.insert(0, self.early_stopping)
        super().__init__(
            model=model,
            args=arguments,
            data_collator=collator.unpadded if stage.settings.chunk_size else collator,
            train_dataset=training,
            eval_dataset=validation,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)

    def resume(self, checkpoint: Path | None) -> None:
        """Trains, from a checkpoint if there is one, to the weights of an uninterrupted run."""
        if checkpoint is None:
            self.train()
            return
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if state.best_model_checkpoint:  # an absolute path; the library may have been moved
            best = checkpoint.parent / Path(state.best_model_checkpoint).name
            state.best_model_checkpoint = str(best)
        if state.global_step < state.max_steps and not self.early_stopping.is_over(state):
            self.loss_terms.update(read_unlogged(checkpoint))
            self.train(resume_from_checkpoint=str(checkpoint))
            return
        # All steps were done; `train` would take one more.
        state.is_world_process_zero = self.is_world_process_zero()
        self.state = state
        self._load_best_model()
        self.callback_handler.on_train_end(self.args, state, self.control)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Creates AdamW with a learning rate for each tower and weight decay on matrices only."""
        settings = self.stage.settings
        rate = learning_rate(settings)
        parameters: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
        for name, parameter in (model or self.unwrapped_model).named_parameters():
            if parameter.requires_grad:
                decay = settings.weight_decay if decays(name, parameter) else 0.0
                parameters[rate(name), decay].append(parameter)
        groups = []
        for (lr, decay), group in parameters.items():
            groups.append({"params": group, "lr": lr, "weight_decay": decay})
        self.optimizer = torch.optim.AdamW(groups, fused=settings.fused_optimizer or None)
        return self.optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """Returns the sum of the stage's loss terms over the batch, and keeps them for the log."""
        inputs = dict(inputs)
        loss_inputs = _pop_loss_inputs(inputs)
        # Drawn here, not in the loader: it reads ahead, so a resumed run would draw other numbers.
        inputs |= draw_wordings(inputs)
        if self.crop_frames:
            inputs["features"], inputs["padding_mask"] = random_crop(
                inputs["features"], inputs["padding_mask"], self.crop_frames
            )
        rows: Embeddings = model(**inputs)
        # Autocast leaves them in bfloat16.
        vectors = {name: getattr(rows, name).float() for name in VECTOR_NAMES}
        return self._sum_terms(self.stage.loss(replace(rows, **vectors), **loss_inputs))

    def training_step(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """Returns the loss of a step and adds its gradients; in chunks if `chunk_size` is set."""
        if self.stage.settings.chunk_size:
            return self._step_in_chunks(model, inputs)
        loss: Tensor = super().training_step(model, inputs)
        return loss

    def _step_in_chunks(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        model.train(True)
        inputs = dict(self._prepare_inputs(inputs))
        loss_inputs = _pop_loss_inputs(inputs)
        device = self.unwrapped_model.device
        batch = LazyBatch(inputs, self.collator.pad, self.crop_frames, device)

        def encode(rows: Tensor) -> Embeddings:
            embeddings: Embeddings = model(**batch.rows(rows))
            return embeddings

        def loss(rows: Embeddings) -> dict[str, Tensor]:
            return self.stage.loss(rows, **loss_inputs)

        chunks = batch.chunks(self.stage.settings.chunk_size)
        no_sync = lambda: self.accelerator.no_sync(model)  # noqa: E731
        return self._sum_terms(cached_backward(encode, chunks, loss, no_sync))

    def _sum_terms(self, terms: dict[str, Tensor]) -> Tensor:
        step = self.state.global_step + 1
        for name, term in terms.items():
            value = term.item()
            if not math.isfinite(value):
                raise DataError(
                    f"stage {self.stage.name}: the {name} loss is {value} in step {step}, and "
                    "nothing of it was saved; lower the learning rates, and train under another "
                    "--name"
                )
            self.loss_terms[name].append(value)
        return torch.stack(list(terms.values())).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Logs the mean of each loss term since the last line.

        The Trainer's own means and its last line miss the steps before a checkpoint.
        """
        if "train_runtime" in logs:
            return
        if "loss" in logs:
            logs["loss"] = 0.0
            for name, values in self.loss_terms.items():
                logs[f"loss_{name}"] = float(np.mean(values))
                logs["loss"] += logs[f"loss_{name}"]
            self.loss_terms.clear()
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Computes validation losses and retrieval metrics, the same on every process."""
        rows, track_numbers, text_numbers = self._embed_validation()
        loss = replace(self.stage.loss, gather_negatives=False)
        terms = loss(rows, track_numbers, text_numbers)
        metrics = {f"eval_loss_{name}": term.item() for name, term in terms.items()}
        metrics["eval_loss"] = sum(metrics.values())
        retrieval = self._retrieval(rows, text_numbers)
        metrics |= _prefixed("eval_", retrieval)
        reciprocal_ranks = [value for name, value in retrieval.items() if name.endswith("_mrr")]
        metrics[BEST_BY] = float(np.mean(reciprocal_ranks))
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _validation_columns(self) -> list[tuple[str, ...]]:
        """Returns the tracks, or anchors and positives, of evenly spread rows; always the same."""
        rows = self.validation.rows
        step = math.ceil(len(rows) / VALIDATION_ROWS)
        return list(zip(*rows[::step], strict=True))

    @torch.no_grad()
    def _embed_validation(self) -> tuple[Embeddings, Tensor, Tensor]:
        """Returns embeddings, track numbers and text numbers of the validation rows.

        Anchors come first, then positives. A track in several rows is encoded once.
        """
        model = self.unwrapped_model
        track_ids = list(chain.from_iterable(self._validation_columns()))
        unique_ids = list(dict.fromkeys(track_ids))
        singles = [(track_id,) for track_id in unique_ids]
        dataset = TrackTuples(self.validation.store, self.validation.texts, singles)
        size = self.stage.settings.chunk_size or self.batch_size
        chunks: dict[str, list[Tensor]] = defaultdict(list)
        was_training = model.training
        model.train(False)
        for start in range(0, len(dataset), size):
            stop = min(start + size, len(dataset))
            batch = self.collator([dataset[row] for row in range(start, stop)])
            batch.pop("teacher", None)
            batch = {name: value.to(model.device) for name, value in batch.items()}
            chunks["track_numbers"].append(batch.pop("track_numbers"))
            chunks["text_numbers"].append(batch.pop("text_numbers"))
            for name in batch.keys() & set(TEXT_INPUTS):
                batch[name] = batch[name][:, 0]  # the first wording
            output = model(**batch)
            for name in VECTOR_NAMES:
                chunks[name].append(getattr(output, name))
        model.train(was_training)
        row_of = {track_id: row for row, track_id in enumerate(unique_ids)}
        rows = torch.tensor([row_of[track_id] for track_id in track_ids], device=model.device)
        columns = {name: torch.cat(tensors)[rows] for name, tensors in chunks.items()}
        track_numbers = columns.pop("track_numbers")
        text_numbers = columns.pop("text_numbers")
        embeddings = Embeddings(**columns, logit_scales=output.logit_scales)
        return embeddings, track_numbers, text_numbers

    def _retrieval(self, rows: Embeddings, text_numbers: Tensor) -> dict[str, float]:
        """Returns metrics of retrieval among the unseen tracks.

        By text, and in stage two from each pair's other track.
        """
        audio = F.normalize(rows.audio, dim=-1).float().cpu().numpy()
        text = F.normalize(rows.text, dim=-1).float().cpu().numpy()
        columns = self._validation_columns()
        unseen_rows = {}  # of the items that are searched
        for row, track_id in enumerate(chain.from_iterable(columns)):
            if track_id in self.unseen:
                unseen_rows[track_id] = row
        item_rows = list(unseen_rows.values())
        items = audio[item_rows]
        metrics: dict[str, float] = {}
        targets = [item for item, row in enumerate(item_rows) if text_numbers[row] != NO_TEXT]
        if targets:
            queries = text[[item_rows[item] for item in targets]]
            by_text = self.retrieval(queries, items, np.array(targets))
            metrics |= _prefixed("text_", by_text)
        if self.stage.tracks_per_row == 2:
            item_of = {track_id: item for item, track_id in enumerate(unseen_rows)}
            query_rows = []
            targets = []
            for row, (anchor, positive) in enumerate(zip(*columns, strict=True)):
                is_from_anchor = positive in item_of
                query_rows.append(row if is_from_anchor else row + len(columns[0]))
                targets.append(item_of[positive if is_from_anchor else anchor])
            by_pair = self.retrieval(audio[query_rows], items, np.array(targets))
            metrics |= _prefixed("pair_", by_pair)
        return metrics

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """Saves the model folder only: the Trainer would add its arguments as a pickle."""
        if self.args.should_save:
            folder = str(output_dir or self.args.output_dir)
            self.unwrapped_model.save_pretrained(folder, state_dict=state_dict)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Saves a checkpoint and marks it complete: no run resumes from half of one."""
        with report_write_errors(str(self.args.output_dir)):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoint = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            write_unlogged(checkpoint, self.loss_terms)
            mark_complete(checkpoint)


def _prefixed(prefix: str, metrics: dict[str, float]) -> dict[str, float]:
    return {prefix + name: value for name, value in metrics.items()}


def _pop_loss_inputs(inputs: dict[str, Any]) -> dict[str, Tensor]:
    return {name: inputs.pop(name) for name in LOSS_INPUTS if name in inputs}


def training_folder(folder: LibraryPaths, name: str) -> Path:
    """Returns the folder of the run `name`; LibraryError if it is the starter model's name."""
    if name == STARTER:
        raise LibraryError(
            f"run {name!r} is the model that comes with the package; choose another --name"
        )
    return folder.run(name)


def require_rows(stage_name: StageName, data: StageData) -> None:
    """Raises DataError if there are too few rows to train on."""
    n_training = len(data.training)
    n_validation = len(data.validation)
    if n_training // launch_info()[1] >= 2 and n_validation >= 2:
        return
    until = "; until then stage one answers alone" if stage_name == "preference" else ""
    raise DataError(
        f"stage {stage_name}: {n_training} training and {n_validation} validation "
        f"{ROW_NAMES[stage_name]}; at least 2 of each are needed: import more tracks or "
        f"listening, lower pairs.min_users, or change the splits{until}"
    )


def run_training(
    run: Path,
    stage: Stage,
    model: HTCL,
    data: StageData,
    retrieval: RetrievalReport,
    callbacks: list[TrainerCallback],
    *,
    teacher: Tensor | None = None,
    select: Callable[[HTCL], tuple[HTCL, SelectionResult]] | None = None,
    stage_one_space_id: str | None = None,
) -> TrainedRun:
    """Trains to the end of the schedule or until patience ends, and writes the run's folder.

    select: returns the model to save; None saves the weights of the best validation.
    stage_one_space_id: the space of the stage one that a stage two starts from.
    """
    stop_request = StopRequest()
    all_callbacks: list[TrainerCallback] = [LogFile(run / "log.jsonl"), stop_request]
    all_callbacks += callbacks
    trainer = _build_trainer(run, stage, model, data, retrieval, all_callbacks, teacher)
    if launch_info()[0] == 0:
        fingerprint = _fingerprint(stage, model, data.training)
        start_run(run, fingerprint | {"stage_one_space_id": stage_one_space_id})
    with terminate_gracefully(stop_request.handle_signal):
        trainer.resume(last_checkpoint(run / "checkpoints"))
    stop_request.raise_if_stopped()
    trainer.accelerator.wait_for_everyone()  # others may still read the best checkpoint
    record: dict[str, Any] = {
        "stage": stage.name,
        "n_rows": len(data.training),
        "n_left_out": data.n_candidates - len(data.training),
        "n_steps": trainer.state.global_step,
        "best": _best_validation(trainer.state.log_history),
        "selection": None,
    }
    settings = model.settings.model_dump(mode="json")
    with main_process_first():  # on a large catalogue selection outlasts a collective's timeout
        if trainer.args.should_save:
            if select is not None:
                model, selection = select(model)
                record["selection"] = asdict(selection) | {"sentence": selection.sentence()}
            record["stage_one_space_id"] = stage_one_space_id
            record["settings"] = settings
            _save_run(run, model, record)
    return TrainedRun.from_record(run, record)


def _save_run(run: Path, model: HTCL, record: dict[str, Any]) -> None:
    model.save_pretrained(run / "finished")
    finalize_run(run / "finished", run)
    write_record(run / RUN_FILE, record)
    shutil.rmtree(run / "checkpoints", ignore_errors=True)


def _build_trainer(
    run: Path,
    stage: Stage,
    model: HTCL,
    data: StageData,
    retrieval: RetrievalReport,
    callbacks: list[TrainerCallback],
    teacher: Tensor | None,
) -> HTCLTrainer:
    config = model.settings
    batch_size = _batch_size(stage, data.training)
    steps_per_epoch = len(data.training) // (batch_size * launch_info()[1])
    text_states = None if config.text.trainable else compute_text_states(model, data.training)
    collator = Collator(
        model.tokenizer,
        config.mel if config.front_end == "logmel" else None,
        model.audio_encoder.min_frames,
        config.text.max_tokens,
        text_states,
        teacher,
    )
    stage.freeze_idle(model)
    return HTCLTrainer(
        model,
        stage,
        data.training,
        data.validation,
        collator,
        training_arguments(stage.settings, run / "checkpoints", batch_size, steps_per_epoch),
        frozenset(with_role(data.splits, "validation")),
        retrieval,
        callbacks,
    )


def _batch_size(stage: Stage, training: TrackTuples) -> int:
    """Returns the stage's batch size, or fewer with a warning where there are fewer rows."""
    configured = stage.settings.batch_size
    batch_size = min(configured, len(training) // launch_info()[1])
    if batch_size < configured:
        rows = f"{len(training)} {ROW_NAMES[stage.name]}"
        logger.warning("batch size %d instead of %d: there are %s", batch_size, configured, rows)
    return batch_size


def _fingerprint(stage: Stage, model: HTCL, training: TrackTuples) -> dict[str, Any]:
    """Returns what must be unchanged when a run resumes: settings, and the rows in their order."""
    rows = repr([training.rows, sorted(training.texts.items())])
    settings = model.settings.model_dump(mode="json")
    fingerprint: dict[str, Any] = {stage.name: settings[stage.name]}
    for section in MODEL_SECTIONS:
        fingerprint[section] = settings[section]
    fingerprint["front_end_weights"] = model.config.front_end_weights or None
    fingerprint["training_rows_sha256"] = hashlib.sha256(rows.encode()).hexdigest()
    return fingerprint


def _best_validation(history: list[dict[str, float]]) -> dict[str, float]:
    """Returns the first validation with the highest mean reciprocal rank; its weights are kept."""
    validations = [entry for entry in history if BEST_BY in entry]
    best = max(validations, key=lambda entry: entry[BEST_BY], default={})
    return {name.removeprefix("eval_"): value for name, value in best.items()}
