"""Runs the rows, prints the table and, of a full run, writes docs/break-it.md."""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

# Before anything heavy is imported. One thread each: a fork does not copy threads, and models here are tiny.
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"}
os.environ |= {"OMP_NUM_THREADS": "1", "POLARS_MAX_THREADS": "1", "RAYON_NUM_THREADS": "1"}

from break_it import (
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
from break_it.rows import Broken, NotPermitted, Outcome, Row, Trial
from break_it.table import Result, page, row_line, write_page

FAMILIES = (
    training,
    full_disk,
    durable,
    flipped,
    sound_files,
    embedding,
    odd_inputs,
    one_vector,
    hostile,
    offline,
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
    return Result(row.name, row.claim, outcome.tries, outcome.failures, outcome.notes, seed,
                  time.monotonic() - start, not_run)  # fmt: skip


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m break_it", description=(__doc__ or "").strip())
    parser.add_argument("--row", action="append", choices=[row.name for row in ROWS], help="this row alone")
    parser.add_argument("--tries", type=int, help="of each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fast", action="store_true", help="few tries of each row")
    parser.add_argument("--json", type=Path, help="where every figure goes; what other rows left there is kept")
    parser.add_argument("--write", action="store_true", help="write docs/break-it.md from what --json holds")
    options = parser.parse_args()
    results = []
    for row in ROWS:
        if options.row and row.name not in options.row:
            continue
        result = run_row(row, options.tries or (row.fast if options.fast else row.tries), options.seed)
        print(row_line(result), flush=True)
        for failure in result.failures:
            print(f"    {failure}", flush=True)
        results.append(result)
        if options.json:
            _keep(options.json, result)
    if options.json:
        results = [Result(**entry) for entry in json.loads(options.json.read_text(encoding="utf-8")).values()]
    if options.write:
        write_page(PAGE, page(results, {row.name: row.tries for row in ROWS}))
    sys.exit(any(result.failures for result in results))


def _keep(path: Path, result: Result) -> None:
    """Puts a row's figures beside those of other rows, in the order of the table."""
    found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found[result.name] = result.as_json()
    path.write_text(json.dumps({row.name: found[row.name] for row in ROWS if row.name in found}, indent=1))
