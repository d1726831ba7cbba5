"""What is held out, and that none of it reaches training."""

import doctest
import hashlib
import json
import random
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ponticello.config import SplitsConfig
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.splits import splits as splits_module
from ponticello.splits.leakage import check_no_leak
from ponticello.splits.splits import (
    Scheme,
    Splits,
    before_test,
    before_validation,
    describe,
    in_test,
    load_splits,
    make_splits,
    one_window_earlier,
    save_splits,
    splits_sha256,
    window,
    with_role,
)
from ponticello.storage.layout import create_library

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = {"track_id": pl.String, "artist": pl.String, "album": pl.String}
Row = tuple[str | None, str | None]
artists = st.sampled_from(
    [None, "", "Ada", " ada ", "ADA", "Bo", "Cy", "Straße", "STRASSE", "Di  Lo", "di lo"]
)
albums = st.sampled_from([None, "", "X", "x", "Ada"])
catalogues = st.lists(st.tuples(artists, albums), max_size=40)


def train_events(events: pl.DataFrame, splits: Splits) -> pl.DataFrame:
    """The events of train tracks in the training window."""
    is_train = pl.col("track_id").is_in(with_role(splits, "train"))
    return before_validation(splits, events).filter(is_train)


def _tracks(rows: list[Row]) -> pl.DataFrame:
    return pl.DataFrame(
        [(f"t{n}", *row) for n, row in enumerate(rows)], schema=SCHEMA, orient="row"
    )


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
    assert make_splits(tracks, None, SplitsConfig(seed=1)) != make_splits(
        tracks, None, SplitsConfig(seed=2)
    )


def test_few_large_groups_still_fill_every_role_but_never_empty_train() -> None:
    """Budgets of 2.0 and 1.5 of 10 tracks fit no group: test takes the smallest, validation the
    next.
    """
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
    with pytest.raises(
        ConfigError,
        match=r"validation_time_quantile must not be below splits\.train_time_quantile; raise it",
    ):
        make_splits(_tracks([]), None, SplitsConfig(validation_time_quantile=0.5))


@pytest.mark.parametrize("moment", [None, START])
def test_saved_splits_come_back_and_a_change_is_noticed(
    tmp_path: Path, moment: datetime | None
) -> None:
    folder = create_library(tmp_path, "tiny")
    assert load_splits(folder) is None
    splits = Splits({"b": "test", "a": "train"}, moment, moment)
    save_splits(folder, splits)
    assert load_splits(folder) == splits
    assert pl.read_parquet(folder.splits).rows() == [("a", "train"), ("b", "test")]
    metadata = {
        key: value
        for key, value in pl.read_parquet_metadata(folder.splits).items()
        if key != "ARROW:schema"
    }
    changed = pl.DataFrame({"track_id": ["a", "b"], "role": ["train", "train"]})
    changed.write_parquet(folder.splits, metadata=metadata)
    with pytest.raises(DataError) as error:
        load_splits(folder)
    assert (
        str(error.value)
        == "splits.parquet does not fit its own SHA-256; delete it and make the splits again"
    )
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


def test_events_without_a_moment_are_refused() -> None:
    splits = Splits({"a": "train"}, None, None)
    for check in (
        lambda: train_events(_events(1), splits),
        lambda: check_no_leak(splits, _tracks([]), None, _events(1)),
    ):
        with pytest.raises(
            DataError,
            match="made without a listening history, so no moment ends training; make the",
        ):
            check()
    assert train_events(_events(0), splits).height == 0


def _of_split(values: list[str | None]) -> pl.DataFrame:
    return pl.DataFrame({"track_id": [f"t{n}" for n in range(len(values))], "split": values})


def _heard(*rows: tuple[str, float]) -> pl.DataFrame:
    """Events of (listener, hours after the start), on track `a`."""
    table = [(user, "a", START + timedelta(hours=hours)) for user, hours in rows]
    return pl.DataFrame(table, schema=["user_id", "track_id", "played_at"], orient="row")


def test_single_tracks_are_held_out_even_of_one_artist() -> None:
    splits = make_splits(_tracks([("a", None)] * 100), None, SplitsConfig(tracks="track"))
    assert Counter(splits.roles.values()) == {"train": 65, "test": 20, "validation": 15}


def test_new_tracks_of_one_recording_get_one_role() -> None:
    """Every track of a chain of copies is held out with the others, whoever the artist; old roles
    stay.
    """
    tracks = _tracks([(f"artist {n}", None) for n in range(100)])
    copies = pl.DataFrame(
        [(f"t{n}", f"t{n + 1}") for n in range(0, 40)],
        schema=["track_id", "other_id"],
        orient="row",
    )
    for scheme in ("artist", "track"):
        config = SplitsConfig.model_validate({"tracks": scheme})
        splits = make_splits(tracks, None, config, duplicates=copies)
        assert len({splits.roles[f"t{n}"] for n in range(41)}) == 1
        assert set(splits.roles.values()) == {"train", "validation", "test"}
        before = Splits({"t3": "test"}, None, None, scheme=Scheme(scheme))
        after = make_splits(tracks, None, config, before, duplicates=copies[::-1])
        assert {after.roles[f"t{n}"] for n in range(41)} == {"test"}


def test_official_roles_are_read_from_a_column_in_any_wording() -> None:
    values = [
        "train",
        " Training",
        "VALID",
        "val",
        "Validation",
        "test",
        "TEST ",
        None,
        "unused",
        "",
    ]
    config = SplitsConfig(tracks="column", column="split")
    splits = make_splits(_of_split(values), None, config)
    roles = ["train"] * 2 + ["validation"] * 3 + ["test"] * 2
    assert splits.roles == {f"t{n}": role for n, role in enumerate(roles)}
    assert splits.n_without_role == 3
    assert "2 train, 3 validation and 2 test tracks (3 more have no role)" in describe(splits)
    again = make_splits(_of_split(values), None, config, splits)
    assert again == splits


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        (
            "split_0",
            ["train", "test"],
            "the tracks have no column 'split_0'; choose one of track_id, split",
        ),
        ("", ["train", "test"], "the tracks have no column ''; choose one of track_id, split"),
        (
            "split",
            ["train", "dev"],
            "column 'split' names no test track; wanted .*, found 'dev', 'train'",
        ),
        (
            "split",
            ["test", None],
            "column 'split' names no training track; wanted .*, found 'test'",
        ),
        ("split", [None, None], "column 'split' names no training track; wanted .*, found no text"),
    ],
)
def test_a_column_without_official_roles_is_refused(
    column: str, values: list[str | None], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make_splits(_of_split(values), None, SplitsConfig(tracks="column", column=column))


def test_a_column_of_lists_is_refused() -> None:
    tracks = pl.DataFrame({"track_id": ["t0"], "split": [["train"]]})
    with pytest.raises(ConfigError, match=r"names no training track; wanted .*, found no text"):
        make_splits(tracks, None, SplitsConfig(tracks="column", column="split"))


def test_a_column_that_moves_a_track_is_refused() -> None:
    config = SplitsConfig(tracks="column", column="split")
    before = make_splits(_of_split(["train", "test", "test"]), None, config)
    with pytest.raises(LibraryError) as error:
        make_splits(_of_split(["train", "train", "test"]), None, config, before)
    assert str(error.value) == (
        "column 'split' moves 1 tracks: t1 was test and is train; "
        "delete splits.parquet, run `ponticello mine-pairs` and train again"
    )


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"tracks": "track"}, "single tracks and events by time"),
        ({"events": "last-session"}, "whole artists and each listener's last session"),
        (
            {"tracks": "column", "column": "artist"},
            "the tracks of column 'artist' and events by time",
        ),
    ],
)
def test_roles_made_another_way_are_not_mixed_in(settings: dict[str, str], named: str) -> None:
    tracks = _tracks([("train", None), ("test", None)])
    config = SplitsConfig.model_validate(settings)
    before = make_splits(tracks, None, SplitsConfig())
    with pytest.raises(LibraryError) as error:
        make_splits(tracks, None, config, before)
    assert str(error.value) == (
        f"splits.parquet holds out whole artists and events by time; the settings say {named}: "
        "delete splits.parquet, run `ponticello mine-pairs` and train again, or set them back"
    )
    assert make_splits(tracks, None, config, Splits({}, None, None)).scheme != Scheme()


def test_last_session_is_the_test_window_and_the_one_before_it_validation() -> None:
    """Silences of up to 30 minutes keep a session together: u sits at 0 (and 0.5), 2, and 4 (and
    4.4) hours.
    """
    log = _heard(
        ("u", 4.4), ("u", 0), ("u", 0.5), ("u", 2), ("u", 4), ("two", 0), ("two", 9), ("one", 1)
    )
    splits = make_splits(_tracks([]), log, SplitsConfig(events="last-session"))
    assert (splits.train_until, splits.validation_until) == (None, None)
    assert splits.listeners is not None
    assert splits.listeners["u"] == (START + timedelta(hours=2), START + timedelta(hours=4))
    windows = ["test", "train", "train", "validation", "test", "train", "train", "train"]
    assert window(splits, log).to_list() == windows
    assert before_validation(splits, log).equals(log.filter(pl.Series(windows) == "train"))
    assert before_test(splits, log).equals(log.filter(pl.Series(windows) != "test"))
    assert in_test(splits, log).equals(log.filter(pl.Series(windows) == "test"))
    assert "the last two sessions of 1 of 3 listeners" in describe(splits)
    longer = make_splits(_tracks([]), log, SplitsConfig(events="last-session"), session_gap_min=89)
    assert longer.listeners == splits.listeners
    one = make_splits(_tracks([]), log, SplitsConfig(events="last-session"), session_gap_min=90)
    assert set(window(one, log)) == {"train"}


def test_events_newer_than_last_session_splits_train_nothing() -> None:
    """A listener the splits do not know has no window; a known one with few sessions is past
    training.
    """
    log = _heard(("u", 0), ("u", 2), ("u", 4), ("one", 0))
    splits = make_splits(_tracks([("x", None)]), log, SplitsConfig(events="last-session"))
    newer = _heard(("new", 0), ("one", 5), ("u", 5))
    assert window(splits, newer).to_list() == [None, "test", "test"]
    splits = replace(splits, roles={"a": "train"})
    assert train_events(newer, splits).is_empty()
    assert before_test(splits, newer).is_empty()
    assert in_test(splits, newer)["user_id"].to_list() == ["one", "u"]


def test_windows_of_time_meet_at_the_moments() -> None:
    splits = Splits({}, START + timedelta(hours=1), START + timedelta(hours=3))
    assert window(splits, _events(5)).to_list() == [
        "train",
        "validation",
        "validation",
        "test",
        "test",
    ]


def test_one_window_earlier_tests_on_the_validation_window() -> None:
    log = _heard(("u", 0), ("u", 2), ("u", 4), ("one", 0))
    by_time = Splits({}, START + timedelta(hours=1), START + timedelta(hours=3))
    for splits in (by_time, make_splits(_tracks([]), log, SplitsConfig(events="last-session"))):
        past = before_test(splits, log)
        assert window(one_window_earlier(splits), past).to_list() == ["train", "test", "train"]


def test_roles_can_be_asked_for() -> None:
    splits = Splits({"a": "train", "b": "test", "c": "validation"}, None, None)
    assert with_role(splits, "train", "validation") == ["a", "c"]


def test_every_scheme_comes_back_from_disk_and_a_changed_moment_is_noticed(tmp_path: Path) -> None:
    folder = create_library(tmp_path, "tiny")
    own = {"u": (START, START + timedelta(hours=1)), "v": (START, START)}
    scheme = Scheme("column", "split", "last-session")
    for splits in (
        Splits({"a": "train"}, None, None, own, scheme, 4),
        Splits({"a": "train"}, None, None, None, scheme),
        Splits({"a": "train"}, None, None, {}, scheme),
        Splits({"a": "train"}, START, START, None, Scheme("track")),
    ):
        save_splits(folder, splits)
        assert load_splits(folder) == splits
    listeners = folder.root / "splits-listeners.parquet"
    assert not listeners.exists()
    save_splits(folder, Splits({"a": "train"}, None, None, own, scheme))
    late = pl.read_parquet(listeners).with_columns(
        pl.col("train_until") + timedelta(microseconds=1)
    )
    for damage in (
        late.write_parquet,
        lambda file: file.write_bytes(b""),
        lambda file: file.unlink(),
    ):
        damage(listeners)
        with pytest.raises(
            DataError, match=r"splits\.parquet does not fit its own SHA-256; delete it and make"
        ):
            load_splits(folder)


def test_hash_covers_everything_and_the_default_scheme_keeps_the_hash_it_always_had() -> None:
    own = {"u": (START, START)}
    splits = Splits({"a": "train", "b": "test"}, START, START)
    others = [
        replace(splits, roles={"a": "train"}),
        replace(splits, validation_until=None),
        replace(splits, scheme=Scheme("track")),
        replace(splits, scheme=Scheme("column", "split")),
        replace(splits, scheme=Scheme("column", "split_0")),
        replace(splits, scheme=Scheme(events="last-session")),
        replace(splits, scheme=Scheme(events="last-session"), listeners={}),
        replace(splits, scheme=Scheme(events="last-session"), listeners=own),
        replace(splits, n_without_role=1),
    ]
    assert len({splits_sha256(found) for found in [splits, *others]}) == 10
    assert splits_sha256(splits) == splits_sha256(
        replace(splits, roles={"b": "test", "a": "train"})
    )
    content = [[["a", "train"], ["b", "test"]], [START.isoformat()] * 2]
    assert splits_sha256(splits) == hashlib.sha256(json.dumps(content).encode()).hexdigest()


def test_splits_are_described_in_one_sentence() -> None:
    splits = Splits({"a": "train", "b": "test"}, START, START + timedelta(days=1))
    assert describe(splits) == (
        "Held out: whole artists and events by time; 1 train, 0 validation and 1 test tracks; "
        "training before 2024-01-01 00:00 UTC, test from 2024-01-02 00:00 UTC."
    )
    assert doctest.testmod(splits_module).failed == 0


def _untimed_log(n_listeners: int = 40) -> pl.DataFrame:
    rows = []
    for listener in range(n_listeners):
        for track in range(60):
            rows.append((f"u{listener}", f"t{track}", datetime(2000, 1, 1, tzinfo=UTC)))
    time = pl.Datetime("us", "UTC")
    schema = {"user_id": pl.String(), "track_id": pl.String(), "played_at": time}
    return pl.DataFrame(rows, schema=schema, orient="row")


def _sixty_tracks() -> pl.DataFrame:
    ids = [f"t{number}" for number in range(60)]
    return pl.DataFrame({"track_id": ids, "artist": ids, "album": ids})


def test_a_log_without_times_is_held_out_at_random() -> None:
    """About 70, 10 and 20 % of the likes of training tracks; all of the others are held out."""
    log = _untimed_log()
    splits = make_splits(_sixty_tracks(), log, SplitsConfig())
    assert splits.scheme.events == "random"
    windows = log.with_columns(window=window(splits, log))
    windows = windows.with_columns(role=pl.col("track_id").replace_strict(splits.roles))
    for role in ("validation", "test"):
        assert windows.filter(role=role)["window"].unique().to_list() == [role]
    shares = windows.filter(role="train")["window"].value_counts(normalize=True)
    by_window = dict(shares.iter_rows())
    assert by_window["train"] == pytest.approx(0.7, abs=0.04)
    assert by_window["validation"] == pytest.approx(0.1, abs=0.03)
    assert by_window["test"] == pytest.approx(0.2, abs=0.04)


def test_random_windows_are_the_same_in_any_order_and_differ_by_seed() -> None:
    log = _untimed_log()
    splits = make_splits(_sixty_tracks(), log, SplitsConfig())
    backwards = window(splits, log.reverse()).reverse()
    assert window(splits, log).to_list() == backwards.to_list()
    others = make_splits(_sixty_tracks(), log, SplitsConfig(seed=1))
    kept = replace(others, roles=splits.roles)
    assert window(splits, log).to_list() != window(kept, log).to_list()


def test_random_splits_come_back_from_disk(tmp_path: Path) -> None:
    library = create_library(tmp_path / "library", "tiny")
    splits = make_splits(_sixty_tracks(), _untimed_log(), SplitsConfig())
    save_splits(library, splits)
    assert load_splits(library) == splits


def test_a_first_log_without_times_may_follow_splits_without_a_log() -> None:
    before = make_splits(_sixty_tracks(), None, SplitsConfig())
    splits = make_splits(_sixty_tracks(), _untimed_log(), SplitsConfig(), before)
    assert (before.scheme.events, splits.scheme.events) == ("time", "random")
    assert splits.roles == before.roles
