"""What may be set about how a stage is computed changes time and memory, not what is learned."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.library import Library
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic

SHORT = ["max_steps=10", "eval_steps=5", "batch_size=10", "early_stopping_patience=9"]


@pytest.fixture(scope="module")
def root(make_library: Callable[[Path], Library], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with a finished stage one, "semantic"."""
    root = tmp_path_factory.mktemp("options") / "library"
    make_library(root)
    losses(root, "semantic", "semantic")
    return root


def losses(root: Path, stage: str, name: str, *options: str) -> dict[str, float]:
    """Every part of the loss, of training and of validation, after ten steps."""
    settings = [f"{stage}.{setting}" for setting in (*SHORT, *options)]
    folder = Library.open(
        root, ["audio.dropout=0.0", "heads.dropout=0.0", "audio.crop_seconds=2", *settings]
    ).folder
    if stage == "semantic":
        run = train_semantic(folder, name, retrieval_figures)
    else:
        run = train_preference(folder, name, "semantic", retrieval_figures)
    entries = [
        json.loads(line) for line in (run.folder / "log.jsonl").read_text("utf-8").splitlines()
    ]
    return {
        f"{entry['step']} {key}": value
        for entry in entries
        for key, value in entry.items()
        if "loss" in key
    }  # as logged, at steps 5 and 10


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["semantic", "preference"])
def test_training_in_chunks_gives_the_losses_of_training_at_once(stage: str, root: Path) -> None:
    """Ten steps without dropout, whose draws no chunk could share; batches of 10 and of 20 tracks
    in chunks of 4.
    """
    expected = losses(root, stage, f"{stage}-at-once")
    found = losses(root, stage, f"{stage}-in-chunks", "chunk_size=4")
    assert len(expected) >= 6
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "tolerance"),
    [("gradient_checkpointing", 1e-5), ("fused_optimizer", 1e-4), ("bf16", 0.05)],
)
def test_option_leaves_the_losses_as_they_are(option: str, tolerance: float, root: Path) -> None:
    """bfloat16 has 8 bits of precision, so that its losses are the same to a few per cent."""
    expected = losses(root, "semantic", "semantic")
    found = losses(
        root,
        "semantic",
        option,
        f"{option}=true",
        "chunk_size=4" if option == "bf16" else "chunk_size=0",
    )
    assert found == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert found != expected or option == "gradient_checkpointing"


@pytest.mark.slow
def test_compiled_towers_leave_the_losses_as_they_are(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated ahead of time, but not turned into C++, which takes minutes."""
    expected, compile_with, compiled = losses(root, "semantic", "semantic"), torch.compile, []

    def without_code(call: Any, **options: Any) -> Any:
        compiled.append(type(call.__self__).__name__)
        return compile_with(call, backend="aot_eager", **options)

    monkeypatch.setattr(torch, "compile", without_code)
    found = losses(root, "semantic", "compiled", "compile=true", "chunk_size=4")
    assert compiled == ["AudioEncoder"]  # the text tower is frozen here
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_checkpointed_layers_save_less_for_the_backward_pass() -> None:
    """Numbers that autograd keeps of a tower of four layers, and gradients of the same dropout."""
    from ponticello.config import AudioEncoderConfig
    from ponticello.model.audio_encoder import AudioEncoder

    config = AudioEncoderConfig(
        conv_channels=(32, 32, 32), hidden_size=32, n_layers=4, n_heads=2, ffn_size=128
    )
    torch.manual_seed(0)
    tower, saved, gradients = AudioEncoder(config, 16), [], []
    for is_checkpointed in (False, True):
        tower.gradient_checkpointing = is_checkpointed
        tower.zero_grad()
        kept: list[int] = []

        def keep(value: torch.Tensor, kept: list[int] = kept) -> torch.Tensor:
            kept.append(value.numel())
            return value

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            tokens, _ = tower(torch.ones(4, 200, 16), torch.zeros(4, 200, dtype=torch.bool))
        forward = sum(kept)
        tokens.square().sum().backward()
        saved.append(forward)
        gradients.append([p.grad.clone() for p in tower.parameters() if p.grad is not None])
    assert saved[1] < 0.5 * saved[0]
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))
