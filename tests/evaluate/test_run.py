"""The joint measurement of a small trained library: every row is there, chance is chance, leaks are
refused.
"""

import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import CheckpointError, ConfigError, DataError, LibraryError
from ponticello.evaluate import vectors as materials
from ponticello.evaluate.report.write import write_report
from ponticello.evaluate.results import Measurements, Scores, Summary
from ponticello.evaluate.run import (
    MethodsToCompare,
    evaluate_library,
    measure_library,
    measure_seeds,
)
from ponticello.features.store import (
    MANIFEST_SCHEMA,
    FeatureStore,
    hash_features,
    write_manifest,
    write_shard,
)
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.model.saving import space_id
from ponticello.pairs.mine import read_pairs, refresh_splits, write_pairs
from ponticello.splits.splits import load_splits, splits_sha256
from ponticello.tracks.catalog import merge_tracks
from ponticello.tracks.text import track_texts

RUNS = {"stage_one": "semantic", "stage_two": "preference"}
BOTH = MethodsToCompare(RUNS, labels=["tags"])
RETRIEVAL = ("text_to_audio", "audio_to_text")
Seeds = tuple[Summary, list[Measurements]]


@pytest.fixture(scope="module")
def two_seeds(trained_root: Path) -> Seeds:
    """The same runs measured twice, as if two seeds had been trained."""
    return measure_seeds(
        Library.open(trained_root).folder, [BOTH, BOTH], "ponticello evaluate", lambda _: None
    )


@pytest.fixture(scope="module")
def evaluation(two_seeds: Seeds) -> Measurements:
    return two_seeds[1][0]


def _found(evaluation: Measurements, task: str, metric: str) -> Scores:
    (scores,) = (s for s in evaluation.scores if (s.task, s.metric) == (task, metric))
    return scores


def _test_rows(library: Library) -> list[int]:
    splits = load_splits(library.folder)
    assert splits is not None
    return [
        row
        for row, track_id in enumerate(library.index.track_ids)
        if splits.roles[track_id] == "test"
    ]


def test_every_part_of_the_table_is_there_once(evaluation: Measurements) -> None:
    names = [(scores.section, scores.task, scores.metric) for scores in evaluation.scores]
    assert len(set(names)) == len(names)
    tasks = {task for _, task, _ in names}
    meaning = {*RETRIEVAL, "probe:tags", "zero_shot:tags", "music_to_music:tags"}
    taste = {f"next_tracks_{kind}" for kind in ("warm", "cold")}
    taste |= {"pairs_cold", "playlists_cold", "audience_cold"}
    assert meaning | taste | {"weights", "blend", "neighbours_kept"} <= tasks
    encoders = {"mel_statistics", "stage_one", "stage_two", "served"}
    assert set(_found(evaluation, "probe:tags", "macro ROC-AUC").by_method) == {
        "random",
        *encoders,
    }
    warm = _found(evaluation, "next_tracks_warm", "NDCG@10")
    others = {"random", "popularity", "item_knn", "als", "text"}
    assert set(warm.by_method) == others | encoders
    space = {
        fact.metric
        for fact in evaluation.facts
        if fact.task == "space" and fact.method == "stage_two"
    }
    assert {"effective rank", "audio-text alignment", "modality gap", "vectors not finite"} <= space


def test_every_score_stands_for_its_query(evaluation: Measurements) -> None:
    for scores in evaluation.scores:
        assert len(set(scores.queries)) == len(scores.queries)
        assert scores.clusters is None or len(scores.clusters) == len(scores.queries)
        for values in scores.by_method.values():
            assert values.shape == (len(scores.queries),)


def test_retrieval_is_that_of_a_plain_search(evaluation: Measurements, trained: Library) -> None:
    """Every test track's text against all test tracks' vectors, sorted; and the other way round."""
    rows = _test_rows(trained)
    texts = [track_texts(trained.tracks.sort("track_id"))[row] for row in rows]
    for method, run, columns in (
        ("stage_one", "semantic", slice(0, 64)),
        ("stage_two", "preference", slice(64, 128)),
    ):
        text = HTCL.from_pretrained(trained.folder.run(run)).encode_text(texts)
        cosines = text @ trained.index.vectors[rows, columns].T
        for task, table in zip(RETRIEVAL, (cosines, cosines.T), strict=True):
            ranks = np.array([1 + (row > row[number]).sum() for number, row in enumerate(table)])
            for k in (1, 5, 10):
                assert (
                    _found(evaluation, task, f"R@{k}").by_method[method].tolist()
                    == (ranks <= k).tolist()
                )


def test_the_front_begins_at_stage_one_and_ends_at_stage_two(evaluation: Measurements) -> None:
    """Both curves, and in both metrics, against what the stages got when they were measured
    themselves.
    """
    for name, metric in product(
        ("weights", "blend"), ("text_to_audio:MRR", "next_tracks_cold:NDCG@10")
    ):
        curve = _found(evaluation, name, metric).by_method
        assert list(curve) == ["0.00", "0.25", "0.50", "0.75", "1.00"]
        task = metric.partition(":")[0]
        measured = _found(evaluation, task, "MRR" if "MRR" in metric else "NDCG@10").by_method
        np.testing.assert_allclose(curve["0.00"], measured["stage_one"], atol=1e-6)
        np.testing.assert_allclose(curve["1.00"], measured["stage_two"], atol=1e-6)


def test_notes_name_simulated_listeners_and_what_was_ranked(evaluation: Measurements) -> None:
    assert (
        "SIMULATED LISTENERS: the taste figures show that planted taste is found, nothing else."
        in evaluation.notes
    )
    (cold,) = (note for note in evaluation.notes if note.startswith("Taste, next tracks, cold: "))
    n = len(_found(evaluation, "next_tracks_cold", "MRR").queries)
    assert cold == f"Taste, next tracks, cold: {n} queries, 12 candidates, all of them ranked."
    assert any(note.startswith("Stage two moved these tracks most: ") for note in evaluation.notes)


def test_a_summary_knows_its_data_and_its_seeds(two_seeds: Seeds, trained: Library) -> None:
    """Both seeds measured the same runs, so they may differ only in the baselines' random draws."""
    about = two_seeds[0].about
    splits = load_splits(trained.folder)
    assert splits is not None
    assert (about.seeds, about.command, about.is_simulated) == ((0, 1), "ponticello evaluate", True)
    one, two = (
        f"{run} (space {space_id(trained.folder.run(run))})" for run in ("semantic", "preference")
    )
    assert about.runs == {"stage_one": f"{one}, {one}", "stage_two": f"{two}, {two}"}
    assert about.splits_sha256 == splits_sha256(splits)
    assert (about.n_tracks, about.n_listeners) == (60, 80)
    spread = {
        figure.method: figure.seed_sd
        for figure in two_seeds[0].figures
        if figure.task.startswith("next_tracks_w")
    }
    assert spread["stage_two"] == 0
    assert spread["random"] > 0


def test_one_seed_gives_the_same_bytes_twice(trained: Library, tmp_path: Path) -> None:
    compared = MethodsToCompare(RUNS, labels=["tags"])
    for name in ("one", "two"):
        summary, evaluations = measure_seeds(
            trained.folder, [compared], "ponticello evaluate", lambda _: None
        )
        write_report(tmp_path / name, summary, evaluations)
    files = sorted(
        path.relative_to(tmp_path / "one")
        for path in (tmp_path / "one").rglob("*")
        if path.is_file()
    )
    assert {"figures.csv", "queries.parquet", "index.html"} <= {path.name for path in files}
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), (
            file
        )


def _with_leak(library: Library) -> str:
    """A training pair with a test track; gives how an error names it."""
    splits = load_splits(library.folder)
    assert splits is not None
    held_out = min(track_id for track_id, role in splits.roles.items() if role == "test")
    pairs = read_pairs(library.folder)
    row = pairs.head(1).with_columns(positive_id=pl.lit(held_out))
    write_pairs(library.folder, pl.concat([pairs, row]))
    return f"anchor_id={row['anchor_id'][0]}, positive_id={held_out}"


def test_training_pair_with_a_test_track_is_refused_and_named(trained_copy: Library) -> None:
    wanted = _with_leak(trained_copy)
    with pytest.raises(
        DataError, match=rf"not for training \(1 rows\): {wanted}; make the splits again"
    ):
        measure_library(trained_copy.folder, BOTH, 0)


def test_leaking_pairs_are_refused_without_a_log_too(trained_copy: Library) -> None:
    _with_leak(trained_copy)
    trained_copy.folder.interactions.unlink()
    with pytest.raises(DataError, match="a training pair holds a track that is not for training"):
        measure_library(trained_copy.folder, BOTH, 0)


def test_without_a_log_the_taste_side_is_said_to_be_not_measured(trained_copy: Library) -> None:
    trained_copy.folder.interactions.unlink()
    evaluation = measure_library(trained_copy.folder, BOTH, 0)
    assert {scores.section for scores in evaluation.scores} == {"semantic", "integrity"}
    assert "No listening has been imported: the taste side is not measured." in evaluation.notes


def test_without_texts_retrieval_is_said_to_be_not_measured(trained_copy: Library) -> None:
    trained_copy.folder.interactions.unlink()
    trained_copy.tracks.select("track_id").write_parquet(trained_copy.folder.tracks)
    trained_copy.folder.pairs.unlink()
    trained_copy.folder.splits.unlink()
    refresh_splits(trained_copy.folder)
    evaluation = measure_library(trained_copy.folder, MethodsToCompare(RUNS), 0)
    assert {scores.section for scores in evaluation.scores} == {"integrity"}
    assert "Fewer than two test tracks have a text: retrieval is not measured." in evaluation.notes


def test_text_encoder_that_is_not_here_costs_one_row_and_is_told(trained: Library) -> None:
    folder = Library.open(trained.folder.root, ["text.name=not-here"]).folder
    evaluation = measure_library(folder, MethodsToCompare({}), 0)
    assert not any("text" in scores.by_method for scores in evaluation.scores)
    assert any(
        note.startswith("text only is not measured: text encoder 'not-here'")
        for note in evaluation.notes
    )


def test_what_the_taggers_heard_has_its_own_row_but_not_on_their_own_tags(
    trained_copy: Library,
) -> None:
    """Frames of chance: they are measured as any vectors, but not on machine tags."""
    folder = trained_copy.folder
    ids = FeatureStore(folder.mels).track_ids
    rng = np.random.default_rng(0)
    frames = [rng.normal(size=(2, 8)).astype(np.float16) for _ in ids]
    folder.frames.mkdir()
    number = write_shard(folder.frames, frames)
    rows = [
        (t, number, 2 * n, 2, hash_features(frames[n]), "a.wav", 1, 1, "key")
        for n, t in enumerate(ids)
    ]
    write_manifest(folder.frames, pl.DataFrame(rows, schema=MANIFEST_SCHEMA, orient="row"))
    compared = MethodsToCompare({}, {}, ["tags", "machine_tags"])
    tags = pl.DataFrame(
        {"track_id": ids, "machine_tags": [["a", "b"][: 1 + n % 2] for n in range(len(ids))]}
    )
    merge_tracks(folder, tags, "tags")
    found = measure_library(folder, compared, 0)
    methods = {scores.task: set(scores.by_method) for scores in found.scores}
    assert "musicnn" in methods["music_to_music:tags"]
    assert "musicnn" not in methods["music_to_music:machine_tags"]
    assert all("musicnn" in by for task, by in methods.items() if task.startswith("next_tracks"))
    write_manifest(folder.frames, pl.DataFrame(rows[1:], schema=MANIFEST_SCHEMA, orient="row"))
    notes = measure_library(folder, compared, 0).notes
    assert (
        "MusiCNN is not measured: it has not heard every track (1 are missing); run: ponticello "
        "tag." in notes
    )


def test_unknown_label_column_is_named_with_those_there_are(trained: Library) -> None:
    with pytest.raises(
        DataError, match="tracks have no column 'mood' to read labels from; found track_id, title"
    ):
        measure_library(trained.folder, MethodsToCompare({}, labels=["mood"]), 0)


def test_library_without_splits_or_run_says_what_to_run(trained_copy: Library) -> None:
    with pytest.raises(
        CheckpointError, match="other holds no model; train it with: ponticello train"
    ):
        measure_library(trained_copy.folder, MethodsToCompare({"stage_one": "other"}), 0)
    trained_copy.folder.splits.unlink()
    with pytest.raises(LibraryError, match="nothing is held out yet; run: ponticello mine-pairs"):
        measure_library(trained_copy.folder, BOTH, 0)


def test_a_library_without_audio_is_evaluated_from_vectors_alone(
    make_library: Callable[[Path], Library], tmp_path: Path, trained: Library
) -> None:
    """Stage one's vectors from a file get what stage one gets, and are called by the name they were
    given.
    """
    library = make_library(tmp_path / "library")
    shutil.rmtree(library.folder.mels)
    index, file = trained.index, tmp_path / "theirs.npz"
    np.savez(file, ids=np.array(index.track_ids), vectors=index.vectors[:, : index.embed_dim])
    evaluation = measure_library(
        library.folder, MethodsToCompare({}, {"theirs": file}, ["tags"]), 0
    )
    warm = _found(evaluation, "next_tracks_warm", "NDCG@10").by_method
    assert {"theirs", "als", "random", "text"} <= warm.keys()
    assert "stage_one" not in warm
    own = _found(
        measure_library(trained.folder, MethodsToCompare({"stage_one": "semantic"}, {}, []), 0),
        "next_tracks_warm",
        "NDCG@10",
    )
    np.testing.assert_allclose(warm["theirs"], own.by_method["stage_one"], atol=1e-6)
    assert "No method has a text tower: retrieval is not measured." in evaluation.notes


def test_vectors_that_hold_a_text_are_not_asked_what_it_says(
    trained_copy: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags stand in the text that is fused with the sound; a column of one's own does not."""
    monkeypatch.setattr(materials, "served_vector_name", lambda _: "fused")
    folder = trained_copy.folder
    tracks = pl.read_parquet(folder.tracks)
    tracks.with_columns(mood=pl.col("tags")).write_parquet(folder.tracks)
    found = measure_library(
        folder, MethodsToCompare({"stage_two": "preference"}, labels=["tags", "mood"]), seed=0
    )
    fused = "stage_two_fused"
    assert fused in _found(found, "probe:mood", "macro ROC-AUC").by_method
    for task in ("probe:tags", "music_to_music:tags"):
        scores = [each for each in found.scores if each.task == task]
        assert scores
        assert all(fused not in each.by_method for each in scores)
    assert (
        "stage two, fused is not asked about tags: the text in its vectors says it." in found.notes
    )


def test_evaluate_library_writes_the_report_and_returns_its_summary(trained_copy: Library) -> None:
    steps: list[str] = []
    evaluation = evaluate_library(
        trained_copy.folder, preference="missing", labels=["tags"], on_step=steps.append
    )
    assert steps[:2] == [
        "stage two is left out: run 'missing' is not finished",
        "measuring leaks",
    ]
    assert evaluation.page == trained_copy.folder.report / "index.html"
    assert all(file.is_file() for file in evaluation.files)
    assert list(evaluation.summary.about.runs) == ["stage_one"]


def test_evaluation_is_refused_while_another_process_writes_the_library(
    trained_copy: Library,
) -> None:
    folder = trained_copy.folder
    with folder.lock(), pytest.raises(LibraryError) as error:
        evaluate_library(folder)
    assert error.value.code == "library_locked"
    assert not folder.report.exists()


def test_vectors_with_the_name_of_another_method_are_refused(trained: Library) -> None:
    with pytest.raises(ConfigError, match=r"a\.npz has the name of a method .*'musicnn'"):
        evaluate_library(trained.folder, vectors={"musicnn": "a.npz"})
