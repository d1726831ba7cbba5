"""The audio tower over a frozen front end: its own vector, kept, and a learned departure from it.

What a pretrained front end hears is better than what a small catalogue can teach. So the tower begins as the front end
itself (standardised, on its principal axes), stage one leaves that alone and teaches the texts to meet it, and stage
two learns what to add.

Dimensions: B rows, T frames, F numbers a frame, N tracks, d joint dimensions.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ponticello.errors import DataError, ShapeError
from ponticello.model.heads import MLP

LEAST_DEVIATION = 1e-4  # of a number over the tracks: one that hardly changes is not blown up


class FrameEncoder(nn.Module):
    """Standardises frames; their mean is the track. Nothing here is learned: `fit` reads it off training tracks."""

    mean: Tensor
    deviation: Tensor
    min_frames = 1

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("deviation", torch.ones(n_features))

    def forward(self, frames: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
        """frames: (B, T, F), padding_mask: (B, T), True = padding -> the same, standardised; ShapeError otherwise."""
        if frames.ndim != 3 or frames.shape[2] != len(self.mean) or padding_mask.shape != frames.shape[:2]:
            raise ShapeError(
                f"frames must be (B, T, {len(self.mean)}) with a mask (B, T); "
                f"found {tuple(frames.shape)} and {tuple(padding_mask.shape)}"
            )
        return (frames - self.mean) / self.deviation, padding_mask


class Departure(nn.Linear):
    """A linear layer that begins at zero.

    A class of its own, since transformers resets layers one by one: zeros set from outside would not last.
    """

    def reset_parameters(self) -> None:
        """All zeros."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class AnchoredHead(nn.Module):
    """The vector on its principal axes, and a linear departure from it that begins at nothing: (B, F) -> (B, d)."""

    axes: Tensor

    def __init__(self, n_features: int, embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.register_buffer("axes", torch.eye(n_features, embed_dim))
        self.dropout = nn.Dropout(dropout)
        self.departure = Departure(embed_dim, embed_dim, bias=False)

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors: (B, F) -> (B, d), not normalised."""
        return self.depart(vectors @ self.axes)

    def depart(self, vectors: Tensor) -> Tensor:
        """Vectors of the joint space, (B, d), with what listening has changed in it: texts go the way of the tracks."""
        moved: Tensor = vectors + self.departure(self.dropout(vectors))
        return moved


class AnchoredFusion(nn.Module):
    """The audio vector, and what the text adds to it, which begins at nothing: (B, d) and (B, d) -> (B, d)."""

    def __init__(self, hidden_sizes: Sequence[int], embed_dim: int, dropout: float) -> None:
        super().__init__()
        self.departure = MLP((2 * embed_dim, *hidden_sizes, embed_dim), dropout)
        self.departure.linears[-1] = Departure((2 * embed_dim, *hidden_sizes)[-1], embed_dim)

    def forward(self, both: Tensor) -> Tensor:
        """both: (B, 2d), audio then text -> (B, d), not normalised."""
        fused: Tensor = both[:, : both.shape[1] // 2] + self.departure(both)
        return fused


@torch.no_grad()
def fit_front_end(
    encoder: FrameEncoder, head: AnchoredHead, tracks: np.ndarray, blocks: Sequence[tuple[int, float]]
) -> None:
    """Sets what `encoder` subtracts and divides by, and the axes of `head`, from training tracks.

    tracks: (N, F), each track's mean frame; N >= 2, or DataError. blocks: (size, weight) of the numbers that belong
    together, sizes adding up to F: each number counts by its weight over the root of its block's size, so that a block
    is not heard the louder the more numbers it has. The axes are the d first principal ones of the tracks so
    standardised, at most N // 2 of them, scaled so that a track has length 1 on average; the rest are zeros.
    More would describe the training tracks themselves: with 74 axes from 75 tracks, a probe of other tracks was below
    chance.
    """
    if len(tracks) < 2:
        raise DataError(f"{len(tracks)} training tracks have frames; at least 2 are needed")
    mean, deviation = tracks.mean(axis=0, dtype=np.float64), tracks.std(axis=0, dtype=np.float64)
    share = np.concatenate([np.full(size, weight / np.sqrt(size)) for size, weight in blocks])
    deviation = np.maximum(deviation, LEAST_DEVIATION) / share
    standardised = (tracks - mean) / deviation
    _, _, rows = np.linalg.svd(standardised, full_matrices=False)
    found = rows[: min(head.axes.shape[1], len(tracks) // 2)]
    found = found * np.sign(found[np.arange(len(found)), np.abs(found).argmax(axis=1)])[:, None]  # one sign, always
    length = np.sqrt(((standardised @ found.T) ** 2).sum(axis=1).mean())
    axes = np.zeros(tuple(head.axes.shape))
    axes[:, : len(found)] = found.T / max(float(length), 1e-12)
    for buffer, value in ((encoder.mean, mean), (encoder.deviation, deviation), (head.axes, axes)):
        buffer.copy_(torch.from_numpy(np.asarray(value, dtype=np.float32)))
