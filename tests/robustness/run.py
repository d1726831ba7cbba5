"""Runs the rows, prints the table and, of a full run, writes docs/break-it.md."""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

# Before anything heavy is imported. One thread each: a fork does not copy threads, and models here
# are tiny.
os.environ |= {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
os.environ |= {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "RAYON_NUM_THREADS": "1"}

from tests.robustness import (
    durable,
    embedding,
    flipped,
    forgetting,
    full_disk,
    hostile,
    odd_inputs,
    offline,
    one_vector,
    sound_files,
    training,
)
from tests.robustness.rows import Broken, NotPermitted, Outcome, Row, Trial
from tests.robustness.table import Result, page, row_line

# What takes longest comes first, so that the cores have work to the end.
FAMILIES = (
    training,
    offline,
    full_disk,
    durable,
    flipped,
    sound_files,
    embedding,
    odd_inputs,
    one_vector,
    hostile,
    forgetting,
)
ROWS = [row for family in FAMILIES for row in family.ROWS]
PAGE = Path(__file__).parents[2] / "docs" / "break-it.md"


def run_row(row: Row, tries: int, seed: int) -> Result:
    """Runs one row in a folder of its own, which is gone afterwards."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix=f"{row.name}-") as work:
        try:
            outcome, not_run = row.run(Trial(Path(work), tries, seed)), ""
        except Broken as broken:
            outcome, not_run = Outcome(1, [f"before the first try: {broken}"]), ""
        except NotPermitted as reason:
            outcome, not_run = Outcome(), str(reason)
    seconds = time.monotonic() - start
    facts = (outcome.tries, outcome.failures, outcome.notes, seed, seconds, not_run)
    return Result(row.name, row.claim, *facts)


def run_rows(rows: list[tuple[Row, int]], seed: int, jobs: int) -> Iterator[Result]:
    """Runs the rows with their tries, so many at a time, and gives each as it ends.

    Its processes are forks, made before the executor's own thread is: they have no other thread
    either.
    """
    with ProcessPoolExecutor(jobs, mp_context=get_context("fork")) as pool:
        for ended in as_completed([pool.submit(run_row, row, tries, seed) for row, tries in rows]):
            yield ended.result()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m robustness", description=(__doc__ or "").strip()
    )
    parser.add_argument(
        "--row", action="append", choices=[row.name for row in ROWS], help="this row alone"
    )
    parser.add_argument("--tries", type=int, help="of each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="few tries of each row")
    parser.add_argument(
        "--json", type=Path, help="where every figure goes; what other rows left there is kept"
    )
    parser.add_argument(
        "--write", action="store_true", help="write docs/break-it.md from what --json holds"
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=len(os.sched_getaffinity(0)),
        help="rows at a time (this machine: %(default)s)",
    )
    options = parser.parse_args()
    since, results = time.monotonic(), []
    rows = [row for row in ROWS if not options.row or row.name in options.row]
    tries = [options.tries or (row.fast if options.fast else row.tries) for row in rows]
    for result in run_rows(list(zip(rows, tries, strict=True)), options.seed, options.jobs):
        print(row_line(result), flush=True)
        for failure in result.failures:
            print(f"    {failure}", flush=True)
        results.append(result)
        if options.json:
            _keep(options.json, result)
    print(f"{len(results)} rows, {(time.monotonic() - since) / 60:.1f} minutes")
    if options.json:
        results = [
            Result(**entry)
            for entry in json.loads(options.json.read_text(encoding="utf-8")).values()
        ]
    if options.write:
        PAGE.write_text(page(results, {row.name: row.tries for row in ROWS}), encoding="utf-8")
    sys.exit(any(result.failures for result in results))


def _keep(path: Path, result: Result) -> None:
    """Puts a row's figures beside those of other rows, in the order of the table."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found[result.name] = asdict(result)
    path.write_text(
        json.dumps({row.name: found[row.name] for row in ROWS if row.name in found}, indent=1)
    )
