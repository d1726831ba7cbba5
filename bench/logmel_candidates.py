"""What might make the log-mel tower learn better, for `bench/logmel_tower.py` to measure: none of it is in the package.

Dimensions: B rows, T frames, F mel bands, L tokens, D hidden size, d joint dimensions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import TrainerCallback

from ponticello.data.batch import random_crop
from ponticello.model.audio_encoder import masked_mean
from ponticello.model.htcl import Embeddings
from ponticello.train.losses import MAX_LOGIT_SCALE, SemanticLoss
from ponticello.train.trainer import HTCLTrainer

N_MASKS = 2  # of each kind a row
TIME_SHARE, BAND_SHARE = 0.1, 0.15  # of a crop's frames and of the bands: the widest mask
DROPPED = 0.5  # of the tokens, FLIP's figure
DECAY = 0.99  # of the averaged weights a step: the last hundred steps count
UNIFORMITY = 0.25  # weight beside InfoNCE


def spec_augment(mel: Tensor) -> Tensor:
    """A copy of normalised mels (B, T, F) with N_MASKS runs of frames and of bands a row at 0, the row's mean.

    Drawn from torch's global generator. Source: Park et al. 2019, without time warping.
    """
    masked = mel.clone()
    for axis, share in ((1, TIME_SHARE), (2, BAND_SHARE)):
        size = mel.shape[axis]
        for _ in range(N_MASKS):
            width = (torch.rand(len(mel), 1) * (share * size + 1)).floor()
            start = (torch.rand(len(mel), 1) * (size - width + 1)).floor()
            place = torch.arange(size)[None, :]
            hidden = (place >= start) & (place < start + width)  # (B, T) or (B, F)
            masked = masked.masked_fill(hidden[:, :, None] if axis == 1 else hidden[:, None, :], 0.0)
    return masked


class TokenDropping(nn.Module):
    """All Transformer layers as one, which in training see a random half of the real tokens, CLS always among them.

    What it then gives is their mean, L times, so that the tower's masked mean is the mean of the kept.
    Source: Li et al. 2023, FLIP.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        super().__init__()
        self.layers = layers

    def forward(self, tokens: Tensor, src_key_padding_mask: Tensor) -> Tensor:
        """tokens: (B, 1 + L, D), CLS first -> (B, 1 + L, D)."""
        states, mask, length = tokens, src_key_padding_mask, tokens.shape[1]
        if self.training:
            order = torch.rand(mask.shape).masked_fill(mask, 2.0)
            order[:, 0] = -1.0
            kept = order.argsort(dim=1)[:, : 1 + round((length - 1) * (1 - DROPPED))]
            states, mask = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[2])), mask.gather(1, kept)
        for layer in self.layers:
            states = layer(states, src_key_padding_mask=mask)
        return masked_mean(states, mask)[:, None].expand(-1, length, -1) if self.training else states


@dataclass(frozen=True)
class SigmoidLoss(SemanticLoss):
    """Every pair of a batch is its own yes or no question. Source: Zhai et al. 2023, SigLIP.

    The bias is learned in the place of a scale that stage one leaves idle, `logit_scales["audio_audio"]`.
    """

    def __call__(self, rows: Embeddings, track_numbers: Tensor, text_numbers: Tensor) -> dict[str, Tensor]:
        """{"audio_text": scalar}; other rows of the same track or text are left out."""
        audio, text = F.normalize(rows.audio, dim=-1), F.normalize(rows.text, dim=-1)
        scale = rows.logit_scales["audio_text"].clamp(max=MAX_LOGIT_SCALE).exp()
        logits = scale * audio @ text.T + rows.logit_scales["audio_audio"]  # (B, B)
        own = torch.eye(len(logits), dtype=torch.bool)
        same = (track_numbers[:, None] == track_numbers) | (text_numbers[:, None] == text_numbers)
        terms = -F.logsigmoid(torch.where(own, logits, -logits)).masked_fill(same & ~own, 0.0)
        return {"audio_text": terms.sum() / len(logits)}


@dataclass(frozen=True)
class UniformLoss(SemanticLoss):
    """InfoNCE, and the audio vectors pushed apart on the sphere. Source: Wang and Isola 2020, uniformity, t = 2."""

    def __call__(self, rows: Embeddings, track_numbers: Tensor, text_numbers: Tensor) -> dict[str, Tensor]:
        """{"audio_text", "uniformity": scalars}."""
        audio = F.normalize(rows.audio, dim=-1)
        distances = 2 - 2 * (audio @ audio.T)[torch.triu(torch.ones(len(audio), len(audio)), 1) > 0]
        parts = super().__call__(rows, track_numbers, text_numbers)
        return {**parts, "uniformity": UNIFORMITY * (-2 * distances).exp().mean().log()}


class MaskingTrainer(HTCLTrainer):
    """SpecAugment on each step's crops."""

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], *args: Any, **options: Any) -> Tensor:
        """As the package's, over masked crops."""
        mel, mask = random_crop(inputs["mel"], inputs["padding_mask"], self.crop_frames)
        return super().compute_loss(model, {**inputs, "mel": spec_augment(mel), "padding_mask": mask}, *args, **options)


class AveragingTrainer(HTCLTrainer):
    """Validates, keeps and ends with a running mean of the weights."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.mean = {name: weight.detach().clone() for name, weight in self._learned()}
        self.add_callback(_AfterStep(self))

    def _learned(self) -> Iterator[tuple[str, Tensor]]:
        return ((name, weight) for name, weight in self.htcl.named_parameters() if weight.requires_grad)

    @torch.no_grad()
    def average(self, step: int) -> None:
        """Takes the weights after optimiser step `step` into the mean, with a decay that is lower at the start."""
        decay = min(DECAY, (1 + step) / (10 + step))
        for name, weight in self._learned():
            self.mean[name].lerp_(weight.detach(), 1 - decay)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        own = {name: weight.detach().clone() for name, weight in self._learned()}
        self._set(self.mean)
        yield
        self._set(own)

    @torch.no_grad()
    def _set(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self._learned():
            weight.copy_(weights[name])

    def evaluate(self, *args: Any, **options: Any) -> dict[str, float]:
        """As the package's, with the mean."""
        with self._averaged():
            return super().evaluate(*args, **options)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        with self._averaged():
            super()._save(output_dir, state_dict)


class _AfterStep(TrainerCallback):
    def __init__(self, trainer: AveragingTrainer) -> None:
        self.trainer = trainer

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer.average(state.global_step)
