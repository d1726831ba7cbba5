"""Contrastive learning from sets of likes: some of a listener's tracks must find the others.

One step draws listeners and splits each one's likes in two halves at random. The normalised mean of
one half's vectors is a query, and the tracks of the other half are its positives among all tracks.
Words are trained the same way: a tag of a liked track is a query for all tracks of the listener.

Modality dropout: in each step a track is seen by its audio and its text, or by one of the two, so
that each of them alone gives a vector of the same space.

Source: HTCL's audio-audio loss (arXiv 2505.23298) with a set of anchors in place of one; queries
over sets of tracks as in SEMCo (Meehan and Pauwels 2026).

Dimensions: n tracks, U listeners, B listeners of a step, K keys of a step, d audio vector size,
D text state size, p preference vector size, W tags.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor

from ponticello.config import PreferenceConfig
from ponticello.model.htcl import eval_mode
from ponticello.model.preference import PreferenceEncoder
from ponticello.train.losses import MAX_LOGIT_SCALE

MASKED = -1e9  # the logit of a key that is no answer


@dataclass(frozen=True)
class TrackInputs:
    """What is known of tracks: audio vectors, text states, tags.

    audio: (n, d) float32. text: (n, D) float32, zeros = no text. tags: (n, W) bool, sparse;
    tag_states: (W, D), the text states of the tags alone.
    """

    audio: Tensor
    text: Tensor
    tags: csr_matrix
    tag_states: Tensor

    def rows(self, numbers: np.ndarray) -> "TrackInputs":
        """Returns the inputs of these tracks."""
        return TrackInputs(
            self.audio[numbers], self.text[numbers], self.tags[numbers], self.tag_states
        )


@dataclass(frozen=True)
class ListenerBatch:
    """One step: the listeners' tracks among its keys.

    keys: (K,) track numbers. halves, positives: (B, K) bool, no key is in both. words: (B,) tags,
    -1 = no tag. seed: of the step's random draws.
    """

    keys: np.ndarray
    halves: Tensor
    positives: Tensor
    words: np.ndarray
    seed: tuple[int, int]


def steps_per_epoch(likes: csr_matrix, batch_size: int) -> int:
    """Returns the steps in which every listener with two likes (U, n) or more is drawn once."""
    n_listeners = int((np.diff(likes.indptr) >= 2).sum())
    return max(1, round(n_listeners / batch_size))


class ListenerSets:
    """Draws the batches of likes (U, n); listeners with one liked track are left out.

    batch_size: listeners per step. max_keys: tracks per step; beyond it, keys are the positives of
    the step and a random sample of the other tracks.
    """

    def __init__(
        self, likes: csr_matrix, tags: csr_matrix, batch_size: int, max_keys: int, seed: int
    ) -> None:
        self.likes = likes
        self.tags = tags
        self.max_keys = max_keys
        self.seed = seed
        self.listeners = np.flatnonzero(np.diff(likes.indptr) >= 2)
        self.steps_per_epoch = steps_per_epoch(likes, batch_size)

    def batches(self, start: int) -> Iterator[ListenerBatch]:
        """Yields the batches from step `start` on, without end; the same whatever the start."""
        step = start
        while True:
            epoch, number = divmod(step, self.steps_per_epoch)
            order = np.random.default_rng((self.seed, epoch)).permutation(self.listeners)
            chunks = np.array_split(order, self.steps_per_epoch)
            for listeners in chunks[number:]:
                yield self._batch(listeners, step)
                step += 1

    def _batch(self, listeners: np.ndarray, step: int) -> ListenerBatch:
        generator = np.random.default_rng((self.seed, step, 1))
        first_halves = []
        second_halves = []
        words = np.full(len(listeners), -1)
        for row, listener in enumerate(listeners):
            liked = self._shuffled_row(self.likes, listener, generator)[: self.max_keys]
            middle = len(liked) // 2
            first_halves.append(liked[:middle])
            second_halves.append(liked[middle:])
            tags = self._shuffled_row(self.tags, liked[0], generator)
            if len(tags):
                words[row] = tags[0]
        keys = self._keys(first_halves + second_halves, generator)
        return ListenerBatch(
            keys,
            _membership(first_halves, keys),
            _membership(second_halves, keys),
            words,
            (self.seed, step),
        )

    @staticmethod
    def _shuffled_row(table: csr_matrix, row: int, generator: np.random.Generator) -> np.ndarray:
        columns = table.indices[table.indptr[row] : table.indptr[row + 1]]
        shuffled: np.ndarray = generator.permutation(columns)
        return shuffled

    def _keys(self, liked: list[np.ndarray], generator: np.random.Generator) -> np.ndarray:
        n_tracks = self.likes.shape[1]
        if n_tracks <= self.max_keys:
            return np.arange(n_tracks)
        needed = np.unique(np.concatenate(liked))
        n_sampled = max(0, self.max_keys - len(needed))
        sampled = generator.integers(n_tracks, size=n_sampled)
        return np.union1d(needed, sampled)


def _membership(sets: list[np.ndarray], keys: np.ndarray) -> Tensor:
    """Returns (B, K) bool, whether a key is in each set; all members are keys."""
    rows = np.repeat(np.arange(len(sets)), [len(members) for members in sets])
    columns = np.searchsorted(keys, np.concatenate(sets))
    table = torch.zeros(len(sets), len(keys), dtype=torch.bool)
    table[rows, columns] = True
    return table


def listener_loss_terms(
    encoder: PreferenceEncoder,
    batch: ListenerBatch,
    inputs: TrackInputs,
    settings: PreferenceConfig,
) -> dict[str, Tensor]:
    """Returns {"listeners": scalar, "words": scalar}, weighted; "words" only where a tag is known.

    inputs: of all tracks. Each term is the mean, over queries, of the cross entropy between a
    softmax over the keys and equal shares of the positives.
    """
    device = encoder.logit_scale.device
    generator = np.random.default_rng((*batch.seed, 2))
    tracks = inputs.rows(batch.keys)
    members = _encode_view(encoder, tracks, settings.modality_dropout, generator, device)
    keys = _encode_view(encoder, tracks, settings.modality_dropout, generator, device)
    scale = encoder.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
    halves = batch.halves.to(device)
    positives = batch.positives.to(device)
    queries = F.normalize(halves.to(members.dtype) @ members, dim=-1)  # (B, p)
    logits = (scale * queries @ keys.T).masked_fill(halves, MASKED)
    terms = {"listeners": _set_cross_entropy(logits, positives)}
    has_word = batch.words >= 0
    if settings.words_loss_weight and has_word.any():
        states = tracks.tag_states[batch.words[has_word]].to(device)
        words = encoder.encode(None, states)
        liked = (halves | positives)[torch.from_numpy(has_word).to(device)]
        loss = _set_cross_entropy(scale * words @ keys.T, liked)
        terms["words"] = settings.words_loss_weight * loss
    return terms


@torch.no_grad()
def logit_statistics(
    encoder: PreferenceEncoder, batch: ListenerBatch, inputs: TrackInputs
) -> dict[str, float]:
    """Returns mean and standard deviation of a batch's logits, and their scale, in eval mode."""
    device = encoder.logit_scale.device
    with eval_mode(encoder):
        tracks = inputs.rows(batch.keys)
        keys = encoder.encode(tracks.audio.to(device), tracks.text.to(device))
        scale = encoder.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp()
        queries = F.normalize(batch.halves.to(device, keys.dtype) @ keys, dim=-1)
        logits = scale * queries @ keys.T
    return {
        "logit_mean": float(logits.mean()),
        "logit_std": float(logits.std()),
        "logit_scale": float(scale),
    }


def _encode_view(
    encoder: PreferenceEncoder,
    tracks: TrackInputs,
    dropout: float,
    generator: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Returns (K, p): each track by its audio, its text, or both.

    dropout: share of the tracks with text that are seen by one of the two only. Of those seen by
    their text, half are seen by a single tag, if they have one.
    """
    has_text = tracks.text.any(dim=1).numpy()
    draw = generator.random(len(has_text))
    only_audio = ~has_text | (draw < dropout / 2)
    only_text = has_text & (draw > 1 - dropout / 2)
    text = tracks.text
    by_tag = np.flatnonzero(only_text & (generator.random(len(draw)) < 0.5))
    by_tag = by_tag[np.diff(tracks.tags.indptr)[by_tag] > 0]
    if len(by_tag):
        first = tracks.tags.indptr[by_tag]
        counts = tracks.tags.indptr[by_tag + 1] - first
        tags = tracks.tags.indices[first + (generator.random(len(by_tag)) * counts).astype(int)]
        text = text.clone()
        text[by_tag] = tracks.tag_states[tags]
    has_audio = torch.from_numpy(~only_text)
    vectors: Tensor = encoder(
        tracks.audio.to(device),
        text.to(device),
        has_audio.to(device),
        torch.from_numpy(~only_audio).to(device),
    )
    return vectors


def _set_cross_entropy(logits: Tensor, positives: Tensor) -> Tensor:
    """Returns the mean cross entropy with equal shares of each row's positives, a scalar."""
    logs = logits.log_softmax(dim=1).masked_fill(~positives, 0.0)
    return -(logs.sum(dim=1) / positives.sum(dim=1).clamp(min=1)).mean()
