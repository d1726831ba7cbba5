"""`mine-pairs` on a bounded engine, and `forget-user`: what they print and write."""

import json
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from ponticello.errors import ConfigError, DataError
from ponticello.library import Library
from ponticello.listening.log import read_interactions
from ponticello.pairs.mine import read_pairs
from ponticello.storage.layout import LibraryPaths
from tests.cli.commands import error, out


@pytest.fixture
def mined(make_library: Callable[[Path], Library], tmp_path: Path) -> LibraryPaths:
    """A library with a listening log and its pairs."""
    return make_library(tmp_path / "library").folder


def _bytes(folder: LibraryPaths) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.root.glob("*.*") if path.is_file()}


def test_a_capped_and_single_threaded_engine_gives_the_same_pairs(
    mined: LibraryPaths, tmp_path: Path
) -> None:
    before = _bytes(mined)
    out("mine-pairs", "-L", mined.root, "--memory", "500MB", "--threads", "1", "--temp", tmp_path)
    assert _bytes(mined) == before


def test_an_unknown_engine_is_refused(mined: LibraryPaths) -> None:
    assert "engine 'dask' must be duckdb" in error(
        ConfigError, "mine-pairs", "-L", mined.root, "--engine", "dask"
    )


def test_forget_user_tells_what_is_gone_and_mines_again(mined: LibraryPaths) -> None:
    log = read_interactions(mined)
    user, n_events = log.group_by("user_id").len().sort("len", "user_id").row(-1)
    run = mined.run("taste")
    run.mkdir(parents=True)
    (run / "run.json").write_text('{"stage": "preference"}', encoding="utf-8")
    *_, runs, last = out("forget-user", user, "-L", mined.root).splitlines()
    assert runs.startswith(
        "maybe trained with them, from another log: taste; delete and train again"
    )
    n_pairs = len(read_pairs(mined))
    assert (
        last == f"{n_events:,} events removed from {mined.interactions}; "
        f"{n_pairs:,} pairs mined without them"
    )
    assert user not in read_interactions(mined)["user_id"]
    assert f"listener '{user}' is in no table" in error(
        DataError, "forget-user", user, "-L", mined.root
    )


def test_forget_user_as_json(mined: LibraryPaths) -> None:
    user = read_interactions(mined)["user_id"].min()
    told = json.loads(out("forget-user", user, "-L", mined.root, "--json"))
    assert told["n_pairs"] == pl.read_parquet(mined.pairs).height
    assert set(told) == {"n_events", "n_rows", "removed", "runs", "maybe_runs", "n_pairs"}
