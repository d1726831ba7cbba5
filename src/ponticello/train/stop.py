"""When a run ends before its last step: it is told to (SIGTERM), or validation has not become better for long.

Told to stop, as by Slurm, Kubernetes or a shutdown, it finishes its step, writes a checkpoint and ends with a line that
says how to go on. Started again, it ends as if it had not been stopped.
"""

import math
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from ponticello.errors import DataError, Stopped


class Stopping(TrainerCallback):
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

    The Trainer's own counts anew in a run that goes on. This one counts in the log, which is in the checkpoint.
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


def require_number(value: float, what: str, step: int) -> float:
    """`value`; DataError if training has run away."""
    if not math.isfinite(value):
        raise DataError(
            f"{what} is {value} in step {step}, and nothing of it was saved; lower the learning rates, and train under "
            "another --name"
        )
    return value
