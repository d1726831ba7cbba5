"""What is held out, and that none of it reaches training."""

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponticello.config import SplitsConfig
from ponticello.data.splits import Splits, check_no_leak, load_splits, make_splits, save_splits, train_events
from ponticello.errors import ConfigError, DataError
from ponticello.library import create_library

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = {"track_id": pl.String, "artist": pl.String, "album": pl.String}
Row = tuple[str | None, str | None]
artists = st.sampled_from([None, "", "Ada", " ada ", "ADA", "Bo", "Cy", "Straße", "STRASSE", "Di  Lo", "di lo"])
albums = st.sampled_from([None, "", "X", "x", "Ada"])
catalogues = st.lists(st.tuples(artists, albums), max_size=40)


def _tracks(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame([(f"t{n}", *row) for n, row in enumerate(rows)], schema=SCHEMA, orient="row")


def _events(n: int, track_id: str = "a") -> pl.DataFrame:
    times = [START + timedelta(hours=hour) for hour in range(n)]
    return pl.DataFrame({"track_id": [track_id] * n, "played_at": times}, schema_overrides={
        "played_at": pl.Datetime("us", "UTC")
    })  # fmt: skip


@given(catalogues)
def test_no_artist_is_in_two_roles(rows: list[Row]) -> None:
    tracks = _tracks(rows)
    splits = make_splits(tracks, None, SplitsConfig())
    assert set(splits.roles) == set(tracks["track_id"])
    roles: dict[str, set[str]] = {}
    for track_id, artist, album in tracks.iter_rows():
        name = " ".join((artist or "").casefold().split())
        key = name or "album " + (album or "").casefold() if name or album else track_id
        roles.setdefault(key, set()).add(splits.roles[track_id])
    assert all(len(found) == 1 for found in roles.values())
    check_no_leak(splits, tracks, None, None)


@given(catalogues, st.randoms(use_true_random=False))
def test_order_of_rows_is_irrelevant(rows: list[Row], order: random.Random) -> None:
    tracks = _tracks(rows)
    shuffled = tracks[order.sample(range(tracks.height), tracks.height)]
    assert make_splits(tracks, None, SplitsConfig()) == make_splits(shuffled, None, SplitsConfig())


@given(catalogues, catalogues)
def test_new_tracks_move_no_old_one_and_join_their_artist(old: list[Row], new: list[Row]) -> None:
    before = make_splits(_tracks(old), None, SplitsConfig())
    tracks = _tracks(old + new)
    after = make_splits(tracks, None, SplitsConfig(), before)
    assert {track_id: after.roles[track_id] for track_id in before.roles} == before.roles
    assert set(after.roles) == set(tracks["track_id"])
    check_no_leak(after, tracks, None, None)


def test_shares_of_tracks_are_met_exactly_when_groups_allow() -> None:
    """100 artists of one track: 20 % test, 15 % validation."""
    splits = make_splits(_tracks([(f"artist {n}", None) for n in range(100)]), None, SplitsConfig())
    assert Counter(splits.roles.values()) == {"train": 65, "test": 20, "validation": 15}


def test_seed_changes_who_is_held_out() -> None:
    tracks = _tracks([(f"artist {n}", None) for n in range(50)])
    assert make_splits(tracks, None, SplitsConfig(seed=1)) != make_splits(tracks, None, SplitsConfig(seed=2))


def test_few_large_groups_still_fill_every_role_but_never_empty_train() -> None:
    """Budgets of 2.0 and 1.5 of 10 tracks fit no group: test takes the smallest, validation the next."""
    rows: list[Row] = [(artist, None) for artist in "aaaaabbbcc"]
    small = make_splits(_tracks(rows), None, SplitsConfig(test_share=0.1))
    assert [small.roles[f"t{n}"] for n in (0, 5, 8)] == ["train", "validation", "test"]
    alone = make_splits(_tracks([("a", None)] * 4), None, SplitsConfig())
    assert set(alone.roles.values()) == {"train"}
    none = make_splits(_tracks(rows), None, SplitsConfig(test_share=0, validation_share=0))
    assert set(none.roles.values()) == {"train"}


def test_new_tracks_of_a_torn_artist_join_its_larger_part() -> None:
    previous = Splits({"t0": "train", "t1": "test", "t2": "test"}, None, None)
    splits = make_splits(_tracks([("a", None)] * 4), None, SplitsConfig(), previous)
    assert splits.roles == {"t0": "train", "t1": "test", "t2": "test", "t3": "test"}


def test_moments_leave_the_configured_shares_before_them() -> None:
    """Of ten hourly events, seven are before hour 7 and eight before hour 8."""
    splits = make_splits(_tracks([]), _events(10).reverse(), SplitsConfig())
    assert splits.train_until == START + timedelta(hours=7)
    assert splits.validation_until == START + timedelta(hours=8)
    empty = make_splits(_tracks([]), _events(0), SplitsConfig())
    assert empty.train_until is empty.validation_until is None


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match="must sum to less than 1; lower one"):
        make_splits(_tracks([]), None, SplitsConfig(test_share=0.5, validation_share=0.5))
    with pytest.raises(ConfigError, match=r"validation_until must not be below splits\.train_until; raise it"):
        make_splits(_tracks([]), None, SplitsConfig(validation_until=0.5))


@pytest.mark.parametrize("moment", [None, START])
def test_saved_splits_come_back_and_a_change_is_noticed(tmp_path: Path, moment: datetime | None) -> None:
    folder = create_library(tmp_path, "tiny")
    assert load_splits(folder) is None
    splits = Splits({"b": "test", "a": "train"}, moment, moment)
    save_splits(folder, splits)
    assert load_splits(folder) == splits
    assert pl.read_parquet(folder.splits).rows() == [("a", "train"), ("b", "test")]
    metadata = {key: value for key, value in pl.read_parquet_metadata(folder.splits).items() if key != "ARROW:schema"}
    changed = pl.DataFrame({"track_id": ["a", "b"], "role": ["train", "train"]})
    changed.write_parquet(folder.splits, metadata=metadata)
    with pytest.raises(DataError) as error:
        load_splits(folder)
    assert str(error.value) == "splits.parquet does not fit its own SHA-256; delete it and make the splits again"
    for damage in (b"", b"not parquet"):
        folder.splits.write_bytes(damage)
        with pytest.raises(DataError, match="does not fit its own SHA-256"):
            load_splits(folder)
    changed.write_parquet(folder.splits)
    with pytest.raises(DataError, match="does not fit its own SHA-256"):
        load_splits(folder)


def test_training_events_are_early_and_on_train_tracks() -> None:
    splits = Splits({"a": "train", "b": "test"}, START + timedelta(hours=2), None)
    events = pl.concat([_events(4, "a"), _events(4, "b"), _events(1, "unknown")])
    assert train_events(events, splits).rows() == [("a", START), ("a", START + timedelta(hours=1))]
    check_no_leak(splits, _tracks([]), None, train_events(events, splits))


def test_every_leak_is_named() -> None:
    tracks = pl.DataFrame([("a", "Ada", None), ("b", "ada ", None)], schema=SCHEMA, orient="row")
    splits = Splits({"a": "train", "b": "test"}, START + timedelta(hours=2), None)
    with pytest.raises(DataError) as error:
        check_no_leak(splits, tracks, None, None)
    named = "track_id=a, group=artist:ada, role=train; track_id=b, group=artist:ada, role=test"
    assert str(error.value) == f"an artist or album is in two roles (2 rows): {named}; make the splits again"
    tracks = tracks.head(1)
    pairs = pl.DataFrame({"anchor_id": ["a", "a"], "positive_id": ["a", "b"], "weight": [1, 1]})
    with pytest.raises(DataError, match=r"not for training \(1 rows\): anchor_id=a, positive_id=b; make"):
        check_no_leak(splits, tracks, pairs, None)
    with pytest.raises(DataError, match=r"event is on a track that is not for training \(1 rows\): track_id=b"):
        check_no_leak(splits, tracks, pairs.head(1), _events(1, "b"))
    with pytest.raises(DataError, match=r"event is not before 2024-01-01 02:00:00\+00:00 \(3 rows\): track_id=a"):
        check_no_leak(splits, tracks, None, _events(5, "a"))


def test_events_without_a_moment_are_refused() -> None:
    splits = Splits({"a": "train"}, None, None)
    for check in (
        lambda: train_events(_events(1), splits),
        lambda: check_no_leak(splits, _tracks([]), None, _events(1)),
    ):
        with pytest.raises(DataError, match="made without a listening history, so no moment ends training; make the"):
            check()
    assert train_events(_events(0), splits).height == 0
