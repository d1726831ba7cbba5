"""What is ranked for whom: the questions of the taste side, each with its full list of candidates.

    next tracks, warm    a listener -> training tracks they have not played, what they like in the test window
    next tracks, cold    a listener -> test tracks, in no training event and in no pair
    pairs, cold          a training track -> test tracks that the same listeners like
    playlists, cold      a playlist's training tracks -> the test tracks it also holds
    playlists, warm      the first half of a playlist of the test window -> its second half
    audience, cold       a test track -> the listeners who like it in the test window

Dimensions: q queries, n candidates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.data.columns import ANCHOR_ID, EVENT, PLAYED_AT, POSITIVE_ID, SESSION_ID, TRACK_ID, USER_ID
from ponticello.data.interactions import is_positive
from ponticello.data.splits import Splits, before_test, in_test
from ponticello.evaluate.ranking import Task

WARM, COLD = "next tracks, warm", "next tracks, cold"
PAIRS, PLAYLISTS, NEW_PLAYLISTS, AUDIENCE = "pairs, cold", "playlists, cold", "playlists, warm", "audience, cold"


def next_tracks(
    interactions: pl.DataFrame, splits: Splits, usable: set[str], config: Config, cold_role: str = "test"
) -> list[Task]:
    """[warm, cold] for listeners with a seed, which is a training track liked before the test window.

    usable: tracks that have vectors. cold_role: whose tracks are the cold ones; "validation" where something is to be
    tuned. Warm leaves out what a listener has played before; cold tracks count as released only now, and all are
    ranked.
    """
    log = interactions.filter(pl.col(TRACK_ID).is_in(list(usable)))
    past, future = before_test(splits, log), in_test(splits, log)
    training, cold = (role_tracks(splits, role, usable) for role in ("train", cold_role))
    liked = is_positive(config.pairs.min_played_s)
    seeds = _listeners_seeds(log, splits, usable, config)
    played = _grouped(past, USER_ID, TRACK_ID)
    wanted = _grouped(future.filter(liked), USER_ID, TRACK_ID)
    return [
        _task(WARM, training, seeds, wanted, played, None),
        _task(COLD, cold, seeds, wanted, {}, None),
    ]


def pair_ranking(pairs: pl.DataFrame, splits: Splits, usable: set[str], artists: Mapping[str, str]) -> Task:
    """`pairs`: anchor_id, positive_id, a training and a test track each; queries by one artist are one cluster."""
    cold = role_tracks(splits, "test", usable)
    wanted = _grouped(pairs.filter(pl.col(ANCHOR_ID).is_in(list(usable))), ANCHOR_ID, POSITIVE_ID)
    return _task(PAIRS, cold, {anchor: [anchor] for anchor in wanted}, wanted, {}, artists)


def playlist_continuation(interactions: pl.DataFrame, splits: Splits, usable: set[str]) -> list[Task]:
    """[cold, warm]. A playlist is the `playlist` events of one session of one listener, in order of time.

    cold: seeds are its training tracks before the test window, relevant its test tracks. warm: playlists that begin in
    the test window; seeds are the first half of their training tracks, which are left out of the ranking, relevant the
    rest. Playlists of one listener are one cluster.
    """
    entries = (
        interactions.filter((pl.col(EVENT) == "playlist") & pl.col(TRACK_ID).is_in(list(usable)))
        .with_columns(playlist=pl.concat_str(USER_ID, pl.lit(" / "), pl.col(SESSION_ID).fill_null("")))
        .sort(PLAYED_AT, "playlist", TRACK_ID)
        .unique(["playlist", TRACK_ID], keep="first", maintain_order=True)
    )
    owners = dict(entries.select("playlist", USER_ID).unique().iter_rows())
    training, cold = (role_tracks(splits, role, usable) for role in ("train", "test"))
    early, late = before_test(splits, entries), in_test(splits, entries)
    seeds = _grouped(early.filter(pl.col(TRACK_ID).is_in(training)), "playlist", TRACK_ID)
    wanted = _grouped(entries.filter(pl.col(TRACK_ID).is_in(cold)), "playlist", TRACK_ID)
    new = late.join(early.select("playlist").unique(), on="playlist", how="anti", maintain_order="left")
    halves = _grouped(new.filter(pl.col(TRACK_ID).is_in(training)), "playlist", TRACK_ID)
    first = {name: tracks[: (len(tracks) + 1) // 2] for name, tracks in halves.items()}
    rest = {name: tracks[(len(tracks) + 1) // 2 :] for name, tracks in halves.items()}
    return [
        _task(PLAYLISTS, cold, seeds, wanted, {}, owners),
        _task(NEW_PLAYLISTS, training, first, rest, first, owners),
    ]


def audience(
    interactions: pl.DataFrame, splits: Splits, usable: set[str], config: Config, artists: Mapping[str, str]
) -> Task:
    """Test tracks as queries, every listener with a seed as a candidate; tracks of one artist are one cluster."""
    seeds = _listeners_seeds(interactions, splits, usable, config)
    tracks = role_tracks(splits, "test", usable)
    log = in_test(splits, interactions).filter(is_positive(config.pairs.min_played_s))
    wanted = _grouped(log.filter(pl.col(TRACK_ID).is_in(tracks)), TRACK_ID, USER_ID)
    listeners = sorted(seeds)
    found = _task(AUDIENCE, listeners, {track_id: [] for track_id in tracks}, wanted, {}, artists)
    return replace(found, seeds=[seeds[listener] for listener in listeners], seeds_of_candidates=True)


def role_tracks(splits: Splits, role: str, usable: set[str]) -> list[str]:
    """The usable tracks of a role, by id."""
    return sorted(track_id for track_id in usable if splits.roles.get(track_id) == role)


def _task(
    name: str,
    candidates: list[str],
    seeds: Mapping[str, list[str]],
    wanted: Mapping[str, Sequence[str]],
    played: Mapping[str, Sequence[str]],
    clusters: Mapping[str, str] | None,
) -> Task:
    """The queries of `seeds` that have something relevant left, by name."""
    place = {candidate: column for column, candidate in enumerate(candidates)}

    def columns(names: Sequence[str]) -> np.ndarray:
        return np.array(sorted({place[name] for name in names if name in place}), dtype=np.int64)

    queries, relevant, excluded = [], [], []
    for query in sorted(seeds):
        out = columns(played.get(query, ()))
        hits = np.setdiff1d(columns(wanted.get(query, ())), out)
        if len(hits):
            queries.append(query)
            relevant.append(hits)
            excluded.append(out)
    names = None if clusters is None else [clusters.get(query, query) for query in queries]
    return Task(name, queries, names, candidates, relevant, excluded, [seeds[query] for query in queries])


def _listeners_seeds(
    interactions: pl.DataFrame, splits: Splits, usable: set[str], config: Config
) -> dict[str, list[str]]:
    """{listener: the latest training tracks liked before the test window, newest first}."""
    training = role_tracks(splits, "train", usable)
    liked = is_positive(config.pairs.min_played_s) & pl.col(TRACK_ID).is_in(training)
    newest = before_test(splits, interactions).filter(liked).sort(PLAYED_AT, TRACK_ID, descending=[True, False])
    distinct = newest.unique([USER_ID, TRACK_ID], keep="first", maintain_order=True)
    latest = pl.col(TRACK_ID).head(config.search.recent_seeds)
    return dict(distinct.group_by(USER_ID, maintain_order=True).agg(latest).iter_rows())


def _grouped(events: pl.DataFrame, by: str, column: str) -> dict[str, list[str]]:
    """{by: its distinct values of the column, in order of first appearance}."""
    distinct = events.select(by, column).unique(maintain_order=True)
    return dict(distinct.group_by(by, maintain_order=True).agg(column).iter_rows())
