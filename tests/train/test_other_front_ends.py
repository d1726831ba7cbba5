"""Libraries over vectors the user has, without any audio, and over a Hugging Face encoder: from
prepare to answers.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner, Result

from ponticello.cli.main import app
from ponticello.errors import CheckpointError, LibraryError
from ponticello.evaluate.results import STAGE_ONE, STAGE_TWO
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.evaluate.run import MethodsToCompare, measure_library
from ponticello.evaluate.validation import score_on_validation
from ponticello.features.frontend import open_features
from ponticello.features.store import FeatureStore, read_manifest, write_manifest
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.model.saving import CHECKSUMS, front_end_weights
from ponticello.pairs.mine import mine_library
from ponticello.splits.splits import load_splits
from ponticello.storage.schema import PATH, TRACK_ID
from ponticello.tracks.catalog import audio_files, read_tracks
from ponticello.tracks.text import fused_texts
from ponticello.train.loop import TrainingLoop, TrainingObserver
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic
from tests.synthetic import SyntheticCatalogue

SIZE = 12  # numbers of a given vector, most of them noise


def _set_front_end(root: Path, lines: str) -> Library:
    settings = (root / "ponticello.toml").read_text(encoding="utf-8")
    settings = settings.replace('front_end = "logmel"', lines).replace("= 10.0", "= 0.0")
    (root / "ponticello.toml").write_text(settings, encoding="utf-8")
    return Library.open(root)


def _run(*arguments: object) -> Result:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done


def _train(library: Library) -> None:
    train_semantic(library.folder, "semantic", retrieval_figures)
    judge = score_on_validation(library.folder)
    train_preference(library.folder, "preference", "semantic", retrieval_figures, scorer=judge)
    library.embed("semantic", "preference")


@pytest.fixture(scope="module")
def given_root(
    make_library: Callable[[Path], Library],
    catalogue: SyntheticCatalogue,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A library whose tracks have no audio, trained and embedded over vectors that hold the planted
    traits.
    """
    root = tmp_path_factory.mktemp("given") / "library"
    folder = make_library(root).folder
    for place in (folder.mels, folder.pairs, folder.validation_pairs, folder.splits):
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    pl.read_parquet(folder.tracks).drop(PATH).write_parquet(folder.tracks)
    noise = np.random.default_rng(0).normal(size=(60, SIZE - catalogue.traits.shape[1]))
    ids = [*catalogue.tracks[TRACK_ID], "stranger"]
    vectors = np.vstack([np.hstack([catalogue.traits, noise]), np.zeros(SIZE)])
    np.savez(root / "given.npz", ids=np.array(ids), vectors=vectors)
    library = _set_front_end(root, 'front_end = "features"\nfeatures = "given.npz"')
    assert _run("prepare", "-L", root).stdout == (
        f"60 tracks prepared, 0 unchanged, 1 skipped (see {folder.skipped}); "
        f"in {folder.frames / 'features'}\n"
    )
    with library.folder.lock():
        mine_library(library.folder)
    _train(library)
    return root


@pytest.fixture
def given(given_root: Path) -> Library:
    return Library.open(given_root)


def _cosines(vectors: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(unit @ unit.T)


def test_stage_one_is_the_given_vectors_and_stage_two_departs(given: Library) -> None:
    """All 12 axes fit into 64 dimensions: stage one's cosines are those of the standardised vectors
    themselves.
    """
    splits = load_splits(given.folder)
    assert splits is not None
    store = FeatureStore(given.folder.frames / "features")
    ids = given.index.track_ids
    vectors = np.stack([store.read(track_id)[0] for track_id in ids]).astype(np.float64)
    training = vectors[[splits.roles[track_id] == "train" for track_id in ids]]
    wanted = (vectors - training.mean(axis=0)) / training.std(axis=0)
    model = HTCL.from_pretrained(given.folder.run("semantic"))
    sound = model.encode_audio_block([store.read(track_id) for track_id in ids])
    np.testing.assert_allclose(_cosines(sound), _cosines(wanted), atol=1e-4)
    assert given.index.vectors.shape == (60, 128)


def test_its_checkpoint_loads_alone_with_the_size_of_a_frame(
    given: Library, tmp_path: Path
) -> None:
    shutil.copytree(given.folder.run("semantic"), tmp_path / "elsewhere")
    record = json.loads((tmp_path / "elsewhere" / "config.json").read_text(encoding="utf-8"))
    assert (record["frame_size"], record["settings"]["features"]) == (SIZE, "given.npz")
    model = HTCL.from_pretrained(tmp_path / "elsewhere")
    track_id = given.index.track_ids[0]
    features = FeatureStore(given.folder.frames / "features").read(track_id)
    texts = fused_texts(read_tracks(given.folder), "features")
    states = model.encode_text_states([texts[track_id]])
    vectors = model.encode_fused([features], states)
    np.testing.assert_allclose(vectors[0], given.index.vectors[0, :64], atol=1e-5)


def test_a_sound_cannot_be_encoded_and_that_is_said(given: Library, tmp_path: Path) -> None:
    model = HTCL.from_pretrained(given.folder.run("preference"))
    for sound in (np.zeros(16_000, dtype=np.float32), tmp_path / "any.wav"):
        with pytest.raises(
            CheckpointError, match=r"trained on vectors from given\.npz and cannot read a sound"
        ):
            model.encode_audio([sound])


def test_words_and_listeners_are_answered_without_audio(given: Library) -> None:
    assert not audio_files(given.folder)
    assert len(given.search("low dark slow", k=5)) == 5
    assert len(given.recommend("simulated-0001", k=3)) == 3


def test_an_evaluation_stands_beside_the_given_vectors(given: Library) -> None:
    evaluation = measure_library(
        given.folder, MethodsToCompare({STAGE_ONE: "semantic", STAGE_TWO: "preference"}), 0
    )
    methods = {method for score in evaluation.scores for method in score.by_method}
    assert {"front_end", STAGE_ONE, STAGE_TWO} <= methods
    assert not {"mel statistics", "MusiCNN"} & methods


def test_another_file_is_another_front_end(given: Library) -> None:
    other = Library.open(given.folder.root, ["features=other.npz"]).folder
    with pytest.raises(LibraryError, match="features were prepared with other settings"):
        open_features(other, other.config)
    with pytest.raises(CheckpointError, match=r"finished, with other settings in \[features\]"):
        train_semantic(other, "semantic", retrieval_figures)


def test_audio_beside_given_vectors_is_still_made_into_mels(
    given_root: Path, make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    """Near-duplicates are found in them. The last line counts vectors; nobody listens with the
    taggers.
    """
    folder = make_library(tmp_path / "both").folder
    shutil.copy(given_root / "given.npz", folder.root / "given.npz")
    _set_front_end(folder.root, 'front_end = "features"\nfeatures = "given.npz"')
    done = _run("prepare", "--workers", "1", "-L", folder.root)
    assert done.stdout.startswith("60 tracks prepared, 0 unchanged, 1 skipped")
    assert len(FeatureStore(folder.mels)) == 60
    assert [place.name for place in folder.frames.iterdir()] == ["features"]


@pytest.fixture(scope="module")
def encoded_root(
    make_library: Callable[[Path], Library],
    audio_encoder_folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A library trained and embedded over a random wav2vec 2.0."""
    root = tmp_path_factory.mktemp("encoded") / "library"
    make_library(root)
    library = _set_front_end(root, f'front_end = "hf:{audio_encoder_folder}"')
    _run("prepare", "--workers", "1", "-L", root)
    _train(library)
    return root


def test_a_file_is_encoded_as_its_track(encoded_root: Path) -> None:
    library = Library.open(encoded_root)
    model = HTCL.from_pretrained(library.folder.run("preference"))
    track_id, path = next(iter(audio_files(library.folder).items()))
    found = model.encode_audio([path])[0]
    store = open_features(library.folder, library.folder.config)
    np.testing.assert_allclose(found, model.encode_features([store.read(track_id)])[0], atol=1e-5)
    assert library.similar(path, k=1, blend=0.0)[0].track_id == track_id
    assert model.config.frame_size == 32


def test_a_model_misses_its_encoder_and_refuses_another(encoded_root: Path, tmp_path: Path) -> None:
    library = Library.open(encoded_root)
    path = next(iter(audio_files(library.folder).values()))
    shutil.copytree(
        library.folder.run("semantic"), tmp_path / "moved", ignore=shutil.ignore_patterns(CHECKSUMS)
    )
    record = json.loads((tmp_path / "moved" / "config.json").read_text(encoding="utf-8"))
    record["settings"]["front_end"] = "hf:none/at/all"
    (tmp_path / "moved" / "config.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match="audio encoder 'none/at/all' cannot be loaded"):
        HTCL.from_pretrained(tmp_path / "moved").encode_audio([path])
    record["settings"]["front_end"] = library.folder.config.front_end
    record["front_end_weights"] = "0123456789ab"
    (tmp_path / "moved" / "config.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"has other weights .* made with \(0123456789ab\)"):
        HTCL.from_pretrained(tmp_path / "moved").encode_audio([path])


class _StopAt(TrainingObserver):
    """Ends training by an error, as Ctrl-C does, after its first checkpoint."""

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        if loop.step == loop.eval_steps + 1:
            raise KeyboardInterrupt


def test_frames_prepared_again_with_another_encoder_are_refused(
    encoded_root: Path, tmp_path: Path
) -> None:
    """By stage two, an interrupted stage one and `embed`, each naming what is asked for and what is
    there.
    """
    shutil.copytree(encoded_root, tmp_path / "library")
    library = Library.open(tmp_path / "library")
    folder = library.folder
    own = front_end_weights(folder.run("semantic"))
    with pytest.raises(KeyboardInterrupt):
        train_semantic(folder, "begun", retrieval_figures, observers=[_StopAt()])
    place = folder.frames_of(folder.config.front_end)
    manifest = read_manifest(place)
    write_manifest(
        place, manifest.with_columns(pl.col("features_key").str.replace(own, "0123456789ab"))
    )
    line = (
        rf"prepared with hf:.* of weights 0123456789ab, the model was trained with weights "
        rf"{own}: install those"
    )
    with pytest.raises(CheckpointError, match=line):
        train_preference(folder, "other", "semantic", retrieval_figures)
    with pytest.raises(CheckpointError, match=line):
        library.embed("semantic", with_preference=False)
    with pytest.raises(
        CheckpointError, match="was interrupted and cannot go on: front_end_weights changed since"
    ):
        train_semantic(folder, "begun", retrieval_figures)
    write_manifest(place, manifest)
    assert train_semantic(folder, "begun", retrieval_figures).stage == "semantic"


def test_tagging_leaves_the_encoders_frames_alone(encoded_root: Path, tmp_path: Path) -> None:
    shutil.copytree(encoded_root, tmp_path / "library")
    folder = Library.open(tmp_path / "library").folder
    pl.read_parquet(folder.tracks).head(3).write_parquet(
        folder.tracks
    )  # so that few have to be heard
    _run("tag", "--workers", "1", "-L", folder.root)
    assert open_features(folder, folder.config).frame_size == 32
    assert FeatureStore(folder.frames).frame_size == 500


def test_a_missing_encoder_is_said_before_anything_is_decoded(
    make_library: Callable[[Path], Library], tmp_path: Path
) -> None:
    folder = make_library(tmp_path / "library").folder
    shutil.rmtree(folder.mels)
    _set_front_end(folder.root, 'front_end = "hf:nobody/no-such-encoder"')
    result = CliRunner().invoke(app, ["prepare", "-L", str(folder.root)])
    assert (result.exit_code, folder.mels.exists()) == (1, False)
    assert "downloads are off: give --allow-download" in str(result.exception)
