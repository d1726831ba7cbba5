"""Intervals and tests against plain loops, every sign flip and numbers by hand, and how often they
are right.
"""

import doctest
import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest, permutation_test

from ponticello.metrics import bootstrap as intervals
from ponticello.metrics.bootstrap import (
    bootstrap_mean,
    bootstrap_means,
    bootstrap_ratios,
    holm,
    sign_flip_p,
)

Column = NDArray[np.float64]
Names = NDArray[np.int64]


def _with_gaps(n: int, m: int, n_clusters: int, seed: int) -> tuple[Column, Names]:
    """(n, m) values, a tenth of them nan, the first cluster nan in the second column; and (n,)
    clusters.
    """
    rng = np.random.default_rng(seed)
    columns, clusters = rng.normal(size=(n, m)), rng.integers(0, n_clusters, n) * 7
    columns[rng.random((n, m)) < 0.1] = np.nan
    columns[clusters == 0, 1] = np.nan
    return columns, clusters


def _plain_rounds(values: Column, clusters: Names, rounds: int, seed: int) -> Column:
    """Returns (rounds,) means: draws clusters and puts their values side by side."""
    kept = ~np.isnan(values)
    groups = [values[kept & (clusters == name)] for name in np.unique(clusters[kept])]
    rng = np.random.default_rng(seed)
    drawn = [rng.integers(0, len(groups), len(groups)) for _ in range(rounds)]
    return np.array([np.concatenate([groups[i] for i in places]).mean() for places in drawn])


def _plain_p(sums: Column) -> float:
    """The share of all sign flips whose absolute sum is no smaller, up to rounding."""
    flipped = [abs(sum(flips * sums)) for flips in itertools.product((1.0, -1.0), repeat=len(sums))]
    return sum(total >= abs(sum(sums)) - 1e-9 for total in flipped) / len(flipped)


def _plain_holm(p_values: list[float]) -> list[float]:
    """Of each p, the largest of (N - rank) x p over it and all smaller ones, at most 1."""
    ranked = sorted(p for p in p_values if not math.isnan(p))
    steps = [min(1.0, (len(ranked) - rank) * p) for rank, p in enumerate(ranked)]
    return [p if math.isnan(p) else max(steps[: ranked.index(p) + 1]) for p in p_values]


def test_the_bootstrap_interval_is_that_of_the_normal_law_for_many_values() -> None:
    """10,000 values of deviation 1: mean ± 1.96 / 100, within the noise of 1,000 rounds (about 5 %
    of the width).
    """
    values = np.random.default_rng(5).normal(size=10_000)
    mean, low, high = bootstrap_mean(values, None, rounds=1000, seed=0)
    assert mean == pytest.approx(float(values.mean()), abs=1e-12)
    assert [mean - low, high - mean] == pytest.approx([0.0196, 0.0196], rel=0.1)
    assert bootstrap_mean(values, None, rounds=1000, seed=0) == (mean, low, high)


def test_clusters_of_equal_values_widen_the_interval_as_fewer_values_would() -> None:
    """100 values each repeated 25 times: drawn by cluster, exactly the interval of the 100."""
    values = np.random.default_rng(6).normal(size=100)
    repeated, clusters = np.repeat(values, 25), np.repeat(np.arange(100), 25)
    by_cluster = bootstrap_mean(repeated, clusters, rounds=500, seed=1)
    assert by_cluster == pytest.approx(bootstrap_mean(values, None, rounds=500, seed=1), abs=1e-12)


def test_clusters_of_unequal_size_weigh_by_their_values() -> None:
    """Two clusters, {0} and {1, 1, 1}: a draw gives 0, 3/4 or 1, so the ends are 0 and 1 and the
    mean 3/4.
    """
    found = bootstrap_mean(
        np.array([0.0, 1.0, 1.0, 1.0]), np.array([5, 9, 9, 9]), rounds=200, seed=0
    )
    assert found == (0.75, 0.0, 1.0)


def test_bootstrap_leaves_nan_out_and_says_nan_where_it_cannot_know() -> None:
    values = np.array([1.0, np.nan, 3.0])
    assert bootstrap_mean(values, None, 100, 0) == bootstrap_mean(values[[0, 2]], None, 100, 0)
    np.testing.assert_equal(
        tuple(bootstrap_mean(values, np.zeros(3, dtype=int), 100, 0)), (2.0, math.nan, math.nan)
    )
    np.testing.assert_equal(
        tuple(bootstrap_mean(np.array([math.nan]), None, 100, 0)), (math.nan,) * 3
    )
    np.testing.assert_equal(tuple(bootstrap_mean(np.array([]), None, 100, 0)), (math.nan,) * 3)


@pytest.mark.parametrize("block", [1, 100, intervals.BLOCK_COUNTS])
def test_means_of_many_columns_equal_a_plain_loop_in_blocks_of_any_size(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intervals, "BLOCK_COUNTS", block)
    columns, clusters = _with_gaps(n=60, m=4, n_clusters=9, seed=0)
    found = bootstrap_means(columns, clusters, rounds=150, seed=3)
    for column, values in enumerate(columns.T):
        means = _plain_rounds(values, clusters, 150, 3)
        wanted = [np.nanmean(values), *np.quantile(means, (0.025, 0.975))]
        assert found[column] == pytest.approx(wanted, abs=1e-12)


def test_a_column_gets_the_interval_it_would_get_alone() -> None:
    columns, clusters = _with_gaps(n=200, m=5, n_clusters=30, seed=1)
    for names in (clusters, None):
        together = bootstrap_means(columns, names, rounds=200, seed=0)
        for values, found in zip(columns.T, together, strict=True):
            assert found == pytest.approx(
                bootstrap_mean(values, names, rounds=200, seed=0), abs=1e-12
            )


def test_no_column_has_no_interval() -> None:
    assert bootstrap_means(np.empty((3, 0)), np.arange(3), 100, 0).shape == (0, 3)
    np.testing.assert_equal(
        bootstrap_means(np.empty((0, 1)), np.arange(0), 100, 0), [[math.nan] * 3]
    )


def test_the_interval_of_a_mean_holds_the_truth_about_95_times_in_100() -> None:
    """400 samples of 60 clusters, 1 to 4 values each around the cluster's own mean; true mean 0.

    Percentile intervals of 60 clusters hold it in 94 %, with a deviation of 1.2 % over 400 samples:
    three are allowed. With rows drawn alone the same data must fail, or this test would notice
    nothing.
    """
    held = {"by cluster": 0, "alone": 0}
    for seed in range(400):
        rng = np.random.default_rng(seed)
        clusters = np.repeat(np.arange(60), rng.integers(1, 5, 60))
        values = rng.normal(size=60)[clusters] + 0.3 * rng.normal(size=len(clusters))
        for way, names in (("by cluster", clusters), ("alone", None)):
            _, low, high = bootstrap_mean(values, names, rounds=300, seed=seed)
            held[way] += low <= 0 <= high
    assert 0.904 <= held["by cluster"] / 400 <= 0.976
    assert held["alone"] / 400 < 0.85


def test_sign_flips_worked_out_by_hand() -> None:
    """1, 2, 3: of 8 flips only +++ and --- reach 6: 1/4. 3, -1: sums 2, 4 and their negatives, all
    reach 2: 1.

    Two rows of one cluster flip together: (1 + 2), 3 has 2 of 4 flips at 6: 1/2.
    """
    assert sign_flip_p(np.array([1.0, 2.0, np.nan, 3.0]), None, 99, 0) == 0.25
    assert sign_flip_p(np.array([3.0, -1.0]), None, 99, 0) == 1.0
    assert sign_flip_p(np.array([1.0, 2.0, 3.0]), np.array([0, 0, 5]), 99, 0) == 0.5


def test_without_any_difference_p_is_1_and_without_values_it_is_not_known() -> None:
    assert sign_flip_p(np.zeros(5_000), None, 99, 0) == 1.0
    assert sign_flip_p(np.array([0.0]), None, 99, 0) == 1.0
    assert sign_flip_p(np.array([0.5, -0.5]), np.zeros(2, dtype=int), 99, 0) == 1.0
    assert math.isnan(sign_flip_p(np.full(3, np.nan), None, 99, 0))
    assert math.isnan(sign_flip_p(np.array([]), None, 99, 0))


def test_up_to_12_clusters_every_flip_is_counted() -> None:
    rng = np.random.default_rng(4)
    for n in (1, 2, 5, 9, 12):
        for sums in (
            rng.normal(0.5, 1.0, n),
            rng.integers(-2, 4, n) / 10,
        ):  # the second has ties, inexact in float64
            assert sign_flip_p(sums, None, rounds=1, seed=0) == pytest.approx(
                _plain_p(sums), abs=1e-12
            )


def test_sign_flips_agree_with_scipy_exactly_if_all_are_tried_and_closely_if_drawn() -> None:
    """A p near 0.5 of 9,999 rounds has a deviation of 0.005, the difference of two 0.007; three are
    allowed.
    """
    rng = np.random.default_rng(3)
    for n_clusters, tolerance in ((8, 1e-12), (12, 1e-12), (60, 0.021)):
        sums = rng.normal(0.1, 1.0, n_clusters)
        expected = permutation_test(
            (sums,),
            lambda flipped, axis: np.abs(flipped.sum(axis)),
            permutation_type="samples",
            alternative="greater",
            vectorized=True,
            n_resamples=9_999,
            rng=0,
        )
        assert sign_flip_p(sums, None, 9_999, 0) == pytest.approx(expected.pvalue, abs=tolerance)


def test_random_flips_come_close_to_every_flip_and_never_give_0() -> None:
    """14 clusters, 16,384 flips. A share of 20,000 rounds has a deviation of at most 0.0036; four
    are allowed.
    """
    rng = np.random.default_rng(7)
    for mean in (0.0, 0.3, 0.6):
        sums = rng.normal(mean, 1.0, 14)
        assert sign_flip_p(sums, None, rounds=20_000, seed=1) == pytest.approx(
            _plain_p(sums), abs=0.0145
        )
    assert sign_flip_p(np.ones(100), None, rounds=99, seed=0) == 0.01
    assert sign_flip_p(sums, None, 500, 3) == sign_flip_p(sums, None, 500, 3)


def test_random_flips_are_the_same_in_blocks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    sums = np.random.default_rng(8).normal(0.1, 1.0, 40)
    whole = sign_flip_p(sums, None, rounds=400, seed=2)
    monkeypatch.setattr(intervals, "BLOCK_COUNTS", 40 * 4)
    assert sign_flip_p(sums, None, rounds=400, seed=2) == whole


def test_the_normal_law_takes_over_where_flips_agree_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2,500 clusters, mean 2 deviations of the sum: p = 2 Phi(-2) = 0.0455; 5,000 flips have a
    deviation of 0.003.
    """
    sums = np.random.default_rng(9).normal(size=2_500)
    sums += 2 * np.sqrt((sums**2).sum()) / 2_500 - sums.mean()
    approximate = sign_flip_p(sums, None, rounds=1, seed=0)
    assert approximate == pytest.approx(0.0455, abs=0.002)
    monkeypatch.setattr(intervals, "NORMAL_CLUSTERS", 10_000)
    assert sign_flip_p(sums, None, rounds=5_000, seed=0) == pytest.approx(approximate, abs=0.012)


def test_without_an_effect_p_is_uniform_and_clusters_keep_it_so() -> None:
    """400 data sets of 25 clusters of 4 like rows: 5 % lie below 0.05, deviation 1.1 %; flipped by
    row, many more.
    """
    by_cluster, alone = [], []
    for seed in range(400):
        rng = np.random.default_rng(seed)
        clusters = np.repeat(np.arange(25), 4)
        values = rng.normal(size=25)[clusters] + 0.3 * rng.normal(size=100)
        by_cluster.append(sign_flip_p(values, clusters, rounds=499, seed=seed))
        alone.append(sign_flip_p(values, None, rounds=499, seed=seed))
    assert 0.02 <= np.mean(np.array(by_cluster) < 0.05) <= 0.085
    assert kstest(by_cluster, "uniform").pvalue > 0.01
    assert np.mean(np.array(alone) < 0.05) > 0.2


def test_holm_equals_the_correction_worked_out_by_hand() -> None:
    """0.005 x 4 = 0.02, 0.01 x 3 = 0.03, 0.03 x 2 = 0.06, and 0.04 x 1 raised to 0.06; nan is not
    counted.
    """
    found = holm(np.array([0.01, 0.04, np.nan, 0.03, 0.005]))
    np.testing.assert_allclose(found, [0.03, 0.06, np.nan, 0.06, 0.02], atol=1e-15)
    assert holm(np.array([0.6, 0.9])).tolist() == [1.0, 1.0]
    assert holm(np.array([])).tolist() == []
    assert math.isnan(holm(np.array([np.nan]))[0])


def test_holm_equals_a_plain_version_on_1000_random_cases() -> None:
    rng = np.random.default_rng(10)
    for _ in range(1_000):
        p_values = rng.random(int(rng.integers(1, 15))) ** 3
        p_values[rng.random(len(p_values)) < 0.2] = np.nan
        p_values = p_values.round(int(rng.integers(1, 5)))  # ties
        np.testing.assert_allclose(holm(p_values), _plain_holm(p_values.tolist()), atol=1e-15)


def test_the_examples_run() -> None:
    assert doctest.testmod(intervals).failed == 0


def test_two_groups_of_candidates_are_drawn_both_ways_half_of_the_time() -> None:
    """One group adds 1 of 1, the other 0 of 1: ratio 0.5, or 0 or 1 where one is drawn twice."""
    deviations = bootstrap_ratios(
        np.array([[1.0, 0.0], [0.0, 2.0]]), np.array([[1.0, 1.0], [1.0, 1.0]]), 4_000, 0
    )
    assert deviations.shape == (2, 4_000)
    values, counts = np.unique(deviations[0], return_counts=True)
    assert values.tolist() == [-0.5, 0.0, 0.5]
    np.testing.assert_allclose(counts / 4_000, [0.25, 0.5, 0.25], atol=0.03)
    np.testing.assert_array_equal(deviations[1], -2 * deviations[0])  # the same rounds


def test_one_group_of_candidates_gives_no_interval() -> None:
    deviations = bootstrap_ratios(np.array([[1.0, 0.0]]), np.array([[2.0, 0.0]]), 100, 0)
    assert np.isnan(deviations).all()
    interval = bootstrap_means(np.array([[0.0], [1.0]]), None, 100, 0, deviations)
    assert interval[0, 0] == 0.5
    assert np.isnan(interval[0, 1:]).all()


def test_a_column_that_draws_only_groups_of_size_zero_stays_where_it_is() -> None:
    """The second column has values in the first group alone; no ratio is left without it."""
    sizes = np.array([[1.0, 1.0], [1.0, 0.0]])
    deviations = bootstrap_ratios(np.array([[1.0, 0.0], [0.7, 0.0]]), sizes, 200, 0)
    np.testing.assert_allclose(deviations[1], 0.0, atol=1e-12)


def test_drawing_candidates_too_is_the_pigeonhole_bootstrap_and_wider() -> None:
    """Artists decide the scores: against a plain loop that draws listeners and artists at once."""
    rng = np.random.default_rng(0)
    n_listeners = 150
    n_artists = 25
    is_liked = rng.random((n_listeners, n_artists)) < 0.2
    is_liked[:, 0] |= ~is_liked.any(axis=1)
    level = rng.uniform(0.1, 0.9, n_artists)
    sizes = is_liked / is_liked.sum(axis=1, keepdims=True)
    sums = sizes * np.clip(level + 0.1 * rng.normal(size=sizes.shape), 0, 1)
    column = sums.sum(axis=1, keepdims=True)
    rounds = 2_000
    deviations = bootstrap_ratios(sums.sum(axis=0)[None], sizes.sum(axis=0)[None], rounds, 0)
    two_way = bootstrap_means(column, None, rounds, 0, deviations)[0]
    one_way = bootstrap_means(column, None, rounds, 0)[0]
    plain = []
    for _ in range(rounds):
        listeners = np.bincount(rng.integers(0, n_listeners, n_listeners), minlength=n_listeners)
        artists = np.bincount(rng.integers(0, n_artists, n_artists), minlength=n_artists)
        plain.append((listeners @ sums @ artists) / (listeners @ sizes @ artists))
    assert two_way[0] == one_way[0] == pytest.approx(column.mean())
    assert two_way[2] - two_way[1] > 2 * (one_way[2] - one_way[1])
    np.testing.assert_allclose(two_way[1:], np.percentile(plain, [2.5, 97.5]), atol=0.02)
    assert float(np.std(plain)) == pytest.approx((two_way[2] - two_way[1]) / 3.92, rel=0.1)
