"""Estimates a training run: a few of its real steps are timed on a model that is thrown away.

The run starts as `train` would start it, in a temporary library of links to everything but the
runs. So the estimate always has the run's own number of steps. A preference space is fitted several
ways: a few steps of each fit are timed, and what is not a step is done as in the run.
"""

import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from ponticello.errors import ConfigError
from ponticello.features.frontend import feature_extractor, open_features
from ponticello.model.htcl import HTCL
from ponticello.storage.layout import LibraryPaths
from ponticello.train.distributed import launch_info
from ponticello.train.loop import TrainingLoop, TrainingObserver
from ponticello.train.preference_space import PreferenceScorer
from ponticello.train.runs import COMPLETE
from ponticello.train.stages import StageName

TIMED_STEPS = 5  # after one that warms up
MAX_CHECKPOINTS = 2  # on disk at once: the newest and the best

Train = Callable[[LibraryPaths, list[TrainingObserver]], Any]
"""Trains a temporary library with observers: `train_semantic` or `train_preference`."""


@dataclass(frozen=True)
class TrainingEstimate:
    """The most that a run can take; early stopping may end it before. Bytes are of disk.

    n_fits: 1, or those of a preference space, regressions aside. n_steps, n_validations: of all
    fits; the seconds of one are the mean. other_seconds: of what is not training: reading, and
    for a preference space the regressions, the scoring and the saving. seconds: of the whole run.
    memory_bytes: the peak of this process, on the GPU if it trains there.
    """

    n_fits: int
    n_steps: int
    n_validations: int
    other_seconds: float
    seconds_per_step: float
    seconds_per_validation: float
    seconds: float
    memory_bytes: int
    checkpoint_bytes: int
    vector_bytes: int

    def lines(self) -> list[str]:
        """Returns the estimate as readable lines."""
        fits = f"{self.n_fits} fits with " if self.n_fits > 1 else ""
        return [
            f"at most {fits}{self.n_steps:,} steps of {self.seconds_per_step:.3g} s and "
            f"{self.n_validations:,} validations with checkpoints of "
            f"{self.seconds_per_validation:.3g} s, and {self.other_seconds:.3g} s of other work",
            f"about {_duration(self.seconds)} on this machine, less with early stopping; stage two "
            "over log-mels then also selects its weights on validation",
            f"peak memory {self.memory_bytes / 1e9:.2f} GB; disk "
            f"{self.checkpoint_bytes / 1e6:,.1f} MB for checkpoints during training, "
            f"{self.vector_bytes / 1e6:,.1f} MB for vectors after `ponticello embed`",
        ]


def estimate_training(
    folder: LibraryPaths, stage: StageName, train: Train, start: str | None = None
) -> TrainingEstimate:
    """Starts a run, stops each fit after a few steps and one validation, and computes its total.

    The library is not changed. start: the stage-one run that `train` reads.
    Raises ConfigError under torchrun, and the errors of the training.
    Cost: six steps, one validation and one checkpoint of each fit, in the system's temporary
    folder; for a preference space also the work that is not a step.
    """
    if launch_info()[1] > 1:
        raise ConfigError("--dry-run measures one process; start it without torchrun")
    has_frozen_front_end = feature_extractor(folder.config) is not None
    timer = _Timer(goes_on=stage == "preference" and has_frozen_front_end)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with _linked_library(folder, start) as library, suppress(_EnoughSteps):
        train(library, [timer])
    n_tracks = len(open_features(folder, folder.config))
    return timer.estimate(vector_bytes=4 * n_tracks * folder.config.heads.embed_dim)


def score_higher_every_time(scorer: PreferenceScorer) -> PreferenceScorer:
    """Returns a scorer that takes the time of `scorer` and scores each model above all before.

    So the longest fit counts as the best one, and is made once more on all data where the settings
    have it: no run makes more fits.
    """
    calls = count()

    def score(stage_one: HTCL, stage_two: HTCL | None) -> np.ndarray:
        scorer(stage_one, stage_two)
        return np.full(2, float(next(calls)))  # the gain of two listeners without any spread

    return score


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


@dataclass
class _FitTimes:
    """The times of one fit, which has `n_steps` and `n_validations` when it is not stopped."""

    n_steps: int
    n_validations: int
    started_at: float
    step_s: list[float] = field(default_factory=list)
    validation_s: float = 0.0
    measured_s: float = 0.0

    @property
    def seconds_per_step(self) -> float:
        """The median; the first step warms up."""
        return median(self.step_s[1:] or self.step_s)


class _Timer(TrainingObserver):
    """Times steps, then one validation and one checkpoint, of every fit.

    goes_on: whether the run goes on after the first fit.
    """

    def __init__(self, goes_on: bool) -> None:
        self.goes_on = goes_on
        self.created_at = time.perf_counter()
        self.last_mark = self.created_at
        self.fits: list[_FitTimes] = []
        self.checkpoint_bytes = 0

    def on_start(self, loop: TrainingLoop[Any]) -> None:
        self.last_mark = time.perf_counter()
        n_validations = math.ceil(loop.task.n_steps / loop.eval_steps)
        self.fits.append(_FitTimes(loop.task.n_steps, n_validations, self.last_mark))

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        """Times from the end of the step before, so that reading its batch counts too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        fit = self.fits[-1]
        fit.step_s.append(now - self.last_mark)
        self.last_mark = now
        if len(fit.step_s) <= TIMED_STEPS and loop.step < loop.task.n_steps:
            return
        loop.validate()
        loop.save_checkpoint()
        end = time.perf_counter()
        fit.validation_s = end - now
        fit.measured_s = end - fit.started_at
        self._measure_checkpoint(loop.checkpoints, fit.n_validations)
        if not self.goes_on:
            raise _EnoughSteps
        loop.is_over = True

    def _measure_checkpoint(self, checkpoints: Path, n_validations: int) -> None:
        n_bytes = 0
        for path in checkpoints.rglob("*"):
            if path.is_file() and path.name != COMPLETE:
                n_bytes += path.stat().st_size
        n_kept = min(n_validations, MAX_CHECKPOINTS)
        self.checkpoint_bytes = max(self.checkpoint_bytes, n_kept * n_bytes)

    def estimate(self, vector_bytes: int) -> TrainingEstimate:
        """Returns the estimate of the whole run. vector_bytes: of all tracks."""
        n_steps = sum(fit.n_steps for fit in self.fits)
        n_validations = sum(fit.n_validations for fit in self.fits)
        steps_s = sum(fit.n_steps * fit.seconds_per_step for fit in self.fits)
        validations_s = sum(fit.n_validations * fit.validation_s for fit in self.fits)
        other_s = time.perf_counter() - self.created_at - sum(fit.measured_s for fit in self.fits)
        return TrainingEstimate(
            n_fits=len(self.fits),
            n_steps=n_steps,
            n_validations=n_validations,
            other_seconds=other_s,
            seconds_per_step=steps_s / max(1, n_steps),
            seconds_per_validation=validations_s / max(1, n_validations),
            seconds=other_s + steps_s + validations_s,
            memory_bytes=_peak_memory(),
            checkpoint_bytes=self.checkpoint_bytes,
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
