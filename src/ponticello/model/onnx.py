"""Both towers as ONNX files, for whoever serves vectors without PyTorch.

    FOLDER/
      audio.onnx      frames (B, T, F) float32, padding_mask (B, T) bool   -> vector (B, d) float32
      text.onnx       input_ids (B, L) int64, attention_mask (B, L) int64  -> vector (B, d) float32
      tokenizer/      what makes a text input_ids
      ponticello.json what goes in and what comes out

B, T and L are free. What the exporter records is one run, so the files are run beside PyTorch at
other sizes before they are let out. (TorchScript's older exporter takes the length of that one run
for the length of all.)
"""

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.errors import CheckpointError, ConfigError
from ponticello.features.frontend import features_key
from ponticello.model.audio_encoder import masked_mean
from ponticello.model.batching import all_crops
from ponticello.model.htcl import HTCL
from ponticello.storage.files import atomic_write

OPSET = 18  # the exporter's own; a lower one is converted to
LARGEST_DIFFERENCE = 1e-4
AUDIO, TEXT, RECORD, TOKENIZER = "audio.onnx", "text.onnx", "ponticello.json", "tokenizer"
SIZES = (
    (1, 0),
    (2, 7),
    (5, 40),
    (3, 120),
)  # rows, and units above the shortest input, of what is tried

Run = Callable[..., np.ndarray]


@dataclass(frozen=True)
class Exported:
    """What `export_onnx` wrote: its folder, and the largest difference from PyTorch in a coordinate
    of each tower.
    """

    folder: Path
    audio_difference: float
    text_difference: float


class _AudioTower(nn.Module):
    """Frames to unit vectors; to vectors not yet normalised where the model hears a track in crops."""

    def __init__(self, model: HTCL) -> None:
        super().__init__()
        self.encoder, self.head, self.is_cropped = (
            model.audio_encoder,
            model.audio_head,
            model.crop_frames > 0,
        )

    def forward(self, frames: Tensor, padding_mask: Tensor) -> Tensor:
        vectors: Tensor = self.head(masked_mean(*self.encoder(frames, padding_mask)))
        return vectors if self.is_cropped else F.normalize(vectors, dim=-1)


class _TextTower(nn.Module):
    def __init__(self, model: HTCL) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return F.normalize(
            self.model.project_text(self.model.text_states(input_ids, attention_mask)), dim=-1
        )


def export_onnx(model: HTCL, folder: Path, space_id: str) -> Exported:
    """Writes both towers to a new `folder`, once they have given PyTorch's vectors to 1e-4 at
    several sizes.

    space_id: names the space the vectors lie in, for the record. ConfigError without the extra
    `onnx` or where `folder` holds something; CheckpointError where the model has no tokenizer, or a
    file's vectors differ: then nothing is left.
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
    modes = [(module, module.training) for module in model.modules()]
    model.train(False)
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its fused layer cannot be exported
    try:
        with atomic_write(folder) as place, torch.no_grad():
            place.mkdir(parents=True)
            generator = torch.Generator().manual_seed(0)
            _write(
                _AudioTower(model),
                place / AUDIO,
                next(_some_frames(model, generator, ((2, 30),))),
                ("frames", "padding_mask"),
            )
            _write(
                _TextTower(model),
                place / TEXT,
                next(_some_tokens(model, generator, ((2, 5),))),
                ("input_ids", "attention_mask"),
            )
            model.tokenizer.save_pretrained(str(place / TOKENIZER))
            audio = _largest_difference(
                place / AUDIO, _AudioTower(model), _some_frames(model, generator, SIZES)
            )
            text = _largest_difference(
                place / TEXT, _TextTower(model), _some_tokens(model, generator, SIZES)
            )
            (place / RECORD).write_text(
                json.dumps(_record(model, space_id), indent=1) + "\n", encoding="utf-8"
            )
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for module, mode in modes:
            module.training = mode
    return Exported(folder, audio, text)


def run_onnx(path: Path) -> Run:
    """A function from a file's two inputs, as arrays, to its vectors (B, d) float32, on one thread
    of the CPU.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [given.name for given in session.get_inputs()]

    def run(*inputs: np.ndarray) -> np.ndarray:
        vectors: np.ndarray = session.run(None, dict(zip(names, inputs, strict=True)))[0]
        return vectors

    return run


def crops_of(frames: np.ndarray, n_frames: int) -> np.ndarray:
    """frames: (T, F) of one track, T > n_frames -> the crops (N, n_frames, F) whose mean vector is
    the track's.
    """
    whole = torch.from_numpy(frames)[None]
    crops: np.ndarray = all_crops(whole, torch.zeros(1, len(frames), dtype=torch.bool), n_frames)[
        0
    ].numpy()
    return crops


def _write(
    tower: nn.Module, path: Path, inputs: tuple[Tensor, Tensor], names: tuple[str, str]
) -> None:
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    said = logging.getLogger("torch.onnx")
    level = said.level
    said.setLevel(logging.ERROR)  # that torchvision is not there, which nothing here needs
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself: nothing a user could change
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
    said.setLevel(level)


def _some_frames(
    model: HTCL, generator: torch.Generator, sizes: tuple[tuple[int, int], ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Noise with padding at the end of every row but the first."""
    shortest = model.audio_encoder.min_frames
    size = model.config.frame_size if model.uses_frozen_features else model.settings.mel.n_mels
    for n_rows, more in sizes:
        n_frames = shortest + (
            min(more, model.crop_frames - shortest) if model.crop_frames else more
        )
        n_real = torch.randint(shortest, n_frames + 1, (n_rows,), generator=generator)
        n_real[0] = n_frames
        mask = torch.arange(n_frames)[None, :] >= n_real[:, None]
        yield (
            torch.randn(n_rows, n_frames, size, generator=generator).masked_fill(
                mask[..., None], 0.0
            ),
            mask,
        )


def _some_tokens(
    model: HTCL, generator: torch.Generator, sizes: tuple[tuple[int, int], ...]
) -> Iterator[tuple[Tensor, Tensor]]:
    n_words = model.text_encoder.config.vocab_size
    for n_rows, more in sizes:
        n_tokens = min(2 + more, model.settings.text.max_tokens)
        n_real = torch.randint(2, n_tokens + 1, (n_rows,), generator=generator)
        n_real[0] = n_tokens
        mask = (torch.arange(n_tokens)[None, :] < n_real[:, None]).long()
        yield torch.randint(0, n_words, (n_rows, n_tokens), generator=generator) * mask, mask


def _largest_difference(
    path: Path, tower: nn.Module, tried: Iterator[tuple[Tensor, Tensor]]
) -> float:
    """Between the file's vectors and PyTorch's, brought to length 1; CheckpointError above
    `LARGEST_DIFFERENCE`.
    """
    run, largest = run_onnx(path), 0.0
    for inputs in tried:
        try:
            found = torch.from_numpy(run(*(given.numpy() for given in inputs)))
        except Exception as error:  # the runtime's own kinds share no parent
            first = str(error).splitlines()[0]
            raise CheckpointError(
                f"{path.name} does not run on {tuple(inputs[0].shape)}: {first}"
            ) from None
        wanted = tower(*inputs)
        gap = (
            (F.normalize(found, dim=-1) - F.normalize(wanted, dim=-1)).abs().max()
            if found.shape == wanted.shape
            else None
        )
        if gap is None or not float(gap) <= LARGEST_DIFFERENCE:
            raise CheckpointError(
                f"{path.name} differs from PyTorch by {'its shape' if gap is None else f'{float(gap):.1e}'} on "
                f"{tuple(inputs[0].shape)}; at most {LARGEST_DIFFERENCE:.0e} is allowed, so nothing was written"
            )
        largest = max(largest, float(gap))
    return largest


def _record(model: HTCL, space_id: str) -> dict[str, Any]:
    """What a program needs beside the two files."""
    parts, crop = model.settings, model.crop_frames
    if model.uses_frozen_features:
        size, make = (
            model.config.frame_size,
            f"frames of front end {parts.front_end}, as they are, float32",
        )
    else:
        size = parts.mel.n_mels
        make = (
            "log-mels in dB by the settings under mel, brought to mean 0 and deviation 1 over all of a track's frames"
            if not parts.mel.released_padding
            else "log-mels in dB by the settings under mel, padded with their floor (loudest minus top_db) to "
            "max_frames, then brought to mean 0 and deviation 1; nothing masked"
        )
    audio: dict[str, Any] = {
        "file": AUDIO,
        "frames": f"(B, T, {size}) float32: {make}; zeros where padded",
        "padding_mask": "(B, T) bool, True = padding, at the end of a row only",
        "shortest": model.audio_encoder.min_frames,
        "vector": "(B, d) float32, unit length",
    }
    if crop:
        audio["crop_frames"] = crop
        audio["vector"] = (
            f"(B, d) float32, not normalised: a track above {crop} frames goes in as crops of {crop}, no more of them "
            "than it takes, the last ending where it ends; the mean of their vectors over its length is the track's"
        )
    return {
        "space_id": space_id,
        "embed_dim": parts.heads.embed_dim,
        "opset": OPSET,
        "audio": audio,
        "text": {
            "file": TEXT,
            "tokenizer": TOKENIZER,
            "max_tokens": parts.text.max_tokens,
            "vector": "(B, d) float32, unit length",
        },
        "front_end": {
            "name": parts.front_end,
            "key": features_key(parts, model.config.front_end_weights),
        },
        "mel": parts.mel.model_dump(mode="json"),
    }
