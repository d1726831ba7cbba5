"""How long mining takes and what it holds, on made-up logs from a million events up; prints a table
in Markdown.

    python bench/pairs.py --events 1000000 --events 10000000 --work FOLDER

Every size is mined by `ponticello mine-pairs` in a process of its own: training and validation
pairs.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from listening import make_library


@dataclass(frozen=True)
class Measured:
    """One size, mined."""

    n_events: int
    seconds: float
    busy_s: float  # of all cores together
    peak_gib: float
    temp_gib: float
    mined: dict[str, Any]  # what `mine-pairs --json` prints

    def row(self, before: "Measured | None") -> str:
        """A row of the table; the last cell is the cost against the size before."""
        grown = "-"
        if before:
            grown = f"{self.seconds / before.seconds:.1f} x, {self.busy_s / before.busy_s:.1f} x"
        n_candidates = self.mined["funnel"]["candidates"]
        return (
            f"| {self.n_events:,} | {n_candidates:,} | {self.mined['n_pairs']:,} "
            f"| {self.seconds:.0f} s | {self.busy_s:.0f} s "
            f"| {self.peak_gib:.1f} GiB | {self.temp_gib:.1f} GiB | {grown} |"
        )


def measure(library: Path, n_events: int, options: list[str]) -> Measured:
    """Mines the library at `library` in another process."""
    temp = library / "temp"
    temp.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "ponticello", "mine-pairs", "--json", "-L", str(library)]
    command += ["--temp", str(temp), *options]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        most = 0
        while process.poll() is None:
            most = max(most, _disk(temp))
            time.sleep(1)
        output = process.stdout.read() if process.stdout else b""
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    busy_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if process.returncode:
        raise typer.Exit(process.returncode)
    return Measured(
        n_events, seconds, busy_s, after.ru_maxrss / 2**20, most / 2**30, json.loads(output)
    )


def _disk(folder: Path) -> int:
    """Bytes in `folder`, which is written while we look."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(place) / name).stat().st_size
            except FileNotFoundError:
                continue
    return total


def main(
    events: Annotated[list[int], typer.Option(help="Sizes, the smallest first.")],
    work: Annotated[Path, typer.Option(help="Where the logs go; 20 GB for 100 million events.")],
    memory: str = "5GB",
    engine: str = "duckdb",
    threads: int = 2,
    seed: int = 0,
    keep: bool = False,
) -> None:
    """Makes, mines and measures one log after the other."""
    print("| events | candidates | pairs | time | processor time | peak memory | on disk ", end="")
    print("| times the row above |\n|---|---|---|---|---|---|---|---|")
    before = None
    for n_events in events:
        library = work / f"events-{n_events}"
        if not library.exists():
            make_library(library, n_events, seed)
        options = ["--memory", memory, "--engine", engine, "--threads", str(threads)]
        measured = measure(library, n_events, options)
        print(measured.row(before), flush=True)
        before = measured
        if not keep:
            shutil.rmtree(library)


if __name__ == "__main__":
    typer.run(main)
