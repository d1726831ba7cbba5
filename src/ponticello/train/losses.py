"""The contrastive losses of both stages, over embeddings and the numbers of tracks and texts.

Dimensions: B rows a process, W processes, C = W * B keys, d joint dimensions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ponticello.errors import ShapeError
from ponticello.model.htcl import Embeddings
from ponticello.train.dataset import NO_TEXT
from ponticello.train.distributed import gather_rows, rank

MAX_LOGIT_SCALE = math.log(100)  # CLIP's clamp
ROWS_AT_ONCE = 256  # of the logits: 50 MB at a joint batch of 4,096, 200 MB at 16,384


def contrastive_loss(
    left: Tensor,
    right: Tensor,
    logit_scale: Tensor,
    left_numbers: Tensor,
    right_numbers: Tensor,
    *,
    gather_negatives: bool = True,
) -> Tensor:
    """Returns symmetric InfoNCE over matched rows, as a scalar.

    left, right: (B, d), unit length; row i of `left` matches row i of `right`, every other row is
        a negative unless the numbers show that it is the same track or text. B >= 2, or ShapeError.
    logit_scale: scalar, the log of the inverse temperature; clamped at ln 100.
    left_numbers, right_numbers: (B,) integers; equal numbers are the same track or text. Rows with
        `NO_TEXT` are left out, as queries and as keys.
    gather_negatives: take negatives from all processes (training), or from these rows (validation).

    Source: HTCL (arXiv 2505.23298), contrastive objective; the clamp follows CLIP; leaving out
    repeated tracks and texts is ours (the released code counts them as negatives).
    """
    if left.shape != right.shape or left.ndim != 2 or len(left) < 2:
        raise ShapeError(
            f"left and right must both be (B >= 2, d); "
            f"found {tuple(left.shape)} and {tuple(right.shape)}"
        )
    gather = gather_rows if gather_negatives else torch.nn.Identity()
    first_row = rank() * len(left) if gather_negatives else 0
    targets = torch.arange(len(left), device=left.device) + first_row
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    all_left = gather(left)  # (C, d)
    all_right = gather(right)
    all_left_numbers = gather(left_numbers)  # (C,)
    all_right_numbers = gather(right_numbers)
    is_valid = (left_numbers != NO_TEXT) & (right_numbers != NO_TEXT)  # (B,)
    all_is_valid = (all_left_numbers != NO_TEXT) & (all_right_numbers != NO_TEXT)  # (C,)
    row_weight = is_valid / all_is_valid.float().mean().clamp(min=1e-12)
    right_keys = _Keys(all_right, all_right_numbers, all_left_numbers, all_is_valid)
    left_keys = _Keys(all_left, all_left_numbers, all_right_numbers, all_is_valid)
    losses = right_keys.losses(scale * left, left_numbers, right_numbers, targets)
    losses = losses + left_keys.losses(scale * right, right_numbers, left_numbers, targets)
    return (losses * row_weight).mean() / 2


@dataclass(frozen=True)
class _Keys:
    """The keys of all processes for one direction of the loss.

    vectors: (C, d). numbers, query_numbers: (C,) of each key and of the query it is paired with.
    is_valid: (C,), False where a text is missing.
    """

    vectors: Tensor
    numbers: Tensor
    query_numbers: Tensor
    is_valid: Tensor

    def losses(
        self, queries: Tensor, numbers: Tensor, match_numbers: Tensor, targets: Tensor
    ) -> Tensor:
        """Returns (B,) losses of scaled queries (B, d).

        numbers, match_numbers: (B,) of each query and of its match. targets: (B,) the match's key.
        The (B, C) logits are computed `ROWS_AT_ONCE` at a time with activation checkpointing.
        """
        if len(queries) <= ROWS_AT_ONCE:
            return self._chunk_losses(queries, numbers, match_numbers, targets)
        losses = []
        for start in range(0, len(queries), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            chunk_losses = checkpoint(
                self._chunk_losses,
                queries[rows],
                numbers[rows],
                match_numbers[rows],
                targets[rows],
                use_reentrant=False,
                preserve_rng_state=False,
            )
            losses.append(chunk_losses)
        return torch.cat(losses)

    def _chunk_losses(
        self, queries: Tensor, numbers: Tensor, match_numbers: Tensor, targets: Tensor
    ) -> Tensor:
        logits = queries @ self.vectors.T  # (B, C)
        is_excluded = self.numbers == numbers[:, None]
        is_excluded = is_excluded | (self.numbers == match_numbers[:, None])
        is_excluded = is_excluded | (self.query_numbers == numbers[:, None])
        is_excluded = (is_excluded | ~self.is_valid).scatter(1, targets[:, None], False)
        logits = logits.masked_fill(is_excluded, -math.inf)
        losses: Tensor = F.cross_entropy(logits, targets, reduction="none")
        return losses


@dataclass(frozen=True)
class SemanticLoss:
    """Stage one: audio against its own text."""

    gather_negatives: bool = True

    def __call__(
        self, rows: Embeddings, track_numbers: Tensor, text_numbers: Tensor
    ) -> dict[str, Tensor]:
        """Returns {"audio_text": scalar}; rows: (B, d) each, any length."""
        loss = contrastive_loss(
            F.normalize(rows.audio, dim=-1),
            F.normalize(rows.text, dim=-1),
            rows.logit_scales["audio_text"],
            track_numbers,
            text_numbers,
            gather_negatives=self.gather_negatives,
        )
        return {"audio_text": loss}


# The paper weighs its three losses equally.
EQUAL = {"audio_text": 1.0, "audio_audio": 1.0, "audio_fusion": 1.0, "distillation": 0.0}


@dataclass(frozen=True)
class PreferenceLoss:
    """Stage two: audio against text, against its partner's audio, and its partner's fusion.

    weights: of each loss term; a term of weight 0 is not computed. "distillation" is the mean of
        1 - cosine between a track's vector and the one it had when stage two began.

    Source: HTCL (arXiv 2505.23298), the three equally weighted losses of preference fine-tuning;
    "distillation" is ours, after Romero et al. 2015 (a teacher's embedding as target).
    """

    gather_negatives: bool = True
    weights: Mapping[str, float] = field(default_factory=lambda: EQUAL)

    def __call__(
        self,
        rows: Embeddings,
        track_numbers: Tensor,
        text_numbers: Tensor,
        teacher: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Returns the weighted loss terms, scalars by name.

        rows: (2B, d), anchors first, then positives. teacher: (2B, d) unit vectors of the same
        tracks at the start.
        """
        terms: dict[str, Tensor] = {}
        if self.weights["audio_text"]:
            terms |= SemanticLoss(self.gather_negatives)(rows, track_numbers, text_numbers)
        audio = F.normalize(rows.audio, dim=-1)
        anchor, positive = audio.chunk(2)
        anchors, positives = track_numbers.chunk(2)
        if self.weights["audio_audio"]:
            scale = rows.logit_scales["audio_audio"]
            terms["audio_audio"] = self._contrast(anchor, positive, scale, anchors, positives)
        if self.weights["audio_fusion"]:
            fused_anchor, fused_positive = F.normalize(rows.fused, dim=-1).chunk(2)
            scale = rows.logit_scales["audio_fusion"]
            to_positive = self._contrast(anchor, fused_positive, scale, anchors, positives)
            to_anchor = self._contrast(positive, fused_anchor, scale, positives, anchors)
            terms["audio_fusion"] = (to_positive + to_anchor) / 2
        if self.weights["distillation"] and teacher is not None:
            terms["distillation"] = (1 - (audio * teacher).sum(dim=1)).mean()
        return {name: self.weights[name] * term for name, term in terms.items()}

    def _contrast(
        self,
        left: Tensor,
        right: Tensor,
        scale: Tensor,
        left_numbers: Tensor,
        right_numbers: Tensor,
    ) -> Tensor:
        return contrastive_loss(
            left,
            right,
            scale,
            left_numbers,
            right_numbers,
            gather_negatives=self.gather_negatives,
        )
