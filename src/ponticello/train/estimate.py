"""Estimates a training run: a few of its real steps are timed on a model that is thrown away.

The run starts as `train` would start it, in a temporary library of links to everything but the
runs. So the estimate always has the run's own number of steps.
"""

import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from ponticello.errors import ConfigError
from ponticello.features.frontend import open_features
from ponticello.storage.layout import LibraryPaths
from ponticello.train.distributed import launch_info
from ponticello.train.loop import TrainingLoop, TrainingObserver
from ponticello.train.runs import COMPLETE

TIMED_STEPS = 5  # after one that warms up
MAX_CHECKPOINTS = 2  # on disk at once: the newest and the best

Train = Callable[[LibraryPaths, list[TrainingObserver]], Any]
"""Trains a temporary library with observers: `train_semantic` or `train_preference`."""


@dataclass(frozen=True)
class TrainingEstimate:
    """The most that a run can take; early stopping may end it before. Bytes are of disk.

    seconds_before: of reading and of computations before the first step. seconds: of the whole run.
    memory_bytes: the peak of this process, on the GPU if it trains there.
    """

    n_steps: int
    n_validations: int
    seconds_before: float
    seconds_per_step: float
    seconds_per_validation: float
    seconds: float
    memory_bytes: int
    checkpoint_bytes: int
    vector_bytes: int

    def lines(self) -> list[str]:
        """Returns the estimate as readable lines."""
        return [
            f"at most {self.n_steps:,} steps of {self.seconds_per_step:.3g} s and "
            f"{self.n_validations:,} validations with checkpoints of "
            f"{self.seconds_per_validation:.3g} s, after {self.seconds_before:.3g} s of reading",
            f"about {_duration(self.seconds)} on this machine, less with early stopping; stage two "
            "then also selects its weights on validation",
            f"peak memory {self.memory_bytes / 1e9:.2f} GB; disk "
            f"{self.checkpoint_bytes / 1e6:,.1f} MB for checkpoints during training, "
            f"{self.vector_bytes / 1e6:,.1f} MB for vectors after `ponticello embed`",
        ]


def estimate_training(
    folder: LibraryPaths, train: Train, start: str | None = None
) -> TrainingEstimate:
    """Starts a run, stops it after a few steps and one validation, and computes its total.

    The library is not changed. start: the stage-one run that `train` reads.
    Raises ConfigError under torchrun, and the errors of the training.
    Cost: six steps, one validation, one checkpoint in the system's temporary folder.
    """
    if launch_info()[1] > 1:
        raise ConfigError("--dry-run measures one process; start it without torchrun")
    timer = _Timer()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with _linked_library(folder, start) as library, suppress(_EnoughSteps):
        train(library, [timer])
    n_tracks = len(open_features(folder, folder.config))
    return timer.estimate(vector_bytes=4 * n_tracks * folder.config.heads.embed_dim)


@contextmanager
def _linked_library(folder: LibraryPaths, start: str | None) -> Iterator[LibraryPaths]:
    """Yields a temporary library of links to `folder`; of its runs only to `start`."""
    with tempfile.TemporaryDirectory(prefix="ponticello-dry-run-") as temporary:
        root = Path(temporary)
        for path in folder.root.iterdir():
            if path.name != "runs" and not path.name.startswith("."):
                (root / path.name).symlink_to(path)
        (root / "runs").mkdir()
        if start is not None and folder.run(start).is_dir():
            (root / "runs" / start).symlink_to(folder.run(start))
        yield replace(folder, root=root)


class _EnoughSteps(Exception):
    """Ends the run once everything has been measured."""


class _Timer(TrainingObserver):
    """Times steps, then one validation and one checkpoint."""

    def __init__(self) -> None:
        self.created_at = time.perf_counter()
        self.started_at = self.created_at
        self.last_mark = self.created_at
        self.step_s: list[float] = []
        self.validation_s = 0.0
        self.n_steps = 0
        self.eval_steps = 1
        self.checkpoint_bytes = 0

    def on_start(self, loop: TrainingLoop[Any]) -> None:
        self.n_steps = loop.task.n_steps
        self.eval_steps = loop.eval_steps
        self.started_at = time.perf_counter()
        self.last_mark = self.started_at

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        """Times from the end of the step before, so that reading its batch counts too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.step_s.append(now - self.last_mark)
        self.last_mark = now
        if len(self.step_s) <= TIMED_STEPS and loop.step < loop.task.n_steps:
            return
        loop.validate()
        loop.save_checkpoint()
        self.validation_s = time.perf_counter() - now
        for path in loop.checkpoints.rglob("*"):
            if path.is_file() and path.name != COMPLETE:
                self.checkpoint_bytes += path.stat().st_size
        raise _EnoughSteps

    def estimate(self, vector_bytes: int) -> TrainingEstimate:
        """Returns the estimate of the whole run. vector_bytes: of all tracks."""
        n_validations = math.ceil(self.n_steps / self.eval_steps)
        step_s = median(self.step_s[1:] or self.step_s)
        before_s = self.started_at - self.created_at
        return TrainingEstimate(
            n_steps=self.n_steps,
            n_validations=n_validations,
            seconds_before=before_s,
            seconds_per_step=step_s,
            seconds_per_validation=self.validation_s,
            seconds=before_s + self.n_steps * step_s + n_validations * self.validation_s,
            memory_bytes=_peak_memory(),
            checkpoint_bytes=min(n_validations, MAX_CHECKPOINTS) * self.checkpoint_bytes,
            vector_bytes=vector_bytes,
        )


def _peak_memory() -> int:
    """Returns the peak bytes of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"
