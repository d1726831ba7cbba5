"""Both stages over MusiCNN's frames: nothing lost in stage one, something learned in stage two, the
same vectors.
"""

from collections.abc import Callable
from pathlib import Path

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
from ponticello.model.adapter import MIN_DEVIATION
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import load_splits
from ponticello.tracks.catalog import audio_files, read_tracks
from ponticello.tracks.text import fused_texts
from ponticello.train.preference import train_preference
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
    model = HTCL.from_pretrained(heard.folder.run("semantic"))
    own = model.encode_audio_block([store.read(track_id) for track_id in training])
    means = np.stack([store.read(track_id).mean(axis=0, dtype=np.float64) for track_id in training])
    shares = np.concatenate([np.full(size, weight / size**0.5) for size, weight in BLOCKS])
    deviation = np.maximum(means.std(axis=0), MIN_DEVIATION)
    wanted = (means - means.mean(axis=0)) / deviation * shares
    left, sizes, _ = np.linalg.svd(wanted, full_matrices=False)
    assert len(training) == 39
    np.testing.assert_allclose(_cosines(own), _cosines(left[:, :19] * sizes[:19]), atol=1e-4)


def test_stage_two_leaves_the_semantic_space_and_trains_one_beside_it(heard: Library) -> None:
    semantic = HTCL.from_pretrained(heard.folder.run("semantic"))
    preference = HTCL.from_pretrained(heard.folder.run("preference"))
    assert semantic.preference_encoder is None
    kept = preference.state_dict()
    for name, weight in semantic.state_dict().items():
        assert torch.equal(kept[name], weight), name
    vectors = heard.index.vectors
    assert np.abs(vectors[:, :64] - vectors[:, 64:]).max() > 1e-3


def test_what_stage_two_trained_is_what_is_served(heard: Library) -> None:
    """A changed weight of the encoder changes the vectors of tracks, with text and without it, and
    of words.
    """
    model = HTCL.from_pretrained(heard.folder.run("preference"))
    store = FeatureStore(heard.folder.frames)
    features = [store.read(track_id) for track_id in store.track_ids[:4]]
    states = model.encode_text_states(["low dark slow"] * 4)
    before = (
        model.encode_fused(features, states),
        model.encode_features(features),
        model.encode_text_from_states(states),
    )
    assert model.preference_encoder is not None
    with torch.no_grad():
        for weight in model.preference_encoder.members.parameters():
            weight.add_(0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))
    after = (
        model.encode_fused(features, states),
        model.encode_features(features),
        model.encode_text_from_states(states),
    )
    for old, new in zip(before, after, strict=True):
        assert np.abs(old - new).max() > 0.01


def test_words_are_ranked_by_preference_at_blend_one(heard: Library) -> None:
    semantic = [result.track_id for result in heard.search("low dark slow", k=20, blend=0)]
    preference = [result.track_id for result in heard.search("low dark slow", k=20, blend=1)]
    assert semantic != preference


def test_a_semantic_vector_holds_the_sound_and_the_text_or_what_the_sound_predicts(
    heard: Library,
) -> None:
    model = HTCL.from_pretrained(heard.folder.run("semantic"))
    store = FeatureStore(heard.folder.frames)
    frames = [store.read(track_id) for track_id in store.track_ids]
    states = model.encode_text_states(["low dark slow"] * len(frames))
    states[0] = 0
    sound = model.encode_features(frames)
    fused = model.encode_fused(frames, states)
    np.testing.assert_allclose(fused[0], sound[0], atol=1e-6)
    np.testing.assert_allclose(fused[:, :32], sound[:, :32], atol=1e-6)
    assert np.abs(fused[1:, 32:] - fused[1, 32:]).max() < 1e-6  # the same text
    assert np.abs(fused[1:, 32:] - sound[1:, 32:]).max(axis=1).min() > 0.01
    served = dict(zip(heard.index.track_ids, heard.index.vectors[:, :64], strict=True))
    texts = fused_texts(read_tracks(heard.folder), "musicnn")
    states = model.encode_text_states([texts[track_id] for track_id in store.track_ids])
    fused = model.encode_fused(frames, states)
    np.testing.assert_allclose([served[track] for track in store.track_ids], fused, atol=1e-5)


def test_a_file_gets_the_vector_of_its_track_without_text(heard: Library) -> None:
    model = HTCL.from_pretrained(heard.folder.run("preference"))
    track_id, path = next(iter(audio_files(heard.folder).items()))
    features = FeatureStore(heard.folder.frames).read(track_id)
    expected = model.encode_features([features])[0]
    np.testing.assert_allclose(model.encode_audio([path])[0], expected, atol=1e-5)


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
