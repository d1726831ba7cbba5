"""What is ranked for whom: the questions of the taste side, each with its full list of candidates.

    next tracks, warm    a listener -> training tracks they have not played, what they like in the
    test window next tracks, cold    a listener -> test tracks, in no training event and in no pair
    pairs, cold          a training track -> test tracks that the same listeners like playlists,
    cold      a playlist's training tracks -> the test tracks it also holds playlists, warm      the
    first half of a playlist of the test window -> its second half audience, cold       a test track
    -> the listeners who like it in the test window

Dimensions: q queries, n candidates.

Full ranking, a block of queries at a time: never more scores in memory than one block of them.

Dimensions: q queries, n candidates, b queries of one block, k places of a list.

Rankings of recordings instead of tracks, as `search.deduplicate_recordings` answers: of copies only the
best is shown.

Dimensions: n candidate tracks, r recordings, b queries of one block.

How vectors and factors answer a task: closeness to a track, a listener's profile, factors, one
order, or chance.

Dimensions: q queries, n candidates, b queries of one block, d vector size, f factors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import polars as pl

from ponticello.config import Config, SearchConfig
from ponticello.errors import DataError, ShapeError
from ponticello.evaluate.baselines import popularity
from ponticello.listening.log import is_positive
from ponticello.metrics.beyond_accuracy import top_k
from ponticello.metrics.ranking import all_metrics, group_ties, restrict_to
from ponticello.search.user_profiles import fit_profiles, score_directions
from ponticello.splits.splits import Splits, before_test, in_test
from ponticello.storage.schema import (
    ANCHOR_ID,
    EVENT,
    PLAYED_AT,
    POSITIVE_ID,
    SESSION_ID,
    TRACK_ID,
    USER_ID,
)

Scorer: TypeAlias = Callable[
    [np.ndarray], np.ndarray
]  # (b,) int queries of a task -> (b, n) scores, higher = sooner
BLOCK_SCORES = 2**23  # of one block: 32 MB of float32, of which a scorer may need a few


@dataclass(frozen=True)
class Task:
    """Queries, each with its ranking of all candidates.

    candidates: track ids, or listeners where tracks are the queries. relevant, excluded: columns a
    query, ascending and disjoint; an excluded column is not in that query's ranking. seeds: track
    ids that speak for each query, or for each candidate if `seeds_of_candidates`. clusters: names
    of queries that are not independent; None = all are.
    """

    name: str
    queries: list[str]
    clusters: list[str] | None
    candidates: list[str]
    relevant: list[np.ndarray]
    excluded: list[np.ndarray]
    seeds: list[list[str]]
    seeds_of_candidates: bool = False

    def rows(self, chosen: np.ndarray) -> "Task":
        """The task of some of its queries only."""
        return replace(
            self,
            queries=[self.queries[row] for row in chosen],
            clusters=None if self.clusters is None else [self.clusters[row] for row in chosen],
            relevant=[self.relevant[row] for row in chosen],
            excluded=[self.excluded[row] for row in chosen],
            seeds=self.seeds if self.seeds_of_candidates else [self.seeds[row] for row in chosen],
        )


@dataclass(frozen=True)
class RankingResult:
    """Each query's metrics by name, (q,) each; the same within each stratum of candidates; the
    first k places.
    """

    metrics: dict[str, np.ndarray]
    by_stratum: dict[str, dict[str, np.ndarray]]
    lists: np.ndarray  # (q, k) columns, -1 = no candidate left


def rank_task(
    task: Task, scorer: Scorer, k: int, strata: Mapping[str, np.ndarray] | None = None
) -> RankingResult:
    """Ranks every candidate for every query and measures where the relevant ones stand; ties as in
    `hits`.

    strata: (n,) bool by name; within one, only its own relevant candidates are asked for, and
    relevant ones of other
        strata are taken out of the ranking. A query with none there gets nan.
    DataError names a query with a score that is not finite; ShapeError for a scorer that gives
    other than (b, n).
    Cost: one sort of n a query, and a block of at most `BLOCK_SCORES` scores, or one query's.
    """
    strata = strata or {}
    n_queries, n = len(task.queries), len(task.candidates)
    rows: list[dict[str, float]] = []
    parts: dict[str, list[dict[str, float]]] = {name: [] for name in strata}
    lists = np.full((n_queries, k), -1, dtype=np.int64)
    step = block_size(n)
    for start in range(0, n_queries, step):
        block = np.arange(start, min(start + step, n_queries))
        scores = scorer(block)
        if scores.shape != (len(block), n):
            raise ShapeError(
                f"{task.name}: scores must be {(len(block), n)}, queries by candidates; found {scores.shape}"
            )
        for query, own in zip(block.tolist(), scores, strict=True):
            _check_finite(own, task, query)
            relevant, excluded = task.relevant[query], task.excluded[query]
            kept = np.delete(own, excluded)
            groups = group_ties(kept, own[relevant])
            rows.append(all_metrics(groups, k))
            for name, members in strata.items():
                parts[name].append(
                    all_metrics(restrict_to(groups, own[relevant], members[relevant]), k)
                )
            open_to = own.copy()
            open_to[excluded] = -np.inf
            lists[query] = top_k(open_to[None], k)[0]
    return RankingResult(
        _columns(rows), {name: _columns(found) for name, found in parts.items()}, lists
    )


def block_size(n_candidates: int) -> int:
    """Queries of one block."""
    return max(1, BLOCK_SCORES // max(1, n_candidates))


def _columns(rows: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {
        name: np.array([row[name] for row in rows], dtype=np.float64)
        for name in (rows[0] if rows else {})
    }


def _check_finite(scores: np.ndarray, task: Task, query: int) -> None:
    if not np.isfinite(scores).all():
        column = int(np.flatnonzero(~np.isfinite(scores))[0])
        raise DataError(
            f"{task.name}, {task.queries[query]}: the score of {task.candidates[column]} is {scores[column]}; "
            "embed again, or leave that track out"
        )


@dataclass(frozen=True)
class DeduplicatedTask:
    """A task over recordings, `task`, and the same queries over tracks, `tracks`, to make scorers
    for.
    """

    task: Task
    tracks: Task
    numbers: np.ndarray  # (n,) each track's recording, as a column of `task`

    def plays(self, events: pl.DataFrame) -> np.ndarray:
        """(r,) how often each recording was played in `events`, under any of its tracks' ids."""
        counts = popularity(events, self.tracks.candidates)
        return np.bincount(self.numbers, counts, minlength=len(self.task.candidates))

    def scorer(self, of_tracks: Scorer) -> Scorer:
        """A recording's score is that of its best copy. of_tracks: a scorer of `tracks`."""
        if self.task is self.tracks:
            return of_tracks
        order = np.argsort(self.numbers, kind="stable")
        starts = np.searchsorted(self.numbers[order], np.arange(len(self.task.candidates)))

        def scores(rows: np.ndarray) -> np.ndarray:
            best: np.ndarray = np.maximum.reduceat(of_tracks(rows)[:, order], starts, axis=1)
            return best

        return scores


def deduplicate_task(task: Task, recordings: Mapping[str, str]) -> DeduplicatedTask:
    """The task with one candidate a recording, named by its first track's id.

    recordings: a name by track id; a track without one is a recording alone. A recording is
    relevant if one of its
    tracks is, and excluded if one of them is: who has met a copy has met them all. Queries that
    have nothing relevant left are dropped. Where listeners are the candidates, or no two candidates
    are copies, the task stays as it is.
    """
    names = [recordings.get(track_id, track_id) for track_id in task.candidates]
    if task.seeds_of_candidates or len(set(names)) == len(names):
        return DeduplicatedTask(task, task, np.arange(len(names)))
    place = {name: column for column, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([place[name] for name in names], dtype=np.int64)
    first = np.unique(numbers, return_index=True)[1]
    excluded = [np.unique(numbers[columns]) for columns in task.excluded]
    both = zip(task.relevant, excluded, strict=True)
    relevant = [np.setdiff1d(numbers[columns], met) for columns, met in both]
    kept = np.flatnonzero([len(columns) > 0 for columns in relevant])
    candidates = [task.candidates[column] for column in first]
    collapsed = replace(task, candidates=candidates, relevant=relevant, excluded=excluded)
    return DeduplicatedTask(collapsed.rows(kept), task.rows(kept), numbers)


def score_at_random(task: Task, seed: int) -> Scorer:
    """Scores that know nothing; each query's depend on `seed` and its place alone."""

    def scores(rows: np.ndarray) -> np.ndarray:
        return np.stack(
            [np.random.default_rng([seed, int(row)]).random(len(task.candidates)) for row in rows]
        )

    return scores


def score_by_order(values: np.ndarray) -> Scorer:
    """The same (n,) scores for every query: popularity."""
    return lambda rows: np.broadcast_to(values, (len(rows), len(values)))


def score_by_factors(queries: np.ndarray, candidates: np.ndarray) -> Scorer:
    """Dot products of (q, f) and (n, f)."""

    def scores(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = queries[rows] @ candidates.T
        return found

    return scores


def score_by_similarity(task: Task, vectors: Mapping[str, np.ndarray]) -> Scorer:
    """The cosine between each query's one seed and every candidate: what `similar` answers.

    vectors: (d,) unit vectors by track id. ShapeError if a query has another number of seeds than
    one.
    """
    if any(len(seeds) != 1 for seeds in task.seeds):
        raise ShapeError(f"{task.name}: closeness needs one seed a query; use by_profile")
    return score_by_factors(
        _stack(vectors, [seeds[0] for seeds in task.seeds]), _stack(vectors, task.candidates)
    )


def score_by_profile(
    task: Task, spaces: Sequence[tuple[float, Mapping[str, np.ndarray]]], search: SearchConfig
) -> Scorer:
    """What a listener with these seeds likes: what `recommend` answers.

    spaces: a weight and (d,) unit vectors by track id, of the same tracks, for each space: one, or
    both with the dial
        between them. Profiles are fitted on all of those tracks, as in the index.
    In `audience` the seeds are the candidates', and the tracks are the queries.
    """
    asking, answering = [], []
    for weight, vectors in spaces:
        track_ids = sorted(vectors)
        place = {track_id: row for row, track_id in enumerate(track_ids)}
        matrix = _stack(vectors, track_ids)
        profiles = fit_profiles(matrix, search.profile_l2)
        seeds = [np.array([place[track_id] for track_id in own]) for own in task.seeds]
        asking.append(weight * score_directions(profiles, matrix, seeds))
        tracks = task.queries if task.seeds_of_candidates else task.candidates
        levelled = profiles.levels(matrix, search.hub_correction)[:, None] * (
            matrix - profiles.mean
        )
        answering.append(levelled[[place[track_id] for track_id in tracks]])
    listeners, offered = (
        np.concatenate(side, axis=1).astype(np.float32) for side in (asking, answering)
    )
    return (
        score_by_factors(offered, listeners)
        if task.seeds_of_candidates
        else score_by_factors(listeners, offered)
    )


def _stack(vectors: Mapping[str, np.ndarray], track_ids: list[str]) -> np.ndarray:
    return np.stack([vectors[track_id] for track_id in track_ids]).astype(np.float32)


WARM = "next_tracks_warm"
COLD = "next_tracks_cold"
PAIRS = "pairs_cold"
PLAYLISTS = "playlists_cold"
NEW_PLAYLISTS = "playlists_warm"
AUDIENCE = "audience_cold"


def next_tracks(
    interactions: pl.DataFrame,
    splits: Splits,
    usable: set[str],
    config: Config,
    cold_role: str = "test",
) -> list[Task]:
    """[warm, cold] for listeners with a seed, which is a training track liked before the test
    window.

    usable: tracks that have vectors. cold_role: whose tracks are the cold ones; "validation" where
    something is to be tuned. Warm leaves out what a listener has played before; cold tracks count
    as released only now, and all are ranked.
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


def pair_ranking(
    pairs: pl.DataFrame, splits: Splits, usable: set[str], artists: Mapping[str, str]
) -> Task:
    """`pairs`: anchor_id, positive_id, a training and a test track each; queries by one artist are
    one cluster.
    """
    cold = role_tracks(splits, "test", usable)
    wanted = _grouped(pairs.filter(pl.col(ANCHOR_ID).is_in(list(usable))), ANCHOR_ID, POSITIVE_ID)
    return _task(PAIRS, cold, {anchor: [anchor] for anchor in wanted}, wanted, {}, artists)


def playlist_continuation(
    interactions: pl.DataFrame, splits: Splits, usable: set[str]
) -> list[Task]:
    """[cold, warm]. A playlist is the `playlist` events of one session of one listener, in order of
    time.

    cold: seeds are its training tracks before the test window, relevant its test tracks. warm:
    playlists that begin in the test window; seeds are the first half of their training tracks,
    which are left out of the ranking, relevant the rest. Playlists of one listener are one cluster.
    """
    entries = (
        interactions.filter((pl.col(EVENT) == "playlist") & pl.col(TRACK_ID).is_in(list(usable)))
        .with_columns(
            playlist=pl.concat_str(USER_ID, pl.lit(" / "), pl.col(SESSION_ID).fill_null(""))
        )
        .sort(PLAYED_AT, "playlist", TRACK_ID)
        .unique(["playlist", TRACK_ID], keep="first", maintain_order=True)
    )
    owners = dict(entries.select("playlist", USER_ID).unique().iter_rows())
    training, cold = (role_tracks(splits, role, usable) for role in ("train", "test"))
    early, late = before_test(splits, entries), in_test(splits, entries)
    seeds = _grouped(early.filter(pl.col(TRACK_ID).is_in(training)), "playlist", TRACK_ID)
    wanted = _grouped(entries.filter(pl.col(TRACK_ID).is_in(cold)), "playlist", TRACK_ID)
    new = late.join(
        early.select("playlist").unique(), on="playlist", how="anti", maintain_order="left"
    )
    halves = _grouped(new.filter(pl.col(TRACK_ID).is_in(training)), "playlist", TRACK_ID)
    first = {name: tracks[: (len(tracks) + 1) // 2] for name, tracks in halves.items()}
    rest = {name: tracks[(len(tracks) + 1) // 2 :] for name, tracks in halves.items()}
    return [
        _task(PLAYLISTS, cold, seeds, wanted, {}, owners),
        _task(NEW_PLAYLISTS, training, first, rest, first, owners),
    ]


def audience(
    interactions: pl.DataFrame,
    splits: Splits,
    usable: set[str],
    config: Config,
    artists: Mapping[str, str],
) -> Task:
    """Test tracks as queries, every listener with a seed as a candidate; tracks of one artist are
    one cluster.
    """
    seeds = _listeners_seeds(interactions, splits, usable, config)
    tracks = role_tracks(splits, "test", usable)
    log = in_test(splits, interactions).filter(is_positive(config.pairs.min_played_s))
    wanted = _grouped(log.filter(pl.col(TRACK_ID).is_in(tracks)), TRACK_ID, USER_ID)
    listeners = sorted(seeds)
    found = _task(AUDIENCE, listeners, {track_id: [] for track_id in tracks}, wanted, {}, artists)
    return replace(
        found, seeds=[seeds[listener] for listener in listeners], seeds_of_candidates=True
    )


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
    return Task(
        name, queries, names, candidates, relevant, excluded, [seeds[query] for query in queries]
    )


def _listeners_seeds(
    interactions: pl.DataFrame, splits: Splits, usable: set[str], config: Config
) -> dict[str, list[str]]:
    """{listener: the latest training tracks liked before the test window, newest first}."""
    training = role_tracks(splits, "train", usable)
    liked = is_positive(config.pairs.min_played_s) & pl.col(TRACK_ID).is_in(training)
    newest = (
        before_test(splits, interactions)
        .filter(liked)
        .sort(PLAYED_AT, TRACK_ID, descending=[True, False])
    )
    distinct = newest.unique([USER_ID, TRACK_ID], keep="first", maintain_order=True)
    latest = pl.col(TRACK_ID).head(config.search.n_seed_tracks)
    return dict(distinct.group_by(USER_ID, maintain_order=True).agg(latest).iter_rows())


def _grouped(events: pl.DataFrame, by: str, column: str) -> dict[str, list[str]]:
    """{by: its distinct values of the column, in order of first appearance}."""
    distinct = events.select(by, column).unique(maintain_order=True)
    return dict(distinct.group_by(by, maintain_order=True).agg(column).iter_rows())
