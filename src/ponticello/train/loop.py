"""One thin `transformers.Trainer` for both stages: two towers, several learning rates, losses that
see embeddings.

Everything a `Trainer` does already (loop, DDP, schedule, resume) is left to it.

A stage's settings in the words of `transformers.Trainer`.

What of a batch the towers get: one wording of a text, one crop of a track, and only so many rows at
a time.

What a person sees while a model trains, and what stays on disk of it.

When a run ends before its last step: it is told to (SIGTERM), or validation has not become better
for long.

Told to stop, as by Slurm, Kubernetes or a shutdown, it finishes its step, writes a checkpoint and
ends with a line that says how to go on. Started again, it ends as if it had not been stopped.
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
from ponticello.train.dataset import (
    NO_TEXT,
    Collator,
    StageData,
    TrackTuples,
    compute_text_states,
)
from ponticello.train.distributed import launch_info, main_process_first, terminate_gracefully
from ponticello.train.gradcache import SIDES, cached_backward
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

LOG_EVERY = 5  # steps; the parts of the loss are means over them
# not the loss: on few tracks it rises with confidence while the ranking still improves
BEST_BY = "eval_mrr"
ROW_NAMES = {
    "semantic": "tracks with audio and text",
    "preference": "pairs with audio and text on both sides",
}


def training_device(settings: StageConfig) -> torch.device:
    """Where the Trainer will put the model of a stage: what is computed before its first step
    belongs there, too.
    """
    return training_arguments(settings, Path(), batch_size=2, steps_per_epoch=1).device


def training_arguments(
    settings: StageConfig, checkpoints: Path, batch_size: int, steps_per_epoch: int
) -> TrainingArguments:
    """Our settings in the Trainer's words."""
    too_few = settings.epochs * steps_per_epoch < settings.min_steps
    return TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=batch_size,
        num_train_epochs=settings.epochs,
        max_steps=settings.min_steps if settings.max_steps < 1 and too_few else settings.max_steps,
        learning_rate=settings.heads_lr,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_share,
        lr_scheduler_type="cosine" if settings.schedule == "cosine" else "constant_with_warmup",
        max_grad_norm=settings.max_grad_norm,
        bf16=settings.bf16,
        # bf16 asks for it; and of several processes without it each would train alone, unsaid.
        use_cpu=(settings.bf16 or "WORLD_SIZE" in os.environ) and not torch.cuda.is_available(),
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
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        ddp_backend="gloo"
        if "WORLD_SIZE" in os.environ and not torch.cuda.is_available()
        else None,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
    )


TEXTS = ("text_states", "input_ids", "attention_mask")  # (B, V, ...): V wordings of each row's text


def one_wording(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The texts of a batch, (B, V, ...), with one wording a row drawn from torch's global
    generator: (B, ...).
    """
    texts = {name: batch[name] for name in TEXTS if name in batch}
    n_rows, n_wordings = next(iter(texts.values())).shape[:2]
    chosen = (
        torch.randint(n_wordings, (n_rows,))
        if n_wordings > 1
        else torch.zeros(n_rows, dtype=torch.long)
    )
    return {name: value[torch.arange(n_rows), chosen] for name, value in texts.items()}


class LazyBatch:
    """A batch whose sound is read and padded when its rows are asked for, so that a chunk is all
    that is held of it.

    Wordings and crops are drawn once, when the feed is made, from torch's global generator and in
    the order of an
    unchunked step: asked twice, a row is the same.

    batch: as `Collator.unpadded` gives it, without what is for the loss. pad: `Collator.pad`.
    crop_frames: 0 = none.
    """

    def __init__(
        self,
        batch: dict[str, Any],
        pad: Callable[[Sequence[np.ndarray]], tuple[Tensor, Tensor]],
        crop_frames: int,
        device: torch.device,
    ) -> None:
        self.mels: list[np.ndarray] = batch["mels"]
        self.beside = {"has_text": batch["has_text"], **one_wording(batch)}
        self.pad, self.crop_frames, self.device = pad, crop_frames, device
        self.drawn = torch.rand(len(self.mels)) if crop_frames else torch.zeros(0)

    def chunks(self, size: int) -> list[Tensor]:
        """Row numbers, at most `size` each, rows of like length together: little of a chunk is
        padding.
        """
        n_frames = torch.tensor([len(mel) for mel in self.mels])
        heard = n_frames.clamp(max=self.crop_frames) if self.crop_frames else n_frames
        return list(torch.split(heard.argsort(stable=True), size))

    def rows(self, chosen: Tensor) -> dict[str, Tensor]:
        """The model's inputs for the rows `chosen`, (n,) numbers."""
        mel, padding_mask = self.pad([self.mels[row] for row in chosen.tolist()])
        if self.crop_frames:
            mel, padding_mask = random_crop(mel, padding_mask, self.crop_frames, self.drawn[chosen])
        beside = {name: value[chosen.to(value.device)] for name, value in self.beside.items()}
        return {"mel": mel.to(self.device), "padding_mask": padding_mask.to(self.device), **beside}


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
        if logs and "eval_mrr" in logs:
            self.validation = f"  MRR {logs['eval_mrr']:.3f}"

    def _report(self, state: Any) -> None:
        text = f"{self.title}{self.loss}{self.validation}"
        self.on_progress(text, state.global_step, state.max_steps)


class LogFile(TrainerCallback):
    """log.jsonl: one line a logged step, every part of the loss and every validation; whole after
    each checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes what has been logged up to this checkpoint."""
        self._write(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes the whole log."""
        self._write(state)

    def _write(self, state: Any) -> None:
        if state.is_world_process_zero:
            with atomic_write(self.path) as temporary:
                temporary.write_text(
                    "".join(json.dumps(entry) + "\n" for entry in state.log_history),
                    encoding="utf-8",
                )


class StopRequest(TrainerCallback):
    """Ends training after the step at which any process was told to (`tell`), with a checkpoint."""

    def __init__(self) -> None:
        self._is_told = False
        self._step: int | None = None  # after which it stopped

    def tell(self, *_: Any) -> None:
        """Stop after this step; can be a signal's handler."""
        self._is_told = True

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """All processes agree on the step, since a checkpoint takes all of them."""
        told = torch.tensor(int(self._is_told), device=args.device)
        if dist.is_initialized():
            dist.all_reduce(told, dist.ReduceOp.MAX)
        if told.item():
            self._step = state.global_step
            control.should_save = control.should_training_stop = True

    def require_end(self) -> None:
        """Stopped if training ended because it was told to."""
        if self._step is not None:
            raise Stopped(
                f"stopped after step {self._step}, with a checkpoint; run the same command again to go on from there"
            )


class Patience(TrainerCallback):
    """Ends training after `patience` validations in a row without a better one.

    The Trainer's own counts anew in a run that goes on. This one counts in the log, which is in the
    checkpoint.
    """

    def __init__(self, patience: int, figure: str) -> None:
        self._patience, self._figure = patience, figure

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After each validation, which the log holds already."""
        control.should_training_stop |= self.is_over(state)

    def is_over(self, state: Any) -> bool:
        """Whether a run with this state has had enough."""
        values = [entry[self._figure] for entry in state.log_history if self._figure in entry]
        return len(values) - 1 - values.index(max(values)) >= self._patience if values else False


def require_finite_loss(value: float, what: str, step: int) -> float:
    """`value`; DataError if training has run away."""
    if not math.isfinite(value):
        raise DataError(
            f"{what} is {value} in step {step}, and nothing of it was saved; lower the learning rates, and train under "
            "another --name"
        )
    return value


BESIDE = (
    "track_numbers",
    "text_numbers",
    "teacher",
)  # what a batch holds for the loss, and not for the model
VALIDATION_ROWS = 2048  # at most: validation loss is one contrast over all of them

RetrievalReport = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]
"""(queries (n, d), items (m, d), target (n,)) -> figures, "mrr" among them; passed in: metrics live in `evaluate`."""


class HTCLTrainer(Trainer):
    """A Trainer whose loss is a stage's own, over the embeddings of one forward pass.

    unseen: the validation tracks; a validation row holds one of them, in stage two beside a
    training track.
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
        self.htcl, self.stage, self.validation, self.unseen = model, stage, validation, unseen
        self.retrieval, self.collator, self.batch_size = (
            retrieval,
            collator,
            arguments.per_device_train_batch_size,
        )
        self.crop_frames = model.crop_frames
        # Not by the Trainer, whose name for it changes between versions.
        model.audio_encoder.gradient_checkpointing = stage.settings.gradient_checkpointing
        if (
            stage.settings.compile
        ):  # not by the Trainer either: its flag outlives it, in the process's environment
            # A shape at a time: inductor 2.13 fails on the convolutions where the length is a
            # symbol.
            model.audio_encoder.compile(dynamic=False)
        self.parts: dict[str, list[float]] = defaultdict(list)
        self.patience = Patience(stage.settings.early_stopping_patience, BEST_BY)
        super().__init__(
            model=model,
            args=arguments,
            data_collator=collator.unpadded if stage.settings.chunk_size else collator,
            train_dataset=training,
            eval_dataset=validation,
            callbacks=[self.patience, *callbacks],
        )
        self.remove_callback(PrinterCallback)

    def resume(self, checkpoint: Path | None) -> None:
        """Trains, from a checkpoint if there is one: to the same losses and weights as without the
        stop.
        """
        if checkpoint is None:
            self.train()
            return
        state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
        if (
            state.best_model_checkpoint
        ):  # as it was called when it was written: the library may have been moved
            state.best_model_checkpoint = str(
                checkpoint.parent / Path(state.best_model_checkpoint).name
            )
        if state.global_step < state.max_steps and not self.patience.is_over(state):
            self.parts.update(read_unlogged(checkpoint))
            self.train(resume_from_checkpoint=str(checkpoint))
            return
        state.is_world_process_zero = self.is_world_process_zero()
        self.state = state  # all steps were done: the Trainer would take one more
        self._load_best_model()
        self.callback_handler.on_train_end(self.args, state, self.control)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """AdamW with a rate a tower and decay on matrices only; plain Adam where the decay is 0."""
        rate, settings = learning_rate(self.stage.settings), self.stage.settings
        groups: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
        for name, parameter in (model or self.htcl).named_parameters():
            if parameter.requires_grad:
                decay = settings.weight_decay if decays(name, parameter) else 0.0
                groups[rate(name), decay].append(parameter)
        self.optimizer = torch.optim.AdamW(
            [
                {"params": group, "lr": lr, "weight_decay": decay}
                for (lr, decay), group in groups.items()
            ],
            fused=settings.fused_optimizer or None,
        )
        return self.optimizer

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *_: Any, **__: Any) -> Tensor:
        """The sum of the stage's losses over the batch; its parts are kept for the log."""
        inputs = dict(inputs)
        beside = {name: inputs.pop(name) for name in BESIDE if name in inputs}
        # Drawn here and not in the loader: it reads ahead, and a resumed run could not draw the
        # same numbers again.
        inputs |= one_wording(inputs)
        if self.crop_frames:
            inputs["mel"], inputs["padding_mask"] = random_crop(
                inputs["mel"], inputs["padding_mask"], self.crop_frames
            )
        rows: Embeddings = model(**inputs)
        sides = {
            name: getattr(rows, name).float() for name in SIDES
        }  # autocast leaves them in bfloat16
        return self._keep_parts(self.stage.loss(replace(rows, **sides), **beside))

    def training_step(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        """The loss of a step, its gradient added to the parameters': of the whole batch at once, or
        in chunks.
        """
        if self.stage.settings.chunk_size:
            return self._step_in_chunks(model, inputs)
        loss: Tensor = super().training_step(model, inputs)
        return loss

    def _step_in_chunks(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        model.train(True)
        inputs = dict(self._prepare_inputs(inputs))
        beside = {name: inputs.pop(name) for name in BESIDE if name in inputs}
        feed = LazyBatch(inputs, self.collator.pad, self.crop_frames, self.htcl.device)

        def encode(rows: Tensor) -> Embeddings:
            embeddings: Embeddings = model(**feed.rows(rows))
            return embeddings

        def loss(rows: Embeddings) -> dict[str, Tensor]:
            return self.stage.loss(rows, **beside)

        chunks = feed.chunks(self.stage.settings.chunk_size)
        return self._keep_parts(
            cached_backward(encode, chunks, loss, lambda: self.accelerator.no_sync(model))
        )

    def _keep_parts(self, parts: dict[str, Tensor]) -> Tensor:
        for name, part in parts.items():
            value = require_finite_loss(
                part.item(), f"stage {self.stage.name}: the {name} loss", self.state.global_step + 1
            )
            self.parts[name].append(value)
        return torch.stack(list(parts.values())).sum()

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """The Trainer's log with the mean of every part of the loss beside it.

        The Trainer's own means, and its last line, leave out what came before the checkpoint that a
        run went on from.
        """
        if "train_runtime" in logs:
            return
        if "loss" in logs:
            means = {f"loss_{name}": float(np.mean(values)) for name, values in self.parts.items()}
            logs |= {"loss": sum(means.values()), **means}
            self.parts.clear()
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Validation loss and retrieval figures in eval mode, over the same rows each time, on
        every process alike.
        """
        rows, tracks, texts = self._embed_validation()
        alone = replace(self.stage.loss, gather_negatives=False)
        parts = {name: part.item() for name, part in alone(rows, tracks, texts).items()}
        metrics = {f"eval_loss_{name}": part for name, part in parts.items()}
        metrics["eval_loss"] = sum(parts.values())
        figures = self._retrieval(rows, texts)
        metrics |= {f"eval_{name}": value for name, value in figures.items()}
        metrics[BEST_BY] = float(
            np.mean([value for name, value in figures.items() if name.endswith("_mrr")])
        )
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _validation_rows(self) -> list[tuple[str, ...]]:
        """The same rows each time: all, or so many of them, spread evenly."""
        rows = self.validation.rows
        return list(rows[:: math.ceil(len(rows) / VALIDATION_ROWS)])

    @torch.no_grad()
    def _embed_validation(self) -> tuple[Embeddings, Tensor, Tensor]:
        """Embeddings, track numbers and text numbers of the validation rows, in the losses' order.

        A track that stands in many rows is encoded once.
        """
        columns = zip(*self._validation_rows(), strict=True)
        track_ids = [track_id for column in columns for track_id in column]
        place = {track_id: number for number, track_id in enumerate(dict.fromkeys(track_ids))}
        singles = TrackTuples(
            self.validation.store, self.validation.texts, [(track_id,) for track_id in place]
        )
        was_training, size = self.htcl.training, self.stage.settings.chunk_size or self.batch_size
        self.htcl.train(False)
        outputs, numbers = [], []
        for start in range(0, len(singles), size):
            batch = self.collator(
                [singles[row] for row in range(start, min(start + size, len(singles)))]
            )
            batch = {
                name: value.to(self.htcl.device)
                for name, value in batch.items()
                if name != "teacher"
            }
            numbers.append((batch.pop("track_numbers"), batch.pop("text_numbers")))
            outputs.append(
                self.htcl(**batch | {name: batch[name][:, 0] for name in TEXTS if name in batch})
            )
        self.htcl.train(was_training)
        rows = torch.tensor([place[track_id] for track_id in track_ids], device=self.htcl.device)
        audio, text, fused = (
            torch.cat([getattr(output, side) for output in outputs])[rows] for side in SIDES
        )
        track_numbers, text_numbers = (
            torch.cat(column)[rows] for column in zip(*numbers, strict=True)
        )
        return Embeddings(audio, text, fused, outputs[0].logit_scales), track_numbers, text_numbers

    def _retrieval(self, rows: Embeddings, text_numbers: Tensor) -> dict[str, float]:
        """Among the unseen tracks: text to audio; where rows are pairs, also from the known track
        to its partner.
        """
        audio, text = (
            F.normalize(side, dim=-1).float().cpu().numpy() for side in (rows.audio, rows.text)
        )
        columns = list(zip(*self._validation_rows(), strict=True))
        track_ids = [track_id for column in columns for track_id in column]
        first = {track_id: row for row, track_id in enumerate(track_ids) if track_id in self.unseen}
        items = list(first.values())
        told = [place for place, row in enumerate(items) if text_numbers[row] != NO_TEXT]
        figures = {}
        if told:
            figures["text"] = self.retrieval(
                text[[items[place] for place in told]], audio[items], np.array(told)
            )
        if self.stage.tracks_per_row == 2:
            place = {track_id: number for number, track_id in enumerate(first)}
            half = len(columns[0])
            known = [
                row if positive in place else row + half for row, positive in enumerate(columns[1])
            ]
            partner = [place[p if p in place else a] for a, p in zip(*columns, strict=True)]
            figures["pair"] = self.retrieval(audio[known], audio[items], np.array(partner))
        return {
            f"{task}_{name}": value
            for task, found in figures.items()
            for name, value in found.items()
        }

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None
    ) -> None:
        """The model folder only: the Trainer would add its arguments as a pickle."""
        if self.args.should_save:
            self.htcl.save_pretrained(
                str(output_dir or self.args.output_dir), state_dict=state_dict
            )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """A checkpoint, then the mark that says it is whole: a killed run never resumes from half
        of one.
        """
        with report_write_errors(str(self.args.output_dir)):
            super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            checkpoint = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            write_unlogged(checkpoint, self.parts)
            mark_complete(checkpoint)


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
    is_main = launch_info()[0] == 0
    stop_request = StopRequest()
    callbacks = [LogFile(run / "log.jsonl"), stop_request, *callbacks]
    trainer = _build_trainer(run, stage, model, data, retrieval, callbacks, teacher)
    if is_main:
        fingerprint = _fingerprint(stage, model, data.training)
        start_run(run, {**fingerprint, "stage_one_space_id": stage_one_space_id})
    with terminate_gracefully(stop_request.tell):
        trainer.resume(last_checkpoint(run / "checkpoints"))
    stop_request.require_end()
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
                record["selection"] = {**asdict(selection), "sentence": selection.sentence()}
            record = {**record, "stage_one_space_id": stage_one_space_id, "settings": settings}
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
    fingerprint = {name: settings[name] for name in (stage.name, *MODEL_SECTIONS)}
    fingerprint["front_end_weights"] = model.config.front_end_weights or None
    fingerprint["training_rows_sha256"] = hashlib.sha256(rows.encode()).hexdigest()
    return fingerprint


def _best_validation(history: list[dict[str, float]]) -> dict[str, float]:
    """Returns the first validation with the highest mean reciprocal rank; its weights are kept."""
    validations = [entry for entry in history if BEST_BY in entry]
    best = max(validations, key=lambda entry: entry[BEST_BY], default={})
    return {name.removeprefix("eval_"): value for name, value in best.items()}
