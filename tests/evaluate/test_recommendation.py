"""The taste side: nothing is found where nothing is planted, strata, lists, and who is called
simulated.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.evaluate.recommendation import EvaluationListening, measure_preference
from ponticello.evaluate.results import Measurements, Scores
from ponticello.evaluate.vectors import EvaluationVectors
from ponticello.library import Library
from ponticello.listening.log import read_interactions
from ponticello.metrics.bootstrap import bootstrap_mean
from ponticello.pairs.mine import mine_test_pairs
from ponticello.splits.splits import Splits, load_splits
from ponticello.tracks.names import lead_artists

LISTS = {"mean plays@10", "same artist@10", "coverage@10", "hubness@10"}


def _listening(library: Library) -> EvaluationListening:
    splits = load_splits(library.folder)
    assert splits is not None
    pairs = mine_test_pairs(library.folder)
    return EvaluationListening(
        read_interactions(library.folder), splits, pairs, lead_artists(library.tracks)
    )


def _measure(library: Library, listening: EvaluationListening) -> Measurements:
    d, evaluation = library.index.embed_dim, Measurements()
    sides = {"stage_one": library.index.vectors[:, :d], "stage_two": library.index.vectors[:, d:]}
    ids = library.index.track_ids
    config = library.folder.config
    vectors = EvaluationVectors(config, library.tracks, ids, [], {}, [], sides, {}, None, {})
    measure_preference(evaluation, listening, vectors, 0, lambda _: None)
    return evaluation


@pytest.fixture(scope="module")
def evaluation(trained_root: Path) -> Measurements:
    library = Library.open(trained_root)
    return _measure(library, _listening(library))


def _found(evaluation: Measurements, task: str, metric: str = "NDCG@10") -> Scores:
    (scores,) = (s for s in evaluation.scores if (s.task, s.metric) == (task, metric))
    return scores


def _shuffled(log: pl.DataFrame, splits: Splits) -> pl.DataFrame:
    """Every listener's tracks under a random renaming of their own, within each role: no track
    means anything.
    """
    generator = np.random.default_rng(7)
    by_role: dict[str, list[str]] = {}
    for track_id, role in sorted(splits.roles.items()):
        by_role.setdefault(role, []).append(track_id)
    rows = []
    for user in sorted(log["user_id"].unique()):
        renamed: dict[str, str] = {}
        for ids in by_role.values():
            renamed |= dict(zip(ids, generator.permutation(ids).tolist(), strict=True))
        own = log.filter(pl.col("user_id") == user)
        rows.append(own.with_columns(pl.col("track_id", "context_track_id").replace(renamed)))
    return pl.concat(rows).sort("played_at", "user_id", "track_id")


def test_shuffled_interactions_land_inside_randoms_interval(trained: Library) -> None:
    """Paired with chance, no method's difference excludes 0 by more than its interval's half width.

    With 20 comparisons one 95 % interval is expected to miss 0 by a little, so the interval is
    taken twice as wide, which is 3.9 standard errors: less than one chance in 500 for all of them
    together.
    """
    listening = _listening(trained)
    shuffled = EvaluationListening(
        _shuffled(listening.interactions, listening.splits), listening.splits, listening.pairs, {}
    )
    evaluation = _measure(trained, shuffled)
    compared = 0
    for task in ("next_tracks_warm", "next_tracks_cold"):
        found = _found(evaluation, task)
        for method, values in found.by_method.items():
            if method != "random":
                mean, low, high = bootstrap_mean(values - found.by_method["random"], None, 1000, 0)
                assert low - (mean - low) <= 0 <= high + (high - mean), (
                    f"{method} on {task}: {mean} [{low}, {high}]"
                )
                compared += 1
    assert compared >= 8


def test_planted_taste_is_found_by_the_same_rule(evaluation: Measurements) -> None:
    """What the shuffled log cannot show: the test above would fail here."""
    found = _found(evaluation, "next_tracks_warm")
    mean, low, _ = bootstrap_mean(found.by_method["als"] - found.by_method["random"], None, 1000, 0)
    assert low - (mean - low) > 0


def test_ndcg_is_the_metric_of_record_of_every_task(evaluation: Measurements) -> None:
    scores_of_record = [scores for scores in evaluation.scores if scores.of_record]
    assert all(scores.is_simulated for scores in scores_of_record)
    of_record = {scores.task: scores.metric for scores in scores_of_record}
    asked = [f"next_tracks_{kind}" for kind in ("warm", "cold")] + [
        "pairs_cold",
        "playlists_cold",
        "audience_cold",
    ]
    assert of_record == dict.fromkeys(asked, "NDCG@10")


def test_a_listener_counts_in_the_stratum_of_what_they_like(evaluation: Measurements) -> None:
    """Whoever has something to find has it among the popular ones, among the others, or both."""
    whole = _found(evaluation, "next_tracks_warm").by_method["stage_one"]
    parts = [
        _found(evaluation, f"next_tracks_warm:{name}").by_method["stage_one"]
        for name in ("most_played", "less_played")
    ]
    assert np.isfinite(whole).all()
    assert (np.isfinite(parts[0]) | np.isfinite(parts[1])).all()
    assert not np.isfinite(parts[0]).all()


def test_under_held_out_artists_nobody_is_asked_by_known_artist(evaluation: Measurements) -> None:
    assert not any("known_artist" in scores.task for scores in evaluation.scores)


def test_known_and_new_artists_are_told_apart_where_both_occur(trained: Library) -> None:
    listening = _listening(trained)
    cold = sorted(track_id for track_id, role in listening.splits.roles.items() if role == "test")
    warm = sorted(track_id for track_id, role in listening.splits.roles.items() if role == "train")
    artists = {
        **dict.fromkeys(warm, "ann"),
        **dict.fromkeys(cold[::2], "ann"),
        **dict.fromkeys(cold[1::2], "new"),
    }
    mixed = EvaluationListening(listening.interactions, listening.splits, listening.pairs, artists)
    tasks = {scores.task for scores in _measure(trained, mixed).scores}
    assert "next_tracks_cold:known_artist" in tasks
    assert "next_tracks_cold:new_artist" in tasks


def test_lists_are_described_beside_the_ranking(evaluation: Measurements) -> None:
    name = "lists:next_tracks_cold"
    found = {scores.metric for scores in evaluation.scores if scores.task == name}
    found |= {fact.metric for fact in evaluation.facts if fact.task == name}
    assert found == LISTS


def test_listeners_of_flesh_are_not_called_simulated(trained: Library) -> None:
    listening = _listening(trained)
    log = listening.interactions.with_columns(pl.col("user_id").str.replace("simulated-", "u"))
    evaluation = _measure(
        trained, EvaluationListening(log, listening.splits, listening.pairs, listening.artists)
    )
    assert not any(scores.is_simulated for scores in evaluation.scores)


def test_what_nobody_asks_is_said_to_be_not_measured(evaluation: Measurements) -> None:
    assert (
        "Taste, playlists, warm: not measured, nothing held out is to be found." in evaluation.notes
    )
