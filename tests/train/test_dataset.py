"""Tracks and pairs as rows, the numbers that stand for them, and the batches made of them."""

import pickle
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader
from transformers import BertTokenizer

from ponticello.config import Config
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.model.batching import pad_features
from ponticello.model.text_encoder import tokenize
from ponticello.storage.layout import create_library
from ponticello.storage.schema import ANCHOR_ID, POSITIVE_ID
from ponticello.train.dataset import (
    NO_TEXT,
    Collator,
    TrackTuples,
    pair_dataset,
    row_batches,
    track_dataset,
)

MEL = Config.from_preset("tiny").mel
TEXTS = {
    "d": "fast high",
    "a": "slow low",
    "b": "fast high",  # the words of d
    "c": "warm",
    "e": "",  # nothing said
    "unheard": "bright",  # no mel
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """Mels of the tracks a to f, of different lengths; f has no text."""
    root = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    sources = {}
    for number, track_id in enumerate("abcdef"):
        sources[track_id] = root / f"{track_id}.wav"
        soundfile.write(sources[track_id], rng.normal(0, 0.1, 30_000 + 5_000 * number), 16_000)
    folder = create_library(root / "library", "tiny")
    with folder.lock():
        prepare_features(folder, sources)
    return FeatureStore(folder.mels)


@pytest.fixture(scope="module")
def tokenizer(text_encoder_folder: Path) -> BertTokenizer:
    return BertTokenizer(str(text_encoder_folder / "vocab.txt"))


@pytest.fixture
def collator(tokenizer: BertTokenizer) -> Collator:
    return Collator(tokenizer, MEL, min_frames=17, max_tokens=8)


def pairs(*rows: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=[ANCHOR_ID, POSITIVE_ID], orient="row")


def ids(dataset: TrackTuples) -> list[tuple[str, ...]]:
    return list(dataset.rows)


# Rows


def test_tracks_without_text_or_mel_are_left_out(store: FeatureStore) -> None:
    dataset = track_dataset(store, TEXTS, ["f", "d", "unheard", "a", "e", "nowhere", "b"])
    assert ids(dataset) == [("d",), ("a",), ("b",)]
    assert len(dataset) == 3


def test_pairs_of_tracks_without_audio_are_left_out_but_not_those_without_text(
    store: FeatureStore,
) -> None:
    table = pairs(
        ("c", "a"), ("a", "unheard"), ("e", "a"), ("a", "b"), ("nowhere", "a"), ("b", "a")
    )
    dataset = pair_dataset(store, TEXTS, table)
    assert ids(dataset) == [("c", "a"), ("e", "a"), ("a", "b"), ("b", "a")]
    silent, told = dataset[1]
    assert (silent.text_number, silent.texts, told.texts) == (NO_TEXT, ("",), ("slow low",))


def test_wordings_follow_the_text(
    store: FeatureStore, collator: Collator, tokenizer: BertTokenizer
) -> None:
    """Two rows of two wordings: (B, V, L), padded to the longest of all."""
    variants = {"a": ["low"], "c": ["warm slow dark"]}
    dataset = track_dataset(store, TEXTS, ["c", "a"], variants)
    assert [dataset[row][0].texts for row in range(2)] == [
        ("warm", "warm slow dark"),
        ("slow low", "low"),
    ]
    batch = collator([dataset[0], dataset[1]])
    told = tokenize(["warm", "warm slow dark", "slow low", "low"], tokenizer, 8)
    assert torch.equal(batch["input_ids"], told["input_ids"].reshape(2, 2, -1))
    assert batch["has_text"].tolist() == [True, True]


def test_pair_from_several_sources_is_one_row(store: FeatureStore) -> None:
    table = pairs(("a", "b"), ("c", "d"), ("a", "b"), ("b", "a"), ("c", "d")).with_columns(
        pl.Series("source", ["session", "session", "playlist", "session", "feedback"])
    )
    assert ids(pair_dataset(store, TEXTS, table)) == [("a", "b"), ("c", "d"), ("b", "a")]


def test_row_holds_the_tracks_own_mel_and_text(store: FeatureStore) -> None:
    (anchor, positive) = pair_dataset(store, TEXTS, pairs(("c", "a")))[0]
    assert (anchor.texts, positive.texts) == (("warm",), ("slow low",))
    np.testing.assert_array_equal(anchor.features, store.read("c"))
    np.testing.assert_array_equal(positive.features, store.read("a"))


# Numbers


def test_each_track_has_a_number_of_its_own_wherever_it_stands(store: FeatureStore) -> None:
    assert pair_dataset(store, TEXTS, pairs()).track_numbers == {
        "a": 0,
        "b": 1,
        "c": 2,
        "d": 3,
        "e": 4,
    }
    dataset = pair_dataset(store, TEXTS, pairs(("d", "a"), ("a", "d"), ("d", "c")))
    numbers = [tuple(item.track_number for item in dataset[row]) for row in range(3)]
    assert numbers == [(3, 0), (0, 3), (3, 2)]


def test_tracks_with_the_same_words_share_a_text_number(store: FeatureStore) -> None:
    """b and d say the same; the number is that of the first of them, b."""
    dataset = track_dataset(store, TEXTS, ["a", "b", "c", "d"])
    assert [dataset[row][0].text_number for row in range(4)] == [0, 1, 2, 1]
    assert [dataset[row][0].track_number for row in range(4)] == [0, 1, 2, 3]


def test_numbers_do_not_depend_on_which_tracks_are_rows(store: FeatureStore) -> None:
    """So that training and validation rows of one library agree."""
    one, other = track_dataset(store, TEXTS, ["d"]), track_dataset(store, TEXTS, ["c", "d"])
    assert one.track_numbers == other.track_numbers
    assert one.text_numbers == other.text_numbers
    assert one[0][0].text_number == other[1][0].text_number == 1


# Batches


@pytest.mark.parametrize("start", [0, 3, 4, 11])
def test_rows_of_a_step_do_not_depend_on_the_step_a_run_starts_at(start: int) -> None:
    """23 rows, five a step: four steps an epoch, each of which leaves out three rows."""
    steps = list(islice(row_batches(23, 5, seed=1, start=0), 16))
    later = list(islice(row_batches(23, 5, seed=1, start=start), 16 - start))
    assert [rows.tolist() for rows in later] == [rows.tolist() for rows in steps[start:]]
    for epoch in range(4):
        rows = np.concatenate(steps[4 * epoch : 4 * epoch + 4])
        assert len(set(rows.tolist())) == 20
        assert set(rows.tolist()) <= set(range(23))
    assert steps[0].tolist() != steps[4].tolist()
    other_seed = next(row_batches(23, 5, seed=2, start=0))
    assert steps[0].tolist() != other_seed.tolist()


def test_processes_share_the_rows_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    joint = list(islice(row_batches(24, 6, seed=1, start=0), 5))
    monkeypatch.setenv("WORLD_SIZE", "2")
    halves = []
    for rank in range(2):
        monkeypatch.setenv("RANK", str(rank))
        halves.append(list(islice(row_batches(24, 3, seed=1, start=0), 5)))
    for step, rows in enumerate(joint):
        assert rows.tolist() == [*halves[0][step].tolist(), *halves[1][step].tolist()]


def test_batch_stacks_anchors_then_positives(
    store: FeatureStore, collator: Collator, tokenizer: BertTokenizer
) -> None:
    dataset = pair_dataset(store, TEXTS, pairs(("c", "a"), ("d", "b"), ("b", "c")))
    batch = collator([dataset[row] for row in range(3)])
    order = ["c", "d", "b", "a", "b", "c"]
    assert batch["track_numbers"].tolist() == [2, 3, 1, 0, 1, 2]
    assert batch["text_numbers"].tolist() == [2, 1, 1, 0, 1, 2]
    mel, mask = pad_features([store.read(track_id) for track_id in order], MEL, 17)
    assert torch.equal(batch["features"], mel)
    assert torch.equal(batch["padding_mask"], mask)
    texts = tokenize([TEXTS[track_id] for track_id in order], tokenizer, 8)
    assert torch.equal(batch["input_ids"][:, 0], texts["input_ids"])
    assert torch.equal(batch["attention_mask"][:, 0], texts["attention_mask"])
    numbers = {"track_numbers", "text_numbers", "has_text"}
    assert set(batch) == {"features", "padding_mask", "input_ids", "attention_mask", *numbers}


def test_batch_of_tracks_keeps_their_order(store: FeatureStore, collator: Collator) -> None:
    dataset = track_dataset(store, TEXTS, ["c", "a", "d"])
    batch = collator([dataset[row] for row in range(3)])
    assert batch["track_numbers"].tolist() == [2, 0, 3]
    assert (~batch["padding_mask"]).sum(1).tolist() == [
        store.n_frames(track_id) for track_id in "cad"
    ]


def test_text_states_are_those_of_each_rows_text(
    store: FeatureStore, tokenizer: BertTokenizer
) -> None:
    """Row n of the states is 10 n; d says what b says, so its state is that of number 1; e has
    none: the last row.
    """
    states = (10.0 * torch.arange(5)[:, None] + torch.tensor([0.0, 0.5]))[:, None]
    states[-1] = 0.0
    dataset = pair_dataset(store, TEXTS, pairs(("d", "a"), ("c", "e")))
    batch = Collator(tokenizer, MEL, 17, 8, states)([dataset[0], dataset[1]])
    assert batch["text_states"][:, 0].tolist() == [
        [10.0, 10.5],
        [20.0, 20.5],
        [0.0, 0.5],
        [0.0, 0.0],
    ]
    assert batch["has_text"].tolist() == [True, True, True, False]
    assert "input_ids" not in batch


def test_dataset_and_collator_travel_to_loader_workers(
    store: FeatureStore, collator: Collator
) -> None:
    dataset = pair_dataset(store, TEXTS, pairs(("c", "a"), ("d", "b")))
    here = collator([dataset[0], dataset[1]])
    there_dataset, there_collator = pickle.loads(pickle.dumps((dataset, collator)))
    there: Any = next(iter(DataLoader(there_dataset, batch_size=2, collate_fn=there_collator)))
    assert set(here) == set(there)
    for name, tensor in here.items():
        assert torch.equal(tensor, there[name]), name
