"""What a pair must have to stay: enough listeners, more than chance has it, and a place within every cap.

The tables here hold numbers for ids, as `data/log.py` gives them.
"""

from typing import TYPE_CHECKING

from ponticello.data.columns import (
    ANCHOR_ID,
    N_USERS,
    POSITIVE_ID,
    SOURCE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)
from ponticello.data.evidence import LIKED_LIMIT, SOURCES
from ponticello.data.log import AT

if TYPE_CHECKING:
    import ibis.expr.types as ir

PAIR = [ANCHOR_ID, POSITIVE_ID, SOURCE]
IS_WITHIN = "is_within"  # the cap a listener
_LIKED_PAIRS = LIKED_LIMIT * (LIKED_LIMIT - 1) // 2  # the most that one listener's liked tracks make
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
    """Each pair with the listeners behind it, each of whom has one row a pair, and their weight in all."""
    return candidates.group_by(PAIR).agg(
        **{N_USERS: candidates.count(), WEIGHT: candidates[WEIGHT].sum().cast("int64")}
    )


def above_chance(pairs: "ir.Table", liked: "ir.Table", n_listeners: int, min_lift: float) -> "ir.Table":
    """Leaves out co-liked pairs with a lift of `min_lift` or less; at 1, no more than two independent tracks share.

    liked: (track_id, n), the listeners who like each track. Lift: n_users * n_listeners / (n of one * n of the other).
    """
    both = pairs
    for end in (ANCHOR_ID, POSITIVE_ID):
        counts = liked.select(**{end: liked[TRACK_ID], f"n_{end}": liked["n"]})
        both = both.left_join(counts, end)
        both = both.mutate(**{f"n_{end}": both[f"n_{end}"].fill_null(0)}).drop(f"{end}_right")
    expected = both[f"n_{ANCHOR_ID}"] * both[f"n_{POSITIVE_ID}"]
    wanted = expected if min_lift == 1 else expected * min_lift
    is_likely = (both[SOURCE] != SOURCES.index("cooccurrence")) | (both[N_USERS] * n_listeners > wanted)
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
