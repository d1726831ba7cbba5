"""Training with several processes: gathering rows, and a readable end when a process stops.

When a process of `torchrun` ends, `torchrun` sends SIGTERM to the others of its machine and reports
the cause; a process on another machine only sees its connection closed. A process cannot tell
whether SIGTERM means that others are gone or that all should stop. So it gets time to end by
itself, with a checkpoint, and is then ended, even while it waits for a lost process.
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

MAX_WAIT = timedelta(days=7)  # for the main process; other collectives time out after 30 minutes
REPORT_WAIT_S = 5.0  # for torchrun to see which process ended first
GRACE_S = 20.0  # after SIGTERM, for the step and its checkpoint; torchrun and Slurm kill after 30
DONE = b"\0"
HOW_TO_RESUME = (
    "torchrun's report names the rank; start the same command again: the run goes on at its last "
    "checkpoint"
)


def launch_info() -> tuple[int, int]:
    """Returns (rank, processes) as `torchrun` set them; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def world_size() -> int:
    """Returns the number of connected processes; 1 for a single one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Returns this process's number among the connected ones, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def main_process_first() -> Iterator[None]:
    """Wraps what only the main process does; the others wait at the end as long as it takes.

    All processes must enter and leave. One that fails does not wait; the others notice its closed
    connection.
    """
    if world_size() == 1:
        yield
        return
    group = dist.new_group(timeout=MAX_WAIT)
    dist.barrier(group)  # NCCL connects in the first collective, and waits half an hour for that
    yield
    dist.barrier(group)


# torch 2.13 renames both and warns of the old names; drop the old ones when it is the oldest we
# support.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _GatherRows(torch.autograd.Function):
    """all_gather; its backward returns each process the summed gradient of its rows."""

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
    """Returns the rows (B, ...) of all W processes as (W * B, ...), in order of rank.

    B must be the same on each. With the mean of the local losses as the loss, DDP's average of the
    gradients equals the gradient of one process with the joint batch. (The released code gathers
    without gradient, which scales the encoders' gradient by 1/W.)
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered


@contextmanager
def terminate_gracefully(handler: Callable[..., None]) -> Iterator[None]:
    """Wraps training: SIGTERM calls `handler`, and a lost process ends this one with a clear line.

    Raises PonticelloError if the connection to another process was lost or timed out. Of several
    processes, one that has not ended `GRACE_S` after SIGTERM prints how to resume and exits with 1,
    also from within a collective. Outside the main thread SIGTERM is not handled: Python allows no
    handlers there.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handler = signal.signal(signal.SIGTERM, handler)
    try:
        if launch_info()[1] == 1:
            yield
        else:
            with _watchdog(), _readable_connection_errors():
                yield
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


@contextmanager
def _watchdog() -> Iterator[None]:
    """Ends the process in time after SIGTERM.

    Python runs handlers between its own instructions, and a process may wait long in a collective:
    so a thread waits for the signal's number.
    """
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    previous_fd = signal.set_wakeup_fd(writing)
    threading.Thread(target=_exit_after_grace, args=(reading,), daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(previous_fd)
        os.write(writing, DONE)


@contextmanager
def _readable_connection_errors() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error).lower()):
            raise
        time.sleep(REPORT_WAIT_S)
        process, n_processes = launch_info()
        reason = str(error).splitlines()[0].rpartition("] ")[2]
        raise PonticelloError(
            f"process {process} of {n_processes} lost the others ({reason[:120]}); {HOW_TO_RESUME}"
        ) from None


def _exit_after_grace(reading: int) -> None:
    """Waits for SIGTERM, then for the end of training; after `GRACE_S` exits the process."""
    while True:
        byte = os.read(reading, 1)
        if byte == DONE:
            return
        if byte[0] == signal.SIGTERM:
            break
    deadline = time.monotonic() + GRACE_S
    while select.select([reading], [], [], max(0.0, deadline - time.monotonic()))[0]:
        if os.read(reading, 1) == DONE:
            return
    # Two processes of a machine print, since the first may be the lost one.
    if int(os.environ.get("LOCAL_RANK", "0")) < 2:
        process, n_processes = launch_info()
        line = (
            f"error: process {process} of {n_processes} was told to stop, as when another has "
            f"ended; {HOW_TO_RESUME}\n"
        )
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())
    os._exit(1)
