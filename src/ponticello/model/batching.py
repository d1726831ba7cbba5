"""Audio of different lengths as tensors: padding and crops.

Dimensions: B rows, T frames, F features a frame (mel bands), N crops, n frames a crop.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from ponticello.config import MelConfig
from ponticello.errors import ShapeError


def pad_features(
    mels: Sequence[np.ndarray], config: MelConfig, min_frames: int
) -> tuple[Tensor, Tensor]:
    """Returns normalised log-mels (B, T, F) float32 and their padding mask (B, T), True = padding.

    mels: (t, F) each, dB, any t >= 1; cut to `config.max_frames`. ShapeError if F is not
        `config.n_mels`.
    min_frames: the shortest input the encoder takes; a shorter track is filled up with its floor
        level (loudest bin minus `top_db`), which then counts as real.

    Each track gets mean 0 and standard deviation 1 over its real frames, then zeros as padding.
    With `config.released_padding` it is first padded with its floor level to `max_frames` and
    normalised over the whole matrix, without a mask: the released code, on which the paper's
    figures rest.
    """
    if config.released_padding:
        min_frames = config.max_frames
    n_frames = [max(min(len(mel), config.max_frames), min_frames) for mel in mels]
    # A generator: one track's copy at a time, so that a large batch is in memory once.
    tracks = (_normalise(_fit_length(mel, config, min_frames)) for mel in mels)
    return _pad(tracks, n_frames, config.n_mels)


def pad_frames(tracks: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Returns a front end's features unchanged, (B, T, F) float32, and their padding mask (B, T).

    tracks: (t, F) each, of one F, t >= 1; ShapeError otherwise.
    """
    sizes = {track.shape[1:] for track in tracks}
    is_matrix = all(track.ndim == 2 and len(track) > 0 for track in tracks)
    if len(sizes) != 1 or not is_matrix:
        shapes = sorted(track.shape for track in tracks)
        raise ShapeError(f"frames must be (t, F) of one F; found {shapes[:3]}")
    return _pad(tracks, [len(track) for track in tracks], tracks[0].shape[1])


def _pad(
    tracks: Iterable[np.ndarray], n_frames: list[int], n_features: int
) -> tuple[Tensor, Tensor]:
    batch = torch.zeros(len(n_frames), max(n_frames), n_features)
    for row, track in zip(batch, tracks, strict=True):
        row[: len(track)] = torch.from_numpy(np.asarray(track, dtype=np.float32))
    mask = torch.arange(batch.shape[1])[None, :] >= torch.tensor(n_frames)[:, None]
    return batch, mask


def _fit_length(mel: np.ndarray, config: MelConfig, min_frames: int) -> np.ndarray:
    """Returns a log-mel as float32 with at least `min_frames` and at most `max_frames` frames."""
    if mel.ndim != 2 or mel.shape[1] != config.n_mels or len(mel) == 0:
        raise ShapeError(
            f"a log-mel must be (frames, {config.n_mels}) with at least one frame; "
            f"found {mel.shape}"
        )
    track = np.asarray(mel[: config.max_frames], dtype=np.float32)
    missing = min_frames - len(track)
    if missing > 0:
        floor = track.max() - config.top_db
        track = np.pad(track, ((0, missing), (0, 0)), constant_values=floor)
    return track


def _normalise(track: np.ndarray) -> np.ndarray:
    """Returns `track` with mean 0 and standard deviation 1; a constant track becomes zeros."""
    centred = track - track.mean(dtype=np.float64)
    scale = centred.std(dtype=np.float64)
    normalised: np.ndarray = (centred / max(scale, 1e-5)).astype(np.float32)
    return normalised


def random_crop(
    mel: Tensor, padding_mask: Tensor, n_frames: int, positions: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Returns a random crop of at most `n_frames` real frames of each track, and its mask.

    mel: (B, T, F) and padding_mask: (B, T) as `pad_features` returns them -> (B, n, F) and (B, n),
        n <= n_frames. A shorter track is kept whole.
    positions: (B,) in [0, 1), each crop's among the possible ones; None = drawn from torch's global
        generator.
    """
    n_real = (~padding_mask).sum(dim=1)  # (B,)
    last_start = (n_real - n_frames).clamp(min=0)
    if positions is None:
        positions = torch.rand(len(mel), device=mel.device)
    start = (positions * (last_start + 1)).long().clamp(max=last_start)
    length = min(n_frames, mel.shape[1])
    frames = start[:, None] + torch.arange(length, device=mel.device)  # (B, n)
    columns = frames.clamp(max=mel.shape[1] - 1)[..., None].expand(-1, -1, mel.shape[2])
    return mel.gather(1, columns), frames >= n_real[:, None]


def all_crops(mel: Tensor, padding_mask: Tensor, n_frames: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns crops of `n_frames` that cover each track; the last one ends where the track ends.

    mel: (B, T, F) and padding_mask: (B, T) as `pad_features` returns them -> crops (N, n, F), their
    mask (N, n), n <= n_frames, and each crop's track row (N,), in order. A track of at most
    `n_frames` is one crop, with its padding.
    """
    n_real = (~padding_mask).sum(dim=1)  # (B,)
    n_crops = torch.div(n_real - 1, n_frames, rounding_mode="floor") + 1
    row = torch.repeat_interleave(n_crops)  # (N,)
    number = torch.arange(len(row), device=mel.device) - (n_crops.cumsum(0) - n_crops)[row]
    start = torch.minimum(number * n_frames, (n_real[row] - n_frames).clamp(min=0))
    length = min(n_frames, mel.shape[1])
    frames = start[:, None] + torch.arange(length, device=mel.device)  # (N, n)
    crops = mel[row[:, None], frames.clamp(max=mel.shape[1] - 1)]
    return crops, frames >= n_real[row, None], row
