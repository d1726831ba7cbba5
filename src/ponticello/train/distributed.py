"""Rows of every process in one tensor, with gradients that come out as if one process had seen them all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

LONGEST_WAIT = timedelta(days=7)  # for the first process; any other collective gives up after half an hour


def launched() -> tuple[int, int]:
    """(rank, processes) as `torchrun` announces them, also before the processes have met; (0, 1) without it."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def world_size() -> int:
    """How many processes have met to train together; 1 if this one is alone."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Which of the processes that have met this is, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def while_first_works() -> Iterator[None]:
    """Around what only the first process does: the others wait at the end for as long as it takes.

    All have to come in and out. One that fails does not wait; a connection closed by its end is noticed at once.
    """
    if world_size() == 1:
        yield
        return
    group = dist.new_group(timeout=LONGEST_WAIT)
    dist.barrier(group)  # NCCL connects in the first collective, and waits half an hour for that
    yield
    dist.barrier(group)


# torch 2.13 renames both and warns of the old names; drop the old ones when it is the oldest we support.
_all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


class _GatherRows(torch.autograd.Function):
    """all_gather forwards; backwards each process gets the sum of what all of them felt for its rows."""

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
    """(B, ...) on each of W processes -> (W * B, ...) on all, in order of rank. B must be the same everywhere.

    With the mean of the local losses as the loss, DDP's average of the gradients equals the gradient of one process
    with the joint batch. (The released code gathers without gradient, which scales the encoders' gradient by 1/W.)
    """
    if world_size() == 1:
        return rows
    gathered: Tensor = _GatherRows.apply(rows)  # type: ignore[no-untyped-call]
    return gathered
