"""Initial weights of stage two over a frozen front end: ridge regression to factors of listening.

A few hundred tracks and their pairs are too noisy to learn one by one. The leading factors of
users' likes are less noisy, and ridge regression to them hardly overfits. Stage two's losses
continue from there.

Dimensions: n tracks, m training tracks with factors, k factors, D size of the text encoder.
"""

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix, dia_matrix, diags
from scipy.sparse.linalg import svds
from torch import Tensor

from ponticello.config import PreferenceConfig
from ponticello.model.adapter import AdapterFusion, AdapterHead
from ponticello.model.htcl import HTCL
from ponticello.storage.schema import TRACK_ID, USER_ID
from ponticello.train.dataset import TrackTuples

MAX_DENSE_CELLS = 1_000_000  # of the matrix, below which all factors are computed at once


def listening_factors(
    dataset: TrackTuples, likes: pl.DataFrame, k: int, min_users: int, shrinkage: float
) -> Tensor:
    """Returns the leading factors of users' likes by track number, (n, k) float32.

    likes: as `likes_to_learn` returns it. Tracks with fewer than `min_users` users get zeros, as do
    factors beyond the number of tracks or users. Busy users and popular tracks are scaled down; the
    first factor is a track's popularity. shrinkage: of the mean number of likes, added to each
    track's and user's number. Cost: k leading singular vectors of a sparse matrix.

    Source: PureSVD of Cremonesi et al. 2010, over the normalised matrix with regularised degrees of
    Chaudhuri et al. 2012.
    """
    usable = likes.filter(pl.col(TRACK_ID).is_in(list(dataset.track_numbers)))
    usable = usable.filter(pl.len().over(TRACK_ID) >= min_users)
    factors = torch.zeros(len(dataset.track_numbers), k)
    if usable.is_empty():
        return factors
    user_ids, rows = np.unique(usable[USER_ID].to_numpy(), return_inverse=True)
    track_ids, columns = np.unique(usable[TRACK_ID].to_numpy(), return_inverse=True)
    shape = (len(user_ids), len(track_ids))
    liked = csr_matrix((np.ones(len(usable)), (rows, columns)), shape=shape)
    liked = _inverse_root_degrees(liked, 1, shrinkage) @ liked
    liked = liked @ _inverse_root_degrees(liked, 0, shrinkage)
    leading = _leading_factors(liked.tocsr(), min(k, len(user_ids), len(track_ids)))
    numbers = [dataset.track_numbers[track_id] for track_id in track_ids]
    factors[numbers, : leading.shape[1]] = torch.from_numpy(leading.astype(np.float32))
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


@torch.no_grad()
def init_preference_head(
    model: HTCL,
    dataset: TrackTuples,
    factors: Tensor,
    text_states: Tensor,
    settings: PreferenceConfig,
) -> None:
    """Sets the residuals of `model`, of audio alone and with text, and its radius.

    factors: (n, k) as `listening_factors` returns them, k = heads.preference_dim. text_states:
    (n, D) by text number, zeros = no text. Without any factor the model is not changed. Cost: a
    square solve of size n_axes + D.

    Source: Gantner et al. 2010, the linear map from attributes to factors.
    """
    head, fusion = _adapter(model)
    has_factors = factors.any(dim=1).tolist()
    numbers = []
    text_rows = []
    features = []
    for track_id, number in dataset.track_numbers.items():
        if has_factors[number]:
            numbers.append(number)
            text_rows.append(dataset.text_numbers[track_id])
            features.append(dataset.store.read(track_id))
    if not numbers:
        return
    semantic = model.encode_features(features)[:, : head.n_axes]
    targets = factors[numbers].numpy().astype(np.float64)
    audio = _Regression(semantic, targets, np.ones(head.n_axes), settings)
    residuals = [audio.set(head.residual, semantic)]
    states = text_states[text_rows].numpy()
    has_text = states.any(axis=1)
    if has_text.any():
        # Text is scaled by its spread, so that text and audio are penalised alike.
        spread = float(np.sqrt(states[has_text].var(axis=0).sum()))
        text_units = np.full(states.shape[1], 1 / max(spread, 1e-12))
        inputs = np.concatenate([semantic, states], axis=1)[has_text]
        units = np.concatenate([np.ones(head.n_axes), text_units])
        fused = _Regression(inputs, targets[has_text], units, settings)
        residuals.append(fused.set(fusion.residual, inputs))
    longest = max(float((rows**2).sum(axis=1).max()) for rows in residuals)
    head.radius.fill_(settings.radius_margin * np.sqrt(1 + longest))


@torch.no_grad()
def init_preference_head_randomly(model: HTCL, settings: PreferenceConfig) -> None:
    """Sets small random residuals, the same for audio alone and with text.

    At zero the losses have no slope: residuals are only compared with residuals. Draws from torch's
    global generator.
    """
    head, fusion = _adapter(model)
    std = settings.random_residual_length / head.residual.out_features**0.5
    torch.nn.init.normal_(head.residual.weight, std=std)
    fusion.residual.weight.zero_()
    fusion.residual.weight[:, : head.n_axes] = head.residual.weight
    head.radius.fill_(settings.radius_margin * (1 + settings.residual_length**2) ** 0.5)


def _adapter(model: HTCL) -> tuple[AdapterHead, AdapterFusion]:
    assert isinstance(model.audio_head, AdapterHead)
    assert isinstance(model.fusion_head, AdapterFusion)
    return model.audio_head, model.fusion_head


class _Regression:
    """Ridge regression from inputs (m, i) to factors (m, k), scaled to `residual_length`.

    units: (i,), multiplies the inputs.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        factors: np.ndarray,
        units: np.ndarray,
        settings: PreferenceConfig,
    ) -> None:
        self.mean = inputs.mean(axis=0, dtype=np.float64)
        scaled = (inputs - self.mean) * units
        gram = scaled.T @ scaled + settings.residual_l2 * np.eye(len(units))
        slope = np.linalg.solve(gram, scaled.T @ (factors - factors.mean(axis=0)))
        length = np.sqrt(((scaled @ slope) ** 2).sum(axis=1).mean())
        scale = settings.residual_length / max(float(length), 1e-12)
        self.slope = units[:, None] * slope * scale  # (i, k)

    def set(self, layer: torch.nn.Linear, inputs: np.ndarray) -> np.ndarray:
        """Copies the regression into `layer`; returns its outputs (m, k)."""
        layer.weight.copy_(torch.from_numpy(self.slope.T.astype(np.float32)))
        layer.bias.copy_(torch.from_numpy((-self.mean @ self.slope).astype(np.float32)))
        outputs: np.ndarray = (inputs - self.mean) @ self.slope
        return outputs
