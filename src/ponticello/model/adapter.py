"""The audio tower over a frozen front end: its own vector, kept, and a learned departure from it.

What a pretrained front end hears is better than what a small catalogue can teach. So the tower
begins as the front end itself (standardised, on its principal axes), stage one leaves that alone
and teaches the texts to meet it, and stage two learns what to put beside it. How the departure
begins: `train/preference_init.py`.

Dimensions: B rows, T frames, F numbers a frame, N tracks, d joint dimensions, D size of the text
encoder.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.errors import ConfigError, DataError, ShapeError

LEAST_SPARE = 1e-12  # under the root that fills a vector up to the radius
LEAST_DEVIATION = 1e-4  # of a number over the tracks: one that hardly changes is not blown up


class FeaturePooling(nn.Module):
    """Standardises frames; their mean is the track. Nothing here is learned: `fit` reads it off
    training tracks.
    """

    mean: Tensor
    deviation: Tensor
    min_frames = 1

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("deviation", torch.ones(n_features))

    def forward(self, frames: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
        """frames: (B, T, F), padding_mask: (B, T), True = padding -> the same, standardised;
        ShapeError otherwise.
        """
        if (
            frames.ndim != 3
            or frames.shape[2] != len(self.mean)
            or padding_mask.shape != frames.shape[:2]
        ):
            raise ShapeError(
                f"frames must be (B, T, {len(self.mean)}) with a mask (B, T); "
                f"found {tuple(frames.shape)} and {tuple(padding_mask.shape)}"
            )
        return (frames - self.mean) / self.deviation, padding_mask


class ZeroInitLinear(nn.Linear):
    """A linear layer that begins at zero.

    A class of its own, since transformers resets layers one by one: zeros set from outside would
    not last.
    """

    def reset_parameters(self) -> None:
        """All zeros."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class AdapterHead(nn.Module):
    """What is heard, at length 1, and beside it what listening adds, in coordinates of their own:
    (B, F) -> (B, d).

    d = n_axes + preference_dim + 1. The first n_axes coordinates never change after stage one. The next
    ones are the departure, zero in stage one. The last brings every vector to one length, `radius`,
    so that much taste is told from little after normalising; it is nothing in stage one, whose
    radius is 1.
    """

    axes: Tensor
    radius: Tensor

    def __init__(
        self, n_features: int, embed_dim: int, preference_dim: int, dropout: float
    ) -> None:
        super().__init__()
        self.n_axes = embed_dim - preference_dim - 1
        if self.n_axes < 1:
            raise ConfigError(
                f"heads.embed_dim {embed_dim} must be above heads.preference_dim {preference_dim} plus 1"
            )
        self.register_buffer("axes", torch.eye(n_features, self.n_axes))
        self.register_buffer("radius", torch.ones(()))
        self.dropout = nn.Dropout(dropout)
        self.residual = ZeroInitLinear(self.n_axes, preference_dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """vectors: (B, F) -> (B, d), of length `radius`."""
        heard = F.normalize(vectors @ self.axes, dim=-1)
        return self.beside(heard, self.residual(self.dropout(heard)))

    def beside(self, heard: Tensor, taste: Tensor) -> Tensor:
        """heard: (B, n_axes) of length 1; taste: (B, preference_dim) -> (B, d). Too long a taste
        lengthens the vector.
        """
        # Rounded: `heard` has length 1 to 1e-7, and under the root that error would be 3e-4,
        # another on each machine.
        known = heard.square().sum(1, keepdim=True).round(decimals=5)
        spare = self.radius.square() - known - taste.square().sum(1, keepdim=True)
        return torch.cat([heard, taste, spare.clamp(min=LEAST_SPARE).sqrt()], dim=1)

    def of_text(self, vectors: Tensor) -> Tensor:
        """vectors: (B, n_axes) -> (B, d): a text asks for what is heard, so tracks rank for it as
        in stage one.
        """
        return F.pad(F.normalize(vectors, dim=-1), (0, self.residual.out_features + 1))


class AdapterFusion(nn.Module):
    """The audio vector with a departure that has read the text too: (B, d) and (B, D) -> (B, d).
    Zero in stage one.
    """

    def __init__(self, n_axes: int, text_size: int, preference_dim: int, dropout: float) -> None:
        super().__init__()
        self.n_axes = n_axes
        self.dropout = nn.Dropout(dropout)
        self.residual = ZeroInitLinear(n_axes + text_size, preference_dim)

    def forward(self, head: AdapterHead, audio: Tensor, text_states: Tensor) -> Tensor:
        """audio: (B, d) as `head` gives it; text_states: (B, D) of the text encoder -> (B, d), of
        the head's radius.
        """
        heard = audio[:, : self.n_axes]
        return head.beside(
            heard, self.residual(self.dropout(torch.cat([heard, text_states], dim=1)))
        )


@torch.no_grad()
def fit_feature_projection(
    encoder: FeaturePooling,
    head: AdapterHead,
    tracks: np.ndarray,
    blocks: Sequence[tuple[int, float]],
) -> None:
    """Sets what `encoder` subtracts and divides by, and the axes of `head`, from training tracks.

    tracks: (N, F), each track's mean frame; N >= 2, or DataError. blocks: (size, weight) of the
    numbers that belong
    together, sizes adding up to F: each number counts by its weight over the root of its block's
    size, so that a block is not heard the louder the more numbers it has. The axes are the n_axes
    first principal ones of the tracks so standardised, at most N // 2 of them, scaled so that a
    track has length 1 on average; the rest are zeros.
    More would describe the training tracks themselves: with 74 axes from 75 tracks, a probe of
    other tracks was below chance.
    """
    if len(tracks) < 2:
        raise DataError(f"{len(tracks)} training tracks have frames; at least 2 are needed")
    mean, deviation = tracks.mean(axis=0, dtype=np.float64), tracks.std(axis=0, dtype=np.float64)
    share = np.concatenate([np.full(size, weight / np.sqrt(size)) for size, weight in blocks])
    deviation = np.maximum(deviation, LEAST_DEVIATION) / share
    standardised = (tracks - mean) / deviation
    _, _, rows = np.linalg.svd(standardised, full_matrices=False)
    found = rows[: min(head.axes.shape[1], len(tracks) // 2)]
    found = (
        found * np.sign(found[np.arange(len(found)), np.abs(found).argmax(axis=1)])[:, None]
    )  # one sign, always
    length = np.sqrt(((standardised @ found.T) ** 2).sum(axis=1).mean())
    axes = np.zeros(tuple(head.axes.shape))
    axes[:, : len(found)] = found.T / max(float(length), 1e-12)
    for buffer, value in ((encoder.mean, mean), (encoder.deviation, deviation), (head.axes, axes)):
        buffer.copy_(torch.from_numpy(np.asarray(value, dtype=np.float32)))
