"""Baselines that read factors off content, in small worlds that can be worked out by hand."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from ponticello.errors import DataError
from ponticello.evaluate.baselines import Factors, Interactions, fit_als
from ponticello.evaluate.content_baselines import (
    CONTENT_GRIDS,
    IALS_ALPHA,
    TrainingLikes,
    _solve_rows,
    add_standardised,
    beside_text,
    content_to_factors,
    fit_content_model,
    fit_feature_ials,
    fit_mlp,
    fit_profile,
)
from ponticello.metrics.ranking import auc, hit_groups
from ponticello.search.user_profiles import fit_profiles, score_directions

N_KNOWN, N_NEW, N_USERS = 60, 20, 40


def two_kinds() -> tuple[np.ndarray, np.ndarray]:
    """(80, 4) unit content of two kinds of tracks, with a little noise, and each track's kind."""
    generator = np.random.default_rng(0)
    kinds = np.arange(N_KNOWN + N_NEW) % 2
    content = np.eye(4)[kinds] + 0.1 * generator.standard_normal((len(kinds), 4))
    return content / np.linalg.norm(content, axis=1, keepdims=True), kinds


def likes_of_one_kind(kinds: np.ndarray) -> Interactions:
    """(40, 60): listener u likes half the known tracks of kind u % 2."""
    generator = np.random.default_rng(1)
    is_own_kind = np.arange(N_USERS)[:, None] % 2 == kinds[None, :N_KNOWN]
    return csr_matrix((is_own_kind & (generator.random(is_own_kind.shape) < 0.5)).astype(float))


def training_likes() -> tuple[TrainingLikes, np.ndarray, np.ndarray]:
    """The likes, and the content and the kind of the new tracks."""
    content, kinds = two_kinds()
    matrix = likes_of_one_kind(kinds)
    als = partial(fit_als, matrix, l2=1.0, alpha=1.0, seed=0)
    likes = TrainingLikes(matrix, content[:N_KNOWN], content, als, seed=0)
    return likes, content[N_KNOWN:], kinds[N_KNOWN:]


def mean_auc(factors: Factors, kinds: np.ndarray) -> float:
    scores = factors(np.arange(N_USERS))
    aucs = []
    for user, row in enumerate(scores):
        aucs.append(auc(hit_groups(row, kinds == user % 2)))
    return float(np.mean(aucs))


@pytest.mark.parametrize("name", CONTENT_GRIDS)
def test_new_tracks_are_ranked_by_the_content_that_decides_listening(name: str) -> None:
    likes, new_content, kinds = training_likes()
    for point in (CONTENT_GRIDS[name][0], CONTENT_GRIDS[name][-1]):
        factors = fit_content_model(name, likes, point).factors(new_content)
        assert factors.users.shape[0] == N_USERS
        assert mean_auc(factors, kinds) > 0.95


def test_same_seed_gives_the_same_scores_and_leaves_torch_alone() -> None:
    likes, new_content, _ = training_likes()
    for name in ("mlp_to_als", "feature_ials"):
        state = torch.get_rng_state()
        runs = []
        for _ in range(2):
            model = fit_content_model(name, likes, CONTENT_GRIDS[name][0])
            runs.append(model.factors(new_content)(np.arange(N_USERS)))
        np.testing.assert_array_equal(runs[0], runs[1])
        assert torch.equal(torch.get_rng_state(), state)


def test_profile_is_the_one_that_recommend_asks_by() -> None:
    likes, new_content, _ = training_likes()
    model = fit_profile(likes.matrix, likes.content, likes.catalog, l2=0.1, hub_correction=0.5)
    profiles = fit_profiles(likes.catalog, 0.1)
    seeds = [np.flatnonzero(row) for row in likes.matrix.toarray()]
    directions = score_directions(profiles, likes.content, seeds)
    levels = profiles.levels(new_content, 0.5)
    expected = directions @ (levels[:, None] * (new_content - profiles.mean)).T
    np.testing.assert_allclose(model.factors(new_content)(np.arange(N_USERS)), expected)


def test_listener_without_likes_has_no_profile() -> None:
    matrix = csr_matrix(np.array([[1.0, 0.0], [0.0, 0.0]]))
    content = np.array([[1.0, 0.0], [0.0, 1.0]])
    users = fit_profile(matrix, content, content, l2=0.1, hub_correction=0.0).users
    assert users[0].any()
    assert not users[1].any()


def test_feature_ials_gives_a_track_that_nobody_likes_its_prior() -> None:
    """The prior is linear in the content, and a column without likes changes nothing."""
    likes, new_content, _ = training_likes()
    model = fit_feature_ials(likes.matrix, likes.content, factors=8, l2=1.0, seed=0)
    content_map = model.items(np.eye(4))
    np.testing.assert_allclose(model.items(new_content), new_content @ content_map)
    no_likes = csr_matrix((N_USERS, N_NEW))
    wider = csr_matrix(np.hstack([likes.matrix.toarray(), no_likes.toarray()]))
    both = np.concatenate([likes.content, new_content])
    with_unliked = fit_feature_ials(wider, both, factors=8, l2=1.0, seed=0)
    np.testing.assert_array_equal(with_unliked.items(new_content), model.items(new_content))


def test_track_factors_solve_their_equation_and_reach_the_prior_under_a_large_penalty() -> None:
    """One like of user factor 2, prior 3, one other user of factor 1, l2 = 5:

    (2 x 2 + 1 x 1 + 5 + alpha x 2 x 2) x = (1 + alpha) x 2 + 5 x 3.
    """
    users = np.array([[2.0], [1.0]])
    solved = _solve_rows(csr_matrix(np.array([[1.0, 0.0]])), users, np.array([[3.0]]), l2=5.0)
    expected = ((1 + IALS_ALPHA) * 2 + 15) / (10 + IALS_ALPHA * 4)
    np.testing.assert_allclose(solved, [[expected]])
    strong = _solve_rows(csr_matrix(np.array([[1.0, 0.0]])), users, np.array([[3.0]]), l2=1e9)
    np.testing.assert_allclose(strong, [[3.0]], atol=1e-6)


def test_feature_ials_refuses_a_matrix_without_likes() -> None:
    with pytest.raises(DataError, match="feature_ials needs a liked track"):
        fit_feature_ials(csr_matrix((2, 2)), np.eye(2), factors=2, l2=1.0, seed=0)


def test_mlp_reads_a_product_of_two_numbers_that_no_linear_map_can() -> None:
    """Factors are the product of two signs in the content: a linear map has nothing to learn."""
    generator = np.random.default_rng(0)
    content = generator.choice([-1.0, 1.0], (400, 2)) + 0.05 * generator.standard_normal((400, 2))
    items = np.sign(content[:, :1] * content[:, 1:])
    als = Factors(np.ones((1, 1)), items)
    new_content = np.array([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    predicted = fit_mlp(als, content, n_epochs=100, seed=0).items(new_content)[:, 0]
    np.testing.assert_allclose(predicted, [1, -1, -1, 1], atol=0.3)
    linear = content_to_factors(items, content, new_content, 1.0)[:, 0]
    assert np.abs(linear).max() < 0.2


def test_mlp_needs_two_tracks_with_factors() -> None:
    als = Factors(np.ones((1, 2)), np.array([[1.0, 2.0], [0.0, 0.0]]))
    with pytest.raises(DataError, match="1 of the 2 tracks has factors to learn from"):
        fit_mlp(als, np.eye(2), n_epochs=1, seed=0)


def test_sum_of_standardised_scores_is_that_of_a_plain_loop() -> None:
    generator = np.random.default_rng(2)
    models = []
    for size, scale in ((3, 1.0), (5, 100.0)):
        users = generator.standard_normal((6, size))
        models.append(Factors(users, scale * generator.standard_normal((9, size)) + scale))
    models[1].users[4] = 0  # constant scores
    summed = add_standardised(models)(np.arange(6))
    for user in range(6):
        expected = _standardised(models[0], user)
        if user != 4:
            expected = expected + _standardised(models[1], user)
        np.testing.assert_allclose(summed[user], expected, atol=1e-9)


def _standardised(model: Factors, user: int) -> np.ndarray:
    scores = model(np.array([user]))[0]
    return np.asarray((scores - scores.mean()) / scores.std())


def test_content_beside_text_has_the_mean_of_both_cosines() -> None:
    content: Sequence[Sequence[float]] = [[2.0, 0.0], [0.0, 3.0]]
    joined = beside_text(np.array(content), np.array([[5.0], [1.0]]))
    np.testing.assert_allclose(joined @ joined.T, [[1.0, 0.5], [0.5, 1.0]], atol=1e-6)
    without_text = beside_text(np.array(content), np.zeros((2, 1)))
    np.testing.assert_allclose(without_text @ without_text.T, 0.5 * np.eye(2), atol=1e-6)


def test_content_to_factors_recovers_a_linear_map_and_ignores_tracks_without_factors() -> None:
    generator = np.random.default_rng(3)
    content = generator.standard_normal((40, 5))
    content /= np.linalg.norm(content, axis=1, keepdims=True)
    slope, intercept = generator.standard_normal((5, 3)), generator.standard_normal(3)
    factors = content @ slope + intercept
    expected = factors[30:].copy()
    factors[10:20] = 0
    found = content_to_factors(factors[:30], content[:30], content[30:], 1e-9)
    assert np.allclose(found, expected, atol=1e-6)


def test_content_to_factors_shrinks_towards_the_mean_track() -> None:
    """Content -1 and 1, factors 0.5 and 2.5: slope 2 / (2 + l2) around 1.5, so at l2 = 2 content 1
    gives 1.5 + 0.5.
    """
    found = content_to_factors(
        np.array([[0.5], [2.5]]), np.array([[-1.0], [1.0]]), np.array([[1.0]]), 2.0
    )
    assert np.allclose(found, [[2.0]], atol=1e-12)


def test_content_to_factors_refuses_tracks_without_factors() -> None:
    ones = np.ones((4, 2))
    with pytest.raises(DataError, match="none of the 4 tracks has factors to learn from"):
        content_to_factors(np.zeros((4, 2)), ones, ones, 1.0)
