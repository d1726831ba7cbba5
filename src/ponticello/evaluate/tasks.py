"""Preference tasks: the queries, their scorers, and full ranking of all candidates.

    next_tracks_warm  a listener -> training tracks not played before, liked in the test window
    next_tracks_cold  a listener -> test tracks, which are in no training event and no pair
    pairs_cold        a training track -> test tracks that the same listeners like
    playlists_cold    a playlist's training tracks -> the test tracks it also holds
    playlists_warm    the first half of a playlist of the test window -> its second half
    audience_cold     a test track -> the listeners that like it in the test window

Ranking computes a block of queries at a time. Where answers hold a recording once
(`search.deduplicate_recordings`), recordings are ranked instead of tracks.

Dimensions: q queries, n candidates, r recordings, b queries of one block, k positions of a list,
d vector size, f factors.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import polars as pl

from ponticello.config import Config, SearchConfig
from ponticello.errors import DataError, ShapeError
from ponticello.evaluate.baselines import popularity
from ponticello.evaluate.results import pick
from ponticello.listening.log import is_positive
from ponticello.metrics.beyond_accuracy import top_k
from ponticello.metrics.ranking import (
    MetricTerms,
    TieGroups,
    group_ties,
    metric_columns,
    metric_terms,
    restrict_to,
)
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

WARM = "next_tracks_warm"
COLD = "next_tracks_cold"
PAIRS = "pairs_cold"
PLAYLISTS = "playlists_cold"
NEW_PLAYLISTS = "playlists_warm"
AUDIENCE = "audience_cold"
LEAST_TOTAL = 1e-12  # of what a perfect ranking gains: below it a query has no metric
BLOCK_SCORES = 2**23  # of one block: 32 MB of float32, of which a scorer may need a few

# (b,) int queries of a task -> (b, n) scores; the highest is ranked first
Scorer: TypeAlias = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Task:
    """Queries, each with its ranking of all candidates.

    candidates: track ids, or user ids where tracks are the queries. relevant, excluded: one array
    of columns per query, ascending and disjoint; an excluded column is not in that query's
    ranking. seeds: the track ids that describe each query, or each candidate if
    `seeds_of_candidates`. clusters: names; queries of one cluster are not independent. None = all
    are. candidate_groups: the name of each candidate's group; candidates of one group are not
    independent. None = the candidates are not a sample.
    """

    name: str
    queries: list[str]
    clusters: list[str] | None
    candidates: list[str]
    relevant: list[np.ndarray]
    excluded: list[np.ndarray]
    seeds: list[list[str]]
    seeds_of_candidates: bool = False
    candidate_groups: list[str] | None = None

    def with_groups(self, groups: Mapping[str, str]) -> "Task":
        """Returns the task with groups of candidates, by id; others are groups of their own."""
        names = [groups.get(candidate, candidate) for candidate in self.candidates]
        return replace(self, candidate_groups=names)

    def rows(self, rows: np.ndarray) -> "Task":
        """Returns the task with only these queries."""
        return replace(
            self,
            queries=pick(self.queries, rows),
            clusters=None if self.clusters is None else pick(self.clusters, rows),
            relevant=pick(self.relevant, rows),
            excluded=pick(self.excluded, rows),
            seeds=self.seeds if self.seeds_of_candidates else pick(self.seeds, rows),
        )


def next_tracks(
    interactions: pl.DataFrame,
    splits: Splits,
    usable: set[str],
    config: Config,
    cold_role: str = "test",
) -> list[Task]:
    """Returns [warm, cold], for listeners with a liked training track before the test window.

    usable: tracks that have vectors. cold_role: the role of cold tracks; "validation" for tuning.
    Warm excludes the tracks that a listener played before. Cold tracks count as new, so all are
    ranked.
    """
    log = interactions.filter(pl.col(TRACK_ID).is_in(list(usable)))
    past = before_test(splits, log)
    liked = in_test(splits, log).filter(is_positive(config.pairs.min_played_s))
    training = role_tracks(splits, "train", usable)
    cold = role_tracks(splits, cold_role, usable)
    seeds = _user_seeds(log, splits, usable, config)
    played = _group(past, USER_ID, TRACK_ID)
    relevant = _group(liked, USER_ID, TRACK_ID)
    return [
        _build_task(WARM, training, seeds, relevant, played, None),
        _build_task(COLD, cold, seeds, relevant, {}, None),
    ]


def pair_ranking(
    pairs: pl.DataFrame, splits: Splits, usable: set[str], artists: Mapping[str, str]
) -> Task:
    """Returns the task of pairs; queries by one artist are one cluster.

    pairs: anchor_id, a training track, and positive_id, a test track.
    """
    cold = role_tracks(splits, "test", usable)
    usable_pairs = pairs.filter(pl.col(ANCHOR_ID).is_in(list(usable)))
    relevant = _group(usable_pairs, ANCHOR_ID, POSITIVE_ID)
    seeds = {anchor: [anchor] for anchor in relevant}
    return _build_task(PAIRS, cold, seeds, relevant, {}, artists)


def playlist_continuation(
    interactions: pl.DataFrame, splits: Splits, usable: set[str]
) -> list[Task]:
    """Returns [cold, warm]; playlists of one listener are one cluster.

    A playlist is the `playlist` events of one session of one listener, in order of time. cold:
    seeds are its training tracks before the test window, relevant are its test tracks. warm: only
    playlists that begin in the test window; seeds are the first half of their training tracks,
    which are excluded from the ranking, relevant is the rest.
    """
    is_entry = (pl.col(EVENT) == "playlist") & pl.col(TRACK_ID).is_in(list(usable))
    name = pl.concat_str(USER_ID, pl.lit(" / "), pl.col(SESSION_ID).fill_null(""))
    entries = (
        interactions.filter(is_entry)
        .with_columns(playlist=name)
        .sort(PLAYED_AT, "playlist", TRACK_ID)
        .unique(["playlist", TRACK_ID], keep="first", maintain_order=True)
    )
    owners = dict(entries.select("playlist", USER_ID).unique().iter_rows())
    training = role_tracks(splits, "train", usable)
    cold = role_tracks(splits, "test", usable)
    is_training = pl.col(TRACK_ID).is_in(training)
    early = before_test(splits, entries)
    seeds = _group(early.filter(is_training), "playlist", TRACK_ID)
    relevant = _group(entries.filter(pl.col(TRACK_ID).is_in(cold)), "playlist", TRACK_ID)
    new = in_test(splits, entries).join(
        early.select("playlist").unique(), on="playlist", how="anti", maintain_order="left"
    )
    first_halves = {}
    second_halves = {}
    for playlist, track_ids in _group(new.filter(is_training), "playlist", TRACK_ID).items():
        middle = (len(track_ids) + 1) // 2
        first_halves[playlist] = track_ids[:middle]
        second_halves[playlist] = track_ids[middle:]
    return [
        _build_task(PLAYLISTS, cold, seeds, relevant, {}, owners),
        _build_task(NEW_PLAYLISTS, training, first_halves, second_halves, first_halves, owners),
    ]


def audience(
    interactions: pl.DataFrame,
    splits: Splits,
    usable: set[str],
    config: Config,
    artists: Mapping[str, str],
) -> Task:
    """Returns the task with test tracks as queries and listeners with seeds as candidates.

    Tracks of one artist are one cluster.
    """
    seeds = _user_seeds(interactions, splits, usable, config)
    user_ids = sorted(seeds)
    track_ids = role_tracks(splits, "test", usable)
    liked = in_test(splits, interactions).filter(is_positive(config.pairs.min_played_s))
    relevant = _group(liked.filter(pl.col(TRACK_ID).is_in(track_ids)), TRACK_ID, USER_ID)
    no_seeds: dict[str, list[str]] = {track_id: [] for track_id in track_ids}
    task = _build_task(AUDIENCE, user_ids, no_seeds, relevant, {}, artists)
    return replace(task, seeds=pick(seeds, user_ids), seeds_of_candidates=True)


def role_tracks(splits: Splits, role: str, usable: set[str]) -> list[str]:
    """Returns the usable tracks of a role, sorted by id."""
    return sorted(track_id for track_id in usable if splits.roles.get(track_id) == role)


def _build_task(
    name: str,
    candidates: list[str],
    seeds: Mapping[str, list[str]],
    relevant_ids: Mapping[str, Sequence[str]],
    excluded_ids: Mapping[str, Sequence[str]],
    clusters: Mapping[str, str] | None,
) -> Task:
    """Returns the queries of `seeds`, by name, that have a relevant candidate left."""
    column_of = {candidate: column for column, candidate in enumerate(candidates)}

    def columns(ids: Sequence[str]) -> np.ndarray:
        distinct = {column_of[item_id] for item_id in ids if item_id in column_of}
        return np.array(sorted(distinct), dtype=np.int64)

    queries = []
    relevant = []
    excluded = []
    for query in sorted(seeds):
        excluded_columns = columns(excluded_ids.get(query, ()))
        relevant_columns = np.setdiff1d(columns(relevant_ids.get(query, ())), excluded_columns)
        if len(relevant_columns):
            queries.append(query)
            relevant.append(relevant_columns)
            excluded.append(excluded_columns)
    names = None if clusters is None else [clusters.get(query, query) for query in queries]
    return Task(name, queries, names, candidates, relevant, excluded, pick(seeds, queries))


def _user_seeds(
    interactions: pl.DataFrame, splits: Splits, usable: set[str], config: Config
) -> dict[str, list[str]]:
    """Returns each user's latest liked training tracks before the test window, newest first."""
    training = role_tracks(splits, "train", usable)
    is_seed = is_positive(config.pairs.min_played_s) & pl.col(TRACK_ID).is_in(training)
    newest = (
        before_test(splits, interactions)
        .filter(is_seed)
        .sort(PLAYED_AT, TRACK_ID, descending=[True, False])
        .unique([USER_ID, TRACK_ID], keep="first", maintain_order=True)
    )
    latest = pl.col(TRACK_ID).head(config.search.n_seed_tracks)
    return dict(newest.group_by(USER_ID, maintain_order=True).agg(latest).iter_rows())


def _group(events: pl.DataFrame, key: str, column: str) -> dict[str, list[str]]:
    """Returns each key's distinct values of the column, in order of first appearance."""
    distinct = events.select(key, column).unique(maintain_order=True)
    return dict(distinct.group_by(key, maintain_order=True).agg(column).iter_rows())


@dataclass(frozen=True)
class DeduplicatedTask:
    """A task over recordings, `task`, and its queries over tracks, `tracks`, for scorers.

    numbers: (n,) each track's recording, as a column of `task`.
    """

    task: Task
    tracks: Task
    numbers: np.ndarray

    def plays(self, events: pl.DataFrame) -> np.ndarray:
        """Returns (r,), how often each recording was played in `events` as any of its tracks."""
        counts = popularity(events, self.tracks.candidates)
        return np.bincount(self.numbers, counts, minlength=len(self.task.candidates))

    def scorer(self, track_scorer: Scorer) -> Scorer:
        """Returns a scorer of recordings; a recording gets the score of its best track.

        track_scorer: a scorer of `tracks`.
        """
        if self.task is self.tracks:
            return track_scorer
        order = np.argsort(self.numbers, kind="stable")
        starts = np.searchsorted(self.numbers[order], np.arange(len(self.task.candidates)))
        return lambda rows: np.maximum.reduceat(track_scorer(rows)[:, order], starts, axis=1)


def deduplicate_task(task: Task, recordings: Mapping[str, str]) -> DeduplicatedTask:
    """Returns the task with one candidate per recording, named by its first track's id.

    recordings: a recording's name by track id; a track without one is a recording of its own. A
    recording is relevant if one of its tracks is, and excluded if one of them is. Queries without
    a relevant recording are dropped. If users are the candidates, or no two candidates are copies,
    the task is unchanged.
    """
    names = [recordings.get(track_id, track_id) for track_id in task.candidates]
    if task.seeds_of_candidates or len(set(names)) == len(names):
        return DeduplicatedTask(task, task, np.arange(len(names)))
    column_of = {name: column for column, name in enumerate(dict.fromkeys(names))}
    numbers = np.array(pick(column_of, names), dtype=np.int64)
    first_tracks = np.unique(numbers, return_index=True)[1]
    relevant = []
    excluded = []
    for relevant_tracks, excluded_tracks in zip(task.relevant, task.excluded, strict=True):
        excluded_recordings = np.unique(numbers[excluded_tracks])
        relevant.append(np.setdiff1d(numbers[relevant_tracks], excluded_recordings))
        excluded.append(excluded_recordings)
    groups = None if task.candidate_groups is None else pick(task.candidate_groups, first_tracks)
    deduplicated = replace(
        task,
        candidates=pick(task.candidates, first_tracks),
        candidate_groups=groups,
        relevant=relevant,
        excluded=excluded,
    )
    kept = np.flatnonzero([len(columns) > 0 for columns in relevant])
    return DeduplicatedTask(deduplicated.rows(kept), task.rows(kept), numbers)


def score_at_random(task: Task, seed: int) -> Scorer:
    """Returns a scorer of random numbers, which depend on `seed` and the query's row alone."""

    def scores(rows: np.ndarray) -> np.ndarray:
        n = len(task.candidates)
        return np.stack([np.random.default_rng([seed, int(row)]).random(n) for row in rows])

    return scores


def score_by_order(values: np.ndarray) -> Scorer:
    """Returns a scorer that gives every query the same (n,) scores, such as popularity."""
    return lambda rows: np.broadcast_to(values, (len(rows), len(values)))


def score_by_factors(queries: np.ndarray, candidates: np.ndarray) -> Scorer:
    """Returns a scorer of dot products. queries: (q, f); candidates: (n, f)."""
    return lambda rows: queries[rows] @ candidates.T


def score_by_similarity(task: Task, vectors: Mapping[str, np.ndarray]) -> Scorer:
    """Returns a scorer of cosines between each query's seed and the candidates, as `similar`.

    vectors: (d,) unit vectors by track id. ShapeError if a query does not have exactly one seed.
    """
    if any(len(seeds) != 1 for seeds in task.seeds):
        raise ShapeError(f"{task.name}: similarity needs one seed per query")
    seed_vectors = _stack(vectors, [seeds[0] for seeds in task.seeds])
    return score_by_factors(seed_vectors, _stack(vectors, task.candidates))


def score_by_profile(
    task: Task, spaces: Sequence[tuple[float, Mapping[str, np.ndarray]]], search: SearchConfig
) -> Scorer:
    """Returns a scorer by the profile that the seeds give, as `recommend`.

    spaces: a weight and (d,) unit vectors by track id for each space; all hold the same tracks.
    Profiles are fitted on all of those tracks, as in the index. In `audience` the seeds are those
    of the candidates, and the queries are tracks.
    """
    user_parts = []
    track_parts = []
    track_ids = task.queries if task.seeds_of_candidates else task.candidates
    for weight, vectors in spaces:
        row_of = {track_id: row for row, track_id in enumerate(sorted(vectors))}
        matrix = _stack(vectors, list(row_of))
        profiles = fit_profiles(matrix, search.profile_l2)
        seed_rows = [np.array(pick(row_of, seeds)) for seeds in task.seeds]
        user_parts.append(weight * score_directions(profiles, matrix, seed_rows))
        levels = profiles.levels(matrix, search.hub_correction)[:, None]
        levelled = levels * (matrix - profiles.mean)
        track_parts.append(levelled[pick(row_of, track_ids)])
    users = np.concatenate(user_parts, axis=1).astype(np.float32)
    tracks = np.concatenate(track_parts, axis=1).astype(np.float32)
    if task.seeds_of_candidates:
        return score_by_factors(tracks, users)
    return score_by_factors(users, tracks)


def _stack(vectors: Mapping[str, np.ndarray], track_ids: list[str]) -> np.ndarray:
    return np.stack(pick(vectors, track_ids)).astype(np.float32)


@dataclass(frozen=True)
class Measured:
    """Metrics by name. values: (q,) of every query. sums: (2, A), as in `CandidateGroups`.

    sums is empty for a task without groups of candidates.
    """

    values: dict[str, np.ndarray]
    sums: dict[str, np.ndarray]


@dataclass(frozen=True)
class RankingResult:
    """The metrics and lists of a ranked task.

    by_stratum: the same within each stratum of candidates. group_names: of the A groups of
    candidates, sorted. lists: (q, k) columns of the first candidates, -1 = no candidate left.
    """

    measured: Measured
    by_stratum: dict[str, Measured]
    group_names: list[str]
    lists: np.ndarray

    @property
    def metrics(self) -> dict[str, np.ndarray]:
        """The metrics of every query, (q,) each, by name."""
        return self.measured.values


class _TermSums:
    """Collects the metrics of queries, and what each group of candidates adds to them.

    group_numbers: (n,) of the candidates, or None.
    """

    def __init__(self, group_numbers: np.ndarray | None) -> None:
        self._group_numbers = group_numbers
        self._rows: list[dict[str, float]] = []
        self._candidates: list[np.ndarray] = []  # the group numbers of a query's hits
        self._ties: list[np.ndarray] = []  # which group of ties each of them is in
        self._sizes: list[np.ndarray] = []  # the number of hits of each group of ties
        self._terms: dict[str, list[MetricTerms]] = {}

    def add(self, groups: TieGroups, k: int, hits: np.ndarray, hit_scores: np.ndarray) -> None:
        """Adds a query. hits: (r,) columns of the relevant candidates, with their scores."""
        terms = metric_terms(groups, k)
        self._rows.append({name: metric.value for name, metric in terms.items()})
        if self._group_numbers is None or not len(hits):
            return
        self._candidates.append(self._group_numbers[hits])
        self._ties.append(np.unique(-hit_scores, return_inverse=True)[1])  # best first
        self._sizes.append(groups.hits)
        for name, metric in terms.items():
            self._terms.setdefault(name, []).append(metric)

    def measured(self) -> Measured:
        """Returns the metrics of all queries that were added."""
        values = metric_columns(self._rows)
        sums = {}
        if self._group_numbers is not None:
            n_groups = int(self._group_numbers.max()) + 1
            for name in values:
                sums[name] = self._sum_terms(self._terms.get(name, []), n_groups)
        return Measured(values, sums)

    def _sum_terms(self, terms: list[MetricTerms], n_groups: int) -> np.ndarray:
        """Returns (2, A), a metric's gains and ideals by group, each query's over its total."""
        if not terms:
            return np.zeros((2, n_groups))
        n_ties = np.array(list(map(len, self._sizes)))  # of each query
        starts = np.cumsum(n_ties) - n_ties
        gains = np.concatenate([metric.gains for metric in terms])
        ideals = np.concatenate([metric.ideals for metric in terms])
        totals = np.maximum(np.add.reduceat(ideals, starts), LEAST_TOTAL)
        sizes = np.concatenate(self._sizes) * np.repeat(totals, n_ties)
        first_ties = np.repeat(starts, list(map(len, self._ties)))
        tie_of_hit = np.concatenate(self._ties) + first_ties
        candidates = np.concatenate(self._candidates)
        by_group = []
        for shares in (gains / sizes, ideals / sizes):
            by_group.append(np.bincount(candidates, shares[tie_of_hit], n_groups))
        return np.stack(by_group)


def rank_task(
    task: Task, scorer: Scorer, k: int, strata: Mapping[str, np.ndarray] | None = None
) -> RankingResult:
    """Ranks every candidate for every query and measures the ranks of the relevant ones.

    Ties as in `metrics.ranking`. strata: (n,) bool by name; within a stratum, only its relevant
    candidates count, and relevant ones of other strata are taken out of the ranking. A query
    without any gets nan.
    DataError names a query with a score that is not finite; ShapeError if a scorer's result is not
    (b, n).
    Cost: one sort of n per query; memory for `BLOCK_SCORES` scores, or those of one query.
    """
    group_names: list[str] = []
    group_numbers = None
    if task.candidate_groups is not None:
        names, group_numbers = np.unique(task.candidate_groups, return_inverse=True)
        group_names = names.tolist()
    of_all = _TermSums(group_numbers)
    of_strata = {name: _TermSums(group_numbers) for name in strata or {}}
    lists = np.full((len(task.queries), k), -1, dtype=np.int64)
    step = max(1, BLOCK_SCORES // max(1, len(task.candidates)))
    for start in range(0, len(task.queries), step):
        block = np.arange(len(task.queries))[start : start + step]
        block_scores = _score_block(task, scorer, block)
        for query, scores in zip(block.tolist(), block_scores, strict=True):
            relevant = task.relevant[query]
            excluded = task.excluded[query]
            groups = group_ties(np.delete(scores, excluded), scores[relevant])
            of_all.add(groups, k, relevant, scores[relevant])
            for name, members in (strata or {}).items():
                restricted = restrict_to(groups, scores[relevant], members[relevant])
                hits = relevant[members[relevant]]
                of_strata[name].add(restricted, k, hits, scores[hits])
            allowed_scores = scores.copy()
            allowed_scores[excluded] = -np.inf
            lists[query] = top_k(allowed_scores[None], k)[0]
    by_stratum = {name: sums.measured() for name, sums in of_strata.items()}
    return RankingResult(of_all.measured(), by_stratum, group_names, lists)


def _score_block(task: Task, scorer: Scorer, block: np.ndarray) -> np.ndarray:
    scores = scorer(block)
    expected = (len(block), len(task.candidates))
    if scores.shape != expected:
        raise ShapeError(
            f"{task.name}: scores must be {expected}, queries by candidates; found {scores.shape}"
        )
    if not np.isfinite(scores).all():
        row, column = np.argwhere(~np.isfinite(scores))[0].tolist()
        raise DataError(
            f"{task.name}, {task.queries[block[row]]}: the score of {task.candidates[column]} is "
            f"{scores[row, column]}; embed again, or leave that track out"
        )
    return scores
