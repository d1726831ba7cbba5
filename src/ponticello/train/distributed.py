"""What a training process does when it is told to stop, and one readable line when another one is
gone.

`torchrun` ends the other processes of its machine within a second, by SIGTERM, and says whose end
was the cause. A process on another machine only notices that its connection is closed. What is lost
is the steps since the last checkpoint. Whether others are gone or all are to stop, a process cannot
tell from the signal: it is given time to end by itself, with a checkpoint, and is ended where it
waits for one that is gone.

Rows of every process in one tensor, with gradients that come out as if one process had seen them
all.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ponticello.errors import PonticelloError

LONGEST_WAIT = timedelta(
    days=7
)  # for the first process; any other collective gives up after half an hour


def launch_info() -> tuple[int, int]:
    """(rank, processes) as `torchrun` announces them, also before the processes have met; (0, 1)
    without it.
    """
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def world_size() -> int:
    """How many processes have met to train together; 1 if this one is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the processes that have met this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def main_process_first() -> Iterator[None]:
    """Around what only the first process does: the others wait at the end for as long as it takes.

    All have to come in and out. One that fails does not wait; a connection closed by its end is
    noticed at once.
    """
    if world_size() == 1:
        yield
        return
    group = dist.new_group(timeout=LONGEST_WAIT)
    dist.barrier(group)  # NCCL connects in the first collective, and waits half an hour for that
    yield
    dist.barrier(group)


# torch 2.13 renames both and warns of the old names; drop the old ones when it is the oldest we
# support.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _GatherRows(torch.autograd.Function):
    """all_gather forwards; backwards each process gets the sum of what all of them felt for its
    rows.
    """

    @staticmethod
    def forward(_: Any, rows: Tensor) -> Tensor:
        gathered = rows.new_empty(world_size() * len(rows), *rows.shape[1:])
        _all_gather(gathered, rows.contiguous())
        return gathered

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        rows = gradient.new_empty(len(gradient) // world_size(), *gradient.shape[1:])
        _reduce_scatter(rows, gradient.contiguous())
        return rows


def gather_rows(rows: Tensor) -> Tensor:
    """(B, ...) on each of W processes -> (W * B, ...) on all, in order of rank. B must be the same
    everywhere.

    With the mean of the local losses as the loss, DDP's average of the gradients equals the
    gradient of one process with the joint batch. (The released code gathers without gradient, which
    scales the encoders' gradient by 1/W.)
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


WAIT_S = 5.0  # for torchrun to see whose end came first: who ends later is not named as the cause
GRACE_S = 20.0  # after SIGTERM, for the step and its checkpoint; torchrun and Slurm kill after 30
DONE = b"\0"


@contextmanager
def terminate_gracefully(tell: Callable[..., None]) -> Iterator[None]:
    """Around training: SIGTERM calls `tell`, and the end of another process ends this one with a
    line on how to go on.

    PonticelloError where a connection to another process was lost or timed out. Of several
    processes one that has not ended `GRACE_S` after SIGTERM says the line on stderr and ends with 1
    at once, also from within a collective. Outside the main thread, where Python allows no
    handlers, SIGTERM does what it did.
    """
    process, n_processes = launch_info()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, tell)
    if n_processes == 1:
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    # Python runs handlers between its own instructions, and a process may wait in a collective for
    # long: so a thread
    # waits for the signal's number.
    other = signal.set_wakeup_fd(writing)
    threading.Thread(
        target=_end_when_told, args=(reading, process, n_processes), daemon=True
    ).start()
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
    """Waits for SIGTERM, and then for the end of training; if that does not come in time, it ends
    the process.
    """
    while (told := os.read(reading, 1)) != DONE:
        if told[0] == signal.SIGTERM:
            until = time.monotonic() + GRACE_S
            while (left := until - time.monotonic()) > 0 and select.select([reading], [], [], left)[
                0
            ]:
                if os.read(reading, 1) == DONE:
                    return
            if (
                int(os.environ.get("LOCAL_RANK", "0")) < 2
            ):  # the first may be the one that is gone; not all need say it
                line = f"error: process {process} of {n_processes} was told to stop, as when another has ended; "
                os.write(
                    sys.__stderr__.fileno() if sys.__stderr__ else 2,
                    f"{line}{_how_to_go_on()}\n".encode(),
                )
            os._exit(1)


def _how_to_go_on() -> str:
    return "torchrun's report names the rank; start the same command again: the run goes on at its last checkpoint"
