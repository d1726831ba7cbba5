"""Every listener's pairs, before anything is decided about them: collected and counted a part at a time, on disk."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from ponticello.config import PairsConfig
from ponticello.data.caps import IS_WITHIN, PAIR, count_listeners, within_listener_cap
from ponticello.data.columns import (
    ANCHOR_ID,
    N_USERS,
    POSITIVE_ID,
    SOURCE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)
from ponticello.data.engine import Engine
from ponticello.data.evidence import (
    SOURCES,
    cooccurrence_events,
    feedback_events,
    liked_tracks,
    playlist_events,
    playlist_members,
    positive_events,
    session_events,
    too_long_playlists,
)
from ponticello.data.log import AT, Log

if TYPE_CHECKING:
    import ibis.expr.types as ir

_MIXER = 31  # spreads the pairs of one anchor over the parts
_PAIR_PARTS_A_PART = 4  # a part of the log makes several times as many candidates as it has events


@dataclass(frozen=True)
class Tally:
    """What was counted while the candidates were.

    by_source: candidates. n_within: those within the cap a listener. n_too_long: playlists left out. n_pairs: distinct
    pairs of those within. liked: (track_id, n), the listeners who like each track; n_listeners: who like anything.
    """

    n_events: int
    n_positive: int
    by_source: Counter[str]
    n_within: int
    n_too_long: int
    n_pairs: int
    liked: "ir.Table"
    n_listeners: int


def confirmed_pairs(log: Log, config: PairsConfig) -> tuple["ir.Table", Tally]:
    """The pairs that at least `min_listeners` stand behind, n_users and weight of each, and what was counted."""
    engine, stack = log.engine, _Candidates(log, config)
    events: Counter[str] = Counter()
    for number, part in enumerate(log.parts()):
        found, members = _listeners_pairs(engine, part, config, str(number))
        stack.add(found)
        events["all"] += engine.n_rows(part)
        events["positive"] += engine.n_rows(positive_events(part, config.min_played_s))
        events["too long"] += engine.n_rows(too_long_playlists(members)) if "playlist" in config.sources else 0
    confirmed = stack.confirmed()
    liked = engine.read(*[engine.work / f"liked-{number}.parquet" for number in range(stack.n_added)])
    tally = Tally(
        n_events=events["all"],
        n_positive=events["positive"],
        by_source=Counter({source: stack.counts[source] for source in SOURCES}),
        n_within=stack.counts["within"],
        n_too_long=events["too long"],
        n_pairs=stack.counts["pairs"],
        liked=engine.keep(liked.group_by(TRACK_ID).agg(n=liked.count()), "liked"),
        n_listeners=int(engine.row(liked.aggregate(n=liked[USER_ID].nunique()))["n"]),
    )
    return confirmed, tally


class _Candidates:
    """Candidates of one part of the log after the other, on disk, to be counted a part of the pairs at a time.

    Exact in any number of parts: a listener lies in one part of the log, and a pair in one part of the candidates.
    counts: by source, "within" the cap a listener, and distinct "pairs" of those; full once `confirmed` was asked for.
    """

    def __init__(self, log: Log, config: PairsConfig) -> None:
        self.engine = log.engine
        self.config = config
        self.n_parts = log.n_parts * _PAIR_PARTS_A_PART if log.n_parts > 1 else 1
        self.n_added = 0
        self.counts: Counter[str] = Counter()

    def add(self, found: Mapping[str, "ir.Table"]) -> None:
        """Keeps what `_listeners_pairs` found in one part, with who is within the cap a listener."""
        limit = self.config.max_pairs_per_user
        capped = [within_listener_cap(table, source, limit) for source, table in found.items()]
        candidates = _stacked(capped).select(*PAIR, WEIGHT, IS_WITHIN)
        place = (candidates[ANCHOR_ID].cast("int64") * _MIXER + candidates[POSITIVE_ID]) % self.n_parts
        self.engine.keep_parts(candidates, f"pairs-{self.n_added}", place, self.n_parts)
        self.n_added += 1

    def confirmed(self) -> "ir.Table":
        """The pairs of all that was added which have enough listeners."""
        names = [f"pairs-{number}" for number in range(self.n_added)]
        parts = (self.engine.part(names, number, self.n_parts) for number in range(self.n_parts))
        return _stacked([self._confirmed(part, number) for number, part in enumerate(parts) if part is not None])

    def _confirmed(self, candidates: "ir.Table", number: int) -> "ir.Table":
        engine = self.engine
        by_source = candidates.group_by(SOURCE).agg(n=candidates.count(), within=candidates[IS_WITHIN].sum())
        for source, n, n_within in engine.frame(by_source).select(SOURCE, "n", "within").iter_rows():
            self.counts[SOURCES[source]] += n
            self.counts["within"] += n_within
        within = candidates.filter(candidates[IS_WITHIN])
        counted = engine.keep(count_listeners(within), f"pairs-all-{number}")
        self.counts["pairs"] += engine.n_rows(counted)
        is_enough = counted[N_USERS] >= self.config.min_listeners
        confirmed = engine.keep(counted.filter(is_enough), f"pairs-confirmed-{number}")
        engine.drop(f"pairs-all-{number}")
        return confirmed


def _listeners_pairs(
    engine: Engine, events: "ir.Table", config: PairsConfig, name: str
) -> tuple[dict[str, "ir.Table"], "ir.Table"]:
    """({source: one row a listener and pair}, playlist members) of events that hold all of their listeners'.

    The tracks they like are kept as `liked-NAME`. Rows: user_id, pair, source, `at` (the latest moment) and weight.
    """
    liked = engine.keep(liked_tracks(positive_events(events, config.min_played_s)), f"liked-{name}")
    members = playlist_members(events)
    if "playlist" in config.sources:
        members = engine.keep(members, f"members-{name}")
    rules = {
        "feedback": lambda: _one_row_a_listener(feedback_events(positive_events(events, config.min_played_s))),
        "session": lambda: _one_row_a_listener(session_events(events, config.min_played_s, config.session_gap_min)),
        "playlist": lambda: _one_row_a_listener(playlist_events(members)),
        "cooccurrence": lambda: cooccurrence_events(liked).select(USER_ID, *PAIR, AT, WEIGHT),  # one row each already
    }
    return {source: rules[source]() for source in rules if source in config.sources}, members


def _one_row_a_listener(pair_events: "ir.Table") -> "ir.Table":
    """Each listener's distinct pairs, with the weight they gave it in all and the moment they last did."""
    found = pair_events.group_by([USER_ID, *PAIR]).agg(
        **{AT: pair_events[AT].max(), WEIGHT: pair_events[WEIGHT].sum().cast("int64")}
    )
    return found.select(USER_ID, *PAIR, AT, WEIGHT)


def _stacked(tables: Sequence["ir.Table"]) -> "ir.Table":
    return reduce(lambda one, other: one.union(other), tables)
