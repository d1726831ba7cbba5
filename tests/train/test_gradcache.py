"""Chunk by chunk with cached gradients against the same vectors with all their activations, dropout
on.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import parameters_to_vector

from ponticello.config import Config, MelConfig
from ponticello.model.batching import pad_features
from ponticello.model.htcl import HTCL, Embeddings, HTCLConfig
from ponticello.train.dataset import LazyBatch
from ponticello.train.gradcache import VECTOR_NAMES, RngState, cached_backward
from ponticello.train.stages import Stage, preference_stage, semantic_stage
from tests.forks import fork_context
from tests.logmel import with_changes

N_ROWS = 14  # of two tracks each in stage two; in chunks of 4 the last one is uneven
CONFIG = Config.from_preset(
    "tiny", with_changes(audio={"dropout": 0.3, "n_layers": 1}, heads={"dropout": 0.3})
)
STAGES: dict[str, Stage] = {
    "semantic": semantic_stage(CONFIG),
    "preference": preference_stage(CONFIG),
}


def model_with_dropout(stage: Stage) -> HTCL:
    """A tiny HTCL that drops a third everywhere, the same wherever it is made."""
    text = {"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1}
    text |= {"num_attention_heads": 2, "intermediate_size": 16, "hidden_dropout_prob": 0.3}
    torch.manual_seed(0)
    model = HTCL(
        HTCLConfig(CONFIG.model_dump(mode="json"), {**text, "attention_probs_dropout_prob": 0.3})
    )
    stage.freeze_idle(model)
    model.train(True)
    return model


def batch_of(first: int, last: int, half: int) -> dict[str, Any]:
    """Rows first..last and half + first..half + last of one fixed batch, of tracks of 30 to 60
    frames.
    """
    random = np.random.default_rng(1)
    mels = [
        random.standard_normal((int(random.integers(30, 60)), 128)).astype(np.float16)
        for _ in range(2 * half)
    ]
    tokens = torch.randint(5, 50, (2 * half, 1, 6), generator=torch.Generator().manual_seed(1))
    rows = [*range(first, last), *range(half + first, half + last)]
    told = torch.ones(2 * half, dtype=torch.bool)
    told[3] = False
    return {
        "unpadded_features": [mels[row] for row in rows],
        "input_ids": tokens[rows],
        "attention_mask": torch.ones_like(tokens)[rows],
        "has_text": told[rows],
        "numbers": torch.arange(2 * half)[rows],
    }


def lazy_batch(batch: dict[str, Any], crop_frames: int, seed: int = 0) -> LazyBatch:
    """The batch, padded as the tower needs it."""
    rng = np.random.default_rng(seed)
    pad = partial(pad_features, config=MelConfig(), min_frames=20)
    return LazyBatch(batch, pad, crop_frames, torch.device("cpu"), rng)


def gradients(
    model: nn.Module, stage: Stage, batch: dict[str, Any], is_cached: bool
) -> dict[str, Any]:
    """Losses and gradients, with crops of 25 frames; uncached all chunks keep their graph, from the
    same draws.
    """
    numbers = batch.pop("numbers")
    seed = 5 + (dist.get_rank() if dist.is_initialized() else 0)
    torch.manual_seed(seed)
    feed = lazy_batch(batch, 25, seed)
    chunks = feed.chunks(4)

    def loss(rows: Embeddings) -> dict[str, torch.Tensor]:
        parts: dict[str, torch.Tensor] = stage.loss(rows, numbers, numbers)
        return parts

    if is_cached:
        unsynced = model.no_sync if isinstance(model, DistributedDataParallel) else None
        parts = cached_backward(
            lambda rows: model(**feed.rows(rows)), chunks, loss, *([unsynced] if unsynced else [])
        )
    else:
        found = [model(**feed.rows(chunk)) for chunk in chunks]
        order = torch.cat(chunks).argsort()
        joined = {
            side: torch.cat([getattr(one, side) for one in found])[order] for side in VECTOR_NAMES
        }
        parts = loss(Embeddings(**joined, logit_scales=found[0].logit_scales))
        torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    felt = {
        name.removeprefix("module."): p.grad
        for name, p in model.named_parameters()
        if p.grad is not None
    }
    return {
        "losses": {name: part.item() for name, part in parts.items()},
        "gradients": felt,
        "next": torch.rand(3),
    }


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    """Losses and gradients to 1e-5 of their size, and the generator in the same place."""
    assert found["losses"] == pytest.approx(expected["losses"], rel=1e-5)
    assert found["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        largest = max(gradient.abs().max().item(), 1e-3)
        assert (found["gradients"][name] - gradient).abs().max().item() < 1e-5 * largest, name
    one, other = (parameters_to_vector(side["gradients"].values()) for side in (found, expected))
    assert (one - other).norm() < 1e-5 * other.norm()
    assert torch.equal(found["next"], expected["next"])


@pytest.mark.parametrize("name", ["semantic", "preference"])
def test_cached_gradient_is_the_direct_one_with_dropout_and_crops(name: str) -> None:
    expected, found = (
        gradients(
            model_with_dropout(STAGES[name]),
            STAGES[name],
            batch_of(0, N_ROWS // 2, N_ROWS // 2),
            is_cached,
        )
        for is_cached in (False, True)
    )
    assert_same(found, expected)
    assert "logit_scales.audio_text" in found["gradients"]


def test_dropout_not_replayed_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same comparison fails where the second pass draws anew: it is not dropout that is off."""
    stage = STAGES["semantic"]
    expected = gradients(model_with_dropout(stage), stage, batch_of(0, 7, 7), is_cached=False)
    monkeypatch.setattr(RngState, "restore", lambda _: None)
    found = gradients(model_with_dropout(stage), stage, batch_of(0, 7, 7), is_cached=True)
    with pytest.raises(AssertionError):
        assert_same(found, expected)


def test_rows_of_like_length_share_a_chunk() -> None:
    batch = batch_of(0, 7, 7)
    batch.pop("numbers")
    lengths = [len(mel) for mel in batch["unpadded_features"]]
    feed = lazy_batch(batch, 0)
    chunks = feed.chunks(4)
    assert [len(chunk) for chunk in chunks] == [4, 4, 4, 2]
    assert [lengths[row] for chunk in chunks for row in chunk] == sorted(lengths)
    assert feed.rows(chunks[0])["features"].shape == (4, sorted(lengths)[3], 128)


def test_a_graph_is_held_for_one_chunk_at_a_time() -> None:
    """What autograd saves, counted in numbers: 56 rows hold hardly more at once than 8, two chunks.

    Of stage two, whose loss reaches every output: what torch lets go without a backward pass is
    never told to hooks.
    """
    stage = STAGES["preference"]

    def most_saved(half: int) -> int:
        live, most = 0, 0

        class Saved:
            def __init__(self, value: torch.Tensor) -> None:
                nonlocal live, most
                self.value, self.size = value, value.numel()
                live += self.size
                most = max(most, live)

            def __del__(self) -> None:
                nonlocal live
                live -= self.size

        with torch.autograd.graph.saved_tensors_hooks(Saved, lambda saved: saved.value):
            gradients(model_with_dropout(stage), stage, batch_of(0, half, half), is_cached=True)
        return most

    assert most_saved(28) < 1.2 * most_saved(4)


def half_a_batch(process: int, folder: str) -> None:
    """Half of the rows under DDP on gloo: directly, and cached, counting what is reduced."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=process, world_size=2
    )
    half = N_ROWS // 2
    for name, stage in STAGES.items():
        for is_cached in (False, True):
            # A direct pass in several forwards under one backward is nothing DDP allows: its
            # average is taken by hand.
            model = model_with_dropout(stage)
            batch = batch_of(process * half, (process + 1) * half, N_ROWS)
            wrapped = Counting(model) if is_cached else model
            found = gradients(wrapped, stage, batch, is_cached)
            if isinstance(wrapped, Counting):
                found["unsynced"] = wrapped.n_unsynced
            else:
                for gradient in found["gradients"].values():
                    dist.all_reduce(gradient)
                    gradient /= 2
            torch.save(found, Path(folder) / f"{name}-{is_cached}-{process}.pt")
    dist.barrier()
    os._exit(
        0
        # now and then torch 2.13 waits for ever where it frees DDP and gloo: its threads need the
        # GIL
        # it holds
    )


class Counting(DistributedDataParallel):
    """DDP that counts how often it was told not to reduce."""

    n_unsynced = 0

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        self.n_unsynced += 1
        with super().no_sync():
            yield


@pytest.mark.slow
def test_two_processes_reduce_once_and_agree_with_the_direct_gradient(tmp_path: Path) -> None:
    context = fork_context()
    processes = [context.Process(target=half_a_batch, args=(n, str(tmp_path))) for n in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    for name in STAGES:
        for number in range(2):
            expected, found = (
                torch.load(tmp_path / f"{name}-{cached}-{number}.pt", weights_only=True)
                for cached in (False, True)
            )
            assert_same(found, expected)
            assert found["unsynced"] == 3  # of four chunks
