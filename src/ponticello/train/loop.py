"""The training loop of both stages: steps, validations, checkpoints and resuming.

A stage describes itself as a `TrainingTask`; the loop does not know what a batch is. Whatever is
drawn at random in a step is drawn from a generator seeded by the run's seed and the step, so that a
run that was stopped ends with the losses and weights of a run that was not.
"""

import json
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ponticello.config import StageConfig
from ponticello.errors import DataError, Stopped
from ponticello.storage.files import atomic_write
from ponticello.train.distributed import launch_info, terminate_gracefully
from ponticello.train.runs import (
    last_checkpoint,
    load_weights,
    read_checkpoint,
    remove_checkpoints,
    start_run,
    write_checkpoint,
)
from ponticello.train.schedule import (
    build_optimizer,
    is_out_of_patience,
    learning_rate_factor,
    steps_between_validations,
)
from ponticello.train.stages import StageName

LOG_EVERY = 5  # steps; logged loss terms are means over them

Batch = TypeVar("Batch")


@dataclass(frozen=True)
class TrainingTask(Generic[Batch]):
    """What a stage trains, on what, and how it is measured.

    model: on the device of `training_device`; its parameters that require a gradient are trained.
    n_steps: optimiser steps of the whole run (`count_steps`).
    batches: returns the batches from step `start` on, counted from 0. A step's batch must be the
        same whatever the start.
    loss_terms: returns weighted terms by name, scalars of which the loss is the sum, for the model
        as DDP wraps it. Terms without a graph mean that their gradients were already added
        (`cached_backward`).
    validate: returns metrics of `model`, the same in every process.
    best_by: the metric by which the best checkpoint is chosen; higher is better. "" = the last.
    """

    name: StageName
    model: nn.Module
    settings: StageConfig
    n_steps: int
    batches: Callable[[int], Iterator[Batch]]
    loss_terms: Callable[[nn.Module, Batch], dict[str, Tensor]]
    validate: Callable[[], dict[str, float]]
    best_by: str


@dataclass(frozen=True)
class LoopResult:
    """The end of a run, whose model holds the weights of the best validation, or the last ones.

    n_steps: steps taken. history: the lines of log.jsonl. best: metrics of the best validation.
    """

    n_steps: int
    history: list[dict[str, float]]
    best: dict[str, float]


class TrainingObserver:
    """Follows a run; methods that are not overridden do nothing. Its exceptions end the run."""

    def on_start(self, loop: "TrainingLoop[Any]") -> None:
        """Runs before the first step, also of a run that resumes."""

    def on_step(self, loop: "TrainingLoop[Any]") -> None:
        """Runs after each step, before it is logged, validated and saved."""


class ProgressObserver(TrainingObserver):
    """Reports every step, with the newest loss and validation, as (text, step, all steps)."""

    def __init__(self, title: str, on_progress: Callable[[str, int, int], None]) -> None:
        self.title = title
        self.on_progress = on_progress

    def on_start(self, loop: "TrainingLoop[Any]") -> None:
        """Reports the step that the run starts at."""
        self.on_step(loop)

    def on_step(self, loop: "TrainingLoop[Any]") -> None:
        """Reports the step."""
        metric = loop.task.best_by
        text = self.title + _newest(loop.history, "loss", "loss")
        text += _newest(loop.history, f"eval_{metric}", metric.upper())
        self.on_progress(text, loop.step, loop.task.n_steps)


def _newest(history: list[dict[str, float]], name: str, label: str) -> str:
    for entry in reversed(history):
        if name in entry:
            return f"  {label} {entry[name]:.3f}"
    return ""


def run_loop(
    task: TrainingTask[Batch],
    run: Path,
    observers: Sequence[TrainingObserver],
    fingerprint: dict[str, Any],
) -> LoopResult:
    """Trains to the last step or until patience ends, from the last checkpoint if there is one.

    run: the run's folder, for log.jsonl and checkpoints. fingerprint: what must be unchanged when
    the run resumes.
    Raises CheckpointError if the fingerprint changed or the disk is full, DataError if the loss is
    not finite, and Stopped, with a checkpoint, after the step in which any process got SIGTERM.
    """
    if launch_info()[0] == 0:
        start_run(run, fingerprint)
    loop = TrainingLoop(task, run, observers)
    with terminate_gracefully(loop.request_stop):
        checkpoint = last_checkpoint(loop.checkpoints)
        if checkpoint is not None:
            loop.resume(checkpoint)
        loop.train()
        return loop.finish()


class TrainingLoop(Generic[Batch]):
    """A run of a task.

    step: optimiser steps taken. history: the lines of log.jsonl. is_over: an observer may set it,
    to end the run without error after its step.
    """

    def __init__(
        self, task: TrainingTask[Batch], run: Path, observers: Sequence[TrainingObserver]
    ) -> None:
        self.task = task
        self.run = run
        self.checkpoints = run / "checkpoints"
        self.observers = observers
        self.eval_steps = steps_between_validations(task.settings, task.n_steps)
        self.accelerator = build_accelerator(task.settings)
        self.wrapped_model, self.optimizer = self.accelerator.prepare(
            task.model, build_optimizer(task.model, task.settings)
        )
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.unlogged: dict[str, list[float]] = defaultdict(list)  # loss terms by name
        self.gradient_norm = torch.tensor(0.0)
        self.is_over = False
        self._is_stop_requested = False

    def request_stop(self, *_: Any) -> None:
        """Requests the end after the current step; a signal handler."""
        self._is_stop_requested = True

    def train(self) -> None:
        """Takes the steps that are left."""
        for observer in self.observers:
            observer.on_start(self)
        batches = self.task.batches(self.step)
        self.is_over = self._is_out_of_patience()
        while self.step < self.task.n_steps and not self.is_over:
            self._take_step(next(batches))
            for observer in self.observers:
                observer.on_step(self)
            is_stopped = self._any_process_stops()
            if self.step % LOG_EVERY == 0:
                self._log_losses()
            is_due = self.step % self.eval_steps == 0 or self.step == self.task.n_steps
            if is_due:
                self.validate()
                self.is_over = self.is_over or self._is_out_of_patience()
            if is_due or is_stopped:
                self.save_checkpoint()
            if is_stopped:
                raise Stopped(
                    f"stopped after step {self.step}, with a checkpoint; "
                    "run the same command again to go on from there"
                )

    def _take_step(self, batch: Batch) -> None:
        settings = self.task.settings
        factor = learning_rate_factor(settings, self.step, self.task.n_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = factor * group["initial_lr"]
        torch.manual_seed(step_seed(settings.seed, self.step))  # for dropout
        self.wrapped_model.train(True)
        terms = self.task.loss_terms(self.wrapped_model, batch)
        self._keep_terms(terms)
        loss = torch.stack(list(terms.values())).sum()
        if loss.requires_grad:
            self.accelerator.backward(loss)
        self.gradient_norm = self.accelerator.clip_grad_norm_(
            self.task.model.parameters(), settings.max_grad_norm or math.inf
        )
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1

    def _keep_terms(self, terms: dict[str, Tensor]) -> None:
        """Keeps the loss terms for the log; DataError if one is not finite."""
        for name, term in terms.items():
            value = term.item()
            self._require_finite(f"{name} loss", value, f"in step {self.step + 1}")
            self.unlogged[name].append(value)

    def _require_finite(self, name: str, value: float, when: str) -> None:
        if not math.isfinite(value):
            raise DataError(
                f"stage {self.task.name}: the {name} is {value} {when}, and nothing of it was "
                "saved; lower the learning rates, and train under another --name"
            )

    def _any_process_stops(self) -> bool:
        """Agrees with all processes, since a checkpoint takes all of them."""
        if self._is_stop_requested:
            self.accelerator.set_trigger()
        return bool(self.accelerator.check_trigger())

    def _log_losses(self) -> None:
        """Logs the mean of each loss term since the last line."""
        means = {f"loss_{name}": float(np.mean(values)) for name, values in self.unlogged.items()}
        entry = {
            "step": self.step,
            "loss": sum(means.values()),
            "gradient_norm": self.gradient_norm.item(),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
        }
        self.history.append(entry | means)
        self.unlogged.clear()

    def validate(self) -> None:
        """Logs the metrics of the current weights."""
        entry: dict[str, float] = {"step": self.step}
        for name, value in self.task.validate().items():
            self._require_finite(f"validation {name}", value, f"after step {self.step}")
            entry[f"eval_{name}"] = value
        self.history.append(entry)

    def _validations(self) -> list[dict[str, float]]:
        return [entry for entry in self.history if f"eval_{self.task.best_by}" in entry]

    def _best_validation(self) -> dict[str, float]:
        """Returns the first validation with the highest metric; its checkpoint is kept."""
        return max(
            self._validations(), key=lambda entry: entry[f"eval_{self.task.best_by}"], default={}
        )

    def _is_out_of_patience(self) -> bool:
        """Counts in the log, which a resumed run has too."""
        values = [entry[f"eval_{self.task.best_by}"] for entry in self._validations()]
        return is_out_of_patience(values, self.task.settings.early_stopping_patience)

    def save_checkpoint(self) -> None:
        """Saves what resuming needs and writes the log; then removes all but this and the best."""
        if self.accelerator.is_main_process:
            state = {"step": self.step, "history": self.history, "unlogged": self.unlogged}
            write_checkpoint(self.checkpoints, self.task.model, self.optimizer, state)
            self._write_log()
            best_step = self._best_validation().get("step", self.step)
            remove_checkpoints(self.checkpoints, kept_steps={self.step, int(best_step)})
        self.accelerator.wait_for_everyone()

    def resume(self, checkpoint: Path) -> None:
        """Takes the state of a checkpoint."""
        state = read_checkpoint(checkpoint, self.task.model, self.optimizer)
        self.step = state["step"]
        self.history = state["history"]
        self.unlogged.update(state["unlogged"])

    def finish(self) -> LoopResult:
        """Writes the log and gives the model the weights of the best validation."""
        best = self._best_validation()
        if self.task.best_by:
            load_weights(self.checkpoints, int(best["step"]), self.task.model)
        if self.accelerator.is_main_process:
            self._write_log()
        self.accelerator.wait_for_everyone()  # the caller deletes the checkpoints
        metrics = {
            name.removeprefix("eval_"): value for name, value in best.items() if name != "step"
        }
        return LoopResult(self.step, self.history, metrics)

    def _write_log(self) -> None:
        lines = [json.dumps(entry) + "\n" for entry in self.history]
        with atomic_write(self.run / "log.jsonl") as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def build_accelerator(settings: StageConfig) -> Accelerator:
    """Returns the accelerator of this process; several processes are connected in it."""
    is_distributed = "WORLD_SIZE" in os.environ
    # bf16 needs it; without it each of several processes would silently train alone.
    use_cpu = (settings.bf16 or is_distributed) and not torch.cuda.is_available()
    return Accelerator(cpu=use_cpu)


def training_device(settings: StageConfig) -> torch.device:
    """Returns the device that a stage trains on."""
    device: torch.device = build_accelerator(settings).device
    return device


def step_seed(seed: int, step: int) -> int:
    """Returns the seed of what this process draws in a step."""
    return int(np.random.SeedSequence((seed, step, launch_info()[0])).generate_state(1)[0])
