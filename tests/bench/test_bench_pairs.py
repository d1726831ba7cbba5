"""The made-up listening is as large as asked for and the same for a seed; exposure is counted as the bench says."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ponticello.data.interactions import read_interactions
from ponticello.library import Folder


@pytest.fixture(scope="module")
def listening() -> Any:
    return importlib.import_module("listening")


@pytest.fixture(scope="module")
def promotion() -> Any:
    return importlib.import_module("promotion")


@pytest.fixture(scope="module")
def folder(listening: Any, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    made: Folder = listening.make_library(tmp_path_factory.mktemp("listening") / "library", 30_000)
    return made


def test_listening_has_the_size_asked_for_and_a_few_make_most_of_it(folder: Folder) -> None:
    log = read_interactions(folder)
    assert log.height == 30_000
    assert log["played_at"].is_sorted()
    by_track = log.group_by("track_id").len()["len"].sort(descending=True)
    assert by_track.head(100).sum() > 0.25 * log.height  # 100 of 1,000 tracks
    assert set(log["event"]) == {"play", "skip", "complete", "like", "playlist", "collect"}
    assert log.filter(pl.col("event") == "playlist")["session_id"].null_count() == 0


def test_the_same_seed_gives_the_same_listening(listening: Any, folder: Folder, tmp_path: Path) -> None:
    again = listening.make_library(tmp_path / "again", 30_000)
    other = listening.make_library(tmp_path / "other", 30_000, seed=1)
    assert again.interactions.read_bytes() == folder.interactions.read_bytes() != other.interactions.read_bytes()


def test_exposure_is_the_number_of_lists_of_ten_that_hold_a_track(promotion: Any) -> None:
    """hub has eleven partners: its own list holds the ten with most listeners, without weak; theirs all hold it."""
    names = [f"p{number:02}" for number in range(10)]
    rows = [("hub", name, 5, "session") for name in names] + [("hub", "weak", 3, "session")]
    rows += [("hub", "p00", 4, "feedback")]
    pairs = pl.DataFrame(rows, schema=["anchor_id", "positive_id", "n_users", "source"], orient="row")
    assert promotion.exposure(pairs) == {"hub": 11, **dict.fromkeys(names, 1)}


def test_fakes_are_a_share_of_the_listeners_and_put_the_target_beside_each_partner(
    promotion: Any, folder: Folder
) -> None:
    log = read_interactions(folder)
    made = promotion.fakes(log, "target", 0.01, ["a", "b"], np.random.default_rng(0))
    new = made.filter(pl.col("user_id").str.starts_with("fake-"))
    assert new["user_id"].n_unique() == round(0.01 * log["user_id"].n_unique())
    assert new.filter(pl.col("track_id") == "target")["context_track_id"].unique().sort().to_list() == ["a", "b"]
    assert made.height == log.height + new.height
