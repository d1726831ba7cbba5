"""What a stage reads: frames, texts and roles, and what is computed once before the first step."""

from dataclasses import dataclass

import polars as pl
import torch
from torch import Tensor

from ponticello.data.columns import PLAYED_AT, TRACK_ID, USER_ID
from ponticello.data.dataset import NO_TEXT, Frames, TrackTuples
from ponticello.data.interactions import is_positive, scan_interactions
from ponticello.data.parquet import reading
from ponticello.data.splits import Splits, load_splits, train_events
from ponticello.data.store import PooledFrames
from ponticello.data.text import fused_texts, track_texts
from ponticello.data.wording import track_variants
from ponticello.errors import LibraryError
from ponticello.library import Folder
from ponticello.model.front_end import frames_for
from ponticello.model.htcl import HTCL
from ponticello.train.stages import Stage

PART_SIZE = 512  # tracks in memory at once


@dataclass(frozen=True)
class Rows:
    """What a stage trains on and is validated on. n_candidates: rows there were before those without audio or text."""

    training: TrackTuples
    validation: TrackTuples
    splits: Splits
    n_candidates: int


def read_inputs(
    folder: Folder, stage: Stage, tracks: pl.DataFrame, weights: str = ""
) -> tuple[Frames, dict[str, str], Splits]:
    """What the audio tower reads, the text of every track, and who is held out; LibraryError if nothing is.

    Stage two over a frozen front end reads the texts that are fused with the sound (`fused_texts`). weights: of the
    front end under stage one; errors as `frames_for`.
    """
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError("nothing is held out yet; run: ponticello pairs")
    frames = frames_for(folder, folder.config, weights)
    # The tower over a frozen front end only sees a track's mean.
    store = PooledFrames(frames) if folder.config.front_end != "logmel" else frames
    if stage.tracks_per_row == 2:
        return store, fused_texts(tracks, folder.config.front_end), splits
    return store, dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True)), splits


def likes_to_learn(folder: Folder, splits: Splits) -> pl.DataFrame:
    """Who likes what in the training window, of training tracks alone: user_id and track_id, each pair once.

    DataError if the log is damaged.
    """
    liked = is_positive(folder.config.pairs.min_played_s)
    liked_events = scan_interactions(folder).filter(liked).select(USER_ID, TRACK_ID, PLAYED_AT)
    with reading(folder.interactions):
        events = liked_events.collect(engine="streaming")
    return train_events(events, splits).select(USER_ID, TRACK_ID).unique().sort(USER_ID, TRACK_ID)


def wordings_of(tracks: pl.DataFrame, n: int, seed: int) -> dict[str, list[str]]:
    """n - 1 other wordings of every track's text, by track id; as many empty ones where there is no text."""
    variants = track_variants(tracks, n, seed)
    return {track_id: own[1:] or [""] * (n - 1) for track_id, own in zip(tracks[TRACK_ID], variants, strict=True)}


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
    """(n + 1, V, D) the frozen text encoder's vectors of the V wordings of every text number.

    Numbers no track's text has stay 0, and so does the last row, for `NO_TEXT`.
    """
    texts = {dataset.text_numbers[track_id]: dataset.wordings(track_id) for track_id in dataset.texts}
    texts.pop(NO_TEXT, None)
    n_wordings = len(next(iter(texts.values()), ("",)))
    states = torch.zeros(len(dataset.texts) + 1, n_wordings, model.text_encoder.config.hidden_size)
    if texts:
        distinct = {text: place for place, text in enumerate(dict.fromkeys(t for own in texts.values() for t in own))}
        found = torch.from_numpy(model.encode_text_states(list(distinct)))
        states[list(texts)] = found[torch.tensor([[distinct[text] for text in own] for own in texts.values()])]
    return states
