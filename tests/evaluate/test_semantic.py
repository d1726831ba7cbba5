"""The meaning side: retrieval figures by hand, and a linear probe that can read what is there and only that."""

from typing import Any

import numpy as np
import pytest

from ponticello.errors import DataError
from ponticello.evaluate.semantic import linear_probe, retrieval_figures

ROLES = ["train"] * 40 + ["validation"] * 20 + ["test"] * 20


def _noise(d: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((80, d))


def _two_classes(n: int = 80) -> list[Any]:
    return ["left" if row % 2 else "right" for row in range(n)]


def _separable() -> np.ndarray:
    """The sign of the first column tells the class."""
    vectors = _noise()
    vectors[:, 0] = np.where(np.arange(80) % 2, -1, 1) * (1 + np.abs(vectors[:, 0]))
    return vectors


def test_retrieval_figures_by_hand() -> None:
    """Query i points at item i; twelve items on a line. Targets at ranks 1, 2 and 12: 2/3 within ten, median 2."""
    items = np.stack([np.linspace(1, 0.1, 12), np.zeros(12)], axis=1)
    queries = np.tile([[1.0, 0.0]], (3, 1))
    figures = retrieval_figures(queries, items, np.array([0, 1, 11]))
    assert figures["recall@10"] == pytest.approx(2 / 3)
    assert figures["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 12) / 3)
    assert figures["median_rank"] == 2.0


def test_separable_classes_are_all_read() -> None:
    probe = linear_probe(_separable(), _two_classes(), ROLES)
    assert probe.metric == "accuracy"
    assert probe.per_query.tolist() == [1.0] * 20
    assert probe.rows.tolist() == list(range(60, 80))
    assert (probe.n_train, probe.n_classes) == (40, 2)


def test_labels_that_are_not_there_are_read_no_better_than_by_chance() -> None:
    """Mean over twenty draws of vectors that know nothing: chance is 1/2, give or take 1/2 / sqrt(400) = 0.025."""
    accuracies = [linear_probe(_noise(seed=seed), _two_classes(), ROLES).per_query.mean() for seed in range(20)]
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.075)


def test_several_labels_a_track_are_read_one_by_one() -> None:
    """Two labels, each the sign of its own column: ROC-AUC 1 for both."""
    vectors = _noise()
    vectors[:, :2] += np.sign(vectors[:, :2])
    labels = [[name for name, value in zip(("a", "b"), row, strict=False) if value > 0] for row in vectors]
    labels = [label or ["c"] for label in labels]
    probe = linear_probe(vectors, labels, ROLES)
    assert probe.metric == "macro ROC-AUC"
    assert probe.per_query[:2].tolist() == [1.0, 1.0]
    assert probe.rows.tolist() == []
    assert probe.n_classes == 3


def test_several_labels_that_are_not_there_give_an_auc_near_one_half() -> None:
    generator = np.random.default_rng(3)
    labels = [[name for name in "abcd" if generator.random() < 0.5] for _ in range(80)]
    figures = [linear_probe(_noise(seed=seed), labels, ROLES).per_query.mean() for seed in range(5)]
    assert np.mean(figures) == pytest.approx(0.5, abs=0.08)


def test_strength_is_chosen_on_validation_tracks() -> None:
    """Training: 30 left, 10 right. The strongest regularisation answers left always, the weaker ones read the sign.

    Validation tracks reward reading. Every test track looks right and is labelled left, so that a strength chosen on
    test tracks would score 1; the one chosen on validation tracks scores 0.
    """
    is_right = np.array([False] * 30 + [True] * 10 + [False, True] * 10 + [True] * 20)
    vectors = np.where(is_right, 1.0, -1.0)[:, None] + 0.01 * _noise(1)
    labels = ["right" if right else "left" for right in is_right[:60]] + ["left"] * 20
    assert linear_probe(vectors, labels, ROLES).per_query.tolist() == [0.0] * 20


def test_without_validation_tracks_the_probe_still_reads_or_says_why_not() -> None:
    """Training: 45 left, 15 right; the sign tells. The strongest regularisation answers left always."""
    is_right = np.array([False] * 45 + [True] * 15 + [False, True] * 10)
    vectors = np.where(is_right, 1.0, -1.0)[:, None] + 0.01 * _noise(1)
    labels = ["right" if right else "left" for right in is_right]
    roles = ["train"] * 60 + ["test"] * 20
    try:
        assert linear_probe(vectors, labels, roles).per_query.mean() == 1.0
    except DataError as error:
        assert "validation" in str(error)  # noqa: PT017


def test_changed_test_labels_change_the_marks_but_not_the_answers() -> None:
    labels = _two_classes()
    vectors = _noise(seed=5)
    swapped = labels[:60] + ["right" if label == "left" else "left" for label in labels[60:]]
    first, second = linear_probe(vectors, labels, ROLES), linear_probe(vectors, swapped, ROLES)
    assert (first.per_query + second.per_query).tolist() == [1.0] * 20
    assert 0 < first.per_query.mean() < 1


def test_test_labels_never_seen_in_training_are_left_out() -> None:
    labels = _two_classes()
    labels[60], labels[79] = "new", None
    probe = linear_probe(_separable(), labels, ROLES)
    assert probe.rows.tolist() == list(range(61, 79))
    assert probe.per_query.tolist() == [1.0] * 18
    assert probe.n_classes == 2


def test_unlabelled_tracks_and_those_of_no_role_are_not_trained_on() -> None:
    labels = _two_classes()
    labels[0], labels[1] = None, ""
    assert linear_probe(_separable(), labels, ROLES).n_train == 38
    assert linear_probe(_separable(), _two_classes(), ["new", *ROLES[1:]]).n_train == 39
    lists: list[Any] = [[label] for label in _two_classes()]
    lists[0], lists[1] = [], None
    assert linear_probe(_separable(), lists, ROLES).n_train == 38


def test_scale_of_a_column_changes_nothing() -> None:
    vectors = _noise(seed=2)
    scaled = vectors * np.array([1000.0, 1.0, 0.001]) + 3
    first, second = (linear_probe(found, _two_classes(), ROLES) for found in (vectors, scaled))
    assert first.per_query.tolist() == second.per_query.tolist()


def test_one_label_in_training_is_too_few() -> None:
    labels = ["left"] * 40 + _two_classes(40)
    with pytest.raises(DataError, match="1 labels in training and 10 test tracks carrying one of them"):
        linear_probe(_noise(), labels, ROLES)


def test_test_tracks_with_new_labels_only_are_too_few() -> None:
    labels = _two_classes(60) + ["new"] * 19 + ["left"]
    with pytest.raises(DataError, match="2 labels in training and 1 test tracks carrying one of them"):
        linear_probe(_noise(), labels, ROLES)


def test_labels_on_every_test_track_have_no_auc() -> None:
    labels = [["a"] if row % 2 else ["b"] for row in range(60)] + [["a", "b"]] * 20
    with pytest.raises(DataError, match="no label has both a track that carries it and one that does not"):
        linear_probe(_noise(), labels, ROLES)
