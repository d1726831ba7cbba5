"""The made-up vectors of the search bench and how an answer is counted."""

import numpy as np

import search


def test_made_up_vectors_are_unit_in_each_space_and_the_spaces_are_akin() -> None:
    vectors = search.made_up(500, 0)
    assert vectors.shape == (500, 200)
    for side in (vectors[:, :100], vectors[:, 100:]):
        assert np.allclose(np.linalg.norm(side, axis=1), 1, atol=1e-5)
    assert np.array_equal(vectors, search.made_up(500, 0))
    near = [
        np.argsort(-(side @ side.T), axis=1)[:, 1:6]
        for side in (vectors[:, :100], vectors[:, 100:])
    ]
    shared = np.mean([len(np.intersect1d(a, b)) for a, b in zip(*near, strict=True)])
    assert shared > 0.3  # of 5; by chance 0.05


def test_exact_search_finds_all_and_half_an_answer_counts_half() -> None:
    vectors = search.made_up(400, 1)
    found = search.measured(None, vectors, search.made_up(5, 2), 5)
    assert {name: row["recall"] for name, row in found.items()} == {
        "0": 1.0,
        "0.5": 1.0,
        "1": 1.0,
        "filter": 1.0,
    }
    half = search.asked(lambda _, k: np.arange(k // 2), vectors[:1], [np.arange(10)])
    assert half["recall"] == 0.5
