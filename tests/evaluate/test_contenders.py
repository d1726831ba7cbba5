"""The other methods: tuned on validation, fitted on all the past, and said aloud where they are missing."""

from collections.abc import Mapping

import numpy as np
import polars as pl
import pytest

from ponticello.api import Library
from ponticello.data.interactions import read_interactions
from ponticello.data.splits import Splits, load_splits
from ponticello.evaluate.collaborative import GRIDS, as_matrix, fit_als
from ponticello.evaluate.contenders import Contenders
from ponticello.evaluate.metrics import rank_metrics
from ponticello.evaluate.preference import Task, make_tasks


@pytest.fixture(scope="module")
def splits(trained_root: object) -> Splits:
    found = load_splits(Library.open(str(trained_root)).folder)
    assert found is not None
    return found


def contenders(library: Library, splits: Splits) -> Contenders:
    return Contenders(read_interactions(library.folder), splits, content(library), library.folder.config)


def content(library: Library) -> Mapping[str, np.ndarray]:
    vectors = library.index.vectors[:, : library.index.embed_dim]
    return dict(zip(library.index.track_ids, vectors, strict=True))


def tasks(library: Library, splits: Splits) -> list[Task]:
    return make_tasks(read_interactions(library.folder), splits, set(content(library)), library.folder.config)


def test_tuning_never_looks_into_the_test_window(trained: Library, splits: Splits) -> None:
    """The log without its test window gives the same choices and the same scores for the same task."""
    warm, cold = tasks(trained, splits)
    log = read_interactions(trained.folder)
    blind = log.filter(pl.col("played_at") < splits.validation_until)
    cut = Contenders(blind, splits, content(trained), trained.folder.config)
    whole = contenders(trained, splits)
    for task in (warm, cold):
        here, there = whole.scores(task), cut.scores(task)
        assert here.keys() == there.keys()
        assert all(np.array_equal(here[name], there[name]) for name in here)
    assert whole.notes == cut.notes


def test_warm_scores_are_those_of_the_chosen_point_on_all_the_past(trained: Library, splits: Splits) -> None:
    warm, _ = tasks(trained, splits)
    found = contenders(trained, splits)
    scores = found.scores(warm)["ALS"]
    past = read_interactions(trained.folder).filter(pl.col("played_at") < splits.validation_until)
    past = past.filter(pl.col("track_id").is_in(warm.candidates))
    users = sorted(past["user_id"].unique())
    matrix = as_matrix(past, users, warm.candidates, trained.folder.config.pairs.min_played_s)
    rows = np.array([users.index(user) for user in warm.users])
    by_point = [fit_als(matrix, **point, seed=0).scores(rows) for point in GRIDS["ALS"]]
    assert any(np.array_equal(scores, wanted) for wanted in by_point)


def test_collaborative_models_beat_chance_on_planted_taste(trained: Library, splits: Splits) -> None:
    warm, _ = tasks(trained, splits)
    found = contenders(trained, splits).scores(warm)
    auc = {
        name: float(np.nanmean(rank_metrics(s, warm.relevant, 10, warm.allowed)["auc"])) for name, s in found.items()
    }
    assert min(auc[name] for name in GRIDS) > auc["random"] + 0.05


def test_cold_tracks_are_reached_through_content_only(trained: Library, splits: Splits) -> None:
    _, cold = tasks(trained, splits)
    assert set(contenders(trained, splits).scores(cold)) == {"random", "popularity", "vectors to factors"}


def test_missing_implicit_is_said_and_the_rest_is_measured(
    trained: Library, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponticello.evaluate.contenders.find_spec", lambda _: None)
    warm, cold = tasks(trained, splits)
    found = contenders(trained, splits)
    assert set(found.scores(warm)) == {"random", "popularity", "item-kNN", "EASE"}
    assert set(found.scores(cold)) == {"random", "popularity"}
    assert {"ALS is not measured: pip install implicit", "BPR is not measured: pip install implicit"} <= set(
        found.notes
    )
    assert "Regression to factors is not measured: it needs implicit and validation events." in found.notes


def test_ease_stands_back_from_a_catalogue_too_large_for_it(
    trained: Library, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ponticello.evaluate.contenders.LARGEST_EASE", 5)
    warm, _ = tasks(trained, splits)
    found = contenders(trained, splits)
    assert "EASE" not in found.scores(warm)
    assert any(note.startswith("EASE is not measured: ") for note in found.notes)
