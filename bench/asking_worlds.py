"""Trained freemusic worlds as matrices, for `asking.py`: a world's two runs are made once and then found again.

Dimensions: n tracks, d vector size.
"""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from freemusic import world
from ponticello.config import Config
from ponticello.data.artists import artists_of
from ponticello.data.catalog import read_tracks
from ponticello.data.columns import TRACK_ID
from ponticello.data.interactions import read_interactions
from ponticello.data.mining import mine_library
from ponticello.data.splits import Splits, load_splits
from ponticello.data.store import FrameStore
from ponticello.data.text import track_texts
from ponticello.evaluate.guard import judge_on_validation
from ponticello.evaluate.semantic import retrieval_figures
from ponticello.library import Folder, open_library
from ponticello.model.htcl import HTCL
from ponticello.train.finished import is_finished
from ponticello.train.run import train_preference, train_semantic

STAGES = ("semantic", "preference")


@dataclass(frozen=True)
class Trained:
    """Row i of everything belongs to ids[i], sorted. audio, fused: (n, d) unit vectors by stage; texts: of the words.

    The fused vectors hold the track's own text, so no text is ever asked of them.
    """

    folder: Folder
    ids: list[str]
    roles: list[str]
    artists: dict[str, str]
    tracks: pl.DataFrame
    splits: Splits
    log: pl.DataFrame
    audio: dict[str, np.ndarray]
    fused: dict[str, np.ndarray]
    texts: dict[str, np.ndarray]

    def rows_of(self, role: str) -> np.ndarray:
        """The rows of a role's tracks."""
        return np.flatnonzero(np.array(self.roles) == role)

    @property
    def clusters(self) -> list[str]:
        """The artist of every track, or the track itself."""
        return [self.artists.get(track_id, track_id) for track_id in self.ids]


def trained_world(root: Path, base: Folder, source: Path, seed: int, *, by_track: bool) -> Trained:
    """The world of `seed` under both stages.

    by_track: tracks are held out one by one, so that a held-out track's artist may be known; else whole games and
        artists are.
    """
    if not is_finished(root / "runs" / STAGES[1]):
        shutil.rmtree(root, ignore_errors=True)
        _train(_split(world(root, base, source, seed, {}), by_track=by_track), seed)
    folder = _split(open_library(root), by_track=by_track, again=False)
    tracks, splits = read_tracks(folder).sort(TRACK_ID), load_splits(folder)
    assert splits is not None
    ids, words, frames = tracks[TRACK_ID].to_list(), track_texts(tracks), FrameStore(folder.frames)
    read = [frames.read(track_id) for track_id in ids]
    audio, fused, texts = {}, {}, {}
    for stage in STAGES:
        model = HTCL.from_pretrained(folder.run(stage))
        audio[stage], texts[stage] = model.encode_mels(read), model.encode_text(words)
        fused[stage] = model.encode_fused(read, model.encode_text_states(words))
    roles = [splits.roles[track_id] for track_id in ids]
    log = read_interactions(folder)
    return Trained(folder, ids, roles, artists_of(tracks), tracks, splits, log, audio, fused, texts)


def _split(folder: Folder, *, by_track: bool, again: bool = True) -> Folder:
    """The world with its tracks held out one by one, where that is asked for."""
    settings: dict[str, Any] = folder.config.model_dump(mode="json")
    settings["splits"] |= {"tracks": "track", "column": ""} if by_track else {"tracks": "column", "column": "split"}
    folder = replace(folder, config=Config.model_validate(settings))
    if by_track and again:
        folder.splits.unlink()
        with folder.lock():
            mine_library(folder)
    return folder


def _train(folder: Folder, seed: int) -> None:
    settings: dict[str, Any] = folder.config.model_dump(mode="json")
    for stage in STAGES:
        settings[stage]["seed"] = seed
    own = replace(folder, config=Config.model_validate(settings))
    train_semantic(own, STAGES[0], retrieval_figures)
    train_preference(own, STAGES[1], STAGES[0], retrieval_figures, judge=judge_on_validation(own))
