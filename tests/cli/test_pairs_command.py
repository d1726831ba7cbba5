"""pairs --explain and --dry-run, where it runs, and forget-user: what they print, and that questions write nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from commands import error, out

from ponticello.api import Library
from ponticello.data.interactions import read_interactions
from ponticello.data.pairs import read_pairs
from ponticello.errors import ConfigError, DataError
from ponticello.library import Folder


@pytest.fixture
def mined(make_library: Callable[[Path], Library], tmp_path: Path) -> Folder:
    """A library with a listening log and its pairs."""
    return make_library(tmp_path / "library").folder


def _bytes(folder: Folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.root.glob("*.*") if path.is_file()}


def test_explain_shows_the_evidence_and_writes_nothing(mined: Folder) -> None:
    before, pair = _bytes(mined), read_pairs(mined).row(0, named=True)
    tracks = (pair["anchor_id"], pair["positive_id"])
    printed = out("pairs", "-L", mined.root, "--explain", *tracks)
    assert printed.startswith("of ")
    assert "by chance" in printed
    assert f"{pair['n_users']:,} listeners, weight {pair['weight']:g}; kept" in printed
    told = json.loads(out("pairs", "-L", mined.root, "--explain", *tracks, "--json"))
    assert {row["verdict"] for row in told["evidence"] if row["source"] == pair["source"]} >= {"kept"}
    assert set(told) == {"evidence", "n_one", "n_other", "n_all", "expected"}
    assert _bytes(mined) == before
    assert "is not in the catalogue" in error(DataError, "pairs", "-L", mined.root, "--explain", tracks[0], "nothing")


def test_dry_run_counts_and_estimates_and_writes_nothing(mined: Folder) -> None:
    """What it counts without pairing anything up is what mining then finds, or more where a listener repeats."""
    before = _bytes(mined)
    funnel = json.loads(out("pairs", "-L", mined.root, "--json"))["funnel"]
    told = json.loads(out("pairs", "-L", mined.root, "--dry-run", "--json"))
    for step, n in told["steps"].items():
        if step.endswith("candidates"):
            assert n >= funnel[step]
        else:
            assert n == funnel[step]
    assert told["n_pairs_most"] >= len(read_pairs(mined))
    assert told["seconds"] > 0
    printed = out("pairs", "-L", mined.root, "--dry-run")
    assert "GB of memory, to a factor of two" in printed
    assert printed.endswith("nothing was written\n")
    assert _bytes(mined) == before


def test_a_capped_and_single_threaded_engine_gives_the_same_pairs(mined: Folder, tmp_path: Path) -> None:
    before = _bytes(mined)
    out("pairs", "-L", mined.root, "--memory", "500MB", "--threads", "1", "--temp", tmp_path)
    assert _bytes(mined) == before


def test_an_engine_or_question_that_cannot_be_is_refused(mined: Folder) -> None:
    assert "engine 'dask' must be duckdb" in error(ConfigError, "pairs", "-L", mined.root, "--engine", "dask")
    both = ("pairs", "-L", mined.root, "--dry-run", "--explain", "a", "b")
    assert "ask one at a time" in error(ConfigError, *both)


def test_forget_user_tells_what_is_gone_and_mines_again(mined: Folder) -> None:
    log = read_interactions(mined)
    user, n_events = log.group_by("user_id").len().sort("len", "user_id").row(-1)
    run = mined.run("taste")
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"stage": "preference"}', encoding="utf-8")
    *_, runs, last = out("forget-user", user, "-L", mined.root).splitlines()
    assert runs.startswith("maybe trained with them, from another log: taste; delete and train again")
    n_pairs = len(read_pairs(mined))
    assert last == f"{n_events:,} events removed from {mined.interactions}; {n_pairs:,} pairs mined without them"
    assert user not in read_interactions(mined)["user_id"]
    assert f"listener '{user}' is in no table" in error(DataError, "forget-user", user, "-L", mined.root)


def test_forget_user_as_json(mined: Folder) -> None:
    user = read_interactions(mined)["user_id"].min()
    told = json.loads(out("forget-user", user, "-L", mined.root, "--json"))
    assert told["n_pairs"] == pl.read_parquet(mined.pairs).height
    assert set(told) == {"n_events", "n_rows", "removed", "runs", "maybe_runs", "n_pairs"}
