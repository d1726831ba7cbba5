"""Every listener's pairs, before anything is decided about them: collected and counted a part at a
time, on disk.

What a pair must have to stay: enough listeners, more than chance has it, and a place within every
cap.

The tables here hold numbers for ids, as `pairs/events.py` gives them.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import TYPE_CHECKING

from ponticello.config import PairsConfig
from ponticello.pairs.engine import Engine
from ponticello.pairs.events import AT, Log
from ponticello.pairs.rules import (
    LIKED_LIMIT,
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
from ponticello.storage.schema import (
    ANCHOR_ID,
    N_USERS,
    POSITIVE_ID,
    SOURCE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir


PAIR = [ANCHOR_ID, POSITIVE_ID, SOURCE]
IS_WITHIN = "is_within"  # the cap a listener
_LIKED_PAIRS = (
    LIKED_LIMIT * (LIKED_LIMIT - 1) // 2
)  # the most that one listener's liked tracks make
_END = "end"
_PARTNER = "partner"


def within_listener_cap(candidates: "ir.Table", source: str, limit: int) -> "ir.Table":
    """Returns `candidates` of one source with `is_within`.

    `is_within` is true for the latest `limit` pairs of each listener; ids break ties.
    """
    import ibis

    if source == "cooccurrence" and limit >= _LIKED_PAIRS:  # no listener has more: skip the sort
        return candidates.mutate(**{IS_WITHIN: ibis.literal(True)})
    latest = ibis.window(group_by=[USER_ID, SOURCE], order_by=[candidates[AT].desc(), *PAIR])
    return candidates.mutate(**{IS_WITHIN: ibis.row_number().over(latest) < limit})


def count_listeners(candidates: "ir.Table") -> "ir.Table":
    """Each pair with the listeners behind it, each of whom has one row a pair, and their weight in
    all.
    """
    return candidates.group_by(PAIR).agg(
        **{N_USERS: candidates.count(), WEIGHT: candidates[WEIGHT].sum().cast("int64")}
    )


def filter_by_lift(
    pairs: "ir.Table", liked: "ir.Table", n_listeners: int, min_lift: float
) -> "ir.Table":
    """Leaves out co-liked pairs with a lift of `min_lift` or less; at 1, no more than two
    independent tracks share.

    liked: (track_id, n), the listeners who like each track. Lift: n_users * n_listeners / (n of one
    * n of the other).
    """
    both = pairs
    for end in (ANCHOR_ID, POSITIVE_ID):
        counts = liked.select(**{end: liked[TRACK_ID], f"n_{end}": liked["n"]})
        both = both.left_join(counts, end)
        both = both.mutate(**{f"n_{end}": both[f"n_{end}"].fill_null(0)}).drop(f"{end}_right")
    expected = both[f"n_{ANCHOR_ID}"] * both[f"n_{POSITIVE_ID}"]
    wanted = expected if min_lift == 1 else expected * min_lift
    is_likely = (both[SOURCE] != SOURCES.index("cooccurrence")) | (
        both[N_USERS] * n_listeners > wanted
    )
    return both.filter(is_likely).select(pairs.columns)


def cap_tracks(pairs: "ir.Table", limit: int) -> "ir.Table":
    """Returns the pairs that rank within `limit` for both their tracks.

    A pair is ranked among all pairs of the track and source, on either side: by strength, then by
    n_users, weight and ids. A track therefore keeps at most `limit` pairs per source. Strength is
    n_users squared over n_users of all the partner's pairs: a hit shares listeners with every
    track, which shows little.
    """
    import ibis

    left = pairs.mutate(**{_END: pairs[ANCHOR_ID], _PARTNER: pairs[POSITIVE_ID]})
    right = pairs.mutate(**{_END: pairs[POSITIVE_ID], _PARTNER: pairs[ANCHOR_ID]})
    ends = left.union(right)
    totals = ends.group_by([_END, SOURCE]).agg(total=ends[N_USERS].sum().cast("float64"))
    ends = ends.join(totals.rename(**{_PARTNER: _END}), [_PARTNER, SOURCE])
    n_users = ends[N_USERS].cast("float64")
    strength = n_users * n_users / ends["total"]
    order = [
        strength.desc(),
        ends[N_USERS].desc(),
        ends[WEIGHT].desc(),
        ANCHOR_ID,
        POSITIVE_ID,
    ]
    rank = ibis.row_number().over(ibis.window(group_by=[_END, SOURCE], order_by=order))
    ranked = ends.mutate(rank=rank)
    within = ranked.filter(ranked["rank"] < limit)
    kept = within.group_by(pairs.columns).agg(n_ends=within.count())
    return kept.filter(kept["n_ends"] == 2).drop("n_ends")


_MIXER = 31  # spreads the pairs of one anchor over the parts
_PAIR_PARTS_A_PART = 4  # a part of the log makes several times as many candidates as it has events


@dataclass(frozen=True)
class MiningCounts:
    """What was counted while the candidates were.

    by_source: candidates. n_within: those within the cap a listener. n_too_long: playlists left
    out. n_pairs: distinct pairs of those within. liked: (track_id, n), the listeners who like each
    track; n_listeners: who like anything.
    """

    n_events: int
    n_positive: int
    by_source: Counter[str]
    n_within: int
    n_too_long: int
    n_pairs: int
    liked: "ir.Table"
    n_listeners: int


def confirmed_pairs(log: Log, config: PairsConfig) -> tuple["ir.Table", MiningCounts]:
    """The pairs that at least `min_users` stand behind, n_users and weight of each, and what
    was counted.
    """
    engine, stack = log.engine, _Candidates(log, config)
    events: Counter[str] = Counter()
    for number, part in enumerate(log.parts()):
        found, members = _candidate_pairs(engine, part, config, str(number))
        stack.add(found)
        events["all"] += engine.n_rows(part)
        events["positive"] += engine.n_rows(positive_events(part, config.min_played_s))
        events["too long"] += (
            engine.n_rows(too_long_playlists(members)) if "playlist" in config.sources else 0
        )
    confirmed = stack.confirmed()
    liked = engine.read(
        *[engine.work / f"liked-{number}.parquet" for number in range(stack.n_added)]
    )
    tally = MiningCounts(
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
    """Candidates of one part of the log after the other, on disk, to be counted a part of the pairs
    at a time.

    Exact in any number of parts: a listener lies in one part of the log, and a pair in one part of
    the candidates.
    counts: by source, "within" the cap a listener, and distinct "pairs" of those; full once
    `confirmed` was asked for.
    """

    def __init__(self, log: Log, config: PairsConfig) -> None:
        self.engine = log.engine
        self.config = config
        self.n_parts = log.n_parts * _PAIR_PARTS_A_PART if log.n_parts > 1 else 1
        self.n_added = 0
        self.counts: Counter[str] = Counter()

    def add(self, found: Mapping[str, "ir.Table"]) -> None:
        """Keeps what `_candidate_pairs` found in one part, with who is within the cap a listener."""
        limit = self.config.max_pairs_per_user
        capped = [within_listener_cap(table, source, limit) for source, table in found.items()]
        candidates = _stacked(capped).select(*PAIR, WEIGHT, IS_WITHIN)
        place = (
            candidates[ANCHOR_ID].cast("int64") * _MIXER + candidates[POSITIVE_ID]
        ) % self.n_parts
        self.engine.keep_parts(candidates, f"pairs-{self.n_added}", place, self.n_parts)
        self.n_added += 1

    def confirmed(self) -> "ir.Table":
        """The pairs of all that was added which have enough listeners."""
        names = [f"pairs-{number}" for number in range(self.n_added)]
        parts = (self.engine.part(names, number, self.n_parts) for number in range(self.n_parts))
        return _stacked(
            [self._confirmed(part, number) for number, part in enumerate(parts) if part is not None]
        )

    def _confirmed(self, candidates: "ir.Table", number: int) -> "ir.Table":
        engine = self.engine
        by_source = candidates.group_by(SOURCE).agg(
            n=candidates.count(), within=candidates[IS_WITHIN].sum()
        )
        for source, n, n_within in (
            engine.frame(by_source).select(SOURCE, "n", "within").iter_rows()
        ):
            self.counts[SOURCES[source]] += n
            self.counts["within"] += n_within
        within = candidates.filter(candidates[IS_WITHIN])
        counted = engine.keep(count_listeners(within), f"pairs-all-{number}")
        self.counts["pairs"] += engine.n_rows(counted)
        is_enough = counted[N_USERS] >= self.config.min_users
        confirmed = engine.keep(counted.filter(is_enough), f"pairs-confirmed-{number}")
        engine.drop(f"pairs-all-{number}")
        return confirmed


def _candidate_pairs(
    engine: Engine, events: "ir.Table", config: PairsConfig, name: str
) -> tuple[dict[str, "ir.Table"], "ir.Table"]:
    """({source: one row a listener and pair}, playlist members) of events that hold all of their
    listeners'.

    The tracks they like are kept as `liked-NAME`. Rows: user_id, pair, source, `at` (the latest
    moment) and weight.
    """
    liked = engine.keep(liked_tracks(positive_events(events, config.min_played_s)), f"liked-{name}")
    members = playlist_members(events)
    if "playlist" in config.sources:
        members = engine.keep(members, f"members-{name}")
    rules = {
        "feedback": lambda: _aggregate_per_user(
            feedback_events(positive_events(events, config.min_played_s))
        ),
        "session": lambda: _aggregate_per_user(
            session_events(events, config.min_played_s, config.session_gap_min)
        ),
        "playlist": lambda: _aggregate_per_user(playlist_events(members)),
        "cooccurrence": lambda: cooccurrence_events(liked).select(
            USER_ID, *PAIR, AT, WEIGHT
        ),  # one row each already
    }
    return {source: rules[source]() for source in rules if source in config.sources}, members


def _aggregate_per_user(pair_events: "ir.Table") -> "ir.Table":
    """Each listener's distinct pairs, with the weight they gave it in all and the moment they last
    did.
    """
    found = pair_events.group_by([USER_ID, *PAIR]).agg(
        **{AT: pair_events[AT].max(), WEIGHT: pair_events[WEIGHT].sum().cast("int64")}
    )
    return found.select(USER_ID, *PAIR, AT, WEIGHT)


def _stacked(tables: Sequence["ir.Table"]) -> "ir.Table":
    return reduce(lambda one, other: one.union(other), tables)
