"""Preference tasks: how well each method ranks what users like, and what its lists contain."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.datasets.simulated import USER_PREFIX
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import CandidateGroups, Measurements, ScalarMetric, Scores
from ponticello.evaluate.tasks import (
    COLD,
    NEW_PLAYLISTS,
    PAIRS,
    WARM,
    Measured,
    RankingResult,
    Task,
    audience,
    deduplicate_task,
    next_tracks,
    pair_ranking,
    playlist_continuation,
    rank_task,
    score_by_profile,
    score_by_similarity,
)
from ponticello.evaluate.tuning import TunedBaselines
from ponticello.evaluate.vectors import EvaluationVectors
from ponticello.metrics.beyond_accuracy import (
    EMPTY,
    coverage,
    hubness,
    mean_popularity,
    same_artist_share,
)
from ponticello.splits.splits import Splits
from ponticello.storage.schema import TRACK_ID, USER_ID

POPULAR_SHARE = 0.2  # of the candidates: those with the most plays are a stratum
STRATUM_METRICS = ("NDCG", "Recall")


@dataclass(frozen=True)
class EvaluationListening:
    """The listening data of an evaluation.

    pairs: anchor_id, positive_id, for `pair_ranking`; artists: by track id, where known.
    recordings: a recording's name by track id; empty if every track is ranked by itself. groups: a
    group's name by track id, as `artist_groups`; the groups are held out and drawn as a whole.
    """

    interactions: pl.DataFrame
    splits: Splits
    pairs: pl.DataFrame
    artists: Mapping[str, str]
    recordings: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_simulated(self) -> bool:
        """Whether some listeners are simulated."""
        return bool(self.interactions[USER_ID].str.starts_with(USER_PREFIX).any())


def preference_tasks(
    listening: EvaluationListening, usable: set[str], config: Config
) -> list[Task]:
    """Returns every preference task in the order of the report, those without queries included.

    Candidates that were held out are in groups; the training tracks are the catalogue itself.
    """
    interactions = listening.interactions
    splits = listening.splits
    tasks = next_tracks(interactions, splits, usable, config)
    tasks.append(pair_ranking(listening.pairs, splits, usable, listening.artists))
    tasks += playlist_continuation(interactions, splits, usable)
    tasks.append(audience(interactions, splits, usable, config, listening.artists))
    grouped = []
    for task in tasks:
        is_held_out = task.name not in (WARM, NEW_PLAYLISTS)
        grouped.append(task.with_groups(listening.groups) if is_held_out else task)
    return grouped


def measure_preference(
    measured: Measurements,
    listening: EvaluationListening,
    vectors: EvaluationVectors,
    seed: int,
    on_step: Callable[[str], None],
) -> None:
    """Adds the full ranking of every task by every method."""
    config = vectors.config
    content = vectors.by_id(vectors.content)
    baselines = TunedBaselines(
        listening.interactions, listening.splits, content, config, seed, vectors.fused_texts
    )
    for track_task in preference_tasks(listening, set(vectors.ids), config):
        deduplicated = deduplicate_task(track_task, listening.recordings)
        title = display_name(track_task.name)
        if not deduplicated.tracks.queries:
            measured.notes.append(f"Taste, {title}: not measured, nothing held out is to be found.")
            continue
        on_step(f"taste: {title}, fitting the baselines")
        scorers = baselines.scorers(deduplicated)
        for method in vectors.vectors:
            if track_task.name == PAIRS:
                scorer = score_by_similarity(deduplicated.tracks, vectors.by_id(method))
            else:
                spaces = vectors.spaces(method)
                scorer = score_by_profile(deduplicated.tracks, spaces, config.search)
            scorers[method] = deduplicated.scorer(scorer)
        task = deduplicated.task
        plays = deduplicated.plays(baselines.late.liked)
        strata = _strata(task, listening, baselines.late.events, plays)
        on_step(f"taste: {title}, {len(scorers)} methods")
        rankings = {}
        for method, scorer in scorers.items():
            rankings[method] = rank_task(task, scorer, config.evaluate.k, strata)
        _add_rankings(measured, task, rankings, listening.is_simulated, config.evaluate.k)
        if task.name in (WARM, COLD):
            _describe_lists(measured, task, rankings, plays, listening, config.evaluate.k)
        notes = measured.notes
        notes.append(
            f"Taste, {title}: {len(task.queries):,} queries, {len(task.candidates):,} candidates, "
            "all of them ranked."
        )
        n_copies = len(deduplicated.tracks.candidates) - len(task.candidates)
        if n_copies:
            notes.append(
                f"Taste, {title}: {n_copies:,} copies of candidates; a recording counts once."
            )
    beside = " and the texts" if vectors.fused_texts else ""
    measured.notes.append(
        f"The content that baselines read: the vectors of {display_name(vectors.content)}{beside}."
    )
    measured.notes += dict.fromkeys(baselines.notes)


def _strata(
    task: Task, listening: EvaluationListening, past: pl.DataFrame, plays: np.ndarray
) -> dict[str, np.ndarray]:
    """Returns strata of candidates, (n,) bool each; none if one of them is empty.

    Warm tasks: often played or not; cold tasks: by an artist with plays in `past` or not.
    """
    if task.name == WARM:
        order = np.argsort(-plays, kind="stable")
        is_popular = np.zeros(len(plays), dtype=bool)
        is_popular[order[: max(1, round(POPULAR_SHARE * len(plays)))]] = True
        strata = {"most_played": is_popular, "less_played": ~is_popular}
    elif task.name == COLD:
        artists = listening.artists
        played_artists = set(map(artists.get, past[TRACK_ID].unique())) - {None}
        is_played = np.array([artists.get(item) in played_artists for item in task.candidates])
        strata = {"known_artist": is_played, "new_artist": ~is_played}
    else:
        return {}
    if not all(members.any() for members in strata.values()):
        return {}
    return strata


def _add_rankings(
    measured: Measurements,
    task: Task,
    rankings: Mapping[str, RankingResult],
    is_simulated: bool,
    k: int,
) -> None:
    first = next(iter(rankings.values()))
    base = Scores(
        "preference", task.name, "", task.queries, task.clusters, {}, is_simulated=is_simulated
    )
    for metric in first.metrics:
        results = {method: ranking.measured for method, ranking in rankings.items()}
        scores = _scores_of(base, metric, results, first.group_names)
        measured.scores.append(replace(scores, of_record=metric == f"NDCG@{k}"))
    for stratum in first.by_stratum:
        results = {method: ranking.by_stratum[stratum] for method, ranking in rankings.items()}
        stratum_base = replace(base, task=f"{task.name}:{stratum}")
        for metric in STRATUM_METRICS:
            scores = _scores_of(stratum_base, f"{metric}@{k}", results, first.group_names)
            measured.scores.append(scores)


def _scores_of(
    base: Scores, metric: str, results: Mapping[str, Measured], group_names: list[str]
) -> Scores:
    by_method = {method: result.values[metric] for method, result in results.items()}
    groups = None
    if group_names:
        sums = {method: result.sums[metric] for method, result in results.items()}
        groups = CandidateGroups(group_names, sums)
    return replace(base, metric=metric, by_method=by_method, candidate_groups=groups)


def _describe_lists(
    measured: Measurements,
    task: Task,
    rankings: Mapping[str, RankingResult],
    plays: np.ndarray,
    listening: EvaluationListening,
    k: int,
) -> None:
    """Adds metrics of the first k candidates: popularity, artists, coverage and hubness."""
    artist_of = listening.artists
    numbers = {artist: number for number, artist in enumerate(sorted(set(artist_of.values())))}
    candidate_artists = np.array(
        [numbers.get(artist_of.get(item, ""), EMPTY) for item in task.candidates], dtype=np.int64
    )
    seed_artists = []
    for seeds in task.seeds:
        seed_artists.append({numbers[artist_of[item]] for item in seeds if item in artist_of})
    n_candidates = len(task.candidates)
    is_simulated = listening.is_simulated
    name = f"lists:{task.name}"
    mean_plays = {}
    same_artist = {}
    for method, ranking in rankings.items():
        mean_plays[method] = mean_popularity(ranking.lists, plays)
        same_artist[method] = same_artist_share(ranking.lists, candidate_artists, seed_artists)
        for metric, function in (("coverage", coverage), ("hubness", hubness)):
            value = function(ranking.lists, n_candidates)
            fact = ScalarMetric(
                "integrity", name, f"{metric}@{k}", method, value, len(task.queries), is_simulated
            )
            measured.facts.append(fact)
    for metric, by_method in (("mean plays", mean_plays), ("same artist", same_artist)):
        scores = Scores("integrity", name, f"{metric}@{k}", task.queries, task.clusters, by_method)
        measured.scores.append(replace(scores, is_simulated=is_simulated))
