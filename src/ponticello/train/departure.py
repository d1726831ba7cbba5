"""Where the departure from a frozen front end begins: at a regression from what is heard and told to pair factors.

Some hundred tracks and their pairs are too noisy to be learned one by one. Their few leading factors are less so, and
ridge regression to those has little room for chance. The losses of stage two go on from there.

Dimensions: n tracks, k factors, D size of the text encoder.
"""

import numpy as np
import polars as pl
import torch
from scipy.sparse import coo_matrix, diags
from scipy.sparse.linalg import eigsh
from torch import Tensor

from ponticello.data.columns import ANCHOR_ID, N_USERS, POSITIVE_ID
from ponticello.data.dataset import TrackTuples
from ponticello.model.frame_encoder import AnchoredFusion, AnchoredHead
from ponticello.model.htcl import HTCL

# docs/benchmarks.md, "Where the departure begins"
SHRINKAGE = 0.3  # of the mean degree, added to each track's: few pairs make no factor of their own
RIDGE = 1.0  # against vectors of length 1
LENGTH = 2.0  # of the departure, root mean square over the training tracks; what is heard has 1
SMALL = 0.5  # the same, where it begins at random
ROOM = 1.7  # the radius over the longest training vector: what is longer is cut

_DENSE = 500  # tracks below which all factors are computed at once


def pair_factors(dataset: TrackTuples, pairs: pl.DataFrame, k: int) -> Tensor:
    """(n, k) float32 by track number: the leading factors of the graph of a dataset's pairs; zeros without pairs.

    A pair weighs its listeners over all sources. The first factor, how many pairs a track has, is left out; where
    there are fewer tracks than factors, the rest are zeros. pairs: as `read_pairs`.

    Source: spectral embedding of the normalised graph with regularised degrees, Chaudhuri et al. 2012.
    """
    listeners = {(a, p): n for a, p, n in pairs.group_by(ANCHOR_ID, POSITIVE_ID).agg(pl.sum(N_USERS)).iter_rows()}
    rows = np.array([[dataset.track_numbers[track_id] for track_id in row] for row in dataset.rows]).reshape(-1, 2)
    used, places = np.unique(rows, return_inverse=True)
    left, right = places.reshape(-1, 2).T
    weights = np.array([listeners[row[0], row[1]] for row in dataset.rows], dtype=np.float64)
    graph = coo_matrix((weights, (left, right)), shape=(len(used), len(used))).tocsr()
    graph = graph + graph.T
    degrees = np.asarray(graph.sum(axis=1)).ravel()
    scale = diags(1 / np.sqrt(degrees + SHRINKAGE * degrees.mean()))
    values, vectors = _leading(scale @ graph @ scale, k + 1)
    found = vectors[:, 1:] * np.sqrt(np.maximum(values[1:], 0.0))
    factors = torch.zeros(len(dataset.track_numbers), k)
    factors[used, : found.shape[1]] = torch.from_numpy(found.astype(np.float32))
    return factors


def _leading(graph: "coo_matrix", k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k largest eigenvalues of a symmetric matrix (n, n), falling, and their vectors (n, k); fewer if n is."""
    n = graph.shape[0]
    if n <= max(_DENSE, k + 1):
        values, vectors = np.linalg.eigh(graph.toarray())
    else:
        values, vectors = eigsh(graph, k=k, which="LA", v0=np.full(n, 1 / np.sqrt(n)))
    order = np.argsort(-values)[:k]
    vectors = vectors[:, order]
    signs = np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(order))])  # one sign, always
    return values[order], vectors * signs


@torch.no_grad()
def begin_departure(model: HTCL, dataset: TrackTuples, factors: Tensor, text_states: Tensor) -> None:
    """Sets the departures of `model`, of audio alone and of audio with text, and the radius of its space.

    factors: (n, k) as `pair_factors`, k = heads.taste_dim; text_states: (n, D) by text number, zeros = no text.
    Without any factor the model stays as it is. Cost: a (taste axes + D) square solve.

    Source: Gantner et al. 2010, the linear map from attributes to factors.
    """
    head, fusion = model.audio_head, model.fusion_head
    assert isinstance(head, AnchoredHead)
    assert isinstance(fusion, AnchoredFusion)
    by_number = {number: track_id for track_id, number in dataset.track_numbers.items()}
    known = torch.nonzero(factors.any(dim=1)).ravel().tolist()
    if not known:
        return
    track_ids = [by_number[number] for number in known]
    heard = model.encode_mels([dataset.store.read(track_id) for track_id in track_ids])[:, : head.n_axes]
    told = text_states[[dataset.text_numbers[track_id] for track_id in track_ids]].numpy()
    has_text = told.any(axis=1)
    wanted = factors[known].numpy().astype(np.float64)
    audio = _Regression(heard, wanted, np.ones(head.n_axes))
    moved = [audio.set(head.departure, heard)]
    if has_text.any():
        both = np.concatenate([heard, told], axis=1)[has_text]
        spread = np.sqrt(told[has_text].var(axis=0).sum())  # so that text and sound are penalised alike
        units = np.concatenate([np.ones(head.n_axes), np.full(told.shape[1], 1 / max(float(spread), 1e-12))])
        moved.append(_Regression(both, wanted[has_text], units).set(fusion.departure, both))
    longest = max(float((part**2).sum(axis=1).max()) for part in moved)
    head.radius.fill_(ROOM * np.sqrt(1 + longest))


@torch.no_grad()
def begin_at_random(model: HTCL) -> None:
    """Sets small departures drawn from torch's global generator, the same for audio alone and with text.

    At zero the losses have no slope: taste is only ever compared with taste.
    """
    head, fusion = model.audio_head, model.fusion_head
    assert isinstance(head, AnchoredHead)
    assert isinstance(fusion, AnchoredFusion)
    torch.nn.init.normal_(head.departure.weight, std=SMALL / head.departure.out_features**0.5)
    fusion.departure.weight.zero_()
    fusion.departure.weight[:, : head.n_axes] = head.departure.weight
    head.radius.fill_(ROOM * (1 + LENGTH**2) ** 0.5)


class _Regression:
    """Ridge regression from inputs (m, i) to factors (m, k), its outputs scaled to `LENGTH`. units: (i,) of inputs."""

    def __init__(self, inputs: np.ndarray, factors: np.ndarray, units: np.ndarray) -> None:
        self.middle = inputs.mean(axis=0, dtype=np.float64)
        scaled = (inputs - self.middle) * units
        gram = scaled.T @ scaled + RIDGE * np.eye(len(units))
        slope = np.linalg.solve(gram, scaled.T @ (factors - factors.mean(axis=0)))
        length = np.sqrt(((scaled @ slope) ** 2).sum(axis=1).mean())
        self.slope = units[:, None] * slope * (LENGTH / max(float(length), 1e-12))  # (i, k)

    def set(self, layer: torch.nn.Linear, inputs: np.ndarray) -> np.ndarray:
        """Makes `layer` this regression; (m, k) what it then gives."""
        layer.weight.copy_(torch.from_numpy(self.slope.T.astype(np.float32)))
        layer.bias.copy_(torch.from_numpy((-self.middle @ self.slope).astype(np.float32)))
        given: np.ndarray = (inputs - self.middle) @ self.slope
        return given
