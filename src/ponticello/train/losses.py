"""The contrastive losses. They see embeddings and numbers that stand for tracks and texts, nothing else.

Dimensions: B rows a process, W processes, d joint dimensions.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ponticello.errors import ShapeError
from ponticello.model.htcl import Embeddings
from ponticello.train.distributed import gather_rows, rank

MAX_LOGIT_SCALE = math.log(100)  # CLIP's clamp


def contrastive_loss(
    left: Tensor,
    right: Tensor,
    logit_scale: Tensor,
    left_numbers: Tensor,
    right_numbers: Tensor,
    *,
    shared: bool = True,
) -> Tensor:
    """Symmetric InfoNCE over matched rows, as a scalar.

    left, right: (B, d), unit length; row i of `left` matches row i of `right`, every other row is a negative unless
        the numbers say that it is the same thing. B >= 2, or ShapeError.
    logit_scale: scalar, the log of the inverse temperature; clamped at ln 100.
    left_numbers, right_numbers: (B,) integers; equal numbers stand for the same track or text.
    shared: negatives come from all processes (training), or from these rows alone (validation).

    Source: HTCL (arXiv 2505.23298), contrastive objective; the clamp follows CLIP; leaving out repeated tracks and
    texts is ours (the released code counts them as negatives).
    """
    if left.shape != right.shape or left.ndim != 2 or len(left) < 2:
        raise ShapeError(f"left and right must both be (B >= 2, d); found {tuple(left.shape)} and {tuple(right.shape)}")
    gather = gather_rows if shared else torch.nn.Identity()
    target = torch.arange(len(left), device=left.device) + (rank() * len(left) if shared else 0)
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    all_left, all_right = gather(left), gather(right)  # (W * B, d)
    all_left_numbers, all_right_numbers = gather(left_numbers), gather(right_numbers)
    forward = scale * left @ all_right.T  # (B, W * B)
    backward = scale * right @ all_left.T
    same_forward = _is_same(left_numbers, right_numbers, all_left_numbers, all_right_numbers, target)
    same_backward = _is_same(right_numbers, left_numbers, all_right_numbers, all_left_numbers, target)
    return (
        F.cross_entropy(forward.masked_fill(same_forward, -math.inf), target)
        + F.cross_entropy(backward.masked_fill(same_backward, -math.inf), target)
    ) / 2


def _is_same(query: Tensor, key: Tensor, all_query: Tensor, all_key: Tensor, target: Tensor) -> Tensor:
    """(B, W * B) bool: candidates that are no true negatives of a row, its own match aside.

    Candidate j is left out for row i if it is the very match of i again, the thing asked with itself, or another
    known match of the same question.
    """
    same = (all_key == key[:, None]) | (all_key == query[:, None]) | (all_query == query[:, None])
    return same.scatter(1, target[:, None], False)


@dataclass(frozen=True)
class SemanticLoss:
    """Stage one: audio against its own text."""

    shared: bool = True

    def __call__(self, rows: Embeddings, track_numbers: Tensor, text_numbers: Tensor) -> dict[str, Tensor]:
        """{"audio_text": scalar}; rows: (B, d) each, any length."""
        audio, text = F.normalize(rows.audio, dim=-1), F.normalize(rows.text, dim=-1)
        scale = rows.logit_scales["audio_text"]
        return {"audio_text": contrastive_loss(audio, text, scale, track_numbers, text_numbers, shared=self.shared)}


@dataclass(frozen=True)
class PreferenceLoss:
    """Stage two: audio-text over all rows, audio against audio of a pair, and audio against the other's fusion.

    Source: HTCL (arXiv 2505.23298), the three equally weighted losses of preference fine-tuning.
    """

    shared: bool = True

    def __call__(self, rows: Embeddings, track_numbers: Tensor, text_numbers: Tensor) -> dict[str, Tensor]:
        """{"audio_text", "audio_audio", "audio_fusion": scalars}; rows: (2B, d), anchors first, then positives."""
        semantic = SemanticLoss(self.shared)(rows, track_numbers, text_numbers)
        anchor, positive = F.normalize(rows.audio, dim=-1).chunk(2)
        fused_anchor, fused_positive = F.normalize(rows.fused, dim=-1).chunk(2)
        anchors, positives = track_numbers.chunk(2)
        fusion = rows.logit_scales["audio_fusion"]
        to_positive = contrastive_loss(anchor, fused_positive, fusion, anchors, positives, shared=self.shared)
        to_anchor = contrastive_loss(positive, fused_anchor, fusion, positives, anchors, shared=self.shared)
        audio_scale = rows.logit_scales["audio_audio"]
        return {
            **semantic,
            "audio_audio": contrastive_loss(anchor, positive, audio_scale, anchors, positives, shared=self.shared),
            "audio_fusion": (to_positive + to_anchor) / 2,
        }
