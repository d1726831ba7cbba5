"""The front end `hf:NAME`: a frozen Hugging Face audio encoder that the user names.

It accepts models that `AutoModel` and `AutoFeatureExtractor` load from a local folder or a hub
name without remote code: wav2vec 2.0, HuBERT and similar models (a frame is the mean over time and
layers), and CLAP's audio tower (a frame is its vector).
Dimensions: P windows of one track, n samples, F numbers per frame.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoFeatureExtractor, AutoModel
from transformers.utils.hub import cached_file

from ponticello.audio.decode import load_audio, resample
from ponticello.audio.mel import check_waveform
from ponticello.errors import CheckpointError, DataError
from ponticello.features.extraction import ExtractionJob, waveform_of_track
from ponticello.features.quiet import hide_transformers_output
from ponticello.features.store import WEIGHTS_SEPARATOR, Features
from ponticello.storage.layout import LibraryPaths
from ponticello.tracks.catalog import audio_files

PREFIX = "hf:"
# MERT was trained on 5 s, and CLAP's extractor crops sounds longer than 10 s at random.
WINDOW_SECONDS = 5.0
BATCH_WINDOWS = 8
UNKNOWN_LICENCE = "unknown: read its card"
_RECIPE = 1  # part of the key; raise it when the same encoder would give other features
_CARD_CHARACTERS = 10_000  # start of a model card that is searched for the licence
_TRAINING_WEIGHT = "masked_spec_embed"  # read in training only; many published models lack it


@dataclass(frozen=True)
class HuggingFaceExtractor:
    """The front end `hf:NAME`, of the first `seconds` of each track; see `FeatureExtractor`.

    weights: required hash of the encoder's weights (`LoadedEncoder.weights`); "" accepts any.
    All methods that load the encoder raise CheckpointError if it is missing or has other weights.
    """

    name: str
    seconds: float
    weights: str = ""
    allow_download: bool = False

    @property
    def key(self) -> str:
        """Contains the recipe, `seconds`, the name and, where known, the weights."""
        key = f"hf {_RECIPE} {self.seconds:g} {self.name}"
        return key + WEIGHTS_SEPARATOR + self.weights if self.weights else key

    @property
    def notice(self) -> str:
        """Names the licence of the encoder."""
        return f"audio encoder {self.name}: licence {licence_of(self.name, self.allow_download)}"

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """Returns one block, the whole frame."""
        return ((frame_size, 1.0),)

    def job(self, folder: LibraryPaths) -> tuple[ExtractionJob, Mapping[str, Path]]:
        """Returns a job with the installed weights in its key, and the catalogue's files.

        Workers only decode. The encoder stays in this process: it is large, and torch spreads its
        work over the cores.
        """
        encoder = self._encoder()
        extract = partial(waveform_of_track, sample_rate=encoder.sample_rate, seconds=self.seconds)
        job = ExtractionJob(
            folder=folder.frames_of(PREFIX + self.name),
            key=replace(self, weights=encoder.weights).key,
            extract=extract,
            step=f"prepare {PREFIX}{self.name}",
            finish=encoder.extract,
        )
        return job, audio_files(folder)

    def extract(self, sound: Path | np.ndarray, sample_rate: int) -> Features:
        """Returns the features of a file or a waveform, see `FeatureExtractor.extract`.

        Raises ShapeError or DataError for a waveform with two dimensions, no sample or infinite
        samples.
        """
        encoder = self._encoder()
        if isinstance(sound, Path):
            waveform = load_audio(sound, encoder.sample_rate, self.seconds)
        else:
            waveform = resample(sound, sample_rate, encoder.sample_rate)
            check_waveform(waveform)
        return encoder.extract(waveform[: int(self.seconds * encoder.sample_rate)])

    def _encoder(self) -> "LoadedEncoder":
        encoder = load_audio_encoder(self.name, self.allow_download)
        if self.weights not in ("", encoder.weights):
            raise CheckpointError(
                f"audio encoder {self.name!r} has other weights ({encoder.weights}) than those the "
                f"features were made with ({self.weights}); install those, or prepare and train "
                "again"
            )
        return encoder


@dataclass(frozen=True)
class LoadedEncoder:
    """A pretrained audio encoder in eval mode.

    sample_rate: Hz. weights: first 12 hex digits of a hash of all weights.
    """

    model: Any
    extractor: Any
    sample_rate: int
    weights: str

    @torch.no_grad()
    def extract(self, waveform: np.ndarray) -> Features:
        """Returns (P, F) float16, one row per whole 5 s of a waveform (n,).

        A shorter sound is repeated to fill one window. Raises DataError if a number exceeds the
        range of float16.
        """
        size = int(WINDOW_SECONDS * self.sample_rate)
        if len(waveform) < size:
            waveform = np.tile(waveform, -(-size // len(waveform)))[:size]
        windows = waveform[: len(waveform) // size * size].reshape(-1, size)
        batches = []
        for start in range(0, len(windows), BATCH_WINDOWS):
            batches.append(self._encode(windows[start : start + BATCH_WINDOWS]))
        vectors = torch.cat(batches).float().cpu().numpy()
        if not np.abs(vectors).max() <= np.finfo(np.float16).max:  # false for NaN too
            raise DataError("the audio encoder gives numbers that float16 cannot hold")
        features: Features = vectors.astype(np.float16)
        return features

    def _encode(self, windows: np.ndarray) -> Tensor:
        """Encodes windows (P, n) of equal length, which need no padding, as (P, F)."""
        inputs = self.extractor(list(windows), sampling_rate=self.sample_rate, return_tensors="pt")
        if "is_longer" in inputs:  # CLAP's extractor sets one at random where none is longer
            inputs["is_longer"] = torch.zeros_like(torch.as_tensor(inputs["is_longer"]))
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        if hasattr(self.model, "get_audio_features"):
            output = self.model.get_audio_features(**inputs)
            vectors: Tensor = getattr(output, "pooler_output", output)
            return vectors
        layers = self.model(**inputs, output_hidden_states=True).hidden_states[1:]  # (P, T, F) each
        return torch.stack([layer.mean(dim=1) for layer in layers]).mean(dim=0)


@lru_cache(maxsize=1)
def load_audio_encoder(name: str, allow_download: bool = False) -> LoadedEncoder:
    """Loads a pretrained audio encoder and tries it on silence.

    name: a local folder or a hub name. Only safetensors weights are read, no code that comes with
        the model runs, and files are fetched only with `allow_download`.
    Raises CheckpointError if the encoder is missing, incomplete or not an audio encoder.
    """
    model, extractor = _load_pretrained(name, allow_download)
    sample_rate = getattr(extractor, "sampling_rate", None)
    kind = type(model).__name__
    if not sample_rate:
        raise CheckpointError(
            f"{name!r} ({kind}) is no audio encoder: its extractor takes no sound"
        )
    model.requires_grad_(False)
    model.train(False)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    encoder = LoadedEncoder(model, extractor, int(sample_rate), _hash_weights(model))
    failures = (TypeError, ValueError, RuntimeError, AttributeError, LookupError, ArithmeticError)
    try:
        encoder.extract(np.zeros(int(WINDOW_SECONDS * encoder.sample_rate), dtype=np.float32))
    except (*failures, DataError) as error:
        raise CheckpointError(
            f"{name!r} ({kind}) is no audio encoder that can be used: {_first_line(error)}"
        ) from None
    return encoder


def _load_pretrained(name: str, allow_download: bool) -> tuple[Any, Any]:
    options = {"local_files_only": not allow_download, "trust_remote_code": False}
    try:
        with hide_transformers_output():
            load_extractor: Any = AutoFeatureExtractor.from_pretrained  # without types
            extractor = load_extractor(name, **options)
            model, report = AutoModel.from_pretrained(
                name, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
            )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        reason = _first_line(error)
        if not allow_download:
            reason += " (downloads are off: give --allow-download, or a local folder)"
        raise CheckpointError(f"audio encoder {name!r} cannot be loaded: {reason}") from None
    missing = sorted(key for key in report["missing_keys"] if not key.endswith(_TRAINING_WEIGHT))
    if missing:
        raise CheckpointError(
            f"audio encoder {name!r} does not hold all its weights: {', '.join(missing[:3])}"
        )
    return model, extractor


def licence_of(name: str, allow_download: bool = False) -> str:
    """Returns the licence in the metadata of a model's card (README.md), or `UNKNOWN_LICENCE`."""
    try:
        card = cached_file(name, "README.md", local_files_only=not allow_download)
    except OSError:
        return UNKNOWN_LICENCE
    text = Path(card).read_text(encoding="utf-8")[:_CARD_CHARACTERS] if card else ""
    metadata = re.match(r"---\s*\n(.*?)\n---", text, re.DOTALL)
    licence = re.search(
        r"^license:[ \t]*['\"]?([\w.+-]+)", metadata[1] if metadata else "", re.MULTILINE
    )
    return licence[1] if licence else UNKNOWN_LICENCE


def _hash_weights(model: Any) -> str:
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if not name.endswith(_TRAINING_WEIGHT):
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
