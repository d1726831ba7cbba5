"""Which labels does a track carry? How well scores tell, and telling them without training, from a label's own words.

Dimensions: n tracks, L labels, p prompts of a label, d vector size.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ponticello.errors import DataError, ShapeError
from ponticello.evaluate.figures import RANDOM, Scores
from ponticello.evaluate.lists import average_precision
from ponticello.evaluate.metrics import SAME_SCORE, Bools, Floats, Ints, auc
from ponticello.evaluate.semantic import check_rows

TEMPLATES = ("{label}", "{label} music", "a piece of {label} music")
CATEGORY_END = "---"  # as in "mood/theme---happy"


def known_labels(labels: Sequence[Any]) -> tuple[list[set[str]], bool]:
    """The labels of every track as a set, and whether the column may hold several a track.

    labels: a column's values. None, "" and [] = unlabelled, an empty set; a list = several; anything else = one label,
    its text.

    >>> known_labels(["rock", None, ""])
    ([{'rock'}, set(), set()], False)
    """
    several = any(isinstance(label, list) for label in labels)
    lists = [label if isinstance(label, list) else [label] for label in labels]
    return [{str(name) for name in names if name is not None and name != ""} for names in lists], several


def prompts(labels: Sequence[str]) -> list[list[str]]:
    """What to ask a text encoder for each label: its words in every one of TEMPLATES.

    Underscores become spaces, and of "mood/theme---happy" the last part is taken.

    >>> prompts(["genre---deep_house"])
    [['deep house', 'deep house music', 'a piece of deep house music']]
    """
    words = [label.split(CATEGORY_END)[-1].replace("_", " ").strip() for label in labels]
    return [[template.format(label=word) for template in TEMPLATES] for word in words]


def ensemble(vectors: Floats) -> NDArray[np.float64]:
    """(d,) the one unit vector of a label: the mean of its prompts' unit vectors, at unit length again.

    vectors: (p, d), p at least 1, or ShapeError. DataError if they cancel out or are not finite.
    Source: the prompt ensembles of CLIP, Radford et al. 2021, section 3.1.4.

    >>> ensemble(np.array([[1.0, 0.0], [0.0, 1.0]])).round(4).tolist()
    [0.7071, 0.7071]
    """
    if vectors.ndim != 2 or not len(vectors):
        raise ShapeError(f"prompt vectors must be (p, d), p at least 1; found {vectors.shape}")
    mean = vectors.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if not length > SAME_SCORE or not np.isfinite(length):
        raise DataError(f"the mean of {len(vectors)} prompt vectors has length {length:.4g}, and so no direction")
    return np.asarray(mean / length)


def zero_shot_scores(
    audio: Mapping[str, np.ndarray],
    prompt_vectors: Mapping[str, np.ndarray],
    labels_of: list[set[str]],
    labels: list[str],
    queries: list[str],
    clusters: list[str],
    column: str,
) -> tuple[list[Scores], list[str]]:
    """How well the cosine with a label's prompt tells which test tracks carry it, and notes on what was left out.

    audio: a method's (n, d) unit vectors of the test tracks, row i of track queries[i] of artist clusters[i], which
        carries labels_of[i]; prompt_vectors: its (L, d) unit vectors, row j of labels[j], as of `ensemble`. ShapeError
        otherwise, DataError for a vector that is not finite. A method without either is not measured.
    labels: all of the column's, over all tracks of the table, whatever stands among the test tracks; distinct. A label
        that is not among them is not asked about. Unlabelled tracks are left out.

    Where no test track carries two labels: accuracy (of record) of the closest prompt, a query each track; prompts that
    tie share the track. Otherwise `label_scores`, a query each label; a label that no test track or every one of them
    carries is left out.
    """
    asked = [method for method in audio if method in prompt_vectors and method != RANDOM]
    for method in asked:
        _check(method, audio[method], prompt_vectors[method], len(labels), queries, clusters)
    if len(labels_of) != len(queries):
        raise ShapeError(f"{len(labels_of)} sets of labels for {len(queries)} queries; give one each")
    task, name = f"zero-shot tags: {column}", f"Zero-shot tags of {column!r}"
    several = any(len(found) > 1 for found in labels_of)
    answerable = set().union(*labels_of) if several else set(labels)
    rows = np.array([row for row, found in enumerate(labels_of) if found & answerable], dtype=np.int64)
    if not asked:
        return [], [f"{name} are not measured: no method has vectors of both tracks and prompts."]
    if len(labels) < 2 or len(rows) < 2:
        return [], [f"{name} are not measured: {len(labels)} labels and {len(rows)} labelled test tracks."]
    cosines = {method: audio[method][rows].astype(np.float64) @ prompt_vectors[method].T for method in asked}
    carried = np.array([[label in labels_of[row] for label in labels] for row in rows])  # (rows, L)
    if not several:
        hits = {method: _closest(found, carried.argmax(axis=1)) for method, found in cosines.items()}
        asked_of = [queries[row] for row in rows], [clusters[row] for row in rows]
        note = f"{name}: {len(labels)} labels, one a track; prompts: {', '.join(TEMPLATES)}."
        return accuracy_scores(task, hits, len(labels), *asked_of), [note]
    kept = np.flatnonzero(can_be_told(carried))
    if not len(kept):
        return [], [f"{name} are not measured: each label is on all of {len(rows)} test tracks or on none."]
    notes = [f"{name}: {len(kept)} labels; prompts: {', '.join(TEMPLATES)}."]
    if len(kept) < len(labels):
        left_out = f"{len(labels) - len(kept)} of {len(labels)} labels are left out"
        notes.append(f"{name}: {left_out}: every test track carries them, or none.")
    told = {method: found[:, kept] for method, found in cosines.items()}
    return label_scores(task, carried[:, kept], told, [labels[number] for number in kept]), notes


def label_scores(task: str, carried: Bools, told: Mapping[str, Floats], labels: list[str]) -> list[Scores]:
    """Macro ROC-AUC (of record) and macro PR-AUC, a query each label.

    carried: (n, L) bool, True where a track carries a label; of each label both must be there (`can_be_told`).
    told: a method's (n, L) scores, higher = rather carried. PR-AUC is the average precision, as scikit-learn has it.
    "random" is 0.5 in ROC-AUC, and in PR-AUC the share of tracks that carry the label, which scores all alike reach.
    """

    def each(metric: Callable[[Floats, Bools], float], scores: Floats) -> NDArray[np.float64]:
        return np.array([metric(scores[:, number], carried[:, number]) for number in range(len(labels))])

    roc = {RANDOM: np.full(len(labels), 0.5), **{method: each(auc, scores) for method, scores in told.items()}}
    precision = {method: each(average_precision, scores) for method, scores in told.items()}
    pr = {RANDOM: carried.mean(axis=0), **precision}
    return [
        Scores("meaning", task, "macro ROC-AUC", labels, None, roc, of_record=True),
        Scores("meaning", task, "macro PR-AUC", labels, None, pr),
    ]


def accuracy_scores(
    task: str, hits: Mapping[str, Floats], n_labels: int, queries: list[str], clusters: list[str]
) -> list[Scores]:
    """Accuracy (of record), a query each track. hits: a method's (n,) in [0, 1]; "random" guesses evenly."""
    by_method = {RANDOM: np.full(len(queries), 1 / n_labels), **hits}
    return [Scores("meaning", task, "accuracy", queries, clusters, by_method, of_record=True)]


def can_be_told(carried: Bools) -> Bools:
    """(L,) True for labels that some of the tracks carry and some do not. carried: (n, L) bool."""
    return np.asarray(carried.any(axis=0) & ~carried.all(axis=0))


def _closest(cosines: Floats, own: Ints) -> NDArray[np.float64]:
    """(n,) chance of naming each track's own label, when one of the closest is drawn. cosines: (n, L)."""
    best = cosines >= cosines.max(axis=1, keepdims=True) - SAME_SCORE
    return np.asarray(best[np.arange(len(own)), own] / best.sum(axis=1))


def _check(method: str, audio: Floats, wanted: Floats, n_labels: int, queries: list[str], clusters: list[str]) -> None:
    check_rows(method, audio, queries, clusters)
    if wanted.shape != (n_labels, audio.shape[1]):
        raise ShapeError(f"{method}: prompt vectors {wanted.shape} must be ({n_labels}, {audio.shape[1]})")
    if not np.isfinite(wanted).all():
        raise DataError(f"{method}: prompt vectors hold NaN or infinity; embed them again")
