"""What a profile says of where the seconds go."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from ponticello.api import Library
from ponticello.cli.train import semantic
from ponticello.evaluate.semantic import retrieval_figures
from ponticello.train.profile import PARTS, Profile
from ponticello.train.run import train_semantic

SHORT = ["max_steps=6", "evaluate_every=3", "batch_size=8", "patience=9"]


def stepped(monkeypatch: pytest.MonkeyPatch, folder: Path, loader_s: float) -> Profile:
    """Three steps by a made-up clock: `loader_s` of loading, 1 s forward within 4 s of a step, 0.5 s of optimizer."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    measured, arguments = Profile(), SimpleNamespace(output_dir=str(folder / "checkpoints"))
    state = SimpleNamespace(is_world_process_zero=True)
    measured.n_tracks = 9
    measured.on_train_begin(arguments, state, None)
    for _ in range(3):
        with measured.time("loader"):
            clock[0] += loader_s
        with measured.time("backward"):
            clock[0] += 1.0
            with measured.time("forward"):
                clock[0] += 1.0
            clock[0] += 2.0
        measured.on_pre_optimizer_step(arguments, state, None)
        clock[0] += 0.5
        measured.on_optimizer_step(arguments, state, None)
        measured.on_step_end(arguments, state, None)
        clock[0] += 0.25  # between steps: validation
    measured.on_train_end(arguments, state, None)
    return measured


def test_seconds_add_up_without_the_first_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two of three steps: loader 2 x 0.1, forward 2 x 1, backward 2 x (1 + 2), optimizer 2 x 0.5, rest 3 x 0.25 s."""
    stepped(monkeypatch, tmp_path, 0.1)
    found = json.loads((tmp_path / "profile.json").read_text("utf-8"))
    assert (found["n_steps"], found["tracks_per_step"]) == (2, 9)
    expected = {"loader": 0.2, "forward": 2.0, "backward": 6.0, "optimizer": 1.0, "rest": 0.75}
    assert found["seconds"] == pytest.approx(expected)


def test_sentence_says_what_waits_for_what(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """4.6 s a step with 0.1 s of loading: 2 %; 9.0 s with 4.5 s: half of it. Nine tracks in 9 s are one a second."""
    assert stepped(monkeypatch, tmp_path, 0.1).sentence().endswith("; the loader keeps up")
    waiting = stepped(monkeypatch, tmp_path, 4.5).sentence()
    assert waiting.startswith("profile: 2 steps of 9.0000 s, 1 tracks/s a process: loader 4.5000 s (50%), forward 1.0")
    assert waiting.endswith("the step waits for the loader 50% of its time")


def test_a_run_without_steps_has_no_profile() -> None:
    assert Profile().sentence().startswith("profile: no step was measured")


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [0, 4])
def test_every_part_of_a_run_takes_time(
    chunk_size: int, make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    make_library(tmp_path / "library")
    settings = [f"semantic.{setting}" for setting in (*SHORT, f"chunk_size={chunk_size}")]
    folder, measured = Library.open(tmp_path / "library", settings).folder, Profile()
    run = train_semantic(folder, "semantic", retrieval_figures, callbacks=[measured])
    found = json.loads((run.folder / "profile.json").read_text("utf-8"))
    assert (found["n_steps"], found["tracks_per_step"]) == (5, 8)
    assert all(found["seconds"][part] > 0 for part in PARTS)


@pytest.mark.slow
def test_command_says_the_profile_on_stderr_beside_its_result(
    make_library: Callable[[Path], Library], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_library(tmp_path / "library")
    semantic(tmp_path / "library", settings=[f"semantic.{setting}" for setting in SHORT], profile=True)
    printed = capsys.readouterr()
    assert "profile: 5 steps of " in printed.err
    assert printed.out.startswith("stage semantic: 6 steps")
