"""What a training run would take: a few of its real steps, timed, on a model that is thrown away.

The run is begun as `train` would begin it, in a stand-in for the library: a temporary folder with
links to everything but the runs. So nothing here knows how many steps a stage makes; it asks the
run.
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
from transformers import TrainerCallback

from ponticello.errors import ConfigError
from ponticello.features.frontend import open_features
from ponticello.storage.layout import LibraryPaths
from ponticello.train.distributed import launch_info
from ponticello.train.runs import COMPLETE

STEPS = 5  # timed; one more before them warms up
KEPT = 2  # checkpoints a run keeps beside each other (`training_arguments`)

Train = Callable[[LibraryPaths, list[TrainerCallback]], Any]
"""(the stand-in, callbacks) -> trains there: `train_semantic` or `train_preference` with all else filled in."""


@dataclass(frozen=True)
class TrainingEstimate:
    """What a run would take at most: early stopping may end it before. Bytes are of disk, but for
    the memory's.

    seconds_before: reading, and what is computed once before the first step. seconds: all of it,
    validation and checkpoints included. memory_bytes: the most this process held, on the GPU where
    it trains there.
    """

    n_steps: int
    n_validations: int
    seconds_before: float
    seconds_a_step: float
    seconds_a_validation: float
    seconds: float
    memory_bytes: int
    checkpoint_bytes: int
    vector_bytes: int

    def lines(self) -> list[str]:
        """One readable line a part."""
        return [
            f"at most {self.n_steps:,} steps of {self.seconds_a_step:.3g} s and {self.n_validations:,} validations "
            f"with checkpoints of {self.seconds_a_validation:.3g} s, after {self.seconds_before:.3g} s of reading",
            f"about {_duration(self.seconds)} on this machine, less where patience ends it; stage two then still "
            "chooses its balance on validation",
            f"memory at its height {self.memory_bytes / 1e9:.2f} GB; disk {self.checkpoint_bytes / 1e6:,.1f} MB for "
            f"checkpoints while it trains, {self.vector_bytes / 1e6:,.1f} MB for vectors once embedded",
        ]


def estimate_training(
    folder: LibraryPaths, train: Train, start: str | None = None
) -> TrainingEstimate:
    """Begins a run, stops it after a few steps and one validation, and reckons the rest; the
    library stays as it is.

    start: the stage-one run that `train` reads. ConfigError under torchrun, for one process cannot
    speak for many.
    Errors: as of the training. Cost: six steps, one validation, one checkpoint in the system's
    temporary folder.
    """
    if launch_info()[1] > 1:
        raise ConfigError("--dry-run measures one process; start it without torchrun")
    clock = _Clock()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with _stand_in(folder, start) as library, suppress(_EnoughSteps):
        train(library, [clock])
    return clock.estimate(len(open_features(folder, folder.config)))


@contextmanager
def _stand_in(folder: LibraryPaths, start: str | None) -> Iterator[LibraryPaths]:
    """A library in a temporary folder that reads what `folder` holds; of its runs only `start`."""
    with tempfile.TemporaryDirectory(prefix="ponticello-dry-run-") as place:
        root = Path(place)
        for held in folder.root.iterdir():
            if held.name != "runs" and not held.name.startswith("."):
                (root / held.name).symlink_to(held)
        (root / "runs").mkdir()
        if start is not None and folder.run(start).is_dir():
            (root / "runs" / start).symlink_to(folder.run(start))
        yield replace(folder, root=root)


class _EnoughSteps(Exception):
    """Ends the run when everything has been measured."""


class _Clock(TrainerCallback):
    """Times steps, then one validation and one checkpoint."""

    def __init__(self) -> None:
        self.begun = self.first = self.mark = time.perf_counter()
        self.steps: list[float] = []
        self.validation, self.found = 0.0, {"n_steps": 0, "every": 1, "checkpoint": 0, "vectors": 0}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.first = time.perf_counter()
        self.found |= {"n_steps": state.max_steps, "every": int(args.eval_steps)}

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if not self.steps:
            self.mark = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From the end of one step to the end of the next, so that the loader's time counts too."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.steps.append(now - self.mark)
        self.mark = now
        is_last = len(self.steps) > STEPS or state.global_step >= state.max_steps
        control.should_evaluate = control.should_save = is_last

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.validation = time.perf_counter() - self.mark
        files = [
            file
            for file in Path(args.output_dir).rglob("*")
            if file.is_file() and file.name != COMPLETE
        ]
        self.found["checkpoint"] = sum(file.stat().st_size for file in files)
        self.found["vectors"] = 4 * model.settings.heads.embed_dim
        raise _EnoughSteps

    def estimate(self, n_tracks: int) -> TrainingEstimate:
        """n_tracks: that will have a vector."""
        n_steps, n_validations = (
            self.found["n_steps"],
            math.ceil(self.found["n_steps"] / self.found["every"]),
        )
        a_step, before = median(self.steps[1:] or self.steps), self.first - self.begun
        return TrainingEstimate(
            n_steps=n_steps,
            n_validations=n_validations,
            seconds_before=before,
            seconds_a_step=a_step,
            seconds_a_validation=self.validation,
            seconds=before + n_steps * a_step + n_validations * self.validation,
            memory_bytes=_peak_memory(),
            checkpoint_bytes=min(n_validations, KEPT) * self.found["checkpoint"],
            vector_bytes=n_tracks * self.found["vectors"],
        )


def _peak_memory() -> int:
    """The most bytes that were held: by the GPU if there is one, else by this process since it
    began.
    """
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, Linux kilobytes


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
