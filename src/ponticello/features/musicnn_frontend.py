"""What MusiCNN hears of a track, kept as frames in a library's `frames/`: computed once, read by
everything after.

One frame is 3 s of sound (a MusiCNN patch), as `FRAME_SIZE` numbers in three blocks: what each
tagger pools, embeds and tags, and the spectrum they listened to.

Machine tags, from what MusiCNN heard: of one track, and of a whole library.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch

from ponticello.audio.decode import load_audio, resample
from ponticello.features.extraction import ExtractionJob
from ponticello.features.musicnn import (
    MEL,
    N_PENULTIMATE,
    N_POOLED,
    N_TAGS,
    Tagger,
    musicnn_forward,
    split_patches,
    tag_names,
)
from ponticello.features.store import Features, FeatureStore
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import MACHINE_TAGS, TRACK_ID
from ponticello.tracks.catalog import audio_files, merge_tracks

TAGGERS: tuple[Tagger, ...] = ("msd", "mtt")
TAGGER_SIZE = N_POOLED + N_PENULTIMATE + N_TAGS  # mean_pool, penultimate, taggram
TAGGERS_SIZE = (
    len(TAGGERS) * TAGGER_SIZE
)  # what the taggers themselves say of a frame, its first numbers
SPECTRUM_SIZE = (
    2 * MEL.n_mels
)  # of each mel band: mean, against the patch's own, and standard deviation over the patch
# How many numbers belong together, and how much of a track's vector they are. Ours: half the
# spectrum's share does as
# well or better (docs/benchmarks.md, "Where the departure begins"), but the starter model was made
# with this one.
BLOCKS = ((TAGGER_SIZE, 1.0), (TAGGER_SIZE, 1.0), (SPECTRUM_SIZE, 0.7))
FRAME_SIZE = sum(size for size, _ in BLOCKS)  # 2,198 numbers, 4 KB
# The taggers hear a track 6 dB softer as another one, and a silence before the music shifts their
# patches: both are
# evened out first. docs/benchmarks.md, "How steady vectors are".
LEVEL_DB = (
    -20.0
)  # RMS against full scale: what every sound is brought to; mastered music lies at -20 to -10
SILENCE_DB = -60.0  # below the peak: what counts as silence before the music
LEAD_IN_S = 5.0  # read past the wanted seconds, so that so long a silence costs none of them
_RECIPE = 3  # raise it when `musicnn_features` gives other numbers


@dataclass(frozen=True)
class MusicnnExtractor:
    """The front end `musicnn`, of the first `seconds` of each track; see `FeatureExtractor`."""

    seconds: float
    notice = ""

    @property
    def key(self) -> str:
        """As `FeatureExtractor.key`."""
        return f"musicnn {_RECIPE} {self.seconds:g}"

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """As `FeatureExtractor.blocks`."""
        return BLOCKS

    def job(self, folder: LibraryPaths) -> tuple[ExtractionJob, Mapping[str, Path]]:
        """As `FeatureExtractor.job`."""
        return ExtractionJob(
            folder.frames, self.key, self._of_track, "prepare frames"
        ), audio_files(folder)

    def extract(self, sound: Path | np.ndarray, sample_rate: int) -> Features:
        """As `FeatureExtractor.extract`."""
        if isinstance(sound, Path):
            return musicnn_features(sound, self.seconds)
        return waveform_features(resample(sound, sample_rate, MEL.sample_rate), self.seconds)

    def _of_track(self, path: Path, track_id: str) -> Features:
        return musicnn_features(path, self.seconds)


def musicnn_job(folder: LibraryPaths) -> ExtractionJob:
    """The library's MusiCNN frames, in `frames/`, of the first `mel.max_seconds` of each track."""
    return MusicnnExtractor(folder.config.mel.max_seconds).job(folder)[0]


def musicnn_features(path: Path, seconds: float) -> Features:
    """(P, 2198) float16: every whole 3 s of the first `seconds` of a file, under both taggers, and
    its spectrum.

    Of each tagger in turn: mean_pool (753), penultimate (200), taggram (50); then the mel bands'
    means, less the mean over all bands, and their standard deviations (96 each, log10 units). A
    sound shorter than 3 s is repeated to fill one frame. Silence before the music is left out, and
    the music brought to one level. AudioError as `load_audio`.
    Cost: 1/30 of the sound's length on one core.
    """
    return waveform_features(load_audio(path, MEL.sample_rate, seconds + LEAD_IN_S), seconds)


def waveform_features(waveform: np.ndarray, seconds: float) -> Features:
    """As `musicnn_features`, of a mono waveform (n,) at 16 kHz; errors as `split_patches`."""
    return extract_raw(
        normalize_loudness(trim_leading_silence(waveform)[: int(seconds * MEL.sample_rate)])
    )


def extract_raw(waveform: np.ndarray) -> Features:
    """As `waveform_features`, of all of a waveform at its own level, silence before it included."""
    patches = split_patches(waveform)
    parts = []
    for tagger in TAGGERS:
        heard = musicnn_forward(patches, tagger)
        parts += [heard.mean_pool, heard.penultimate, heard.taggram]
    spectrum = patches.mean(dim=1)  # (P, 96)
    parts += [spectrum - spectrum.mean(dim=1, keepdim=True), patches.std(dim=1)]
    frames: Features = torch.cat(parts, dim=1).numpy().astype(np.float16)
    return frames


def trim_leading_silence(waveform: np.ndarray) -> np.ndarray:
    """The sound (n,) from its first sample that is less than 60 dB below its peak; silence as it
    is.
    """
    loudness = np.abs(waveform)
    return waveform[
        int((loudness > 10 ** (SILENCE_DB / 20) * loudness.max(initial=0.0)).argmax()) :
    ]


def normalize_loudness(waveform: np.ndarray) -> np.ndarray:
    """The sound (n,) at an RMS of `LEVEL_DB`; silence as it is."""
    rms = float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2))) if len(waveform) else 0.0
    return (
        (waveform * np.float32(10 ** (LEVEL_DB / 20) / rms)).astype(np.float32)
        if rms > 0
        else waveform
    )


# A tag counts from here on, in 0..1. Scores are low in absolute terms, those of `mtt` about twice
# as high.
MIN_TAG_SCORE: dict[Tagger, float] = {"msd": 0.1, "mtt": 0.2}
MAX_TAGS = 12  # a track, the clearest


def tag_tracks(folder: LibraryPaths) -> dict[str, list[str]]:
    """Writes column `machine_tags` of every track with MusiCNN features, and returns the tags.

    Earlier machine tags are replaced; a track without a clear tag gets an empty list. No other
    column is changed. The caller holds `folder.lock()`. LibraryError if there are no features.
    """
    store = FeatureStore(folder.frames)
    store.require(musicnn_job(folder).key)
    tags = {track_id: list(rank_tags(store.read(track_id))) for track_id in store.track_ids}
    schema = {TRACK_ID: pl.String(), MACHINE_TAGS: pl.List(pl.String())}
    merge_tracks(
        folder,
        pl.DataFrame({TRACK_ID: list(tags), MACHINE_TAGS: list(tags.values())}, schema),
        "machine tags",
    )
    return tags


def rank_tags(frames: Features) -> dict[str, float]:
    """The tags of a track by falling clearness, at most `MAX_TAGS`: {tag: how many times its least
    score it has}.

    frames: as `musicnn_features` gives them. A track's score is the mean over its frames; a tag that
    both taggers know counts by the clearer one.
    """
    clearness: dict[str, float] = {}
    for number, tagger in enumerate(TAGGERS):
        end = (number + 1) * TAGGER_SIZE
        scores = (
            frames[:, end - N_TAGS : end].astype(np.float64).mean(axis=0) / MIN_TAG_SCORE[tagger]
        )
        for tag, score in zip(tag_names(tagger), scores.tolist(), strict=True):
            clearness[tag] = max(clearness.get(tag, 0.0), score)
    clear = sorted((-score, tag) for tag, score in clearness.items() if score >= 1)
    return {tag: -score for score, tag in clear[:MAX_TAGS]}
