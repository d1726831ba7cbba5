"""The front end `hf:NAME`: a frozen Hugging Face audio encoder that the user names, run once at
`prepare`.

Whatever `AutoModel` and `AutoFeatureExtractor` make of a local folder or a hub name, without remote
code: wav2vec 2.0, HuBERT and what is built like them (one frame is the mean over time and layers),
and CLAP's audio tower (its vector).
Dimensions: P windows of one track, n samples, F numbers a frame.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
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
from ponticello.errors import CheckpointError, DataError, ShapeError
from ponticello.features.extraction import ExtractionJob, waveform_of_track
from ponticello.features.store import BY_WEIGHTS, Features
from ponticello.storage.layout import LibraryPaths
from ponticello.tracks.catalog import audio_files

PREFIX = "hf:"
# a frame; MERT was trained on 5 s, and CLAP's extractor crops at random what is longer than 10 s
WINDOW_SECONDS = 5.0
BATCH_WINDOWS = 8  # at once
UNKNOWN_LICENCE = "unknown: read its card"
_RECIPE = 1  # raise it when the same encoder would give other frames
_HEAD = 10_000  # characters of a card in which its head is looked for
_MADE_UP = (
    "masked_spec_embed"  # a weight that only training reads; many published models leave it out
)


@dataclass(frozen=True)
class HuggingFaceExtractor:
    """The front end `hf:NAME`, of the first `seconds` of each track; see `FeatureExtractor`.

    weights: those that must be found (`LoadedEncoder.weights`); "" = any. CheckpointError where the
    encoder is missing, or is another.
    """

    name: str
    seconds: float
    weights: str = ""
    allow_download: bool = False

    @property
    def key(self) -> str:
        """As `FeatureExtractor.key`."""
        return f"hf {_RECIPE} {self.seconds:g} {self.name}" + (
            BY_WEIGHTS + self.weights if self.weights else ""
        )

    @property
    def notice(self) -> str:
        """As `FeatureExtractor.notice`."""
        return f"audio encoder {self.name}: licence {licence_of(self.name, self.allow_download)}"

    def blocks(self, frame_size: int) -> tuple[tuple[int, float], ...]:
        """As `FeatureExtractor.blocks`."""
        return ((frame_size, 1.0),)

    def job(self, folder: LibraryPaths) -> tuple[ExtractionJob, Mapping[str, Path]]:
        """As the protocol says; the key names the weights that are found now."""
        found = HuggingFaceExtractor(
            self.name, self.seconds, self._encoder().weights, self.allow_download
        )
        place = folder.frames_of(PREFIX + self.name)
        encoder = found._encoder()
        # The encoder stays in this process: it is large, and torch spreads its work over the cores
        # by itself.
        decode = partial(waveform_of_track, sample_rate=encoder.sample_rate, seconds=self.seconds)
        front_end = ExtractionJob(
            place, found.key, decode, f"prepare {PREFIX}{self.name}", encoder.frames_of
        )
        return front_end, audio_files(folder)

    def extract(self, sound: Path | np.ndarray, sample_rate: int) -> Features:
        """As `FeatureExtractor.extract`."""
        encoder = self._encoder()
        if isinstance(sound, Path):
            waveform = load_audio(sound, encoder.sample_rate, self.seconds)
        else:
            waveform = _checked(resample(sound, sample_rate, encoder.sample_rate))
        return encoder.frames_of(waveform[: int(self.seconds * encoder.sample_rate)])

    def _encoder(self) -> "LoadedEncoder":
        encoder = load_audio_encoder(self.name, self.allow_download)
        if self.weights not in ("", encoder.weights):
            raise CheckpointError(
                f"audio encoder {self.name!r} has other weights ({encoder.weights}) than those the frames were made "
                f"with ({self.weights}); put those back, or prepare and train again"
            )
        return encoder


@dataclass(frozen=True)
class LoadedEncoder:
    """A pretrained audio encoder in eval mode. sample_rate: Hz. weights: the start of a hash over
    all of them.
    """

    model: Any
    extractor: Any
    sample_rate: int
    weights: str

    @torch.no_grad()
    def frames_of(self, waveform: np.ndarray) -> Features:
        """(P, F) float16: every whole 5 s of a waveform (n,); a shorter sound is repeated to fill
        one window.

        DataError where a number does not fit float16.
        """
        size = int(WINDOW_SECONDS * self.sample_rate)
        filled = (
            np.tile(waveform, -(-size // len(waveform)))[:size]
            if len(waveform) < size
            else waveform
        )
        windows = filled[: len(filled) // size * size].reshape(-1, size)
        parts = [
            self._pooled(windows[i : i + BATCH_WINDOWS])
            for i in range(0, len(windows), BATCH_WINDOWS)
        ]
        pooled = torch.cat(parts).float().cpu().numpy()
        if not np.abs(pooled).max() <= np.finfo(np.float16).max:  # false for NaN too
            raise DataError("the audio encoder gives numbers that float16 cannot hold")
        frames: Features = pooled.astype(np.float16)
        return frames

    def _pooled(self, windows: np.ndarray) -> Tensor:
        """windows: (P, n) of one length, so that nothing is padded -> (P, F)."""
        inputs = self.extractor(list(windows), sampling_rate=self.sample_rate, return_tensors="pt")
        if "is_longer" in inputs:  # CLAP's extractor marks one at random where none is
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
    """A pretrained audio encoder from this machine unless `allow_download`; CheckpointError if it
    is none, or missing.

    name: a local folder or a hub name. Only safetensors weights are read, and no code that comes
    with them is run.
    """
    options = {"local_files_only": not allow_download, "trust_remote_code": False}
    try:
        extractor = AutoFeatureExtractor.from_pretrained(name, **options)  # type: ignore[no-untyped-call]
        model, report = AutoModel.from_pretrained(
            name, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
        )
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        hint = (
            ""
            if allow_download
            else " (nothing is fetched unasked: give --allow-download, or a local folder)"
        )
        raise CheckpointError(
            f"audio encoder {name!r} cannot be loaded: {_first_line(error)}{hint}"
        ) from None
    sample_rate = getattr(extractor, "sampling_rate", None)
    if not sample_rate:
        raise CheckpointError(
            f"{name!r} ({type(model).__name__}) is no audio encoder: its extractor takes no sound"
        )
    missing = sorted(weight for weight in report["missing_keys"] if not weight.endswith(_MADE_UP))
    if missing:
        raise CheckpointError(
            f"audio encoder {name!r} does not hold all its weights: {', '.join(missing[:3])}"
        )
    model.requires_grad_(False)
    model.train(False)
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    encoder = LoadedEncoder(model, extractor, int(sample_rate), _hash_weights(model))
    try:
        encoder.frames_of(np.zeros(int(WINDOW_SECONDS * encoder.sample_rate), dtype=np.float32))
    except (
        TypeError,
        ValueError,
        RuntimeError,
        AttributeError,
        LookupError,
        ArithmeticError,
        DataError,
    ) as error:
        kind = type(model).__name__
        raise CheckpointError(
            f"{name!r} ({kind}) is no audio encoder that can be used: {_first_line(error)}"
        ) from None
    return encoder


def licence_of(name: str, allow_download: bool = False) -> str:
    """The licence that the card of a model (README.md) names at its head; else `UNKNOWN_LICENCE`."""
    try:
        card = cached_file(name, "README.md", local_files_only=not allow_download)
    except OSError:
        card = None
    head = (
        re.match(r"---\s*\n(.*?)\n---", Path(card).read_text(encoding="utf-8")[:_HEAD], re.DOTALL)
        if card
        else None
    )
    named = re.search(r"^license:[ \t]*['\"]?([\w.+-]+)", head[1], re.MULTILINE) if head else None
    return named[1] if named else UNKNOWN_LICENCE


def _hash_weights(model: Any) -> str:
    """12 hex digits over all weights, made-up ones aside."""
    digest = hashlib.sha256()
    for name, weight in sorted(model.state_dict().items()):
        if not name.endswith(_MADE_UP):
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _checked(waveform: np.ndarray) -> np.ndarray:
    """The waveform; ShapeError unless it is (n,), DataError if it is empty or not finite, as
    `log_mel`.
    """
    if waveform.ndim != 1:
        raise ShapeError(f"a waveform must have one dimension, (n,); found {waveform.shape}")
    if not len(waveform) or not np.isfinite(waveform).all():
        raise DataError("a waveform must hold at least one sample, and only finite ones")
    return waveform


def _first_line(error: Exception) -> str:
    return f"{str(error) or type(error).__name__}".splitlines()[0]
