"""From a library's log to pairs: nothing held out reaches them, on neither side and not as a trigger."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from ponticello.data.mining import mine_library, refresh_splits
from ponticello.data.pairs import read_pairs
from ponticello.data.splits import Splits, load_splits, save_splits
from ponticello.errors import LibraryError
from ponticello.library import Folder, create_library

ROLES = {
    **dict.fromkeys(["tr1", "tr2", "tr3", "tr4"], "train"),
    **dict.fromkeys(["va1", "va2"], "validation"),
    **dict.fromkeys(["te1", "te2"], "test"),
}
START = datetime(2024, 1, 1, tzinfo=UTC)
# (day, session, [(track, its trigger), ...]): 14 events before training ends, 2 for validation and 4 in the test window
SESSIONS: list[tuple[int, str, list[tuple[str, str | None]]]] = [
    (
        0,
        "first",
        [("te1", None), ("tr1", "te1"), ("va1", "te1"), ("tr2", "te1"), ("te2", "te1"), ("tr3", "te1"), ("va2", "te1")],
    ),
    (
        50,
        "second",
        [("tr1", None), ("tr2", "tr1"), ("tr3", "va1"), ("va1", "te1"), ("va2", "tr1"), ("te1", "tr1"), ("te2", "va1")],
    ),
    (100, "third", [("tr4", None), ("va1", "tr4")]),
    (200, "fourth", [("tr4", None), ("va2", "tr4"), ("tr1", "tr4"), ("te1", "tr1")]),
]


def _log(n_users: int = 5) -> pl.DataFrame:
    rows = [
        {
            "user_id": f"u{user}",
            "track_id": track_id,
            "played_at": START + timedelta(days=day, hours=user, minutes=place),
            "event": "complete",
            "context_track_id": trigger,
            "session_id": f"u{user} {session}",
        }
        for user in range(n_users)
        for day, session, tracks in SESSIONS
        for place, (track_id, trigger) in enumerate(tracks)
    ]
    return pl.DataFrame(rows, schema_overrides={"played_at": pl.Datetime("us", "UTC")})


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """Eight tracks of eight artists whose roles are known, and five listeners who all heard the same."""
    folder = create_library(tmp_path / "lib", "tiny")
    pl.DataFrame({"track_id": list(ROLES), "artist": [f"by {t}" for t in ROLES]}).write_parquet(folder.tracks)
    _log().write_parquet(folder.interactions)
    save_splits(folder, Splits(ROLES, None, None))
    return folder


def _pairs(table: pl.DataFrame) -> set[tuple[str, str, str]]:
    return set(table.select("anchor_id", "positive_id", "source").iter_rows())


def test_training_pairs_come_from_training_tracks_in_the_training_window_alone(folder: Folder) -> None:
    """tr1 -> tr2 was a recommendation; tr1, tr2, tr3 were neighbours once the held-out tracks are gone.

    Left out: everything set off by te1 or va1, tr4 (first heard after training ends), tr4 -> tr1 (test window).
    """
    mined = mine_library(folder)
    pairs = read_pairs(folder)
    assert _pairs(pairs) == {("tr1", "tr2", "feedback"), ("tr1", "tr2", "session"), ("tr2", "tr3", "session")}
    assert set(pairs["n_users"]) == {5}
    assert mined.n_pairs == 3
    assert dict(mined.funnel.steps)["events"] == 30  # six a listener


def test_validation_pairs_join_a_training_and_a_validation_track_before_the_test_window(folder: Folder) -> None:
    """tr4-va1 is of the validation window. Left out: tr4-va2 (test window) and va1-va2 (neighbours, both held out)."""
    mined = mine_library(folder)
    assert _pairs(pl.read_parquet(folder.validation_pairs)) == {
        ("tr1", "va1", "session"),
        ("tr2", "va1", "session"),
        ("tr3", "va2", "session"),
        ("tr3", "va1", "session"),
        ("va1", "tr3", "feedback"),
        ("tr1", "va2", "feedback"),
        ("tr4", "va1", "feedback"),
        ("tr4", "va1", "session"),
    }
    assert mined.n_validation_pairs == 8


def test_moments_follow_the_log(folder: Folder) -> None:
    """Of 100 events 70 are before the third sitting and 80 before the fourth."""
    splits = mine_library(folder).splits
    assert splits.roles == ROLES
    assert splits.train_until == START + timedelta(days=100)
    assert splits.validation_until == START + timedelta(days=200)
    assert load_splits(folder) == splits


def test_fewer_listeners_than_asked_for_give_no_pair(folder: Folder) -> None:
    _log(n_users=2).write_parquet(folder.interactions)
    mined = mine_library(folder)
    assert (mined.n_pairs, mined.n_validation_pairs) == (0, 0)
    assert read_pairs(folder).is_empty()


def test_mining_again_gives_the_same_bytes(folder: Folder) -> None:
    mine_library(folder)
    files = [folder.pairs, folder.validation_pairs, folder.splits]
    before = [file.read_bytes() for file in files]
    mine_library(folder)
    assert [file.read_bytes() for file in files] == before


def test_tracks_keep_their_roles_when_others_are_added(folder: Folder) -> None:
    """Forty new artists get roles of their own; a new track of te1's artist is held out like te1."""
    old = pl.read_parquet(folder.tracks)
    names = [f"n{number}" for number in range(40)]
    new = pl.DataFrame({"track_id": [*names, "sibling"], "artist": [*names, " BY TE1"]})
    pl.concat([new, old]).write_parquet(folder.tracks)
    splits = refresh_splits(folder)
    assert {track_id: splits.roles[track_id] for track_id in ROLES} == ROLES
    assert splits.roles["sibling"] == "test"
    assert {splits.roles[name] for name in names} == {"train", "validation", "test"}
    assert load_splits(folder) == splits


def test_splits_without_a_log_have_no_moments(folder: Folder) -> None:
    folder.interactions.unlink()
    folder.splits.unlink()
    splits = refresh_splits(folder)
    assert (splits.train_until, splits.validation_until) == (None, None)
    assert set(splits.roles) == set(ROLES)


def test_mining_without_a_log_says_what_to_run(folder: Folder) -> None:
    folder.interactions.unlink()
    with pytest.raises(LibraryError, match="has no listening history; add one with: ponticello import-history TABLE"):
        mine_library(folder)
    assert not folder.pairs.exists()
