"""Questions of several terms against plain sums, and audiences against one profile at a time."""

import numpy as np
import pytest

from ponticello.errors import DataError
from ponticello.search.index import Calibration, EmbeddingIndex, Query, VectorSpace
from ponticello.search.user_history import build_audience

SPACES = [
    VectorSpace("one", "aaaa", Calibration(0.2, 0.5), Calibration(-0.1, 0.25)),
    VectorSpace("two", "bbbb", Calibration(0.4, 0.1), Calibration(0.3, 2.0)),
]
N, D = 40, 6
GENERATOR = np.random.default_rng(3)


def _unit(n: int) -> np.ndarray:
    vectors = GENERATOR.standard_normal((n, D)).astype(np.float32)
    unit: np.ndarray = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@pytest.fixture(scope="module")
def index() -> EmbeddingIndex:
    return EmbeddingIndex(
        [f"t{n}" for n in range(N)], np.concatenate([_unit(N), _unit(N)], axis=1), SPACES
    )


@pytest.fixture(scope="module")
def words() -> Query:
    return Query((_unit(1), _unit(1)), "text")


@pytest.mark.parametrize("blend", [0.0, 0.4, 1.0])
def test_score_is_the_weighted_mean_of_the_terms(
    index: EmbeddingIndex, words: Query, blend: float
) -> None:
    """Weights 2, -1 and 0.5: (2 a - b + 0.5 c) / 3.5."""
    liked, disliked = index.track_query(["t3"]), index.track_query(["t7"])
    question, _ = index.compose([words, disliked, liked], [2.0, -1.0, 0.5])
    plain = [index.scores(query, blend)[0] for query in (words, disliked, liked)]
    expected = (2 * plain[0] - plain[1] + 0.5 * plain[2]) / 3.5
    np.testing.assert_allclose(index.scores(question, blend)[0], expected, atol=2e-5)


def test_a_single_term_is_the_plain_question(index: EmbeddingIndex, words: Query) -> None:
    for weight, sign in ((1.0, 1), (5.0, 1), (-3.0, -1)):
        found = index.scores(index.compose([words], [weight])[0], 0.3)
        np.testing.assert_allclose(found, sign * index.scores(words, 0.3), atol=1e-5)


@pytest.mark.parametrize("blend", [0.0, 0.4, 1.0])
def test_what_terms_add_is_the_score(index: EmbeddingIndex, words: Query, blend: float) -> None:
    rows = np.array([0, 5, 39])
    for question, terms in (
        index.compose([words, index.track_query(["t1"])], [1.0, -0.5]),
        index.profile_query(["t1", "t2", "t9"], 0.1, 0.0),
        index.profile_query(["t1", "t2", "t9"], 0.1, 0.7),
    ):
        parts = index.parts(question, blend, rows)[0]
        shares = [index.parts(term, blend, rows)[0] for term in terms]
        np.testing.assert_allclose(np.sum(shares, axis=0), parts, atol=1e-5)
        np.testing.assert_allclose(
            parts.sum(axis=1), index.scores(question, blend)[0][rows], atol=1e-5
        )


def test_terms_must_be_there_and_weigh_something(index: EmbeddingIndex, words: Query) -> None:
    with pytest.raises(DataError, match="at least one term"):
        index.compose([], [])
    for weight in (0.0, float("nan"), float("inf")):
        with pytest.raises(DataError, match="other than 0"):
            index.compose([words, words], [1.0, weight])


def test_meaning_alone_composes_too(words: Query) -> None:
    index = EmbeddingIndex(["a", "b", "c"], _unit(3), SPACES[:1])
    query = Query(words.vectors[:1], "text")
    question, _ = index.compose([query, index.track_query(["a"])], [1.0, -1.0])
    expected = (index.scores(query, 0.0) - index.scores(index.track_query(["a"]), 0.0)) / 2
    np.testing.assert_allclose(index.scores(question, 0.0), expected, atol=1e-5)


@pytest.mark.parametrize("hub_correction", [0.0, 0.7])
def test_audience_scores_as_each_listener_alone(
    index: EmbeddingIndex, hub_correction: float
) -> None:
    listeners = [["t1", "t2"], ["t5"], ["t9", "t0", "t30", "t31"]]
    seeds = [np.array([index.rows[track] for track in tracks]) for tracks in listeners]
    audience = build_audience(index, seeds, 0.1, hub_correction)
    for row in (0, 17):
        parts = index.parts(audience, 0.4, np.array([row]))[:, 0]
        for number, tracks in enumerate(listeners):
            query, _ = index.profile_query(tracks, 0.1, hub_correction)
            np.testing.assert_allclose(
                parts[number], index.parts(query, 0.4, np.array([row]))[0, 0], atol=1e-4
            )


def test_an_audience_of_nobody_is_empty(index: EmbeddingIndex) -> None:
    nobody = build_audience(index, [], 0.1, 0.0)
    assert index.parts(nobody, 0.5, np.array([3])).shape == (0, 1, 2)
