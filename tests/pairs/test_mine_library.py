"""From a library's log to pairs: nothing held out reaches them, on neither side and not as a
trigger.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile

from ponticello.config import Config
from ponticello.errors import DataError, LibraryError
from ponticello.features.prepare import prepare_features
from ponticello.pairs.mine import (
    find_duplicates,
    mine_library,
    mine_test_pairs,
    read_pairs,
    refresh_splits,
)
from ponticello.splits.splits import Scheme, Splits, load_splits, save_splits
from ponticello.storage.layout import LibraryPaths, create_library

ROLES = {
    **dict.fromkeys(["tr1", "tr2", "tr3", "tr4"], "train"),
    **dict.fromkeys(["va1", "va2"], "validation"),
    **dict.fromkeys(["te1", "te2"], "test"),
}
START = datetime(2024, 1, 1, tzinfo=UTC)
# (day, session, [(track, its trigger), ...]): 14 events before training ends, 2 for validation and
# 4 in the test window
SESSIONS: list[tuple[int, str, list[tuple[str, str | None]]]] = [
    (
        0,
        "first",
        [
            ("te1", None),
            ("tr1", "te1"),
            ("va1", "te1"),
            ("tr2", "te1"),
            ("te2", "te1"),
            ("tr3", "te1"),
            ("va2", "te1"),
        ],
    ),
    (
        50,
        "second",
        [
            ("tr1", None),
            ("tr2", "tr1"),
            ("tr3", "va1"),
            ("va1", "te1"),
            ("va2", "tr1"),
            ("te1", "tr1"),
            ("te2", "va1"),
        ],
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
def folder(tmp_path: Path) -> LibraryPaths:
    """Eight tracks of eight artists whose roles are known, and five listeners who all heard the
    same.
    """
    folder = create_library(tmp_path / "lib", "tiny")
    pl.DataFrame({"track_id": list(ROLES), "artist": [f"by {t}" for t in ROLES]}).write_parquet(
        folder.tracks
    )
    _log().write_parquet(folder.interactions)
    save_splits(folder, Splits(ROLES, None, None))
    return folder


def _pairs(table: pl.DataFrame) -> set[tuple[str, str, str]]:
    return set(table.select("anchor_id", "positive_id", "source").iter_rows())


def test_training_pairs_come_from_training_tracks_in_the_training_window_alone(
    folder: LibraryPaths,
) -> None:
    """tr1 -> tr2 was a recommendation; tr1, tr2, tr3 were neighbours once the held-out tracks are
    gone.

    Left out: everything set off by te1 or va1, tr4 (first heard after training ends), tr4 -> tr1
    (test window).
    """
    mined = mine_library(folder)
    pairs = read_pairs(folder)
    assert _pairs(pairs) == {
        ("tr1", "tr2", "feedback"),
        ("tr1", "tr2", "session"),
        ("tr2", "tr3", "session"),
    }
    assert set(pairs["n_users"]) == {5}
    assert mined.n_pairs == 3
    assert dict(mined.funnel.steps)["events"] == 30  # six a listener


def test_validation_pairs_join_a_training_and_a_validation_track_before_the_test_window(
    folder: LibraryPaths,
) -> None:
    """tr4-va1 is of the validation window. Left out: tr4-va2 (test window) and va1-va2 (neighbours,
    both held out).
    """
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


def test_moments_follow_the_log(folder: LibraryPaths) -> None:
    """Of 100 events 70 are before the third sitting and 80 before the fourth."""
    splits = mine_library(folder).splits
    assert splits.roles == ROLES
    assert splits.train_until == START + timedelta(days=100)
    assert splits.validation_until == START + timedelta(days=200)
    assert load_splits(folder) == splits


def test_fewer_listeners_than_asked_for_give_no_pair(folder: LibraryPaths) -> None:
    _log(n_users=2).write_parquet(folder.interactions)
    mined = mine_library(folder)
    assert (mined.n_pairs, mined.n_validation_pairs) == (0, 0)
    assert read_pairs(folder).is_empty()


def test_mining_again_gives_the_same_bytes(folder: LibraryPaths) -> None:
    mine_library(folder)
    files = [folder.pairs, folder.validation_pairs, folder.splits]
    before = [file.read_bytes() for file in files]
    mine_library(folder)
    assert [file.read_bytes() for file in files] == before


def test_tracks_keep_their_roles_when_others_are_added(folder: LibraryPaths) -> None:
    """Forty new artists get own roles; a new track of te1's artist is held out like te1."""
    old = pl.read_parquet(folder.tracks)
    names = [f"n{number}" for number in range(40)]
    new = pl.DataFrame({"track_id": [*names, "sibling"], "artist": [*names, " BY TE1"]})
    pl.concat([new, old]).write_parquet(folder.tracks)
    splits = refresh_splits(folder)
    assert {track_id: splits.roles[track_id] for track_id in ROLES} == ROLES
    assert splits.roles["sibling"] == "test"
    assert {splits.roles[name] for name in names} == {"train", "validation", "test"}
    assert load_splits(folder) == splits


def test_splits_without_a_log_have_no_moments(folder: LibraryPaths) -> None:
    folder.interactions.unlink()
    folder.splits.unlink()
    splits = refresh_splits(folder)
    assert (splits.train_until, splits.validation_until) == (None, None)
    assert set(splits.roles) == set(ROLES)


def test_mining_without_a_log_says_what_to_run(folder: LibraryPaths) -> None:
    folder.interactions.unlink()
    with pytest.raises(
        LibraryError,
        match="has no listening history; run: ponticello import-history FILE",
    ):
        mine_library(folder)
    assert not folder.pairs.exists()


def test_test_pairs_lead_from_a_training_to_a_test_track_over_the_whole_log(
    folder: LibraryPaths,
) -> None:
    """First sitting: te1 set off tr1, tr2, tr3, and neighbours without va are te1 tr1 tr2 te2 tr3.

    Second: tr1 tr2 tr3 te1 te2, te1 set off by tr1. Fourth: tr4 tr1 te1, te1 set off by tr1.
    Nothing with va1 or va2. A listener counts once a source; weights are of all events: tr1-te1
    stands in 3 + 2 of each of five listeners.
    """
    mine_library(folder)
    before = {file.name: file.read_bytes() for file in folder.root.glob("*.parquet")}
    pairs = mine_test_pairs(folder)
    assert pairs.rows() == [
        ("tr1", "te1", 5, 25.0, "feedback+session"),
        ("tr2", "te1", 5, 5.0, "feedback"),
        ("tr2", "te2", 5, 5.0, "session"),
        ("tr3", "te1", 5, 10.0, "feedback+session"),
        ("tr3", "te2", 5, 5.0, "session"),
    ]
    assert pairs.schema == read_pairs(folder).schema
    assert {file.name: file.read_bytes() for file in folder.root.glob("*.parquet")} == before


def test_test_pairs_without_splits_say_what_to_run(folder: LibraryPaths) -> None:
    folder.splits.unlink()
    with pytest.raises(LibraryError, match="has no splits yet; run: ponticello mine-pairs"):
        mine_test_pairs(folder)


def _with_settings(folder: LibraryPaths, **splits: str) -> LibraryPaths:
    return replace(folder, config=Config.from_preset("tiny", {"splits": splits}))


def test_listeners_own_last_sessions_are_left_out_of_the_pairs(folder: LibraryPaths) -> None:
    """The fourth sitting is each listener's test window, the third validation: as with the moments
    in time.
    """
    mine_library(folder)
    by_time = read_pairs(folder), pl.read_parquet(folder.validation_pairs)
    folder = _with_settings(folder, events="last-session")
    save_splits(folder, Splits(ROLES, None, None, scheme=Scheme(events="last-session")))
    splits = mine_library(folder).splits
    assert splits.listeners is not None
    assert splits.listeners["u2"] == (
        START + timedelta(days=100, hours=2),
        START + timedelta(days=200, hours=2),
    )
    assert load_splits(folder) == splits
    assert read_pairs(folder).equals(by_time[0])
    assert pl.read_parquet(folder.validation_pairs).equals(by_time[1])


def test_session_gap_of_the_settings_decides_what_a_session_is(folder: LibraryPaths) -> None:
    """With up to 49 days of silence the four sittings are four; with 60 the first three are one:
    all is training.
    """
    folder = _with_settings(folder, events="last-session")
    for days, held in ((49, True), (60, False)):
        pairs = folder.config.pairs.model_copy(update={"session_gap_min": days * 24 * 60.0})
        folder = replace(folder, config=folder.config.model_copy(update={"pairs": pairs}))
        folder.splits.unlink()
        listeners = refresh_splits(folder).listeners
        assert listeners is not None
        assert (listeners["u0"][0] < listeners["u0"][1]) is held


def test_another_scheme_than_the_stored_one_is_refused(folder: LibraryPaths) -> None:
    with pytest.raises(
        LibraryError, match="whole artists and events by time; the settings say single tracks and"
    ):
        mine_library(_with_settings(folder, tracks="track"))
    assert load_splits(folder) == Splits(ROLES, None, None)


def test_official_roles_are_mined_with_what_they_tear_counted(folder: LibraryPaths) -> None:
    """te1 and tr1 are of one artist; va2 is in no part, so that it is in no pair."""
    table = pl.read_parquet(folder.tracks)
    official = [None if track_id == "va2" else role for track_id, role in ROLES.items()]
    artists = pl.when(pl.col("track_id") == "te1").then(pl.lit("by tr1")).otherwise("artist")
    table.with_columns(artist=artists, split=pl.Series(official)).write_parquet(folder.tracks)
    folder.splits.unlink()
    mined = mine_library(_with_settings(folder, tracks="column", column="split"))
    assert mined.notes == ("1 artists or albums are in two roles of the official split.",)
    assert mined.splits.n_without_role == 1
    assert len(read_pairs(folder)) == 3
    for table in (pl.read_parquet(folder.validation_pairs), mine_test_pairs(folder)):
        assert not {"va2"} & {*table["anchor_id"], *table["positive_id"]}


def _sounds(folder: LibraryPaths, same: dict[str, str]) -> dict[str, Path]:
    """A file of 15 s of loud and soft noise for each track; those of `same` are copies, 3 dB
    softer.
    """
    files = {}
    for number, track_id in enumerate(ROLES):
        generator = np.random.default_rng(list(ROLES).index(same.get(track_id, track_id)))
        level = np.repeat(generator.uniform(0.01, 0.2, 75), 3200) * (
            0.7 if track_id in same else 1.0
        )
        files[track_id] = folder.root / f"{number}.wav"
        soundfile.write(files[track_id], generator.normal(0, 0.3, len(level)) * level, 16_000)
    return files


def test_copies_get_one_role_before_roles_are_given(folder: LibraryPaths) -> None:
    """All eight tracks are copies in pairs, each of two artists."""
    assert find_duplicates(folder, None) is None
    prepare_features(
        folder, _sounds(folder, {"tr2": "tr1", "tr4": "tr3", "va2": "va1", "te2": "te1"})
    )
    folder.splits.unlink()
    roles = refresh_splits(folder).roles
    assert [
        roles[a] == roles[b]
        for a, b in (("tr1", "tr2"), ("tr3", "tr4"), ("va1", "va2"), ("te1", "te2"))
    ] == [True] * 4
    assert set(roles.values()) == {"train", "validation", "test"}
    assert mine_library(folder).splits.roles == roles


def test_copies_in_two_roles_are_refused_by_name(folder: LibraryPaths) -> None:
    """te1 copies tr1, whose roles are given; that tr4 copies tr3 does no harm, and is not looked
    for.
    """
    prepare_features(folder, _sounds(folder, {"te1": "tr1", "tr4": "tr3"}))
    with pytest.raises(
        DataError,
        match=r"one recording is in two roles \(1 rows\): track_id=te1, role=test, other_id=tr1",
    ):
        mine_library(folder)
    found = find_duplicates(folder, load_splits(folder))
    assert found is not None
    assert found.select("track_id", "other_id").rows() == [("te1", "tr1")]
    assert not folder.pairs.exists()


@pytest.mark.parametrize("seed", range(50))
def test_no_random_log_pairs_a_held_out_track(folder: LibraryPaths, seed: int) -> None:
    """Sixty events of three listeners, any of them set off by any track, under each of six schemes
    in turn.
    """
    generator = np.random.default_rng(seed)
    held, events = ("artist", "track", "column")[seed % 3], ("time", "last-session")[seed % 2]
    table = pl.read_parquet(folder.tracks)
    words = generator.choice(["train", "valid", "test"], size=len(ROLES) - 2)
    table.with_columns(split=pl.Series(["train", "test", *words])).write_parquet(folder.tracks)
    ids, days = list(ROLES), np.sort(generator.uniform(0, 20, 60))
    log = {
        "user_id": [f"u{user}" for user in generator.integers(3, size=60)],
        "track_id": generator.choice(ids, size=60),
        "played_at": [START + timedelta(days=float(day)) for day in days],
        "event": ["complete"] * 60,
        "context_track_id": [
            None if n % 3 else ids[n % 8] for n in generator.integers(24, size=60)
        ],
    }
    pl.DataFrame(log, schema_overrides={"played_at": pl.Datetime("us", "UTC")}).write_parquet(
        folder.interactions
    )
    folder.splits.unlink()
    settings = {
        "splits": {"tracks": held, "events": events, "column": "split"},
        "pairs": {"min_users": 1},
    }
    folder = replace(folder, config=Config.from_preset("tiny", settings))
    roles = mine_library(folder).splits.roles
    for pair in _pairs(read_pairs(folder)):
        assert (roles[pair[0]], roles[pair[1]]) == ("train", "train")
    for pair in _pairs(pl.read_parquet(folder.validation_pairs)):
        assert {roles[pair[0]], roles[pair[1]]} == {"train", "validation"}
    for pair in _pairs(mine_test_pairs(folder)):
        assert (roles[pair[0]], roles[pair[1]]) == ("train", "test")
