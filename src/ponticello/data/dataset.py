"""Tracks and pairs of tracks as datasets, and the one collator that makes batches of either.

A row of a dataset is a tuple of tracks: one in stage one, (anchor, positive) in stage two. The collator stacks first
tracks, then second ones, so that a batch of B pairs has 2B rows: anchors 0..B-1, their positives B..2B-1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ponticello.config import MelConfig
from ponticello.data.batch import Tokenizer, pad_frames, pad_mels, tokenize
from ponticello.data.columns import ANCHOR_ID, POSITIVE_ID
from ponticello.data.store import FrameStore, PooledFrames

Frames = FrameStore | PooledFrames


@dataclass(frozen=True)
class TrackItem:
    """What one track brings to a batch.

    track_number: stands for the track, so that a repeated track is never its own negative.
    text_number: stands for the text; tracks with the same words share it.
    """

    track_number: int
    text_number: int
    mel: np.ndarray  # (t, F); log-mels in dB, or a front end's frames
    text: str


class TrackTuples(Dataset[tuple[TrackItem, ...]]):
    """Rows of one or two tracks, read from the store when asked for."""

    def __init__(self, store: Frames, texts: Mapping[str, str], rows: Sequence[tuple[str, ...]]) -> None:
        self.store, self.texts, self.rows = store, texts, rows
        self.track_numbers = {track_id: number for number, track_id in enumerate(sorted(texts))}
        first_with: dict[str, int] = {}
        self.text_numbers = {
            track_id: first_with.setdefault(texts[track_id], number) for track_id, number in self.track_numbers.items()
        }

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[TrackItem, ...]:
        return tuple(
            TrackItem(
                self.track_numbers[track_id],
                self.text_numbers[track_id],
                self.store.read(track_id),
                self.texts[track_id],
            )
            for track_id in self.rows[row]
        )


def usable_texts(store: Frames, texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of the tracks that have both a text and a prepared mel: those training can use."""
    return {track_id: text for track_id, text in texts.items() if text and track_id in store}


def track_dataset(store: Frames, texts: Mapping[str, str], track_ids: Sequence[str]) -> TrackTuples:
    """One row for each of `track_ids` that has both audio and text, in the given order."""
    usable = usable_texts(store, texts)
    return TrackTuples(store, usable, [(track_id,) for track_id in track_ids if track_id in usable])


def pair_dataset(store: Frames, texts: Mapping[str, str], pairs: pl.DataFrame) -> TrackTuples:
    """One row for each distinct (anchor, positive) whose two tracks have both audio and text, in table order."""
    usable = usable_texts(store, texts)
    distinct = pairs.select(ANCHOR_ID, POSITIVE_ID).unique(maintain_order=True).rows()
    return TrackTuples(store, usable, [pair for pair in distinct if pair[0] in usable and pair[1] in usable])


@dataclass(frozen=True)
class Collator:
    """Tuples of tracks as one batch; picklable, for loader workers.

    text_states: (n, D) what a frozen text encoder says of each text number, so that no step encodes it again.
    teacher: (n, d) the unit vector stage one gave each track number, for stage two to stay close to.
    """

    tokenizer: Tokenizer
    mel: MelConfig | None  # None: frames of another front end, taken as they are
    min_frames: int
    max_tokens: int
    text_states: Tensor | None = None
    teacher: Tensor | None = None

    def __call__(self, rows: Sequence[tuple[TrackItem, ...]]) -> dict[str, Tensor]:
        """`mel`, `padding_mask`, the texts (`input_ids`, `attention_mask`; or `text_states`) and the rows' numbers."""
        items = [item for column in zip(*rows, strict=True) for item in column]
        mels = [item.mel for item in items]
        mel, padding_mask = pad_mels(mels, self.mel, self.min_frames) if self.mel else pad_frames(mels)
        text_numbers = torch.tensor([item.text_number for item in items])
        if self.text_states is None:
            texts = tokenize([item.text for item in items], self.tokenizer, self.max_tokens)
        else:
            texts = {"text_states": self.text_states[text_numbers]}
        track_numbers = torch.tensor([item.track_number for item in items])
        taught = {} if self.teacher is None else {"teacher": self.teacher[track_numbers]}
        return {
            "mel": mel,
            "padding_mask": padding_mask,
            **texts,
            "track_numbers": track_numbers,
            "text_numbers": text_numbers,
            **taught,
        }
