"""The blocks of code on a page of the docs: found, run, and compared with what the page shows."""

import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import polars as pl
from typer.testing import CliRunner

from ponticello.cli.main import app

MARK = re.compile(r"^<!-- not run: (.+) -->$")
FENCE = re.compile(r"^(`{3,})([^\s`]*) ?([^\n`]*)$")
INDENTED = "indented"


class Block(NamedTuple):
    """A block of code. language: of the fence, or `indented`; name: of the file it shows; reason:
    why it is not run.
    """

    line: int
    language: str
    name: str
    text: str
    reason: str


def blocks_of(page: str) -> list[Block]:
    """Every fenced block of a page, and every block indented by four spaces or more after an empty
    line.
    """
    found: list[Block] = []
    reason = ""
    lines = [*page.splitlines(), ""]
    at = 0
    while at < len(lines):
        line = lines[at]
        start = at
        if fence := FENCE.match(line):
            at += 1
            while not re.fullmatch(f"{fence[1]}`*", lines[at]):
                at += 1
            text = "".join(f"{inner}\n" for inner in lines[start + 1 : at])
            found.append(Block(start + 1, fence[2], fence[3], text, reason))
        elif line.startswith("    ") and (not start or not lines[start - 1].strip()):
            while at + 1 < len(lines) and (
                lines[at + 1].startswith("    ") or not lines[at + 1].strip()
            ):
                at += 1
            text = "".join(f"{inner[4:]}\n" for inner in lines[start : at + 1]).rstrip("\n") + "\n"
            found.append(Block(start + 1, INDENTED, "", text, reason))
        at += 1
        if mark := MARK.match(line):
            reason = mark[1]
        elif line.strip():
            reason = ""
    return found


def joined(text: str) -> list[str]:
    """The lines of a shell's text, those that end in a backslash with the next."""
    return re.sub(r" *\\\n +", " ", text).splitlines()


def commands(console: str) -> list[tuple[str, list[str]]]:
    """(command, the lines it prints) of a console block; `...` stands for lines left out."""
    found: list[tuple[str, list[str]]] = []
    for line in joined(console):
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def run(blocks: Iterable[Block], folder: Path, makers: Mapping[str, Callable[[Path], None]]) -> int:
    """Makes the files that `blocks` show in `folder`, the working folder, and runs their commands;
    how many there were.

    makers: what makes a file that is not shown whole, by its name. Every command must print what
    the page shows.
    """
    n_commands = 0
    for block in blocks:
        if block.language != "console":
            if block.name in makers:
                makers[block.name](folder)
            if block.name:
                _write(folder, block.name, block.text)
            continue
        for command, shown in commands(block.text):
            for word in shlex.split(command):
                if word in makers and not (folder / word).exists():
                    makers[word](folder)
            arguments = shlex.split(command, comments=True)
            assert arguments.pop(0) == "ponticello", command
            _check(
                answer(*arguments).replace(f"{folder.resolve()}{os.sep}", "").splitlines(),
                shown,
                command,
            )
            n_commands += 1
    return n_commands


def answer(*arguments: str) -> str:
    """What `ponticello` with these arguments prints; it has to succeed."""
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == 0, f"{arguments}: {result.output} {result.exception}"
    return result.stdout


def _write(folder: Path, name: str, content: str) -> None:
    """Makes a file as the page shows it; one that a maker has made must begin as shown."""
    path = folder / name
    if content.endswith("...\n"):
        frame = pl.read_parquet(path) if path.suffix == ".parquet" else pl.read_csv(path)
        if "vector" in frame.columns:
            frame = frame.with_columns(
                pl.format("[{}]", pl.col("vector").cast(pl.List(pl.String)).list.join(" "))
            )
        assert frame.write_csv().startswith(content.removesuffix("...\n"))
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")


def _check(printed: list[str], shown: list[str], command: str) -> None:
    """What is shown is printed: all of it, but for what `...` leaves out."""
    assert shown, f"{command}: the page shows nothing of what it prints"
    assert shown[-1].strip(". "), f"{command}: the page leaves out the last line"
    wanted = (
        re.escape("\n".join(shown))
        .replace(re.escape("...") + "\\\n", "(?:.*\n)*")
        .replace(re.escape("..."), ".*")
    )
    assert re.fullmatch(wanted, "\n".join(printed)), f"{command}: prints\n" + "\n".join(printed)
