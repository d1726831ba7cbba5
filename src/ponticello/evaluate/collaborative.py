"""Recommenders that read only who liked what: the baselines every taste figure has to stand beside.

Dimensions: U listeners, I warm tracks, b listeners asked about at once, f factors.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, TypeAlias, TypeVar

import numpy as np
import polars as pl
from scipy.sparse import csc_matrix, csr_matrix, issparse

from ponticello.data.columns import TRACK_ID, USER_ID
from ponticello.data.interactions import is_positive
from ponticello.errors import ConfigError, DataError

Interactions: TypeAlias = csr_matrix  # (U, I) float64: how often, or how strongly, each listener liked each track
Scorer: TypeAlias = Callable[[np.ndarray], np.ndarray]  # (b,) int rows of the Interactions -> (b, I) float64 scores
S = TypeVar("S", bound=Scorer)

ALS_ITERATIONS = 15  # implicit's own defaults; the grids below vary what matters more
BLOCK_TRACKS = 1024  # columns of the I x I overlaps held at once

CANNOT = {
    "item-kNN": "a track nobody has played; a listener without events",
    "EASE": "a track nobody has played; a listener without events; too many tracks for a matrix of all pairs",
    "ALS": "a track nobody has played, except by a regression of its content; a listener without events",
}


def _grid(**values: tuple[float, ...]) -> list[dict[str, Any]]:
    return [dict(zip(values, point, strict=True)) for point in product(*values.values())]


# What `choose` tries on validation, by the parameter names of the fit_ functions. Small on purpose: steps of about four
# to ten around common settings. l2 and shrinkage are in squared matrix values, so where an end wins, look further out.
GRIDS: dict[str, list[dict[str, Any]]] = {
    "item-kNN": _grid(n_neighbours=(20, 100, 500), shrinkage=(0.0, 10.0, 100.0)),
    "EASE": _grid(l2=(10.0, 50.0, 250.0, 1000.0, 4000.0)),
    "ALS": _grid(factors=(8, 32, 128), l2=(0.1, 1.0, 10.0), alpha=(1.0, 10.0)),
}


@dataclass(frozen=True)
class ItemWeights:
    """Scores as a weighted sum over what a listener liked; a Scorer.

    weights: (I, I), sparse or dense; weights[j, i] is what liking track j says for track i. With (I, m) weights the
    scores, (b, m), are those of m other tracks.
    """

    interactions: Interactions
    weights: Any

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(b, I) float64; zeros for a listener without events. Cost, with dense weights: I a liked track."""
        scores = self.interactions[rows] @ self.weights
        return np.asarray(scores.toarray() if issparse(scores) else scores, dtype=np.float64)


@dataclass(frozen=True)
class Factors:
    """Scores as dot products; a Scorer. users: (U, f), items: (I, f), float64.

    A listener without events and a track nobody liked are rows of zeros: their scores are 0 and say nothing.
    """

    users: np.ndarray
    items: np.ndarray

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(b, I) float64, the same as calling the object. Cost: b x I x f."""
        scores: np.ndarray = self.users[rows] @ self.items.T
        return scores

    __call__ = scores


def as_matrix(events: pl.DataFrame, users: list[str], track_ids: list[str], min_played_s: float) -> Interactions:
    """How many positive events (see `is_positive`) each listener has with each track; row u is users[u].

    events: columns of `INTERACTIONS`, already cut to the training window; other listeners and tracks are left out.
    DataError if a name stands twice in `users` or `track_ids`.
    """
    for kind, names in ((USER_ID, users), (TRACK_ID, track_ids)):
        if len(set(names)) < len(names):
            repeated = next(name for place, name in enumerate(names) if name in names[:place])
            raise DataError(f"{kind} {repeated!r} is listed twice; each needs one place in the matrix")
    rows = pl.DataFrame({USER_ID: users}, schema={USER_ID: pl.String}).with_row_index("row")
    columns = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String}).with_row_index("column")
    liked = events.filter(is_positive(min_played_s)).join(rows, on=USER_ID).join(columns, on=TRACK_ID)
    counts = liked.group_by("row", "column").len().sort("row", "column")
    places = (counts["row"].to_numpy(), counts["column"].to_numpy())
    return csr_matrix((counts["len"].to_numpy().astype(np.float64), places), shape=(len(users), len(track_ids)))


def fit_item_knn(matrix: Interactions, n_neighbours: int, shrinkage: float) -> ItemWeights:
    """Item-based nearest neighbours: liking j speaks for i by x_j x_i / (|x_j| |x_i| + shrinkage), x the columns.

    Each i keeps its n_neighbours >= 1 best j, never itself; of equal ones, the earlier columns. shrinkage >= 0, in
    squared matrix values, holds back tracks that few have liked. ConfigError outside; DataError as `fit_ease`.

    Source: Sarwar et al. 2001; the shrunk cosine as in Ferrari Dacrema et al. 2019.
    """
    _require("n_neighbours", n_neighbours, n_neighbours >= 1, "at least 1")
    _require("shrinkage", shrinkage, shrinkage >= 0, "at least 0")
    matrix = _checked(matrix)
    n_tracks, by_track = matrix.shape[1], matrix.tocsc()
    norms = np.sqrt(np.asarray(matrix.power(2).sum(axis=0)).ravel())  # (I,)
    neighbours, values = [], []
    for start in range(0, n_tracks, BLOCK_TRACKS):
        overlaps = (matrix.T @ by_track[:, start : start + BLOCK_TRACKS]).tocsc()  # (I, block)
        for column in range(overlaps.shape[1]):
            part = slice(overlaps.indptr[column], overlaps.indptr[column + 1])
            others, track = overlaps.indices[part], start + column
            cosines = overlaps.data[part] / (norms[others] * norms[track] + shrinkage)
            best = np.lexsort((others, -cosines))
            best = best[others[best] != track][:n_neighbours]
            neighbours.append(others[best])
            values.append(cosines[best])
    ends = np.cumsum([0, *(len(kept) for kept in neighbours)])
    weights = csc_matrix((np.concatenate(values), np.concatenate(neighbours), ends), shape=(n_tracks, n_tracks))
    return ItemWeights(matrix, weights.tocsr())


def fit_ease(matrix: Interactions, l2: float) -> ItemWeights:
    """The item weights with zero diagonal that rebuild the matrix best in least squares, in closed form.

    With P = (X'X + l2 I)^-1 they are -P_ij / P_jj off the diagonal. l2 > 0 (ConfigError). Cost: one inverse, I^3 time
    and three times 8 I^2 bytes: 10,000 tracks take 2.4 GB.
    DataError if the matrix is empty or holds a value that is not finite and positive.

    Source: Steck 2019 (EASE^R), the closed form with P.
    """
    _require("l2", l2, l2 > 0, "above 0")
    matrix = _checked(matrix)
    gram = (matrix.T @ matrix).toarray()  # (I, I)
    gram[np.diag_indices_from(gram)] += l2
    weights = np.linalg.inv(gram)
    weights /= -np.diag(weights)
    np.fill_diagonal(weights, 0.0)
    return ItemWeights(matrix, weights)


def fit_als(matrix: Interactions, factors: int, l2: float, alpha: float, seed: int) -> Factors:
    """Fits weighted matrix factorisation: a track is wanted (1) or not (0), with confidence 1 + alpha x matrix value.

    factors >= 1, l2 > 0, alpha > 0; ConfigError outside, where training diverges, or where the package implicit is
        missing. DataError as `fit_ease`.
    Randomness: implicit's starting factors, from `seed`; one thread, float32 inside.

    Source: Hu, Koren and Volinsky 2008, solved with conjugate gradients (Takács et al. 2011) by `implicit`.
    """
    _require("factors", factors, factors >= 1, "at least 1")
    _require("l2", l2, l2 > 0, "above 0")
    _require("alpha", alpha, alpha > 0, "above 0")
    confidence = _checked(matrix)
    confidence.data = 1.0 + alpha * confidence.data  # implicit's own alpha would leave out the 1
    try:
        implicit = import_module("implicit")
    except ImportError as error:
        raise ConfigError("ALS needs the package implicit, which is missing; run: pip install implicit") from error
    options = {"factors": factors, "regularization": l2, "iterations": ALS_ITERATIONS, "random_state": seed}
    # implicit warns, and is slow, while BLAS has threads of its own
    with import_module("threadpoolctl").threadpool_limits(1, "blas"):
        model = implicit.als.AlternatingLeastSquares(**options, use_gpu=False, num_threads=1)
        try:
            model.fit(confidence.astype(np.float32), show_progress=False)
        except import_module("implicit.recommender_base").ModelFitError as error:
            raise ConfigError(f"ALS diverged with {options}; take a larger l2 or a smaller alpha") from error
    return Factors(model.user_factors.astype(np.float64), model.item_factors.astype(np.float64))


def choose(candidates: Mapping[str, Callable[[], S]], measure: Callable[[S], float]) -> tuple[str, S]:
    """The label and the fitted model with the highest measure, say validation NDCG@10; of equal ones, the first.

    Fits them in order and keeps only the best in memory. A measure of nan never wins; ConfigError without candidates,
    DataError if all are nan.

        choose({str(p): partial(fit_ease, matrix, **p) for p in GRIDS["EASE"]}, validation_ndcg)
    """
    if not candidates:
        raise ConfigError("no candidates to choose from; give at least one setting")
    best: tuple[str, S] | None = None
    highest = -np.inf
    for label, fit in candidates.items():
        model = fit()
        value = measure(model)
        if value > highest or (best is None and value == highest):
            best, highest = (label, model), value
    if best is None:
        raise DataError(f"the measure is nan for all of {', '.join(candidates)}: nobody has anything to find")
    return best


def _checked(matrix: Interactions) -> Interactions:
    """A copy in our one format."""
    if matrix.nnz == 0:
        raise DataError(f"a matrix of {matrix.shape[0]} listeners and {matrix.shape[1]} tracks holds no liked track")
    if not (np.isfinite(matrix.data) & (matrix.data > 0)).all():
        raise DataError("matrix values must be finite and above 0; leave out what was not liked")
    return csr_matrix(matrix, dtype=np.float64, copy=True)


def _require(name: str, found: float, is_right: bool, wanted: str) -> None:
    if not is_right:
        raise ConfigError(f"{name} must be {wanted}; found {found}")
