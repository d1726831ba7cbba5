"""The audio tower over a frozen front end: its features on their principal axes.

A pretrained front end knows more about sound than a small library can teach. So the tower is the
front end itself, standardised. Stage one trains the texts to meet it; stage two trains an encoder
of its own beside it (`preference.py`).

Dimensions: B rows, T frames, F features a frame, N tracks, d joint dimensions.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.errors import DataError, ShapeError

MIN_DEVIATION = 1e-4  # of a feature over the tracks; one that hardly varies is not amplified

LEFT_OUT = 1e9  # the deviation that makes a feature count for nothing


class FeaturePooling(nn.Module):
    """Standardises the mean features of tracks. `fit_feature_projection` sets the buffers."""

    mean: Tensor
    deviation: Tensor
    min_frames = 1

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(n_features))
        self.register_buffer("deviation", torch.ones(n_features))

    def forward(self, features: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns standardised features (B, T, F) and the padding mask (B, T), True = padding.

        Raises ShapeError for other shapes.
        """
        n_features = len(self.mean)
        is_features = features.ndim == 3 and features.shape[2] == n_features
        if not is_features or padding_mask.shape != features.shape[:2]:
            raise ShapeError(
                f"frames must be (B, T, {n_features}) with a mask (B, T); "
                f"found {tuple(features.shape)} and {tuple(padding_mask.shape)}"
            )
        return (features - self.mean) / self.deviation, padding_mask


class SemanticProjection(nn.Module):
    """Projects standardised features onto fixed axes and to unit length, (B, F) -> (B, d)."""

    axes: Tensor

    def __init__(self, n_features: int, embed_dim: int) -> None:
        super().__init__()
        self.register_buffer("axes", torch.eye(n_features, embed_dim))

    def forward(self, vectors: Tensor) -> Tensor:
        """Returns unit vectors (B, d); vectors: (B, F)."""
        return F.normalize(vectors @ self.axes, dim=-1)


def principal_axes(centred: np.ndarray, n: int) -> np.ndarray:
    """Returns the first n principal axes (n, F), or fewer, of centred rows (N, F).

    The largest number of each axis is positive, so that they are the same on every machine.
    """
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:n]
    largest = axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)]
    signed: np.ndarray = axes * np.sign(largest)[:, None]
    return signed


@torch.no_grad()
def fit_feature_projection(
    encoder: FeaturePooling,
    head: SemanticProjection,
    tracks: np.ndarray,
    blocks: Sequence[tuple[int, float]],
) -> None:
    """Sets the mean and deviation of `encoder` and the axes of `head` from training tracks.

    tracks: (N, F), each track's mean features; N >= 2, or DataError.
    blocks: (size, weight) of features that belong together, sizes adding up to F. Each feature is
        scaled by its block's weight over the root of its size: large blocks do not dominate. A
        block of weight 0 is left out.

    The axes are the first principal ones, at most N // 2, scaled so that a track has length 1 on
    average; the rest are zeros. More would describe the training tracks themselves: with 74 axes
    from 75 tracks, a probe of other tracks was below chance.
    """
    if len(tracks) < 2:
        raise DataError(f"{len(tracks)} training tracks have frames; at least 2 are needed")
    scales = [np.full(size, weight / np.sqrt(size)) for size, weight in blocks]
    mean = tracks.mean(axis=0, dtype=np.float64)
    deviation = tracks.std(axis=0, dtype=np.float64)
    deviation = np.maximum(deviation, MIN_DEVIATION)
    deviation = deviation / np.maximum(np.concatenate(scales), 1 / LEFT_OUT)
    standardised = (tracks - mean) / deviation
    components = principal_axes(standardised, min(head.axes.shape[1], len(tracks) // 2))
    length = np.sqrt(((standardised @ components.T) ** 2).sum(axis=1).mean())
    axes = np.zeros(tuple(head.axes.shape))
    axes[:, : len(components)] = components.T / max(float(length), 1e-12)
    encoder.mean.copy_(torch.from_numpy(mean.astype(np.float32)))
    encoder.deviation.copy_(torch.from_numpy(deviation.astype(np.float32)))
    head.axes.copy_(torch.from_numpy(axes.astype(np.float32)))
