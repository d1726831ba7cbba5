"""Fits the encoder of the preference space: by contrast over listener sets, by regression, or both.

The regression, from the tracks' inputs to factors of the listening, is the strongest simple method
on the same inputs. `train/preference_space.py` chooses on held-out tracks.

Dimensions: n tracks, U listeners, k factors, d audio vector size, D text state size.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix, dia_matrix, diags
from scipy.sparse.linalg import svds
from torch import Tensor, nn

from ponticello.config import Config, HeadsConfig, PreferenceConfig
from ponticello.model.preference import EncoderKind, PreferenceEncoder
from ponticello.train.listener_sets import (
    ListenerBatch,
    ListenerSets,
    TrackInputs,
    listener_loss_terms,
    logit_statistics,
    steps_per_epoch,
)
from ponticello.train.loop import TrainingObserver, TrainingTask, run_loop, training_device

MAX_DENSE_CELLS = 1_000_000  # of the matrix, below which all factors are computed at once


def build_encoder(
    heads: HeadsConfig, inputs: TrackInputs, kind: EncoderKind, embed_dim: int
) -> PreferenceEncoder:
    """Returns a new encoder that standardises the inputs of these tracks.

    Draws from torch's global generator.
    """
    encoder = PreferenceEncoder(
        kind,
        inputs.audio.shape[1],
        inputs.text.shape[1],
        heads.preference_hidden_size,
        embed_dim,
        heads.preference_members,
        heads.preference_dropout,
        heads.logit_scale,
    )
    encoder.audio_inputs.fit(inputs.audio)
    with_text = inputs.text[inputs.text.any(dim=1)]
    if len(with_text):
        encoder.text_inputs.fit(with_text)
    return encoder


def fit_both(
    config: Config,
    inputs: TrackInputs,
    likes: csr_matrix,
    n_epochs: int,
    l2: float,
    folder: Path,
    observers: Sequence[TrainingObserver] = (),
) -> PreferenceEncoder:
    """Returns an encoder of both kinds, each fitted with half of the dimensions."""
    half = config.heads.embed_dim // 2
    contrast = fit_by_contrast(config, inputs, likes, n_epochs, folder, observers, embed_dim=half)
    regression = fit_by_regression(config, inputs, likes, l2, embed_dim=half)
    encoder = build_encoder(config.heads, inputs, "both", config.heads.embed_dim)
    encoder.load_state_dict(regression.state_dict() | contrast.state_dict())
    encoder.train(False)
    return encoder


def count_fit_steps(settings: PreferenceConfig, likes: csr_matrix, n_epochs: int) -> int:
    """Returns the optimiser steps of `fit_by_contrast`: of all epochs, at most `max_steps`."""
    n_steps = n_epochs * steps_per_epoch(likes, settings.batch_size)
    return min(n_steps, settings.max_steps) if settings.max_steps > 0 else n_steps


def fit_by_contrast(
    config: Config,
    inputs: TrackInputs,
    likes: csr_matrix,
    n_epochs: int,
    folder: Path,
    observers: Sequence[TrainingObserver] = (),
    *,
    embed_dim: int | None = None,
) -> PreferenceEncoder:
    """Returns the encoder after `n_epochs` passes over the listeners with two likes or more.

    likes: (U, n) bool. folder: for the log and the checkpoints; an interrupted fit goes on there.
    embed_dim: None = heads.embed_dim.
    The log has the mean and the standard deviation of the listeners' logits.
    Raises as `run_loop`.
    """
    settings = config.preference
    torch.manual_seed(settings.seed)
    n_dims = embed_dim or config.heads.embed_dim
    encoder = build_encoder(config.heads, inputs, "contrast", n_dims)
    encoder.to(training_device(settings))
    sets = ListenerSets(likes, inputs.tags, settings.batch_size, settings.max_keys, settings.seed)
    n_steps = count_fit_steps(settings, likes, n_epochs)

    def loss_terms(_: nn.Module, batch: ListenerBatch) -> dict[str, Tensor]:
        return listener_loss_terms(encoder, batch, inputs, settings)

    def describe_logits() -> dict[str, float]:
        return logit_statistics(encoder, next(sets.batches(0)), inputs)

    task = TrainingTask(
        "preference",
        encoder,
        settings,
        n_steps,
        sets.batches,
        loss_terms,
        describe_logits,
        best_by="",
    )
    fingerprint = _fingerprint(config, inputs, likes, n_epochs, n_dims)
    run_loop(task, folder, observers, fingerprint)
    encoder.train(False)
    return encoder.cpu()


def _fingerprint(
    config: Config, inputs: TrackInputs, likes: csr_matrix, n_epochs: int, embed_dim: int
) -> dict[str, Any]:
    """Returns what must be unchanged when a fit resumes."""
    digest = hashlib.sha256()
    for tensor in (inputs.audio, inputs.text, inputs.tag_states):
        digest.update(tensor.contiguous().numpy().tobytes())
    for table in (inputs.tags, likes):
        digest.update(table.indptr.tobytes())
        digest.update(table.indices.tobytes())
    return {
        "preference": config.preference.model_dump(mode="json"),
        "heads": config.heads.model_dump(mode="json"),
        "n_epochs": n_epochs,
        "embed_dim": embed_dim,
        "data_sha256": digest.hexdigest(),
    }


@torch.no_grad()
def fit_by_regression(
    config: Config,
    inputs: TrackInputs,
    likes: csr_matrix,
    l2: float,
    *,
    embed_dim: int | None = None,
) -> PreferenceEncoder:
    """Returns a linear encoder: a ridge regression to `listening_factors` per set of modalities.

    likes: (U, n) bool. l2: penalty, for inputs of length 1. Tracks that nobody likes are left out.

    Source: Gantner et al. 2010, the linear map from attributes to factors.
    """
    n_factors = embed_dim or config.heads.embed_dim
    encoder = build_encoder(config.heads, inputs, "regression", n_factors)
    factors = listening_factors(likes, n_factors, config.preference.factor_shrinkage)
    is_liked = factors.any(axis=1)
    has_text = inputs.text.any(dim=1).numpy()
    audio = encoder.audio_inputs(inputs.audio).double().numpy()
    text = encoder.text_inputs(inputs.text).double().numpy()
    both = np.concatenate([audio, text], axis=1)
    only_audio = np.concatenate([audio, np.zeros_like(text)], axis=1)
    only_text = np.concatenate([np.zeros_like(audio), text], axis=1)
    linear = encoder.linear
    assert linear is not None
    _set_regression(linear.audio, only_audio[is_liked], factors[is_liked], l2)
    if (is_liked & has_text).any():
        rows = is_liked & has_text
        _set_regression(linear.text, only_text[rows], factors[rows], l2)
        _set_regression(linear.both, both[rows], factors[rows], l2)
    encoder.train(False)
    return encoder


def _set_regression(
    layer: torch.nn.Linear, inputs: np.ndarray, targets: np.ndarray, l2: float
) -> None:
    """Sets weight and bias to the ridge regression of `targets` (m, k) on `inputs` (m, F)."""
    centre = inputs.mean(axis=0)
    level = targets.mean(axis=0)
    centred = inputs - centre
    gram = centred.T @ centred + l2 * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (targets - level))  # (F, k)
    layer.weight.copy_(torch.from_numpy(weights.T))
    layer.bias.copy_(torch.from_numpy(level - centre @ weights))


def listening_factors(likes: csr_matrix, k: int, shrinkage: float) -> np.ndarray:
    """Returns the leading factors of listeners' likes (U, n), as (n, k) float64.

    Tracks that nobody likes get zeros, as do factors beyond the number of tracks or listeners. Busy
    listeners and popular tracks are scaled down; the first factor is a track's popularity.
    shrinkage: of the mean number of likes, added to each track's and listener's number. Cost: k
    leading singular vectors of a sparse matrix.

    Source: PureSVD of Cremonesi et al. 2010, over the normalised matrix with regularised degrees of
    Chaudhuri et al. 2012.
    """
    factors = np.zeros((likes.shape[1], k))
    listeners = np.flatnonzero(np.diff(likes.indptr))
    tracks = np.unique(likes.indices)
    if not len(tracks):
        return factors
    liked = likes[listeners][:, tracks].astype(np.float64)
    liked = _inverse_root_degrees(liked, 1, shrinkage) @ liked
    liked = liked @ _inverse_root_degrees(liked, 0, shrinkage)
    leading = _leading_factors(liked.tocsr(), min(k, len(listeners), len(tracks)))
    factors[tracks, : leading.shape[1]] = leading
    return factors


def _inverse_root_degrees(matrix: csr_matrix, axis: int, shrinkage: float) -> dia_matrix:
    degrees = np.asarray((matrix != 0).sum(axis=axis)).ravel().astype(np.float64)
    return diags(1 / np.sqrt(degrees + shrinkage * degrees.mean()))


def _leading_factors(matrix: csr_matrix, k: int) -> np.ndarray:
    """Returns (n, k) leading right singular vectors of a matrix (m, n), times their values."""
    m, n = matrix.shape
    if m * n <= MAX_DENSE_CELLS or k >= min(m, n):
        _, values, vectors = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        start = np.full(min(m, n), 1 / np.sqrt(min(m, n)))
        _, values, vectors = svds(matrix, k=k, v0=start)
    order = np.argsort(-values)[:k]
    factors: np.ndarray = vectors[order].T * values[order]
    largest = factors[np.abs(factors).argmax(axis=0), np.arange(len(order))]
    factors *= np.sign(largest)  # the same sign on every machine
    return factors
