"""Recommenders that read only who liked what: the baselines every taste figure has to stand beside.

Dimensions: U listeners, I warm tracks, b listeners asked about at once, f factors.

The simple rows every figure stands beside: random, popularity, raw mel statistics, a pretrained
tagger.

Recommenders that also rank tracks without listeners, from the content of the tracks.

Dimensions: U listeners, I known tracks, m candidates, b listeners asked about, f factors, d content
vector size.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from itertools import product
from typing import Any, TypeAlias, TypeVar

import numpy as np
import polars as pl
from scipy.sparse import csc_matrix, csr_matrix, issparse

from ponticello.errors import ConfigError, DataError, ShapeError
from ponticello.features.store import FeatureStore
from ponticello.listening.log import is_positive
from ponticello.metrics.beyond_accuracy import EMPTY, top_k
from ponticello.storage.schema import TRACK_ID, USER_ID


def random_vectors(n: int, d: int, seed: int) -> np.ndarray:
    """(n, d) float32 unit vectors that know nothing."""
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def mel_statistics(
    store: FeatureStore, track_ids: list[str], reference_ids: list[str]
) -> np.ndarray:
    """(n, 2F) float32 unit vectors: mean and standard deviation of every mel band over time, in dB.

    Each of the 2F numbers is standardised over `reference_ids` (the training tracks).
    """

    def describe(mel: np.ndarray) -> np.ndarray:
        return np.concatenate([mel.mean(axis=0), mel.std(axis=0)])

    return _standardised(store, track_ids, reference_ids, describe)


def frame_means(
    store: FeatureStore, track_ids: list[str], reference_ids: list[str], n_numbers: int
) -> np.ndarray:
    """(n, n_numbers) float32 unit vectors: the mean over a track's frames of the first numbers of
    each.

    Each number is standardised over `reference_ids`.
    """
    return _standardised(
        store, track_ids, reference_ids, lambda frames: frames[:, :n_numbers].mean(axis=0)
    )


def _standardised(
    store: FeatureStore,
    track_ids: list[str],
    reference_ids: list[str],
    describe: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """(n, ...) unit vectors: what `describe` makes of each track's frames (T, F), less the
    reference tracks' mean, in their deviations.
    """

    def described(ids: list[str]) -> np.ndarray:
        return np.stack(
            [describe(np.asarray(store.read(track_id), dtype=np.float32)) for track_id in ids]
        )

    reference, asked = described(reference_ids), described(track_ids)
    return unit((asked - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-6))


def popularity(events: pl.DataFrame, candidates: list[str]) -> np.ndarray:
    """(n,) how often each candidate was played in `events`; 0 for a cold track, about which
    popularity says nothing.
    """
    counts = dict(events.group_by(TRACK_ID).len().iter_rows())
    return np.array([counts.get(track_id, 0) for track_id in candidates], dtype=np.float64)


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, d) float32: each row at unit length; a row of zeros stays zeros."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scaled: np.ndarray = (vectors / lengths).astype(np.float32)
    return scaled


Interactions: TypeAlias = (
    csr_matrix  # (U, I) float64: how often, or how strongly, each listener liked each track
)
Scorer: TypeAlias = Callable[
    [np.ndarray], np.ndarray
]  # (b,) int rows of the Interactions -> (b, I) float64 scores
S = TypeVar("S", bound=Scorer)

ALS_ITERATIONS = 15  # implicit's own defaults; the grids below vary what matters more
BLOCK_TRACKS = 1024  # columns of the I x I overlaps held at once

CANNOT = {
    "item_knn": "a track nobody has played; a listener without events",
    "ease": "a track nobody has played; a listener without events; too many tracks for a matrix of all pairs",
    "als": "a track nobody has played, except by a regression of its content; a listener without events",
}


def _grid(**values: tuple[float, ...]) -> list[dict[str, Any]]:
    return [dict(zip(values, point, strict=True)) for point in product(*values.values())]


# What `choose` tries on validation, by the parameter names of the fit_ functions. Small on purpose:
# steps of about four
# to ten around common settings. l2 and shrinkage are in squared matrix values, so where an end
# wins, look further out.
GRIDS: dict[str, list[dict[str, Any]]] = {
    "item_knn": _grid(n_neighbours=(20, 100, 500), shrinkage=(0.0, 10.0, 100.0)),
    "ease": _grid(l2=(10.0, 50.0, 250.0, 1000.0, 4000.0)),
    "als": _grid(factors=(8, 32, 128), l2=(0.1, 1.0, 10.0), alpha=(1.0, 10.0)),
}


@dataclass(frozen=True)
class ItemWeights:
    """Scores as a weighted sum over what a listener liked; a Scorer.

    weights: (I, I), sparse or dense; weights[j, i] is what liking track j says for track i. With
    (I, m) weights the scores, (b, m), are those of m other tracks.
    """

    interactions: Interactions
    weights: Any

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(b, I) float64; zeros for a listener without events. Cost, with dense weights: I a liked
        track.
        """
        scores = self.interactions[rows] @ self.weights
        return np.asarray(scores.toarray() if issparse(scores) else scores, dtype=np.float64)


@dataclass(frozen=True)
class Factors:
    """Scores as dot products; a Scorer. users: (U, f), items: (I, f), float64.

    A listener without events and a track nobody liked are rows of zeros: their scores are 0 and say
    nothing.
    """

    users: np.ndarray
    items: np.ndarray

    def scores(self, rows: np.ndarray) -> np.ndarray:
        """(b, I) float64, the same as calling the object. Cost: b x I x f."""
        scores: np.ndarray = self.users[rows] @ self.items.T
        return scores

    __call__ = scores


def as_matrix(
    events: pl.DataFrame, users: list[str], track_ids: list[str], min_played_s: float
) -> Interactions:
    """How many positive events (see `is_positive`) each listener has with each track; row u is
    users[u].

    events: columns of `INTERACTIONS`, already cut to the training window; other listeners and
    tracks are left out. DataError if a name stands twice in `users` or `track_ids`.
    """
    for kind, names in ((USER_ID, users), (TRACK_ID, track_ids)):
        if len(set(names)) < len(names):
            repeated = next(name for place, name in enumerate(names) if name in names[:place])
            raise DataError(
                f"{kind} {repeated!r} is listed twice; each needs one place in the matrix"
            )
    rows = pl.DataFrame({USER_ID: users}, schema={USER_ID: pl.String}).with_row_index("row")
    columns = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String}).with_row_index(
        "column"
    )
    liked = (
        events.filter(is_positive(min_played_s)).join(rows, on=USER_ID).join(columns, on=TRACK_ID)
    )
    counts = liked.group_by("row", "column").len().sort("row", "column")
    places = (counts["row"].to_numpy(), counts["column"].to_numpy())
    return csr_matrix(
        (counts["len"].to_numpy().astype(np.float64), places), shape=(len(users), len(track_ids))
    )


def fit_item_knn(matrix: Interactions, n_neighbours: int, shrinkage: float) -> ItemWeights:
    """Item-based nearest neighbours: liking j speaks for i by x_j x_i / (|x_j| |x_i| + shrinkage),
    x the columns.

    Each i keeps its n_neighbours >= 1 best j, never itself; of equal ones, the earlier columns.
    shrinkage >= 0, in squared matrix values, holds back tracks that few have liked. ConfigError
    outside; DataError as `fit_ease`.

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
    weights = csc_matrix(
        (np.concatenate(values), np.concatenate(neighbours), ends), shape=(n_tracks, n_tracks)
    )
    return ItemWeights(matrix, weights.tocsr())


def fit_ease(matrix: Interactions, l2: float) -> ItemWeights:
    """The item weights with zero diagonal that rebuild the matrix best in least squares, in closed
    form.

    With P = (X'X + l2 I)^-1 they are -P_ij / P_jj off the diagonal. l2 > 0 (ConfigError). Cost: one
    inverse, I^3 time and three times 8 I^2 bytes: 10,000 tracks take 2.4 GB. DataError if the
    matrix is empty or holds a value that is not finite and positive.

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
    """Fits weighted matrix factorisation: a track is wanted (1) or not (0), with confidence 1 +
    alpha x matrix value.

    factors >= 1, l2 > 0, alpha > 0; ConfigError outside, where training diverges, or where the
    package implicit is
        missing. DataError as `fit_ease`.
    Randomness: implicit's starting factors, from `seed`; one thread, float32 inside.

    Source: Hu, Koren and Volinsky 2008, solved with conjugate gradients (Takács et al. 2011) by
    `implicit`.
    """
    _require("factors", factors, factors >= 1, "at least 1")
    _require("l2", l2, l2 > 0, "above 0")
    _require("alpha", alpha, alpha > 0, "above 0")
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
    candidates: Mapping[str, Callable[[], S]], measure: Callable[[S], float]
) -> tuple[str, S]:
    """The label and the fitted model with the highest measure, say validation NDCG@10; of equal
    ones, the first.

    Fits them in order and keeps only the best in memory. A measure of nan never wins; ConfigError
    without candidates, DataError if all are nan.

        choose({str(p): partial(fit_ease, matrix, **p) for p in GRIDS["ease"]}, validation_ndcg)
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
        raise DataError(
            f"the measure is nan for all of {', '.join(candidates)}: nobody has anything to find"
        )
    return best


def _checked(matrix: Interactions) -> Interactions:
    """A copy in our one format."""
    if matrix.nnz == 0:
        raise DataError(
            f"a matrix of {matrix.shape[0]} listeners and {matrix.shape[1]} tracks holds no liked track"
        )
    if not (np.isfinite(matrix.data) & (matrix.data > 0)).all():
        raise DataError("matrix values must be finite and above 0; leave out what was not liked")
    return csr_matrix(matrix, dtype=np.float64, copy=True)


def _require(name: str, found: float, is_right: bool, wanted: str) -> None:
    if not is_right:
        raise ConfigError(f"{name} must be {wanted}; found {found}")


BLOCK_COSINES = 2**25  # cosines held at once by fit_content_knn: 128 MB of float32

CANNOT_FROM_CONTENT = {
    "content_knn": "a track whose content is unknown; a listener without events",
    "vectors_to_factors": "a track whose content is unknown; a listener without events; what no linear map can say",
    "vectors_text_to_factors": "a track whose content is unknown; a listener without events; what no linear map "
    "can say, and of a track without text more than the vectors tell",
}

GRID_CONTENT_KNN: list[dict[str, Any]] = _grid(
    n_neighbours=(20, 100, 500)
)  # as collaborative.GRIDS


def fit_content_knn(
    matrix: Interactions, known: np.ndarray, candidates: np.ndarray | None, n_neighbours: int
) -> ItemWeights:
    """Scores (b, m): a candidate gets max(cosine, 0) x matrix value of each liked track among its
    closest known tracks.

    matrix: (U, I); known: (I, d) content of its columns; candidates: (m, d), or None for the known
    tracks themselves,
        none of which is then its own neighbour. Only directions count; a row of zeros is near
        nothing.
    Each candidate keeps its n_neighbours >= 1 (ConfigError) closest; of equal ones, the earlier
    columns. The whole history speaks, not only its latest tracks. ShapeError if the arrays do not
    fit together; DataError as `fit_ease`, or for content that is not finite. Products are float32,
    the weights an (I, m) sparse float64 matrix.

    Cost: m x I x d, and up to 40 bytes a weight in passing. With 500 neighbours among 100,000
    tracks, d = 128: two minutes on one core and 2 GB.
    """
    _require("n_neighbours", n_neighbours, n_neighbours >= 1, "at least 1")
    offered = known if candidates is None else candidates
    found = matrix.shape, known.shape, offered.shape
    if (
        not len(found[1]) == len(found[2]) == 2
        or found[0][1] != found[1][0]
        or found[1][1] != found[2][1]
    ):
        raise ShapeError(
            "must be a (U, I) matrix, (I, d) and (m, d) content; found {}, {}, {}".format(*found)
        )
    if not (np.isfinite(known).all() and np.isfinite(offered).all()):
        raise DataError("content holds NaN or infinity; embed it again")
    matrix, tracks, offered = _checked(matrix), unit(known), unit(offered)
    n_kept = min(n_neighbours, len(tracks))
    closest = np.zeros((len(offered), n_kept), dtype=np.int32)
    cosines = np.zeros((len(offered), n_kept), dtype=np.float32)  # 0 = no neighbour
    step = max(1, BLOCK_COSINES // len(tracks))
    for start in range(0, len(offered), step):
        block = offered[start : start + step] @ tracks.T  # (block, I)
        if candidates is None:
            block[np.arange(len(block)), np.arange(start, start + len(block))] = -np.inf
        block[block <= 0] = -np.inf
        best = top_k(block, n_kept)
        rows = slice(start, start + len(block))
        closest[rows] = np.where(best == EMPTY, 0, best)
        cosines[rows] = np.where(best == EMPTY, 0, np.take_along_axis(block, best, axis=1))
    ends = n_kept * np.arange(len(offered) + 1)
    weights = csc_matrix(
        (cosines.ravel(), closest.ravel(), ends), shape=(len(tracks), len(offered))
    )
    weights.eliminate_zeros()
    return ItemWeights(matrix, weights.tocsr().astype(np.float64))


def beside_text(content: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """(n, d + D) float32: what a regression reads that is to know as much as a fused vector. (n,
    d), (n, D): its parts.

    Unit rows count alike; a row of zeros in `texts` is a track without text.
    """
    joined: np.ndarray = np.concatenate([unit(content), unit(texts)], axis=1) / np.sqrt(2.0)
    return joined.astype(np.float32)


def content_to_factors(
    item_factors: np.ndarray, content: np.ndarray, new_content: np.ndarray, l2: float
) -> np.ndarray:
    """(m, f) factors of tracks nobody has played, from their sound: `factors.users[rows] @ these.T`
    are cold scores.

    item_factors: (I, f) of `fit_als`; content: (I, d) and new_content: (m, d), unit length.
    ShapeError if they do not fit together. Ridge regression, l2 > 0 (ConfigError), with an
    intercept that is not penalised. Rows of zero factors teach nothing and are left out; DataError
    if no other is left.

    Source: Gantner et al. 2010, the linear map, fitted in least squares instead of to the ranking.
    """
    _require("l2", l2, l2 > 0, "above 0")
    factors, old, new = item_factors.shape, content.shape, new_content.shape
    if not len(factors) == len(old) == len(new) == 2 or factors[0] != old[0] or old[1] != new[1]:
        raise ShapeError(
            f"must be (I, f) item factors, (I, d) and (m, d) content; found {factors}, {old}, {new}"
        )
    known = np.flatnonzero((item_factors != 0).any(axis=1))
    if not len(known):
        raise DataError(
            f"none of the {factors[0]} tracks has factors to learn from; fit_als needs tracks with listeners"
        )
    vectors, wanted = content[known].astype(np.float64), item_factors[known].astype(np.float64)
    middle, intercept = vectors.mean(axis=0), wanted.mean(axis=0)
    vectors = vectors - middle
    ridge = vectors.T @ vectors + l2 * np.eye(vectors.shape[1])  # (d, d)
    slope = np.linalg.solve(ridge, vectors.T @ (wanted - intercept))  # (d, f)
    mapped: np.ndarray = (new_content - middle) @ slope + intercept
    return mapped
