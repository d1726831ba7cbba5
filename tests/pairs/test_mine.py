"""Each mining rule on a log small enough to read, and all of them against a plain Python version on
random logs.
"""

from pathlib import Path
from random import Random
from typing import Literal

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ponticello.config import PairsConfig
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.pairs.events import EVENTS_SCHEMA
from ponticello.pairs.mine import PAIRS_SCHEMA, MiningFunnel, read_pairs, write_pairs
from ponticello.storage.layout import create_library
from ponticello.storage.schema import EVENTS
from tests.frame_mining import mine_pairs
from tests.plain_mining import Event, Row, any_events, event, plain_pairs

ACTED: tuple[Literal["feedback", "session", "playlist"], ...] = ("feedback", "session", "playlist")
ALONE = PairsConfig(
    min_users=1, sources=ACTED
)  # one listener is enough: a rule shows on one person's log


def _log(*events: Event) -> pl.DataFrame:
    return pl.DataFrame(events, schema=EVENTS_SCHEMA)


def _mined(config: PairsConfig, *events: Event) -> list[Row]:
    return mine_pairs(_log(*events), config)[0].rows()


def test_feedback_points_from_the_trigger_to_the_liked_track() -> None:
    """Only the three-hour gaps keep sessions out; the skip, the track itself and the missing
    trigger give nothing.
    """
    rows = [
        ("b", "z", 2.0),
        ("b", "z", None),
        ("z", "b", 0.25),
        ("d", "d", None),
        ("e", None, None),
    ]
    events = [
        event("u", t, 180 * i, weight=w, context_track_id=by) for i, (t, by, w) in enumerate(rows)
    ]
    skip = event("u", "c", 900, "skip", context_track_id="z")
    assert _mined(ALONE, *events, skip) == [
        ("b", "z", 1, 0.25, "feedback"),
        ("z", "b", 1, 3.0, "feedback"),
    ]


def test_a_play_is_positive_when_it_lasted_or_its_length_is_unknown() -> None:
    """29.9 s is too short, 30 s and unknown are not; a complete event needs no length."""
    rows = [("a", "play", 30.0), ("b", "play", 29.9), ("c", "play", None), ("e", "complete", 1.0)]
    events = [
        event("u", track, i, kind, played_s=played_s)
        for i, (track, kind, played_s) in enumerate(rows)
    ]
    assert _mined(ALONE, *events) == [("a", "c", 1, 1.0, "session"), ("c", "e", 1, 1.0, "session")]


def test_a_session_pair_is_undirected_and_weighs_as_the_laterevent() -> None:
    """c then a (3) and a then c (0.5) are one pair; a repeated track pairs once."""
    sitting = [("c", 7.0), ("a", 3.0), ("a", 9.0), ("c", 0.5)]
    events = [
        event("u", track, minute, weight=weight) for minute, (track, weight) in enumerate(sitting)
    ]
    assert _mined(ALONE, *events) == [("a", "c", 1, 3.5, "session")]


def test_a_gap_of_exactly_thirty_minutes_stays_in_the_session() -> None:
    assert _mined(ALONE, event("u", "a", 0), event("u", "b", 30)) == [("a", "b", 1, 1.0, "session")]
    assert _mined(ALONE, event("u", "a", 0), event("u", "b", 30 + 1e-6)) == []


def test_an_event_of_any_kind_bridges_a_gap_but_a_playlist_does_not() -> None:
    a, b = event("u", "a", 0), event("u", "b", 40)
    assert _mined(ALONE, a, event("u", "x", 20, "skip"), b) == [("a", "b", 1, 1.0, "session")]
    assert _mined(ALONE, a, event("u", "x", 20, "playlist"), b) == []


def test_a_given_session_id_decides_whatever_the_gap() -> None:
    """s1 spans two hours; s2 begins within it and is another sitting; another user's s1 is another
    one too.
    """
    rows = [("u", "a", 0, "s1"), ("u", "b", 1, "s2"), ("v", "d", 2, "s1"), ("u", "c", 120, "s1")]
    events = [
        event(user, track, minute, session_id=session) for user, track, minute, session in rows
    ]
    assert _mined(ALONE, *events) == [("a", "c", 1, 1.0, "session")]


def test_tracks_of_one_playlist_belong_together() -> None:
    """b is added twice: its last addition (weight 5) is the later one of each of its pairs."""
    added = [("b", 0, 2.0), ("a", 1, 3.0), ("c", 2, 4.0), ("b", 9, 5.0)]
    events = [
        event("u", track, at, "playlist", session_id="p", weight=weight)
        for track, at, weight in added
    ]
    elsewhere = [("u", "d", "q"), ("u", "e", None), ("v", "e", "p")]
    events += [
        event(user, track, 9, "playlist", session_id=name) for user, track, name in elsewhere
    ]
    assert [row[:4] for row in _mined(ALONE, *events)] == [
        ("a", "b", 1, 5.0),
        ("a", "c", 1, 4.0),
        ("b", "c", 1, 5.0),
    ]


def test_of_two_tracks_of_one_moment_the_one_with_the_larger_id_says_the_weight() -> None:
    at_once = [
        event("u", track, 0, "playlist", session_id="p", weight=weight)
        for track, weight in (("b", 5.0), ("a", 2.0))
    ]
    assert _mined(ALONE, *at_once) == [("a", "b", 1, 5.0, "playlist")]
    together = PairsConfig(min_users=1, min_lift=0, sources=("cooccurrence",))
    liked = [event("u", track, 0, weight=weight) for track, weight in (("a", 2.0), ("b", 5.0))]
    assert _mined(together, *liked) == [("a", "b", 1, 5.0, "cooccurrence")]


def test_a_playlist_over_the_limit_is_left_out_and_counted() -> None:
    """201 distinct tracks are too many; 200, one of them twice, give 200 * 199 / 2 pairs."""
    config = ALONE.model_copy(update={"max_pairs_per_user": 10**6, "max_pairs_per_track": 10**6})
    tracks = [f"t{i:03}" for i in range(201)]
    long = [event("u", track, 0, "playlist", session_id="long") for track in tracks]
    full = [
        event("u", track, 0, "playlist", session_id="full") for track in [*tracks[:-1], tracks[0]]
    ]
    short = [
        event("u", tracks[0], 0, "playlist", session_id=name) for name in ("short", "also short")
    ]
    found, funnel = mine_pairs(_log(*long, *full, *short), config)
    assert len(found) == 200 * 199 // 2
    assert dict(funnel.steps)["playlists left out, over 200 tracks"] == 1


def test_a_pair_needs_enough_different_listeners() -> None:
    """a-b has three listeners; c-d has one of them three times."""
    three = [event(user, track, i) for user in "uvw" for i, track in enumerate("ab")]
    one = [event("u", track, 100 + i) for i, track in enumerate("cdcd")]
    assert _mined(PairsConfig(sources=ACTED), *three, *one) == [("a", "b", 3, 3.0, "session")]
    assert _mined(PairsConfig(sources=ACTED, min_users=4), *three, *one) == []


def test_one_pair_from_two_sources_has_a_row_for_each() -> None:
    a, b = event("u", "a", 0), event("u", "b", 1, context_track_id="a")
    assert _mined(ALONE, a, b) == [("a", "b", 1, 1.0, "feedback"), ("a", "b", 1, 1.0, "session")]
    only = PairsConfig(min_users=1, sources=("feedback",))
    assert _mined(only, a, b) == [("a", "b", 1, 1.0, "feedback")]


def test_a_listener_gives_only_the_latest_pairs_ties_by_ids() -> None:
    """Pairs of u by last moment: (d, e) 200, then (a, b) and (b, c) both 100: (a, b) by its ids."""
    config = ALONE.model_copy(update={"max_pairs_per_user": 2})
    rows = [("a", "b", 100), ("b", "c", 100), ("d", "e", 200)]
    events = [
        event("u", track, at, context_track_id=trigger, session_id=track)
        for trigger, track, at in rows
    ]
    assert [row[:2] for row in _mined(config, *events)] == [("a", "b"), ("d", "e")]


def test_a_track_keeps_its_strongest_pairs_on_either_side() -> None:
    """One pair a track: a-b (3 listeners) beats b-c (2), whose c then has no other; d-e is
    untouched by either.
    """
    config = ALONE.model_copy(update={"max_pairs_per_track": 1})
    rows = [("a", "b", 0, "uvw"), ("b", "c", 100, "uv"), ("d", "e", 200, "w")]
    events = [
        event(user, track, at, context_track_id=by)
        for by, track, at, users in rows
        for user in users
    ]
    assert _mined(config, *events) == [
        ("a", "b", 3, 3.0, "feedback"),
        ("d", "e", 1, 1.0, "feedback"),
    ]


def test_a_partner_that_pairs_with_everybody_counts_for_less() -> None:
    """Of a's two pairs, hit's has 4 of its 12 listeners and rare's 2 of its 2; 16 / 12 against 4 /
    2, so rare wins.
    """
    config = ALONE.model_copy(update={"max_pairs_per_track": 1})
    rows = [("hit", "a", "uvwx"), ("hit", "b", "uvwx"), ("hit", "c", "uvwx"), ("rare", "a", "uv")]
    events = [
        event(user, to, 9 * n, context_track_id=by)
        for n, (by, to, us) in enumerate(rows)
        for user in us
    ]
    found = [row[:2] for row in _mined(config, *events)]
    assert ("rare", "a") in found
    assert ("hit", "a") not in found


def test_the_funnel_says_what_was_left_and_dropped() -> None:
    """u: a-b and b-c; v: a-b; a-c by co-occurrence alone. Of 6 events the short play is dropped.

    With two listeners asked for only a-b stays; that both of two listeners like both is no more
    than chance has it.
    """
    likes = [
        event(user, track, i)
        for user, tracks in (("u", "abc"), ("v", "ab"))
        for i, track in enumerate(tracks)
    ]
    _, funnel = mine_pairs(
        _log(*likes, event("w", "a", 0, "play", played_s=3.0)), PairsConfig(min_users=2)
    )
    assert [n for _, n in funnel.steps] == [6, 5, 0, 3, 0, 4, 0, 7, 7, 5, 2, 1, 1]
    lines = funnel.lines()
    assert lines[11].endswith(
        "1  above chance  (1 dropped: liked together no more often than by chance)"
    )
    assert lines[1].endswith(
        "5  positive events  (1 dropped: skips, dislikes and plays under 30 s)"
    )
    assert lines[10].endswith("2  with enough users  (3 dropped: fewer than 2 users)")
    assert "min_users at 2 a pair may rest on, and reveal, one person" in lines[-1]
    assert not any("one person" in line for line in mine_pairs(_log(), PairsConfig())[1].lines())


def test_each_step_of_the_funnel_is_told_what_it_dropped_itself() -> None:
    config = PairsConfig(max_pairs_per_track=20)
    steps = (
        ("with enough users", 500),
        ("above chance", 400),
        ("within the cap per track", 149),
    )
    lines = MiningFunnel(steps, config).lines()
    assert [line.partition("(")[2] for line in lines[1:3]] == [
        "100 dropped: liked together no more often than by chance)",
        "251 dropped: over 20 per track)",
    ]


@pytest.mark.parametrize(
    "events", [[], [event("u", "a", 0)], [event("u", "a", 0, "skip"), event("u", "b", 0)]]
)
def test_a_log_without_pairs_gives_an_empty_table_of_the_right_types(events: list[Event]) -> None:
    found, funnel = mine_pairs(_log(*events), PairsConfig())
    assert dict(found.schema) == PAIRS_SCHEMA
    assert (len(found), funnel.steps[0], funnel.steps[-1]) == (
        0,
        ("events", len(events)),
        ("within the cap per track", 0),
    )


def test_bad_logs_are_refused_by_name() -> None:
    log = _log(event("u", "a", 0))
    with pytest.raises(DataError, match="1 rows lack 'event'"):
        mine_pairs(log.with_columns(event=pl.lit(None, pl.String)), ALONE)
    for weight in (float("nan"), float("inf"), -2e6):
        with pytest.raises(DataError, match="'weight' must lie within ±1,000,000"):
            mine_pairs(log.with_columns(weight=pl.lit(weight)), ALONE)
    with pytest.raises(ConfigError, match="sources is empty"):
        mine_pairs(log, PairsConfig(sources=()))


def test_liked_by_the_same_listeners_counts_where_chance_does_not_explain_it() -> None:
    """Six listeners, days apart: a and b are liked by the same three, lift 3 * 6 / (3 * 3) = 2; hit
    by all, lift 1.
    """
    likes = [("uvw", "a"), ("uvw", "b"), ("xyz", "c"), ("uvwxyz", "hit")]
    events = [
        event(user, track, 2000 * day, weight=0.5)
        for day, (us, track) in enumerate(likes)
        for user in us
    ]
    assert _mined(PairsConfig(), *events) == [("a", "b", 3, 1.5, "cooccurrence")]
    assert _mined(PairsConfig(min_lift=1.99), *events) == [("a", "b", 3, 1.5, "cooccurrence")]
    assert _mined(PairsConfig(min_lift=2), *events) == []
    assert ("a", "hit", 3, 1.5, "cooccurrence") in _mined(PairsConfig(min_lift=0.99), *events)
    assert _mined(PairsConfig(sources=ACTED), *events) == []


def test_a_listener_who_likes_everything_gives_only_the_latest_tracks() -> None:
    """Of 42 liked tracks the last 40 pair up: 40 * 39 / 2; another listener, so that chance does
    not explain it.
    """
    config = PairsConfig(min_users=1, max_pairs_per_track=10**6, sources=("cooccurrence",))
    events = [event("u", f"t{number:02}", number) for number in range(42)]
    found = _mined(config, *events, event("v", "other", 0))
    assert len(found) == 40 * 39 // 2
    assert min(row[0] for row in found) == "t02"
    fewer = config.model_copy(update={"max_pairs_per_user": 600})
    assert len(_mined(fewer, *events, event("v", "other", 0))) == 600


configs = st.builds(
    PairsConfig,
    min_users=st.integers(1, 3),
    max_playlist_tracks=st.just(4),
    max_pairs_per_user=st.sampled_from([1, 3, 1000]),
    max_pairs_per_track=st.sampled_from([1, 2, 50]),
    min_lift=st.sampled_from([0.0, 0.75, 1.0, 1.0, 1.25]),
    sources=st.sampled_from([ACTED, ("cooccurrence",), (*ACTED, "cooccurrence")]),
)


@settings(max_examples=40)
@given(any_events, configs)
def test_any_log_gives_what_plain_loops_give(events: list[Event], config: PairsConfig) -> None:
    found = mine_pairs(_log(*events), config)[0].rows()
    assert found == plain_pairs(events, config)


def test_a_longer_log_gives_the_same_pairs_in_any_order() -> None:
    """Weights have many digits, so that a sum of floats would depend on the order; every cap is at
    work.
    """
    random = Random(0)
    config = PairsConfig(min_users=2, max_pairs_per_user=40, max_pairs_per_track=5)
    events = []
    for _ in range(5000):
        user, track, context = (f"{random.randrange(n):02}" for n in (40, 30, 30))
        kind, session = random.choice(EVENTS), random.choice([None, None, "1", "2"])
        ids = {"context_track_id": context, "session_id": session}
        events.append(
            event(user, track, random.randrange(10_000), kind, weight=random.random() / 3, **ids)
        )
    log = _log(*events)
    found, funnel = mine_pairs(log, config)
    assert len(found) > 100
    for seed in range(3):
        again, same = mine_pairs(log.sample(fraction=1.0, shuffle=True, seed=seed), config)
        assert again.equals(found)
        assert same == funnel


def test_pairs_survive_writing_and_equal_pairs_give_equal_bytes(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "library")
    with pytest.raises(LibraryError, match="has no pairs yet; run: ponticello mine-pairs -L"):
        read_pairs(folder)
    found, _ = mine_pairs(_log(event("u", "a", 0), event("u", "b", 1), event("u", "c", 2)), ALONE)
    write_pairs(folder, found)
    first = folder.pairs.read_bytes()
    assert read_pairs(folder).equals(found)
    write_pairs(folder, pl.concat([found[:1], found[1:]], rechunk=False))
    assert folder.pairs.read_bytes() == first
    folder.pairs.write_bytes(first[:50])
    with pytest.raises(DataError, match=r"pairs\.parquet cannot be read .*; mine the pairs again"):
        read_pairs(folder)
