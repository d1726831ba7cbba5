"""Both stages over MusiCNN's frames: nothing lost in stage one, something learned in stage two, the
same vectors.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ponticello.errors import CheckpointError, LibraryError
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.evaluate.run import MethodsToCompare, measure_library
from ponticello.features.frontend import open_features
from ponticello.features.musicnn_frontend import BLOCKS, musicnn_job
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.model.adapter import MIN_DEVIATION, AdapterHead
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import load_splits
from ponticello.tracks.catalog import audio_files
from ponticello.train.loop import TrainingLoop, TrainingObserver
from ponticello.train.preference import train_preference
from ponticello.train.selection import ValidationScores
from ponticello.train.semantic import train_semantic


@pytest.fixture(scope="module")
def heard_root(
    make_library: Callable[[Path], Library], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A small library with MusiCNN frames, trained and embedded over them."""
    root = tmp_path_factory.mktemp("heard") / "library"
    make_library(root)
    settings = (root / "ponticello.toml").read_text(encoding="utf-8")
    settings = settings.replace('front_end = "logmel"', 'front_end = "musicnn"')
    (root / "ponticello.toml").write_text(settings, encoding="utf-8")
    library = Library.open(root)
    with pytest.raises(LibraryError, match="run: ponticello prepare"):
        train_semantic(library.folder, "semantic", retrieval_figures)
    with library.folder.lock():
        prepare_features(
            library.folder,
            audio_files(library.folder),
            musicnn_job(library.folder),
            workers=2,
        )
    train_semantic(library.folder, "semantic", retrieval_figures)
    train_preference(library.folder, "preference", "semantic", retrieval_figures)
    library.embed("semantic", "preference")
    return root


@pytest.fixture
def heard(heard_root: Path) -> Library:
    return Library.open(heard_root)


def _cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def test_stage_one_keeps_what_the_front_end_hears(heard: Library) -> None:
    """39 training tracks: the vectors are their first 19 principal components, by a decomposition
    of their own here.
    """
    splits = load_splits(heard.folder)
    assert splits is not None
    training = [track_id for track_id in heard.index.track_ids if splits.roles[track_id] == "train"]
    store = FeatureStore(heard.folder.frames)
    own = heard.index.vectors[[heard.index.rows[track_id] for track_id in training], :64]
    means = np.stack([store.read(track_id).mean(axis=0, dtype=np.float64) for track_id in training])
    shares = np.concatenate([np.full(size, weight / size**0.5) for size, weight in BLOCKS])
    wanted = (means - means.mean(axis=0)) / np.maximum(means.std(axis=0), MIN_DEVIATION) * shares
    left, sizes, _ = np.linalg.svd(wanted, full_matrices=False)
    assert len(training) == 39
    np.testing.assert_allclose(_cosines(own), _cosines(left[:, :19] * sizes[:19]), atol=1e-4)


def test_stage_two_departs_and_stage_one_does_not(heard: Library) -> None:
    for run, is_moved in (("semantic", False), ("preference", True)):
        head = HTCL.from_pretrained(heard.folder.run(run)).audio_head
        assert isinstance(head, AdapterHead)
        assert bool(head.residual.weight.any()) == is_moved
    vectors = heard.index.vectors
    assert np.abs(vectors[:, :64] - vectors[:, 64:]).max() > 1e-3


def test_the_fused_vector_of_stage_one_is_its_audio_vector(heard: Library) -> None:
    """A fusion over a front end begins at nothing, also in a whole model, whose layers are all
    drawn anew.
    """
    model, store = (
        HTCL.from_pretrained(heard.folder.run("semantic")),
        FeatureStore(heard.folder.frames),
    )
    frames = [store.read(track_id) for track_id in store.track_ids]
    fused = model.encode_fused(frames, model.encode_text_states(["low dark slow"] * len(frames)))
    np.testing.assert_allclose(fused, model.encode_features(frames), atol=1e-6)


def test_a_file_gets_the_vector_the_index_holds(heard: Library) -> None:
    model = HTCL.from_pretrained(heard.folder.run("preference"))
    track_id, path = next(iter(audio_files(heard.folder).items()))
    found = model.encode_audio([path])[0]
    np.testing.assert_allclose(
        found, heard.index.vectors[heard.index.rows[track_id], 64:], atol=1e-5
    )
    assert heard.similar(path, k=1, blend=1.0)[0].track_id == track_id


def test_words_and_listeners_are_answered(heard: Library) -> None:
    assert len(heard.search("low dark slow", k=5)) == 5
    assert len(heard.recommend("simulated-0001", k=3)) == 3


def test_an_evaluation_says_that_the_taggers_own_tags_flatter(heard: Library) -> None:
    note = "stage one hear through the taggers that made machine_tags, which flatters them there."
    untuned = Library.open(heard.folder.root, ["evaluate.baselines=[]"])
    for column, is_noted in (("machine_tags", True), ("tags", False)):
        methods = MethodsToCompare({"stage_one": "semantic"}, labels=[column])
        assert (note in measure_library(untuned.folder, methods, 0).notes) == is_noted


def test_models_of_another_front_end_are_refused(heard: Library) -> None:
    log_mel = Library.open(heard.folder.root, ["front_end=logmel"])
    with pytest.raises(CheckpointError, match=r"other settings in \[front_end\]"):
        train_semantic(log_mel.folder, "semantic", retrieval_figures)
    with pytest.raises(CheckpointError, match=r"made with \[front_end\] musicnn"):
        train_preference(log_mel.folder, "other", "semantic", retrieval_figures)
    with pytest.raises(LibraryError, match="frames were prepared with other settings"):
        open_features(
            heard.folder, Library.open(heard.folder.root, ["mel.max_seconds=3.5"]).folder.config
        )


def test_validation_is_offered_the_very_beginning_of_stage_two(
    heard: Library, tmp_path: Path
) -> None:
    """Begun at random and judged after training: the last position is the weights before the first
    step.
    """
    shutil.copytree(
        heard.folder.root, tmp_path / "library", ignore=shutil.ignore_patterns("preference")
    )
    folder = Library.open(
        tmp_path / "library",
        ["preference.init=random", "preference.max_steps=5", "preference.seed=7"],
    ).folder
    began: list[torch.Tensor] = []
    judged: list[torch.Tensor] = []

    class _Watch(TrainingObserver):
        def on_start(self, loop: TrainingLoop[Any]) -> None:
            weight = loop.task.model.get_parameter("audio_head.residual.weight")
            began.append(weight.detach().clone())

    def judge(model: HTCL) -> ValidationScores:
        judged.append(model.audio_head.residual.weight.detach().clone())
        return ValidationScores({"audio": {}, "fused": {}}, {})

    train_preference(
        folder, "watched", "semantic", retrieval_figures, scorer=judge, observers=[_Watch()]
    )
    assert torch.equal(judged[-1], began[0])
    assert not torch.equal(judged[4], began[0]), "trained, the whole way"
    assert not judged[0].any(), "stage one"
