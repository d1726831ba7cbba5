"""What a stage trains on: tracks and pairs of tracks as datasets, and the collator of both.

A row of a dataset is a tuple of track ids: one in stage one, (anchor, positive) in stage two. The
collator stacks the first tracks, then the second ones: a batch of B pairs has 2B rows, anchors
0..B-1 and their positives B..2B-1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ponticello.config import MelConfig
from ponticello.errors import LibraryError
from ponticello.features.frontend import open_features
from ponticello.features.store import FeatureStore, PooledFeatures
from ponticello.model.batching import Tokenizer, pad_features, pad_frames, tokenize
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import Splits, load_splits
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ANCHOR_ID, POSITIVE_ID

Frames = FeatureStore | PooledFeatures
NO_TEXT = -1  # the number of a text that is not there


@dataclass(frozen=True)
class TrackItem:
    """What one track brings to a batch.

    track_number: stands for the track, so that a repeated track is never its own negative.
    text_number: stands for the text; tracks with the same words share it. `NO_TEXT` = there is
    none.
    texts: the track's text, and other wordings of it for training.
    """

    track_number: int
    text_number: int
    mel: np.ndarray  # (t, F); log-mels in dB, or a front end's frames
    texts: tuple[str, ...]


class TrackTuples(Dataset[tuple[TrackItem, ...]]):
    """Rows of one or two tracks, read from the store when asked for.

    texts: by track id, "" = none. variants: further wordings of each text, equally many for every
    track.
    """

    def __init__(
        self,
        store: Frames,
        texts: Mapping[str, str],
        rows: Sequence[tuple[str, ...]],
        variants: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.store, self.texts, self.rows, self.variants = store, texts, rows, variants or {}
        self.track_numbers = {track_id: number for number, track_id in enumerate(sorted(texts))}
        first_with: dict[str, int] = {"": NO_TEXT}
        self.text_numbers = {
            track_id: first_with.setdefault(texts[track_id], number)
            for track_id, number in self.track_numbers.items()
        }

    def wordings(self, track_id: str) -> tuple[str, ...]:
        """The track's text, then its variants."""
        return (self.texts[track_id], *self.variants.get(track_id, ()))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[TrackItem, ...]:
        return tuple(
            TrackItem(
                self.track_numbers[track_id],
                self.text_numbers[track_id],
                self.store.read(track_id),
                self.wordings(track_id),
            )
            for track_id in self.rows[row]
        )


def track_dataset(
    store: Frames,
    texts: Mapping[str, str],
    track_ids: Sequence[str],
    variants: Mapping[str, Sequence[str]] | None = None,
) -> TrackTuples:
    """One row for each of `track_ids` that has both audio and text, in the given order."""
    usable = {track_id: text for track_id, text in texts.items() if text and track_id in store}
    return TrackTuples(
        store, usable, [(track_id,) for track_id in track_ids if track_id in usable], variants
    )


def pair_dataset(store: Frames, texts: Mapping[str, str], pairs: pl.DataFrame) -> TrackTuples:
    """One row for each distinct (anchor, positive) whose two tracks have audio, in table order."""
    usable = {track_id: text for track_id, text in texts.items() if track_id in store}
    distinct = pairs.select(ANCHOR_ID, POSITIVE_ID).unique(maintain_order=True).rows()
    return TrackTuples(
        store, usable, [pair for pair in distinct if pair[0] in usable and pair[1] in usable]
    )


@dataclass(frozen=True)
class Collator:
    """Tuples of tracks as one batch; picklable, for loader workers.

    text_states: (n, V, D) what a frozen text encoder says of each text number's V wordings, so that
    no step encodes
        them again; the last row is for `NO_TEXT`.
    teacher: (n, d) the unit vector stage one gave each track number, for stage two to stay close
    to.
    """

    tokenizer: Tokenizer
    mel: MelConfig | None  # None: frames of another front end, taken as they are
    min_frames: int
    max_tokens: int
    text_states: Tensor | None = None
    teacher: Tensor | None = None

    def __call__(self, rows: Sequence[tuple[TrackItem, ...]]) -> dict[str, Tensor]:
        """`mel`, `padding_mask`, the texts, `has_text` and the rows' numbers.

        The texts are `input_ids` and `attention_mask`, (B, V, L), or `text_states`, (B, V, D): V
        wordings of each.
        """
        batch = self.unpadded(rows)
        mel, padding_mask = self.pad(batch.pop("mels"))
        return {"mel": mel, "padding_mask": padding_mask, **batch}

    def pad(self, mels: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """What the audio tower takes of tracks as the store gives them: (B, T, F) and its mask (B,
        T).
        """
        return pad_features(mels, self.mel, self.min_frames) if self.mel else pad_frames(mels)

    def unpadded(self, rows: Sequence[tuple[TrackItem, ...]]) -> dict[str, Any]:
        """A batch with `mels`, views of the store, for `pad` to take so many of at a time: no sound
        is read yet.
        """
        items = [item for column in zip(*rows, strict=True) for item in column]
        text_numbers = torch.tensor([item.text_number for item in items])
        if self.text_states is None:
            told = [text for item in items for text in item.texts]
            tokens = tokenize(told, self.tokenizer, self.max_tokens)
            texts = {
                name: ids.reshape(len(items), -1, ids.shape[1]) for name, ids in tokens.items()
            }
        else:
            texts = {"text_states": self.text_states[text_numbers]}
        track_numbers = torch.tensor([item.track_number for item in items])
        taught = {} if self.teacher is None else {"teacher": self.teacher[track_numbers]}
        return {
            "mels": [item.mel for item in items],
            **texts,
            "has_text": text_numbers != NO_TEXT,
            "track_numbers": track_numbers,
            "text_numbers": text_numbers,
            **taught,
        }


@dataclass(frozen=True)
class StageData:
    """The rows a stage trains on and is validated on, and the splits they come from."""

    training: TrackTuples
    validation: TrackTuples
    splits: Splits
    n_candidates: int  # training rows, those without audio or text included


def require_splits(folder: LibraryPaths) -> Splits:
    """Returns the library's splits; LibraryError if there are none."""
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError(
            "nothing is held out yet",
            code="no_splits",
            remedy="ponticello mine-pairs",
            library=folder.root,
        )
    return splits


def open_training_frames(folder: LibraryPaths, weights: str = "") -> Frames:
    """Opens what the audio tower reads: log-mels, or the mean features of a frozen front end.

    weights: of the front end under stage one. Raises as `open_features`.
    """
    frames = open_features(folder, folder.config, weights)
    return frames if folder.config.front_end == "logmel" else PooledFeatures(frames)


def compute_text_states(model: HTCL, dataset: TrackTuples) -> Tensor:
    """Returns the frozen text encoder's vectors (n + 1, V, D) of the V wordings of each text number.

    Rows of unused numbers are zeros, and so is the last one, for `NO_TEXT`.
    """
    wordings = {}
    for track_id in dataset.texts:
        wordings[dataset.text_numbers[track_id]] = dataset.wordings(track_id)
    wordings.pop(NO_TEXT, None)
    n_wordings = len(next(iter(wordings.values()), ("",)))
    states = torch.zeros(len(dataset.texts) + 1, n_wordings, model.text_encoder.config.hidden_size)
    if not wordings:
        return states
    # In order of first use: which texts share a batch decides the last digits.
    unique_texts = list(dict.fromkeys(chain.from_iterable(wordings.values())))
    row_of = {text: row for row, text in enumerate(unique_texts)}
    unique_states = torch.from_numpy(model.encode_text_states(unique_texts))
    for number, texts in wordings.items():
        states[number] = unique_states[[row_of[text] for text in texts]]
    return states
