"""Recommenders that also rank tracks without listeners, from the content of the tracks.

Dimensions: U listeners, I known tracks, m candidates, b listeners asked about, f factors, d content vector size.
"""

from typing import Any

import numpy as np
from scipy.sparse import csc_matrix

from ponticello.errors import DataError, ShapeError
from ponticello.evaluate.baselines import unit
from ponticello.evaluate.collaborative import Interactions, ItemWeights, _checked, _grid, _require
from ponticello.evaluate.lists import EMPTY, top_k

BLOCK_COSINES = 2**25  # cosines held at once by fit_content_knn: 128 MB of float32

CANNOT_FROM_CONTENT = {
    "content-kNN": "a track whose content is unknown; a listener without events",
    "vectors to factors": "a track whose content is unknown; a listener without events; what no linear map can say",
    "vectors and text to factors": "a track whose content is unknown; a listener without events; what no linear map "
    "can say, and of a track without text more than the vectors tell",
}

GRID_CONTENT_KNN: list[dict[str, Any]] = _grid(n_neighbours=(20, 100, 500))  # as collaborative.GRIDS


def fit_content_knn(
    matrix: Interactions, known: np.ndarray, candidates: np.ndarray | None, n_neighbours: int
) -> ItemWeights:
    """Scores (b, m): a candidate gets max(cosine, 0) x matrix value of each liked track among its closest known tracks.

    matrix: (U, I); known: (I, d) content of its columns; candidates: (m, d), or None for the known tracks themselves,
        none of which is then its own neighbour. Only directions count; a row of zeros is near nothing.
    Each candidate keeps its n_neighbours >= 1 (ConfigError) closest; of equal ones, the earlier columns. The whole
    history speaks, not only its latest tracks. ShapeError if the arrays do not fit together; DataError as `fit_ease`,
    or for content that is not finite. Products are float32, the weights an (I, m) sparse float64 matrix.

    Cost: m x I x d, and up to 40 bytes a weight in passing. With 500 neighbours among 100,000 tracks, d = 128: two
    minutes on one core and 2 GB.
    """
    _require("n_neighbours", n_neighbours, n_neighbours >= 1, "at least 1")
    offered = known if candidates is None else candidates
    found = matrix.shape, known.shape, offered.shape
    if not len(found[1]) == len(found[2]) == 2 or found[0][1] != found[1][0] or found[1][1] != found[2][1]:
        raise ShapeError("must be a (U, I) matrix, (I, d) and (m, d) content; found {}, {}, {}".format(*found))
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
    weights = csc_matrix((cosines.ravel(), closest.ravel(), ends), shape=(len(tracks), len(offered)))
    weights.eliminate_zeros()
    return ItemWeights(matrix, weights.tocsr().astype(np.float64))


def beside_text(content: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """(n, d + D) float32: what a regression reads that is to know as much as a fused vector. (n, d), (n, D): its parts.

    Unit rows count alike; a row of zeros in `texts` is a track without text.
    """
    joined: np.ndarray = np.concatenate([unit(content), unit(texts)], axis=1) / np.sqrt(2.0)
    return joined.astype(np.float32)


def content_to_factors(item_factors: np.ndarray, content: np.ndarray, new_content: np.ndarray, l2: float) -> np.ndarray:
    """(m, f) factors of tracks nobody has played, from their sound: `factors.users[rows] @ these.T` are cold scores.

    item_factors: (I, f) of `fit_als`; content: (I, d) and new_content: (m, d), unit length. ShapeError if they do not
    fit together. Ridge regression, l2 > 0 (ConfigError), with an intercept that is not penalised. Rows of zero factors
    teach nothing and are left out; DataError if no other is left.

    Source: Gantner et al. 2010, the linear map, fitted in least squares instead of to the ranking.
    """
    _require("l2", l2, l2 > 0, "above 0")
    factors, old, new = item_factors.shape, content.shape, new_content.shape
    if not len(factors) == len(old) == len(new) == 2 or factors[0] != old[0] or old[1] != new[1]:
        raise ShapeError(f"must be (I, f) item factors, (I, d) and (m, d) content; found {factors}, {old}, {new}")
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
