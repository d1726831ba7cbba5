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
from ponticello.train.loop import TrainingLoop

take_step = TrainingLoop._take_step


def die_and_tell(last_step: int) -> None:
    """From now on this process does not outlive `last_step`, unless it is another rank than 1; it
    tells its last weights, before the best ones are loaded.
    """

    def step(loop: TrainingLoop[Any], batch: Any) -> None:
        take_step(loop, batch)
        if os.environ.get("RANK", "1") == "1" and loop.step == last_step:
            os.write(2, f"killed at {time.time():.1f}\n".encode())
            os.kill(os.getpid(), signal.SIGKILL)
        if loop.step == loop.task.n_steps:
            parameters = loop.task.model.parameters()
            weights = b"".join(weight.detach().numpy().tobytes() for weight in parameters)
            os.write(2, f"weights {hashlib.sha256(weights).hexdigest()}\n".encode())

    TrainingLoop._take_step = step  # type: ignore[method-assign, assignment]


if __name__ == "__main__":
    die_and_tell(int(sys.argv.pop(1)))
    main()
