"""The interface of frozen front ends, and the choice of the one that a library's settings name.

    logmel      no frozen front end: the model learns from log-mels   `audio/mel.py`
    musicnn     two pretrained taggers in the package                 `musicnn_frontend.py`
    features    vectors computed by other programs                    `precomputed.py`
    hf:NAME     a Hugging Face audio encoder                          `huggingface.py`

Dimensions: T frames, F numbers per frame.
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
    """Turns sounds into features (T, F) with weights that are never trained here."""

    @property
    def key(self) -> str:
        """Changes whenever the features of a track would change."""

    @property
    def notice(self) -> str:
        """A notice for the user, such as the licence of the weights; may be empty."""

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """Returns (size, weight) of each block of numbers in a frame.

        `fit_feature_projection` gives each block its share of a track's vector.
        """

    def job(self, folder: LibraryPaths) -> tuple[ExtractionJob, Mapping[str, Path]]:
        """Returns the job that computes a library's features, and the file of each track."""

    def extract(self, sound: Path | np.ndarray, sample_rate: int) -> Features:
        """Returns the features of a file, or of a mono waveform (n,) at `sample_rate` Hz.

        Raises CheckpointError where the front end cannot read sounds, AudioError as `load_audio`.
        """


def feature_extractor(
    config: Config, weights: str = "", allow_download: bool = False
) -> FeatureExtractor | None:
    """Returns the frozen front end that the settings name; None for log-mels.

    weights: hash of the encoder weights a model was trained with (`FeatureStore.weights`);
        "" accepts the installed ones.
    """
    if config.front_end == "logmel":
        return None
    if config.front_end == "musicnn":
        return MusicnnExtractor(config.mel.max_seconds)
    if config.front_end == "features":
        return PrecomputedFeatures(config.features)
    name = config.front_end.removeprefix(PREFIX)
    return HuggingFaceExtractor(name, config.mel.max_seconds, weights, allow_download)


def features_key(config: Config, weights: str = "") -> str:
    """Returns the key of the features that a model with these settings reads."""
    extractor = feature_extractor(config, weights)
    return mel_key(config.mel) if extractor is None else extractor.key


def open_features(folder: LibraryPaths, config: Config, weights: str = "") -> FeatureStore:
    """Opens the prepared features that a model with these settings reads.

    weights: hash of the encoder weights the model was trained with; "" accepts any.

    Raises LibraryError if the features are missing or have other settings, CheckpointError if
    they were prepared with other weights.
    """
    features_folder = folder.frames_of(config.front_end)
    store = FeatureStore(features_folder)
    store.require(features_key(config))
    if weights and store.weights != weights:
        raise CheckpointError(
            f"{features_folder} were prepared with {config.front_end} of weights "
            f"{store.weights or 'unknown'}, the model was trained with weights {weights}: install "
            "those and run ponticello prepare, or train the first stage under another --name"
        )
    return store
