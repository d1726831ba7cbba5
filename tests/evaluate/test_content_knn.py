"""Content-kNN, by hand and against a slow plain loop."""

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from ponticello.errors import DataError
from ponticello.evaluate import baselines as module
from ponticello.evaluate.baselines import (
    CANNOT_FROM_CONTENT,
    GRID_CONTENT_KNN,
    fit_content_knn,
)

MATRIX = csr_matrix(np.array([[2.0, 0, 3], [0, 1, 0], [0, 0, 0]]))


def directions(n: int, d: int, seed: int) -> np.ndarray:
    """(n, d) random unit vectors."""
    vectors = np.random.default_rng(seed).standard_normal((n, d))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def liked(n_listeners: int, n_tracks: int) -> Any:
    """(U, I) small counts, two thirds of them 0."""
    matrix = csr_matrix(
        np.random.default_rng(0).poisson(0.4, (n_listeners, n_tracks)).astype(np.float64)
    )
    matrix.eliminate_zeros()
    return matrix


def plain_knn(
    matrix: np.ndarray, known: np.ndarray, candidates: np.ndarray | None, n_neighbours: int
) -> np.ndarray:
    """(U, m) by one loop a listener, a candidate and a neighbour."""
    offered = known if candidates is None else candidates
    scores = np.zeros((len(matrix), len(offered)))
    for user, values in enumerate(matrix):
        for i, vector in enumerate(offered):
            others = [j for j in range(len(known)) if candidates is not None or j != i]
            cosines = {j: float(known[j] @ vector) for j in others}
            for j in sorted(others, key=lambda j: -cosines[j])[:n_neighbours]:
                scores[user, i] += max(cosines[j], 0.0) * values[j]
    return scores


def test_content_knn_by_hand() -> None:
    """Known x, y and their bisector; the new track (0.8, 0.6) has cosines 0.8, 0.6 and 1.4 / sqrt 2
    = 0.98995.

    Two neighbours are the bisector and x. Who has x twice and the bisector thrice gets 2 x 0.8 + 3
    x 0.98995 = 4.56985; who has y alone gets nothing, and so does who has nothing. A track in the
    opposite direction is near nobody.
    """
    known = np.array([[1.0, 0], [0, 1], [0.5**0.5, 0.5**0.5]])
    found = fit_content_knn(MATRIX, known, np.array([[0.8, 0.6], [-1, 0]]), n_neighbours=2)(
        np.arange(3)
    )
    assert np.allclose(found, [[4.56985, 0.0], [0.0, 0.0], [0.0, 0.0]], atol=1e-5)
    assert found.dtype == np.float64


@pytest.mark.parametrize("n_neighbours", [1, 4, 17, 100])
@pytest.mark.parametrize("is_new", [True, False])
def test_content_knn_is_the_slow_plain_sum(n_neighbours: int, is_new: bool) -> None:
    matrix, known = liked(6, 17), directions(17, 3, seed=1)
    candidates = directions(9, 3, seed=2) if is_new else None
    found = fit_content_knn(matrix, known, candidates, n_neighbours)
    expected = plain_knn(matrix.toarray(), known, candidates, n_neighbours)
    assert np.allclose(found(np.arange(6)), expected, atol=1e-5)
    assert np.allclose(found(np.array([5, 2])), expected[[5, 2]], atol=1e-5)


def test_known_track_is_never_its_own_neighbour() -> None:
    """Two tracks of one content: each knows the other, and itself only where it is offered as a new
    one.
    """
    twins = np.array([[1.0, 0], [1, 0]])
    among_known = fit_content_knn(
        csr_matrix(np.array([[5.0, 0], [0, 7]])), twins, None, n_neighbours=2
    )
    as_new = fit_content_knn(csr_matrix(np.array([[5.0, 0], [0, 7]])), twins, twins, n_neighbours=2)
    assert among_known(np.arange(2)).tolist() == [[0, 5], [7, 0]]
    assert as_new(np.arange(2)).tolist() == [[5, 5], [7, 7]]


def test_of_equally_close_tracks_the_earlier_are_kept() -> None:
    """Of three equal tracks one neighbour is kept: the first, or the second for the first."""
    matrix, known = csr_matrix(np.array([[1.0, 10, 100]])), np.array([[1.0, 0]] * 3)
    assert fit_content_knn(matrix, known, known[:1], 1)(np.array([0])).tolist() == [[1]]
    assert fit_content_knn(matrix, known, known[:1], 2)(np.array([0])).tolist() == [[11]]
    assert fit_content_knn(matrix, known, None, 1)(np.array([0])).tolist() == [[10, 1, 1]]


def test_content_knn_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, known = liked(6, 17), directions(17, 3, seed=1)
    for candidates in (directions(9, 3, seed=2), None):
        whole = fit_content_knn(matrix, known, candidates, 4)(np.arange(6))
        with monkeypatch.context() as patch:
            patch.setattr(module, "BLOCK_COSINES", 4 * 17 + 3)
            assert np.allclose(
                fit_content_knn(matrix, known, candidates, 4)(np.arange(6)), whole, atol=1e-6
            )


def test_only_directions_count_and_a_track_without_content_is_near_nothing() -> None:
    matrix, known = liked(6, 17), directions(17, 3, seed=1)
    candidates = directions(9, 3, seed=2)
    plain = fit_content_knn(matrix, known, candidates, 17)(np.arange(6))
    assert np.allclose(
        fit_content_knn(matrix, 3 * known, 0.1 * candidates, 17)(np.arange(6)), plain, atol=1e-5
    )
    candidates[4] = known[2] = 0
    found = fit_content_knn(matrix, known, candidates, 17)
    assert not found(np.arange(6))[:, 4].any()
    assert found.weights[2].nnz == 0
    assert fit_content_knn(matrix, known, candidates[:0], 17)(np.arange(6)).shape == (6, 0)


def test_content_knn_refuses_what_does_not_fit() -> None:
    known = directions(3, 2, seed=0)
    with pytest.raises(
        DataError, match="a matrix of 2 listeners and 3 tracks holds no liked track"
    ):
        fit_content_knn(csr_matrix((2, 3)), known, None, 1)
    torn = known.copy()
    torn[1, 0] = np.inf
    for old, new in ((torn, known), (known, torn)):
        with pytest.raises(DataError, match="content holds NaN or infinity; embed it again"):
            fit_content_knn(MATRIX, old, new, 1)


def test_every_point_of_the_grid_fits_and_each_method_says_what_it_cannot() -> None:
    for point in GRID_CONTENT_KNN:
        assert np.isfinite(
            fit_content_knn(MATRIX, directions(3, 2, seed=0), None, **point)(np.arange(3))
        ).all()
    assert all("a listener without events" in said for said in CANNOT_FROM_CONTENT.values())
