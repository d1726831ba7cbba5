"""Runs that end before their last step, or after it and before their model is there."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ponticello.errors import DataError, Stopped
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.library import Library
from ponticello.train import runs
from ponticello.train.loop import TrainingLoop, TrainingObserver
from ponticello.train.runs import COMPLETE, is_finished
from ponticello.train.schedule import is_out_of_patience
from ponticello.train.semantic import train_semantic
from tests.train.test_semantic_and_preference import log_of, train


class TellAt(TrainingObserver):
    """SIGTERM while step 4 is taken."""

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        if loop.step == 4:
            os.kill(os.getpid(), signal.SIGTERM)


def test_run_told_to_stop_or_killed_after_its_last_step_ends_as_one_left_alone(
    make_library: Callable[[Path], Library], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every third step has a checkpoint: that of step 4 is SIGTERM's. Then all 12 are done,
    unpublished.
    """
    handler = signal.getsignal(signal.SIGTERM)  # another library may have set its own
    make_library(tmp_path / "undisturbed")
    root = Path(shutil.copytree(tmp_path / "undisturbed", tmp_path / "stopped"))
    expected = train(tmp_path / "undisturbed", "semantic").read_bytes()
    with pytest.raises(Stopped, match="stopped after step 4, with a checkpoint; run the same"):
        train(root, "semantic", [TellAt()])
    run = root / "runs" / "semantic"
    assert (run / "checkpoints" / "checkpoint-4" / COMPLETE).is_file()
    assert signal.getsignal(signal.SIGTERM) is handler
    with monkeypatch.context() as patch:
        patch.setattr(runs, "finalize_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            train(root, "semantic")
    assert not is_finished(run)
    assert train(root, "semantic").read_bytes() == expected
    assert log_of(run) == log_of(tmp_path / "undisturbed" / "runs" / "semantic")


def test_run_whose_numbers_run_away_stops_and_saves_nothing(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    make_library(tmp_path / "library")
    rates = [
        "semantic.audio_lr=1e30",
        "semantic.heads_lr=1e30",
        "semantic.max_grad_norm=0",
        "semantic.warmup_share=0",
    ]
    folder = Library.open(tmp_path / "library", [*rates, "semantic.max_steps=8"]).folder
    with pytest.raises(
        DataError, match=r"stage semantic: the audio_text loss is \w+ in step \d, and nothing"
    ):
        train_semantic(folder, "semantic", retrieval_figures)
    assert list(tmp_path.rglob("*.safetensors")) == []


@pytest.mark.parametrize(
    ("values", "is_over"),
    [
        ([], False),
        ([0.1], False),
        ([0.1, 0.3, 0.2], False),
        ([0.3, 0.1, 0.2], True),
        ([0.3, 0.3, 0.3], True),
    ],
)
def test_patience_counts_validations_since_the_first_best_one(
    values: list[float], is_over: bool
) -> None:
    """Two in a row without a better one are enough; an equal one is no better."""
    assert is_out_of_patience(values, patience=2) is is_over
