"""The table: on the screen, and as docs/break-it.md."""

from collections.abc import Mapping
from dataclasses import dataclass

HEAD = """# Break it

What Ponticello promises, and how often the suite tried to break it. This page is written by
`make break`; the programs are in `tests/robustness`, one file a family of rows. A row's command
runs it alone, with `TRIES=n` and `SEED=n` other and more tries. `make break FAST=1` makes a few
tries of each row, and so does CI.

How it is done, and what it does not show:

- The library is made up: 48 sounds of 3 s, 60 simulated listeners, models that train in a second.
  What is tried does not depend on size; how long a stop takes does.
- A kill is a real `SIGKILL`. Its victims are forked from a process that has imported everything
  and run nothing, since starting Python and PyTorch takes longer than a training run here. It
  shows what a dying process leaves behind, not what a power cut does to a disk. Two processes
  meet as those of `torchrun` do, without it.
- A full disk is a real one: a file system in memory, in a mount namespace of its own, with so
  many bytes left.
- Flipped bytes: all files of a model folder, of the prepared frames and of the live index. The
  library's own `ponticello.toml` is not among them, as a changed digit in a file that people edit
  is no damage.
- Malformed audio may crash its decoder. It does so in a process of its own, which is replaced,
  and costs its own line.
- Membership inference: somebody has a listener's history, the published pairs and the model, and
  scores the listener by how many listeners stand behind each pair of tracks they liked, or by how
  close the model puts these. AUC is how often one who was in the log scores above one of the same
  simulation who never was; 0.5 is guessing.

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


def row_line(result: Result) -> str:
    """A row on the screen."""
    if result.not_run:
        return f"{result.name}: not run here: {result.not_run}"
    notes = "".join(f"; {note}" for note in result.notes)
    tries = f"{result.tries:,} tries, {len(result.failures)} failures"
    return f"{result.name}: {tries}, {result.seconds:.0f} s{notes}"


def page(results: list[Result], full: Mapping[str, int]) -> str:
    """The whole page as Markdown. full: tries that a full run makes, by row."""
    lines = []
    for result in results:
        tries = f"not run here: {result.not_run}" if result.not_run else f"{result.tries:,}"
        if not result.not_run and result.tries < full.get(result.name, 0):
            tries += f" (a full run: {full[result.name]:,})"
        cells = [
            result.claim,
            tries,
            str(len(result.failures)),
            str(result.seed),
            f"`make break ROW={result.name}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    notes = [
        f"- `{result.name}` ({result.seconds:.0f} s): {'; '.join(result.notes) or 'as claimed'}."
        for result in results
    ]
    minutes = sum(result.seconds for result in results) / 60
    took = (
        f"The rows take {minutes:.0f} minutes in all; "
        "`make break` runs as many at a time as there are cores."
    )
    measured = f"\n## What was measured on the way\n\n{took}\n\n"
    return HEAD + "\n".join(lines) + "\n" + measured + "\n".join(notes) + "\n"
