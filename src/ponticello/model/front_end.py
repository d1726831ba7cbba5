"""What MusiCNN hears of a track, kept as frames in a library's `frames/`: computed once, read by everything after.

One frame is 3 s of sound (a MusiCNN patch), as `FRAME_SIZE` numbers in three blocks: what each tagger pools, embeds and
tags, and the spectrum they listened to.
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
from ponticello.model.musicnn import MEL, N_PENULTIMATE, N_POOLED, N_TAGS, PATCH_FRAMES, Tagger, hear, patches_of

TAGGERS: tuple[Tagger, ...] = ("msd", "mtt")
A_TAGGER = N_POOLED + N_PENULTIMATE + N_TAGS  # mean_pool, penultimate, taggram
FRAME_SECONDS = PATCH_FRAMES * MEL.hop_length / MEL.sample_rate  # 2.99 s
N_TAGGED = len(TAGGERS) * A_TAGGER  # what the taggers themselves say of a frame, its first numbers
A_SPECTRUM = 2 * MEL.n_mels  # of each mel band: mean, against the patch's own, and standard deviation over the patch
# How many numbers belong together, and how much of a track's vector they are: docs/benchmarks.md, "The front end".
BLOCKS = ((A_TAGGER, 1.0), (A_TAGGER, 1.0), (A_SPECTRUM, 0.7))
FRAME_SIZE = sum(size for size, _ in BLOCKS)  # 2,198 numbers, 4 KB
_RECIPE = 2  # raise it when `musicnn_frames` gives other numbers


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
    """(P, 2198) float16: every whole 3 s of the first `seconds` of a file, under both taggers, and its spectrum.

    Of each tagger in turn: mean_pool (753), penultimate (200), taggram (50); then the mel bands' means, less the mean
    over all bands so that loudness says nothing, and their standard deviations (96 each, log10 units). A sound shorter
    than 3 s is repeated to fill one frame. AudioError as `load_audio`. Cost: 1/20 of the sound's length on one core.
    """
    return frames_of(load_audio(path, MEL.sample_rate, seconds), seconds)


def frames_of(waveform: np.ndarray, seconds: float) -> Mel:
    """As `musicnn_frames`, of a mono waveform (n,) at 16 kHz; errors as `patches_of`."""
    patches = patches_of(waveform[: int(seconds * MEL.sample_rate)])
    parts = []
    for tagger in TAGGERS:
        heard = hear(patches, tagger)
        parts += [heard.mean_pool, heard.penultimate, heard.taggram]
    spectrum = patches.mean(dim=1)  # (P, 96)
    parts += [spectrum - spectrum.mean(dim=1, keepdim=True), patches.std(dim=1)]
    frames: Mel = torch.cat(parts, dim=1).numpy().astype(np.float16)
    return frames
