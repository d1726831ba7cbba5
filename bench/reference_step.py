"""The audio side of one training step as the paper's released code takes it, rebuilt from facts
about it.

Facts (docs/paper.md): every track is filled up to 1,251 frames, nothing is masked, padding counts
in the mean; the two tracks of a pair are encoded one after the other; float32 throughout; all rows
are compared with all. The layers are
those of its weights: convolutions, a convolution for positions, `nn.TransformerEncoder` of copies
of one layer, an MLP.
For timing only: it learns from padding, as said there.

Dimensions: B pairs, T frames, F mel bands, L tokens, D hidden size, d joint dimensions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.config import Config
from ponticello.model.audio_encoder import ConvLayer, ConvPositionEmbedding
from ponticello.model.htcl import MLP


class ReferenceTower(nn.Module):
    """(B, T, F) log-mels, padded to one length -> (B, d)."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        audio, heads = config.audio, config.heads
        sizes = (config.mel.n_mels, *audio.conv_channels)
        layers = zip(sizes, sizes[1:], audio.conv_kernels, audio.conv_strides, strict=False)
        self.convs = nn.Sequential(*(ConvLayer(*layer) for layer in layers))
        self.projection = nn.Sequential(
            nn.LayerNorm(sizes[-1]), nn.Linear(sizes[-1], audio.hidden_size)
        )
        self.positions = ConvPositionEmbedding(
            audio.hidden_size, audio.position_kernel, audio.position_groups
        )
        self.norm = nn.Sequential(nn.LayerNorm(audio.hidden_size), nn.Dropout(audio.dropout))
        self.cls_token = nn.Parameter(torch.zeros(1, 1, audio.hidden_size))
        layer = nn.TransformerEncoderLayer(
            audio.hidden_size,
            audio.n_heads,
            audio.ffn_size,
            audio.dropout,
            F.gelu,
            batch_first=True,
        )
        self.layers = nn.TransformerEncoder(layer, audio.n_layers, enable_nested_tensor=False)
        self.head = MLP((audio.hidden_size, *heads.hidden_sizes, heads.embed_dim), heads.dropout)

    def forward(self, mel: Tensor) -> Tensor:
        """As the class says."""
        tokens = self.projection(self.convs(mel))  # (B, L, D)
        tokens = self.norm(tokens + self.positions(tokens))
        tokens = self.layers(torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1))
        vectors: Tensor = self.head(tokens.mean(dim=1))
        return vectors


def reference_loss(anchors: Tensor, positives: Tensor, scale: Tensor) -> Tensor:
    """Symmetric cross-entropy of (B, d) with (B, d), all rows with all."""
    logits = scale.exp() * F.normalize(anchors, dim=-1) @ F.normalize(positives, dim=-1).T
    target = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def reference_step(
    tower: ReferenceTower, anchors: Tensor, positives: Tensor, scale: Tensor
) -> None:
    """Forward and backward of B pairs, (B, T, F) each."""
    tower.zero_grad()
    reference_loss(tower(anchors), tower(positives), scale).backward()  # type: ignore[no-untyped-call]
