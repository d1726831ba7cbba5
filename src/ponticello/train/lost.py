"""One readable line when a process of several is gone, instead of a trace from inside the collectives.

`torchrun` ends the other processes of its machine within a second, by SIGTERM, and says whose end was the cause. A
process on another machine only notices that its connection is closed. What is lost is the steps since the last
checkpoint.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch.distributed as dist

from ponticello.errors import PonticelloError
from ponticello.train.distributed import launched

WAIT_S = 5.0  # for torchrun to see whose end came first: who ends later is not named as the cause
DONE = b"\0"


@contextmanager
def told_when_alone() -> Iterator[None]:
    """Around training on several processes: the end of one ends this one, with a line that says how to go on.

    PonticelloError where a connection to another process was lost or timed out; where this process is told to stop
    (SIGTERM), the line goes to stderr and the process ends with 1 at once, also from within a collective. One process
    alone is left as it is.
    """
    process, n_processes = launched()
    if n_processes == 1:
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python runs handlers between its own instructions, and a process may wait in a collective for long: so a thread
    # waits for the signal's number.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    other = signal.set_wakeup_fd(writing)
    threading.Thread(target=_end_when_told, args=(reading, process, n_processes), daemon=True).start()
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        time.sleep(WAIT_S)
        reason = str(error).splitlines()[0].rpartition("] ")[2]
        raise PonticelloError(
            f"process {process} of {n_processes} lost the others ({reason[:120]}); {_how_to_go_on()}"
        ) from None
    finally:
        signal.set_wakeup_fd(other)
        signal.signal(signal.SIGTERM, before)
        os.write(writing, DONE)


def _end_when_told(reading: int, process: int, n_processes: int) -> None:
    """Waits for SIGTERM, says so and ends the process; gives up when training is over."""
    while (told := os.read(reading, 1)) != DONE:
        if told[0] == signal.SIGTERM:
            if int(os.environ.get("LOCAL_RANK", "0")) < 2:  # the first may be the one that is gone; not all need say it
                line = f"error: process {process} of {n_processes} was told to stop, as when another has ended; "
                os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{line}{_how_to_go_on()}\n".encode())
            os._exit(1)


def _how_to_go_on() -> str:
    return "torchrun's report names the rank; start the same command again: the run goes on at its last checkpoint"
