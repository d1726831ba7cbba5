"""The table: on the screen, and as docs/break-it.md."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

HEAD = """# Break it

What Ponticello promises, and how often the suite tried to break it. This page is written by `make break`; the programs
are in [bench/break_it](../bench/break_it), one file a family of rows. A row's command runs it alone; with `TRIES=n` and
`SEED=n` it makes other and more tries. `make break FAST=1` makes a few tries of each row and is what CI runs.

| claim | tries | failures | seed | command |
|---|---|---|---|---|
"""


@dataclass(frozen=True)
class Result:
    """A row after its tries. not_run: why there were none."""

    name: str
    claim: str
    tries: int
    failures: list[str]
    notes: list[str]
    seed: int
    seconds: float
    not_run: str = ""

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def row_line(result: Result) -> str:
    """A row on the screen."""
    if result.not_run:
        return f"{result.name}: not run here: {result.not_run}"
    notes = "".join(f"; {note}" for note in result.notes)
    return f"{result.name}: {result.tries:,} tries, {len(result.failures)} failures, {result.seconds:.0f} s{notes}"


def page(results: list[Result]) -> str:
    """The whole page as Markdown."""
    lines = []
    for result in results:
        tries = f"not run here: {result.not_run}" if result.not_run else f"{result.tries:,}"
        cells = [result.claim, tries, str(len(result.failures)), str(result.seed), f"`make break ROW={result.name}`"]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [f"- `{result.name}` ({result.seconds:.0f} s): {'; '.join(result.notes)}." for result in results]
    minutes = sum(result.seconds for result in results) / 60
    measured = f"\n## What was measured on the way\n\n{minutes:.0f} minutes in all.\n\n"
    return HEAD + "\n".join(lines) + "\n" + measured + "\n".join(notes) + "\n"


def write_page(path: Path, text: str) -> None:
    """Replaces the page."""
    path.write_text(text, encoding="utf-8")
