"""The parts of the asking benchmark: each correction and weight by hand, and the paired table."""

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ponticello.search.profile import fit_profiles

BENCH = Path(__file__).parents[2] / "bench"


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The other ways to ask, as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("asking_options")


@pytest.fixture
def asking(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module("asking")


def _unit(rows: list[list[float]]) -> np.ndarray:
    found = np.array(rows)
    unit: np.ndarray = found / np.linalg.norm(found, axis=1, keepdims=True)
    return unit


def test_nearness_is_the_mean_of_the_nearest_and_never_counts_an_item_itself(options: Any) -> None:
    """Items (1, 0) and (0, 1) to a bank of (1, 0), (0.6, 0.8): means 0.8 and 0.4; to each other 0."""
    items, bank = np.eye(2), np.array([[1.0, 0.0], [0.6, 0.8]])
    assert options.nearness(items, bank) == pytest.approx([0.8, 0.4])
    assert options.nearness(items, items) == pytest.approx([0.0, 0.0])


def test_only_the_ten_nearest_of_a_large_bank_count(options: Any) -> None:
    bank = np.concatenate([np.tile([[1.0, 0.0]], (5, 1)), np.tile([[0.0, 1.0]], (40, 1))])
    assert options.nearness(np.array([[1.0, 0.0]]), bank) == pytest.approx([0.5])


@pytest.mark.parametrize("name", ["csls", "local_scaling", "inverted_softmax", "centred"])
def test_a_correction_takes_the_first_place_from_a_hub(options: Any, name: str) -> None:
    """The hub lies in the middle of all queries and is nearest to each; the query's own item is a little farther."""
    directions = _unit([[1, 0, 0], [0, 1, 0], [0, 0, 1]])
    queries = _unit((directions + 0.9).tolist())
    items = np.concatenate([_unit([[1, 1, 1]]), _unit((directions + 0.1).tolist())])
    assert options.plain(queries, items, queries).argmax(axis=1).tolist() == [0, 0, 0]
    assert getattr(options, name)(queries, items, queries).argmax(axis=1).tolist() == [1, 2, 3]


def test_agreeing_seeds_weigh_more_than_the_one_that_differs(options: Any) -> None:
    """Around a middle of 0: two seeds at (1, 0), one at (0, 1). Mean cosines 0.5, 0.5, 0; so exp(-2 x 0.5) for it."""
    profiles = fit_profiles(np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]), 0.1)
    seeds = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert options.agreement(profiles, seeds, 2.0) == pytest.approx([1.0, 1.0, np.exp(-1.0)])
    assert options.agreement(profiles, seeds[:1], 2.0) == pytest.approx([1.0])


def test_recency_halves_and_equal_weights_are_todays_direction(options: Any) -> None:
    assert options.recency(3, 1.0).tolist() == [1.0, 0.5, 0.25]
    vectors = np.random.default_rng(0).standard_normal((20, 4))
    profiles = fit_profiles(vectors, 0.1)
    weighed = options.weighted_direction(profiles, vectors[:5], np.full(5, 3.0))
    np.testing.assert_allclose(weighed, profiles.direction(vectors[:5]), rtol=1e-6)
    alone = options.weighted_direction(profiles, vectors[:2], np.array([1.0, 0.0]))
    np.testing.assert_allclose(alone, profiles.direction(vectors[:1]), rtol=1e-6)


def test_a_new_track_moves_to_its_artists_known_ones_and_no_other_does(options: Any) -> None:
    """Half of (0, 1) and half of the mean of (1, 0) and (0.6, 0.8), which is (0.8, 0.4): (0.4, 0.7), at unit length."""
    vectors = np.array([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.0, 1.0]])
    known = np.array([True, True, False, False])
    moved = options.with_artist(vectors, ["Ann", "Ann", "Ann", "Bob"], known, ~known, 0.5)
    np.testing.assert_allclose(moved[2], np.array([0.4, 0.7]) / np.hypot(0.4, 0.7), atol=1e-6)
    np.testing.assert_allclose(moved[[0, 1, 3]], vectors[[0, 1, 3]], atol=1e-6)


def test_the_table_holds_means_and_the_interval_of_paired_differences(asking: Any) -> None:
    """Every query gains 0.25 exactly, so the interval has no width; nan is in neither."""
    now = np.array([0.0, 0.5, np.nan])
    run = asking.Run({asking.AS_NOW: {"R@10": now}, "other": {"R@10": now + 0.25}}, ["x", "y", "y"])
    lines = asking.table([run, run]).splitlines()
    assert lines[0] == "| | R@10 |"
    assert lines[2:] == ["| nothing on | 0.2500 |", "| other | 0.5000 [+0.2500, +0.2500] |"]


def test_queries_of_one_cluster_are_drawn_together_across_seeds(asking: Any) -> None:
    """Two clusters, gains 0 and 1: the interval spans both ends however many queries each holds."""
    now, then = np.zeros(40), np.repeat([0.0, 1.0], 20)
    run = asking.Run({asking.AS_NOW: {"q": now}, "other": {"q": then}}, ["x"] * 20 + ["y"] * 20)
    assert asking.table([run]).splitlines()[-1] == "| other | 0.5000 [+0.0000, +1.0000] |"


def test_later_copies_and_those_of_what_was_met_are_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))
    copies = importlib.import_module("asking_copies")
    answer = [SimpleNamespace(track_id=name) for name in ("a", "b (copy)", "a (copy)", "c", "b")]
    assert copies._without_repeats(answer, set()) == ["a", "b (copy)", "c"]
    assert copies._without_repeats(answer, {"c"}) == ["a", "b (copy)"]
    assert copies._n_repeats(answer, {"c"}) == 3
    assert copies._n_shared(answer, answer[3:]) == 2
