"""A model shared out among processes, as `torchrun` starts them, against one that each of them holds whole."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor

from ponticello.api import Library
from ponticello.config import Config
from ponticello.errors import ConfigError
from ponticello.model.htcl import HTCL
from ponticello.train.checkpoints import last_checkpoint
from ponticello.train.finished import is_finished
from ponticello.train.sharding import check_sharding
from ponticello.train.stages import Stage, semantic_stage

PONTICELLO = ["-m", "ponticello"]
DYING = [str(Path(__file__).parent / "dying.py"), "5"]
SHORT = ["max_steps=6", "evaluate_every=3", "batch_size=6", "patience=9"]
TIMEOUT_S = 300


def train(
    root: Path, stage: str, n_processes: int, name: str, *options: str, program: list[str] = PONTICELLO
) -> subprocess.CompletedProcess[str]:
    """A stage by `torchrun` on so many processes, with dropout, both towers learning."""
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(n_processes)]
    words += [*program, "train", stage, "-L", str(root), "--name", name]
    words += ["--from", "whole"] if stage == "preference" else []
    words += [word for setting in (*SHORT, *options) for word in ("--set", f"{stage}.{setting}")]
    words += ["--set", "text.trainable=true"]
    return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)


def losses_of(root: Path, run: str) -> dict[str, float]:
    """Every loss and the norm of the gradient, as logged."""
    lines = [json.loads(line) for line in (root / "runs" / run / "log.jsonl").read_text("utf-8").splitlines()]
    figures = [(entry["step"], key, value) for entry in lines for key, value in entry.items()]
    return {f"{step} {key}": value for step, key, value in figures if "loss" in key or key == "grad_norm"}


def assert_same_run(root: Path, found: str, expected: str) -> None:
    """Losses, gradient norms and saved weights to 1e-5."""
    assert len(losses_of(root, expected)) >= 6
    assert losses_of(root, found) == pytest.approx(losses_of(root, expected), rel=1e-5, abs=1e-5)
    one, other = (load_file(root / "runs" / run / "model.safetensors") for run in (found, expected))
    assert one.keys() == other.keys()
    for name, weight in other.items():
        assert (one[name] - weight).abs().max().item() < 1e-5, name


@pytest.fixture(scope="module")
def root(make_library: Callable[[Path], Library], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library with two runs of stage one on two processes: "whole" with DDP, and "shared"."""
    root = tmp_path_factory.mktemp("sharding") / "library"
    make_library(root)
    for name, fsdp in (("whole", "false"), ("shared", "true")):
        ended = train(root, "semantic", 2, name, f"fsdp={fsdp}")
        assert ended.returncode == 0, ended.stderr
    return root


@pytest.mark.slow
def test_shared_out_a_stage_learns_what_it_learns_whole(root: Path) -> None:
    assert_same_run(root, "shared", "whole")


@pytest.mark.slow
def test_what_is_saved_is_an_ordinary_model(root: Path) -> None:
    """The same files as without shards, of the same size, that load as ever."""
    shared, whole = (
        {file.name: file.stat().st_size for file in (root / "runs" / name).iterdir()} for name in ("shared", "whole")
    )
    assert shared.keys() == whole.keys()
    assert shared["model.safetensors"] == whole["model.safetensors"]
    model = HTCL.from_pretrained(root / "runs/shared")
    assert not any(isinstance(weight, DTensor) for weight in model.parameters())
    assert model.encode_text(["slow piano"]).shape == (1, model.parts.heads.embed_dim)


@pytest.mark.slow
@pytest.mark.long
def test_stage_two_in_chunks_and_checkpointed_layers_too(root: Path) -> None:
    for name, fsdp in (("two-whole", "false"), ("two-shared", "true")):
        options = [f"fsdp={fsdp}", "chunk_size=4", "gradient_checkpointing=true", "fused_optimizer=true"]
        ended = train(root, "preference", 2, name, *options, "keep=1.0", "multi_positive=true")
        assert ended.returncode == 0, ended.stderr
    assert_same_run(root, "two-shared", "two-whole")


@pytest.mark.slow
@pytest.mark.long
def test_a_killed_run_goes_on_to_the_same_weights_and_also_on_more_processes(root: Path, tmp_path: Path) -> None:
    """Rank 1 of 2 dies after step 5, so that the checkpoint is of step 3."""
    ended = train(root, "semantic", 2, "killed", "fsdp=true", program=DYING)
    assert ended.returncode != 0
    checkpoint = last_checkpoint(root / "runs/killed/checkpoints")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-3"
    whole = HTCL.from_pretrained(checkpoint)
    moments = torch.load(checkpoint / "optimizer.pt", weights_only=True)["state"].values()
    sizes = sorted(weight.numel() for weight in whole.parameters())
    assert {state["exp_avg"].numel() for state in moments} <= set(sizes)  # not halves of them
    shutil.copytree(root, tmp_path / "more")
    again = train(root, "semantic", 2, "killed", "fsdp=true")
    assert again.returncode == 0, again.stderr
    assert_same_run(root, "killed", "shared")
    more = train(tmp_path / "more", "semantic", 3, "killed", "fsdp=true")
    assert more.returncode == 0, more.stderr
    assert is_finished(tmp_path / "more/runs/killed")
    expected, found = losses_of(root, "shared"), losses_of(tmp_path / "more", "killed")
    before = [key for key in expected if key.startswith("3 ")]
    assert [found[key] for key in before] == pytest.approx([expected[key] for key in before], abs=1e-5)


def test_shards_that_cannot_be_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def stage(**changes: bool) -> Stage:
        return semantic_stage(Config.from_preset("tiny", {"semantic": changes}))

    check_sharding(stage())
    with pytest.raises(ConfigError, match=r"^semantic.fsdp shares a model .* there is one: start it with torchrun$"):
        check_sharding(stage(fsdp=True))
    monkeypatch.setenv("WORLD_SIZE", "2")
    check_sharding(stage(fsdp=True))
    with pytest.raises(ConfigError, match=r"semantic.fsdp and semantic.compile were not checked together"):
        check_sharding(stage(fsdp=True, compile=True))
    monkeypatch.setattr(torch, "__version__", "2.9.1+cpu")
    with pytest.raises(ConfigError, match=r"semantic.fsdp needs torch 2.13 or newer; found 2.9.1\+cpu"):
        check_sharding(stage(fsdp=True))
