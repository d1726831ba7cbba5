"""Counts the users behind each pair of tracks, and applies the caps and the lift.

Candidates are one row per user and pair. They are written and counted in partitions on disk, so
the result is exact for a log of any size. Ids are numbers here, see `pairs/events.py`.
"""

from collections import Counter
from functools import reduce

import ibis
import ibis.expr.types as ir

from ponticello.config import PairsConfig
from ponticello.pairs import rules
from ponticello.pairs.engine import Engine
from ponticello.pairs.events import AT, EncodedLog
from ponticello.storage.schema import (
    ANCHOR_ID,
    N_USERS,
    POSITIVE_ID,
    SESSION_ID,
    SOURCE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)

PAIR = [ANCHOR_ID, POSITIVE_ID, SOURCE]
_PER_USER = [USER_ID, ANCHOR_ID, POSITIVE_ID, SOURCE]
_CANDIDATE = [USER_ID, ANCHOR_ID, POSITIVE_ID, SOURCE, AT, WEIGHT]
IS_WITHIN_CAP = "is_within_cap"
_END = "end"
_PARTNER = "partner"
_ANCHOR_FACTOR = 31  # spreads the pairs of one anchor over the partitions
_PAIR_PARTITIONS = 4  # per partition of the log: candidates outnumber events several times


def count_pairs(log: EncodedLog, config: PairsConfig) -> tuple[ir.Table, ir.Table, Counter[str]]:
    """Returns the pairs of at least `min_users` users, the likes, and the counts of the steps.

    pairs: with n_users and weight. likes: (track_id, n), users per liked track.
    counts: "events", "positive" events, candidates by source, "within cap" of the user, "too long"
        playlists, distinct "pairs" within the cap, and "users" with a liked track.

    Every user is in one partition of the log, and every pair in one partition of the candidates.
    """
    engine = log.engine
    n_partitions = log.n_partitions * _PAIR_PARTITIONS if log.n_partitions > 1 else 1
    counts: Counter[str] = Counter()
    names = []
    liked_files = []
    for number, events in enumerate(log.partitions()):
        positives = rules.positive_events(events, config.min_played_s)
        counts["events"] += engine.count_rows(events)
        counts["positive"] += engine.count_rows(positives)
        liked = rules.liked_tracks(positives, config.max_liked_tracks)
        liked = engine.materialize(liked, f"liked-{number}")
        liked_files.append(engine.work / f"liked-{number}.parquet")
        members = rules.playlist_members(events)
        if "playlist" in config.sources:
            members = engine.materialize(members, f"members-{number}")
            too_long = members.filter(members["n_tracks"] > config.max_playlist_tracks)
            playlists = too_long.select(USER_ID, SESSION_ID).distinct()
            counts["too long"] += engine.count_rows(playlists)
        candidates = _candidates(events, liked, members, config)
        partition = candidates[ANCHOR_ID].cast("int64") * _ANCHOR_FACTOR + candidates[POSITIVE_ID]
        names.append(f"pairs-{number}")
        engine.materialize_partitions(candidates, names[-1], partition % n_partitions, n_partitions)
    confirmed = []
    for number in range(n_partitions):
        candidates = engine.read_partition(names, number, n_partitions)
        if candidates is not None:
            confirmed.append(_confirm(engine, candidates, config.min_users, number, counts))
    all_liked = engine.read(liked_files)
    likes = all_liked.group_by(TRACK_ID).agg(n=all_liked.count())
    users = engine.fetch_row(all_liked.aggregate(n=all_liked[USER_ID].nunique()))
    counts["users"] = int(users["n"])
    return reduce(ibis.union, confirmed), engine.materialize(likes, "likes"), counts


def _candidates(
    events: ir.Table, liked: ir.Table, members: ir.Table, config: PairsConfig
) -> ir.Table:
    """Returns the candidates of all sources, with `is_within_cap`; all of the same users."""
    positives = rules.positive_events(events, config.min_played_s)
    tables = []
    for source in config.sources:
        if source == "feedback":
            pairs = rules.feedback_events(positives)
        elif source == "session":
            pairs = rules.session_events(events, config.min_played_s, config.session_gap_min)
        elif source == "playlist":
            pairs = rules.playlist_events(members, config.max_playlist_tracks)
        else:
            pairs = rules.cooccurrence_events(liked)
        if source == "cooccurrence":  # one row per user and pair already
            candidates = pairs.select(_CANDIDATE)
        else:
            latest_at = pairs[AT].max()
            weight = pairs[WEIGHT].sum().cast("int64")
            candidates = pairs.group_by(_PER_USER).agg({AT: latest_at, WEIGHT: weight})
        tables.append(_mark_within_cap(candidates, source, config))
    return reduce(ibis.union, tables).drop(USER_ID, AT)


def _mark_within_cap(candidates: ir.Table, source: str, config: PairsConfig) -> ir.Table:
    """Marks the latest `max_pairs_per_user` candidates of each user, of one source, ties by id."""
    limit = config.max_pairs_per_user
    n_liked_pairs = config.max_liked_tracks * (config.max_liked_tracks - 1) // 2
    if source == "cooccurrence" and limit >= n_liked_pairs:  # no user has more: skip the sort
        return candidates.mutate({IS_WITHIN_CAP: ibis.literal(True)})
    order = [candidates[AT].desc(), ANCHOR_ID, POSITIVE_ID]
    latest = ibis.window(group_by=[USER_ID, SOURCE], order_by=order)
    return candidates.mutate({IS_WITHIN_CAP: ibis.row_number().over(latest) < limit})


def _confirm(
    engine: Engine, candidates: ir.Table, min_users: int, number: int, counts: Counter[str]
) -> ir.Table:
    """Returns the pairs of one partition with at least `min_users` users, and adds to `counts`."""
    by_source = candidates.group_by(SOURCE).agg(
        n=candidates.count(), n_within_cap=candidates[IS_WITHIN_CAP].sum()
    )
    for row in engine.to_polars(by_source).iter_rows(named=True):
        counts[rules.SOURCES[row[SOURCE]]] += row["n"]
        counts["within cap"] += row["n_within_cap"]
    within_cap = candidates.filter(candidates[IS_WITHIN_CAP])
    weight = within_cap[WEIGHT].sum().cast("int64")
    pairs = within_cap.group_by(PAIR).agg({N_USERS: within_cap.count(), WEIGHT: weight})
    pairs = engine.materialize(pairs, f"counted-{number}")
    counts["pairs"] += engine.count_rows(pairs)
    confirmed = engine.materialize(pairs.filter(pairs[N_USERS] >= min_users), f"confirmed-{number}")
    engine.delete(f"counted-{number}")
    return confirmed


def filter_by_lift(pairs: ir.Table, likes: ir.Table, n_users: int, min_lift: float) -> ir.Table:
    """Drops co-occurrence pairs with a lift of at most `min_lift`; 1 = independent tracks.

    Lift: n_users of the pair * n_users / (likes of the anchor * likes of the positive).
    """
    joined = pairs
    for end in (ANCHOR_ID, POSITIVE_ID):
        n_likes = f"n_{end}"
        counts = likes.select({end: likes[TRACK_ID], n_likes: likes["n"]})
        joined = joined.left_join(counts, end)
        joined = joined.mutate({n_likes: joined[n_likes].fill_null(0)}).drop(f"{end}_right")
    product = joined[f"n_{ANCHOR_ID}"] * joined[f"n_{POSITIVE_ID}"]
    threshold = product if min_lift == 1 else product * min_lift  # 1: exact, in integers
    is_other_source = joined[SOURCE] != rules.SOURCES.index("cooccurrence")
    is_above = joined[N_USERS] * n_users > threshold
    return joined.filter(is_other_source | is_above).select(pairs.columns)


def cap_tracks(pairs: ir.Table, limit: int) -> ir.Table:
    """Returns the pairs that rank within `limit` for both their tracks.

    A pair is ranked among all pairs of the track and source, as anchor or positive: by strength,
    then by n_users, weight and ids. A track therefore keeps at most `limit` pairs per source.
    Strength is n_users squared over n_users of all the partner's pairs: a hit shares users with
    every track, which shows little.
    """
    left = pairs.mutate({_END: pairs[ANCHOR_ID], _PARTNER: pairs[POSITIVE_ID]})
    right = pairs.mutate({_END: pairs[POSITIVE_ID], _PARTNER: pairs[ANCHOR_ID]})
    ends = left.union(right)
    totals = ends.group_by([_END, SOURCE]).agg(total=ends[N_USERS].sum().cast("float64"))
    ends = ends.join(totals.rename(**{_PARTNER: _END}), [_PARTNER, SOURCE])
    n_users = ends[N_USERS].cast("float64")
    strength = n_users * n_users / ends["total"]
    order = [strength.desc(), ends[N_USERS].desc(), ends[WEIGHT].desc(), ANCHOR_ID, POSITIVE_ID]
    rank = ibis.row_number().over(ibis.window(group_by=[_END, SOURCE], order_by=order))
    ranked = ends.mutate(rank=rank)
    within = ranked.filter(ranked["rank"] < limit)
    kept = within.group_by(pairs.columns).agg(n_ends=within.count())
    return kept.filter(kept["n_ends"] == 2).drop("n_ends")
