"""Exports both towers as ONNX files, for programs that serve vectors without PyTorch.

    FOLDER/
      audio.onnx      frames (B, T, F) float32, padding_mask (B, T) bool   -> vector (B, d) float32
      text.onnx       input_ids (B, L) int64, attention_mask (B, L) int64  -> vector (B, d) float32
      tokenizer/      turns a text into input_ids
      ponticello.json describes inputs and outputs

B, T and L are free. The exporter records one run, so the files are compared with PyTorch at other
sizes before they are kept. (TorchScript's older exporter fixes the length of that run.)
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.errors import CheckpointError, ConfigError
from ponticello.features.frontend import features_key
from ponticello.model.batching import all_crops
from ponticello.model.htcl import HTCL, eval_mode
from ponticello.storage.files import atomic_write

OPSET = 18  # the exporter's own; a lower one is converted to
MAX_DIFFERENCE = 1e-4
AUDIO = "audio.onnx"
TEXT = "text.onnx"
TOKENIZER = "tokenizer"
RECORD = "ponticello.json"
# (rows, units above the shortest input) of the inputs that are compared with PyTorch.
SIZES = ((1, 0), (2, 7), (5, 40), (3, 120))

Run = Callable[..., np.ndarray]
Inputs = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class OnnxExport:
    """The written folder, and each tower's largest difference from PyTorch in a coordinate."""

    folder: Path
    audio_difference: float
    text_difference: float


class _AudioTower(nn.Module):
    """Frames to unit vectors; to vectors not normalised where the model takes crops."""

    def __init__(self, model: HTCL) -> None:
        super().__init__()
        self.model = model
        self.is_cropped = model.crop_frames > 0

    def forward(self, frames: Tensor, padding_mask: Tensor) -> Tensor:
        if self.is_cropped:
            return self.model.project_crops(frames, padding_mask)
        return F.normalize(self.model.embed_tracks(frames, padding_mask), dim=-1)


class _TextTower(nn.Module):
    def __init__(self, model: HTCL) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        states = self.model.text_states(input_ids, attention_mask)
        return F.normalize(self.model.embed_texts(states), dim=-1)


def export_onnx(model: HTCL, folder: Path, space_id: str) -> OnnxExport:
    """Writes both towers to a new `folder` if their vectors equal PyTorch's to 1e-4.

    space_id: of the vectors' space, for the record.
    Raises ConfigError without the extra `onnx` or if `folder` is not empty; CheckpointError if the
    model has no tokenizer or a file's vectors differ. Then no file is written.
    """
    try:
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ConfigError("ONNX needs an extra; run: pip install 'ponticello[onnx]'") from None
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder} holds something already; choose a new folder")
    if model.tokenizer is None:
        raise CheckpointError(
            "this model has no tokenizer; save one beside it (tokenizer.save_pretrained)"
        )
    generator = torch.Generator().manual_seed(0)
    audio_tower = _AudioTower(model)
    text_tower = _TextTower(model)
    with eval_mode(model), _plain_attention(), torch.no_grad(), atomic_write(folder) as temporary:
        temporary.mkdir(parents=True)
        frames = _random_frames(model, generator, 2, 30)
        _write(audio_tower, temporary / AUDIO, frames, ("frames", "padding_mask"))
        tokens = _random_tokens(model, generator, 2, 5)
        _write(text_tower, temporary / TEXT, tokens, ("input_ids", "attention_mask"))
        model.tokenizer.save_pretrained(str(temporary / TOKENIZER))
        inputs = [_random_frames(model, generator, n_rows, extra) for n_rows, extra in SIZES]
        audio_difference = _max_difference(temporary / AUDIO, audio_tower, inputs)
        inputs = [_random_tokens(model, generator, n_rows, extra) for n_rows, extra in SIZES]
        text_difference = _max_difference(temporary / TEXT, text_tower, inputs)
        record = json.dumps(_record(model, space_id), indent=1)
        (temporary / RECORD).write_text(record + "\n", encoding="utf-8")
    return OnnxExport(folder, audio_difference, text_difference)


def run_onnx(path: Path) -> Run:
    """Returns a function from a file's two inputs to its vectors (B, d), on one CPU thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [session_input.name for session_input in session.get_inputs()]

    def run(*inputs: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return vectors

    return run


def crops_of(frames: np.ndarray, n_frames: int) -> np.ndarray:
    """Returns the crops (N, n_frames, F) of a track (T, F); its vector is the mean of theirs."""
    mask = torch.zeros(1, len(frames), dtype=torch.bool)
    crops, _, _ = all_crops(torch.from_numpy(frames)[None], mask, n_frames)
    rows: np.ndarray = crops.numpy()
    return rows


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Turns off the fused attention layer, which cannot be exported."""
    is_fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(is_fast)


def _write(tower: nn.Module, path: Path, inputs: Inputs, names: tuple[str, str]) -> None:
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    exporter_log = logging.getLogger("torch.onnx")
    level = exporter_log.level
    exporter_log.setLevel(logging.ERROR)  # it warns that torchvision is missing
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        torch.onnx.export(
            tower,
            inputs,
            str(path),
            dynamo=True,
            verbose=False,
            external_data=False,
            opset_version=OPSET,
            input_names=names,
            output_names=["vector"],
            dynamic_shapes=(free, free),
        )
    exporter_log.setLevel(level)


def _random_frames(model: HTCL, generator: torch.Generator, n_rows: int, extra: int) -> Inputs:
    """Returns noise with padding at the end of every row but the first."""
    shortest = model.audio_encoder.min_frames
    n_features = model.settings.mel.n_mels
    if model.uses_frozen_features:
        n_features = model.config.frame_size
    n_frames = shortest + extra
    if model.crop_frames:
        n_frames = min(n_frames, model.crop_frames)
    n_real = torch.randint(shortest, n_frames + 1, (n_rows,), generator=generator)
    n_real[0] = n_frames
    mask = torch.arange(n_frames)[None, :] >= n_real[:, None]
    frames = torch.randn(n_rows, n_frames, n_features, generator=generator)
    return frames.masked_fill(mask[..., None], 0.0), mask


def _random_tokens(model: HTCL, generator: torch.Generator, n_rows: int, extra: int) -> Inputs:
    """Returns random tokens with padding at the end of every row but the first."""
    n_words = model.text_encoder.config.vocab_size
    n_tokens = min(2 + extra, model.settings.text.max_tokens)
    n_real = torch.randint(2, n_tokens + 1, (n_rows,), generator=generator)
    n_real[0] = n_tokens
    mask = (torch.arange(n_tokens)[None, :] < n_real[:, None]).long()
    tokens = torch.randint(0, n_words, (n_rows, n_tokens), generator=generator)
    return tokens * mask, mask


def _max_difference(path: Path, tower: nn.Module, inputs: list[Inputs]) -> float:
    """Returns the largest difference between the file's unit vectors and PyTorch's.

    Raises CheckpointError above `MAX_DIFFERENCE`.
    """
    run = run_onnx(path)
    largest = 0.0
    for left, right in inputs:
        shape = tuple(left.shape)
        try:
            vectors = torch.from_numpy(run(left.numpy(), right.numpy()))
        except Exception as error:  # the runtime's exceptions share no parent
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"{path.name} does not run on {shape}: {reason}") from None
        expected = tower(left, right)
        if vectors.shape != expected.shape:
            raise CheckpointError(
                f"{path.name} differs from PyTorch by its shape on {shape}, so nothing was written"
            )
        gaps = F.normalize(vectors, dim=-1) - F.normalize(expected, dim=-1)
        difference = float(gaps.abs().max())
        if not difference <= MAX_DIFFERENCE:  # also if it is nan
            raise CheckpointError(
                f"{path.name} differs from PyTorch by {difference:.1e} on {shape}; "
                f"at most {MAX_DIFFERENCE:.0e} is allowed, so nothing was written"
            )
        largest = max(largest, difference)
    return largest


def _record(model: HTCL, space_id: str) -> dict[str, Any]:
    """Returns the facts about the two files that a program needs."""
    settings = model.settings
    vector = "(B, d) float32, unit length"
    audio: dict[str, Any] = {
        "file": AUDIO,
        "frames": _describe_frames(model),
        "padding_mask": "(B, T) bool, True = padding, at the end of a row only",
        "shortest": model.audio_encoder.min_frames,
        "vector": vector,
    }
    if model.crop_frames:
        crop = model.crop_frames
        audio["crop_frames"] = crop
        audio["vector"] = (
            f"(B, d) float32, not normalised: a track above {crop} frames goes in as crops of "
            f"{crop}, no more of them than it takes, the last ending where it ends; the mean of "
            "their vectors over its length is the track's"
        )
    text = {
        "file": TEXT,
        "tokenizer": TOKENIZER,
        "max_tokens": settings.text.max_tokens,
        "vector": vector,
    }
    key = features_key(settings, model.config.front_end_weights)
    return {
        "space_id": space_id,
        "embed_dim": settings.heads.embed_dim,
        "opset": OPSET,
        "audio": audio,
        "text": text,
        "front_end": {"name": settings.front_end, "key": key},
        "mel": settings.mel.model_dump(mode="json"),
    }


def _describe_frames(model: HTCL) -> str:
    mel = model.settings.mel
    if model.uses_frozen_features:
        n_features = model.config.frame_size
        content = f"frames of front end {model.settings.front_end}, as they are, float32"
    elif mel.released_padding:
        n_features = mel.n_mels
        content = (
            "log-mels in dB by the settings under mel, padded with their floor (loudest minus "
            "top_db) to max_frames, then brought to mean 0 and deviation 1; nothing masked"
        )
    else:
        n_features = mel.n_mels
        content = (
            "log-mels in dB by the settings under mel, brought to mean 0 and deviation 1 over all "
            "of a track's frames"
        )
    return f"(B, T, {n_features}) float32: {content}; zeros where padded"
