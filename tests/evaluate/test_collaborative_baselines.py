"""The collaborative baselines by hand on small matrices, and against slow plain solutions."""

import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from ponticello.errors import ConfigError, DataError
from ponticello.evaluate.baselines import (
    CANNOT,
    GRIDS,
    Factors,
    Scorer,
    as_matrix,
    choose,
    fit_als,
    fit_ease,
    fit_item_knn,
)

FITS: dict[str, Callable[..., Scorer]] = {
    "item_knn": partial(fit_item_knn, n_neighbours=5, shrinkage=1.0),
    "ease": partial(fit_ease, l2=1.0),
    "als": partial(fit_als, factors=4, l2=0.1, alpha=5.0, seed=0),
}
KNN_MATRIX = csr_matrix(np.array([[3.0, 0, 2], [4, 3, 0], [0, 4, 0]]))


@pytest.fixture
def blocks() -> Any:
    """Eight listeners and eight tracks in two worlds of four; listener u of a world has not heard
    its track u.
    """
    world = 1.0 - np.eye(4)
    return csr_matrix(np.block([[world, np.zeros((4, 4))], [np.zeros((4, 4)), world]]))


def test_matrix_counts_positive_events_of_the_named_listeners_and_tracks() -> None:
    """ann: a played 40 s and liked = 2, b skipped and played 5 s = 0; bob: b of unknown length = 1,
    z not named.
    """
    rows = [
        ("ann", "a", "play", 40.0),
        ("ann", "a", "like", None),
        ("ann", "b", "skip", 40.0),
        ("ann", "b", "play", 5.0),
        ("bob", "b", "play", None),
        ("bob", "z", "play", 40.0),
        ("eve", "a", "play", 40.0),
    ]
    schema = {
        "user_id": pl.String,
        "track_id": pl.String,
        "event": pl.String,
        "played_s": pl.Float64,
    }
    events = pl.DataFrame(rows, schema=schema, orient="row")
    found = as_matrix(events, ["bob", "cid", "ann"], ["b", "c", "a"], 30.0)
    assert found.toarray().tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 2]]
    assert found.dtype == np.float64
    assert found.nnz == 2
    assert np.isfinite(FITS["als"](found)(np.arange(3))).all()
    assert as_matrix(events.clear(), ["bob"], [], 30.0).shape == (1, 0)


@pytest.mark.parametrize(
    ("users", "tracks", "message"), [("aba", "x", "user_id 'a'"), ("a", "xyy", "track_id 'y'")]
)
def test_matrix_refuses_a_name_given_twice(users: str, tracks: str, message: str) -> None:
    with pytest.raises(DataError, match=f"{message} is listed twice; each needs one place"):
        as_matrix(pl.DataFrame(), list(users), list(tracks), 30.0)


def test_item_knn_by_hand() -> None:
    """Columns (3, 4, 0), (0, 3, 4), (2, 0, 0) have lengths 5, 5, 2 and products ab 12, ac 6, bc 0.

    Cosines ab 12/25 = 0.48, ac 6/10 = 0.6. One neighbour: a keeps c, b and c keep a. So who has (3,
    0, 2) gets a 2 x 0.6, b 3 x 0.48, c 3 x 0.6; (4, 3, 0) gets a 0, b 4 x 0.48, c 4 x 0.6; who has
    b alone gets nothing.
    """
    found = fit_item_knn(KNN_MATRIX, n_neighbours=1, shrinkage=0.0)(np.arange(3))
    assert np.allclose(found, [[1.2, 1.44, 1.8], [0.0, 1.92, 2.4], [0.0, 0.0, 0.0]], atol=1e-12)


def test_item_knn_shrinks_and_breaks_ties_by_column() -> None:
    """Shrunk by 5: ab 12/30 and ac 6/15 are both 0.4, so with one neighbour a keeps b; with two,
    both.
    """
    one = fit_item_knn(KNN_MATRIX, n_neighbours=1, shrinkage=5.0)(np.array([1, 0]))
    two = fit_item_knn(KNN_MATRIX, n_neighbours=2, shrinkage=5.0)(np.array([1, 0]))
    assert np.allclose(one, [[1.2, 1.6, 1.6], [0, 1.2, 1.2]], atol=1e-12)
    assert np.allclose(two, [[1.2, 1.6, 1.6], [0.8, 1.2, 1.2]], atol=1e-12)


def test_item_knn_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = csr_matrix(np.random.default_rng(0).poisson(0.4, (20, 11)).astype(np.float64))
    matrix.eliminate_zeros()
    whole = fit_item_knn(matrix, 3, 1.0)(np.arange(20))
    monkeypatch.setattr("ponticello.evaluate.baselines.BLOCK_TRACKS", 4)
    assert np.array_equal(fit_item_knn(matrix, 3, 1.0)(np.arange(20)), whole)


def test_ease_by_hand() -> None:
    """a (1, 1, 0), b (1, 0, 0), c (0, 0, 1), l2 = 1: weights a to b 1 / (2 + 1), b to a 1 / (1 +
    1), none with c.
    """
    matrix = csr_matrix(np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 1]]))
    assert np.allclose(
        fit_ease(matrix, l2=1.0)(np.arange(3)),
        [[1 / 2, 1 / 3, 0.0], [0.0, 1 / 3, 0.0], [0.0, 0.0, 0.0]],
        atol=1e-12,
    )


@pytest.mark.parametrize("l2", [0.5, 20.0])
def test_ease_is_one_ridge_regression_a_track_without_itself(l2: float) -> None:
    """Slow and plain: w_j solves (X'X + l2 I) w = X'x_j over the other columns, for every j on its
    own.
    """
    dense = np.random.default_rng(1).poisson(0.7, (7, 4)).astype(np.float64)
    expected = np.zeros((4, 4))
    for track in range(4):
        rest = [other for other in range(4) if other != track]
        others = dense[:, rest]
        expected[rest, track] = np.linalg.solve(
            others.T @ others + l2 * np.eye(3), others.T @ dense[:, track]
        )
    matrix = csr_matrix(dense)
    assert np.allclose(fit_ease(matrix, l2).weights, expected, atol=1e-12)
    assert np.allclose(
        fit_ease(matrix, l2)(np.array([5, 2])), (dense @ expected)[[5, 2]], atol=1e-12
    )


def test_als_solves_each_track_with_confidence_one_plus_alpha_times_value() -> None:
    """The last step fits y_i to the listeners X: (X'CX + l2 I) y = X'Cp, C = 1 + alpha r; loosely,
    as it iterates.
    """
    dense = np.random.default_rng(2).poisson(0.8, (12, 6)).astype(np.float64)
    found = fit_als(csr_matrix(dense), factors=3, l2=0.5, alpha=2.0, seed=0)
    for track in range(6):
        weighted = found.users.T * (1 + 2.0 * dense[:, track])
        expected = np.linalg.solve(
            weighted @ found.users + 0.5 * np.eye(3), weighted @ (dense[:, track] > 0)
        )
        assert np.allclose(found.items[track], expected, atol=2e-3)


@pytest.mark.parametrize("name", FITS)
def test_every_model_finds_the_missing_track_of_a_listeners_own_world(
    name: str, blocks: Any
) -> None:
    scores = FITS[name](blocks)(np.arange(8))
    assert scores.shape == (8, 8)
    assert scores.dtype == np.float64
    unheard = np.where(blocks.toarray() > 0, -np.inf, scores)
    assert unheard.argmax(axis=1).tolist() == list(range(8))


@pytest.mark.parametrize("name", FITS)
def test_model_leaves_the_matrix_alone_and_scores_the_rows_asked_for(
    name: str, blocks: Any
) -> None:
    before = blocks.toarray()
    model = FITS[name](blocks)
    assert np.array_equal(blocks.toarray(), before)
    assert np.allclose(model(np.array([6, 1])), model(np.arange(8))[[6, 1]], atol=1e-12)


def test_same_seed_gives_the_same_numbers_and_another_seed_others(blocks: Any) -> None:
    first, same, different = (
        fit_als(blocks, factors=4, l2=0.1, alpha=5.0, seed=seed) for seed in (0, 0, 1)
    )
    assert np.array_equal(first.users, same.users)
    assert np.array_equal(first.items, same.items)
    assert not np.allclose(first.items, different.items, atol=1e-3)


@pytest.mark.parametrize("name", FITS)
def test_listener_without_events_and_track_without_listeners_score_zero(
    name: str, blocks: Any
) -> None:
    dense = blocks.toarray()
    dense[2], dense[:, 5] = 0, 0
    scores = FITS[name](csr_matrix(dense))(np.arange(8))
    assert np.isfinite(scores).all()
    assert not scores[2].any()
    assert not scores[:, 5].any()
    assert scores.any()


@pytest.mark.parametrize("name", FITS)
def test_what_cannot_be_learned_from_is_refused(name: str, blocks: Any) -> None:
    with pytest.raises(
        DataError, match="a matrix of 3 listeners and 4 tracks holds no liked track"
    ):
        FITS[name](csr_matrix((3, 4)))
    for value in (np.nan, np.inf, -1.0, 0.0):
        blocks.data[3] = value
        with pytest.raises(DataError, match="matrix values must be finite and above 0"):
            FITS[name](blocks)


def test_als_that_diverges_names_the_settings_to_change(blocks: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"ALS diverged with .*take a larger l2 or a smaller alpha"
    ):
        fit_als(blocks, factors=2, l2=0.01, alpha=1e38, seed=0)


def test_threads_of_blas_bring_no_warning_and_stay_as_they_were(
    blocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """implicit warns once a process, as an error here, when BLAS may use several threads; this
    makes it look again.
    """
    monkeypatch.setattr("implicit.utils._checked_blas_config", False)
    threads = import_module("threadpoolctl")
    with threads.threadpool_limits(2, "blas"):
        before = threads.threadpool_info()
        FITS["als"](blocks)
        assert threads.threadpool_info() == before


def test_missing_implicit_says_how_to_install_it(
    blocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "implicit", None)
    with pytest.raises(
        ConfigError, match=r"ALS needs the package implicit.*run: pip install implicit"
    ):
        FITS["als"](blocks)


def _choose(values: dict[str, float]) -> str:
    """The label chosen where candidate `label` measures values[label]."""
    models = {
        label: Factors(np.array([[value]]), np.ones((1, 1))) for label, value in values.items()
    }
    return choose({name: partial(models.__getitem__, name) for name in values}, _first_score)


def _first_score(model: Scorer) -> float:
    return float(model(np.array([0]))[0, 0])


def test_choose_takes_the_highest_measure_and_the_first_of_equal_ones() -> None:
    nan = float("nan")
    assert _choose({"a": 0.1, "b": 0.3, "c": 0.2, "d": 0.3}) == "b"
    assert _choose({"a": nan, "b": -1.0, "c": nan}) == "b"
    with pytest.raises(DataError, match="the measure is nan for all of a, b"):
        _choose({"a": nan, "b": nan})


@pytest.mark.parametrize("name", FITS)
def test_every_point_of_a_grid_fits_and_its_model_says_what_it_cannot(
    name: str, blocks: Any
) -> None:
    assert "a track nobody has played" in CANNOT[name]
    assert GRIDS.keys() == CANNOT.keys() == FITS.keys()
    for point in GRIDS[name]:
        assert np.isfinite(FITS[name](blocks, **point)(np.arange(8))).all()
