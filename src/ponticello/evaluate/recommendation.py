"""The taste side of the table: how well each method ranks what listeners want, and what its lists
are like.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.datasets.simulated import USER_PREFIX
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import Measurements, ScalarMetric, Scores
from ponticello.evaluate.tasks import (
    COLD,
    PAIRS,
    WARM,
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
from ponticello.metrics.beyond_accuracy import (
    EMPTY,
    coverage,
    hubness,
    mean_popularity,
    same_artist_share,
)
from ponticello.splits.splits import Splits
from ponticello.storage.schema import TRACK_ID, USER_ID

POPULAR_SHARE = 0.2  # of the candidates, the most played: the head of the head-and-tail strata
STRATUM_METRICS = ("NDCG", "Recall")


@dataclass(frozen=True)
class EvaluationListening:
    """What the taste side reads. pairs: anchor_id, positive_id for `pair_ranking`; artists: by
    track id, known ones.

    recordings: a name by track id where answers hold a recording once; empty where every track is
    its own.
    """

    interactions: pl.DataFrame
    splits: Splits
    pairs: pl.DataFrame
    artists: Mapping[str, str]
    recordings: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_simulated(self) -> bool:
        """Whether some listeners are made up."""
        return bool(self.interactions[USER_ID].str.starts_with(USER_PREFIX).any())


def preference_tasks(
    listening: EvaluationListening, usable: set[str], config: Config
) -> list[Task]:
    """Every taste task of a library, in the order of the report; those nobody asks are there too."""
    log, splits, artists = listening.interactions, listening.splits, listening.artists
    warm, cold = next_tracks(log, splits, usable, config)
    return [
        warm,
        cold,
        pair_ranking(listening.pairs, splits, usable, artists),
        *playlist_continuation(log, splits, usable),
        audience(log, splits, usable, config, artists),
    ]


def measure_preference(
    evaluation: Measurements,
    listening: EvaluationListening,
    vectors: Mapping[str, Mapping[str, np.ndarray]],
    content: str,
    config: Config,
    seed: int,
    say: Callable[[str], None],
    texts: Mapping[str, np.ndarray] | None = None,
) -> None:
    """Full ranking by every method.

    vectors: unit vectors by method and track id, of the same tracks. content: the method whose
    vectors carry what collaborative methods know to cold tracks. texts: as `TunedBaselines` takes
    them.
    """
    contenders = TunedBaselines(
        listening.interactions, listening.splits, vectors[content], config, seed, texts
    )
    for asked in preference_tasks(listening, set(vectors[content]), config):
        collapsed = deduplicate_task(asked, listening.recordings)
        task = collapsed.tracks
        title = display_name(task.name)
        if not task.queries:
            evaluation.notes.append(
                f"Taste, {title}: not measured, nothing held out is to be found."
            )
            continue
        say(f"taste: {title}, fitting the baselines")
        scorers = contenders.scorers(collapsed)
        for name, by_id in vectors.items():
            profile = (
                score_by_similarity(task, by_id)
                if task.name == PAIRS
                else score_by_profile(task, [(1.0, by_id)], config.search)
            )
            scorers[name] = collapsed.scorer(profile)
        task, plays = collapsed.task, collapsed.plays(contenders.late.liked)
        strata = _strata(task, listening, contenders.late.events, plays)
        say(f"taste: {title}, {len(scorers)} methods")
        ranked = {
            method: rank_task(task, scorer, config.evaluate.k, strata)
            for method, scorer in scorers.items()
        }
        _add_scores(evaluation, task, ranked, listening.is_simulated, config.evaluate.k)
        if task.name in (WARM, COLD):
            _describe_lists(evaluation, task, ranked, plays, listening, config)
        counts = f"{len(task.queries):,} queries, {len(task.candidates):,} candidates, all of them ranked"
        evaluation.notes.append(f"Taste, {title}: {counts}.")
        if n_copies := len(collapsed.tracks.candidates) - len(task.candidates):
            evaluation.notes.append(
                f"Taste, {title}: {n_copies:,} copies of candidates; a recording counts once."
            )
    notes = [
        re.sub(r"^vectors (to|and)", f"{display_name(content)} vectors \\1", note)
        for note in contenders.notes
    ]
    evaluation.notes += dict.fromkeys(notes)


def _strata(
    task: Task, listening: EvaluationListening, past: pl.DataFrame, plays: np.ndarray
) -> dict[str, np.ndarray]:
    """Which candidates are often played, and which are by an artist that was played before; only
    where both occur.
    """
    found = {}
    if task.name == WARM:
        order = np.argsort(-plays, kind="stable")
        popular = np.zeros(len(plays), dtype=bool)
        popular[order[: max(1, round(POPULAR_SHARE * len(plays)))]] = True
        found = {
            "most_played": popular,
            "less_played": ~popular,
        }
    elif task.name == COLD:
        heard = {listening.artists.get(track_id) for track_id in past[TRACK_ID].unique()} - {None}
        known = np.array([listening.artists.get(track_id) in heard for track_id in task.candidates])
        found = {"known_artist": known, "new_artist": ~known}
    return found if all(members.any() for members in found.values()) else {}


def _add_scores(
    evaluation: Measurements,
    task: Task,
    ranked: Mapping[str, RankingResult],
    is_simulated: bool,
    k: int,
) -> None:
    first = next(iter(ranked.values()))
    for metric in first.metrics:
        by_method = {method: found.metrics[metric] for method, found in ranked.items()}
        of_record = metric == f"NDCG@{k}"
        evaluation.scores.append(
            Scores(
                "preference",
                task.name,
                metric,
                task.queries,
                task.clusters,
                by_method,
                of_record,
                is_simulated=is_simulated,
            )
        )
    for name in first.by_stratum:
        for metric in (f"{start}@{k}" for start in STRATUM_METRICS):
            by_method = {method: found.by_stratum[name][metric] for method, found in ranked.items()}
            evaluation.scores.append(
                Scores(
                    "preference",
                    f"{task.name}:{name}",
                    metric,
                    task.queries,
                    task.clusters,
                    by_method,
                    is_simulated=is_simulated,
                )
            )


def _describe_lists(
    evaluation: Measurements,
    task: Task,
    ranked: Mapping[str, RankingResult],
    plays: np.ndarray,
    listening: EvaluationListening,
    config: Config,
) -> None:
    """What is in the first k places: how much of the catalogue, how popular, whose, and how
    unevenly.
    """
    k, name = config.evaluate.k, f"lists:{task.name}"
    artist_of = listening.artists
    numbers = {artist: number for number, artist in enumerate(sorted(set(artist_of.values())))}
    artists = np.array(
        [numbers.get(artist_of.get(t, ""), EMPTY) for t in task.candidates], dtype=np.int64
    )
    known = [{numbers[artist_of[t]] for t in seeds if t in artist_of} for seeds in task.seeds]
    each = {
        f"mean plays@{k}": {
            method: mean_popularity(found.lists, plays) for method, found in ranked.items()
        },
        f"same artist@{k}": {
            method: same_artist_share(found.lists, artists, known)
            for method, found in ranked.items()
        },
    }
    for metric, by_method in each.items():
        evaluation.scores.append(
            Scores(
                "integrity",
                name,
                metric,
                task.queries,
                task.clusters,
                by_method,
                is_simulated=listening.is_simulated,
            )
        )
    for method, found in ranked.items():
        n = len(task.candidates)
        for metric, value in (
            (f"coverage@{k}", coverage(found.lists, n)),
            (f"hubness@{k}", hubness(found.lists, n)),
        ):
            evaluation.facts.append(
                ScalarMetric(
                    "integrity",
                    name,
                    metric,
                    method,
                    value,
                    len(task.queries),
                    listening.is_simulated,
                )
            )
