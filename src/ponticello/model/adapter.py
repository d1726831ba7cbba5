"""The audio tower over a frozen front end: its own features, and a residual learned from listening.

A pretrained front end knows more about sound than a small library can teach. So the tower starts as
the front end itself (standardised, on its principal axes). Stage one leaves it alone and trains the
texts to meet it; stage two trains a residual in coordinates of its own (`train/preference_init.py`
sets its initial weights).

Dimensions: B rows, T frames, F features a frame, N tracks, d joint dimensions, D size of the text
encoder.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.errors import ConfigError, DataError, ShapeError

MIN_PADDING = 1e-12  # under the root that fills a vector up to the radius
MIN_DEVIATION = 1e-4  # of a feature over the tracks; one that hardly varies is not amplified


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


class ZeroInitLinear(nn.Linear):
    """A linear layer that starts at zero, also where transformers resets it."""

    def reset_parameters(self) -> None:
        """Sets all weights to zero."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)


class AdapterHead(nn.Module):
    """Projects a pooled feature vector to [semantic | preference | padding], (B, F) -> (B, d).

    `semantic` (n_axes) is the unit-length PCA projection, frozen after stage one. `preference`
    (preference_dim) is a zero-initialised linear residual, trained in stage two. `padding` (1)
    makes every vector's norm equal `radius`, so that normalisation does not erase the residual's
    magnitude; it is 0 in stage one, where the radius is 1.
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
                f"heads.embed_dim {embed_dim} must be above "
                f"heads.preference_dim {preference_dim} plus 1"
            )
        self.register_buffer("axes", torch.eye(n_features, self.n_axes))
        self.register_buffer("radius", torch.ones(()))
        self.dropout = nn.Dropout(dropout)
        self.residual = ZeroInitLinear(self.n_axes, preference_dim)

    def forward(self, vectors: Tensor) -> Tensor:
        """Returns vectors (B, d) of length `radius`; vectors: (B, F)."""
        semantic = F.normalize(vectors @ self.axes, dim=-1)
        return self.concat(semantic, self.residual(self.dropout(semantic)))

    def concat(self, semantic: Tensor, preference: Tensor) -> Tensor:
        """Returns (B, d) of both parts and the padding.

        semantic: (B, n_axes) of length 1; preference: (B, preference_dim). A preference part longer
        than the radius makes the vector longer.
        """
        # Rounded: `semantic` has length 1 up to 1e-7, and under the root that error would be 3e-4,
        # another on each machine.
        semantic_norm = semantic.square().sum(1, keepdim=True).round(decimals=5)
        spare = self.radius.square() - semantic_norm - preference.square().sum(1, keepdim=True)
        return torch.cat([semantic, preference, spare.clamp(min=MIN_PADDING).sqrt()], dim=1)

    def of_text(self, vectors: Tensor) -> Tensor:
        """Returns text vectors (B, d) without a preference part: tracks rank as in stage one.

        vectors: (B, n_axes).
        """
        return F.pad(F.normalize(vectors, dim=-1), (0, self.residual.out_features + 1))


class AdapterFusion(nn.Module):
    """Replaces the audio vector's preference part by one that also reads the text; first zero."""

    def __init__(self, n_axes: int, text_size: int, preference_dim: int, dropout: float) -> None:
        super().__init__()
        self.n_axes = n_axes
        self.dropout = nn.Dropout(dropout)
        self.residual = ZeroInitLinear(n_axes + text_size, preference_dim)

    def forward(self, head: AdapterHead, audio: Tensor, text_states: Tensor) -> Tensor:
        """Returns vectors (B, d) of the head's radius.

        audio: (B, d) as `head` returns it; text_states: (B, D) of the text encoder.
        """
        semantic = audio[:, : self.n_axes]
        inputs = torch.cat([semantic, text_states], dim=1)
        return head.concat(semantic, self.residual(self.dropout(inputs)))


@torch.no_grad()
def fit_feature_projection(
    encoder: FeaturePooling,
    head: AdapterHead,
    tracks: np.ndarray,
    blocks: Sequence[tuple[int, float]],
) -> None:
    """Sets the mean and deviation of `encoder` and the axes of `head` from training tracks.

    tracks: (N, F), each track's mean features; N >= 2, or DataError.
    blocks: (size, weight) of features that belong together, sizes adding up to F. Each feature is
        scaled by its block's weight over the root of its size: large blocks do not dominate.

    The axes are the first principal ones, at most N // 2, scaled so that a track has length 1 on
    average; the rest are zeros. More would describe the training tracks themselves: with 74 axes
    from 75 tracks, a probe of other tracks was below chance.
    """
    if len(tracks) < 2:
        raise DataError(f"{len(tracks)} training tracks have frames; at least 2 are needed")
    scales = [np.full(size, weight / np.sqrt(size)) for size, weight in blocks]
    mean = tracks.mean(axis=0, dtype=np.float64)
    deviation = tracks.std(axis=0, dtype=np.float64)
    deviation = np.maximum(deviation, MIN_DEVIATION) / np.concatenate(scales)
    standardised = (tracks - mean) / deviation
    _, _, components = np.linalg.svd(standardised, full_matrices=False)
    components = components[: min(head.axes.shape[1], len(tracks) // 2)]
    largest = components[np.arange(len(components)), np.abs(components).argmax(axis=1)]
    components = components * np.sign(largest)[:, None]  # the same sign on every machine
    length = np.sqrt(((standardised @ components.T) ** 2).sum(axis=1).mean())
    axes = np.zeros(tuple(head.axes.shape))
    axes[:, : len(components)] = components.T / max(float(length), 1e-12)
    encoder.mean.copy_(torch.from_numpy(mean.astype(np.float32)))
    encoder.deviation.copy_(torch.from_numpy(deviation.astype(np.float32)))
    head.axes.copy_(torch.from_numpy(axes.astype(np.float32)))
