"""Where the seconds of training go: whether the step waits for its data, or the data for the step."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ponticello.library import replacing

PARTS = ("loader", "forward", "backward", "optimizer")
REST = "rest"  # validation, checkpoints, the log, clipping
PROFILE_FILE = "profile.json"
IN_TIME = 0.05  # share of a step that the loader may take before it is called the bottleneck; ours


class Profile(TrainerCallback):
    """Seconds by part of all steps but the first, which also warms up; given to a run among its callbacks.

    loader: reading, padding and tokenising, also where a chunk's sound is read within the step. forward: towers and
    loss, with what other processes are waited for; in chunks both passes. backward, optimizer: as they say. A GPU is
    waited for at each boundary, so that a profiled run is a little slower. Of the first process alone.
    """

    def __init__(self) -> None:
        self.n_steps, self.n_tracks = 0, 0  # tracks: of one step of one process
        self.part, self.since = REST, 0.0
        self.seconds = dict.fromkeys((*PARTS, REST), 0.0)

    @contextmanager
    def time(self, part: str) -> Iterator[None]:
        """What happens inside counts as `part`, and no longer as what it happens within."""
        outer = self._turn_to(part)
        try:
            yield
        finally:
            self._turn_to(outer)

    def _turn_to(self, part: str) -> str:
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.synchronize()
        now = time.perf_counter()
        self.seconds[self.part] += now - self.since
        before, self.part, self.since = self.part, part, now
        return before

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Starts the clock; a run before this one is forgotten."""
        self._start(0)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The gradient is there and clipped."""
        self._turn_to("optimizer")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The weights have moved."""
        self._turn_to(REST)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Counts a step; the first is left out."""
        self._turn_to(REST)
        if self.n_steps == 0:
            self._start(1)
        else:
            self.n_steps += 1

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Writes profile.json into the run's folder: steps, tracks a step and a process, seconds by part."""
        self._turn_to(REST)
        if state.is_world_process_zero and self.n_steps > 1:
            measured = {"n_steps": self.n_steps - 1, "tracks_per_step": self.n_tracks, "seconds": self.seconds}
            with replacing(Path(args.output_dir).parent / PROFILE_FILE) as temporary:
                temporary.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")

    def _start(self, n_steps: int) -> None:
        self.n_steps, self.part, self.since = n_steps, REST, time.perf_counter()
        self.seconds = dict.fromkeys(self.seconds, 0.0)

    def sentence(self) -> str:
        """One line for a person: a step's seconds by part, and what waits for what."""
        n = self.n_steps - 1
        if n < 1:
            return "profile: no step was measured; the run was finished already, or too short"
        step = sum(self.seconds[part] for part in PARTS)
        parts = ", ".join(f"{p} {self.seconds[p] / n:.4f} s ({self.seconds[p] / step:.0%})" for p in PARTS)
        share = self.seconds["loader"] / step
        waits = "the loader keeps up" if share <= IN_TIME else f"the step waits for the loader {share:.0%} of its time"
        return (
            f"profile: {n} steps of {step / n:.4f} s, {self.n_tracks * n / step:.0f} tracks/s a process: {parts}; "
            f"{self.seconds[REST]:.1f} s in all for validation, checkpoints and the rest; {waits}"
        )
