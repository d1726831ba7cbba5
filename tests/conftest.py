"""What many tests share: a tiny text encoder, and a small library trained once a session on
synthetic sounds.
"""

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = (
    "1"  # models here are tiny: threads that wait for each other cost more than they do
)

import pytest
from hypothesis import Phase, settings
from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
from transformers.utils import logging as transformers_logging

from ponticello.config import SimulationConfig
from ponticello.datasets.simulated import simulate_listeners
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.features.prepare import prepare_features
from ponticello.library import Library
from ponticello.listening.importers.run import import_history
from ponticello.pairs.mine import mine_library
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import audio_files, import_tracks
from ponticello.train.preference import train_preference
from ponticello.train.semantic import train_semantic
from tests.logmel import toml, with_changes
from tests.synthetic import SyntheticCatalogue, make_catalogue
from tests.tiny_bert import make_text_encoder

transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
logging.getLogger("transformers").setLevel(logging.ERROR)
settings.register_profile(
    "steady", deadline=None, derandomize=True
)  # no timed test, and the same examples for all
settings.register_profile(
    "unshrunk", phases=[Phase.explicit, Phase.generate]
)  # for `make mutation`: seen is enough
settings.load_profile("steady")

LONG_FILES = (
    "test_many_processes.py",
    "test_semantic_and_preference.py",
    "test_demo.py",
    "test_tutorial_page.py",
    "test_ray_engine.py",
    "test_engine.py",
    "test_onnx.py",
    "test_site.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs the long files first: with two workers, one that comes last would keep one alone."""
    items.sort(key=lambda item: item.path.name not in LONG_FILES)


@pytest.fixture(scope="session")
def text_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random two-layer BERT with a small vocabulary of whole words and digits."""
    return make_text_encoder(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="session")
def audio_encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random wav2vec 2.0 of two layers and 32 dimensions with its extractor and a card, saved as
    a folder.
    """
    import torch

    folder = tmp_path_factory.mktemp("wav2vec2")
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        conv_dim=(16,) * 7,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    Wav2Vec2Model(config).save_pretrained(str(folder))
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000)  # type: ignore[no-untyped-call]
    extractor.save_pretrained(str(folder))
    (folder / "README.md").write_text(
        "---\nlicense: cc-by-nc-4.0\n---\n# Random\n", encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="session")
def catalogue() -> SyntheticCatalogue:
    """60 synthetic tracks of 4 s by 20 artists."""
    return make_catalogue(n_tracks=60, n_artists=20, seconds=4.0, seed=0)


def settings_toml(text_encoder: Path) -> str:
    """Settings that train in seconds, over log-mels."""
    return toml(
        with_changes(
            text={"name": text_encoder.as_posix()},
            semantic={"epochs": 10, "eval_steps": 5},
            preference={"epochs": 2, "eval_steps": 5},
            simulation={"n_listeners": 80},
            evaluate={
                "bootstrap_rounds": 100,
                "baselines": ["item_knn", "als", "content_to_als"],
            },
        )
    )


@pytest.fixture(scope="session")
def untrained_root(
    tmp_path_factory: pytest.TempPathFactory,
    text_encoder_folder: Path,
    catalogue: SyntheticCatalogue,
) -> Path:
    """The folder of a library with tracks, simulated listening, mels and pairs. Read only."""
    sounds = tmp_path_factory.mktemp("sounds")
    table = catalogue.write(sounds)
    log = simulate_listeners(
        catalogue.tracks[TRACK_ID].to_list(), catalogue.traits, SimulationConfig(n_listeners=80)
    )
    log.write_csv(sounds / "log.csv")
    root = tmp_path_factory.mktemp("untrained") / "library"
    Library.create(root, "tiny")
    (root / "ponticello.toml").write_text(settings_toml(text_encoder_folder), encoding="utf-8")
    folder = Library.open(root).folder
    import_tracks(folder, table)
    import_history(folder, sounds / "log.csv", pseudonyms=False)
    with folder.lock():
        prepare_features(folder, audio_files(folder))
        mine_library(folder)
    return root


@pytest.fixture(scope="session")
def make_library(untrained_root: Path) -> Callable[[Path], Library]:
    """A function that makes a library in a folder, a copy of `untrained_root` to be changed."""

    def make(root: Path) -> Library:
        shutil.copytree(untrained_root, root)
        return Library.open(root)

    return make


@pytest.fixture(scope="session")
def trained_root(
    make_library: Callable[[Path], Library], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a library with both stages trained, embedded and indexed. Read only: copy it to
    change it.
    """
    root = tmp_path_factory.mktemp("trained") / "library"
    library = make_library(root)
    train_semantic(library.folder, "semantic", retrieval_figures)
    train_preference(library.folder, "preference", "semantic", retrieval_figures)
    library.embed("semantic", "preference")
    return root


@pytest.fixture
def trained(trained_root: Path) -> Library:
    """The trained library, to be read."""
    return Library.open(trained_root)


@pytest.fixture
def trained_copy(trained_root: Path, tmp_path: Path) -> Library:
    """A copy of the trained library, to be changed."""
    shutil.copytree(trained_root, tmp_path / "library")
    return Library.open(tmp_path / "library")
