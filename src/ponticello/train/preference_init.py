"""Where the departure from a frozen front end begins: a regression from sound and text to factors
of listening.

Some hundred tracks and their pairs are too noisy to be learned one by one. The few leading factors
of who likes what are less so, and ridge regression to those has little room for chance. The losses
of stage two go on from there.

Dimensions: n tracks, k factors, D size of the text encoder.
"""

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix, diags
from scipy.sparse.linalg import svds
from torch import Tensor

from ponticello.config import PreferenceConfig
from ponticello.model.adapter import AdapterFusion, AdapterHead
from ponticello.model.htcl import HTCL
from ponticello.storage.schema import TRACK_ID, USER_ID
from ponticello.train.dataset import TrackTuples

_DENSE = 1_000_000  # cells of the matrix below which all factors are computed at once


def listening_factors(
    dataset: TrackTuples, likes: pl.DataFrame, k: int, min_users: int, shrinkage: float
) -> Tensor:
    """(n, k) float32 by track number: the leading factors of who likes what; zeros where too few
    listeners do.

    likes: as `likes_to_learn`. min_users: that a track needs. shrinkage: of the mean number of
    likes, added to each track's and listener's number. Where there are fewer
    tracks or listeners than factors, the rest are zeros. Busy listeners and popular tracks are
    scaled down; the first factor is how much a track is liked at all. Cost: k leading singular
    vectors of a sparse matrix.

    Source: PureSVD of Cremonesi et al. 2010, over the normalised matrix with regularised degrees of
    Chaudhuri et al. 2012.
    """
    known = likes.filter(pl.col(TRACK_ID).is_in(list(dataset.track_numbers)))
    known = known.filter(pl.len().over(TRACK_ID) >= min_users)
    factors = torch.zeros(len(dataset.track_numbers), k)
    if known.is_empty():
        return factors
    listeners, rows = np.unique(known[USER_ID].to_numpy(), return_inverse=True)
    tracks, columns = np.unique(known[TRACK_ID].to_numpy(), return_inverse=True)
    liked = csr_matrix((np.ones(len(known)), (rows, columns)), shape=(len(listeners), len(tracks)))
    for axis, side in ((1, "listener"), (0, "track")):
        degrees = np.asarray((liked != 0).sum(axis=axis)).ravel().astype(np.float64)
        scale = diags(1 / np.sqrt(degrees + shrinkage * degrees.mean()))
        liked = scale @ liked if side == "listener" else liked @ scale
    numbers = [dataset.track_numbers[track_id] for track_id in tracks]
    found = _leading(liked.tocsr(), min(k, *liked.shape))
    factors[numbers, : found.shape[1]] = torch.from_numpy(found.astype(np.float32))
    return factors


def _leading(matrix: csr_matrix, k: int) -> np.ndarray:
    """(n, k) the k leading right singular vectors of a matrix (m, n), times their values."""
    m, n = matrix.shape
    if m * n <= _DENSE or k >= min(m, n):
        _, values, vectors = np.linalg.svd(matrix.toarray(), full_matrices=False)
    else:
        _, values, vectors = svds(matrix, k=k, v0=np.full(min(m, n), 1 / np.sqrt(min(m, n))))
    order = np.argsort(-values)[:k]
    scaled: np.ndarray = vectors[order].T * values[order]
    scaled *= np.sign(
        scaled[np.abs(scaled).argmax(axis=0), np.arange(len(order))]
    )  # one sign, always
    return scaled


@torch.no_grad()
def init_preference_head(
    model: HTCL,
    dataset: TrackTuples,
    factors: Tensor,
    text_states: Tensor,
    settings: PreferenceConfig,
) -> None:
    """Sets the departures of `model`, of audio alone and of audio with text, and the radius of its
    space.

    factors: (n, k) as `listening_factors`, k = heads.preference_dim; text_states: (n, D) by text number,
    zeros = no text. Without any factor the model stays as it is. Cost: a (taste axes + D) square
    solve.

    Source: Gantner et al. 2010, the linear map from attributes to factors.
    """
    head, fusion = model.audio_head, model.fusion_head
    assert isinstance(head, AdapterHead)
    assert isinstance(fusion, AdapterFusion)
    by_number = {number: track_id for track_id, number in dataset.track_numbers.items()}
    known = torch.nonzero(factors.any(dim=1)).ravel().tolist()
    if not known:
        return
    track_ids = [by_number[number] for number in known]
    heard = model.encode_features([dataset.store.read(track_id) for track_id in track_ids])[
        :, : head.n_axes
    ]
    told = text_states[[dataset.text_numbers[track_id] for track_id in track_ids]].numpy()
    has_text = told.any(axis=1)
    wanted = factors[known].numpy().astype(np.float64)
    audio = _Regression(heard, wanted, np.ones(head.n_axes), settings)
    moved = [audio.set(head.residual, heard)]
    if has_text.any():
        both = np.concatenate([heard, told], axis=1)[has_text]
        spread = np.sqrt(
            told[has_text].var(axis=0).sum()
        )  # so that text and sound are penalised alike
        units = np.concatenate(
            [np.ones(head.n_axes), np.full(told.shape[1], 1 / max(float(spread), 1e-12))]
        )
        regression = _Regression(both, wanted[has_text], units, settings)
        moved.append(regression.set(fusion.residual, both))
    longest = max(float((part**2).sum(axis=1).max()) for part in moved)
    head.radius.fill_(settings.radius_margin * np.sqrt(1 + longest))


@torch.no_grad()
def init_preference_head_randomly(model: HTCL, settings: PreferenceConfig) -> None:
    """Sets small departures drawn from torch's global generator, the same for audio alone and with
    text.

    At zero the losses have no slope: taste is only ever compared with taste.
    """
    head, fusion = model.audio_head, model.fusion_head
    assert isinstance(head, AdapterHead)
    assert isinstance(fusion, AdapterFusion)
    std = settings.random_residual_length / head.residual.out_features**0.5
    torch.nn.init.normal_(head.residual.weight, std=std)
    fusion.residual.weight.zero_()
    fusion.residual.weight[:, : head.n_axes] = head.residual.weight
    head.radius.fill_(settings.radius_margin * (1 + settings.residual_length**2) ** 0.5)


class _Regression:
    """Ridge regression from inputs (m, i) to factors (m, k), scaled to `residual_length`. units:
    (i,) of inputs.
    """

    def __init__(
        self,
        inputs: np.ndarray,
        factors: np.ndarray,
        units: np.ndarray,
        settings: PreferenceConfig,
    ) -> None:
        self.middle = inputs.mean(axis=0, dtype=np.float64)
        scaled = (inputs - self.middle) * units
        gram = scaled.T @ scaled + settings.residual_l2 * np.eye(len(units))
        slope = np.linalg.solve(gram, scaled.T @ (factors - factors.mean(axis=0)))
        length = np.sqrt(((scaled @ slope) ** 2).sum(axis=1).mean())
        scale = settings.residual_length / max(float(length), 1e-12)
        self.slope = units[:, None] * slope * scale  # (i, k)

    def set(self, layer: torch.nn.Linear, inputs: np.ndarray) -> np.ndarray:
        """Makes `layer` this regression; (m, k) what it then gives."""
        layer.weight.copy_(torch.from_numpy(self.slope.T.astype(np.float32)))
        layer.bias.copy_(torch.from_numpy((-self.middle @ self.slope).astype(np.float32)))
        given: np.ndarray = (inputs - self.middle) @ self.slope
        return given
