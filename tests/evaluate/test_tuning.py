"""The other methods: tuned on validation, fitted on all the past, and said aloud where they are
missing.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from ponticello.config import Config
from ponticello.evaluate import tuning
from ponticello.evaluate.baselines import GRIDS
from ponticello.evaluate.recommendation import EvaluationListening, preference_tasks
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.tasks import AUDIENCE, COLD, PAIRS, WARM, Task, deduplicate_task, rank_task
from ponticello.evaluate.tuning import BASELINES, TunedBaselines
from ponticello.library import Library
from ponticello.listening.log import read_interactions
from ponticello.splits.splits import Splits, before_test, load_splits
from ponticello.tracks.names import lead_artists

NO_PAIRS = pl.DataFrame(schema={"anchor_id": pl.String, "positive_id": pl.String})


@pytest.fixture(scope="module")
def splits(trained_root: object) -> Splits:
    found = load_splits(Library.open(str(trained_root)).folder)
    assert found is not None
    return found


def content(library: Library) -> Mapping[str, np.ndarray]:
    vectors = library.index.vectors[:, : library.index.embed_dim]
    return dict(zip(library.index.track_ids, vectors, strict=True))


def config(library: Library, *baselines: str) -> Config:
    settings = library.folder.config
    return settings.model_copy(
        update={"evaluate": settings.evaluate.model_copy(update={"baselines": baselines})}
    )


def texts(library: Library, size: int = 3) -> dict[str, np.ndarray]:
    """A random unit vector for each track but the first."""
    drawn = np.random.default_rng(0).normal(size=(len(library.index.track_ids), size))
    unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return dict(list(zip(library.index.track_ids, unit, strict=True))[1:])


def made(
    library: Library, splits: Splits, *baselines: str, log: pl.DataFrame | None = None
) -> TunedBaselines:
    events = read_interactions(library.folder) if log is None else log
    settings = config(library, *baselines)
    return TunedBaselines(events, splits, content(library), settings, seed=0, texts=texts(library))


def tasks(library: Library, splits: Splits) -> dict[str, Task]:
    listening = EvaluationListening(
        read_interactions(library.folder), splits, NO_PAIRS, lead_artists(library.tracks)
    )
    return {
        task.name: task
        for task in preference_tasks(listening, set(content(library)), library.folder.config)
    }


def scores(found: TunedBaselines, task: Task) -> dict[str, np.ndarray]:
    return {
        name: scorer(np.arange(len(task.queries)))
        for name, scorer in found.scorers(deduplicate_task(task, {})).items()
    }


@pytest.mark.slow
def test_every_declared_method_answers_its_tasks_with_finite_scores(
    trained: Library, splits: Splits
) -> None:
    found = made(trained, splits, *BASELINES)
    for name, task in tasks(trained, splits).items():
        if not task.queries:
            continue
        by_method = scores(found, task)
        order = "activity" if name == AUDIENCE else "popularity"
        able = {method for method, baseline in BASELINES.items() if name in baseline.tasks}
        assert set(by_method) == {"random", order} | able
        for table in by_method.values():
            assert table.shape == (len(task.queries), len(task.candidates))
            assert np.isfinite(table).all()
    for method in BASELINES:
        assert any(
            note.startswith(f"{display_name(method)} cannot answer: ") for note in found.notes
        )


def test_nothing_of_the_test_window_is_looked_at(trained: Library, splits: Splits) -> None:
    """The log without its test window gives the same choices and scores for the same task."""
    blind = before_test(splits, read_interactions(trained.folder))
    here, there = (
        made(trained, splits, "item_knn", "als", "content_to_als", log=log) for log in (None, blind)
    )
    for name in (WARM, COLD):
        one, two = (
            scores(here, tasks(trained, splits)[name]),
            scores(there, tasks(trained, splits)[name]),
        )
        assert one.keys() == two.keys()
        assert all(np.array_equal(one[method], two[method]) for method in one)
    assert here.notes == there.notes


def test_collaborative_models_beat_chance_on_planted_taste(
    trained: Library, splits: Splits
) -> None:
    warm = tasks(trained, splits)[WARM]
    found = made(trained, splits, *GRIDS).scorers(deduplicate_task(warm, {}))
    auc = {
        name: float(np.nanmean(rank_task(warm, scorer, 10).metrics["AUC"]))
        for name, scorer in found.items()
    }
    assert min(auc[name] for name in GRIDS) > auc["random"] + 0.05


def test_an_audience_gets_the_scores_of_the_cold_task_turned_round(
    trained: Library, splits: Splits
) -> None:
    found = made(trained, splits, "content_knn", "content_to_als")
    cold, people = tasks(trained, splits)[COLD], tasks(trained, splits)[AUDIENCE]
    forwards, backwards = scores(found, cold), scores(found, people)
    rows = [
        people.queries.index(track_id) for track_id in cold.candidates if track_id in people.queries
    ]
    kept = [column for column, track_id in enumerate(cold.candidates) if track_id in people.queries]
    columns = [people.candidates.index(listener) for listener in cold.queries]
    for method in ("content_knn", "content_to_als"):
        turned = backwards[method][np.ix_(rows, columns)].T
        np.testing.assert_allclose(turned, forwards[method][:, kept], rtol=0, atol=1e-6)


def test_texts_are_read_beside_the_vectors(trained: Library, splits: Splits) -> None:
    """Vectors that are the same for all tracks, and texts that are the true vectors: ranked as by
    these alone.
    """
    names = ("profile", "content_to_als")
    log = read_interactions(trained.folder)
    settings = config(trained, *names)
    vectors = content(trained)
    cold = tasks(trained, splits)[COLD]
    alike = dict.fromkeys(vectors, np.ones(4, dtype=np.float32) / 2)

    def auc(baselines: TunedBaselines, name: str) -> float:
        scorer = baselines.scorers(deduplicate_task(cold, {}))[name]
        return float(np.nanmean(rank_task(cold, scorer, 10).metrics["AUC"]))

    blind = TunedBaselines(log, splits, alike, settings, 0)
    seeing = TunedBaselines(log, splits, vectors, settings, 0)
    reading = TunedBaselines(log, splits, alike, settings, 0, texts=vectors)
    for name in names:
        assert auc(blind, name) == pytest.approx(0.5)  # all tied
        assert auc(reading, name) == pytest.approx(auc(seeing, name), abs=0.05)
        assert auc(reading, name) > 0.55


@pytest.mark.parametrize("refit", [True, False])
def test_validation_tracks_are_fitted_on_where_stage_two_is(
    trained: Library, splits: Splits, refit: bool
) -> None:
    settings = config(trained, "als")
    preference = settings.preference.model_copy(update={"refit": refit})
    settings = settings.model_copy(update={"preference": preference})
    log = read_interactions(trained.folder)
    baselines = TunedBaselines(log, splits, content(trained), settings, seed=0)
    roles = {splits.roles[track_id] for track_id in baselines.late.track_ids}
    assert roles == ({"train", "validation"} if refit else {"train"})
    assert {splits.roles[track_id] for track_id in baselines.early.track_ids} == {"train"}
    liked = set(baselines.late.liked["track_id"])
    is_validation_liked = any(splits.roles[track_id] == "validation" for track_id in liked)
    assert is_validation_liked == refit
    warm = tasks(trained, splits)[WARM]
    assert scores(baselines, warm)["als"].shape == (len(warm.queries), len(warm.candidates))


def test_the_sum_standardises_what_its_two_terms_score(trained: Library, splits: Splits) -> None:
    baselines = made(trained, splits, "profile", "content_to_als", "profile_and_als")
    by_method = scores(baselines, tasks(trained, splits)[COLD])
    expected = np.zeros_like(by_method["profile"])
    for name in ("profile", "content_to_als"):
        centred = by_method[name] - by_method[name].mean(axis=1, keepdims=True)
        expected += centred / centred.std(axis=1, keepdims=True)
    np.testing.assert_allclose(by_method["profile_and_als"], expected, atol=1e-3)


def test_settings_name_the_methods_that_are_fitted(trained: Library, splits: Splits) -> None:
    found = made(trained, splits, "ease")
    assert set(found.scorers(deduplicate_task(tasks(trained, splits)[WARM], {}))) == {
        "random",
        "popularity",
        "ease",
    }
    assert set(found.scorers(deduplicate_task(tasks(trained, splits)[COLD], {}))) == {
        "random",
        "popularity",
    }
    assert not any("als" in note for note in found.notes)


def test_pairs_are_ranked_beside_chance_and_popularity_alone(
    trained: Library, splits: Splits
) -> None:
    task = tasks(trained, splits)[PAIRS]
    assert set(made(trained, splits, "als", "ease").scorers(deduplicate_task(task, {}))) == {
        "random",
        "popularity",
    }


def test_missing_implicit_is_said_and_the_rest_is_measured(
    trained: Library, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "find_spec", lambda _: None)
    found = made(trained, splits, "item_knn", "als", "content_to_als")
    assert set(found.scorers(deduplicate_task(tasks(trained, splits)[WARM], {}))) == {
        "random",
        "popularity",
        "item_knn",
    }
    assert set(found.scorers(deduplicate_task(tasks(trained, splits)[COLD], {}))) == {
        "random",
        "popularity",
    }
    wanted = (
        "ALS is not measured on next tracks, warm: it needs the package implicit; run: pip install "
        "implicit"
    )
    assert wanted in found.notes


def test_a_method_stands_back_from_a_catalogue_too_large_for_it(
    trained: Library, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = replace(BASELINES["ease"], max_tracks=5)
    monkeypatch.setitem(tuning.BASELINES, "ease", limited)
    warm = tasks(trained, splits)[WARM]
    found = made(trained, splits, "ease")
    assert "ease" not in found.scorers(deduplicate_task(warm, {}))
    n = len(found.late.track_ids)
    assert (
        f"EASE is not measured on {display_name(WARM)}: {n} tracks are too many for it; 5 are the "
        "most" in found.notes
    )


def test_settings_of_many_listeners_are_chosen_on_a_drawn_part_of_them(
    trained: Library, splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "MAX_TUNING_USERS", 5)
    found = made(trained, splits, "item_knn")
    assert len(found.tuning[WARM].queries) == 5
    assert any(note.startswith("Settings are chosen on 5 of ") for note in found.notes)
    assert np.isfinite(scores(found, tasks(trained, splits)[WARM])["item_knn"]).all()
    early = {name for name, _, is_late in found.models if not is_late}
    assert early == set(), "of what was tried, nothing is kept that is not asked again"


def test_popularity_is_what_was_liked_and_not_what_was_skipped(
    trained: Library, splits: Splits
) -> None:
    log = read_interactions(trained.folder)
    warm = tasks(trained, splits)[WARM]
    first = warm.candidates[0]
    skipped = log.filter(pl.col("track_id") == first).with_columns(event=pl.lit("skip"))
    skips = pl.concat([skipped] * 50)
    before, after = (
        scores(made(trained, splits, log=events), warm)["popularity"]
        for events in (log, pl.concat([log, skips]))
    )
    np.testing.assert_array_equal(after, before)
