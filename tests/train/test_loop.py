"""The loop with a task of its own: a linear model, batches of random numbers, a made-up metric."""

import json
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ponticello.config import StageConfig
from ponticello.errors import CheckpointError, Stopped
from ponticello.train.loop import (
    LoopResult,
    ProgressObserver,
    TrainingLoop,
    TrainingObserver,
    TrainingTask,
    run_loop,
    step_seed,
)
from ponticello.train.runs import checkpoint_folders
from ponticello.train.schedule import learning_rate_factor

METRICS = (0.1, 0.5, 0.2, 0.3, 0.4, 0.5)  # of the validations in turn: the second is the best
SETTINGS = {
    "eval_steps": 4,
    "min_validations": 1,
    "early_stopping_patience": 9,
    "heads_lr": 0.1,
    "max_grad_norm": 0.5,
}


def batches(start: int) -> Iterator[Tensor]:
    """Eight rows of three numbers a step."""
    for step in count(start):
        yield torch.randn(8, 3, generator=torch.Generator().manual_seed(step))


def loss_terms(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
    """Two squares, with dropout."""
    output = nn.functional.dropout(model(batch), 0.5)
    return {"near": (output - 1).square().mean(), "small": 0.1 * output.square().mean()}


class Watch(TrainingObserver):
    """Keeps the weights after each step, and the checkpoints that there are before the next."""

    def __init__(self, stop_after: int = 0) -> None:
        self.stop_after = stop_after
        self.weights: dict[int, Tensor] = {}
        self.checkpoints: dict[int, set[int]] = {}

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        self.weights[loop.step] = loop.task.model.get_parameter("weight").detach().clone()
        self.checkpoints[loop.step] = set(checkpoint_folders(loop.checkpoints))
        if loop.step == self.stop_after:
            loop.request_stop()


def linear() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(3, 2)


def task(
    model: nn.Module, n_steps: int = 24, n_validated: int = 0, **changes: Any
) -> TrainingTask[Tensor]:
    """n_validated: validations before the run resumes."""
    metrics = iter(METRICS[n_validated:])
    settings = StageConfig.model_validate(SETTINGS | changes)
    return TrainingTask(
        "semantic",
        model,
        settings,
        n_steps,
        batches,
        loss_terms,
        lambda: {"mrr": next(metrics), "loss": 1.0},
        best_by="mrr",
    )


def log_of(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]


def train(run: Path, watch: Watch, **changes: Any) -> tuple[nn.Module, LoopResult]:
    model = linear()
    return model, run_loop(task(model, **changes), run, [watch], {"data": 1})


def test_steps_are_those_of_plain_pytorch(tmp_path: Path) -> None:
    """AdamW, warm-up and cosine, clipping; the loss is the sum of the terms."""
    watch = Watch()
    train(tmp_path, watch)
    model = linear()
    parameters = [
        {"params": [model.weight], "weight_decay": 0.01},
        {"params": [model.bias], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(parameters, lr=0.1)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(StageConfig(), step, 24)
    )
    for step, batch in zip(range(1, 25), batches(0), strict=False):
        torch.manual_seed(step_seed(StageConfig().seed, step - 1))  # of dropout
        loss = sum(loss_terms(model, batch).values(), torch.tensor(0.0))
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
        torch.testing.assert_close(watch.weights[step], model.weight, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("step", [4, 7, 10, 23])
def test_stopped_run_resumes_to_identical_weights_and_log(tmp_path: Path, step: int) -> None:
    """Stopped between validations and with lines of the log half full, with dropout."""
    watch = Watch()
    model, result = train(tmp_path / "undisturbed", watch)
    with pytest.raises(Stopped, match=f"stopped after step {step}, with a checkpoint"):
        train(tmp_path / "stopped", Watch(stop_after=step))
    later = Watch()
    resumed, again = train(tmp_path / "stopped", later, n_validated=step // 4)
    assert min(later.weights) == step + 1
    assert all(torch.equal(later.weights[n], watch.weights[n]) for n in later.weights)
    assert torch.equal(resumed.get_parameter("weight"), model.get_parameter("weight"))
    assert again == result
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "undisturbed") == result.history


def test_model_ends_with_the_weights_of_the_first_best_validation(tmp_path: Path) -> None:
    watch = Watch()
    model, result = train(tmp_path, watch)
    assert result.n_steps == 24
    assert result.best == {"mrr": 0.5, "loss": 1.0}
    assert torch.equal(model.get_parameter("weight"), watch.weights[8])


def test_run_ends_when_patience_does(tmp_path: Path) -> None:
    """The validations of steps 12 and 16 are no better than that of step 8."""
    _, result = train(tmp_path, Watch(), early_stopping_patience=2)
    assert result.n_steps == 16
    assert [entry["step"] for entry in log_of(tmp_path) if "eval_mrr" in entry] == [4, 8, 12, 16]


def test_newest_and_best_checkpoint_are_kept_without_pickles(tmp_path: Path) -> None:
    watch = Watch()
    train(tmp_path, watch)
    assert watch.checkpoints[8] == {4}
    assert watch.checkpoints[9] == {8}
    assert watch.checkpoints[13] == {8, 12}
    assert watch.checkpoints[24] == {8, 20}
    names = {path.name for path in (tmp_path / "checkpoints" / "checkpoint-8").iterdir()}
    assert names == {"model.safetensors", "optimizer.safetensors", "state.json", "complete.json"}


def test_damaged_best_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, Watch(stop_after=15))
    weights = tmp_path / "checkpoints" / "checkpoint-8" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(CheckpointError, match=r"model.safetensors of .*checkpoint-8, the best"):
        train(tmp_path, Watch(), n_validated=3)


def test_run_with_another_fingerprint_does_not_resume(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        train(tmp_path, Watch(stop_after=5))
    with pytest.raises(CheckpointError, match="cannot go on: data changed since"):
        run_loop(task(linear()), tmp_path, [], {"data": 2})


def test_terms_without_a_graph_have_added_their_gradients(tmp_path: Path) -> None:
    """As those of `cached_backward`: the same steps."""
    expected = Watch()
    train(tmp_path / "sum", expected)

    def added(model: nn.Module, batch: Tensor) -> dict[str, Tensor]:
        terms = loss_terms(model, batch)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        return {name: term.detach() for name, term in terms.items()}

    watch = Watch()
    described = task(linear())
    with_gradients = TrainingTask(**{**vars(described), "loss_terms": added})
    run_loop(with_gradients, tmp_path / "added", [watch], {})
    assert torch.equal(watch.weights[24], expected.weights[24])


def test_progress_shows_the_newest_loss_and_validation(tmp_path: Path) -> None:
    lines: list[tuple[str, int, int]] = []

    def report(text: str, step: int, n_steps: int) -> None:
        lines.append((text, step, n_steps))

    run_loop(task(linear(), n_steps=6), tmp_path, [ProgressObserver("stage one", report)], {})
    loss = log_of(tmp_path)[1]["loss"]
    assert lines[0] == ("stage one", 0, 6)
    assert lines[4] == ("stage one", 4, 6)
    assert lines[5] == ("stage one  MRR 0.100", 5, 6)
    assert lines[6] == (f"stage one  loss {loss:.3f}  MRR 0.100", 6, 6)
