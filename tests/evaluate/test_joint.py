"""The joint measurement of a small trained library: every row is there, chance is chance, leaks are refused."""

from itertools import product
from math import isnan
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.api import Library
from ponticello.data.pairs import read_pairs, write_pairs
from ponticello.data.splits import load_splits
from ponticello.data.text import track_texts
from ponticello.errors import CheckpointError, DataError, LibraryError
from ponticello.evaluate.figures import Evaluation, Figure
from ponticello.evaluate.joint import evaluate_library
from ponticello.evaluate.report import write_report
from ponticello.model.htcl import HTCL

RUNS = {"stage one": "semantic", "stage two": "preference"}
RETRIEVAL = ("text to audio", "audio to text")
TASTE = ["Recall@10", "NDCG@10", "MRR", "AUC", "HitRate@10", "MAP@10"]
LISTS = ["mean plays@10", "same artist@10", "coverage@10", "hubness@10"]
SPACE = ["vectors not finite", "effective rank", "mean cosine", "uniformity", "hubness"]
SPACE += ["audio-text alignment", "modality gap"]
Row = tuple[str, str, str, str]


@pytest.fixture(scope="module")
def evaluation(trained_root: Path) -> Evaluation:
    return evaluate_library(Library.open(trained_root).folder, RUNS, "tags")


def _rows(figures: list[Figure]) -> dict[Row, Figure]:
    return {(figure.side, figure.task, figure.metric, figure.method): figure for figure in figures}


def _test_rows(library: Library) -> list[int]:
    splits = load_splits(library.folder)
    assert splits is not None
    return [row for row, track_id in enumerate(library.index.track_ids) if splits.roles[track_id] == "test"]


def test_every_row_of_the_table_is_there_once(evaluation: Evaluation) -> None:
    stages = ("stage one", "stage two")
    wanted: set[Row] = set()
    wanted |= set(product(["meaning"], RETRIEVAL, ["R@1", "R@5", "R@10", "median rank"], ["random", *stages]))
    wanted |= set(product(["meaning"], ["probe: tags"], ["macro ROC-AUC"], ["random", "mel statistics", *stages]))
    methods = ["random", "popularity", "mel statistics", "text only", *stages]
    collaborative = ["item-kNN", "EASE", "ALS", "BPR"]
    wanted |= set(product(["taste"], ["warm tracks, SIMULATED listeners"], TASTE, [*methods, *collaborative]))
    wanted |= set(product(["taste"], ["cold tracks, SIMULATED listeners"], TASTE, [*methods, "vectors to factors"]))
    lists = {
        (row[0], f"{row[1]}: the lists", metric, row[3]) for row in wanted if row[0] == "taste" for metric in LISTS
    }
    wanted |= lists
    wanted |= set(product(["integrity"], ["the space"], SPACE, stages))
    wanted.add(("integrity", "neighbours kept from stage one", "overlap@10", "stage two"))
    found = _rows(evaluation.figures)
    assert set(found) == wanted
    assert len(found) == len(evaluation.figures)


def test_every_figure_lies_within_its_interval_and_its_range(evaluation: Evaluation) -> None:
    for figure in evaluation.figures:
        assert figure.n > 0
        if figure.task == "the space" or figure.task.endswith("the lists"):
            continue  # single numbers without intervals, or without a range
        assert (
            figure.low - 1e-12 <= figure.value <= figure.high + 1e-12
        )  # means of equal numbers differ in the last bit
        assert 0 <= figure.value <= (12 if figure.metric == "median rank" else 1), figure


def test_chance_finds_k_of_n_tracks(evaluation: Evaluation, trained: Library) -> None:
    found, n = _rows(evaluation.figures), len(_test_rows(trained))
    assert n == 12
    for task, k in product(RETRIEVAL, (1, 5, 10)):
        figure = found["meaning", task, f"R@{k}", "random"]
        assert figure.value == pytest.approx(k / n)
        assert figure.n == n
        assert found["meaning", task, "median rank", "random"].value == (n + 1) / 2


def test_retrieval_figures_are_those_of_a_plain_search(evaluation: Evaluation, trained: Library) -> None:
    """Every test track's text against all test tracks' vectors, sorted; and the other way round."""
    rows = _test_rows(trained)
    texts = [track_texts(trained.tracks.sort("track_id"))[row] for row in rows]
    found = _rows(evaluation.figures)
    for method, run, columns in (("stage one", "semantic", slice(0, 64)), ("stage two", "preference", slice(64, 128))):
        text = HTCL.from_pretrained(trained.folder.run(run)).encode_text(texts)
        cosines = text @ trained.index.vectors[rows, columns].T
        for task, table in zip(RETRIEVAL, (cosines, cosines.T), strict=True):
            ranks = np.array([1 + (row > row[number]).sum() for number, row in enumerate(table)])
            for k in (1, 5, 10):
                assert found["meaning", task, f"R@{k}", method].value == pytest.approx((ranks <= k).mean())
            assert found["meaning", task, "median rank", method].value == np.median(ranks)


def test_popularity_says_nothing_about_cold_tracks(evaluation: Evaluation) -> None:
    assert _rows(evaluation.figures)["taste", "cold tracks, SIMULATED listeners", "AUC", "popularity"].value == 0.5


def test_differences_are_stage_two_minus_stage_one(evaluation: Evaluation) -> None:
    found = _rows(evaluation.figures)
    wanted = {row[:3] for row in found if row[2] != "median rank" and row[0] != "integrity" and "lists" not in row[1]}
    assert {(d.side, d.task, d.metric) for d in evaluation.differences} == wanted
    for change in evaluation.differences:
        one, two = (found[change.side, change.task, change.metric, method] for method in RUNS)
        assert change.value == pytest.approx(two.value - one.value, abs=1e-12)
        assert change.low - 1e-12 <= change.value <= change.high + 1e-12
        assert (change.method, change.n) == ("stage two - stage one", one.n)


def test_notes_name_simulated_listeners_and_what_was_ranked(evaluation: Evaluation) -> None:
    assert "SIMULATED LISTENERS: the taste figures show that planted taste is found, nothing else." in evaluation.notes
    (warm,) = (note for note in evaluation.notes if note.startswith("Taste, warm: "))
    (cold,) = (note for note in evaluation.notes if note.startswith("Taste, cold: "))
    n = _rows(evaluation.figures)["taste", "cold tracks, SIMULATED listeners", "MRR", "random"].n
    assert cold == f"Taste, cold: {n} listeners, 12 candidates, all of them ranked."
    assert warm.endswith("candidates, all of them ranked.")
    assert any(note.startswith("Probe on 'tags': logistic regression on ") for note in evaluation.notes)


def test_listeners_of_flesh_are_not_called_simulated(trained_copy: Library) -> None:
    log = pl.read_parquet(trained_copy.folder.interactions)
    log.with_columns(pl.col("user_id").str.replace("simulated-", "u")).write_parquet(trained_copy.folder.interactions)
    evaluation = evaluate_library(trained_copy.folder, {}, None)
    assert not any("SIMULATED" in text for text in [*evaluation.notes, *(figure.task for figure in evaluation.figures)])


def test_one_seed_gives_the_same_bytes_twice(evaluation: Evaluation, trained: Library, tmp_path: Path) -> None:
    again = evaluate_library(trained.folder, RUNS, "tags")
    for first, second in zip(
        write_report(tmp_path / "one", evaluation), write_report(tmp_path / "two", again), strict=True
    ):
        assert first.read_bytes() == second.read_bytes()


def test_one_stage_alone_has_figures_but_no_differences(trained: Library) -> None:
    evaluation = evaluate_library(trained.folder, {"stage one": "semantic"}, None)
    methods = {figure.method for figure in evaluation.figures}
    assert {"random", "popularity", "mel statistics", "text only", "ALS", "stage one"} <= methods
    assert "stage two" not in methods
    assert evaluation.differences == []
    assert not any("probe" in figure.task for figure in evaluation.figures)


def test_training_pair_with_a_test_track_is_refused_and_named(trained_copy: Library) -> None:
    folder = trained_copy.folder
    splits = load_splits(folder)
    assert splits is not None
    held_out = min(track_id for track_id, role in splits.roles.items() if role == "test")
    pairs = read_pairs(folder)
    row = pairs.head(1).with_columns(positive_id=pl.lit(held_out))
    write_pairs(folder, pl.concat([pairs, row]))
    wanted = f"anchor_id={row['anchor_id'][0]}, positive_id={held_out}"
    with pytest.raises(DataError, match=rf"not for training \(1 rows\): {wanted}; make the splits again"):
        evaluate_library(folder, RUNS, None)


def test_leaking_pairs_are_refused_without_a_log_too(trained_copy: Library) -> None:
    folder = trained_copy.folder
    splits = load_splits(folder)
    assert splits is not None
    held_out = min(track_id for track_id, role in splits.roles.items() if role == "test")
    pairs = read_pairs(folder)
    write_pairs(folder, pl.concat([pairs, pairs.head(1).with_columns(positive_id=pl.lit(held_out))]))
    folder.interactions.unlink()
    with pytest.raises(DataError, match="a training pair holds a track that is not for training"):
        evaluate_library(folder, RUNS, None)


def test_without_a_log_the_taste_side_is_said_to_be_not_measured(trained_copy: Library) -> None:
    trained_copy.folder.interactions.unlink()
    evaluation = evaluate_library(trained_copy.folder, RUNS, None)
    assert {figure.side for figure in evaluation.figures} == {"meaning", "integrity"}
    assert "No listening has been imported: the taste side is not measured." in evaluation.notes


def test_without_texts_retrieval_is_said_to_be_not_measured(trained_copy: Library) -> None:
    trained_copy.folder.interactions.unlink()
    trained_copy.tracks.select("track_id").write_parquet(trained_copy.folder.tracks)
    evaluation = evaluate_library(trained_copy.folder, RUNS, None)
    assert {figure.side for figure in evaluation.figures} == {"integrity"}
    assert evaluation.notes[0] == "Fewer than two test tracks have a text: retrieval is not measured."


def test_label_nobody_can_answer_is_said_to_be_not_measured(trained: Library) -> None:
    """Whole artists are held out, so no test artist was ever seen."""
    evaluation = evaluate_library(trained.folder, {}, "artist")
    assert not any(figure.task.startswith("probe") for figure in evaluation.figures)
    (note,) = (note for note in evaluation.notes if "probe" in note)
    assert note.startswith("The probe on 'artist' is not measured: ")
    assert note.endswith("labels in training and 0 test tracks carrying one of them.")


def test_unknown_label_column_is_named_with_those_there_are(trained: Library) -> None:
    with pytest.raises(DataError, match="tracks have no column 'mood' to probe; found track_id, title"):
        evaluate_library(trained.folder, {}, "mood")


def test_library_without_splits_or_run_says_what_to_run(trained_copy: Library) -> None:
    with pytest.raises(CheckpointError, match="other holds no model; train it with: ponticello train"):
        evaluate_library(trained_copy.folder, {"stage one": "other"}, None)
    trained_copy.folder.splits.unlink()
    with pytest.raises(LibraryError, match="nothing is held out yet; run: ponticello pairs"):
        evaluate_library(trained_copy.folder, RUNS, None)


def test_progress_says_what_is_done(trained: Library) -> None:
    said: list[str] = []
    evaluate_library(trained.folder, {"stage one": "semantic"}, None, said.append)
    steps = ["vectors of stage one", "text vectors", "meaning: retrieval", "integrity", "taste: ranking"]
    assert said == steps


def test_no_value_is_missing_in_a_library_where_everything_can_be_measured(evaluation: Evaluation) -> None:
    assert not any(isnan(figure.value) for figure in [*evaluation.figures, *evaluation.differences])
