"""The audio tower over log-mels: convolutions and a Transformer.

Dimensions: B rows, T frames, F mel bands, L tokens (after the convolutions), D hidden size.
Source: HTCL (arXiv 2505.23298), audio encoder, and the layout of its released weights.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ponticello.config import AudioEncoderConfig
from ponticello.errors import ConfigError, ShapeError


class ConvLayer(nn.Module):
    """Conv1d without padding or bias, then LayerNorm over channels and GELU."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(n_in, n_out, kernel, stride, bias=False)
        self.norm = nn.LayerNorm(n_out)

    def forward(self, frames: Tensor) -> Tensor:
        """Returns (B, T', C'); frames: (B, T, C)."""
        return F.gelu(self.norm(self.conv(frames.transpose(1, 2)).transpose(1, 2)))


class ConvPositionEmbedding(nn.Module):
    """Position embedding of a token: a wide grouped convolution over its neighbours."""

    def __init__(self, hidden_size: int, kernel: int, groups: int) -> None:
        super().__init__()
        if kernel % 2 == 0 or hidden_size % groups:
            raise ConfigError(
                f"position_kernel {kernel} must be odd and position_groups {groups} divide "
                f"{hidden_size}"
            )
        conv = nn.Conv1d(hidden_size, hidden_size, kernel, padding=kernel // 2, groups=groups)
        self.conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
        self.norm = nn.LayerNorm(hidden_size)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns (B, L, D); tokens: (B, L, D), zeros where padded."""
        return F.gelu(self.norm(self.conv(tokens.transpose(1, 2)).transpose(1, 2)))


class AudioEncoder(nn.Module):
    """Convolutions, position embedding, CLS token and post-norm Transformer layers."""

    def __init__(self, config: AudioEncoderConfig, n_mels: int) -> None:
        super().__init__()
        self.kernels = config.conv_kernels
        self.strides = config.conv_strides
        self.gradient_checkpointing = False  # in training: compute a layer again for its gradient
        if not len(config.conv_channels) == len(self.kernels) == len(self.strides):
            raise ConfigError("conv_channels, conv_kernels and conv_strides must be of one length")
        if config.hidden_size % config.n_heads:
            raise ConfigError(
                f"n_heads {config.n_heads} must divide hidden_size {config.hidden_size}; "
                "change one of them"
            )
        sizes = [n_mels]
        sizes.extend(config.conv_channels)
        self.convs = nn.ModuleList()
        for number, (kernel, stride) in enumerate(zip(self.kernels, self.strides, strict=True)):
            self.convs.append(ConvLayer(sizes[number], sizes[number + 1], kernel, stride))
        self.projection_norm = nn.LayerNorm(sizes[-1])
        self.projection = nn.Linear(sizes[-1], config.hidden_size)
        self.positions = ConvPositionEmbedding(
            config.hidden_size, config.position_kernel, config.position_groups
        )
        self.norm = nn.LayerNorm(config.hidden_size)
        self.dropout = nn.Dropout(config.dropout)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                config.hidden_size,
                config.n_heads,
                config.ffn_size,
                config.dropout,
                F.gelu,
                batch_first=True,
            )
            for _ in range(config.n_layers)
        )

    @property
    def min_frames(self) -> int:
        """The shortest input, in frames, that gives one token."""
        n_frames = 1
        for kernel, stride in zip(reversed(self.kernels), reversed(self.strides), strict=True):
            n_frames = (n_frames - 1) * stride + kernel
        return n_frames

    def n_tokens(self, n_frames: Tensor) -> Tensor:
        """Returns how many tokens `n_frames` real frames give, without a token that saw padding."""
        for kernel, stride in zip(self.kernels, self.strides, strict=True):
            n_frames = torch.div(n_frames - kernel, stride, rounding_mode="floor") + 1
        return n_frames

    def forward(self, mel: Tensor, padding_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Returns token states (B, 1 + L, D), CLS first, and their padding mask (B, 1 + L).

        mel: (B, T, F), normalised, T >= `min_frames`, or ShapeError. padding_mask: (B, T), True =
        padding, at the end of a row only.
        """
        if mel.ndim != 3 or mel.shape[1] < self.min_frames or padding_mask.shape != mel.shape[:2]:
            raise ShapeError(
                f"mel must be (B, T >= {self.min_frames}, F) with a mask (B, T); "
                f"found {tuple(mel.shape)} and {tuple(padding_mask.shape)}"
            )
        tokens = mel
        for conv in self.convs:
            tokens = conv(tokens)  # (B, L, C)
        tokens = self.projection(self.projection_norm(tokens))  # (B, L, D)
        n_tokens = self.n_tokens((~padding_mask).sum(1))
        positions = torch.arange(tokens.shape[1], device=mel.device)
        mask = positions[None, :] >= n_tokens[:, None]  # (B, L)
        tokens = tokens.masked_fill(mask[..., None], 0.0)
        tokens = self.dropout(self.norm(tokens + self.positions(tokens)))
        cls_tokens = self.cls_token.expand(tokens.shape[0], -1, -1)
        tokens = torch.cat([cls_tokens, tokens], dim=1)  # (B, 1 + L, D)
        mask = F.pad(mask, (1, 0), value=False)
        for layer in self.layers:
            if self.gradient_checkpointing and self.training:
                tokens = checkpoint(layer, tokens, src_key_padding_mask=mask, use_reentrant=False)
            else:
                tokens = layer(tokens, src_key_padding_mask=mask)
        return tokens, mask


def masked_mean(tokens: Tensor, padding_mask: Tensor) -> Tensor:
    """Returns the mean over real tokens, (B, D); padding_mask: (B, L), True = padding."""
    is_real = (~padding_mask)[..., None].to(tokens.dtype)
    return (tokens * is_real).sum(1) / is_real.sum(1)
