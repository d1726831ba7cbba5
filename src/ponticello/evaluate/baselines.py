"""Recommenders to compare with: item-kNN, EASE, ALS and content-kNN.

`evaluate/content_baselines.py` has those that read factors off content.

Dimensions: U users, I known tracks, m candidates, b users of one block, f factors, d content size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import polars as pl
from scipy.sparse import csc_matrix, csr_matrix, issparse

from ponticello.errors import ConfigError, DataError
from ponticello.listening.log import is_positive
from ponticello.metrics.beyond_accuracy import EMPTY, top_k
from ponticello.storage.schema import TRACK_ID, USER_ID

# (U, I) float64: how often, or how strongly, each user liked each track
Interactions: TypeAlias = csr_matrix
# (b,) int rows of the Interactions -> (b, I) float64 scores
Scorer: TypeAlias = Callable[[np.ndarray], np.ndarray]

ALS_ITERATIONS = 15  # the default of `implicit`
BLOCK_TRACKS = 1024  # columns of the I x I overlaps held at once
BLOCK_COSINES = 2**25  # cosines held at once by fit_content_knn: 128 MB of float32

# What each baseline cannot answer.
CANNOT = {
    "item_knn": "a track nobody has played; a listener without events",
    "ease": "a track nobody has played; a listener without events; "
    "too many tracks for a matrix of all pairs",
    "als": "a track nobody has played, except by a regression of its content; "
    "a listener without events",
}
_NEEDS_CONTENT = "a track whose content is unknown; a listener without events"
CANNOT_FROM_CONTENT = {
    "content_knn": _NEEDS_CONTENT,
    "profile": _NEEDS_CONTENT,
    "content_to_als": f"{_NEEDS_CONTENT}; what no linear map can say",
    "mlp_to_als": _NEEDS_CONTENT,
    "feature_ials": f"{_NEEDS_CONTENT}; what no linear map can say",
    "profile_and_als": f"{_NEEDS_CONTENT}; what no linear map can say",
}


def make_grid(**values: tuple[float, ...]) -> list[dict[str, Any]]:
    """Returns every combination of the values, as keyword arguments."""
    return [dict(zip(values, point, strict=True)) for point in product(*values.values())]


# Settings that `choose` tries on validation, as arguments of the fit functions: steps of four to
# ten around common values. l2 and shrinkage are in squared matrix values; if an end of the grid
# is chosen, look further out.
GRIDS: dict[str, list[dict[str, Any]]] = {
    "item_knn": make_grid(n_neighbours=(20, 100, 500), shrinkage=(0.0, 10.0, 100.0)),
    "ease": make_grid(l2=(10.0, 50.0, 250.0, 1000.0, 4000.0)),
    "als": make_grid(factors=(8, 32, 128), l2=(0.1, 1.0, 10.0), alpha=(1.0, 10.0)),
}
GRID_CONTENT_KNN = make_grid(n_neighbours=(20, 100, 500))


def popularity(events: pl.DataFrame, candidates: list[str]) -> np.ndarray:
    """Returns (n,), how often each candidate was played in `events`; 0 for a cold track."""
    counts = dict(events.group_by(TRACK_ID).len().iter_rows())
    return np.array([counts.get(track_id, 0) for track_id in candidates], dtype=np.float64)


def unit(vectors: np.ndarray) -> np.ndarray:
    """Returns (n, d) float32 with rows of unit length; a row of zeros stays zeros."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return np.asarray(vectors / lengths, dtype=np.float32)


@dataclass(frozen=True)
class ItemWeights:
    """Scores a track by a weighted sum over the tracks that a user liked; a Scorer.

    weights: (I, I), sparse or dense; weights[j, i] is what liking track j adds to track i's score.
    With (I, m) weights the scores, (b, m), are those of m other tracks.
    """

    interactions: Interactions
    weights: Any

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns (b, I) float64; zeros for a user without events."""
        scores = self.interactions[rows] @ self.weights
        return np.asarray(scores.toarray() if issparse(scores) else scores, dtype=np.float64)


@dataclass(frozen=True)
class Factors:
    """Scores by dot products; a Scorer. users: (U, f), items: (I, f), float64.

    A user without events and a track without likes are rows of zeros, so their scores are 0.
    """

    users: np.ndarray
    items: np.ndarray

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns (b, I) float64."""
        return np.asarray(self.users[rows] @ self.items.T)


def numbered_likes(
    events: pl.DataFrame, users: list[str], track_ids: list[str], min_played_s: float
) -> pl.DataFrame:
    """Returns the positive events (see `is_positive`) of these users with these tracks.

    events: columns of `INTERACTIONS`, of the training window only. Two columns are added: `row`,
    the position in `users`, and `column`, that in `track_ids`. DataError if one of the two holds a
    name twice.
    """
    likes = events.lazy().filter(is_positive(min_played_s))
    for key, position, names in ((USER_ID, "row", users), (TRACK_ID, "column", track_ids)):
        positions = pl.DataFrame({key: names}, {key: pl.String}).with_row_index(position)
        repeated = positions.filter(pl.col(key).is_duplicated())
        if repeated.height:
            raise DataError(
                f"{key} {repeated[key][0]!r} is listed twice; each needs one place in the matrix"
            )
        likes = likes.join(positions.lazy(), on=key)
    return likes.collect()


def as_matrix(
    events: pl.DataFrame, users: list[str], track_ids: list[str], min_played_s: float
) -> Interactions:
    """Returns the number of `numbered_likes` of each user and track; row u is users[u]."""
    likes = numbered_likes(events, users, track_ids, min_played_s)
    counts = likes.group_by("row", "column").len().sort("row", "column")
    positions = (counts["row"].to_numpy(), counts["column"].to_numpy())
    values = counts["len"].to_numpy().astype(np.float64)
    return csr_matrix((values, positions), shape=(len(users), len(track_ids)))


def fit_item_knn(matrix: Interactions, n_neighbours: int, shrinkage: float) -> ItemWeights:
    """Fits item-based nearest neighbours, weighted by x_j x_i / (|x_j| |x_i| + shrinkage).

    x are the columns of the matrix. Each track i keeps its n_neighbours >= 1 best other tracks j;
    of equal ones, the earlier columns. shrinkage >= 0, in squared matrix values, lowers the weight
    of tracks with few likes. DataError as `fit_ease`.

    Source: Sarwar et al. 2001; the shrunk cosine as in Ferrari Dacrema et al. 2019.
    """
    matrix = _checked(matrix)
    n_tracks = matrix.shape[1]
    by_track = matrix.tocsc()
    norms = np.sqrt(np.asarray(matrix.power(2).sum(axis=0)).ravel())  # (I,)
    neighbours = []
    values = []
    for start in range(0, n_tracks, BLOCK_TRACKS):
        overlaps = (matrix.T @ by_track[:, start : start + BLOCK_TRACKS]).tocsc()  # (I, block)
        for column in range(overlaps.shape[1]):
            track = start + column
            segment = slice(overlaps.indptr[column], overlaps.indptr[column + 1])
            other_tracks = overlaps.indices[segment]
            cosines = overlaps.data[segment] / (norms[other_tracks] * norms[track] + shrinkage)
            order = np.lexsort((other_tracks, -cosines))
            best = order[other_tracks[order] != track][:n_neighbours]
            neighbours.append(other_tracks[best])
            values.append(cosines[best])
    ends = np.cumsum([0] + [len(best_tracks) for best_tracks in neighbours])
    weights = csc_matrix(
        (np.concatenate(values), np.concatenate(neighbours), ends), shape=(n_tracks, n_tracks)
    )
    return ItemWeights(matrix, weights.tocsr())


def fit_ease(matrix: Interactions, l2: float) -> ItemWeights:
    """Fits the item weights with zero diagonal that best reconstruct the matrix, in closed form.

    With P = (X'X + l2 I)^-1 they are -P_ij / P_jj off the diagonal. l2 > 0. Cost: one inverse, I^3
    time and three times 8 I^2 bytes: 10,000 tracks take 2.4 GB. DataError if the matrix is empty or
    holds a value that is not finite and positive.

    Source: Steck 2019 (EASE^R), the closed form with P.
    """
    matrix = _checked(matrix)
    gram = (matrix.T @ matrix).toarray()  # (I, I)
    gram[np.diag_indices_from(gram)] += l2
    weights = np.linalg.inv(gram)
    weights /= -np.diag(weights)
    np.fill_diagonal(weights, 0.0)
    return ItemWeights(matrix, weights)


def fit_als(matrix: Interactions, factors: int, l2: float, alpha: float, seed: int) -> Factors:
    """Fits weighted matrix factorisation with confidence 1 + alpha x matrix value.

    ConfigError if training diverges or the package implicit is missing. DataError as `fit_ease`.
    Randomness: implicit's starting factors, from `seed`; one thread, float32 inside.

    Source: Hu, Koren and Volinsky 2008, solved with conjugate gradients (Takács et al. 2011) by
    `implicit`.
    """
    confidence = _checked(matrix)
    confidence.data = 1.0 + alpha * confidence.data  # implicit's own alpha would leave out the 1
    try:
        implicit = import_module("implicit")
    except ImportError as error:
        raise ConfigError(
            "ALS needs the package implicit, which is missing; run: pip install implicit"
        ) from error
    options = {
        "factors": factors,
        "regularization": l2,
        "iterations": ALS_ITERATIONS,
        "random_state": seed,
    }
    # implicit warns, and is slow, while BLAS has threads of its own
    with import_module("threadpoolctl").threadpool_limits(1, "blas"):
        model = implicit.als.AlternatingLeastSquares(**options, use_gpu=False, num_threads=1)
        try:
            model.fit(confidence.astype(np.float32), show_progress=False)
        except import_module("implicit.recommender_base").ModelFitError as error:
            raise ConfigError(
                f"ALS diverged with {options}; take a larger l2 or a smaller alpha"
            ) from error
    return Factors(model.user_factors.astype(np.float64), model.item_factors.astype(np.float64))


def choose(
    candidates: Mapping[str, Callable[[], Scorer]], measure: Callable[[Scorer], float]
) -> str:
    """Returns the label of the fitted model with the highest measure; of equal ones, the first.

    A measure of nan never wins; DataError if all are nan.

        choose({str(p): partial(fit_ease, matrix, **p) for p in GRIDS["ease"]}, validation_ndcg)
    """
    measures = [measure(fit()) for fit in candidates.values()]
    if np.isnan(measures).all():
        raise DataError(
            f"the measure is nan for all of {', '.join(candidates)}: nobody has anything to find"
        )
    return list(candidates)[int(np.nanargmax(measures))]


def _checked(matrix: Interactions) -> Interactions:
    """Returns a float64 copy; DataError unless it holds finite values above 0."""
    if matrix.nnz == 0:
        raise DataError(
            f"a matrix of {matrix.shape[0]} listeners and {matrix.shape[1]} tracks "
            "holds no liked track"
        )
    if not (np.isfinite(matrix.data) & (matrix.data > 0)).all():
        raise DataError("matrix values must be finite and above 0; leave out what was not liked")
    return csr_matrix(matrix, dtype=np.float64, copy=True)


def fit_content_knn(
    matrix: Interactions, known: np.ndarray, candidates: np.ndarray | None, n_neighbours: int
) -> ItemWeights:
    """Fits nearest neighbours by content: liked tracks add max(cosine, 0) x matrix value.

    matrix: (U, I); known: (I, d) content of its columns; candidates: (m, d), or None for the known
    tracks, none of which is then its own neighbour. Content is scaled to unit length; a row of
    zeros has no neighbours. Each candidate keeps its n_neighbours >= 1 closest known tracks; of
    equal ones, the earlier columns. DataError as `fit_ease`, or for content that is not finite.
    Products are float32, the weights an (I, m) sparse float64 matrix.

    Cost: m x I x d, and up to 40 bytes a weight in passing. With 500 neighbours among 100,000
    tracks, d = 128: two minutes on one core and 2 GB.
    """
    content = known if candidates is None else candidates
    if not (np.isfinite(known).all() and np.isfinite(content).all()):
        raise DataError("content holds NaN or infinity; embed it again")
    matrix = _checked(matrix)
    tracks = unit(known)
    unit_content = unit(content)
    n_kept = min(n_neighbours, len(tracks))
    closest = np.zeros((len(content), n_kept), dtype=np.int32)
    cosines = np.zeros((len(content), n_kept), dtype=np.float32)  # 0 = no neighbour
    step = max(1, BLOCK_COSINES // len(tracks))
    for start in range(0, len(content), step):
        block = unit_content[start : start + step] @ tracks.T  # (block, I)
        if candidates is None:
            block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        block[block <= 0] = -np.inf
        best = top_k(block, n_kept)
        rows = slice(start, start + len(block))
        closest[rows] = np.where(best == EMPTY, 0, best)
        cosines[rows] = np.where(best == EMPTY, 0, np.take_along_axis(block, best, axis=1))
    ends = n_kept * np.arange(len(content) + 1)
    weights = csc_matrix(
        (cosines.ravel(), closest.ravel(), ends), shape=(len(tracks), len(content))
    )
    weights.eliminate_zeros()
    return ItemWeights(matrix, weights.tocsr().astype(np.float64))
