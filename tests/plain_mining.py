"""The mining rules as plain loops over a log of dictionaries, the reference for every engine."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from hypothesis import strategies as st

from ponticello.config import PairsConfig
from ponticello.storage.schema import EVENTS, POSITIVE_EVENTS

START = datetime(2025, 3, 30, tzinfo=UTC)
Event = dict[str, Any]
Row = tuple[str, str, int, float, str]
Pair = tuple[str, str, str]  # anchor, positive, source
Evidence = list[tuple[str, str, str, Event]]  # a pair and its event
Counts = dict[Pair, tuple[int, float]]  # listeners, weight


def event(user: str, track: str, minute: float, event: str = "like", **fields: Any) -> Event:
    """Returns a row of a log; columns outside `fields` are null."""
    at = START + timedelta(minutes=minute)
    empty = dict.fromkeys(("played_s", "weight", "context_track_id", "session_id"))
    return {**empty, "user_id": user, "track_id": track, "played_at": at, "event": event, **fields}


any_events = st.lists(
    st.builds(
        event,
        st.sampled_from("uvw"),
        st.sampled_from("abcdeé"),
        st.sampled_from([0, 1, 2, 30, 31, 60, 61.5, 100]),
        st.sampled_from([*EVENTS, "play", "like", "playlist"]),
        played_s=st.sampled_from([None, 0.0, 29.5, 30.0, 100.0]),
        weight=st.sampled_from([None, 0.25, 1.0, 2.5]),
        context_track_id=st.sampled_from([None, None, "a", "b", "c"]),
        session_id=st.sampled_from([None, None, "s", "p"]),
    ),
    max_size=80,
)


def plain_pairs(log: list[Event], config: PairsConfig) -> list[Row]:
    """Returns the pairs of `mine_pairs`, with `min_played_s` at its default."""

    def find(events: list[Event]) -> Evidence:
        playlists = _playlists(events, config.max_playlist_tracks)
        return [
            *_feedback(events),
            *_sessions(events, config),
            *playlists,
            *_cooccurrences(events, config),
        ]

    pairs = _confirmed(log, find, config)
    likes = {(e["user_id"], e["track_id"]) for e in log if is_positive(e)}
    liked, n_listeners = Counter(track for _, track in likes), len({user for user, _ in likes})

    def is_likely(pair: Pair, n_users: int) -> bool:
        left, right, source = pair
        return (
            source != "cooccurrence"
            or Fraction(n_users * n_listeners, liked[left] * liked[right]) > config.min_lift
        )

    pairs = {pair: counts for pair, counts in pairs.items() if is_likely(pair, counts[0])}
    pairs = _within(pairs, config.max_pairs_per_track)
    rows = [
        (left, right, n_users, weight, source)
        for (left, right, source), (n_users, weight) in pairs.items()
    ]
    return sorted(rows, key=lambda row: (row[0], row[1], row[4]))


def is_positive(event: Event) -> bool:
    """Returns whether an event is positive; a play is from 30 s on."""
    lasted = event["played_s"] is None or event["played_s"] >= 30
    return event["event"] in POSITIVE_EVENTS or (event["event"] == "play" and lasted)


def _confirmed(
    log: list[Event], rule: Callable[[list[Event]], Evidence], config: PairsConfig
) -> Counts:
    """Counts the latest pairs of each user and source; drops pairs of too few users."""
    evidence: dict[tuple[str, Pair], list[Event]] = defaultdict(list)
    for user in {event["user_id"] for event in log}:
        events = sorted(
            (event for event in log if event["user_id"] == user), key=lambda e: e["played_at"]
        )
        for left, right, source, event in rule(events):
            if left != right and source in config.sources:
                evidence[user, (left, right, source)].append(event)
    last = {key: max(event["played_at"] for event in events) for key, events in evidence.items()}
    table: dict[Pair, list[float]] = defaultdict(lambda: [0, 0.0])
    for group in {(user, pair[2]) for user, pair in evidence}:
        ranked_keys = sorted(
            (key for key in evidence if (key[0], key[1][2]) == group),
            key=lambda key: (START - last[key], key),
        )
        for key in ranked_keys[: config.max_pairs_per_user]:
            table[key[1]][0] += 1
            table[key[1]][1] += sum(_weight(event) for event in evidence[key])
    return {pair: (int(n), weight) for pair, (n, weight) in table.items() if n >= config.min_users}


def _within(pairs: Counts, limit: int) -> Counts:
    """Returns the pairs among the strongest `limit` of both their tracks, counted by source."""
    totals: Counter[tuple[str, str]] = Counter()
    for (left, right, source), (n_users, _) in pairs.items():
        totals.update({(left, source): n_users, (right, source): n_users})
    lists: dict[tuple[str, str], list[tuple[Any, Pair]]] = defaultdict(list)
    for pair, (n_users, weight) in pairs.items():
        for end, partner in (pair[:2], pair[1::-1]):
            strength = n_users**2 / totals[partner, pair[2]]
            lists[end, pair[2]].append(((-strength, -n_users, -weight, pair), pair))
    ranks = Counter(pair for ranked in lists.values() for _, pair in sorted(ranked)[:limit])
    return {pair: counts for pair, counts in pairs.items() if ranks[pair] == 2}


def _weight(event: Event) -> float:
    return 1.0 if event["weight"] is None else float(event["weight"])


def _feedback(events: list[Event]) -> Evidence:
    evidence = [
        (e["context_track_id"], e["track_id"], "feedback", e) for e in events if is_positive(e)
    ]
    return [row for row in evidence if row[0] is not None]


def _sittings(events: list[Event], config: PairsConfig) -> list[list[Event]]:
    """Returns all but playlist events, by session, in order of time."""
    sittings: dict[Any, list[Event]] = defaultdict(list)
    cuts, before = 0, None
    for event in [e for e in events if e["event"] != "playlist"]:
        if before is not None and event["played_at"] - before > timedelta(
            minutes=config.session_gap_min
        ):
            cuts += 1
        before = event["played_at"]
        sittings[event["session_id"] or cuts].append(event)

    def order(event: Event) -> tuple[Any, ...]:
        lasted = float("inf") if event["played_s"] is None else event["played_s"]
        return event["played_at"], event["track_id"], _weight(event), event["event"], lasted

    return [sorted(sitting, key=order) for sitting in sittings.values()]


def _sessions(events: list[Event], config: PairsConfig) -> Evidence:
    rows: Evidence = []
    for sitting in _sittings(events, config):
        for earlier, later in itertools.pairwise(filter(is_positive, sitting)):
            left, right = sorted([earlier["track_id"], later["track_id"]])
            rows.append((left, right, "session", later))
    return rows


def _playlists(events: list[Event], limit: int) -> Evidence:
    members: dict[str, dict[str, Event]] = defaultdict(dict)
    for event in sorted(events, key=lambda e: (e["played_at"], _weight(e))):
        if event["event"] == "playlist" and event["session_id"] is not None:
            members[event["session_id"]][event["track_id"]] = event
    rows: Evidence = []
    for tracks in [tracks for tracks in members.values() if len(tracks) <= limit]:
        for left, right in itertools.combinations(sorted(tracks), 2):
            later = max(tracks[left], tracks[right], key=lambda e: (e["played_at"], e["track_id"]))
            rows.append((left, right, "playlist", later))
    return rows


def _cooccurrences(events: list[Event], config: PairsConfig) -> Evidence:
    latest: dict[str, Event] = {}
    for event in sorted(filter(is_positive, events), key=lambda e: (e["played_at"], _weight(e))):
        latest[event["track_id"]] = event
    newest = sorted(latest.values(), key=lambda e: (START - e["played_at"], e["track_id"]))[
        : config.max_liked_tracks
    ]
    liked = {event["track_id"]: event for event in newest}
    rows: Evidence = []
    for left, right in itertools.combinations(sorted(liked), 2):
        later = max(liked[right], liked[left], key=lambda e: e["played_at"])
        rows.append((left, right, "cooccurrence", later))
    return rows
