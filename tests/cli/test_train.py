"""train: both stages from the command line, their receipts, and what a second call or a missing
step says.
"""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ponticello.cli.main import app
from ponticello.errors import CheckpointError, ConfigError, LibraryError
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.train.readiness import count_data, describe_readiness
from tests.cli.commands import error

SHORT = ["--set", "semantic.epochs=1", "--set", "preference.epochs=0.5"]
FIGURES = r"best validation (?:[\w@ ]+ [01]\.\d{3}, )*[\w@ ]+ [01]\.\d{3}"


def _stop(*_: object, **__: object) -> None:
    raise LibraryError("stopped here")


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def untrained(
    make_library: Callable[[Path], Library], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a library that is ready to be trained; stays untrained."""
    return make_library(tmp_path_factory.mktemp("untrained") / "library").folder.root


@pytest.fixture(scope="module")
def trained_by_command(
    make_library: Callable[[Path], Library], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result, Result]:
    """The folder of a library in which both stages were trained by the command, and what the two
    runs gave.
    """
    root = make_library(tmp_path_factory.mktemp("by-command") / "library").folder.root
    one = _run("train", "semantic", "-L", root, *SHORT)
    two = _run("train", "preference", "-L", root, *SHORT)
    assert (one.exit_code, two.exit_code) == (0, 0), one.output + two.output
    return root, one, two


def test_receipt_tells_steps_rows_validation_and_folder(
    trained_by_command: tuple[Path, Result, Result],
) -> None:
    root, one, two = trained_by_command
    for result, stage, what in ((one, "semantic", "tracks"), (two, "preference", "pairs")):
        run = root / "runs" / stage
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
        start = f"stage {stage}: {record['n_steps']:,} steps on {record['n_rows']:,} {what}; "
        kept = f"{record['selection']['sentence']}\n" if stage == "preference" else ""
        assert re.fullmatch(
            rf"{re.escape(start)}{FIGURES}; in {re.escape(str(run))}\n{re.escape(kept)}",
            result.stdout,
        )
        assert f"mrr {record['best']['mrr']:.3f}" in result.stdout
        assert f"stage {stage}" in result.stderr, "the bar"


def test_trained_folders_load_as_models(trained_by_command: tuple[Path, Result, Result]) -> None:
    for stage in ("semantic", "preference"):
        model = HTCL.from_pretrained(trained_by_command[0] / "runs" / stage)
        assert model.encode_text(["slow dark"]).shape == (1, 64)


def test_setting_of_the_command_line_is_what_the_run_used(
    trained_by_command: tuple[Path, Result, Result],
) -> None:
    """The library says 10 epochs, the command 1: as many steps as there are whole batches of 32."""
    record = json.loads(
        (trained_by_command[0] / "runs" / "semantic" / "run.json").read_text(encoding="utf-8")
    )
    assert record["settings"]["semantic"]["epochs"] == 1
    assert record["n_steps"] == record["n_rows"] // 32


@pytest.mark.parametrize("stage", ["semantic", "preference"])
def test_finished_run_is_told_again_without_training(
    trained_by_command: tuple[Path, Result, Result], stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(*_: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr("ponticello.train.loop.TrainingLoop", train)
    root, *firsts = trained_by_command
    again = _run("train", stage, "-L", root, *SHORT)
    assert again.exit_code == 0, again.output
    assert again.stdout == firsts[stage == "preference"].stdout
    assert again.stderr == ""


def test_finished_run_as_json(trained_by_command: tuple[Path, Result, Result]) -> None:
    root = trained_by_command[0]
    record = json.loads((root / "runs" / "preference" / "run.json").read_text(encoding="utf-8"))
    supply = count_data(Library.open(root).folder)
    printed = json.loads(_run("train", "preference", "-L", root, *SHORT, "--json").stdout)
    assert printed == {
        "run": "preference",
        "stage": "preference",
        "n_rows": record["n_rows"],
        "n_steps": record["n_steps"],
        "best": record["best"],
        "selection": record["selection"],
        "supply": {**asdict(supply), "supports": describe_readiness(supply)},
    }


def test_only_the_first_process_prints(
    trained_by_command: tuple[Path, Result, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponticello.train.distributed.rank", lambda: 1)
    result = _run("train", "semantic", "-L", trained_by_command[0], *SHORT)
    assert (result.exit_code, result.stdout) == (0, "")


def test_what_there_is_to_train_on_is_said_before_the_first_step(
    trained_by_command: tuple[Path, Result, Result],
) -> None:
    """The same two tables are read by what counts and by what trains: as many rows as are
    announced.
    """
    root, *results = trained_by_command
    supply = count_data(Library.open(root).folder)
    told = "".join(f"{line}\n" for line in (supply.line(), *describe_readiness(supply)))
    stages = ("semantic", supply.n_tracks_with_both), ("preference", supply.n_pairs)
    for result, (stage, n_rows) in zip(results, stages, strict=True):
        assert 0 <= result.stderr.find(told) < result.stderr.index(f"stage {stage}")
        assert f" steps on {n_rows:,} " in result.stdout
        assert "to learn from" not in result.stdout


@pytest.mark.parametrize("stage", ["semantic", "preference"])
def test_what_there_is_to_train_on_is_said_by_the_first_process_alone(
    untrained: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"ponticello.train.{stage}.train_{stage}", _stop)
    for process, said in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", process)
        result = _run("train", stage, "-L", untrained)
        assert result.exit_code == 1
        assert ("training tracks with audio" in result.stderr) == said


def test_a_library_without_frames_is_told_what_comes_first(tmp_path: Path) -> None:
    root = Library.create(tmp_path / "library", "tiny").folder.root
    result = _run("train", "semantic", "-L", root)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[:2] == [
        "to learn from: 0 training tracks with audio, 0 with text, 0 with both; 0 listeners, "
        "0 with two or more liked "
        "(median 0), 0 pairs; for validation 0 tracks, 0 pairs",
        "No training track has audio or text yet: "
        "run `ponticello prepare`, `tag` and `mine-pairs` first.",
    ]


def test_name_of_the_other_stage_is_refused(
    trained_by_command: tuple[Path, Result, Result],
) -> None:
    message = error(
        CheckpointError, "train", "semantic", "-L", trained_by_command[0], "--name", "preference"
    )
    assert message == "run 'preference' is of stage preference; choose another --name"


def test_stage_two_starts_from_the_run_it_is_told(
    trained_by_command: tuple[Path, Result, Result],
) -> None:
    message = error(
        LibraryError,
        "train",
        "preference",
        "-L",
        trained_by_command[0],
        "--name",
        "x",
        "--from",
        "nope",
    )
    assert (
        message
        == "run 'nope' is not a finished stage one; train it with: ponticello train semantic"
    )


def test_stage_two_before_stage_one_says_what_comes_first(untrained: Path) -> None:
    message = error(LibraryError, "train", "preference", "-L", untrained)
    assert (
        message
        == "run 'semantic' is not a finished stage one; train it with: ponticello train semantic"
    )
    assert not (untrained / "runs" / "preference").exists()


@pytest.mark.parametrize("stage", ["semantic", "preference"])
def test_unknown_setting_is_named(untrained: Path, stage: str) -> None:
    message = error(ConfigError, "train", stage, "-L", untrained, "--set", f"{stage}.epoch=3")
    assert message.startswith(
        f"setting '{stage}.epoch' is unknown; there are batch_size, chunk_size, epochs, "
    )


def test_text_encoder_that_is_not_here_is_not_fetched_unasked(untrained: Path) -> None:
    message = error(
        CheckpointError, "train", "semantic", "-L", untrained, "--set", "text.name=nobody/nothing"
    )
    assert message.startswith("text encoder 'nobody/nothing' cannot be loaded: ")
    assert message.endswith(
        "(nothing is fetched unasked: give --allow-download, or a local folder)"
    )
