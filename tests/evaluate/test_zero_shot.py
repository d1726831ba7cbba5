"""Labels of tracks and zero-shot tagging: by hand, against scikit-learn, and random rows against
simulation.
"""

import doctest

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ponticello.errors import DataError
from ponticello.evaluate import labels as tagging
from ponticello.evaluate.baselines import unit
from ponticello.evaluate.labels import (
    accuracy_scores,
    ensemble,
    is_learnable,
    known_labels,
    label_scores,
    prompts,
    zero_shot_scores,
)

LABELS = ["jazz", "metal", "pop"]


def random_vectors(n: int, d: int, seed: int) -> np.ndarray:
    """Returns (n, d) random unit vectors."""
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def _names(n: int, prefix: str = "track") -> list[str]:
    return [f"{prefix} {number}" for number in range(n)]


def _several(n: int, seed: int = 0) -> list[set[str]]:
    generator = np.random.default_rng(seed)
    return [{label for label in LABELS if generator.random() < 0.4} or {"pop"} for _ in range(n)]


def test_labels_are_read_from_texts_lists_and_gaps() -> None:
    assert known_labels(["rock", None, "", "pop"]) == ([{"rock"}, set(), set(), {"pop"}], False)
    assert known_labels([["rock", "pop"], [], None, ["pop", "pop", None, ""]]) == (
        [{"rock", "pop"}, set(), set(), {"pop"}],
        True,
    )
    assert known_labels([0, 1990]) == ([{"0"}, {"1990"}], False)
    assert known_labels([]) == ([], False)


def test_prompts_hold_the_words_of_a_label() -> None:
    assert prompts(["rock"]) == [["rock", "rock music", "a piece of rock music"]]
    assert prompts(["mood/theme---very_happy", "{label}"]) == [
        ["very happy", "very happy music", "a piece of very happy music"],
        ["{label}", "{label} music", "a piece of {label} music"],
    ]


def test_an_ensemble_is_the_unit_vector_in_the_middle_of_its_prompts() -> None:
    vectors = random_vectors(5, 8, 0)
    mean = sum(row.astype(np.float64) for row in vectors) / 5
    found = ensemble(vectors)
    assert found == pytest.approx(mean / np.sqrt((mean**2).sum()), abs=1e-12)
    assert np.linalg.norm(found) == pytest.approx(1.0, abs=1e-12)
    assert ensemble(vectors[:1]) == pytest.approx(vectors[0], abs=1e-6)


def test_prompts_without_a_direction_are_refused() -> None:
    with pytest.raises(
        DataError, match="the mean of 2 prompt vectors has length 0, and so no direction"
    ):
        ensemble(np.array([[1.0, 0.0], [-1.0, 0.0]]))
    with pytest.raises(DataError, match="has length nan"):
        ensemble(np.array([[np.nan, 0.0]]))


def test_label_scores_equal_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    carried = generator.random((80, 6)) < np.linspace(0.1, 0.8, 6)
    told = {
        "fine": generator.random((80, 6)) + carried,
        "coarse": generator.integers(0, 3, (80, 6)) + 0.5 * carried,
    }
    roc, pr = label_scores("some task", carried, told, _names(6, "label"))
    assert (roc.metric, roc.of_record, pr.metric, pr.of_record) == (
        "macro ROC-AUC",
        True,
        "macro PR-AUC",
        False,
    )
    assert (roc.section, roc.task, roc.queries, roc.clusters) == (
        "semantic",
        "some task",
        _names(6, "label"),
        None,
    )
    for method, scores in told.items():
        wanted = [roc_auc_score(carried[:, number], scores[:, number]) for number in range(6)]
        assert roc.by_method[method] == pytest.approx(wanted, abs=1e-12)
        wanted = [
            average_precision_score(carried[:, number], scores[:, number]) for number in range(6)
        ]
        assert pr.by_method[method] == pytest.approx(wanted, abs=1e-12)


def test_random_label_scores_equal_a_simulation_and_scores_all_alike() -> None:
    """40 draws of 2,000 tracks: average precision at random lies above the prevalence by about
    ln(n) / n = 0.004.
    """
    generator = np.random.default_rng(1)
    carried = generator.random((2000, 3)) < np.array([0.05, 0.3, 0.7])
    told = {str(draw): generator.random((2000, 3)) for draw in range(40)}
    roc, pr = label_scores("task", carried, {**told, "alike": np.zeros((2000, 3))}, LABELS)
    for scores in (roc, pr):
        simulated = np.mean([scores.by_method[draw] for draw in told], axis=0)
        assert scores.by_method["random"] == pytest.approx(simulated, abs=0.01)
        assert scores.by_method["random"] == pytest.approx(scores.by_method["alike"], abs=1e-12)


def test_a_label_can_be_told_if_some_tracks_carry_it_and_some_do_not() -> None:
    assert is_learnable(np.array([[True, False, True], [True, False, False]])).tolist() == [
        False,
        False,
        True,
    ]


def test_accuracy_stands_beside_an_even_guess() -> None:
    (scores,) = accuracy_scores("task", {"a": np.array([1.0, 0.0])}, 4, _names(2), ["x", "y"])
    assert (scores.metric, scores.of_record, scores.queries, scores.clusters) == (
        "accuracy",
        True,
        _names(2),
        ["x", "y"],
    )
    assert {method: found.tolist() for method, found in scores.by_method.items()} == {
        "random": [0.25, 0.25],
        "a": [1.0, 0.0],
    }


def test_zero_shot_of_several_labels_scores_the_cosine_with_each_prompt() -> None:
    audio, wanted, labels_of = random_vectors(50, 6, 0), random_vectors(3, 6, 1), _several(50)
    labels_of[7] = set()
    found, notes = zero_shot_scores(
        {"a": audio}, {"a": wanted}, labels_of, LABELS, _names(50), _names(50), "tags"
    )
    kept = [row for row in range(50) if row != 7]
    carried = np.array([[label in labels_of[row] for label in LABELS] for row in kept])
    cosines = audio[kept] @ wanted.T
    expected = label_scores("zero_shot:tags", carried, {"a": cosines}, LABELS)
    assert [(s.task, s.metric, s.queries, s.clusters) for s in found] == [
        ("zero_shot:tags", metric, LABELS, None) for metric in ("macro ROC-AUC", "macro PR-AUC")
    ]
    for scores, plain in zip(found, expected, strict=True):
        assert scores.by_method["a"] == pytest.approx(plain.by_method["a"], abs=1e-6)
        assert scores.by_method["random"].tolist() == plain.by_method["random"].tolist()
    assert notes == [
        "Zero-shot tags of 'tags': 3 labels; prompts: {label}, {label} music, a piece of {label} "
        "music."
    ]


def test_zero_shot_finds_planted_labels() -> None:
    """Each label is an axis; a track is the sum of its labels' axes."""
    labels_of = _several(40)
    audio = np.array([[float(label in found) for label in LABELS] for found in labels_of])
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    found, _ = zero_shot_scores(
        {"a": audio}, {"a": np.eye(3)}, labels_of, LABELS, _names(40), _names(40), "tags"
    )
    for scores in found:
        assert scores.by_method["a"].tolist() == [1.0, 1.0, 1.0]


def test_zero_shot_of_one_label_a_track_takes_the_closest_prompt() -> None:
    """Track 0 lies on its prompt, track 1 on another, track 2 is unlabelled, track 3 carries a
    label nobody asks for.

    Track 4 is as close to jazz as to metal, and so half right; track 5 is as close to all three, a
    third right.
    """
    audio = np.array(
        [[1, 0, 0, 0], [0, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 0], [0.6, 0.6, 0, 0], [0, 0, 0, 1]]
    )
    labels_of: list[set[str]] = [{"jazz"}, {"pop"}, set(), {"folk"}, {"metal"}, {"pop"}]
    clusters = _names(6, "artist")
    found, notes = zero_shot_scores(
        {"a": audio}, {"a": np.eye(4)[:3]}, labels_of, LABELS, _names(6), clusters, "genre"
    )
    (scores,) = found
    assert (scores.task, scores.metric, scores.of_record) == (
        "zero_shot:genre",
        "accuracy",
        True,
    )
    assert scores.queries == ["track 0", "track 1", "track 4", "track 5"]
    assert scores.clusters == ["artist 0", "artist 1", "artist 4", "artist 5"]
    assert scores.by_method["a"] == pytest.approx([1.0, 0.0, 0.5, 1 / 3])
    assert scores.by_method["random"] == pytest.approx(np.full(4, 1 / 3))
    assert notes == [
        "Zero-shot tags of 'genre': 3 labels, one a track; prompts: {label}, {label} music, a "
        "piece of {label} music."
    ]


def test_random_accuracy_equals_a_simulation() -> None:
    """300 draws of vectors and prompts that know nothing, 20 tracks each: standard error 0.006."""
    labels_of = [{LABELS[row % 3]} for row in range(20)]
    audio = {str(seed): random_vectors(20, 5, seed) for seed in range(300)}
    wanted = {str(seed): random_vectors(3, 5, seed + 300) for seed in range(300)}
    ((scores,), _) = zero_shot_scores(
        audio, wanted, labels_of, LABELS, _names(20), _names(20), "genre"
    )
    simulated = np.mean([scores.by_method[method] for method in audio])
    assert scores.by_method["random"].mean() == pytest.approx(simulated, abs=0.025)


def test_labels_no_test_track_or_every_one_carries_are_left_out_and_noted() -> None:
    labels = ["everywhere", "nowhere", *LABELS]
    labels_of = [{"everywhere", *found} for found in _several(30)]
    found, notes = zero_shot_scores(
        {"a": random_vectors(30, 6, 0)},
        {"a": random_vectors(5, 6, 1)},
        labels_of,
        labels,
        _names(30),
        _names(30),
        "x",
    )
    assert found[0].queries == LABELS
    wanted = random_vectors(5, 6, 1)[2:]
    alone, _ = zero_shot_scores(
        {"a": random_vectors(30, 6, 0)},
        {"a": wanted},
        labels_of,
        LABELS,
        _names(30),
        _names(30),
        "x",
    )
    assert found[0].by_method["a"] == pytest.approx(alone[0].by_method["a"])
    assert (
        notes[1]
        == "Zero-shot tags of 'x': 2 of 5 labels are left out: every test track carries them, or "
        "none."
    )


def test_only_methods_with_tracks_and_prompts_are_measured() -> None:
    audio, wanted = random_vectors(6, 4, 0), random_vectors(3, 4, 1)
    found, _ = zero_shot_scores(
        {"mel": audio, "a": audio},
        {"a": wanted, "text": wanted},
        _several(6),
        LABELS,
        _names(6),
        _names(6),
        "x",
    )
    assert list(found[0].by_method) == ["random", "a"]
    assert found[0].by_method["random"].tolist() == [0.5] * len(found[0].queries)
    refused = zero_shot_scores({"mel": audio}, {}, _several(6), LABELS, _names(6), _names(6), "x")
    assert refused == (
        [],
        [
            "Zero-shot tags of 'x' are not measured: no method has vectors of both tracks and "
            "prompts."
        ],
    )


@pytest.mark.parametrize(
    ("labels_of", "labels", "why"),
    [
        ([{"jazz"}, {"jazz"}], ["jazz"], "1 labels and 2 labelled test tracks"),
        ([{"jazz"}, set()], ["jazz", "pop"], "2 labels and 1 labelled test tracks"),
        (
            [{"jazz", "pop"}] * 2,
            ["jazz", "pop"],
            "each label is on all of 2 test tracks or on none",
        ),
    ],
)
def test_what_cannot_be_told_from_prompts_is_noted(
    labels_of: list[set[str]], labels: list[str], why: str
) -> None:
    audio, wanted = random_vectors(2, 4, 0), random_vectors(len(labels), 4, 1)
    found = zero_shot_scores(
        {"a": audio}, {"a": wanted}, labels_of, labels, _names(2), _names(2), "x"
    )
    assert found == ([], [f"Zero-shot tags of 'x' are not measured: {why}."])


def test_the_examples_in_the_docstrings_run() -> None:
    assert doctest.testmod(tagging).failed == 0
