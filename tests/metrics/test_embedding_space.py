"""The health of hand-made spaces, and what moved between two of them, against numbers by hand and
plain loops.
"""

import doctest
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ponticello.errors import DataError, ShapeError
from ponticello.metrics import embedding_space as integrity
from ponticello.metrics.embedding_space import (
    alignment,
    largest_shifts,
    modality_gap,
    neighbour_overlap,
    space_health,
)

Rows = NDArray[np.float64]


def _unit(vectors: Rows) -> Rows:
    unit: Rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def _spread(n: int, d: int, seed: int = 0) -> Rows:
    return _unit(np.random.default_rng(seed).standard_normal((n, d)))


def _rotation(d: int) -> Rows:
    rotation: Rows = np.linalg.qr(np.random.default_rng(9).standard_normal((d, d)))[0]
    return rotation


def _plain_neighbours(vectors: Rows, k: int) -> list[set[int]]:
    cosines = vectors @ vectors.T
    sets = []
    for row, cosine in enumerate(cosines):
        others = [other for other in range(len(vectors)) if other != row]
        order = np.argsort(-cosine[others], kind="stable")[:k]
        sets.append({others[place] for place in order})
    return sets


def test_a_cross_has_the_health_worked_out_by_hand() -> None:
    """Rows e1, -e1, e2, -e2: centred already, both singular values sqrt 2, so 2 dimensions in use.

    Of 6 pairs, 2 are opposite (cosine -1, squared distance 4) and 4 orthogonal (0, 2): mean cosine
    -1/3, uniformity log((2 e^-8 + 4 e^-4) / 6). Three neighbours each, everyone's: hubness 0.
    """
    health = space_health(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]))
    assert health.n_nan == 0
    assert health.effective_rank == pytest.approx(2.0, abs=1e-12)
    assert health.mean_cosine == pytest.approx(-1 / 3, abs=1e-12)
    assert health.uniformity == pytest.approx(
        math.log((2 * math.exp(-8) + 4 * math.exp(-4)) / 6), abs=1e-12
    )
    assert health.hubness == 0.0
    assert not health.is_collapsed


def test_unequal_directions_count_by_their_entropy() -> None:
    """Nine times +-e1, once +-e2: singular values sqrt 18 and sqrt 2, shares 3/4 and 1/4: exp(H) =
    4 / 3^(3/4).
    """
    vectors = np.repeat([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [9, 9, 1, 1], axis=0)
    assert space_health(vectors).effective_rank == pytest.approx(4 / 3**0.75, abs=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_space_of_one_point_is_collapsed(dtype: type[np.float64] | type[np.float32]) -> None:
    """Effective rank 0, every cosine 1, every distance 0."""
    health = space_health(np.repeat(_spread(1, 32), 300, axis=0).astype(dtype))
    assert health.effective_rank == 0.0
    assert health.mean_cosine == pytest.approx(1.0, abs=1e-6)
    assert health.uniformity == pytest.approx(0.0, abs=1e-12)
    assert health.is_collapsed


def test_a_narrow_cone_and_a_plane_are_collapsed_and_a_spread_space_is_not() -> None:
    spread = _spread(500, 64)
    cone, plane = _unit(spread * 0.1 + np.eye(64)[0]), np.zeros((500, 64))
    plane[:, :2] = _spread(500, 2)
    assert not space_health(spread).is_collapsed
    assert space_health(spread).effective_rank > 60
    assert space_health(cone).mean_cosine > 0.95
    assert space_health(cone).is_collapsed
    assert space_health(plane).effective_rank == pytest.approx(2.0, abs=0.01)
    assert space_health(plane).is_collapsed


def test_few_tracks_of_many_dimensions_are_not_called_collapsed() -> None:
    assert not space_health(_spread(8, 512)).is_collapsed


def test_sampled_uniformity_is_near_that_of_all_pairs() -> None:
    """65,536 of 499,500 pairs are drawn; on a circle the mean is e^-4 I0(4)."""
    vectors = _spread(1000, 2)
    left, right = np.triu_indices(1000, 1)
    plain = math.log(np.exp(-2 * ((vectors[left] - vectors[right]) ** 2).sum(axis=1)).mean())
    found = [space_health(vectors, seed).uniformity for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    assert found == pytest.approx([plain] * 3, abs=0.03)
    assert plain == pytest.approx(-4 + math.log(np.i0(4.0)), abs=0.05)


def test_rows_of_nan_are_counted_and_left_out() -> None:
    vectors = _spread(60, 8)
    damaged = np.insert(vectors, [5, 40], np.nan, axis=0)
    damaged[5, 1:] = 1.0
    damaged = np.concatenate([damaged, np.full((1, 8), np.inf)])
    whole, found = space_health(vectors), space_health(damaged)
    assert found.n_nan == 3
    assert found == type(whole)(3, *list(vars(whole).values())[1:])
    overlap = neighbour_overlap(damaged, damaged, 3)
    assert np.flatnonzero(np.isnan(overlap)).tolist() == [5, 41, 62]
    assert np.nanmin(overlap) == 1.0
    rows = largest_shifts(damaged, damaged, overlap, 63)
    assert sorted(rows) == sorted(set(range(63)) - {5, 41, 62})
    assert alignment(damaged, damaged) == 0.0
    assert modality_gap(damaged, vectors) == pytest.approx(0.0, abs=1e-15)


def test_a_rotation_changes_nothing() -> None:
    before = _spread(400, 16)
    after = before @ _rotation(16)
    one, two = space_health(before), space_health(after)
    assert list(vars(two).values()) == pytest.approx(list(vars(one).values()), abs=1e-9)
    overlap = neighbour_overlap(before, after, 7)
    assert overlap.tolist() == [1.0] * 400
    assert largest_shifts(before, after, overlap, 400).tolist() == list(range(400))


def test_a_shuffled_space_keeps_the_neighbours_chance_would() -> None:
    """The expected overlap is k / (n - 1) = 10 / 999; the mean of 1,000 rows lies within 0.003 of
    it.
    """
    before = _spread(1000, 16)
    after = before[np.random.default_rng(3).permutation(1000)]
    assert neighbour_overlap(before, after, 10).mean() == pytest.approx(10 / 999, abs=0.003)


@pytest.mark.parametrize("block", [1, 150, 10_000])
def test_overlap_equals_that_of_plain_neighbours_whatever_the_block(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(integrity, "BLOCK_COSINES", block)
    before = _spread(50, 5)
    after = _unit(before + 0.5 * _spread(50, 5, seed=1))
    for k in (1, 6, 49):
        both = zip(_plain_neighbours(before, k), _plain_neighbours(after, k), strict=True)
        assert neighbour_overlap(before, after, k).tolist() == [len(a & b) / k for a, b in both]


@pytest.mark.parametrize("n", [1, 7, 40, 50])
def test_most_moved_orders_by_overlap_then_by_plain_correlation(n: int) -> None:
    before = _spread(40, 5)
    after = _unit(np.concatenate([before + 0.4 * _spread(40, 5, seed=1), np.ones((40, 2))], axis=1))
    a, b = before @ before.T, after @ after.T
    others = [[column for column in range(40) if column != row] for row in range(40)]
    lost = [1 - np.corrcoef(a[row, others[row]], b[row, others[row]])[0, 1] for row in range(40)]
    overlap = neighbour_overlap(before, after, 4)
    plain = sorted(range(40), key=lambda row: (overlap[row], -lost[row]))
    assert largest_shifts(before, after, overlap, n).tolist() == plain[:n]


def test_the_one_track_that_was_moved_comes_first() -> None:
    """Two tight groups of ten; track 3 goes from the first to the second."""
    groups = np.repeat(np.eye(8)[:2], 10, axis=0)
    before = _unit(groups + 0.01 * _spread(20, 8))
    after = before.copy()
    after[3] = _unit(np.eye(8)[1:2] + 0.01 * _spread(1, 8, seed=2))[0]
    overlap = neighbour_overlap(before, after, 5)
    assert overlap[3] == 0.0
    assert largest_shifts(before, after, overlap, 1).tolist() == [3]


def test_a_space_without_differences_correlates_with_nothing() -> None:
    same = np.repeat(np.eye(4)[:1], 6, axis=0)
    assert largest_shifts(same, _spread(6, 4), np.ones(6), 6).tolist() == [0, 1, 2, 3, 4, 5]


def test_alignment_and_gap_equal_the_numbers_worked_out_by_hand() -> None:
    """Pairs e1 e1 and e1 -e1: (0 + 4) / 2.  Centroids (1, 0) and (0.5, 0.5): distance sqrt(1/2)."""
    e1, e2 = np.eye(2)
    assert alignment(np.array([e1, e1]), np.array([e1, -e1])) == 2.0
    assert modality_gap(np.array([e1, e1, e1]), np.array([e1, e2])) == pytest.approx(
        0.5**0.5, abs=1e-15
    )


def test_bad_spaces_are_refused() -> None:
    good, missing = _spread(4, 3), np.full((4, 3), np.nan)
    with pytest.raises(ShapeError, match=r"vectors must be \(n, d\), d at least 1; found \(3,\)"):
        space_health(good[0])
    with pytest.raises(
        DataError, match=r"vectors: row 2 has length 1\.5; divide each row by its length"
    ):
        space_health(good * np.array([[1.0], [1.0], [1.5], [1.0]]))
    with pytest.raises(DataError, match="row 0 has length inf"):
        space_health(np.full((2, 2), 1e200))
    with pytest.raises(DataError, match="vectors: 1 finite rows; wanted at least 2"):
        space_health(good[:1])
    with pytest.raises(DataError, match="left and right: 0 finite rows; wanted at least 1"):
        alignment(good, missing)
    with pytest.raises(DataError, match="text: 0 finite rows"):
        modality_gap(good, missing)


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(integrity).failed == 0
