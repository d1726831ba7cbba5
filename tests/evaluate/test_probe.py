"""A linear probe reads what is there and only that, fits as scikit-learn does, and never looks at
test labels.
"""

from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.preprocessing import StandardScaler

from ponticello.evaluate import labels as probe
from ponticello.evaluate.labels import STRENGTHS, _fit, probe_scores
from ponticello.evaluate.results import Scores

ROLES = ["train"] * 40 + ["validation"] * 20 + ["test"] * 20


def _noise(d: int = 3, seed: int = 0, n: int = 80) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, d))


def _two_classes(n: int = 80) -> list[Any]:
    return ["left" if row % 2 else "right" for row in range(n)]


def _separable() -> np.ndarray:
    """The sign of the first column tells the class."""
    vectors = _noise()
    vectors[:, 0] = np.where(np.arange(80) % 2, -1, 1) * (1 + np.abs(vectors[:, 0]))
    return vectors


def _lists(vectors: np.ndarray, n_labels: int) -> list[Any]:
    """Label j where column j is above 0, with some noise; every track carries "all" too."""
    noisy = vectors[:, :n_labels] + 0.7 * _noise(n_labels, seed=99, n=len(vectors))
    return [["all", *(f"label {j}" for j in np.flatnonzero(row > 0))] for row in noisy]


def _names(n: int, prefix: str = "track") -> list[str]:
    return [f"{prefix} {number}" for number in range(n)]


def _probe(
    vectors: np.ndarray, labels: list[Any], roles: list[str] = ROLES
) -> tuple[list[Scores], list[str]]:
    n = len(labels)
    return probe_scores({"ours": vectors}, labels, roles, _names(n), _names(n, "artist"), "genre")


def _marks(vectors: np.ndarray, labels: list[Any], roles: list[str] = ROLES) -> list[float]:
    found: list[float] = _probe(vectors, labels, roles)[0][0].by_method["ours"].tolist()
    return found


def _strength(notes: list[str]) -> float:
    return float(notes[0].rsplit(" ", 1)[1].removesuffix("."))


def test_separable_classes_are_all_read() -> None:
    (scores,), notes = _probe(_separable(), _two_classes())
    assert (scores.section, scores.task, scores.metric, scores.of_record) == (
        "semantic",
        "probe:genre",
        "accuracy",
        True,
    )
    assert scores.by_method["ours"].tolist() == [1.0] * 20
    assert scores.queries == [f"track {row}" for row in range(60, 80)]
    assert scores.clusters == [f"artist {row}" for row in range(60, 80)]
    assert notes == [
        "Probe on 'genre': logistic regression on 40 training tracks, 2 labels; inverse "
        "regularisation chosen on 20 "
        "validation tracks (1 where they cannot tell): ours 0.001."
    ]


def test_labels_that_are_not_there_are_read_no_better_than_by_chance() -> None:
    """Mean over twenty draws of vectors that know nothing: chance is 1/2, give or take 1/2 /
    sqrt(400) = 0.025.
    """
    accuracies = [np.mean(_marks(_noise(seed=seed), _two_classes())) for seed in range(20)]
    assert np.mean(accuracies) == pytest.approx(0.5, abs=0.075)


def test_planted_labels_are_read_and_the_same_ones_shuffled_are_not() -> None:
    """150 test tracks: the standard error of an even guess is 0.04."""
    vectors = _noise(8, n=400)
    vectors[:, 0] += 0.5 * np.sign(vectors[:, 0])
    labels = ["up" if row[0] > 0 else "down" for row in vectors]
    roles = ["train"] * 200 + ["validation"] * 50 + ["test"] * 150
    shuffled = np.random.default_rng(0).permutation(labels).tolist()
    assert np.mean(_marks(vectors, labels, roles)) > 0.95
    assert np.mean(_marks(vectors, shuffled, roles)) == pytest.approx(0.5, abs=0.12)


def test_several_labels_a_track_are_read_one_by_one() -> None:
    """Two labels, each the sign of its own column: ROC-AUC 1 for both; "c" is on every track with
    neither.
    """
    vectors = _noise()
    vectors[:, :2] += np.sign(vectors[:, :2])
    labels = [
        [name for name, value in zip(("a", "b"), row, strict=False) if value > 0] or ["c"]
        for row in vectors
    ]
    roc, pr = _probe(vectors, labels)[0]
    assert [(s.metric, s.of_record, s.clusters) for s in (roc, pr)] == [
        ("macro ROC-AUC", True, None),
        ("macro PR-AUC", False, None),
    ]
    assert roc.queries == ["a", "b", "c"]
    assert roc.by_method["ours"][:2].tolist() == [1.0, 1.0]
    assert pr.by_method["ours"][:2].tolist() == [1.0, 1.0]


def test_several_labels_that_are_not_there_give_an_auc_near_one_half() -> None:
    generator = np.random.default_rng(3)
    labels = [[name for name in "abcd" if generator.random() < 0.5] for _ in range(80)]
    figures = [np.mean(_marks(_noise(seed=seed), labels)) for seed in range(5)]
    assert np.mean(figures) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(("n", "d", "n_classes"), [(60, 5, 2), (60, 5, 4), (20, 40, 3)])
def test_one_label_a_track_is_fitted_as_scikit_learn_fits_it(
    n: int, d: int, n_classes: int
) -> None:
    """Differences of scores between classes, which is all a softmax fixes; with two, scikit-learn
    has one line.
    """
    vectors = StandardScaler().fit_transform(_noise(d, n=n))
    number = (vectors[:, :n_classes] + _noise(n_classes, seed=1, n=n)).argmax(axis=1)
    for strength, (weights, offset) in _fit(
        vectors, np.eye(n_classes, dtype=bool)[number], False
    ).items():
        model = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(vectors, number)
        found, wanted = vectors @ weights + offset, model.decision_function(vectors)
        if n_classes == 2:
            assert found[:, 1] == pytest.approx(wanted, abs=0.005)
        else:
            centred = wanted - wanted.mean(axis=1, keepdims=True)
            assert found - found.mean(axis=1, keepdims=True) == pytest.approx(centred, abs=0.005)


@pytest.mark.parametrize(("n", "d"), [(60, 5), (30, 50)])
def test_several_labels_are_fitted_as_scikit_learn_fits_each(n: int, d: int) -> None:
    vectors = StandardScaler().fit_transform(_noise(d, n=n))
    targets = vectors[:, :4] + _noise(4, seed=1, n=n) > np.array([-1.0, 0.0, 0.5, 1.5])
    lines = _fit(vectors, targets, True)
    assert tuple(lines) == STRENGTHS
    for strength, (weights, offset) in lines.items():
        for label in range(4):
            model = LogisticRegression(C=strength, tol=1e-8, max_iter=10_000).fit(
                vectors, targets[:, label]
            )
            assert weights[:, label] == pytest.approx(model.coef_[0], abs=0.005)
            assert offset[label] == pytest.approx(model.intercept_[0], abs=0.005)


@pytest.mark.parametrize("several", [False, True])
def test_figures_equal_a_plain_search_with_scikit_learn(several: bool) -> None:
    """Centre, scale, fit, choose and measure with scikit-learn; two labels so that one line is all
    there is.
    """
    vectors = _noise(6, seed=4) * np.array([3, 1, 1, 1, 1, 0.1]) + 5
    is_up = vectors[:, 1] + _noise(1, seed=5)[:, 0] > 5
    labels: list[Any] = (
        [["up"] if up else ["down"] for up in is_up]
        if several
        else ["up" if u else "down" for u in is_up]
    )
    train, validation, test = slice(0, 40), slice(40, 60), slice(60, 80)
    centred = StandardScaler(with_std=False).fit(vectors[train]).transform(vectors)
    scaled = centred / np.sqrt((centred[train] ** 2).mean())
    models = [
        LogisticRegression(C=c, tol=1e-8, max_iter=10_000).fit(scaled[train], is_up[train])
        for c in STRENGTHS
    ]

    def figure(model: Any, rows: slice) -> float:
        told = model.decision_function(scaled[rows])
        return float(
            roc_auc_score(is_up[rows], told) if several else ((told > 0) == is_up[rows]).mean()
        )

    best = max(range(len(STRENGTHS)), key=lambda number: figure(models[number], validation))
    scores, notes = _probe(vectors, labels)
    assert _strength(notes) == STRENGTHS[best]
    assert scores[0].by_method["ours"].mean() == pytest.approx(
        figure(models[best], test), abs=1e-12
    )
    if several:
        told = models[best].decision_function(scaled[test])
        wanted = [
            average_precision_score(~is_up[test], -told),
            average_precision_score(is_up[test], told),
        ]
        assert scores[1].by_method["ours"] == pytest.approx(wanted, abs=1e-12)


def test_strength_is_chosen_on_validation_tracks() -> None:
    """Training: 30 left, 10 right. The strongest regularisation answers left always, the weaker
    ones read the sign.

    Validation tracks reward reading. Every test track looks right and is labelled left, so that a
    strength chosen on test tracks would score 1; the one chosen on validation tracks scores 0.
    """
    is_right = np.array([False] * 30 + [True] * 10 + [False, True] * 10 + [True] * 20)
    vectors = np.where(is_right, 1.0, -1.0)[:, None] + 0.01 * _noise(1)
    labels = ["right" if right else "left" for right in is_right[:60]] + ["left"] * 20
    assert _marks(vectors, labels) == [0.0] * 20


def test_changed_test_labels_change_neither_the_strength_nor_the_answers() -> None:
    labels, vectors = _two_classes(), _noise(seed=5)
    swapped = labels[:60] + ["right" if label == "left" else "left" for label in labels[60:]]
    first, second = _probe(vectors, labels), _probe(vectors, swapped)
    assert (first[0][0].by_method["ours"] + second[0][0].by_method["ours"]).tolist() == [1.0] * 20
    assert 0 < first[0][0].by_method["ours"].mean() < 1
    assert first[1] == second[1]


def test_strength_of_several_labels_does_not_depend_on_which_ones_test_tracks_can_tell() -> None:
    """Test tracks of every label, or of one alone: the strength is chosen for all labels of
    training either way.
    """
    strengths = []
    for seed in range(8):
        lists = _lists(_noise(8), 6)
        fewer = [*lists[:60], *([["all", "label 0"], ["all"]] * 10)]
        vectors = _noise(8) + _noise(8, seed=seed + 1)
        several, one = _probe(vectors, lists), _probe(vectors, fewer)
        assert (len(several[0][0].queries), len(one[0][0].queries)) == (6, 1)
        assert _strength(several[1]) == _strength(one[1])
        strengths.append(_strength(one[1]))
    assert len(set(strengths)) > 1


def test_validation_labels_do_change_the_strength() -> None:
    vectors = _noise(8)
    lists = _lists(vectors, 6)
    generator = np.random.default_rng(0)
    found = {
        _strength(
            _probe(
                vectors,
                [*lists[:40], *generator.permutation(np.array(lists[40:60], object)), *lists[60:]],
            )[1]
        )
        for _ in range(8)
    }
    assert len(found) > 1


@pytest.mark.parametrize(
    "roles", [["train"] * 60 + ["test"] * 20, ["train"] * 59 + ["validation"] + ["test"] * 20]
)
def test_without_validation_tracks_that_can_tell_the_strength_is_one(roles: list[str]) -> None:
    """A single validation track holds no label both carried and not."""
    lists = _lists(_noise(), 2)
    assert _strength(_probe(_noise(), lists, roles)[1]) == 1.0
    assert _strength(_probe(_separable(), _two_classes(), ["train"] * 60 + ["test"] * 20)[1]) == 1.0


def test_test_labels_never_seen_in_training_are_left_out_and_noted() -> None:
    labels = _two_classes()
    labels[60], labels[79] = "new", None
    (scores,), notes = _probe(_separable(), labels)
    assert scores.queries == [f"track {row}" for row in range(61, 79)]
    assert scores.by_method["ours"].tolist() == [1.0] * 18
    assert scores.by_method["random"].tolist() == [0.5] * 18
    assert (
        notes[1]
        == "Probe on 'genre': 1 test tracks are left out: no training track carries any of their "
        "labels."
    )


def test_unlabelled_tracks_and_those_of_no_role_are_not_trained_on() -> None:
    labels = _two_classes()
    labels[0], labels[1] = None, ""
    assert "on 38 training tracks" in _probe(_separable(), labels)[1][0]
    assert (
        "on 39 training tracks" in _probe(_separable(), _two_classes(), ["new", *ROLES[1:]])[1][0]
    )
    lists: list[Any] = [[label] for label in _two_classes()]
    lists[0], lists[1] = [], None
    assert "on 38 training tracks" in _probe(_separable(), lists)[1][0]


@pytest.mark.parametrize("several", [False, True])
def test_moving_scaling_or_turning_all_vectors_changes_nothing(several: bool) -> None:
    vectors = _noise(6, seed=2) * np.array([4.0, 2.0, 1.0, 1.0, 0.5, 0.1])
    labels = _lists(vectors, 3) if several else _two_classes()
    turn, _ = np.linalg.qr(_noise(6, seed=3, n=6))
    assert _marks(1000.0 * (vectors @ turn) + 3, labels) == pytest.approx(
        _marks(vectors, labels), abs=1e-9
    )


def test_louder_column_counts_for_more() -> None:
    """A column that tells the class, at a thousandth of the others' size, is hardly read;
    standardised it would be.
    """
    vectors = _separable() * np.array([0.001, 1.0, 1.0])
    assert np.mean(_marks(_separable(), _two_classes())) == 1.0
    assert np.mean(_marks(vectors, _two_classes())) < 0.8


def test_vectors_all_alike_answer_the_most_frequent_label() -> None:
    """Training: 25 left, 15 right, in no column; the probe has only its offsets, and so has
    "majority".
    """
    labels = ["left"] * 25 + ["right"] * 15 + _two_classes(40)
    (scores,), _ = _probe(np.ones((80, 3)), labels)
    wanted = [float(label == "left") for label in labels[60:]]
    assert scores.by_method["ours"].tolist() == wanted
    assert scores.by_method["majority"].tolist() == wanted
    assert list(scores.by_method) == ["random", "majority", "ours"]


def test_random_accuracy_equals_a_simulated_guess() -> None:
    """30,000 guesses among three labels: standard error 0.003."""
    labels = [("a", "b", "c")[row % 3] for row in range(80)]
    (scores,), _ = _probe(_noise(), labels)
    guesses = np.random.default_rng(0).choice(list("abc"), (1500, 20))
    assert scores.by_method["random"].mean() == pytest.approx(
        (guesses == np.array(labels[60:])).mean(), abs=0.012
    )


def test_labels_that_cannot_be_told_are_left_out_and_noted() -> None:
    """ "all": on every track; "rare": on four training tracks; "gone": on no test track; "test": on
    every test one.
    """
    vectors = _noise(n=80)
    lists: list[Any] = [["all", "up" if row[0] > 0 else "down"] for row in vectors]
    for row in range(4):
        lists[row].append("rare")
    for row in range(4, 12):
        lists[row].append("gone")
    for row in (*range(12, 20), *range(60, 80)):
        lists[row].append("test")
    lists[70].append("rare")
    (roc, pr), notes = _probe(vectors, lists)
    assert roc.queries == pr.queries == ["down", "up"]
    assert pr.by_method["random"] == pytest.approx(
        [np.mean(vectors[60:, 0] <= 0), np.mean(vectors[60:, 0] > 0)]
    )
    assert roc.by_method["random"].tolist() == [0.5, 0.5]
    assert notes[1:] == [
        "Probe on 'genre': 4 of 6 labels are left out: fewer than 5 training tracks carry them, or "
        "all do, or all test "
        "tracks do, or none."
    ]
    lists[4 + 8].append("rare")  # a fifth one
    assert _probe(vectors, lists)[0][0].queries == ["down", "rare", "up"]


def test_without_vectors_nothing_is_measured() -> None:
    found = probe_scores({}, _two_classes(), ROLES, _names(80), _names(80), "genre")
    assert found == ([], ["The probe on 'genre' is not measured: no method has vectors."])


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (
            ["left"] * 40 + _two_classes(40),
            "1 labels in training and 10 test tracks carrying one of them",
        ),
        (
            _two_classes(60) + ["new"] * 19 + ["left"],
            "2 labels in training and 1 test tracks carrying one of them",
        ),
        ([None] * 80, "0 labels in training and 0 test tracks carrying one of them"),
        (
            [["a"] if row % 2 else ["b"] for row in range(60)] + [["a", "b"]] * 20,
            "all 2 labels are left out: fewer than 5 training tracks carry them, or all do, or all "
            "test tracks do, or "
            "none",
        ),
        (
            [[f"label {row % 20}"] for row in range(80)],
            "all 20 labels are left out: fewer than 5 training tracks carry them, or all do, or "
            "all test tracks do, or "
            "none",
        ),
    ],
)
def test_what_cannot_be_measured_is_noted(labels: list[Any], why: str) -> None:
    assert _probe(_noise(), labels) == ([], [f"The probe on 'genre' is not measured: {why}."])


def test_a_fit_that_does_not_end_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe, "MAX_ITERATIONS", 1)
    scores, (note,) = _probe(_noise(), _two_classes())
    assert scores == []
    assert note.startswith(
        "The probe on 'genre' is not measured: at strength 0.001 the fit stopped after 1 steps"
    )
