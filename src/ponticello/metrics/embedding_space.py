"""Metrics of embedding spaces: collapse, hubness, the gap between modalities, moved neighbours.

Vectors are unit length, (n, d) float. Rows with NaN or infinity are counted in `SpaceHealth.n_nan`
and otherwise ignored; any other row that is not unit length is a DataError.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import DataError, ShapeError
from ponticello.metrics.beyond_accuracy import hubness, top_k
from ponticello.metrics.ranking import Bools, Floats, Ints

# Two wide limits of ours, which detect a collapsed space and do not grade a good one.
MIN_RANK_SHARE = 0.05  # of min(d, n - 1): 26 of 512 dimensions
MAX_MEAN_COSINE = 0.95  # two random tracks are 18 degrees apart
HUB_NEIGHBOURS = 10  # the k of Radovanovic et al. 2010
KERNEL_SCALE = 2.0  # t of the uniformity kernel, Wang and Isola 2020
N_PAIRS = 2**16  # sampled for uniformity, which moves by about 0.01 from seed to seed
BLOCK_COSINES = 2**25  # held at once: 128 MB of float32
BLOCK_ROWS = 2**13  # rows held as float64 at once: 32 MB at d = 512
UNIT_TOLERANCE = 1e-3  # of a length: what float16 storage loses
CORRELATION_DECIMALS = 9  # beyond which correlations count as equal: float64 rounding
SAME_VARIANCE = 1e-12  # of cosines: a smaller one is rounding


@dataclass(frozen=True)
class SpaceHealth:
    """The result of `space_health`.

    n_nan: rows with NaN or infinity, left out of the rest.
    effective_rank: dimensions in use, in [1, min(n - 1, d)]; 0 if all rows are the same.
    mean_cosine: of two different rows, in [-1, 1]; 0 is well spread.
    uniformity: in [-8, 0], 0 if all rows are the same; evenly spread rows come near -4.
    hubness: skewness of how often a row is among another's ten nearest; 0 = no hubs.
    """

    n_nan: int
    effective_rank: float
    mean_cosine: float
    uniformity: float
    hubness: float
    is_collapsed: bool


def space_health(vectors: Floats, seed: int = 0) -> SpaceHealth:
    """Returns how many dimensions a space uses and how evenly, and whether it collapsed.

    vectors: (n, d) unit rows, ShapeError otherwise; at least two of them finite, or DataError.
    Collapsed: effective rank below MIN_RANK_SHARE of min(d, n - 1), which is all n rows can
    reach, or a mean cosine above MAX_MEAN_COSINE. Randomness: pairs for uniformity from numpy's
    default generator and `seed`; up to 362 rows all pairs, and so no chance. Cost: n x n x d for
    hubness, with at most 128 MB of float32 cosines held at once.

    Source: effective rank, Roy and Vetterli 2007, of the centred rows; uniformity, Wang and Isola
    2020, t = 2; hubness, as `beyond_accuracy.hubness`.

    >>> vectors = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    >>> round(space_health(vectors).effective_rank, 9)
    2.0
    """
    finite = _finite_rows("vectors", vectors)
    kept = vectors[finite]
    n, d = _at_least(2, "vectors", kept).shape
    rank = _effective_rank(kept)
    cosine = _mean_cosine(kept)
    return SpaceHealth(
        n_nan=int((~finite).sum()),
        effective_rank=rank,
        mean_cosine=cosine,
        uniformity=_uniformity(kept, seed),
        hubness=hubness(_nearest(kept, min(HUB_NEIGHBOURS, n - 1)), n),
        is_collapsed=rank < MIN_RANK_SHARE * min(d, n - 1) or cosine > MAX_MEAN_COSINE,
    )


def alignment(left: Floats, right: Floats) -> float:
    """Returns the mean squared distance of matched rows, in [0, 4]; 0 = the same, 2 = unrelated.

    left, right: (n, d) unit rows. Pairs with NaN are left out; DataError if none is left.
    Source: Wang and Isola 2020, alpha = 2.

    >>> alignment(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    2.0
    """
    finite = _finite_rows("left", left) & _finite_rows("right", right)
    matched = _at_least(1, "left and right", left[finite]).astype(np.float64)
    return float(((matched - right[finite]) ** 2).sum(axis=1).mean())


def modality_gap(audio: Floats, text: Floats) -> float:
    """Returns the distance of the centroids of the audio and the text vectors, in [0, 2].

    audio: (n, d), text: (m, d), unit rows of one space; at least one finite row each, or DataError.
    Source: Liang et al. 2022, "Mind the gap".

    >>> modality_gap(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]]))
    2.0
    """
    audio_centroid = _centroid(_at_least(1, "audio", audio[_finite_rows("audio", audio)]))
    text_centroid = _centroid(_at_least(1, "text", text[_finite_rows("text", text)]))
    return float(np.linalg.norm(audio_centroid - text_centroid))


def neighbour_overlap(before: Floats, after: Floats, k: int) -> NDArray[np.float64]:
    """Returns (n,), the share of each track's k nearest neighbours that stay so, in [0, 1].

    before: (n, d), after: (n, e), unit rows of the same n tracks in two spaces. Rows with NaN in
    either are ignored, and nan in the result. Equal cosines are in order of row. Chance is k / (n -
    1). Cost: 2 x n x n x d, with at most 128 MB of float32 cosines held at once.

    >>> space = np.eye(4)[[0, 0, 1, 1]]
    >>> neighbour_overlap(space, space[[0, 2, 1, 3]], k=1).tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    finite = _finite_rows("before", before) & _finite_rows("after", after)
    neighbours = [_nearest(before[finite], k), _nearest(after[finite], k)]
    merged = np.sort(np.concatenate(neighbours, axis=1), axis=1)
    n_shared = (merged[:, 1:] == merged[:, :-1]).sum(axis=1)  # an id of both lists is there twice
    overlap = np.full(len(before), np.nan)
    overlap[finite] = n_shared / k
    return overlap


def largest_shifts(before: Floats, after: Floats, overlap: Floats, n: int) -> NDArray[np.int64]:
    """Returns the n rows whose neighbours changed most, those of the least overlap first.

    before, after: as in `neighbour_overlap`, which gives `overlap`; its nan rows are ignored. Of
    equal ones, the row whose cosines with all others correlate less between the two spaces
    (Pearson), then the earlier row.

    >>> before = np.eye(3)[[0, 0, 0, 1, 1]]
    >>> after = np.eye(3)[[0, 0, 1, 1, 1]]
    >>> largest_shifts(before, after, neighbour_overlap(before, after, k=1), n=1).tolist()
    [2]
    """
    finite = np.flatnonzero(~np.isnan(overlap))
    if len(finite) > n:
        largest_overlap = np.partition(overlap[finite], n - 1)[n - 1]
    else:
        largest_overlap = np.inf
    rows = np.flatnonzero(overlap <= largest_overlap)
    spaces = (before[finite], after[finite])
    correlation = np.zeros(len(rows))
    for position, row in enumerate(rows):
        is_other = finite != row
        cosines = np.stack([spaces[0] @ before[row], spaces[1] @ after[row]])[:, is_other]
        centred = cosines.astype(np.float64) - cosines.mean(axis=1, keepdims=True)
        covariance = centred @ centred.T
        if (np.diag(covariance) > SAME_VARIANCE).all():
            correlation[position] = covariance[0, 1] / np.sqrt(np.prod(np.diag(covariance)))
    order = np.lexsort((np.round(correlation, CORRELATION_DECIMALS), overlap[rows]))
    return rows[order][:n]


def _nearest(vectors: Floats, k: int) -> Ints:
    """Returns (n, k), the other rows of the highest cosine with each row; equal ones by row."""
    vectors = vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)
    blocks = []
    for rows in np.array_split(np.arange(len(vectors)), 1 + len(vectors) ** 2 // BLOCK_COSINES):
        cosines = vectors[rows] @ vectors.T  # (block, n)
        cosines[np.arange(len(rows)), rows] = -np.inf
        blocks.append(top_k(cosines, k))
    return np.concatenate(blocks)


def _effective_rank(vectors: Floats) -> float:
    """Returns exp of the entropy of the centred rows' singular values, as shares of their sum."""
    n, d = vectors.shape
    triangle = np.zeros((0, d))
    centroid = _centroid(vectors)
    # R of a QR decomposition keeps the singular values of all rows so far.
    for start in range(0, n, BLOCK_ROWS):
        rows = vectors[start : start + BLOCK_ROWS].astype(np.float64) - centroid
        triangle = np.asarray(np.linalg.qr(np.concatenate([triangle, rows]), mode="r"))
    values = np.linalg.svd(triangle, compute_uv=False)
    values = values[values > 1e-12 * np.sqrt(n)]  # of at most sqrt(n): below is rounding
    if not len(values):
        return 0.0
    shares = values / values.sum()
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _mean_cosine(vectors: Floats) -> float:
    """Returns the mean cosine of all pairs, from |sum of rows|^2, the sum of all cosines."""
    n = len(vectors)
    total = vectors.sum(axis=0, dtype=np.float64)
    return float((total @ total - _squared_lengths(vectors).sum()) / (n * (n - 1)))


def _uniformity(vectors: Floats, seed: int) -> float:
    n = len(vectors)
    if n * (n - 1) // 2 <= N_PAIRS:
        left, right = np.triu_indices(n, 1)
    else:
        generator = np.random.default_rng(seed)
        left = generator.integers(n, size=N_PAIRS)
        right = (left + generator.integers(1, n, size=N_PAIRS)) % n  # any row but itself
    total = 0.0
    for start in range(0, len(left), BLOCK_ROWS):
        pairs = slice(start, start + BLOCK_ROWS)
        difference = vectors[left[pairs]].astype(np.float64) - vectors[right[pairs]]
        total += float(np.exp(-KERNEL_SCALE * (difference**2).sum(axis=1)).sum())
    return float(np.log(total / len(left)))


def _squared_lengths(vectors: Floats) -> NDArray[np.float64]:
    return np.asarray(np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64))


def _centroid(vectors: Floats) -> NDArray[np.float64]:
    return np.asarray(vectors.mean(axis=0, dtype=np.float64))


def _finite_rows(name: str, vectors: Floats) -> Bools:
    """Returns (n,), True for finite rows; DataError if one of those is not unit length."""
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise ShapeError(f"{name} must be (n, d), d at least 1; found {vectors.shape}")
    finite: Bools = np.asarray(np.isfinite(vectors).all(axis=1))
    with np.errstate(all="ignore"):  # rows that are not finite, or too long to square
        lengths = np.sqrt(_squared_lengths(vectors))
    wrong = finite & (np.abs(lengths - 1.0) > UNIT_TOLERANCE)
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{name}: row {row} has length {lengths[row]:.4g}; divide each row by its length"
        )
    return finite


def _at_least(n_wanted: int, name: str, rows: Floats) -> Floats:
    if len(rows) < n_wanted:
        raise DataError(f"{name}: {len(rows)} finite rows; wanted at least {n_wanted}")
    return rows
