"""Metrics of embedding spaces: collapse, hubness, the gap between modalities, moved neighbours.

Vectors are unit length, (n, d) float. Rows with NaN or infinity are counted in `SpaceHealth.n_nan`
and otherwise ignored; any other row that is not unit length is a DataError.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import ConfigError, DataError, ShapeError
from ponticello.metrics.beyond_accuracy import hubness, top_k_blocked
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

    left, right: (n, d) unit rows, row i of both about the same track; ShapeError if they differ.
    Pairs with NaN on either side are left out; DataError if none is left.
    Source: Wang and Isola 2020, alpha = 2.

    >>> alignment(np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]]))
    2.0
    """
    if left.shape != right.shape:
        raise ShapeError(
            f"left {left.shape} and right {right.shape} must have the same shape: "
            "they are matched by row"
        )
    finite = _finite_rows("left", left) & _finite_rows("right", right)
    matched = _at_least(1, "left and right", left[finite]).astype(np.float64)
    return float(((matched - right[finite]) ** 2).sum(axis=1).mean())


def modality_gap(audio: Floats, text: Floats) -> float:
    """Returns the distance of the centroids of the audio and the text vectors, in [0, 2].

    audio: (n, d), text: (m, d), unit rows of one space, or ShapeError; at least one finite row
    each, or DataError.
    Source: Liang et al. 2022, "Mind the gap".

    >>> modality_gap(np.array([[1.0, 0.0]]), np.array([[-1.0, 0.0]]))
    2.0
    """
    finite_audio = audio[_finite_rows("audio", audio)]
    finite_text = text[_finite_rows("text", text)]
    if audio.shape[1] != text.shape[1]:
        raise ShapeError(
            f"audio {audio.shape} and text {text.shape} must have vectors of the same size"
        )
    audio_centroid = _centroid(_at_least(1, "audio", finite_audio))
    text_centroid = _centroid(_at_least(1, "text", finite_text))
    return float(np.linalg.norm(audio_centroid - text_centroid))


def neighbour_overlap(before: Floats, after: Floats, k: int) -> NDArray[np.float64]:
    """Returns (n,), the share of each track's k nearest neighbours that stay so, in [0, 1].

    before: (n, d), after: (n, e), unit rows of the same n tracks in two spaces, or ShapeError. Rows
    with NaN in either are ignored, and nan in the result. k in [1, rows kept - 1], or ConfigError.
    Equal cosines in order of row.
    Chance is k / (n - 1). Cost: 2 x n x n x d, with at most 128 MB of float32 cosines held at once.

    >>> space = np.eye(4)[[0, 0, 1, 1]]
    >>> neighbour_overlap(space, space[[0, 2, 1, 3]], k=1).tolist()
    [0.0, 0.0, 0.0, 0.0]
    """
    finite = _finite_in_both(before, after)
    n = int(finite.sum())
    if not 1 <= k < n:
        raise ConfigError(
            f"k must be at least 1 and below the {n} tracks that have vectors; found {k}"
        )
    neighbours = [_nearest(before[finite], k), _nearest(after[finite], k)]
    merged = np.sort(np.concatenate(neighbours, axis=1), axis=1)
    n_shared = (merged[:, 1:] == merged[:, :-1]).sum(axis=1)  # an id of both lists is there twice
    overlap = np.full(len(before), np.nan)
    overlap[finite] = n_shared / k
    return overlap


def largest_shifts(before: Floats, after: Floats, k: int) -> NDArray[np.int64]:
    """Returns the rows without NaN in order of how much their neighbours changed, most first.

    before, after, k: as in `neighbour_overlap`; the least overlap is first. Of equal ones, the row
    whose cosines with all others correlate less between the two spaces, then the earlier row.

    >>> before = np.eye(3)[[0, 0, 0, 1, 1]]
    >>> after = np.eye(3)[[0, 0, 1, 1, 1]]
    >>> int(largest_shifts(before, after, k=1)[0])
    2
    """
    overlap = neighbour_overlap(before, after, k)
    rows = np.flatnonzero(~np.isnan(overlap))
    lost = np.round(1.0 - _cosine_correlation(before[rows], after[rows]), CORRELATION_DECIMALS)
    return rows[np.lexsort((-lost, overlap[rows]))]


def _nearest(vectors: Floats, k: int) -> Ints:
    """Returns (n, k), the other rows of the highest cosine with each row; equal ones by row."""
    vectors = vectors.astype(np.result_type(vectors.dtype, np.float32), copy=False)

    def cosines(rows: slice) -> Floats:
        block: Floats = vectors[rows] @ vectors.T  # (block, n)
        block[np.arange(len(block)), np.arange(rows.start, rows.stop)] = -np.inf
        return block

    return top_k_blocked(cosines, len(vectors), k, block=max(1, BLOCK_COSINES // len(vectors)))


def _effective_rank(vectors: Floats) -> float:
    """Returns exp of the entropy of the centred rows' singular values, as shares of their sum."""
    n, d = vectors.shape
    triangle = np.zeros((0, d))
    # R of a QR decomposition keeps the singular values of all rows so far.
    for rows in _blocks(vectors, _centroid(vectors)):
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


def _cosine_correlation(before: Floats, after: Floats) -> NDArray[np.float64]:
    """Returns (n,), the correlation of each row's cosines with all others in two spaces.

    Pearson's; 0 if the cosines are constant.

    With centred rows c, the sum over j of (b_i . c_j)(a_i . e_j) is b_i (sum of c_j e_j) a_i: d x d
    numbers do instead of n x n cosines. What a row adds to itself is then taken away.
    """
    n = len(before)

    def sums(left: Floats, right: Floats) -> NDArray[np.float64]:
        left_centroid = _centroid(left)
        right_centroid = _centroid(right)
        centred = zip(_blocks(left, left_centroid), _blocks(right, right_centroid), strict=True)
        shared = np.zeros((left.shape[1], right.shape[1]))
        for left_rows, right_rows in centred:
            shared += left_rows.T @ right_rows
        blocks = []
        for left_rows, right_rows in zip(_blocks(left), _blocks(right), strict=True):
            blocks.append(((left_rows @ shared) * right_rows).sum(axis=1))
        all_rows = np.concatenate(blocks)
        itself = _self_products(left, left_centroid) * _self_products(right, right_centroid)
        # The other n - 1 rows have a mean of -itself / (n - 1).
        without_itself: NDArray[np.float64] = all_rows - itself * n / (n - 1)
        return np.where(np.abs(without_itself) > 1e-12 * n, without_itself, 0.0)  # rounding

    scale = np.sqrt(np.maximum(sums(before, before), 0.0) * np.maximum(sums(after, after), 0.0))
    correlation = np.zeros(n)
    np.divide(sums(before, after), scale, out=correlation, where=scale > 0)
    return correlation


def _self_products(vectors: Floats, centroid: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns (n,), the dot product of each row with itself less the centroid."""
    with_centroid = np.einsum("nd,d->n", vectors, centroid)
    products: NDArray[np.float64] = _squared_lengths(vectors) - with_centroid
    return products


def _squared_lengths(vectors: Floats) -> NDArray[np.float64]:
    squared: NDArray[np.float64] = np.einsum("nd,nd->n", vectors, vectors, dtype=np.float64)
    return squared


def _centroid(vectors: Floats) -> NDArray[np.float64]:
    centroid: NDArray[np.float64] = vectors.mean(axis=0, dtype=np.float64)
    return centroid


def _blocks(
    vectors: Floats, centre: NDArray[np.float64] | float = 0.0
) -> Iterator[NDArray[np.float64]]:
    """Yields the rows as float64 less `centre`, BLOCK_ROWS at a time."""
    for start in range(0, len(vectors), BLOCK_ROWS):
        yield vectors[start : start + BLOCK_ROWS].astype(np.float64) - centre


def _finite_in_both(before: Floats, after: Floats) -> Bools:
    is_finite_before = _finite_rows("before", before)
    is_finite_after = _finite_rows("after", after)
    if len(before) != len(after):
        raise ShapeError(
            f"before {before.shape} and after {after.shape} must hold the same tracks, row by row"
        )
    return is_finite_before & is_finite_after


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
