"""Which frozen front end a model reads, and what each of them has to say: one file a front end,
this one chooses.

logmel      no frozen front end: the tower learns from log-mels   `audio/mel.py`
musicnn     two pretrained taggers in the package                 `musicnn_features.py`
features    vectors the user has                                  `features/precomputed.py`
hf:NAME     a Hugging Face audio encoder the user names           `hf_frames.py`
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from ponticello.audio.mel import mel_key
from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.features.extraction import ExtractionJob
from ponticello.features.huggingface import PREFIX, HuggingFaceExtractor
from ponticello.features.musicnn_frontend import MusicnnExtractor
from ponticello.features.precomputed import PrecomputedFeatures
from ponticello.features.store import Features, FeatureStore
from ponticello.storage.layout import LibraryPaths


class FeatureExtractor(Protocol):
    """How a track becomes frames (T, F) that are computed once and never learned."""

    @property
    def key(self) -> str:
        """Changes whenever the frames of a track would (`ExtractionJob.key`)."""

    @property
    def notice(self) -> str:
        """What its user has to know before it is used, such as a licence; "" for nothing."""

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """(size, weight) of the numbers of a frame that belong together, as
        `fit_feature_projection` takes them.
        """

    def job(self, folder: LibraryPaths) -> tuple[ExtractionJob, Mapping[str, Path]]:
        """Returns how a library's features are computed, and the file of each track."""

    def extract(self, sound: Path | np.ndarray, sample_rate: int) -> Features:
        """(T, F) float16 of a file, or of a mono waveform (n,) at `sample_rate` Hz.

        CheckpointError where it cannot take sound, AudioError as `load_audio`.
        """


def feature_extractor(
    config: Config, weights: str = "", allow_download: bool = False
) -> FeatureExtractor | None:
    """The frozen front end that the settings name; None for log-mels.

    weights: those a model was trained over (`FeatureStore.weights`); "" = whichever are found.
    """
    if config.front_end == "logmel":
        return None
    if config.front_end == "musicnn":
        return MusicnnExtractor(config.mel.max_seconds)
    if config.front_end == "features":
        return PrecomputedFeatures(config.features)
    return HuggingFaceExtractor(
        config.front_end.removeprefix(PREFIX), config.mel.max_seconds, weights, allow_download
    )


def features_key(config: Config, weights: str = "") -> str:
    """A name that changes whenever what a model with these settings reads would
    (`ExtractionJob.key`).
    """
    front_end = feature_extractor(config, weights)
    return front_end.key if front_end else mel_key(config.mel)


def open_features(folder: LibraryPaths, config: Config, weights: str = "") -> FeatureStore:
    """The prepared frames a model with these settings reads; LibraryError if they are missing or of
    other settings.

    weights: those of the front end that the model was trained over, "" = any; CheckpointError if
    the frames were since prepared with others.
    """
    store = FeatureStore(folder.frames_of(config.front_end))
    store.require(features_key(config))
    if weights and store.weights != weights:
        raise CheckpointError(
            f"{folder.frames_of(config.front_end)} were prepared with {config.front_end} of weights "
            f"{store.weights or 'unknown'}, the model was trained over weights {weights}: put those back and run "
            "ponticello prepare, or train stage one anew under another --name"
        )
    return store
