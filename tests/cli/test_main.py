"""The command as a whole: its help, its examples, where it looks for the library, and what a
failure looks like.
"""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.core import TyperGroup
from typer.main import get_command
from typer.testing import CliRunner

from ponticello.cli.main import app, main
from ponticello.errors import (
    AudioError,
    CheckpointError,
    ConfigError,
    DataError,
    LibraryError,
    PonticelloError,
    ShapeError,
    Stopped,
)
from ponticello.storage.layout import create_library, open_library

COMMANDS = (
    "init",
    "scan",
    "import-tracks",
    "import-history",
    "prepare",
    "tag",
    "mine-pairs",
    "train semantic",
    "train preference",
    "forget-user",
    "embed",
    "search",
    "similar",
    "recommend",
    "audience",
    "serve",
    "export-explorer",
    "evaluate",
    "export",
    "import-weights",
    "import-dataset",
    "doctor",
    "demo",
)

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command as a shell would: gives its exit code, stdout and stderr."""

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ponticello", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return code, printed.out, printed.err

    return call


def _walk(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(full name, command) of every command that does something."""
    if isinstance(command, TyperGroup):
        for part, child in command.commands.items():
            yield from _walk(child, f"{name} {part}".strip())
    else:
        yield name, command


LEAVES = dict(_walk(get_command(app)))


def _raising(error: BaseException) -> Callable[..., None]:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    return fail


def test_commands_are_exactly_these() -> None:
    assert sorted(LEAVES) == sorted(COMMANDS)


# Help


@pytest.mark.parametrize("name", COMMANDS)
def test_help_shows_an_example_that_can_be_copied(name: str) -> None:
    """The line after `Example:` starts with the command, is not wrapped, and its arguments and
    options are accepted.
    """
    printed = CliRunner().invoke(app, [*name.split(), "--help"])
    assert printed.exit_code == 0
    lines = [line.strip() for line in printed.stdout.splitlines()]
    example = lines[lines.index("Example:") + 1]
    words = shlex.split(example)
    path = ["ponticello", *name.split()]
    assert words[: len(path)] == path
    arguments = words[len(path) :]
    options = [option for parameter in LEAVES[name].params for option in parameter.opts]
    assert [
        word for word in arguments if re.match("--?[a-zA-Z]", word) and word not in options
    ] == []
    assert LEAVES[name].make_context(name, arguments).params


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_is_explained(name: str) -> None:
    assert [p.name for p in LEAVES[name].params if p.name != "help" and not p.help] == []


@pytest.mark.parametrize("arguments", [[], ["train"]])
def test_without_a_command_the_commands_are_listed(run: Run, arguments: list[str]) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    names = [
        name.removeprefix("train ")
        for name in COMMANDS
        if name.startswith("train") == bool(arguments)
    ]
    assert [name for name in names if not re.search(rf"^  {name} ", out + err, re.MULTILINE)] == []


def test_several_processes_are_shown_in_full(run: Run) -> None:
    code, out, _ = run("train", "semantic", "--help")
    assert code == 0
    assert "\n  torchrun --nproc-per-node 2 -m ponticello train semantic -L my-library\n" in out


def test_package_runs_as_a_module() -> None:
    """In a process of its own, as torchrun starts it."""
    done = subprocess.run(
        [sys.executable, "-m", "ponticello", "--help"], capture_output=True, text=True, check=True
    )
    assert "import-tracks" in done.stdout
    assert done.stderr == ""


# Failures


@pytest.mark.parametrize(
    "kind",
    [
        PonticelloError,
        ConfigError,
        LibraryError,
        DataError,
        AudioError,
        ShapeError,
        CheckpointError,
    ],
)
def test_each_of_our_errors_is_one_line_and_exit_code_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, kind: type[PonticelloError]
) -> None:
    monkeypatch.setattr(
        "ponticello.library.create_library", _raising(kind("found 3; wanted 4; do this"))
    )
    assert run("init", "lib") == (1, "", "error: found 3; wanted 4; do this\n")


def test_message_with_line_ends_and_control_characters_is_one_plain_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A value of a user's file may stand in a message; it may not rewrite the terminal."""
    error = DataError("title 'a\nb\x1b[31m' is\r\nwrong\u2028here")
    monkeypatch.setattr("ponticello.library.create_library", _raising(error))
    code, out, err = run("init", "lib")
    assert (code, out) == (1, "")
    assert err == "error: title 'a b\N{REPLACEMENT CHARACTER}[31m' is wrong here\n"


def test_failing_disk_is_one_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    error = OSError(28, "No space left on device", "lib/tracks.parquet")
    monkeypatch.setattr("ponticello.library.create_library", _raising(error))
    assert run("init", "lib") == (
        1,
        "",
        "error: [Errno 28] No space left on device: 'lib/tracks.parquet'\n",
    )


def test_fault_of_ours_is_not_hidden(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponticello.library.create_library", _raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        run("init", "lib")


def test_interrupt_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponticello.library.create_library", _raising(KeyboardInterrupt()))
    assert run("init", "lib") == (130, "", "stopped; run the same command again to continue\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["import-tracks", "t.csv"],
        ["import-history", "t.csv"],
        ["prepare"],
        ["mine-pairs"],
        ["train", "semantic"],
        ["train", "preference"],
        ["embed"],
        ["search", "low"],
        ["similar", "track-0001"],
        ["recommend", "someone"],
        ["evaluate"],
    ],
    ids=" ".join,
)
def test_every_command_says_that_a_folder_is_no_library(
    run: Run, tmp_path: Path, arguments: list[str]
) -> None:
    wanted = (
        f"error: {tmp_path} is not a library (ponticello.toml is missing); "
        f"run: ponticello init {tmp_path}\n"
    )
    assert run(*arguments, "-L", str(tmp_path)) == (1, "", wanted)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prepare"], "{root} has no tracks; run: ponticello scan MUSIC -L {root}"),
        (
            ["mine-pairs"],
            "{root} has no listening history; run: ponticello import-history FILE -L {root}",
        ),
        (["train", "semantic"], "{root} has no tracks; run: ponticello scan MUSIC -L {root}"),
        (["search", "low"], "the library has no index yet; run: ponticello embed -L {root}"),
        (["search", "  "], "the search text is empty; say what the music should be like"),
        (
            ["recommend", "someone"],
            "{root} has no listening history; run: ponticello import-history FILE -L {root}",
        ),
        (["evaluate"], "nothing is held out yet; run: ponticello mine-pairs -L {root}"),
        (["train", "semantic", "--name", "../x"], "run name '../x' must be a plain folder name"),
    ],
)
def test_step_left_out_is_named(
    run: Run, tmp_path: Path, arguments: list[str], message: str
) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    code, out, err = run(*arguments, "--library", str(folder.root))
    assert (code, out) == (1, "")
    assert err.splitlines()[-1] == f"error: {message.format(root=folder.root)}"
    assert sum(line.startswith("error: ") for line in err.splitlines()) == 1


def test_damaged_settings_are_one_line(run: Run, tmp_path: Path) -> None:
    folder = create_library(tmp_path / "lib", "tiny")
    (folder.root / "ponticello.toml").write_text("preset = ", encoding="utf-8")
    code, out, err = run("prepare", "-L", str(folder.root))
    assert (code, out) == (1, "")
    assert re.fullmatch(r"error: ponticello\.toml is not valid TOML: .+\n", err)


# Which library


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Three libraries: the one of the current folder, the one of the environment, the one of the
    option.
    """
    made = {
        name: create_library(tmp_path / name, "tiny").root
        for name in ("here", "environment", "option")
    }
    monkeypatch.chdir(made["here"])
    monkeypatch.setenv("PONTICELLO_LIBRARY", str(made["environment"]))
    return made


def _holding_tracks(libraries: dict[str, Path]) -> list[str]:
    return [name for name, root in libraries.items() if open_library(root).tracks.is_file()]


@pytest.fixture
def table(tmp_path: Path) -> str:
    path = tmp_path / "tracks.csv"
    path.write_text("track_id\na\n", encoding="utf-8")
    return str(path)


def test_current_folder_is_the_library_when_nothing_else_is_said(
    run: Run, three: dict[str, Path], table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PONTICELLO_LIBRARY")
    assert run("import-tracks", table)[0] == 0
    assert _holding_tracks(three) == ["here"]


def test_environment_names_the_library(run: Run, three: dict[str, Path], table: str) -> None:
    assert run("import-tracks", table)[0] == 0
    assert _holding_tracks(three) == ["environment"]


@pytest.mark.parametrize("option", ["-L", "--library"])
def test_option_wins_over_the_environment(
    run: Run, three: dict[str, Path], table: str, option: str
) -> None:
    assert run("import-tracks", table, option, str(three["option"]))[0] == 0
    assert _holding_tracks(three) == ["option"]


def test_hub_and_tokenizers_are_told_to_be_quiet_unless_the_user_says_otherwise(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS", raising=False)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    assert run("--help")[0] == 0
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"


def test_unknown_command_is_refused_with_a_hint(run: Run) -> None:
    code, out, err = run("serch", "low")
    assert (code, out) == (2, "")
    assert "No such command 'serch'" in err


def test_training_told_to_stop_says_how_to_go_on(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "ponticello.library.create_library", _raising(Stopped("stopped after step 4; run it again"))
    )
    assert run("init", "lib") == (143, "", "stopped after step 4; run it again\n")
