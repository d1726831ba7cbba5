"""Two processes that see half a batch each against one that sees it all."""

import os
import socket
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import distributed_c10d
from torch.nn.parallel import DistributedDataParallel

from ponticello.config import Config
from ponticello.model.htcl import HTCL, HTCLConfig
from ponticello.train.distributed import gather_rows, main_process_first, rank, world_size
from ponticello.train.losses import PreferenceLoss
from ponticello.train.stages import preference_stage
from tests.forks import fork_context
from tests.logmel import with_changes

N_PAIRS = 8
WORK_S = 0.6  # s


def test_alone_nothing_is_gathered() -> None:
    rows = torch.ones(2, 3)
    assert gather_rows(rows) is rows
    assert (world_size(), rank()) == (1, 0)


def tiny_model() -> HTCL:
    """A tiny HTCL without dropout, the same wherever it is made."""
    config = Config.from_preset(
        "tiny", with_changes(audio={"dropout": 0.0, "n_layers": 1}, heads={"dropout": 0.0})
    )
    text = {"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "intermediate_size": 16, "hidden_dropout_prob": 0.0}
    torch.manual_seed(0)
    model = HTCL(
        HTCLConfig(config.model_dump(mode="json"), {**text, "attention_probs_dropout_prob": 0.0})
    )
    preference_stage(config).freeze_idle(model)
    model.train(True)
    return model


def pairs(first: int, last: int) -> dict[str, torch.Tensor]:
    """Pairs first..last of one fixed batch, anchors first; one track stands in two pairs."""
    generator = torch.Generator().manual_seed(1)
    mel = torch.randn(2 * N_PAIRS, 40, 128, generator=generator)
    tokens = torch.randint(5, 50, (2 * N_PAIRS, 6), generator=generator)
    tracks = torch.arange(2 * N_PAIRS)
    tracks[1], mel[1], tokens[1] = tracks[0], mel[0], tokens[0]
    rows = torch.tensor([*range(first, last), *range(N_PAIRS + first, N_PAIRS + last)])
    padding = torch.zeros(2 * N_PAIRS, 40, dtype=torch.bool)
    padding[3, 30:] = True
    batch = {
        "features": mel,
        "padding_mask": padding,
        "input_ids": tokens,
        "attention_mask": torch.ones_like(tokens),
    }
    return {name: value[rows] for name, value in {**batch, "tracks": tracks}.items()}


def losses_and_gradients(model: nn.Module, batch: dict[str, torch.Tensor]) -> dict[str, Any]:
    tracks = batch.pop("tracks")
    parts = PreferenceLoss()(model(**batch), tracks, tracks)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    gradients = {
        name.removeprefix("module."): p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    return {"losses": {name: part.item() for name, part in parts.items()}, "gradients": gradients}


def wait_for_the_first(process: int) -> float:
    """Seconds until both are there, of which the first process works `WORK_S`; other collectives
    wait less.
    """
    dist.barrier()
    distributed_c10d._set_pg_timeout(timedelta(seconds=WORK_S / 3))
    began = time.monotonic()
    with main_process_first():
        if process == 0:
            time.sleep(WORK_S)
    waited = time.monotonic() - began
    distributed_c10d._set_pg_timeout(timedelta(seconds=60))
    return waited


def half_a_batch(process: int, port: int, folder: str) -> None:
    """What each of the two processes does: its half of the pairs, under DDP on gloo."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=process, world_size=2
    )
    half = N_PAIRS // 2
    model = DistributedDataParallel(tiny_model())
    found = losses_and_gradients(model, pairs(process * half, (process + 1) * half))
    found["waited"] = wait_for_the_first(process)
    torch.save(found, Path(folder) / f"{process}.pt")
    dist.barrier()
    os._exit(
        0
        # now and then torch 2.13 waits for ever where it frees DDP and gloo: its threads need the
        # GIL
        # it holds
    )


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `half_a_batch` found in each of two processes."""
    folder = tmp_path_factory.mktemp("halves")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = fork_context()
    processes = [
        context.Process(target=half_a_batch, args=(n, port, str(folder))) for n in range(2)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    return [torch.load(folder / f"{n}.pt", weights_only=True) for n in range(2)]


@pytest.mark.slow
def test_two_processes_give_the_loss_and_gradients_of_one_with_the_joint_batch(
    found: list[dict[str, Any]],
) -> None:
    """DDP averages gradients, so the mean of the two local losses is the joint one; 1e-5 allows for
    float order.
    """
    expected = losses_and_gradients(tiny_model(), pairs(0, N_PAIRS))
    for name, loss in expected["losses"].items():
        assert (found[0]["losses"][name] + found[1]["losses"][name]) / 2 == pytest.approx(
            loss, abs=1e-5
        )
    assert found[0]["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        for side in found:
            assert (side["gradients"][name] - gradient).abs().max().item() < 1e-5, name


@pytest.mark.slow
def test_others_wait_for_the_first_longer_than_a_collective_does(
    found: list[dict[str, Any]],
) -> None:
    assert all(side["waited"] >= WORK_S for side in found)


def test_alone_nobody_is_waited_for() -> None:
    with main_process_first():
        assert not dist.is_initialized()
