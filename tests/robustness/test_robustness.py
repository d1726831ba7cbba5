"""The robustness suite: few tries of its quick rows hold, a broken promise is counted, and the page
tells both.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.robustness.rows import Broken, NotPermitted, Outcome, Row, Trial, require
from tests.robustness.run import ROWS, run_row
from tests.robustness.table import Result, page, row_line

ROOT = Path(__file__).parents[2]
QUICK = ("training-killed", "index-killed", "byte-flipped")


@pytest.mark.long  # CI runs `make break FAST=1`
def test_few_tries_of_the_quick_rows_hold(tmp_path: Path) -> None:
    """In a process of its own, which forks: this one has run everything."""
    rows = [part for row in QUICK for part in ("--row", row)]
    command = [
        sys.executable,
        "-m",
        "tests.robustness",
        *rows,
        "--tries",
        "2",
        "--seed",
        "3",
        "--json",
        str(tmp_path / "found.json"),
    ]
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads((tmp_path / "found.json").read_text(encoding="utf-8"))
    assert {
        name: (row["tries"], row["failures"], row["seed"]) for name, row in found.items()
    } == dict.fromkeys(QUICK, (2, [], 3))


def _row(run: object) -> Row:
    return Row("a-row", "A claim", 5, 1, run)  # type: ignore[arg-type]


def test_every_broken_promise_is_a_failure_with_what_was_seen() -> None:
    def run(trial: Trial) -> Outcome:
        outcome = Outcome()
        for number in range(trial.tries):
            with outcome.counted(f"try {number}"):
                require(number % 2 == 0, f"{number} is odd")
        return outcome

    result = run_row(_row(run), 4, 7)
    assert (result.tries, result.failures, result.seed) == (
        4,
        ["try 1: 1 is odd", "try 3: 3 is odd"],
        7,
    )


def test_a_row_that_cannot_begin_has_failed_and_one_that_may_not_says_so() -> None:
    def breaks(_: Trial) -> Outcome:
        raise Broken("no world")

    def may_not(_: Trial) -> Outcome:
        raise NotPermitted("no mounts for this user")

    assert run_row(_row(breaks), 1, 0).failures == ["before the first try: no world"]
    result = run_row(_row(may_not), 1, 0)
    assert (result.tries, result.failures) == (0, [])
    assert row_line(result) == "a-row: not run here: no mounts for this user"


def test_an_error_of_the_suite_itself_is_not_taken_for_a_broken_promise() -> None:
    outcome = Outcome()
    with pytest.raises(ZeroDivisionError), outcome.counted("try"):
        _ = 1 / 0
    assert outcome.failures == []


def test_page_tells_claim_tries_failures_seed_and_command() -> None:
    held = Result("a-row", "A claim", 1_200, [], ["a note"], 7, 61.0)
    broken = Result("b-row", "Another", 3, ["try 1: no"], [], 7, 1.0)
    lines = page([held, broken], {"a-row": 1_200, "b-row": 50}).splitlines()
    assert "| A claim | 1,200 | 0 | 7 | `make break ROW=a-row` |" in lines
    assert "| Another | 3 (a full run: 50) | 1 | 7 | `make break ROW=b-row` |" in lines
    assert "- `a-row` (61 s): a note." in lines
    assert row_line(broken) == "b-row: 3 tries, 1 failures, 1 s"


def test_rows_have_names_of_their_own_and_fewer_tries_when_fast() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(0 < row.fast <= row.tries for row in ROWS)
