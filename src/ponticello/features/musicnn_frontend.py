"""MusiCNN as a frozen front end, and machine tags from its features.

One frame is 3 s of sound (a MusiCNN patch), as `FRAME_SIZE` numbers: the penultimate layer and the
tags of each tagger.
Dimensions: n samples, P patches of a track, N tracks, U tags.
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
TAGGER_SIZE = N_PENULTIMATE + N_TAGS
FRAME_SIZE = len(TAGGERS) * TAGGER_SIZE  # 500 numbers, 1 KB
# Sizes of the blocks, and their weights in a track's vector. The pooled features and the spectrum
# are left out: with them real listeners were further away (docs/benchmarks.md, "The front end").
BLOCKS = ((N_PENULTIMATE, 1.0), (N_TAGS, 0.0), (N_PENULTIMATE, 0.7), (N_TAGS, 0.0))
MIN_PROBABILITY = 1e-4  # of a tag, so that its log odds are finite
# MusiCNN's output depends on loudness, and silence before the music shifts its patches, so both are
# normalised first (docs/benchmarks.md, "How steady vectors are").
LEVEL_DB = -20.0  # RMS relative to full scale; mastered music has -20 to -10
SILENCE_DB = -60.0  # relative to the peak
LEAD_IN_S = 5.0  # decoded beyond the wanted seconds, to replace leading silence of this length
MIN_TAG_SCORE: dict[Tagger, float] = {"msd": 0.1, "mtt": 0.2}  # `mtt` scores about twice as high
MAX_TAGS = 12  # per track
_RECIPE = 4  # part of the key; raise it when `musicnn_features` returns other numbers


@dataclass(frozen=True)
class MusicnnExtractor:
    """The front end `musicnn`, of the first `seconds` of each track; see `FeatureExtractor`."""

    seconds: float
    notice = ""

    @property
    def key(self) -> str:
        """Contains the version of the recipe and `seconds`."""
        return f"musicnn {_RECIPE} {self.seconds:g}"

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """Returns `BLOCKS`."""
        return BLOCKS

    def job(self, folder: LibraryPaths) -> tuple[ExtractionJob, Mapping[str, Path]]:
        """Returns the job for `frames/`, and the audio files of the catalogue."""
        job = ExtractionJob(folder.frames, self.key, self._extract_track, "prepare frames")
        return job, audio_files(folder)

    def extract(self, sound: Path | np.ndarray, sample_rate: int) -> Features:
        """Returns the features of a file or a waveform, see `FeatureExtractor.extract`."""
        if isinstance(sound, Path):
            return musicnn_features(sound, self.seconds)
        return waveform_features(resample(sound, sample_rate, MEL.sample_rate), self.seconds)

    def _extract_track(self, path: Path, _track_id: str) -> Features:
        return musicnn_features(path, self.seconds)


def musicnn_job(folder: LibraryPaths) -> ExtractionJob:
    """Returns the job for MusiCNN features of the first `mel.max_seconds` of each track."""
    job, _ = MusicnnExtractor(folder.config.mel.max_seconds).job(folder)
    return job


def musicnn_features(path: Path, seconds: float) -> Features:
    """Returns (P, 500) float16, one row per whole 3 s of the first `seconds` of a file.

    Per tagger: penultimate (200), taggram (50). Leading silence is left out, and the loudness is
    normalised. A sound shorter than 3 s is repeated to fill one
    patch. Errors as `load_audio`. Cost: 1/30 of the sound's length on one core.
    """
    return waveform_features(load_audio(path, MEL.sample_rate, seconds + LEAD_IN_S), seconds)


def waveform_features(waveform: np.ndarray, seconds: float) -> Features:
    """Returns the features of a mono waveform (n,) at 16 kHz, as `musicnn_features`.

    Errors as `split_patches`.
    """
    trimmed = trim_leading_silence(waveform)[: int(seconds * MEL.sample_rate)]
    return extract_raw(normalize_loudness(trimmed))


def extract_raw(waveform: np.ndarray) -> Features:
    """Returns the features of a whole waveform, without trimming or normalising it."""
    patches = split_patches(waveform)
    blocks = []
    for tagger in TAGGERS:
        output = musicnn_forward(patches, tagger)
        blocks += [output.penultimate, output.taggram]
    features: Features = torch.cat(blocks, dim=1).numpy().astype(np.float16)
    return features


def trim_leading_silence(waveform: np.ndarray) -> np.ndarray:
    """Returns (n,) from the first sample less than 60 dB below the peak; silence is unchanged."""
    amplitude = np.abs(waveform)
    threshold = 10 ** (SILENCE_DB / 20) * amplitude.max(initial=0.0)
    start = int((amplitude > threshold).argmax())
    return waveform[start:]


def normalize_loudness(waveform: np.ndarray) -> np.ndarray:
    """Returns (n,) scaled to an RMS of `LEVEL_DB`; silence is unchanged."""
    if not waveform.any():
        return waveform
    rms = float(np.sqrt(np.mean(waveform.astype(np.float64) ** 2)))
    return (waveform * np.float32(10 ** (LEVEL_DB / 20) / rms)).astype(np.float32)


def tag_tracks(folder: LibraryPaths) -> dict[str, list[str]]:
    """Writes column `machine_tags` of every track with MusiCNN features, and returns the tags.

    Earlier machine tags are replaced; a track without a clear tag gets an empty list. No other
    column is changed. The caller holds `folder.lock()`. LibraryError if there are no features.
    """
    store = FeatureStore(folder.frames)
    store.require(musicnn_job(folder).key)
    tags = {track_id: list(rank_tags(store.read(track_id))) for track_id in store.track_ids}
    schema = {TRACK_ID: pl.String(), MACHINE_TAGS: pl.List(pl.String())}
    columns = {TRACK_ID: list(tags), MACHINE_TAGS: list(tags.values())}
    merge_tracks(folder, pl.DataFrame(columns, schema), "machine tags")
    return tags


def tagger_tags() -> list[str]:
    """Returns the U tags that the taggers have, each once."""
    return list(dict.fromkeys(tag for tagger in TAGGERS for tag in tag_names(tagger)))


def tagger_scores(means: np.ndarray) -> np.ndarray:
    """Returns (N, U) float64, the log odds of each of `tagger_tags` in standard scores over tracks.

    means: (N, FRAME_SIZE), each track's mean frame. A tag that both taggers have gets the mean.
    """
    by_tag: dict[str, list[np.ndarray]] = {tag: [] for tag in tagger_tags()}
    for number, tagger in enumerate(TAGGERS):
        end = (number + 1) * TAGGER_SIZE
        share = np.clip(means[:, end - N_TAGS : end], MIN_PROBABILITY, 1 - MIN_PROBABILITY)
        log_odds = np.log(share / (1 - share))
        deviation = np.maximum(log_odds.std(axis=0), MIN_PROBABILITY)
        scores = (log_odds - log_odds.mean(axis=0)) / deviation
        for column, tag in enumerate(tag_names(tagger)):
            by_tag[tag].append(scores[:, column])
    return np.stack([np.mean(scores, axis=0) for scores in by_tag.values()], axis=1)


def rank_tags(features: Features) -> dict[str, float]:
    """Returns the `MAX_TAGS` clearest tags of a track: {tag: score / minimum score}, highest first.

    features: as `musicnn_features`. A track's score is the mean over its frames. A tag that both
    taggers know counts with the higher ratio.
    """
    ratios: dict[str, float] = {}
    for number, tagger in enumerate(TAGGERS):
        end = (number + 1) * TAGGER_SIZE
        scores = features[:, end - N_TAGS : end].astype(np.float64).mean(axis=0)
        tagger_ratios = (scores / MIN_TAG_SCORE[tagger]).tolist()
        for tag, ratio in zip(tag_names(tagger), tagger_ratios, strict=True):
            ratios[tag] = max(ratios.get(tag, 0.0), ratio)
    clear = [tag for tag, ratio in ratios.items() if ratio >= 1]
    clear.sort(key=lambda tag: (-ratios[tag], tag))
    return {tag: ratios[tag] for tag in clear[:MAX_TAGS]}
