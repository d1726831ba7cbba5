"""The contrastive losses. They see embeddings and numbers that stand for tracks and texts, nothing
else.

Dimensions: B rows a process, W processes, d joint dimensions.
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
ROWS_AT_ONCE = 256  # of a table of logits: 50 MB at a joint batch of 4,096, 200 MB at 16,384
LEAST_SHARE = 1e-5  # of the length of the factors of liked tracks: differing by less, they are one


class TasteAffinity:
    """Which tracks belong together, and how clearly, asked by track number: who likes what,
    smoothed.

    factors: (n, k) by track number, as `departure.listening_factors` gives them; rows of zeros are
    tracks nobody knows.
        Few listeners stand behind one pair: what factors say of two tracks rests on everybody's
        listening.
    """

    def __init__(self, factors: Tensor, scale: float) -> None:
        self.scale = scale
        known = factors.any(dim=1)
        centred = factors - factors[known].mean(dim=0) if known.any() else factors
        whole, size = (own[known].square().sum(dim=1).mean().sqrt() for own in (factors, centred))
        tells = bool(
            size > LEAST_SHARE * whole
        )  # else all are liked by the same listeners, which tells no two apart
        self.factors, self.known = (
            (centred / size, known) if tells else (factors, torch.zeros_like(known))
        )

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """(B, C) float32: how clearly left[i] and right[j] belong together, 0 = not known. (B,) and
        (C,) numbers.
        """
        factors, known = self.factors.to(left.device), self.known.to(left.device)
        likeness = self.scale * factors[left] @ factors[right].T
        weights: Tensor = (
            (likeness - likeness.amax(dim=1, keepdim=True)).exp()
            * known[left][:, None]
            * known[right]
        )
        return weights


def contrastive_loss(
    left: Tensor,
    right: Tensor,
    logit_scale: Tensor,
    left_numbers: Tensor,
    right_numbers: Tensor,
    *,
    gather_negatives: bool = True,
    affinity: TasteAffinity | None = None,
) -> Tensor:
    """Symmetric InfoNCE over matched rows, as a scalar.

    left, right: (B, d), unit length; row i of `left` matches row i of `right`, every other row is a
    negative unless
        the numbers say that it is the same thing. B >= 2, or ShapeError.
    logit_scale: scalar, the log of the inverse temperature; clamped at ln 100.
    left_numbers, right_numbers: (B,) integers; equal numbers stand for the same track or text. Rows
    with `NO_TEXT` on a
        side are no rows: neither asked with nor found.
    gather_negatives: negatives come from all processes (training), or from these rows alone (validation).
    affinity: how clearly other rows match too: a row's loss is then the mean over all its matches by
    their weight, and a
        track that stands in several rows counts as one candidate.

    Source: HTCL (arXiv 2505.23298), contrastive objective; the clamp follows CLIP; leaving out
    repeated tracks and texts is ours (the released code counts them as negatives); several matches
    as in Khosla et al. 2020 (L_out).
    """
    if left.shape != right.shape or left.ndim != 2 or len(left) < 2:
        raise ShapeError(
            f"left and right must both be (B >= 2, d); found {tuple(left.shape)} and {tuple(right.shape)}"
        )
    gather = gather_rows if gather_negatives else torch.nn.Identity()
    target = torch.arange(len(left), device=left.device) + (
        rank() * len(left) if gather_negatives else 0
    )
    scale = logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    all_left, all_right = gather(left), gather(right)  # (W * B, d)
    all_left_numbers, all_right_numbers = gather(left_numbers), gather(right_numbers)
    told, all_told = (one != NO_TEXT for one in (left_numbers, all_left_numbers))
    told, all_told = told & (right_numbers != NO_TEXT), all_told & (all_right_numbers != NO_TEXT)
    share = told / all_told.float().mean().clamp(
        min=1e-12
    )  # (B,) of the mean over all rows of all processes
    forward = _Candidates(all_right, all_right_numbers, all_left_numbers, all_told, affinity)
    backward = _Candidates(all_left, all_left_numbers, all_right_numbers, all_told, affinity)
    losses = forward.losses(scale * left, left_numbers, right_numbers, target)
    losses = losses + backward.losses(scale * right, right_numbers, left_numbers, target)
    return (losses * share).mean() / 2


@dataclass(frozen=True)
class _Candidates:
    """What rows are asked against, of all processes: vectors (C, d), their numbers, those of their
    askers, and texts.

    Rows are taken `ROWS_AT_ONCE`, and more of them are computed again for the gradient: a large
    batch never holds its whole table of B x C.
    """

    keys: Tensor
    numbers: Tensor
    askers: Tensor
    told: Tensor
    affinity: TasteAffinity | None

    def losses(self, queries: Tensor, numbers: Tensor, matches: Tensor, target: Tensor) -> Tensor:
        """(B,) of scaled queries (B, d), their numbers, those of their matches, and where these are
        (B,).
        """
        asked = queries, numbers, matches, target
        if len(queries) <= ROWS_AT_ONCE:
            return self._losses(*asked)
        parts = zip(*(torch.split(one, ROWS_AT_ONCE) for one in asked), strict=True)
        return torch.cat(
            [
                checkpoint(self._losses, *p, use_reentrant=False, preserve_rng_state=False)
                for p in parts
            ]
        )

    def _losses(self, queries: Tensor, numbers: Tensor, matches: Tensor, target: Tensor) -> Tensor:
        logits = queries @ self.keys.T  # (B, C)
        same = _is_same(
            numbers, matches, self.askers, self.numbers, target, self.affinity is not None
        )
        if self.affinity is not None:
            logits = logits - _n_rows(self.numbers).log()
        weights = _matches(numbers, self.numbers, target, self.affinity)
        return _cross_entropy(logits, weights, same | ~self.told)


def _cross_entropy(logits: Tensor, matches: Tensor, left_out: Tensor) -> Tensor:
    """(B,) each row's weighted mean -log softmax at its matches, 0 if it has none. matches: (B, W *
    B) weights.
    """
    matches = matches.masked_fill(left_out, 0.0)
    total = matches.sum(dim=1)
    logs = logits.masked_fill(left_out & (total > 0)[:, None], -math.inf).log_softmax(dim=1)
    return -(logs.masked_fill(matches == 0, 0.0) * matches).sum(dim=1) / total.clamp(min=1e-12)


def _matches(
    query: Tensor, all_key: Tensor, target: Tensor, affinity: TasteAffinity | None
) -> Tensor:
    """(B, W * B) weights: of a row's own match, and of what else the affinity knows, gather_negatives among a
    track's rows.
    """
    own = torch.zeros(len(query), len(all_key), device=query.device).scatter(
        1, target[:, None], 1.0
    )
    if affinity is None:
        return own
    known = affinity.between(query, all_key)
    return torch.where((own > 0) & (known == 0), own, known) / _n_rows(all_key)


def _n_rows(numbers: Tensor) -> Tensor:
    """(n,) how many of all rows are of the same track."""
    distinct, which = torch.unique(numbers, return_inverse=True)
    return torch.bincount(which, minlength=len(distinct))[which].float()


def _is_same(
    query: Tensor,
    key: Tensor,
    all_query: Tensor,
    all_key: Tensor,
    target: Tensor,
    has_affinity: bool,
) -> Tensor:
    """(B, W * B) bool: candidates that are no true negatives of a row, its own match aside.

    Candidate j is left out for row i if it is the thing asked with itself, the very match of i
    again, or another known match of the same question; the last two are matches of row i too where
    a affinity says so.
    """
    same = all_key == query[:, None]
    if not has_affinity:
        same = same | (all_key == key[:, None]) | (all_query == query[:, None])
    return same.scatter(1, target[:, None], False)


@dataclass(frozen=True)
class SemanticLoss:
    """Stage one: audio against its own text."""

    gather_negatives: bool = True

    def __call__(
        self, rows: Embeddings, track_numbers: Tensor, text_numbers: Tensor
    ) -> dict[str, Tensor]:
        """{"audio_text": scalar}; rows: (B, d) each, any length."""
        audio, text = F.normalize(rows.audio, dim=-1), F.normalize(rows.text, dim=-1)
        scale = rows.logit_scales["audio_text"]
        return {
            "audio_text": contrastive_loss(
                audio,
                text,
                scale,
                track_numbers,
                text_numbers,
                gather_negatives=self.gather_negatives,
            )
        }


EQUAL = {"audio_text": 1.0, "audio_audio": 1.0, "audio_fusion": 1.0, "distillation": 0.0}  # paper


@dataclass(frozen=True)
class PreferenceLoss:
    """Stage two: audio-text over all rows, audio against audio of a pair, and audio against the
    other's fusion.

    weights: of each part; a part of weight 0 is not computed. "distillation" is the mean of 1 - cosine
    between a track's vector and the one it had when stage two began.

    Source: HTCL (arXiv 2505.23298), the three equally weighted losses of preference fine-tuning;
    "distillation" is ours, after Romero et al. 2015 (a teacher's embedding as target).
    """

    gather_negatives: bool = True
    weights: Mapping[str, float] = field(default_factory=lambda: EQUAL)
    affinity: TasteAffinity | None = None

    def __call__(
        self,
        rows: Embeddings,
        track_numbers: Tensor,
        text_numbers: Tensor,
        teacher: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """{"audio_text", "audio_audio", "audio_fusion", "distillation": weighted scalars}.

        rows: (2B, d), anchors first, then positives. teacher: (2B, d) unit vectors of the same
        tracks at the start.
        """
        parts: dict[str, Tensor] = {}
        if self.weights["audio_text"]:
            parts |= SemanticLoss(self.gather_negatives)(rows, track_numbers, text_numbers)
        audio = F.normalize(rows.audio, dim=-1)
        anchor, positive = audio.chunk(2)
        anchors, positives = track_numbers.chunk(2)
        if self.weights["audio_audio"]:
            scale = rows.logit_scales["audio_audio"]
            parts["audio_audio"] = self._contrast(anchor, positive, scale, anchors, positives)
        if self.weights["audio_fusion"]:
            fused_anchor, fused_positive = F.normalize(rows.fused, dim=-1).chunk(2)
            scale = rows.logit_scales["audio_fusion"]
            to_positive = self._contrast(anchor, fused_positive, scale, anchors, positives)
            to_anchor = self._contrast(positive, fused_anchor, scale, positives, anchors)
            parts["audio_fusion"] = (to_positive + to_anchor) / 2
        if self.weights["distillation"] and teacher is not None:
            parts["distillation"] = (1 - (audio * teacher).sum(dim=1)).mean()
        return {name: self.weights[name] * part for name, part in parts.items()}

    def _contrast(
        self, left: Tensor, right: Tensor, scale: Tensor, left_n: Tensor, right_n: Tensor
    ) -> Tensor:
        return contrastive_loss(
            left,
            right,
            scale,
            left_n,
            right_n,
            gather_negatives=self.gather_negatives,
            affinity=self.affinity,
        )
