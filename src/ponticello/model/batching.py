"""Log-mels of any length and texts, as the tensors the two towers take.

Dimensions: B rows, T frames, F mel bands, L tokens.

Many inputs of different sizes through a model, in eval mode and a batch at a time.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ponticello.config import MelConfig
from ponticello.errors import ShapeError


class Tokenizer(Protocol):
    """The part of a Hugging Face tokenizer that a batch needs."""

    def __call__(self, text: list[str], **options: Any) -> Any: ...


def pad_features(
    mels: Sequence[np.ndarray], config: MelConfig, min_frames: int
) -> tuple[Tensor, Tensor]:
    """Normalised log-mels (B, T, F) float32 and their padding mask (B, T), True = padding.

    mels: (t, F) each, dB, any t >= 1; cut to `config.max_frames`. ShapeError if F is not
    `config.n_mels`.
    min_frames: the shortest input the encoder takes; a shorter track is filled up with its floor
    level
        (loudest bin minus `top_db`), which then counts as real.

    Each track is brought to mean 0 and standard deviation 1 over its real frames, then padded with
    zeros. With `config.released_padding` it is padded with its floor level to `max_frames` first,
    normalised over the whole
    matrix, and nothing is masked: what the released code does, and what the paper's figures rest
    on.
    """
    least = config.max_frames if config.released_padding else min_frames
    n_frames = torch.tensor([max(min(len(mel), config.max_frames), least) for mel in mels])
    batch = torch.zeros(len(mels), int(n_frames.max()), config.n_mels)  # (B, T, F)
    for row, mel in zip(
        batch, mels, strict=True
    ):  # one track's copy at a time: a large batch is held once
        track = _fit(mel, config, least)
        row[: len(track)] = torch.from_numpy(_normalise(track))
    return batch, torch.arange(batch.shape[1])[None, :] >= n_frames[:, None]


def pad_frames(tracks: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Frames of a front end as they are, (B, T, F) float32, padded with zeros, and their padding
    mask (B, T).

    tracks: (t, F) each, of one F, t >= 1; ShapeError otherwise.
    """
    sizes = {track.shape[1:] for track in tracks}
    if len(sizes) != 1 or len(next(iter(sizes))) != 1 or not all(len(track) for track in tracks):
        raise ShapeError(
            f"frames must be (t, F) of one F; found {sorted(track.shape for track in tracks)[:3]}"
        )
    n_frames = torch.tensor([len(track) for track in tracks])
    batch = torch.zeros(len(tracks), int(n_frames.max()), *next(iter(sizes)))
    for row, track in zip(batch, tracks, strict=True):
        row[: len(track)] = torch.from_numpy(np.asarray(track, dtype=np.float32))
    return batch, torch.arange(batch.shape[1])[None, :] >= n_frames[:, None]


def random_crop(
    mel: Tensor, padding_mask: Tensor, n_frames: int, drawn: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A random run of at most `n_frames` real frames of each track: (B, n, F) and its mask (B, n),
    n <= n_frames.

    mel: (B, T, F) and padding_mask: (B, T) as `pad_features` gives them; a shorter track stays
    whole.
    drawn: (B,) in [0, 1), where among the possible starts each run begins; None = from torch's
    global generator.
    """
    n_real = (~padding_mask).sum(dim=1)  # (B,)
    spare = (n_real - n_frames).clamp(min=0)
    drawn = torch.rand(len(mel), device=mel.device) if drawn is None else drawn
    start = (drawn * (spare + 1)).long().clamp(max=spare)
    place = start[:, None] + torch.arange(min(n_frames, mel.shape[1]), device=mel.device)  # (B, n)
    within = place.clamp(max=mel.shape[1] - 1)
    cropped = mel.gather(1, within[..., None].expand(-1, -1, mel.shape[2]))
    return cropped, place >= n_real[:, None]


def all_crops(mel: Tensor, padding_mask: Tensor, n_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """All of each track in runs of `n_frames`, no more of them than it takes, the last one ending
    where the track ends.

    mel: (B, T, F) and padding_mask: (B, T) as `pad_features` gives them -> crops (N, n, F), their
    mask (N, n), n <= n_frames, and the row each is of, (N,), in order. A track of at most
    `n_frames` is one crop, with its padding.
    """
    n_real = (~padding_mask).sum(dim=1)  # (B,)
    n_crops = torch.div(n_real - 1, n_frames, rounding_mode="floor") + 1
    row = torch.repeat_interleave(n_crops)  # (N,)
    number = torch.arange(len(row), device=mel.device) - (n_crops.cumsum(0) - n_crops)[row]
    start = torch.minimum(number * n_frames, (n_real[row] - n_frames).clamp(min=0))
    place = start[:, None] + torch.arange(min(n_frames, mel.shape[1]), device=mel.device)  # (N, n)
    crops = mel[row[:, None], place.clamp(max=mel.shape[1] - 1)]
    return crops, place >= n_real[row, None], row


def _fit(mel: np.ndarray, config: MelConfig, min_frames: int) -> np.ndarray:
    """`mel` as float32 with at least `min_frames` and at most `max_frames` frames."""
    if mel.ndim != 2 or mel.shape[1] != config.n_mels or len(mel) == 0:
        raise ShapeError(
            f"a log-mel must be (frames, {config.n_mels}) with at least one frame; found {mel.shape}"
        )
    track = np.asarray(mel[: config.max_frames], dtype=np.float32)
    missing = min_frames - len(track)
    if missing > 0:
        track = np.pad(track, ((0, missing), (0, 0)), constant_values=track.max() - config.top_db)
    return track


def _normalise(track: np.ndarray) -> np.ndarray:
    """`track` with mean 0 and standard deviation 1 over all its values; a constant track becomes
    zeros.
    """
    centred = track - track.mean(dtype=np.float64)
    scale = centred.std(dtype=np.float64)
    normalised: np.ndarray = (centred / max(scale, 1e-5)).astype(np.float32)
    return normalised


def tokenize(texts: Sequence[str], tokenizer: Tokenizer, max_tokens: int) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, (B, L) each, padded to the longest text of the batch."""
    tokens = tokenizer(
        list(texts),
        padding=True,
        truncation=True,
        max_length=max_tokens,
        return_token_type_ids=False,
        return_tensors="pt",
    )
    return {"input_ids": tokens["input_ids"], "attention_mask": tokens["attention_mask"]}


@torch.no_grad()
def batched_forward(
    model: nn.Module,
    project: Callable[[list[int]], Tensor],
    sizes: Sequence[int],
    batch_size: int,
    n_columns: int,
) -> np.ndarray:
    """What `project` makes of all rows, (n, n_columns) float32 in the given order.

    project: row numbers -> (rows, n_columns). sizes: of each row's input; rows of like size share a
    batch. Every module of `model` is afterwards in the mode it was in.
    """
    vectors = np.empty((len(sizes), n_columns), dtype=np.float32)
    order = sorted(range(len(sizes)), key=lambda row: sizes[row])
    modes = [(module, module.training) for module in model.modules()]
    model.train(False)
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors[rows] = project(rows).float().cpu().numpy()
    finally:
        for module, mode in modes:
            module.training = mode
    return vectors
