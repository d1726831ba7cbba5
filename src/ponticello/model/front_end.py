"""What MusiCNN hears of a track, kept as frames in a library's `frames/`: computed once, read by everything after.

One frame is 3 s of sound (a MusiCNN patch), as `FRAME_SIZE` numbers: what both taggers pool, their embeddings and tags.
"""

from functools import partial
from pathlib import Path

import numpy as np
import torch

from ponticello.config import Config
from ponticello.data.audio import load_audio
from ponticello.data.mel import mel_key
from ponticello.data.prepare import FrontEnd
from ponticello.data.shards import Mel
from ponticello.data.store import FrameStore
from ponticello.library import Folder
from ponticello.model.musicnn import MEL, N_PENULTIMATE, N_POOLED, N_TAGS, PATCH_FRAMES, Tagger, hear

TAGGERS: tuple[Tagger, ...] = ("msd", "mtt")
A_TAGGER = N_POOLED + N_PENULTIMATE + N_TAGS  # mean_pool, penultimate, taggram
FRAME_SECONDS = PATCH_FRAMES * MEL.hop_length / MEL.sample_rate  # 2.99 s
FRAME_SIZE = len(TAGGERS) * A_TAGGER  # 2,006 numbers, 4 KB
_RECIPE = 1  # raise it when `musicnn_frames` gives other numbers


def frames_key(config: Config) -> str:
    """A name that changes whenever what a model with these settings reads would (`FrontEnd.key`)."""
    return mel_key(config.mel) if config.front_end == "logmel" else _musicnn_key(config.mel.max_seconds)


def frames_for(folder: Folder, config: Config) -> FrameStore:
    """The prepared frames a model with these settings reads; LibraryError if they are missing or of other settings."""
    store = FrameStore(folder.mels if config.front_end == "logmel" else folder.frames)
    store.require(frames_key(config))
    return store


def musicnn_front_end(folder: Folder) -> FrontEnd:
    """The library's MusiCNN frames, in `frames/`, of the first `mel.max_seconds` of each track."""
    seconds = folder.config.mel.max_seconds
    return FrontEnd(folder.frames, _musicnn_key(seconds), partial(musicnn_frames, seconds=seconds), "prepare frames")


def _musicnn_key(seconds: float) -> str:
    return f"musicnn {_RECIPE} {seconds:g}"


def musicnn_frames(path: Path, seconds: float) -> Mel:
    """(P, 2006) float16: every whole 3 s of the first `seconds` of a file, under both taggers.

    Of each tagger in turn: mean_pool (753), penultimate (200), taggram (50). A sound shorter than 3 s is repeated to
    fill one frame. AudioError as `load_audio`. Cost: about 1/20 of the sound's length on one core.
    """
    return frames_of(load_audio(path, MEL.sample_rate, seconds), seconds)


def frames_of(waveform: np.ndarray, seconds: float) -> Mel:
    """As `musicnn_frames`, of a mono waveform (n,) at 16 kHz; errors as `hear`."""
    waveform = waveform[: int(seconds * MEL.sample_rate)]
    parts = []
    for tagger in TAGGERS:
        heard = hear(waveform, tagger)
        parts += [heard.mean_pool, heard.penultimate, heard.taggram]
    frames: Mel = torch.cat(parts, dim=1).numpy().astype(np.float16)
    return frames
