"""Each mining rule on a log small enough to read, and all of them against a plain Python version on random logs."""

import itertools
from collections import Counter, defaultdict
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from random import Random
from typing import Any, Literal

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ponticello.config import PairsConfig
from ponticello.data import evidence as evidence_module
from ponticello.data import pairs as pairs_module
from ponticello.data.columns import EVENTS, POSITIVE_EVENTS
from ponticello.data.evidence import LIKED_LIMIT, PLAYLIST_LIMIT
from ponticello.data.log import EVENTS_SCHEMA
from ponticello.data.pairs import PAIRS_SCHEMA, mine_pairs, read_pairs, write_pairs
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.library import create_library

START = datetime(2025, 3, 30, tzinfo=UTC)
ACTED: tuple[Literal["feedback", "session", "playlist"], ...] = ("feedback", "session", "playlist")
ALONE = PairsConfig(min_listeners=1, sources=ACTED)  # one listener is enough: a rule shows on one person's log
Event = dict[str, Any]
Row = tuple[str, str, int, float, str]
Found = list[tuple[str, str, str, Event]]  # anchor, positive, source, the event that says so


def _event(user: str, track: str, minute: float, event: str = "like", **fields: Any) -> Event:
    at = START + timedelta(minutes=minute)
    empty = dict.fromkeys(("played_s", "weight", "context_track_id", "session_id"))
    return {**empty, "user_id": user, "track_id": track, "played_at": at, "event": event, **fields}


def _log(*events: Event) -> pl.DataFrame:
    return pl.DataFrame(events, schema=EVENTS_SCHEMA)


def _mined(config: PairsConfig, *events: Event) -> list[Row]:
    return mine_pairs(_log(*events), config)[0].rows()


def test_feedback_points_from_the_trigger_to_the_liked_track() -> None:
    """Only the three-hour gaps keep sessions out; the skip, the track itself and the missing trigger give nothing."""
    rows = [("b", "z", 2.0), ("b", "z", None), ("z", "b", 0.25), ("d", "d", None), ("e", None, None)]
    events = [_event("u", t, 180 * i, weight=w, context_track_id=by) for i, (t, by, w) in enumerate(rows)]
    skip = _event("u", "c", 900, "skip", context_track_id="z")
    assert _mined(ALONE, *events, skip) == [("b", "z", 1, 0.25, "feedback"), ("z", "b", 1, 3.0, "feedback")]


def test_a_play_is_positive_when_it_lasted_or_its_length_is_unknown() -> None:
    """29.9 s is too short, 30 s and unknown are not; a complete event needs no length."""
    rows = [("a", "play", 30.0), ("b", "play", 29.9), ("c", "play", None), ("e", "complete", 1.0)]
    events = [_event("u", track, i, kind, played_s=played_s) for i, (track, kind, played_s) in enumerate(rows)]
    assert _mined(ALONE, *events) == [("a", "c", 1, 1.0, "session"), ("c", "e", 1, 1.0, "session")]


def test_a_session_pair_is_undirected_and_weighs_as_the_later_event() -> None:
    """c then a (3), a then c (0.5) are one pair; a repeated track pairs with its neighbours once."""
    sitting = [("c", 7.0), ("a", 3.0), ("a", 9.0), ("c", 0.5)]
    events = [_event("u", track, minute, weight=weight) for minute, (track, weight) in enumerate(sitting)]
    assert _mined(ALONE, *events) == [("a", "c", 1, 3.5, "session")]


def test_a_gap_of_exactly_thirty_minutes_stays_in_the_session() -> None:
    assert _mined(ALONE, _event("u", "a", 0), _event("u", "b", 30)) == [("a", "b", 1, 1.0, "session")]
    assert _mined(ALONE, _event("u", "a", 0), _event("u", "b", 30 + 1e-6)) == []


def test_an_event_of_any_kind_bridges_a_gap_but_a_playlist_does_not() -> None:
    a, b = _event("u", "a", 0), _event("u", "b", 40)
    assert _mined(ALONE, a, _event("u", "x", 20, "skip"), b) == [("a", "b", 1, 1.0, "session")]
    assert _mined(ALONE, a, _event("u", "x", 20, "playlist"), b) == []


def test_a_given_session_id_decides_whatever_the_gap() -> None:
    """s1 spans two hours; s2 begins within it and is another sitting; another user's s1 is another one too."""
    rows = [("u", "a", 0, "s1"), ("u", "b", 1, "s2"), ("v", "d", 2, "s1"), ("u", "c", 120, "s1")]
    events = [_event(user, track, minute, session_id=session) for user, track, minute, session in rows]
    assert _mined(ALONE, *events) == [("a", "c", 1, 1.0, "session")]


def test_tracks_of_one_playlist_belong_together() -> None:
    """b is added twice: its last addition (weight 5) is the later one of each of its pairs."""
    added = [("b", 0, 2.0), ("a", 1, 3.0), ("c", 2, 4.0), ("b", 9, 5.0)]
    events = [_event("u", track, at, "playlist", session_id="p", weight=weight) for track, at, weight in added]
    elsewhere = [("u", "d", "q"), ("u", "e", None), ("v", "e", "p")]
    events += [_event(user, track, 9, "playlist", session_id=name) for user, track, name in elsewhere]
    assert [row[:4] for row in _mined(ALONE, *events)] == [("a", "b", 1, 5.0), ("a", "c", 1, 4.0), ("b", "c", 1, 5.0)]


def test_a_playlist_over_the_limit_is_left_out_and_counted() -> None:
    """201 distinct tracks are too many; 200, one of them twice, give 200 * 199 / 2 pairs."""
    config = ALONE.model_copy(update={"max_pairs_per_user": 10**6, "max_pairs_per_track": 10**6})
    tracks = [f"t{i:03}" for i in range(PLAYLIST_LIMIT + 1)]
    long = [_event("u", track, 0, "playlist", session_id="long") for track in tracks]
    full = [_event("u", track, 0, "playlist", session_id="full") for track in [*tracks[:-1], tracks[0]]]
    found, funnel = mine_pairs(_log(*long, *full), config)
    assert len(found) == PLAYLIST_LIMIT * (PLAYLIST_LIMIT - 1) // 2
    assert dict(funnel.steps)["playlists left out, over 200 tracks"] == 1


def test_a_pair_needs_enough_different_listeners() -> None:
    """a-b has three listeners; c-d has one of them three times."""
    three = [_event(user, track, i) for user in "uvw" for i, track in enumerate("ab")]
    one = [_event("u", track, 100 + i) for i, track in enumerate("cdcd")]
    assert _mined(PairsConfig(sources=ACTED), *three, *one) == [("a", "b", 3, 3.0, "session")]
    assert _mined(PairsConfig(sources=ACTED, min_listeners=4), *three, *one) == []


def test_one_pair_from_two_sources_has_a_row_for_each() -> None:
    a, b = _event("u", "a", 0), _event("u", "b", 1, context_track_id="a")
    assert _mined(ALONE, a, b) == [("a", "b", 1, 1.0, "feedback"), ("a", "b", 1, 1.0, "session")]
    only = PairsConfig(min_listeners=1, sources=("feedback",))
    assert _mined(only, a, b) == [("a", "b", 1, 1.0, "feedback")]


def test_a_listener_gives_only_the_latest_pairs_ties_by_ids() -> None:
    """Pairs of u by last moment: (d, e) 200, then (a, b) and (b, c) both 100: (a, b) by its ids."""
    config = ALONE.model_copy(update={"max_pairs_per_user": 2})
    rows = [("a", "b", 100), ("b", "c", 100), ("d", "e", 200)]
    events = [_event("u", track, at, context_track_id=trigger, session_id=track) for trigger, track, at in rows]
    assert [row[:2] for row in _mined(config, *events)] == [("a", "b"), ("d", "e")]


def test_a_track_keeps_its_strongest_pairs_on_either_side() -> None:
    """One pair a track: a-b (3 listeners) beats b-c (2), whose c then has no other; d-e is untouched by either."""
    config = ALONE.model_copy(update={"max_pairs_per_track": 1})
    rows = [("a", "b", 0, "uvw"), ("b", "c", 100, "uv"), ("d", "e", 200, "w")]
    events = [_event(user, track, at, context_track_id=by) for by, track, at, users in rows for user in users]
    assert _mined(config, *events) == [("a", "b", 3, 3.0, "feedback"), ("d", "e", 1, 1.0, "feedback")]


def test_a_partner_that_pairs_with_everybody_counts_for_less() -> None:
    """Of a's two pairs, 3 listeners each: hit has 3 + 3 + 3 in all, rare only 3; 9 / 9 against 9 / 3, so rare wins."""
    config = ALONE.model_copy(update={"max_pairs_per_track": 1})
    rows = [("hit", "a"), ("hit", "b"), ("hit", "c"), ("rare", "a")]
    events = [_event(user, to, 9 * n, context_track_id=by) for n, (by, to) in enumerate(rows) for user in "uvw"]
    assert ("rare", "a") in [row[:2] for row in _mined(config, *events)]
    assert ("hit", "a") not in [row[:2] for row in _mined(config, *events)]


def test_the_funnel_says_what_was_left_and_dropped() -> None:
    """u: a-b and b-c; v: a-b; a-c by co-occurrence alone. Of 6 events the short play is dropped.

    With two listeners asked for only a-b stays; that both of two listeners like both is no more than chance has it.
    """
    likes = [_event(user, track, i) for user, tracks in (("u", "abc"), ("v", "ab")) for i, track in enumerate(tracks)]
    _, funnel = mine_pairs(_log(*likes, _event("w", "a", 0, "play", played_s=3.0)), PairsConfig(min_listeners=2))
    assert [n for _, n in funnel.steps] == [6, 5, 0, 3, 0, 4, 0, 7, 7, 5, 2, 1, 1]
    lines = funnel.lines()
    assert lines[11].endswith("1  likelier than chance  (1 dropped: liked together no more than chance has it)")
    assert lines[1].endswith("5  positive events  (1 dropped: skips, dislikes and plays under 30 s)")
    assert lines[10].endswith("2  with enough listeners  (3 dropped: fewer than 2 listeners)")
    assert "min_listeners at 2 a pair may rest on, and reveal, one person" in lines[-1]
    assert not any("one person" in line for line in mine_pairs(_log(), PairsConfig())[1].lines())


@pytest.mark.parametrize("events", [[], [_event("u", "a", 0)], [_event("u", "a", 0, "skip"), _event("u", "b", 0)]])
def test_a_log_without_pairs_gives_an_empty_table_of_the_right_types(events: list[Event]) -> None:
    found, funnel = mine_pairs(_log(*events), PairsConfig())
    assert dict(found.schema) == PAIRS_SCHEMA
    assert (len(found), funnel.steps[0], funnel.steps[-1]) == (0, ("events", len(events)), ("after the cap a track", 0))


def test_bad_logs_are_refused_by_name() -> None:
    log = _log(_event("u", "a", 0))
    with pytest.raises(DataError, match="column 'session_id' is missing; found user_id"):
        mine_pairs(log.drop("session_id"), ALONE)
    with pytest.raises(DataError, match="1 rows lack 'event'"):
        mine_pairs(log.with_columns(event=pl.lit(None, pl.String)), ALONE)
    for weight in (float("nan"), float("inf"), -2e6):
        with pytest.raises(DataError, match="'weight' must lie within ±1,000,000"):
            mine_pairs(log.with_columns(weight=pl.lit(weight)), ALONE)
    with pytest.raises(ConfigError, match="sources is empty"):
        mine_pairs(log, PairsConfig(sources=()))


def _reference(log: list[Event], config: PairsConfig) -> list[Row]:
    """The rules of `mine_pairs`, one loop each."""
    found: dict[tuple[str, str, str, str], list[tuple[datetime, float]]] = defaultdict(list)
    for user in {event["user_id"] for event in log}:
        events = sorted((event for event in log if event["user_id"] == user), key=lambda e: e["played_at"])
        by_rule = [*_feedback(events), *_sessions(events, config), *_playlists(events), *_cooccurrences(events)]
        for anchor, positive, source, event in by_rule:
            if anchor != positive and source in config.sources:
                found[user, anchor, positive, source].append((event["played_at"], _weight(event)))
    last = {key: max(at for at, _ in events) for key, events in found.items()}
    kept: list[tuple[str, str, str, str]] = []
    for whose in {(key[0], key[3]) for key in found}:
        latest = sorted((key for key in found if (key[0], key[3]) == whose), key=lambda key: (START - last[key], key))
        kept += latest[: config.max_pairs_per_user]
    table: dict[tuple[str, str, str], list[float]] = defaultdict(lambda: [0, 0.0])
    for key in kept:
        table[key[1:]][0] += 1
        table[key[1:]][1] += sum(weight for _, weight in found[key])
    lift = _lift(log)
    pairs = {
        pair: counts
        for pair, counts in table.items()
        if counts[0] >= config.min_listeners and (pair[2] != "cooccurrence" or counts[0] * lift[pair[:2]] > 1)
    }
    lists: dict[tuple[str, str], list[tuple[str, str, str]]] = defaultdict(list)
    for pair in pairs:
        for end in pair[:2]:
            lists[end, pair[2]].append(pair)
    totals = {end: sum(int(pairs[pair][0]) for pair in found) for end, found in lists.items()}
    within: dict[tuple[str, str, str], int] = defaultdict(int)
    for (end, source), partners in lists.items():
        other = {pair: pair[1] if pair[0] == end else pair[0] for pair in partners}
        strength = {pair: int(pairs[pair][0]) ** 2 / totals[other[pair], source] for pair in partners}
        partners.sort(key=lambda pair: (-strength[pair], -pairs[pair][0], -pairs[pair][1], pair))
        for pair in partners[: config.max_pairs_per_track]:
            within[pair] += 1
    rows = [(*pair[:2], int(pairs[pair][0]), pairs[pair][1], pair[2]) for pair in pairs if within[pair] == 2]
    return sorted(rows, key=lambda row: (row[0], row[1], row[4]))


def _weight(event: Event) -> float:
    return 1.0 if event["weight"] is None else float(event["weight"])


def _is_positive(event: Event) -> bool:
    lasted = event["played_s"] is None or event["played_s"] >= 30
    return event["event"] in POSITIVE_EVENTS or (event["event"] == "play" and lasted)


def _feedback(events: list[Event]) -> Found:
    said = [(e["context_track_id"], e["track_id"], "feedback", e) for e in events if _is_positive(e)]
    return [row for row in said if row[0] is not None]


def _sessions(events: list[Event], config: PairsConfig) -> Found:
    sittings: dict[Any, list[Event]] = defaultdict(list)
    cuts, before = 0, None
    for event in [e for e in events if e["event"] != "playlist"]:
        if before is not None and event["played_at"] - before > timedelta(minutes=config.session_gap_min):
            cuts += 1
        before = event["played_at"]
        if _is_positive(event):
            sittings[event["session_id"] or cuts].append(event)
    found: Found = []
    for sitting in sittings.values():
        sitting.sort(key=lambda e: (e["played_at"], e["track_id"], _weight(e)))
        for earlier, later in itertools.pairwise(sitting):
            one, other = sorted([earlier["track_id"], later["track_id"]])
            found.append((one, other, "session", later))
    return found


def _playlists(events: list[Event]) -> Found:
    members: dict[str, dict[str, Event]] = defaultdict(dict)
    for event in sorted(events, key=lambda e: (e["played_at"], _weight(e))):
        if event["event"] == "playlist" and event["session_id"] is not None:
            members[event["session_id"]][event["track_id"]] = event
    found: Found = []
    for tracks in [tracks for tracks in members.values() if len(tracks) <= PLAYLIST_LIMIT]:
        for one, other in itertools.combinations(sorted(tracks), 2):
            later = max(tracks[one], tracks[other], key=lambda e: (e["played_at"], e["track_id"]))
            found.append((one, other, "playlist", later))
    return found


def _cooccurrences(events: list[Event]) -> Found:
    latest: dict[str, Event] = {}
    for event in sorted(filter(_is_positive, events), key=lambda e: (e["played_at"], _weight(e))):
        latest[event["track_id"]] = event
    newest = sorted(latest.values(), key=lambda e: (START - e["played_at"], e["track_id"]))[:LIKED_LIMIT]
    liked = {event["track_id"]: event for event in newest}
    found: Found = []
    for one, other in itertools.combinations(sorted(liked), 2):
        later = max(liked[other], liked[one], key=lambda e: e["played_at"])
        found.append((one, other, "cooccurrence", later))
    return found


def _lift(log: list[Event]) -> dict[tuple[str, str], Fraction]:
    """What a pair's listeners are multiplied by to give its lift: those of all tracks over those of either one."""
    likes = {(e["user_id"], e["track_id"]) for e in log if _is_positive(e)}
    listeners = Counter(track for _, track in likes)
    n_listeners = len({user for user, _ in likes})
    pairs = itertools.combinations(sorted(listeners), 2)
    return {(one, other): Fraction(n_listeners, listeners[one] * listeners[other]) for one, other in pairs}


def test_liked_by_the_same_listeners_counts_where_chance_does_not_explain_it() -> None:
    """Six listeners, days apart: a and b are liked by the same three, lift 3 * 6 / (3 * 3) = 2; hit by all, lift 1."""
    likes = [("uvw", "a"), ("uvw", "b"), ("xyz", "c"), ("uvwxyz", "hit")]
    events = [_event(user, track, 2000 * day, weight=0.5) for day, (us, track) in enumerate(likes) for user in us]
    assert _mined(PairsConfig(), *events) == [("a", "b", 3, 1.5, "cooccurrence")]
    assert _mined(PairsConfig(sources=ACTED), *events) == []


def test_a_listener_who_likes_everything_gives_only_the_latest_tracks() -> None:
    """Of 42 liked tracks the last 40 pair up: 40 * 39 / 2; another listener, so that chance does not explain it."""
    config = PairsConfig(min_listeners=1, max_pairs_per_track=10**6, sources=("cooccurrence",))
    events = [_event("u", f"t{number:02}", number) for number in range(LIKED_LIMIT + 2)]
    found = _mined(config, *events, _event("v", "other", 0))
    assert len(found) == LIKED_LIMIT * (LIKED_LIMIT - 1) // 2
    assert min(row[0] for row in found) == "t02"


events_of_any_kind = st.builds(
    _event,
    st.sampled_from("uvw"),
    st.sampled_from("abcdeé"),
    st.sampled_from([0, 1, 2, 30, 31, 60, 61.5, 100]),
    st.sampled_from([*EVENTS, "play", "like", "playlist"]),
    played_s=st.sampled_from([None, 0.0, 29.5, 30.0, 100.0]),
    weight=st.sampled_from([None, 0.25, 1.0, 2.5]),
    context_track_id=st.sampled_from([None, None, "a", "b", "c"]),
    session_id=st.sampled_from([None, None, "s", "p"]),
)
configs = st.builds(
    PairsConfig,
    min_listeners=st.integers(1, 3),
    max_pairs_per_user=st.sampled_from([1, 3, 1000]),
    max_pairs_per_track=st.sampled_from([1, 2, 50]),
    sources=st.sampled_from([ACTED, ("cooccurrence",), (*ACTED, "cooccurrence")]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(events_of_any_kind, max_size=80), configs)
def test_any_log_gives_what_plain_loops_give(
    monkeypatch: pytest.MonkeyPatch, events: list[Event], config: PairsConfig
) -> None:
    for module in (evidence_module, pairs_module):
        monkeypatch.setattr(module, "PLAYLIST_LIMIT", 4)
    assert _mined(config, *events) == _reference(events, config)


def test_a_longer_log_gives_the_same_pairs_in_any_order() -> None:
    """Weights have many digits, so that a sum of floats would depend on the order; every cap is at work."""
    random = Random(0)
    config = PairsConfig(min_listeners=2, max_pairs_per_user=40, max_pairs_per_track=5)
    events = []
    for _ in range(5000):
        user, track, context = (f"{random.randrange(n):02}" for n in (40, 30, 30))
        kind, session = random.choice(EVENTS), random.choice([None, None, "1", "2"])
        ids = {"context_track_id": context, "session_id": session}
        events.append(_event(user, track, random.randrange(10_000), kind, weight=random.random() / 3, **ids))
    log = _log(*events)
    found, funnel = mine_pairs(log, config)
    assert len(found) > 100
    for seed in range(3):
        again, same = mine_pairs(log.sample(fraction=1.0, shuffle=True, seed=seed), config)
        assert again.equals(found)
        assert same == funnel


def test_pairs_survive_writing_and_equal_pairs_give_equal_bytes(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "library")
    with pytest.raises(LibraryError, match="has no pairs yet; mine them with: ponticello pairs -L"):
        read_pairs(folder)
    found, _ = mine_pairs(_log(_event("u", "a", 0), _event("u", "b", 1), _event("u", "c", 2)), ALONE)
    write_pairs(folder, found)
    first = folder.pairs.read_bytes()
    assert read_pairs(folder).equals(found)
    write_pairs(folder, pl.concat([found[:1], found[1:]], rechunk=False))
    assert folder.pairs.read_bytes() == first
    folder.pairs.write_bytes(first[:50])
    with pytest.raises(DataError, match=r"pairs\.parquet cannot be read .*; mine the pairs again"):
        read_pairs(folder)
