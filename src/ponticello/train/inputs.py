"""What a stage reads: frames, texts and roles, the graph of pairs, and what is computed once before the first step."""

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from ponticello.data.catalog import read_tracks
from ponticello.data.columns import ANCHOR_ID, N_USERS, POSITIVE_ID, TRACK_ID
from ponticello.data.dataset import Frames, TrackTuples
from ponticello.data.splits import Splits, load_splits
from ponticello.data.store import PooledFrames
from ponticello.data.text import track_texts
from ponticello.errors import LibraryError
from ponticello.library import Folder
from ponticello.model.front_end import frames_for
from ponticello.model.htcl import HTCL
from ponticello.train.losses import PairGraph

PART_SIZE = 512  # tracks in memory at once


@dataclass(frozen=True)
class Rows:
    """What a stage trains on and is validated on. n_candidates: rows there were before those without audio or text."""

    training: TrackTuples
    validation: TrackTuples
    splits: Splits
    n_candidates: int


def read_inputs(folder: Folder) -> tuple[Frames, dict[str, str], Splits]:
    """What the audio tower reads, the text of every track, and who is held out; LibraryError if nothing is."""
    tracks = read_tracks(folder)
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError("nothing is held out yet; run: ponticello pairs")
    frames = frames_for(folder, folder.config)
    # The tower over a frozen front end only sees a track's mean.
    store = PooledFrames(frames) if folder.config.front_end != "logmel" else frames
    return store, dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True)), splits


def graph_of(dataset: TrackTuples, pairs: pl.DataFrame) -> PairGraph:
    """The pairs of a dataset by track number, each with its listeners over all sources. pairs: as `read_pairs`."""
    listeners = {(a, p): n for a, p, n in pairs.group_by(ANCHOR_ID, POSITIVE_ID).agg(pl.sum(N_USERS)).iter_rows()}
    numbers = [[dataset.track_numbers[track_id] for track_id in pair] for pair in dataset.rows]
    weights = [listeners[pair[0], pair[1]] for pair in dataset.rows]
    return PairGraph(torch.tensor(numbers).reshape(-1, 2), torch.tensor(weights))


def teacher_of(model: HTCL, dataset: TrackTuples) -> Tensor:
    """(n, d) the model's unit vector of every track number that stands in a row; the others stay 0."""
    used = sorted({track_id for row in dataset.rows for track_id in row})
    vectors = torch.zeros(len(dataset.texts), model.parts.heads.embed_dim)
    for first in range(0, len(used), PART_SIZE):
        part = used[first : first + PART_SIZE]
        numbers = [dataset.track_numbers[track_id] for track_id in part]
        vectors[numbers] = torch.from_numpy(model.encode_mels([dataset.store.read(track_id) for track_id in part]))
    return vectors


def text_states_of(model: HTCL, dataset: TrackTuples) -> Tensor:
    """(n, D) the frozen text encoder's vector of every text number; numbers no track's text has stay 0."""
    numbers = {dataset.text_numbers[track_id]: text for track_id, text in dataset.texts.items()}
    states = torch.zeros(len(dataset.texts), model.text_encoder.config.hidden_size)
    states[list(numbers)] = torch.from_numpy(model.encode_text_states(list(numbers.values())))
    return states
