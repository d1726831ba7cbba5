"""The rules that make pairs of tracks from listening events, as ibis expressions.

    feedback      a track and the track that led to it; directed
    session       consecutive positive tracks of a session; anchor_id < positive_id
    playlist      tracks of one playlist; anchor_id < positive_id
    cooccurrence  tracks liked by one user at any time; anchor_id < positive_id

Each rule returns pair events: (user_id, anchor_id, positive_id, source, at, weight). The log is
encoded (`pairs/events.py`); a rule may run on any subset of the users, with all their events. Every
window has a complete order, so the result depends neither on row order nor on threads.
"""

import ibis
import ibis.expr.types as ir

from ponticello.pairs.events import AT
from ponticello.storage.schema import (
    ANCHOR_ID,
    CONTEXT_TRACK_ID,
    EVENT,
    PLAYED_S,
    POSITIVE_EVENTS,
    POSITIVE_ID,
    SESSION_ID,
    SOURCE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)

# Sorted by name, like the pairs; the encoded source is the position here.
SOURCES = ("cooccurrence", "feedback", "playlist", "session")
_MICROSECONDS_PER_MINUTE = 60_000_000
_LISTENING_SESSION = "listening_session"


def positive_events(log: ir.Table, min_played_s: float) -> ir.Table:
    """Returns likes, complete plays, saves, playlist additions, and plays of long or unknown
    length.
    """
    is_long = log[PLAYED_S].isnull() | (log[PLAYED_S] >= min_played_s)
    is_long_play = (log[EVENT] == "play") & is_long
    return log.filter(log[EVENT].isin(POSITIVE_EVENTS) | is_long_play)


def feedback_events(positives: ir.Table) -> ir.Table:
    """Pairs each positive event with the track that led to it (`context_track_id`)."""
    triggered = positives.filter(positives[CONTEXT_TRACK_ID].notnull())
    return _pair_events(triggered, triggered[CONTEXT_TRACK_ID], triggered[TRACK_ID], "feedback")


def session_events(log: ir.Table, min_played_s: float, gap_min: float) -> ir.Table:
    """Pairs consecutive positive events of a session; playlist events do not count."""
    positives = positive_events(_assign_sessions(log, gap_min), min_played_s)
    in_order = ibis.window(
        group_by=[USER_ID, SESSION_ID, _LISTENING_SESSION],
        order_by=[AT, TRACK_ID, WEIGHT, EVENT, PLAYED_S],
    )
    positives = positives.mutate(previous=positives[TRACK_ID].lag().over(in_order))
    positives = positives.filter(positives["previous"].notnull())
    smaller = ibis.least(positives["previous"], positives[TRACK_ID])
    larger = ibis.greatest(positives["previous"], positives[TRACK_ID])
    return _pair_events(positives, smaller, larger, "session")


def _assign_sessions(log: ir.Table, gap_min: float) -> ir.Table:
    """Returns all but playlist events, with the number of the user's session.

    Events with a session_id get -1: they are grouped by that id. Without one, a session ends where
    the user's next event of any kind or session comes more than `gap_min` minutes later.
    """
    events = log.filter(log[EVENT] != "playlist")
    by_user = ibis.window(group_by=USER_ID, order_by=[AT, TRACK_ID])
    gap = events[AT] - events[AT].lag().over(by_user)
    is_cut = gap > round(gap_min * _MICROSECONDS_PER_MINUTE)
    events = events.mutate(is_cut=is_cut.fill_null(False).cast("int64"))
    # A range window treats events of one moment alike, in whatever order the gaps were measured.
    until_now = ibis.range_window(preceding=None, following=0, group_by=USER_ID, order_by=AT)
    n_cuts = events["is_cut"].sum().over(until_now)
    number = events[SESSION_ID].isnull().ifelse(n_cuts, -1)
    return events.mutate({_LISTENING_SESSION: number})


def playlist_members(log: ir.Table) -> ir.Table:
    """Returns the last addition of each track to a playlist, with `n_tracks` of the playlist."""
    additions = log.filter((log[EVENT] == "playlist") & log[SESSION_ID].notnull())
    members = _latest_events(additions, [USER_ID, SESSION_ID, TRACK_ID])
    by_playlist = ibis.window(group_by=[USER_ID, SESSION_ID])
    return members.mutate(n_tracks=members[TRACK_ID].count().over(by_playlist))


def playlist_events(members: ir.Table, max_tracks: int) -> ir.Table:
    """Pairs the tracks of each playlist of at most `max_tracks` tracks."""
    short = members.filter(members["n_tracks"] <= max_tracks)
    left = short.select(USER_ID, SESSION_ID, TRACK_ID, AT, WEIGHT)
    return _all_pairs(left, [USER_ID, SESSION_ID], "playlist")


def liked_tracks(positives: ir.Table, max_tracks: int) -> ir.Table:
    """Returns the last `max_tracks` tracks each user liked, as in their latest positive event."""
    latest = _latest_events(positives, [USER_ID, TRACK_ID]).select(USER_ID, TRACK_ID, AT, WEIGHT)
    newest_first = ibis.window(group_by=USER_ID, order_by=[latest[AT].desc(), TRACK_ID])
    ranked = latest.mutate(rank=ibis.row_number().over(newest_first))
    return ranked.filter(ranked["rank"] < max_tracks).drop("rank")


def _latest_events(events: ir.Table, group: list[str]) -> ir.Table:
    order = [events[AT].desc(), events[WEIGHT].desc()]
    latest_first = ibis.window(group_by=group, order_by=order)
    ranked = events.mutate(rank=ibis.row_number().over(latest_first))
    return ranked.filter(ranked["rank"] == 0)


def cooccurrence_events(liked: ir.Table) -> ir.Table:
    """Pairs the tracks that each user liked, of `liked_tracks`."""
    return _all_pairs(liked, [USER_ID], "cooccurrence")


def _all_pairs(tracks: ir.Table, group: list[str], source: str) -> ir.Table:
    """Pairs all tracks of each group; at and weight are those of the later one."""
    partners = tracks.view()
    both = tracks.join(partners, [*group, tracks[TRACK_ID] < partners[TRACK_ID]])
    is_later = both[f"{AT}_right"] >= both[AT]
    later_at = is_later.ifelse(both[f"{AT}_right"], both[AT])
    later_weight = is_later.ifelse(both[f"{WEIGHT}_right"], both[WEIGHT])
    both = both.mutate({AT: later_at, WEIGHT: later_weight})
    return _pair_events(both, both[TRACK_ID], both[f"{TRACK_ID}_right"], source)


def _pair_events(events: ir.Table, anchor: ir.Value, positive: ir.Value, source: str) -> ir.Table:
    columns = {
        ANCHOR_ID: anchor,
        POSITIVE_ID: positive,
        SOURCE: ibis.literal(SOURCES.index(source), "int8"),
    }
    pairs = events.select(USER_ID, AT, WEIGHT, **columns)
    return pairs.filter(pairs[ANCHOR_ID] != pairs[POSITIVE_ID])
