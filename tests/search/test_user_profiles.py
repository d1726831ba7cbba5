"""A listener's profile: the regression behind it, its scale, and what it says of seeds that say
nothing.
"""

import numpy as np
import pytest

from ponticello.errors import DataError
from ponticello.search import user_profiles as profile_module
from ponticello.search.index import Calibration, EmbeddingIndex, VectorSpace
from ponticello.search.user_profiles import UserProfiles, fit_profiles, score_directions

VECTORS = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)


def direction(profiles: UserProfiles, seeds: np.ndarray) -> np.ndarray:
    """The profile of one user, as the sum of the shares of all seeds."""
    total: np.ndarray = profiles.shares(seeds).sum(axis=0)
    return total


def test_a_profile_by_hand() -> None:
    """Tracks 2, 0, -2 on a line: mean 0, variance 8/3. One seed at 2, any ridge: scores
    proportional to the place, and divided by their deviation sqrt(8/3): 2 / 1.633 = 1.2247.
    """
    vectors = np.array([[2.0], [0.0], [-2.0]])
    line = direction(fit_profiles(vectors, 0.1), vectors[:1])
    np.testing.assert_allclose(vectors @ line, [1.2247, 0.0, -1.2247], atol=1e-4)


def test_scores_have_mean_0_and_deviation_1_over_the_catalogue() -> None:
    profiles = fit_profiles(VECTORS, 0.1)
    scores = (VECTORS - profiles.mean) @ direction(profiles, VECTORS[:5])
    assert abs(scores.mean()) < 1e-6
    assert scores.std() == pytest.approx(1, abs=1e-6)


def test_a_large_ridge_is_closeness_to_the_mean_seed() -> None:
    profiles = fit_profiles(VECTORS, 1e6)
    mean = VECTORS[:5].mean(axis=0) - profiles.mean
    line = direction(profiles, VECTORS[:5])
    assert line @ mean / np.linalg.norm(line) / np.linalg.norm(mean) == pytest.approx(1, abs=1e-6)


def test_a_direction_all_tracks_share_counts_less_with_a_small_ridge() -> None:
    """Axis 0 has ten times the spread of axis 1, so a seed that is far on both stands out on 1."""
    vectors = np.random.default_rng(1).standard_normal((5000, 2)) * [10.0, 1.0]
    seed = np.array([[10.0, 1.0]])
    weights = [
        np.abs(direction(fit_profiles(vectors, ridge), seed) * [10.0, 1.0])
        for ridge in (1e-6, 10.0)
    ]
    assert weights[0][1] == pytest.approx(weights[0][0], rel=0.1)
    assert weights[1][1] < 0.02 * weights[1][0]


def test_seeds_that_say_nothing_score_nothing() -> None:
    alike = np.ones((4, 3))
    assert direction(fit_profiles(alike, 0.1), alike[:2]).tolist() == [0.0, 0.0, 0.0]


def test_many_listeners_are_each_on_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of three of the five who like something; who likes nothing asks with nothing."""
    monkeypatch.setattr(profile_module, "BLOCK_LISTENERS", 3)
    profiles = fit_profiles(VECTORS, 0.1)
    seeds = [
        np.array(rows, dtype=np.int64) for rows in ([0, 1], [], [7], [3, 4, 5], [9], [], [2, 7])
    ]
    found = score_directions(profiles, VECTORS, seeds)
    for line, rows in zip(found, seeds, strict=True):
        alone = direction(profiles, VECTORS[rows]) if len(rows) else np.zeros(6)
        np.testing.assert_allclose(line, alone, rtol=0, atol=1e-12)
    assert score_directions(profiles, VECTORS, []).shape == (0, 6)


def test_vectors_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        fit_profiles(np.array([[np.nan, 1.0]]), 0.1)


def test_levels_by_hand() -> None:
    """Tracks 2, 1, -1, -2 on a line, mean square 2.5: any seed asks with +-1 / sqrt(2.5), so
    spreads are 2 and 1 over sqrt(2.5). Wholly evened out, the factors are 1 / spread; by half,
    spread ** -0.5 times s with a mean square of 1: (2 + 1) / 2 / sqrt(2.5) * s**2 = 1.
    """
    vectors = np.array([[2.0], [1.0], [-1.0], [-2.0]])
    profiles, spread = fit_profiles(vectors, 0.1), np.array([2.0, 1.0, 1.0, 2.0]) / 2.5**0.5
    np.testing.assert_allclose(profiles.levels(vectors, 1.0), 1 / spread, rtol=1e-9)
    scale = (2.5**0.5 / 1.5) ** 0.5
    np.testing.assert_allclose(profiles.levels(vectors, 0.5), spread**-0.5 * scale, rtol=1e-9)
    np.testing.assert_allclose(profiles.levels(vectors, 0.0), np.ones(4), rtol=1e-12)


def test_a_hub_leaves_the_lists_of_single_seeds() -> None:
    """A track three times as far out as others: among the first of half of all seeds, and of fewer
    once levelled.
    """
    vectors = np.concatenate([VECTORS, 3 * VECTORS[:1]])
    profiles = fit_profiles(vectors, 0.1)
    asking = score_directions(profiles, vectors, [np.array([row]) for row in range(1, 200)])
    plain = asking @ (vectors - profiles.mean).T  # (199, 201)
    levelled = plain * profiles.levels(vectors, 1.0)
    shares = [
        (scores.argsort(axis=1)[:, -10:] == 200).any(axis=1).mean() for scores in (plain, levelled)
    ]
    assert shares[0] > 0.25
    assert shares[1] < shares[0] / 2


def test_levels_from_a_part_of_a_large_catalogue_are_those_from_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vectors = np.random.default_rng(2).standard_normal((4000, 6)) * np.arange(1, 7)
    whole = fit_profiles(vectors, 0.1).levels(vectors, 0.5)
    monkeypatch.setattr("ponticello.search.user_profiles.MOST_SINGLE_SEEDS", 1000)
    part = fit_profiles(vectors, 0.1).levels(vectors, 0.5)
    assert 0 < np.abs(part / whole - 1).max() < 0.05


def test_levels_of_tracks_that_say_nothing_are_finite() -> None:
    alike = np.ones((4, 3))
    np.testing.assert_allclose(fit_profiles(alike, 0.1).levels(alike, 0.5), np.ones(4))


def test_a_track_in_the_very_middle_is_not_blown_up() -> None:
    """Tracks 1, 0, -1: spreads sqrt(1.5) and 0, their mean square 1; the middle one counts as a
    tenth of it.
    """
    vectors = np.array([[1.0], [0.0], [-1.0]])
    found = fit_profiles(vectors, 0.1).levels(vectors, 1.0)
    assert found[1] / found[0] == pytest.approx(10 * 1.5**0.5)


@pytest.mark.parametrize("hub_correction", [0.0, 0.5])
def test_the_index_asks_both_spaces_and_the_parts_add_up(hub_correction: float) -> None:
    vectors = np.concatenate([VECTORS, VECTORS[:, ::-1]], axis=1)
    plain = Calibration(0.3, 0.2)  # must not matter: a profile brings its own scale
    spaces = [VectorSpace("one", "aaaa", plain, plain), VectorSpace("two", "bbbb", plain, plain)]
    index = EmbeddingIndex([f"t{number:03d}" for number in range(200)], vectors, spaces)
    query, _ = index.profile_query(["t003", "t010"], 0.1, hub_correction)
    profiles = [fit_profiles(side, 0.1) for side in (VECTORS, VECTORS[:, ::-1])]
    wanted = [
        profile.levels(side, hub_correction)
        * ((side - profile.mean) @ direction(profile, side[[3, 10]]))
        for side, profile in zip((VECTORS, VECTORS[:, ::-1]), profiles, strict=True)
    ]
    for blend in (0.0, 0.3, 1.0):
        scores = index.scores(query, blend)[0]
        np.testing.assert_allclose(scores, (1 - blend) * wanted[0] + blend * wanted[1], atol=1e-4)
        parts = index.parts(query, blend, np.arange(200))[0]
        np.testing.assert_allclose(parts.sum(axis=1), scores, atol=1e-4)
