"""The `paper` preset at its published size, on real music: train, save, resume, embed and search.

The weights are random, and each stage takes three steps, so that no figure here says how well the
model learns. Takes five minutes of processor time, up to 10 GB of memory and 11 GB of disk.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel, BertTokenizer

from ponticello.config import SimulationConfig
from ponticello.datasets.simulated import audible_traits, simulate_listeners
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.evaluate.validation import score_on_validation
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.text import track_texts
from ponticello.train.loop import TrainingLoop, TrainingObserver
from ponticello.train.preference import train_preference
from ponticello.train.runs import TrainedRun
from ponticello.train.selection import select_weights
from ponticello.train.semantic import train_semantic
from tests.small_htcl import assert_same_weights

DEMO = Path(__file__).parents[2] / "demo"
N_TRACKS = 32
N_STEPS = 3
VOCABULARY_SIZE = 105_879  # of bert-base-multilingual-uncased, as all sizes of `BertConfig()`
SETTINGS = """
preset = "paper"
text.name = "{text_encoder}"
splits.tracks = "track"

[semantic]
batch_size = 4
max_steps = 3
eval_steps = 2
min_validations = 1

[preference]
batch_size = 4
max_steps = 3
eval_steps = 2
min_validations = 1
"""


def make_published_bert(folder: Path, texts: Sequence[str]) -> Path:
    """Saves a random BERT of the published shape; its tokenizer has the words of `texts` only."""
    folder.mkdir()
    words = sorted(set(" ".join(texts).lower().replace(",", " ").replace(".", " ").split()))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(str(folder))
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=VOCABULARY_SIZE)).save_pretrained(str(folder))
    return folder


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """A library of the demo's music with simulated listening, prepared and mined."""
    folder = tmp_path_factory.mktemp("paper")
    tracks = pl.read_csv(DEMO / "tracks.csv").gather_every(3).head(N_TRACKS)
    tracks = tracks.with_columns(path=str(DEMO) + "/" + pl.col("path"))
    tracks.write_csv(folder / "tracks.csv")
    root = Library.create(folder / "library", "paper").folder.root
    Library.open(root).import_tracks(folder / "tracks.csv")
    texts = track_texts(Library.open(root).tracks)
    text_encoder = make_published_bert(folder / "bert", texts)
    settings = SETTINGS.format(text_encoder=text_encoder.as_posix())
    (root / "ponticello.toml").write_text(settings, encoding="utf-8")
    library = Library.open(root)
    library.prepare(n_workers=1)
    traits = audible_traits(library.tracks, FeatureStore(library.folder.mels))
    vectors = np.stack(list(traits.values()))
    log = simulate_listeners(list(traits), vectors, SimulationConfig(n_listeners=60))
    log.write_csv(folder / "log.csv")
    library.import_history(folder / "log.csv", pseudonyms=False)
    library.mine_pairs()
    return Library.open(root)


class StopAtLastStep(TrainingObserver):
    """Ends training as Ctrl-C does, one step after the only checkpoint before the end."""

    def on_step(self, loop: TrainingLoop[Any]) -> None:
        if loop.step == N_STEPS:
            raise KeyboardInterrupt


def train(
    library: Library, stage: str, name: str, observers: Sequence[TrainingObserver] = ()
) -> TrainedRun:
    """Trains one stage; of stage two, the trained weights are kept as they are."""
    if stage == "semantic":
        return train_semantic(library.folder, name, retrieval_figures, observers=observers)
    return train_preference(
        library.folder, name, "semantic", retrieval_figures, observers=observers
    )


def has_same_weights(library: Library, left: str, right: str) -> bool:
    left_weights = load_file(library.folder.run(left) / "model.safetensors")
    right_weights = load_file(library.folder.run(right) / "model.safetensors")
    assert left_weights.keys() == right_weights.keys()
    return all(torch.equal(left_weights[name], right_weights[name]) for name in left_weights)


@pytest.mark.long
def test_paper_preset_trains_both_stages_resumes_saves_embeds_and_searches(
    library: Library,
) -> None:
    for stage in ("semantic", "preference"):
        assert train(library, stage, stage).n_steps == N_STEPS
        with pytest.raises(KeyboardInterrupt):
            train(library, stage, f"stopped-{stage}", [StopAtLastStep()])
        checkpoints = library.folder.run(f"stopped-{stage}") / "checkpoints"
        assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]
        train(library, stage, f"stopped-{stage}")
        assert has_same_weights(library, stage, f"stopped-{stage}")
    assert not has_same_weights(library, "semantic", "preference")
    assert_has_published_shape_and_saves_it(library)
    assert_embeds_and_searches(Library.open(library.folder.root))


def assert_has_published_shape_and_saves_it(library: Library) -> None:
    model = HTCL.from_pretrained(library.folder.run("semantic"))
    assert len(model.text_encoder.encoder.layer) == 12
    assert model.text_encoder.get_input_embeddings().weight.shape == (VOCABULARY_SIZE, 768)
    assert sum(weight.numel() for weight in model.parameters()) > 250e6
    model.save_pretrained(library.folder.root / "copy")
    assert_same_weights(HTCL.from_pretrained(library.folder.root / "copy"), model)


def assert_embeds_and_searches(library: Library) -> None:
    assert library.embed("semantic", "preference").n_tracks == N_TRACKS
    vectors = library.track_vectors()
    assert np.isfinite(vectors["semantic"].to_numpy()).all()
    assert not np.array_equal(vectors["semantic"].to_numpy(), vectors["preference"].to_numpy())
    for blend in (0.0, 0.5, 1.0):
        results = library.search("slow piano", k=5, blend=blend)
        assert len({result.track_id for result in results}) == 5
    track_id = library.tracks[TRACK_ID][0]
    nearest = library.similar(library[track_id]["path"], k=1, blend=0.0)
    assert nearest[0].track_id == track_id


@pytest.mark.long
def test_fresh_heads_of_the_paper_preset_are_never_interpolated(library: Library) -> None:
    """Measured on the validation tracks and listeners, as `ponticello train preference` does."""
    config = library.folder.config
    assert config.preference.reset_heads
    stage_one = HTCL.from_pretrained(library.folder.run("semantic"))
    stage_two = HTCL.from_pretrained(library.folder.run("preference"))
    scorer = score_on_validation(library.folder)
    selected, selection = select_weights(stage_one, stage_two, scorer, config.preference)
    assert {candidate.alpha for candidate in selection.candidates} == {0.0, 1.0}
    assert selected is (stage_two if selection.alpha == 1 else stage_one)
    assert selection.n_users > 0
    record = json.loads((library.folder.run("preference") / "run.json").read_text("utf-8"))
    assert record["selection"] is None
