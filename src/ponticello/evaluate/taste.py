"""The taste side of the table: how well each method ranks what listeners play next, and what its lists are like."""

from collections.abc import Mapping

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.data.columns import ARTIST, TRACK_ID, USER_ID
from ponticello.data.listeners import USER_PREFIX
from ponticello.data.splits import Splits
from ponticello.evaluate.baselines import popularity
from ponticello.evaluate.contenders import Contenders
from ponticello.evaluate.figures import STAGE_ONE, Evaluation, Figure, add_figures
from ponticello.evaluate.lists import (
    EMPTY,
    average_precision_at_k,
    coverage,
    hit_rate_at_k,
    hubness,
    mean_popularity,
    same_artist_share,
    top_k,
)
from ponticello.evaluate.metrics import bootstrap_mean, rank_metrics
from ponticello.evaluate.preference import Task, make_tasks, scores_by_vectors


def measure_taste(
    evaluation: Evaluation,
    interactions: pl.DataFrame,
    splits: Splits,
    tracks: pl.DataFrame,
    vectors: Mapping[str, Mapping[str, np.ndarray]],
    config: Config,
) -> None:
    """Full ranking for warm and strictly cold tracks, of every method.

    vectors: unit vectors by method and track id; those of stage one, or of mel statistics before there is a stage one,
        carry collaborative factors to cold tracks.
    """
    content = vectors.get(STAGE_ONE, vectors["mel statistics"])
    contenders = Contenders(interactions, splits, content, config)
    simulated = interactions[USER_ID].str.starts_with(USER_PREFIX).any()
    if simulated:
        evaluation.notes.append(
            "SIMULATED LISTENERS: the taste figures show that planted taste is found, nothing else."
        )
    for task in make_tasks(interactions, splits, set(content), config):
        if not task.users:
            evaluation.notes.append(f"Taste, {task.name}: no listener has anything to find in the test window.")
            continue
        scores = contenders.scores(task)
        for method, by_id in vectors.items():
            scores[method] = scores_by_vectors(task, by_id, config.search.agreeing_seeds)
        name = f"{task.name} tracks" + (", SIMULATED listeners" if simulated else "")
        for metric, by_method in _rankings(task, scores, config.evaluate.k).items():
            add_figures(evaluation, ("taste", name, metric), by_method, None, config)
        plays = popularity(contenders.late.plays, task.candidates)
        _describe_lists(evaluation, f"{name}: the lists", task, scores, plays, tracks, config)
        evaluation.notes.append(
            f"Taste, {task.name}: {len(task.users)} listeners, {len(task.candidates)} candidates, all of them ranked."
        )
    evaluation.notes += dict.fromkeys(contenders.notes)


def _rankings(task: Task, scores: Mapping[str, np.ndarray], k: int) -> dict[str, dict[str, np.ndarray]]:
    """{metric: {method: one number a listener}}."""
    names = {f"recall@{k}": f"Recall@{k}", f"ndcg@{k}": f"NDCG@{k}", "mrr": "MRR", "auc": "AUC"}
    found: dict[str, dict[str, np.ndarray]] = {}
    for method, table in scores.items():
        for name, values in rank_metrics(table, task.relevant, k, task.allowed).items():
            found.setdefault(names[name], {})[method] = values
        rows = [(table[u][task.allowed[u]], task.relevant[u][task.allowed[u]]) for u in range(len(task.users))]
        found.setdefault(f"HitRate@{k}", {})[method] = np.array([hit_rate_at_k(*row, k) for row in rows])
        found.setdefault(f"MAP@{k}", {})[method] = np.array([average_precision_at_k(*row, k) for row in rows])
    return found


def _describe_lists(
    evaluation: Evaluation,
    name: str,
    task: Task,
    scores: Mapping[str, np.ndarray],
    plays: np.ndarray,
    tracks: pl.DataFrame,
    config: Config,
) -> None:
    """What is in the first k places: how much of the catalogue, how popular, whose, and how unevenly."""
    k, rounds, seed = config.evaluate.k, config.evaluate.bootstrap_rounds, config.evaluate.seed
    artist_of = dict(tracks.select(TRACK_ID, ARTIST).iter_rows())
    names = sorted({artist for artist in artist_of.values() if artist})
    numbers = {artist: number for number, artist in enumerate(names)}
    artists = np.array([numbers.get(artist_of[track_id], EMPTY) for track_id in task.candidates], dtype=np.int64)
    known = [{numbers[artist_of[t]] for t in seeds if artist_of.get(t)} for seeds in task.seeds]
    for method, table in scores.items():
        lists = top_k(table, min(k, len(task.candidates)), task.allowed)
        per_listener = {
            f"mean plays@{k}": mean_popularity(lists, plays),
            f"same artist@{k}": same_artist_share(lists, artists, known),
        }
        for metric, values in per_listener.items():
            n = int(np.isfinite(values).sum())
            interval = bootstrap_mean(values, None, rounds=rounds, seed=seed)
            evaluation.figures.append(Figure("taste", name, metric, method, *interval, n))
        whole = {
            f"coverage@{k}": coverage(lists, len(task.candidates)),
            f"hubness@{k}": hubness(lists, len(task.candidates)),
        }
        for metric, value in whole.items():
            nan = float("nan")
            evaluation.figures.append(Figure("taste", name, metric, method, value, nan, nan, len(task.users)))
