"""Every way something held out could reach training, each refused by name, and ten thousand logs
that pass.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import polars as pl
import pytest

from ponticello.config import SplitsConfig
from ponticello.errors import DataError
from ponticello.splits.leakage import check_no_leak
from ponticello.splits.splits import (
    Scheme,
    Splits,
    before_validation,
    make_splits,
    splits_sha256,
    window,
    with_role,
)

START = datetime(2024, 1, 1, tzinfo=UTC)
SCHEMA = {"track_id": pl.String, "artist": pl.String, "album": pl.String}
LOG: dict[str, pl.DataType | type[pl.DataType]] = {
    "user_id": pl.String,
    "track_id": pl.String,
    "played_at": pl.Datetime("us", "UTC"),
}
TRACKS = pl.DataFrame([("a", "Ada", None), ("b", "ada ", None)], schema=SCHEMA, orient="row")
SPLITS = Splits({"a": "train", "b": "test"}, START + timedelta(hours=2), None)
COPIES = pl.DataFrame({"track_id": ["a"], "other_id": ["b"], "similarity": [0.9]})
N_LOGS = 10_000
GAP_MIN = 30


def _events(*rows: tuple[str, str, float]) -> pl.DataFrame:
    """Events of (listener, track, hours after the start)."""
    return pl.DataFrame(
        [(u, t, START + timedelta(hours=h)) for u, t, h in rows], schema=LOG, orient="row"
    )


def _message(
    splits: Splits,
    tracks: pl.DataFrame,
    pairs: pl.DataFrame | None = None,
    events: pl.DataFrame | None = None,
    duplicates: pl.DataFrame | None = None,
) -> str:
    with pytest.raises(DataError) as error:
        check_no_leak(splits, tracks, pairs, events, duplicates)
    return str(error.value)


def test_an_artist_in_both_halves_is_named() -> None:
    named = "track_id=a, group=artist:ada, role=train; track_id=b, group=artist:ada, role=test"
    wanted = f"an artist or album is in two roles (2 rows): {named}; make the splits again"
    assert _message(SPLITS, TRACKS) == wanted


def test_an_artist_in_both_halves_is_allowed_where_single_tracks_are_held_out() -> None:
    single = Splits(SPLITS.roles, None, None, scheme=Scheme("track"))
    assert check_no_leak(single, TRACKS, None, None) == []


def test_a_cold_item_inside_a_training_pair_is_named() -> None:
    pairs = pl.DataFrame({"anchor_id": ["a", "a"], "positive_id": ["a", "b"], "weight": [1, 1]})
    wanted = (
        "a training pair holds a track that is not for training (1 rows): "
        "anchor_id=a, positive_id=b; make"
    )
    assert _message(SPLITS, TRACKS.head(1), pairs).startswith(wanted)
    no_role = Splits({"a": "train"}, None, None, scheme=Scheme("column", "split"), n_without_role=1)
    assert _message(no_role, TRACKS, pairs).startswith(wanted)


def test_an_event_on_a_track_that_is_not_for_training_is_named() -> None:
    wanted = (
        "a training event is on a track that is not for training (1 rows): "
        "user_id=u, track_id=b, played_at=2024"
    )
    assert _message(SPLITS, TRACKS.head(1), None, _events(("u", "a", 0), ("u", "b", 1))).startswith(
        wanted
    )


def test_an_event_that_is_not_before_the_moment_is_named() -> None:
    late = _events(("u", "a", 1), ("u", "a", 2), ("v", "a", 3))
    message = _message(SPLITS, TRACKS.head(1), None, late)
    assert message.startswith(
        "a training event is not before 2024-01-01 02:00:00+00:00 (2 rows): user_id=u, track_id=a"
    )


def test_an_event_of_a_listeners_own_last_sessions_is_named() -> None:
    """u trains until hour 1, v until hour 5; w is not known."""
    own = {
        user: (START + timedelta(hours=hour), START + timedelta(hours=hour + 1))
        for user, hour in (("u", 1), ("v", 5))
    }
    splits = Splits({"a": "train"}, None, None, own, Scheme(events="last-session"))
    assert check_no_leak(splits, TRACKS.head(1), None, _events(("u", "a", 0), ("v", "a", 4))) == []
    for leak in (("u", "a", 1), ("v", "a", 5), ("w", "a", 0)):
        message = _message(splits, TRACKS.head(1), None, _events(("v", "a", 4), leak))
        assert message.startswith(
            "a training event is not before the last sessions of its listener (1 rows): "
            f"user_id={leak[0]}, "
        )


@pytest.mark.parametrize("scheme", ["artist", "track"])
def test_one_recording_in_two_roles_is_named(scheme: str) -> None:
    splits = Splits(SPLITS.roles, None, None, scheme=Scheme(scheme))
    tracks = TRACKS.with_columns(artist=pl.col("track_id"))
    named = "track_id=a, role=train, other_id=b, other_role=test"
    wanted = f"one recording is in two roles (1 rows): {named}; make the splits again"
    assert _message(splits, tracks, duplicates=COPIES) == wanted
    same = Splits({"a": "test", "b": "test"}, None, None, scheme=Scheme(scheme))
    unknown = Splits({"a": "test"}, None, None, scheme=Scheme(scheme))
    assert (
        check_no_leak(same, tracks, None, None, COPIES)
        == check_no_leak(unknown, tracks, None, None, COPIES)
        == []
    )


def test_what_an_official_split_tears_is_counted() -> None:
    official = Splits(SPLITS.roles, None, None, scheme=Scheme("column", "split"))
    assert check_no_leak(official, TRACKS, None, None, COPIES) == [
        "1 artists or albums are in two roles of the official split.",
        "1 pairs of tracks of one recording are in two roles of the official split.",
    ]
    whole = Splits({"a": "train", "b": "train"}, None, None, scheme=Scheme("column", "split"))
    assert check_no_leak(whole, TRACKS, None, None, COPIES) == []


def _random_logs(
    n: int, seed: int
) -> Iterator[tuple[np.random.Generator, pl.DataFrame, pl.DataFrame]]:
    """Catalogues of 4 to 12 tracks of few artists, and logs of 5 to 30 events of few listeners,
    with ties in time.
    """
    generator = np.random.default_rng(seed)
    artists, words = (
        ["Ada", " ada", "Bo", "Cy", "Di", None],
        ["train", "Test", "valid", "other", None],
    )
    for _ in range(n):
        n_tracks, n_events = generator.integers(4, 13), generator.integers(5, 31)
        ids = [f"t{number}" for number in range(n_tracks)]
        split = [
            "train",
            "test",
            *(words[place] for place in generator.integers(5, size=n_tracks - 2)),
        ]
        artist = [artists[place] for place in generator.integers(6, size=n_tracks)]
        tracks = pl.DataFrame(
            {"track_id": ids, "artist": artist, "split": split},
            schema_overrides={"artist": pl.String},
        )
        minutes = np.cumsum(generator.choice([0, 10, 30, 31, 200], size=n_events))
        log = {
            "user_id": [f"u{user}" for user in generator.integers(3, size=n_events)],
            "track_id": [ids[place] for place in generator.integers(n_tracks, size=n_events)],
            "played_at": [START + timedelta(minutes=int(minute)) for minute in minutes],
        }
        yield generator, tracks, pl.DataFrame(log, schema=LOG)


def _slow_windows(log: list[tuple[str, str, datetime]], by_time: bool) -> list[str]:
    """The window of each event, by sorting and counting in plain loops."""
    if by_time:
        times = sorted(at for _, _, at in log)
        first, second = times[int(0.7 * len(times) + 1e-9)], times[int(0.8 * len(times) + 1e-9)]
        return [
            "train" if at < first else "validation" if at < second else "test" for _, _, at in log
        ]
    number, n_sessions = {}, {}
    for user in {user for user, _, _ in log}:
        times = sorted(at for name, _, at in log if name == user)
        session = 0
        number[user, times[0]] = 0
        for before, at in pairwise(times):
            session += at - before > timedelta(minutes=GAP_MIN)
            number[user, at] = session
        n_sessions[user] = session + 1
    windows = []
    for user, _, at in log:
        left = n_sessions[user] - number[user, at]  # sessions from this one to the end
        windows.append(
            "train" if n_sessions[user] < 3 or left > 2 else "validation" if left == 2 else "test"
        )
    return windows


@pytest.mark.parametrize(
    ("held", "events"),
    [
        ("artist", "time"),
        ("track", "last-session"),
        ("column", "time"),
        *(
            pytest.param(*scheme, marks=pytest.mark.long)
            for scheme in (
                ("artist", "last-session"),
                ("track", "time"),
                ("column", "last-session"),
            )
        ),
    ],
)
def test_ten_thousand_random_logs_leak_nothing(held: str, events: str) -> None:
    """A sixth of the logs for each scheme, compared with windows found the slow way."""
    config = SplitsConfig.model_validate({"tracks": held, "events": events, "column": "split"})
    for generator, tracks, log in _random_logs(N_LOGS // 6 + 1, seed=len(held) * 100 + len(events)):
        splits = make_splits(tracks, log, config, session_gap_min=GAP_MIN)
        rows = log.rows()
        windows = _slow_windows(rows, events == "time")
        assert window(splits, log).to_list() == windows
        is_train = pl.col("track_id").is_in(with_role(splits, "train"))
        found = before_validation(splits, log).filter(is_train)
        pairs = [row for row, when in zip(rows, windows, strict=True) if when == "train"]
        assert found.rows() == [row for row in pairs if splits.roles.get(row[1]) == "train"]
        check_no_leak(splits, tracks, None, found)

        known = {
            track_id
            for track_id, _, word in tracks.iter_rows()
            if held != "column" or word not in ("other", None)
        }
        assert set(splits.roles) == known
        assert set(splits.roles.values()) <= {"train", "validation", "test"}
        assert splits.n_without_role == tracks.height - len(known)
        if held == "artist":
            by_artist: dict[str, set[str]] = {}
            for track_id, artist, _ in tracks.iter_rows():
                by_artist.setdefault(artist.strip().lower() if artist else track_id, set()).add(
                    splits.roles[track_id]
                )
            assert all(len(roles) == 1 for roles in by_artist.values())

        shuffled = log[generator.permutation(log.height)]
        again = make_splits(
            tracks[generator.permutation(tracks.height)], shuffled, config, session_gap_min=GAP_MIN
        )
        assert again == splits
        assert splits_sha256(again) == splits_sha256(splits)
