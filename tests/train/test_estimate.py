"""The estimate of a run: its steps are those made, its parts add up, and the library is left as it
was.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.errors import LibraryError
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.library import Library
from ponticello.storage.layout import LibraryPaths
from ponticello.train.estimate import TrainingEstimate, estimate_training
from ponticello.train.loop import TrainingObserver
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic

SETTINGS = [
    f"{stage}.{setting}"
    for stage in ("semantic", "preference")
    for setting in ("max_steps=9", "early_stopping_patience=9")
]
SETTINGS += [
    f"{stage}.{setting}" for stage in ("semantic", "preference") for setting in ("eval_steps=4",)
]


@pytest.fixture(scope="module")
def root(make_library: Callable[[Path], Library], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that is ready to be trained."""
    return make_library(tmp_path_factory.mktemp("dry-run") / "library").folder.root


def _files(root: Path) -> dict[str, int]:
    return {
        str(path.relative_to(root)): path.stat().st_mtime_ns
        for path in root.rglob("*")
        if path.is_file()
    }


def _semantic(folder: LibraryPaths, observers: list[TrainingObserver]) -> None:
    train_semantic(folder, "semantic", retrieval_figures, observers=observers)


def _preference(folder: LibraryPaths, observers: list[TrainingObserver]) -> None:
    train_preference(folder, "preference", "semantic", retrieval_figures, observers=observers)


def test_both_stages_make_the_steps_that_were_estimated_and_leave_nothing_before(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """9 steps with a validation every 4 are three validations, the last at the end."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = Library.open(root, SETTINGS).folder
    before = _files(root)
    one = estimate_training(folder, "semantic", _semantic)
    assert _files(root) == before
    assert train_semantic(folder, "semantic", retrieval_figures).n_steps == one.n_steps == 9
    before = _files(root)
    two = estimate_training(folder, "preference", _preference, "semantic")
    assert _files(root) == before
    assert list(tmp_path.iterdir()) == []
    assert (
        train_preference(folder, "preference", "semantic", retrieval_figures).n_steps
        == two.n_steps
        == 9
    )
    for found in (one, two):
        assert found.n_validations == 3
        assert found.n_fits == 1
        parts = found.other_seconds + 9 * found.seconds_per_step + 3 * found.seconds_per_validation
        assert found.seconds == pytest.approx(parts)
        assert min(found.other_seconds, found.seconds_per_step, found.seconds_per_validation) > 0
        assert found.vector_bytes == 60 * 64 * 4
        weights = (folder.run("semantic") / "model.safetensors").stat().st_size
        assert found.checkpoint_bytes > 2 * weights
        assert found.memory_bytes > weights


def test_missing_step_before_is_said_as_training_says_it(root: Path) -> None:
    with pytest.raises(LibraryError, match="run 'elsewhere' is not a finished stage one"):
        estimate_training(
            Library.open(root).folder,
            "preference",
            lambda folder, observers: train_preference(
                folder, "preference", "elsewhere", retrieval_figures, observers=observers
            ),
            "elsewhere",
        )


def test_command_prints_every_part(root: Path) -> None:
    arguments = [
        "train",
        "semantic",
        "--dry-run",
        "--name",
        "new",
        "-L",
        str(root),
        "--set",
        "semantic.max_steps=7",
    ]
    said = CliRunner().invoke(app, arguments)
    assert said.exit_code == 0, said.output
    first, *_, last = said.stdout.splitlines()
    assert first.startswith("at most 7 steps of ")
    assert last == "the library was not changed"
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert set(found) == {*TrainingEstimate.__dataclass_fields__, "n_runs"}
    assert (found["n_steps"], found["n_runs"]) == (7, 1)
    assert not (root / "runs" / "new").exists()
