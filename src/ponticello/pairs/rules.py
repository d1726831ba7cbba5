"""What in a log says that two tracks belong together: one row an event and pair, as ibis
expressions.

    feedback   the track that set off another and the one then liked; directed
    session    neighbours in one sitting                            ; anchor_id < positive_id
    playlist   members of one playlist                              ; anchor_id < positive_id
    cooccurrence  liked by one listener, whenever                   ; anchor_id < positive_id

A log here is one of numbers, as `pairs/events.py` makes it: any part of it that holds all events of
its listeners. Every window orders its rows completely, so that neither the order of the rows nor
the number of threads matters.
"""

from typing import TYPE_CHECKING

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

if TYPE_CHECKING:
    import ibis.expr.types as ir

SOURCES = (
    "cooccurrence",
    "feedback",
    "playlist",
    "session",
)  # a number is a place: by name, as pairs sort
# tracks; a longer list is an archive rather than a mood, and its pairs grow with the square
PLAYLIST_LIMIT = 200
# tracks a listener liked latest, so that their pairs, which grow with the square, stay under 800
LIKED_LIMIT = 40
_MICROSECONDS_A_MINUTE = 60_000_000


def positive_events(log: "ir.Table", min_played_s: float) -> "ir.Table":
    """The rows that speak for a track: liked, finished, collected, put in a playlist, or played
    long enough.
    """
    is_long = log[PLAYED_S].isnull() | (log[PLAYED_S] >= min_played_s)
    is_long_play = (log[EVENT] == "play") & is_long
    return log.filter(log[EVENT].isin(POSITIVE_EVENTS) | is_long_play)


def feedback_events(positives: "ir.Table") -> "ir.Table":
    """(trigger, track) of each positive event that another track set off; directed, as in the
    paper.
    """
    triggered = positives.filter(positives[CONTEXT_TRACK_ID].notnull())
    return _pair_events(triggered, triggered[CONTEXT_TRACK_ID], triggered[TRACK_ID], "feedback")


def session_events(log: "ir.Table", min_played_s: float, gap_min: float) -> "ir.Table":
    """Each two consecutive positive events of one sitting, undirected; playlist events take no
    part.
    """
    import ibis

    liked = positive_events(_assign_sessions(log, gap_min), min_played_s)
    in_order = ibis.window(
        group_by=[USER_ID, SESSION_ID, "sitting"],
        order_by=[AT, TRACK_ID, WEIGHT, EVENT, PLAYED_S],
    )
    liked = liked.mutate(previous=liked[TRACK_ID].lag().over(in_order))
    liked = liked.filter(liked["previous"].notnull())
    two = liked["previous"], liked[TRACK_ID]
    return _pair_events(liked, ibis.least(*two), ibis.greatest(*two), "session")


def _assign_sessions(log: "ir.Table", gap_min: float) -> "ir.Table":
    """All but playlist events, with the `sitting` of its user and session_id that each lies in.

    A sitting is the given session_id; without one, it ends where the user's next event of any kind,
    or of any session, comes more than `gap_min` minutes later.
    """
    import ibis

    heard = log.filter(log[EVENT] != "playlist")
    gap = heard[AT] - heard[AT].lag().over(ibis.window(group_by=USER_ID, order_by=[AT, TRACK_ID]))
    heard = heard.mutate(
        cut=(gap > round(gap_min * _MICROSECONDS_A_MINUTE)).fill_null(False).cast("int64")
    )
    # A range window: events of one moment fall on the same side of a cut, whichever of them the gap
    # was measured to.
    until_now = ibis.range_window(preceding=None, following=0, group_by=USER_ID, order_by=AT)
    return heard.mutate(
        sitting=heard[SESSION_ID].isnull().ifelse(heard["cut"].sum().over(until_now), -1)
    )


def playlist_members(log: "ir.Table") -> "ir.Table":
    """One row a playlist and track, with `n_tracks` of the playlist; of a track added twice, the
    last addition.
    """
    import ibis

    added = log.filter((log[EVENT] == "playlist") & log[SESSION_ID].notnull())
    latest = ibis.window(
        group_by=[USER_ID, SESSION_ID, TRACK_ID], order_by=[added[AT].desc(), added[WEIGHT].desc()]
    )
    members = added.mutate(rank=ibis.row_number().over(latest)).filter(lambda t: t["rank"] == 0)
    whole = ibis.window(group_by=[USER_ID, SESSION_ID])
    return members.mutate(n_tracks=members[TRACK_ID].count().over(whole))


def playlist_events(members: "ir.Table") -> "ir.Table":
    """Every two tracks of a playlist no longer than PLAYLIST_LIMIT; moment and weight are of the
    one added later.
    """
    left = members.filter(members["n_tracks"] <= PLAYLIST_LIMIT).select(
        USER_ID, SESSION_ID, TRACK_ID, AT, WEIGHT
    )
    right = left.view()
    both = left.join(right, [USER_ID, SESSION_ID, left[TRACK_ID] < right[TRACK_ID]])
    is_later = both[f"{AT}_right"] >= both[AT]
    later = {name: is_later.ifelse(both[f"{name}_right"], both[name]) for name in (AT, WEIGHT)}
    return _pair_events(both.mutate(later), both[TRACK_ID], both[f"{TRACK_ID}_right"], "playlist")


def too_long_playlists(members: "ir.Table") -> "ir.Table":
    """(user_id, session_id) of the playlists that `playlist_events` leaves out."""
    return (
        members.filter(members["n_tracks"] > PLAYLIST_LIMIT).select(USER_ID, SESSION_ID).distinct()
    )


def liked_tracks(positives: "ir.Table") -> "ir.Table":
    """One row a listener and track: the latest moment and its weight, of the `LIKED_LIMIT` tracks
    liked latest.
    """
    import ibis

    again = ibis.window(
        group_by=[USER_ID, TRACK_ID], order_by=[positives[AT].desc(), positives[WEIGHT].desc()]
    )
    latest = positives.mutate(rank=ibis.row_number().over(again)).filter(lambda t: t["rank"] == 0)
    latest = latest.select(USER_ID, TRACK_ID, AT, WEIGHT)
    newest = ibis.window(group_by=USER_ID, order_by=[latest[AT].desc(), TRACK_ID])
    return (
        latest.mutate(rank=ibis.row_number().over(newest))
        .filter(lambda t: t["rank"] < LIKED_LIMIT)
        .drop("rank")
    )


def cooccurrence_events(liked: "ir.Table") -> "ir.Table":
    """Every two tracks of `liked_tracks` of one listener; moment and weight are of the one liked
    later.
    """
    right = liked.view()
    both = liked.join(right, [USER_ID, liked[TRACK_ID] < right[TRACK_ID]])
    is_later = both[f"{AT}_right"] >= both[AT]
    later = {name: is_later.ifelse(both[f"{name}_right"], both[name]) for name in (AT, WEIGHT)}
    return _pair_events(
        both.mutate(later), both[TRACK_ID], both[f"{TRACK_ID}_right"], "cooccurrence"
    )


def _pair_events(
    events: "ir.Table", anchor: "ir.Value", positive: "ir.Value", source: str
) -> "ir.Table":
    """(user_id, anchor_id, positive_id, source, at, weight) of `events`, without a track paired
    with itself.
    """
    import ibis

    named = {
        ANCHOR_ID: anchor,
        POSITIVE_ID: positive,
        SOURCE: ibis.literal(SOURCES.index(source), "int8"),
    }
    pairs = events.select(USER_ID, AT, WEIGHT, **named)
    return pairs.filter(pairs[ANCHOR_ID] != pairs[POSITIVE_ID])
