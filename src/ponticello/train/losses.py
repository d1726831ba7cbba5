"""The contrastive losses. They see embeddings and numbers that stand for tracks and texts, nothing else.

Dimensions: B rows a process, W processes, d joint dimensions.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from ponticello.errors import ShapeError
from ponticello.model.htcl import Embeddings
from ponticello.train.distributed import gather_rows, rank

MAX_LOGIT_SCALE = math.log(100)  # CLIP's clamp


class PairGraph:
    """Which tracks belong together, and how clearly: the mined pairs, asked by track number.

    pairs: (P, 2) integers, in any order; weights: (P,) above 0. A pair that stands there twice counts with both.
    """

    def __init__(self, pairs: Tensor, weights: Tensor) -> None:
        both = torch.cat([pairs, pairs.flip(1)]).long()
        self.base = int(both.max()) + 1 if len(both) else 1
        self.keys, place = torch.unique(both[:, 0] * self.base + both[:, 1], return_inverse=True)  # sorted
        self.weights = torch.zeros(len(self.keys)).index_add_(0, place, weights.float().repeat(2))

    def between(self, left: Tensor, right: Tensor) -> Tensor:
        """(B, C) float32: the weight of the pair of left[i] and right[j], 0 = none. left: (B,), right: (C,) numbers."""
        known = (left < self.base)[:, None] & (right < self.base)
        wanted = left[:, None] * self.base + right
        keys = self.keys.to(left.device)
        place = torch.searchsorted(keys, wanted).clamp(max=len(keys) - 1)
        found: Tensor = self.weights.to(left.device)[place] * (known & (keys[place] == wanted))
        return found


def contrastive_loss(
    left: Tensor,
    right: Tensor,
    logit_scale: Tensor,
    left_numbers: Tensor,
    right_numbers: Tensor,
    *,
    shared: bool = True,
    graph: PairGraph | None = None,
) -> Tensor:
    """Symmetric InfoNCE over matched rows, as a scalar.

    left, right: (B, d), unit length; row i of `left` matches row i of `right`, every other row is a negative unless
        the numbers say that it is the same thing. B >= 2, or ShapeError.
    logit_scale: scalar, the log of the inverse temperature; clamped at ln 100.
    left_numbers, right_numbers: (B,) integers; equal numbers stand for the same track or text.
    shared: negatives come from all processes (training), or from these rows alone (validation).
    graph: further matches among the rows: a row's loss is then the mean over all its matches by their weight, and a
        track that stands in several rows counts as one candidate.

    Source: HTCL (arXiv 2505.23298), contrastive objective; the clamp follows CLIP; leaving out repeated tracks and
    texts is ours (the released code counts them as negatives); several matches as in Khosla et al. 2020 (L_out).
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
    numbers = left_numbers, right_numbers, all_left_numbers, all_right_numbers
    same_forward = _is_same(*numbers, target, graph is not None)
    same_backward = _is_same(*numbers[1::-1], *numbers[:1:-1], target, graph is not None)
    if graph is not None:
        forward = forward - _n_rows(all_right_numbers).log()
        backward = backward - _n_rows(all_left_numbers).log()
    match_forward = _matches(left_numbers, all_right_numbers, target, graph)
    match_backward = _matches(right_numbers, all_left_numbers, target, graph)
    return (
        _cross_entropy(forward, match_forward, same_forward) + _cross_entropy(backward, match_backward, same_backward)
    ) / 2


def _cross_entropy(logits: Tensor, matches: Tensor, left_out: Tensor) -> Tensor:
    """The mean over rows of each row's weighted mean -log softmax at its matches. matches: (B, W * B) weights."""
    logs = logits.masked_fill(left_out, -math.inf).log_softmax(dim=1)
    matches = matches.masked_fill(left_out, 0.0)
    return -((logs.masked_fill(matches == 0, 0.0) * matches).sum(dim=1) / matches.sum(dim=1)).mean()


def _matches(query: Tensor, all_key: Tensor, target: Tensor, graph: PairGraph | None) -> Tensor:
    """(B, W * B) weights: of a row's own match, and of what else the graph knows, shared among a track's rows."""
    own = F.one_hot(target, len(all_key)).float()
    if graph is None:
        return own
    known = graph.between(query, all_key)
    return torch.where((own > 0) & (known == 0), own, known) / _n_rows(all_key)


def _n_rows(numbers: Tensor) -> Tensor:
    """(n,) how many of all rows are of the same track."""
    return (numbers[:, None] == numbers).sum(dim=1).float()


def _is_same(query: Tensor, key: Tensor, all_query: Tensor, all_key: Tensor, target: Tensor, has_graph: bool) -> Tensor:
    """(B, W * B) bool: candidates that are no true negatives of a row, its own match aside.

    Candidate j is left out for row i if it is the thing asked with itself, the very match of i again, or another known
    match of the same question; the last two are matches of row i too where a graph says so.
    """
    same = all_key == query[:, None]
    if not has_graph:
        same = same | (all_key == key[:, None]) | (all_query == query[:, None])
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


EQUAL = {"audio_text": 1.0, "audio_audio": 1.0, "audio_fusion": 1.0, "keep": 0.0, "departure": 0.0}  # paper


@dataclass(frozen=True)
class PreferenceLoss:
    """Stage two: audio-text over all rows, audio against audio of a pair, and audio against the other's fusion.

    weights: of each part; a part of weight 0 is not computed. "keep" is the mean of 1 - cosine between a track's vector
    and the one stage one gave it; "departure" what the audio tower has learned beside a frozen front end, squared.

    Source: HTCL (arXiv 2505.23298), the three equally weighted losses of preference fine-tuning; "keep" is ours, after
    Romero et al. 2015 (a teacher's embedding as target).
    """

    shared: bool = True
    weights: Mapping[str, float] = field(default_factory=lambda: EQUAL)
    graph: PairGraph | None = None

    def __call__(
        self, rows: Embeddings, track_numbers: Tensor, text_numbers: Tensor, teacher: Tensor | None = None
    ) -> dict[str, Tensor]:
        """{"audio_text", "audio_audio", "audio_fusion", "keep", "departure": weighted scalars}.

        rows: (2B, d), anchors first, then positives. teacher: (2B, d) unit vectors of the same tracks by stage one.
        """
        parts: dict[str, Tensor] = {}
        if self.weights["audio_text"]:
            parts |= SemanticLoss(self.shared)(rows, track_numbers, text_numbers)
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
        if self.weights["keep"] and teacher is not None:
            parts["keep"] = (1 - (audio * teacher).sum(dim=1)).mean()
        if self.weights["departure"] and rows.departure is not None:
            parts["departure"] = rows.departure
        return {name: self.weights[name] * part for name, part in parts.items()}

    def _contrast(self, left: Tensor, right: Tensor, scale: Tensor, left_n: Tensor, right_n: Tensor) -> Tensor:
        return contrastive_loss(left, right, scale, left_n, right_n, shared=self.shared, graph=self.graph)
