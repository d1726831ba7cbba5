"""Training data of a stage: tracks and pairs of tracks as datasets, and the collator of both.

A row of a dataset is a tuple of track ids: one in stage one, (anchor, positive) in stage two. The
collator stacks the first tracks, then the second ones: a batch of B pairs has 2B rows, anchors
0..B-1 and their positives B..2B-1.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.utils.data import Dataset

from ponticello.config import MelConfig
from ponticello.errors import LibraryError
from ponticello.features.frontend import open_features
from ponticello.features.store import FeatureStore, PooledFeatures
from ponticello.model.batching import pad_features, pad_frames, random_crop
from ponticello.model.htcl import HTCL
from ponticello.model.text_encoder import Tokenizer, tokenize
from ponticello.splits.splits import Splits, load_splits
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ANCHOR_ID, GENRES, MACHINE_TAGS, POSITIVE_ID, TAGS
from ponticello.train.distributed import launch_info

Frames = FeatureStore | PooledFeatures
NO_TEXT = -1  # the text number of tracks without text
TEXT_INPUTS = ("text_states", "input_ids", "attention_mask")  # (B, V, ...), V wordings a text
LOSS_INPUTS = ("track_numbers", "text_numbers", "teacher")  # of a batch; the model takes the others


@dataclass(frozen=True)
class TrackItem:
    """One track of a batch.

    track_number, text_number: equal for the same track or text, so that neither is its own
        negative; `NO_TEXT` = without text.
    features: (t, F), log-mels in dB or a front end's features.
    texts: the track's text, then other wordings of it.
    """

    track_number: int
    text_number: int
    features: np.ndarray
    texts: tuple[str, ...]


class TrackTuples(Dataset[tuple[TrackItem, ...]]):
    """Rows of one or two tracks, read from the store on access.

    texts: by track id, "" = none. variants: other wordings, equally many for each track.
    """

    def __init__(
        self,
        store: Frames,
        texts: Mapping[str, str],
        rows: Sequence[tuple[str, ...]],
        variants: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.store = store
        self.texts = texts
        self.rows = rows
        self.variants = variants or {}
        self.track_numbers = {track_id: number for number, track_id in enumerate(sorted(texts))}
        self.text_numbers: dict[str, int] = {}
        number_of = {"": NO_TEXT}  # of each text: the first track's that has it
        for track_id, number in self.track_numbers.items():
            self.text_numbers[track_id] = number_of.setdefault(texts[track_id], number)

    def wordings(self, track_id: str) -> tuple[str, ...]:
        """Returns the track's text, then its variants."""
        fixed = (self.texts[track_id],)
        return fixed + tuple(self.variants.get(track_id, ()))

    def contents(self) -> tuple[Sequence[tuple[str, ...]], list[tuple[str, str]]]:
        """Returns the rows in their order, and all texts by track id."""
        return self.rows, sorted(self.texts.items())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> tuple[TrackItem, ...]:
        return tuple(self._item(track_id) for track_id in self.rows[row])

    def _item(self, track_id: str) -> TrackItem:
        return TrackItem(
            self.track_numbers[track_id],
            self.text_numbers[track_id],
            self.store.read(track_id),
            self.wordings(track_id),
        )


def track_dataset(
    store: Frames,
    texts: Mapping[str, str],
    track_ids: Sequence[str],
    variants: Mapping[str, Sequence[str]] | None = None,
) -> TrackTuples:
    """Returns one row for each of `track_ids` that has audio and text, in order."""
    usable = {track_id: text for track_id, text in texts.items() if text and track_id in store}
    rows = [(track_id,) for track_id in track_ids if track_id in usable]
    return TrackTuples(store, usable, rows, variants)


def pair_dataset(store: Frames, texts: Mapping[str, str], pairs: pl.DataFrame) -> TrackTuples:
    """Returns one row for each distinct pair of tracks with audio, in table order."""
    usable = {track_id: text for track_id, text in texts.items() if track_id in store}
    unique_pairs = pairs.select(ANCHOR_ID, POSITIVE_ID).unique(maintain_order=True).rows()
    rows = [pair for pair in unique_pairs if usable.keys() >= set(pair)]
    return TrackTuples(store, usable, rows)


@dataclass(frozen=True)
class Collator:
    """Makes a batch of tuples of tracks; picklable, for loader workers.

    mel: None = features of a frozen front end, taken as they are.
    text_states: (n, V, D) the frozen text encoder's vectors of each text number's V wordings; the
        last row is for `NO_TEXT`. None = texts are tokenised.
    teacher: (n, d) each track number's unit vector when stage two began, for distillation.
    """

    tokenizer: Tokenizer
    mel: MelConfig | None
    min_frames: int
    max_tokens: int
    text_states: Tensor | None = None
    teacher: Tensor | None = None

    def __call__(self, rows: Sequence[tuple[TrackItem, ...]]) -> dict[str, Tensor]:
        """Returns `features`, `padding_mask`, the texts, `has_text` and the rows' numbers.

        The texts are `input_ids` and `attention_mask`, (B, V, L), or `text_states`, (B, V, D).
        """
        batch = self.unpadded(rows)
        features, padding_mask = self.pad(batch.pop("unpadded_features"))
        return {"features": features, "padding_mask": padding_mask} | batch

    def pad(self, features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Returns features as the audio tower takes them, (B, T, F), and their mask (B, T)."""
        if self.mel is None:
            return pad_frames(features)
        return pad_features(features, self.mel, self.min_frames)

    def unpadded(self, rows: Sequence[tuple[TrackItem, ...]]) -> dict[str, Any]:
        """Returns a batch with `unpadded_features`: a list of unread views of the store."""
        items = list(chain.from_iterable(zip(*rows, strict=True)))
        track_numbers = torch.tensor([item.track_number for item in items])
        text_numbers = torch.tensor([item.text_number for item in items])
        batch: dict[str, Any] = {
            "unpadded_features": [item.features for item in items],
            "has_text": text_numbers != NO_TEXT,
            "track_numbers": track_numbers,
            "text_numbers": text_numbers,
        }
        if self.teacher is not None:
            batch["teacher"] = self.teacher[track_numbers]
        if self.text_states is not None:
            batch["text_states"] = self.text_states[text_numbers]
            return batch
        texts = list(chain.from_iterable(item.texts for item in items))
        tokens = tokenize(texts, self.tokenizer, self.max_tokens)
        for name, values in tokens.items():
            batch[name] = values.reshape(len(items), -1, values.shape[1])
        return batch


class LazyBatch:
    """A batch that reads and pads features when rows are requested, all or one chunk at a time.

    Wordings and crops are drawn once, so that a row is the same each time.

    batch: as `Collator.unpadded` returns it. pad: `Collator.pad`. crop_frames: 0 = no crops.
    loss_inputs: what the loss takes beside the model's vectors.
    """

    def __init__(
        self,
        batch: dict[str, Any],
        pad: Callable[[Sequence[np.ndarray]], tuple[Tensor, Tensor]],
        crop_frames: int,
        device: torch.device,
        rng: np.random.Generator,
    ) -> None:
        self.features: list[np.ndarray] = batch["unpadded_features"]
        self.pad = pad
        self.crop_frames = crop_frames
        self.device = device
        n_rows = len(self.features)
        self.texts: dict[str, Tensor] = {"has_text": batch["has_text"]}
        names = [name for name in TEXT_INPUTS if name in batch]
        wordings = torch.from_numpy(rng.integers(batch[names[0]].shape[1], size=n_rows))
        for name in names:
            self.texts[name] = batch[name][torch.arange(n_rows), wordings]
        self.crop_positions = torch.from_numpy(rng.random(n_rows, dtype=np.float32))
        self.seed = int(rng.integers(2**31))  # of what else the step draws
        self.loss_inputs: dict[str, Tensor] = {}
        for name in LOSS_INPUTS:
            if name in batch:
                self.loss_inputs[name] = batch[name].to(device)

    def __len__(self) -> int:
        return len(self.features)

    def chunks(self, size: int) -> list[Tensor]:
        """Returns row numbers, at most `size` each; rows of similar length share a chunk."""
        n_frames = torch.tensor([len(features) for features in self.features])
        if self.crop_frames:
            n_frames = n_frames.clamp(max=self.crop_frames)
        return list(torch.split(n_frames.argsort(stable=True), size))

    def rows(self, numbers: Tensor) -> dict[str, Tensor]:
        """Returns the model's inputs for the row numbers (n,)."""
        features, padding_mask = self.pad([self.features[row] for row in numbers.tolist()])
        if self.crop_frames:
            positions = self.crop_positions[numbers]
            features, padding_mask = random_crop(
                features, padding_mask, self.crop_frames, positions
            )
        inputs = {name: value[numbers] for name, value in self.texts.items()}
        inputs |= {"features": features, "padding_mask": padding_mask}
        return {name: value.to(self.device) for name, value in inputs.items()}


def row_batches(n_rows: int, batch_size: int, seed: int, start: int) -> Iterator[np.ndarray]:
    """Yields this process's row numbers (batch_size,) of each step from `start` on, without end.

    Every epoch is a permutation of its own, drawn from `seed` and the epoch; the rows left over
    after its last whole step are left out.
    """
    rank, n_processes = launch_info()
    rows_per_step = batch_size * n_processes
    steps_per_epoch = n_rows // rows_per_step
    epoch, position = divmod(start, steps_per_epoch)
    while True:
        order = np.random.default_rng((seed, epoch)).permutation(n_rows)
        while position < steps_per_epoch:
            first = position * rows_per_step + rank * batch_size
            yield order[first : first + batch_size]
            position += 1
        epoch += 1
        position = 0


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
    """Opens the audio tower's inputs: log-mels, or the mean features of a frozen front end.

    weights: of the front end under stage one. Raises as `open_features`.
    """
    frames = open_features(folder, folder.config, weights)
    return frames if folder.config.front_end == "logmel" else PooledFeatures(frames)


def tag_table(tracks: pl.DataFrame, min_tracks: int = 1) -> tuple[list[str], csr_matrix]:
    """Returns the W genres and tags of at least `min_tracks` tracks, and (n, W) bool: the tracks'.

    Tags written by people and by machines count alike.
    """
    columns = [column for column in (GENRES, TAGS, MACHINE_TAGS) if column in tracks.columns]
    parts = []
    for column in columns:
        part = tracks.with_row_index("track").select(
            "track", tag=pl.col(column).cast(pl.List(pl.String))
        )
        parts.append(part.explode("tag").drop_nulls())
    schema = {"track": pl.UInt32(), "tag": pl.String()}
    tags = (pl.concat(parts) if parts else pl.DataFrame(schema=schema)).unique()
    tags = tags.filter(pl.len().over("tag") >= min_tracks).sort("track", "tag")
    names = tags["tag"].unique().sort().to_list()
    numbers = np.searchsorted(np.array(names, dtype=str), tags["tag"].to_numpy().astype(str))
    shape = (tracks.height, len(names))
    values = np.ones(tags.height, dtype=bool)
    return names, csr_matrix((values, (tags["track"].to_numpy(), numbers)), shape)


def compute_text_states(model: HTCL, dataset: TrackTuples) -> Tensor:
    """Returns the frozen text encoder's vectors of each text number's V wordings, (n + 1, V, D).

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
    encoded = torch.from_numpy(model.encode_text_states(unique_texts))
    state_of = dict(zip(unique_texts, encoded, strict=True))
    for number, texts in wordings.items():
        for variant, text in enumerate(texts):
            states[number, variant] = state_of[text]
    return states
