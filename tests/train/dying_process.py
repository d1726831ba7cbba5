"""`ponticello` that is killed after a step, on rank 1 or alone.

python dying_process.py STEP train semantic ...

Each rank that ends training says what its weights are.
"""

import hashlib
import os
import signal
import sys
import time
from typing import Any

from ponticello.cli.main import main
from ponticello.train.loop import EarlyStopping, LogFile


def die(step: int) -> None:
    """From now on this process does not outlive `step`, unless it is another rank than 1."""

    def on_step_end(*arguments: Any, **_: Any) -> None:
        _, _, state, _ = arguments
        if os.environ.get("RANK", "1") == "1" and state.global_step == step:
            os.write(2, f"killed at {time.time():.1f}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)

    LogFile.on_step_end = on_step_end  # type: ignore[method-assign]


def tell() -> None:
    """From now on the last weights of this process are told, before the best ones are loaded."""

    def on_step_end(*arguments: Any, model: Any, **_: Any) -> None:
        _, _, state, _ = arguments
        if state.global_step == state.max_steps:
            weights = b"".join(weight.detach().numpy().tobytes() for weight in model.parameters())
            os.write(2, f"weights {hashlib.sha256(weights).hexdigest()}\n".encode())

    EarlyStopping.on_step_end = on_step_end  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    die(int(sys.argv.pop(1)))
    tell()
    main()
