"""The semantic space over a frozen front end: a block of sound and a block of text.

A track's vector holds both, so that words find what is tagged as well as what sounds like it. Where
a track has no text, its text block is predicted from its sound. A question's vector has, for each
block, the mean of two directions: that of a text head, or of the text itself, and that of the tags
which the question means, by attention over a vocabulary of tags. Each direction counts in standard
deviations of its scores over the training tracks.

Dimensions: B rows, n tracks, a size of the audio block, t size of the text block, D text state
size, V tags of the vocabulary, d = a + t.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.model.adapter import principal_axes

ATTENTION_TEMPERATURE = 0.05  # of cosines between a question and the tags
MIN_SPREAD = 1e-6  # below it a direction tells no track from another
# L2 penalties, of the mean variance of a dimension.
PREDICTION_L2 = 1.0
AUDIO_TAG_L2 = 1.0
TEXT_TAG_L2 = 0.1


class SemanticSpace(nn.Module):
    """Composes the vectors of tracks and questions. `fit_semantic_space` sets the buffers.

    audio_dim, text_dim: sizes of the blocks. text_size: D. n_tags: V.
    """

    text_mean: Tensor
    text_axes: Tensor
    prediction_weight: Tensor
    prediction_bias: Tensor
    audio_covariance: Tensor
    text_covariance: Tensor
    tag_states: Tensor
    tag_audio: Tensor
    tag_text: Tensor

    def __init__(self, audio_dim: int, text_dim: int, text_size: int, n_tags: int) -> None:
        super().__init__()
        self.audio_dim = audio_dim
        self.register_buffer("text_mean", torch.zeros(text_size))
        self.register_buffer("text_axes", torch.zeros(text_size, text_dim))
        self.register_buffer("prediction_weight", torch.zeros(audio_dim, text_dim))
        self.register_buffer("prediction_bias", torch.zeros(text_dim))
        self.register_buffer("audio_covariance", torch.eye(audio_dim) / audio_dim)
        self.register_buffer("text_covariance", torch.eye(text_dim) / text_dim)
        self.register_buffer("tag_states", torch.zeros(n_tags, text_size))
        self.register_buffer("tag_audio", torch.zeros(n_tags, audio_dim))
        self.register_buffer("tag_text", torch.zeros(n_tags, text_dim))

    def track_vectors(self, audio: Tensor, text_states: Tensor | None) -> Tensor:
        """Returns (B, d), not normalised, of the audio block (B, a) and text states (B, D).

        A row of zeros has no text, as all rows without `text_states`.
        """
        audio = F.normalize(audio, dim=-1)
        text = self.predict_text(audio)
        if text_states is not None:
            has_text = text_states.any(dim=1, keepdim=True)
            text = torch.where(has_text, self.project_text(text_states), text)
        return torch.cat([audio, text], dim=-1)

    def question_vectors(self, head: Tensor, text_states: Tensor) -> Tensor:
        """Returns (B, d), not normalised. head: the text head's vectors (B, a)."""
        attention = self.attend(text_states)
        audio = _spread_one(F.normalize(head, dim=-1), self.audio_covariance)
        audio = audio + _spread_one(attention @ self.tag_audio, self.audio_covariance)
        text = _spread_one(self.project_text(text_states), self.text_covariance)
        text = text + _spread_one(attention @ self.tag_text, self.text_covariance)
        audio = _spread_one(audio, self.audio_covariance)
        return torch.cat([audio, _spread_one(text, self.text_covariance)], dim=-1)

    def attend(self, text_states: Tensor) -> Tensor:
        """Returns (B, V), how much of each tag a question means; rows add up to 1."""
        cosines = F.normalize(text_states, dim=-1) @ self.tag_states.T
        return (cosines / ATTENTION_TEMPERATURE).softmax(dim=-1)

    def project_text(self, text_states: Tensor) -> Tensor:
        """Returns the text blocks (B, t) of text states (B, D), of unit length or zeros."""
        centred = F.normalize(text_states, dim=-1) - self.text_mean
        return F.normalize(centred @ self.text_axes, dim=-1)

    def predict_text(self, audio: Tensor) -> Tensor:
        """Returns the text blocks (B, t) that audio blocks (B, a) predict."""
        return F.normalize(audio @ self.prediction_weight + self.prediction_bias, dim=-1)


def _spread_one(directions: Tensor, covariance: Tensor) -> Tensor:
    """Returns directions (B, k) scaled to scores of deviation 1 over the training tracks."""
    variance = ((directions @ covariance) * directions).sum(dim=-1, keepdim=True)
    return directions / variance.clamp(min=MIN_SPREAD**2).sqrt()


@dataclass(frozen=True)
class Vocabulary:
    """Tags that questions are compared with.

    names: V; the first of them are tags of the catalogue, the others a tagger's. states: (V, D),
    what the text encoder makes of them. given: (n, G) bool, the training tracks' tags of the
    catalogue. heard: (n, V - G), how much a tagger heard of its tags in each training track.
    """

    names: Sequence[str]
    states: np.ndarray
    given: np.ndarray
    heard: np.ndarray


@torch.no_grad()
def fit_semantic_space(
    space: SemanticSpace,
    audio: np.ndarray,
    text_states: np.ndarray,
    vocabulary: Vocabulary,
    refits_text_axes: bool = True,
) -> None:
    """Sets the buffers of `space` from training tracks.

    audio: (n, a) unit vectors. text_states: (n, D), zeros for a track without text.
    vocabulary: of as many tags as `space` has. refits_text_axes: False keeps the text's mean and
        axes.

    A tag's direction is a ridge regression on a block, so that one product with a track says how
    much it has of the tag. A track without text may lack a tag that fits: the directions of the
    catalogue's tags are fitted to the tracks with text.
    """
    has_text = text_states.any(axis=1)
    states = torch.from_numpy(text_states)
    if refits_text_axes:
        fit_text_axes(space, states[torch.from_numpy(has_text)])
    text = space.project_text(states).numpy().astype(np.float64)
    if has_text.any():
        weight, bias = ridge(audio[has_text], text[has_text], PREDICTION_L2)
        _copy(space.prediction_weight, weight)
        _copy(space.prediction_bias, bias)
    predicted = space.predict_text(torch.from_numpy(audio).float()).numpy()
    text[~has_text] = predicted[~has_text]
    _copy(space.audio_covariance, _covariance(audio))
    _copy(space.text_covariance, _covariance(text))
    if len(vocabulary.names):
        _copy(space.tag_states, _unit_rows(vocabulary.states))
        for blocks, directions, l2 in (
            (audio, space.tag_audio, AUDIO_TAG_L2),
            (text, space.tag_text, TEXT_TAG_L2),
        ):
            given = _tag_directions(blocks[has_text], vocabulary.given[has_text], l2)
            heard = _tag_directions(blocks, vocabulary.heard, l2)
            _copy(directions, np.concatenate([given, heard]))


def fit_text_axes(space: SemanticSpace, states: Tensor) -> None:
    """Sets mean and principal axes of the texts' states (m, D): at most m // 2 axes."""
    units = F.normalize(states, dim=-1).double().numpy()
    if len(units) < 2:
        return
    mean = units.mean(axis=0)
    n_axes = min(space.text_axes.shape[1], max(1, len(units) // 2))
    components = principal_axes(units - mean, n_axes)
    axes = np.zeros(tuple(space.text_axes.shape))
    axes[:, : len(components)] = components.T
    _copy(space.text_mean, mean)
    _copy(space.text_axes, axes)


def _tag_directions(blocks: np.ndarray, scores: np.ndarray, l2: float) -> np.ndarray:
    """Returns (V, k), the ridge regression of each tag's scores (n, V), of deviation 1 each."""
    if not scores.size:
        return np.zeros((scores.shape[1], blocks.shape[1]))
    weight, _ = ridge(blocks, scores, l2)  # (k, V)
    deviation = ((blocks - blocks.mean(axis=0)) @ weight).std(axis=0)
    directions: np.ndarray = (weight / np.maximum(deviation, MIN_SPREAD)).T
    return directions


def ridge(inputs: np.ndarray, targets: np.ndarray, l2: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns weight (k, m) and bias (m,) of the ridge regression of targets (n, m) on (n, k).

    l2: penalty, of the mean variance of an input.
    """
    inputs = inputs.astype(np.float64)
    centred = inputs - inputs.mean(axis=0)
    covariance = centred.T @ centred / len(inputs)
    size = max(float(np.trace(covariance)) / len(covariance), MIN_SPREAD**2)
    level = targets.mean(axis=0)
    gram = covariance + l2 * size * np.eye(len(covariance))
    weight = np.linalg.solve(gram, centred.T @ (targets - level) / len(inputs))
    bias: np.ndarray = level - inputs.mean(axis=0) @ weight
    return weight, bias


def _covariance(rows: np.ndarray) -> np.ndarray:
    covariance: np.ndarray = np.cov(rows, rowvar=False, bias=True)
    return covariance


def _unit_rows(rows: np.ndarray) -> np.ndarray:
    units: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), MIN_SPREAD)
    return units


def _copy(buffer: Tensor, values: np.ndarray) -> None:
    buffer.copy_(torch.from_numpy(np.asarray(values, dtype=np.float32)))
