"""bench/listening.py: the made-up listening has the requested size and is the same for a seed."""

import importlib
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from ponticello.listening.log import read_interactions
from ponticello.storage.layout import LibraryPaths


@pytest.fixture(scope="module")
def listening() -> Any:
    return importlib.import_module("listening")


@pytest.fixture(scope="module")
def folder(listening: Any, tmp_path_factory: pytest.TempPathFactory) -> LibraryPaths:
    made: LibraryPaths = listening.make_library(
        tmp_path_factory.mktemp("listening") / "library", 30_000
    )
    return made


def test_listening_has_the_size_asked_for_and_a_few_make_most_of_it(folder: LibraryPaths) -> None:
    log = read_interactions(folder)
    assert log.height == 30_000
    assert log["played_at"].is_sorted()
    by_track = log.group_by("track_id").len()["len"].sort(descending=True)
    assert by_track.head(100).sum() > 0.25 * log.height  # 100 of 1,000 tracks
    assert set(log["event"]) == {"play", "skip", "complete", "like", "playlist", "collect"}
    assert log.filter(pl.col("event") == "playlist")["session_id"].null_count() == 0


def test_the_same_seed_gives_the_same_listening(
    listening: Any, folder: LibraryPaths, tmp_path: Path
) -> None:
    again = listening.make_library(tmp_path / "again", 30_000)
    other = listening.make_library(tmp_path / "other", 30_000, seed=1)
    assert (
        again.interactions.read_bytes()
        == folder.interactions.read_bytes()
        != other.interactions.read_bytes()
    )
