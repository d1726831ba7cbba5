"""What a pair must have to stay: enough listeners, more than chance has it, and a place within every cap.

The tables here hold numbers for ids, as `data/log.py` gives them.
"""

from typing import TYPE_CHECKING

from ponticello.data.columns import ANCHOR_ID, ARTIST, N_USERS, POSITIVE_ID, SOURCE, TRACK_ID, USER_ID, WEIGHT
from ponticello.data.evidence import SOURCES
from ponticello.data.log import AT

if TYPE_CHECKING:
    import ibis.expr.types as ir

PAIR = [ANCHOR_ID, POSITIVE_ID, SOURCE]
IS_WITHIN = "is_within"  # the cap a listener
_END, _OTHER = "end", "other"


def within_listener_cap(candidates: "ir.Table", limit: int) -> "ir.Table":
    """`candidates` with `is_within`: true for the latest `limit` pairs of each listener and source."""
    import ibis

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
    both = _with_liked(pairs, liked)
    expected = both[f"n_{ANCHOR_ID}"] * both[f"n_{POSITIVE_ID}"]
    wanted = expected if min_lift == 1 else expected * min_lift
    is_likely = (both[SOURCE] != SOURCES.index("cooccurrence")) | (both[N_USERS] * n_listeners > wanted)
    return both.filter(is_likely).select(pairs.columns)


def not_too_popular(pairs: "ir.Table", liked: "ir.Table", limit: float) -> "ir.Table":
    """Leaves out pairs of a track that more than `limit` listeners like."""
    both = _with_liked(pairs, liked)
    return both.filter((both[f"n_{ANCHOR_ID}"] <= limit) & (both[f"n_{POSITIVE_ID}"] <= limit)).select(pairs.columns)


def cap_tracks(pairs: "ir.Table", limit: int, measure: str = N_USERS) -> "ir.Table":
    """The pairs that rank within `limit` for both their tracks, among all of a track's pairs of that source.

    A track's pairs are those it stands in, on either side, strongest first, then by n_users, weight and ids; so no
    track keeps more than `limit` a source. Strength is the measure (n_users, or weight where time decays it) squared
    over the measure of all the partner's pairs: a hit shares listeners with everybody, which says little.
    """
    return _within_both(pairs, _ends(pairs), [_END, SOURCE], limit, measure)


def cap_artists(pairs: "ir.Table", artists: "ir.Table", limit: int, measure: str = N_USERS) -> "ir.Table":
    """The pairs that rank within `limit`, as in `cap_tracks`, among those of a track with partners of one artist.

    artists: (track_id, artist) of every track.
    """
    ends = _ends(pairs)
    ends = ends.join(artists.select(**{_OTHER: artists[TRACK_ID], ARTIST: artists[ARTIST]}), _OTHER)
    return _within_both(pairs, ends, [_END, SOURCE, ARTIST], limit, measure)


def _ends(pairs: "ir.Table") -> "ir.Table":
    """Each pair twice, once for each of its tracks as `end`, with the partner as `other`."""
    left = pairs.mutate(**{_END: pairs[ANCHOR_ID], _OTHER: pairs[POSITIVE_ID]})
    return left.union(pairs.mutate(**{_END: pairs[POSITIVE_ID], _OTHER: pairs[ANCHOR_ID]}))


def _within_both(pairs: "ir.Table", ends: "ir.Table", group: list[str], limit: int, measure: str) -> "ir.Table":
    import ibis

    totals = ends.group_by([_END, SOURCE]).agg(total=ends[measure].sum().cast("float64")).rename(**{_OTHER: _END})
    ends = ends.join(totals, [_OTHER, SOURCE])
    own = ends[measure].cast("float64")
    order = [(own * own / ends["total"]).desc(), ends[N_USERS].desc(), ends[WEIGHT].desc(), ANCHOR_ID, POSITIVE_ID]
    ranked = ends.mutate(rank=ibis.row_number().over(ibis.window(group_by=group, order_by=order)))
    kept = ranked.filter(ranked["rank"] < limit)
    kept = kept.group_by(pairs.columns).agg(n_ends=kept.count())
    return kept.filter(kept["n_ends"] == 2).drop("n_ends")


def _with_liked(pairs: "ir.Table", liked: "ir.Table") -> "ir.Table":
    """`pairs` with how many listeners like either track, none where nobody does."""
    for end in (ANCHOR_ID, POSITIVE_ID):
        counts = liked.select(**{end: liked[TRACK_ID], f"n_{end}": liked["n"]})
        pairs = pairs.left_join(counts, end)
        pairs = pairs.mutate(**{f"n_{end}": pairs[f"n_{end}"].fill_null(0)}).drop(f"{end}_right")
    return pairs
