"""Can a straight line read labels off the vectors? A linear probe: logistic regression on vectors
left as they are.

Dimensions: n tracks, N training tracks, d vector size, r dimensions the training vectors span, C
labels.

Which labels does a track carry? How well scores tell, and telling them without training, from a
label's own words.

Dimensions: n tracks, L labels, p prompts of a label, d vector size.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from ponticello.errors import DataError, ShapeError
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import RANDOM, Scores
from ponticello.evaluate.retrieval import check_rows
from ponticello.metrics.beyond_accuracy import average_precision
from ponticello.metrics.ranking import SAME_SCORE, Bools, Floats, Ints, auc
from ponticello.storage.schema import GENRES, MACHINE_TAGS, TAGS

LABEL_COLUMNS = (GENRES, TAGS, MACHINE_TAGS)  # measured where no others are named
TEMPLATES = ("{label}", "{label} music", "a piece of {label} music")
CATEGORY_END = "---"  # as in "mood/theme---happy"


def known_labels(labels: Sequence[Any]) -> tuple[list[set[str]], bool]:
    """The labels of every track as a set, and whether the column may hold several a track.

    labels: a column's values. None, "" and [] = unlabelled, an empty set; a list = several;
    anything else = one label, its text.

    >>> known_labels(["rock", None, ""])
    ([{'rock'}, set(), set()], False)
    """
    several = any(isinstance(label, list) for label in labels)
    lists = [label if isinstance(label, list) else [label] for label in labels]
    return [
        {str(name) for name in names if name is not None and name != ""} for names in lists
    ], several


def prompts(labels: Sequence[str]) -> list[list[str]]:
    """What to ask a text encoder for each label: its words in every one of TEMPLATES.

    Underscores become spaces, and of "mood/theme---happy" the last part is taken.

    >>> prompts(["genre---deep_house"])
    [['deep house', 'deep house music', 'a piece of deep house music']]
    """
    words = [label.split(CATEGORY_END)[-1].replace("_", " ").strip() for label in labels]
    return [[template.format(label=word) for template in TEMPLATES] for word in words]


def ensemble(vectors: Floats) -> NDArray[np.float64]:
    """(d,) the one unit vector of a label: the mean of its prompts' unit vectors, at unit length
    again.

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
        raise DataError(
            f"the mean of {len(vectors)} prompt vectors has length {length:.4g}, and so no direction"
        )
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
    """How well the cosine with a label's prompt tells which test tracks carry it, and notes on what
    was left out.

    audio: a method's (n, d) unit vectors of the test tracks, row i of track queries[i] of artist
    clusters[i], which
        carries labels_of[i]; prompt_vectors: its (L, d) unit vectors, row j of labels[j], as of
        `ensemble`. ShapeError otherwise, DataError for a vector that is not finite. A method
        without either is not measured.
    labels: all of the column's, over all tracks of the table, whatever stands among the test
    tracks; distinct. A label
        that is not among them is not asked about. Unlabelled tracks are left out.

    Where no test track carries two labels: accuracy (of record) of the closest prompt, a query each
    track; prompts that tie share the track. Otherwise `label_scores`, a query each label; a label
    that no test track or every one of them carries is left out.
    """
    asked = [method for method in audio if method in prompt_vectors and method != RANDOM]
    for method in asked:
        _check(method, audio[method], prompt_vectors[method], len(labels), queries, clusters)
    if len(labels_of) != len(queries):
        raise ShapeError(
            f"{len(labels_of)} sets of labels for {len(queries)} queries; give one each"
        )
    task, name = f"zero_shot:{column}", f"Zero-shot tags of {column!r}"
    several = any(len(found) > 1 for found in labels_of)
    answerable = set().union(*labels_of) if several else set(labels)
    rows = np.array(
        [row for row, found in enumerate(labels_of) if found & answerable], dtype=np.int64
    )
    if not asked:
        return [], [f"{name} are not measured: no method has vectors of both tracks and prompts."]
    if len(labels) < 2 or len(rows) < 2:
        return [], [
            f"{name} are not measured: {len(labels)} labels and {len(rows)} labelled test tracks."
        ]
    cosines = {
        method: audio[method][rows].astype(np.float64) @ prompt_vectors[method].T
        for method in asked
    }
    carried = np.array([[label in labels_of[row] for label in labels] for row in rows])  # (rows, L)
    if not several:
        hits = {
            method: _closest(found, carried.argmax(axis=1)) for method, found in cosines.items()
        }
        asked_of = [queries[row] for row in rows], [clusters[row] for row in rows]
        note = f"{name}: {len(labels)} labels, one a track; prompts: {', '.join(TEMPLATES)}."
        return accuracy_scores(task, hits, len(labels), *asked_of), [note]
    kept = np.flatnonzero(is_learnable(carried))
    if not len(kept):
        return [], [
            f"{name} are not measured: each label is on all of {len(rows)} test tracks or on none."
        ]
    notes = [f"{name}: {len(kept)} labels; prompts: {', '.join(TEMPLATES)}."]
    if len(kept) < len(labels):
        left_out = f"{len(labels) - len(kept)} of {len(labels)} labels are left out"
        notes.append(f"{name}: {left_out}: every test track carries them, or none.")
    told = {method: found[:, kept] for method, found in cosines.items()}
    return label_scores(task, carried[:, kept], told, [labels[number] for number in kept]), notes


def label_scores(
    task: str, carried: Bools, told: Mapping[str, Floats], labels: list[str]
) -> list[Scores]:
    """Macro ROC-AUC (of record) and macro PR-AUC, a query each label.

    carried: (n, L) bool, True where a track carries a label; of each label both must be there
    (`is_learnable`).
    told: a method's (n, L) scores, higher = rather carried. PR-AUC is the average precision, as
    scikit-learn has it. "random" is 0.5 in ROC-AUC, and in PR-AUC the share of tracks that carry
    the label, which scores all alike reach.
    """

    def each(metric: Callable[[Floats, Bools], float], scores: Floats) -> NDArray[np.float64]:
        return np.array(
            [metric(scores[:, number], carried[:, number]) for number in range(len(labels))]
        )

    roc = {
        RANDOM: np.full(len(labels), 0.5),
        **{method: each(auc, scores) for method, scores in told.items()},
    }
    precision = {method: each(average_precision, scores) for method, scores in told.items()}
    pr = {RANDOM: carried.mean(axis=0), **precision}
    return [
        Scores("semantic", task, "macro ROC-AUC", labels, None, roc, of_record=True),
        Scores("semantic", task, "macro PR-AUC", labels, None, pr),
    ]


def accuracy_scores(
    task: str, hits: Mapping[str, Floats], n_labels: int, queries: list[str], clusters: list[str]
) -> list[Scores]:
    """Accuracy (of record), a query each track. hits: a method's (n,) in [0, 1]; "random" guesses
    evenly.
    """
    by_method = {RANDOM: np.full(len(queries), 1 / n_labels), **hits}
    return [Scores("semantic", task, "accuracy", queries, clusters, by_method, of_record=True)]


def is_learnable(carried: Bools) -> Bools:
    """(L,) True for labels that some of the tracks carry and some do not. carried: (n, L) bool."""
    return np.asarray(carried.any(axis=0) & ~carried.all(axis=0))


def _closest(cosines: Floats, own: Ints) -> NDArray[np.float64]:
    """(n,) chance of naming each track's own label, when one of the closest is drawn. cosines: (n,
    L).
    """
    best = cosines >= cosines.max(axis=1, keepdims=True) - SAME_SCORE
    return np.asarray(best[np.arange(len(own)), own] / best.sum(axis=1))


def _check(
    method: str,
    audio: Floats,
    wanted: Floats,
    n_labels: int,
    queries: list[str],
    clusters: list[str],
) -> None:
    check_rows(method, audio, queries, clusters)
    if wanted.shape != (n_labels, audio.shape[1]):
        raise ShapeError(
            f"{method}: prompt vectors {wanted.shape} must be ({n_labels}, {audio.shape[1]})"
        )
    if not np.isfinite(wanted).all():
        raise DataError(f"{method}: prompt vectors hold NaN or infinity; embed them again")


STRENGTHS = (
    0.001,
    0.01,
    0.1,
    1.0,
    10.0,
)  # inverse regularisation, scikit-learn's C; chosen on validation tracks only
WITHOUT_VALIDATION = 1.0  # the strength where validation tracks cannot tell
LEAST_POSITIVES = 5  # training tracks a label of several needs: fewer say nothing about a line
MAJORITY = "majority"
MAX_ITERATIONS = 1000  # a few dozen are the rule
GRADIENT = 1e-4  # where a fit ends, in coordinates that give the loss a curvature near 1
ALIKE = 1e-12  # of the largest number: a spread below is rounding errors
SPANNED = 1e-12  # of the largest eigenvalue: directions below hold rounding errors


@dataclass(frozen=True)
class ProbeTask:
    """The rows a probe reads, and what it is asked.

    targets: (n, C) bool, which of `names` a track carries; exactly one, unless `require_list`.
    rows: of "train", "validation" and "test", those that carry a label known from training.
    """

    names: list[str]
    targets: np.ndarray
    several: bool
    rows: dict[str, np.ndarray]


def probe_scores(
    vectors: Mapping[str, np.ndarray],
    labels: list[Any],
    roles: list[str],
    queries: list[str],
    clusters: list[str],
    column: str,
) -> tuple[list[Scores], list[str]]:
    """Logistic regression from every method's frozen vectors to the labels of test tracks, and
    notes on how.

    vectors: a method's (n, d); row i of track queries[i] of artist clusters[i], whose part is
    roles[i] ("train",
        "validation", "test"; others are left out). ShapeError otherwise, DataError for a vector
        that is not finite.
    labels: as in `known_labels`. Tracks without any, and those of validation and test with only
    labels never seen in
        training, are left out. If nothing is left to measure there are no scores, and a note says
        why.

    Vectors are centred over the training tracks and scaled by one number, to a mean variance of 1 a
    column: columns keep their proportions, so that vectors with the same cosines are read alike,
    whatever axes they stand on. The line is fitted on training tracks alone. Its strength comes
    from STRENGTHS by the same figure on validation tracks, the strongest regularisation of equal
    ones; 1 where validation cannot tell. There is no second fit on training and validation tracks
    together.

    One label a track: accuracy (of record), a query each test track, beside "majority", which
    always names the most frequent label of training. Several: `label_scores`, one line each label
    that LEAST_POSITIVES training tracks carry and test tracks both carry and do not. "random"
    guesses evenly; a method of that name is not asked.
    Cost: as `_fit`.
    """
    asked = {method: found for method, found in vectors.items() if method != RANDOM}
    for method, found in asked.items():
        check_rows(method, found, queries, clusters)
    if not len(labels) == len(roles) == len(queries):
        raise ShapeError(
            f"{len(labels)} labels and {len(roles)} roles for {len(queries)} queries; give one each"
        )
    if not asked:
        return [], [f"The probe on {column!r} is not measured: no method has vectors."]
    told, strengths = {}, {}
    try:
        probe, left_out = _ask(labels, roles, f"Probe on {column!r}")
        for method, found in asked.items():
            told[method], strengths[method] = _tell(found, probe)
    except DataError as error:
        return [], [f"The probe on {column!r} is not measured: {error}."]
    chosen = ", ".join(
        f"{display_name(method)} {strength:g}" for method, strength in strengths.items()
    )
    n_train, n_validation = len(probe.rows["train"]), len(probe.rows["validation"])
    note = (
        f"Probe on {column!r}: logistic regression on {n_train} training tracks, {len(probe.names)} labels; "
        f"inverse regularisation chosen on {n_validation} validation tracks (1 where they cannot tell): {chosen}."
    )
    task = f"probe:{column}"
    scores = (
        _several_scores(task, probe, told)
        if probe.several
        else _single_scores(task, probe, told, queries, clusters)
    )
    return scores, [note, *left_out]


def _single_scores(
    task: str,
    probe: ProbeTask,
    told: Mapping[str, np.ndarray],
    queries: list[str],
    clusters: list[str],
) -> list[Scores]:
    rows, truth = probe.rows["test"], probe.targets.argmax(axis=1)
    most_frequent = np.bincount(truth[probe.rows["train"]]).argmax()  # of equals, the first by name
    named = {MAJORITY: np.full(len(rows), most_frequent)} | {
        m: scores.argmax(axis=1) for m, scores in told.items()
    }
    hits = {method: (number == truth[rows]).astype(np.float64) for method, number in named.items()}
    tracks, artists = [queries[row] for row in rows], [clusters[row] for row in rows]
    return accuracy_scores(task, hits, len(probe.names), tracks, artists)


def _several_scores(task: str, probe: ProbeTask, told: Mapping[str, np.ndarray]) -> list[Scores]:
    carried = probe.targets[probe.rows["test"]]
    kept = np.flatnonzero(is_learnable(carried))
    names = [probe.names[number] for number in kept]
    return label_scores(
        task, carried[:, kept], {method: scores[:, kept] for method, scores in told.items()}, names
    )


def _ask(labels: list[Any], roles: list[str], name: str) -> tuple[ProbeTask, list[str]]:
    """What a probe can be asked, and notes on what was left out; DataError, saying why, if nothing
    can.
    """
    sets, several = known_labels(labels)
    role = np.array(
        [part if found else "" for part, found in zip(roles, sets, strict=True)], dtype=str
    )
    counts = Counter(label for row in np.flatnonzero(role == "train") for label in sets[row])
    is_known = np.array([bool(found & counts.keys()) for found in sets], dtype=bool)
    rows = {
        part: np.flatnonzero((role == part) & is_known) for part in ("train", "validation", "test")
    }
    n_test, n_new = len(rows["test"]), int(((role == "test") & ~is_known).sum())
    if len(counts) < 2 or n_test < 2:
        raise DataError(
            f"{len(counts)} labels in training and {n_test} test tracks carrying one of them"
        )
    least = LEAST_POSITIVES if several else 1
    names = sorted(label for label, n in counts.items() if least <= n < len(rows["train"]))
    targets = np.array([[label in found for label in names] for found in sets], dtype=bool)
    notes = []
    if n_new:
        notes.append(
            f"{name}: {n_new} test tracks are left out: no training track carries any of their labels."
        )
    n_lost = len(counts) - int(is_learnable(targets[rows["test"]]).sum())
    why = f"fewer than {LEAST_POSITIVES} training tracks carry them, or all do, or all test tracks do, or none"
    if several and n_lost == len(counts):
        raise DataError(f"all {n_lost} labels are left out: {why}")
    if several and n_lost:
        notes.append(f"{name}: {n_lost} of {len(counts)} labels are left out: {why}.")
    return ProbeTask(names, targets, several, rows), notes


def _tell(vectors: np.ndarray, probe: ProbeTask) -> tuple[np.ndarray, float]:
    """(test tracks, C) scores of one method's probe, and its strength, chosen on validation tracks."""
    training = vectors[probe.rows["train"]].astype(np.float64)
    centre, spread = training.mean(axis=0), float(np.sqrt(training.var(axis=0).mean()))
    if spread <= ALIKE * np.abs(training).max():
        spread = 1.0
    scaled = {
        part: (vectors[rows] - centre) / spread for part, rows in probe.rows.items() if len(rows)
    }
    lines = _fit(scaled["train"], probe.targets[probe.rows["train"]], probe.several)
    best, strength = -np.inf, WITHOUT_VALIDATION
    for candidate, (weights, offset) in lines.items():
        if "validation" in scaled:
            scores = scaled["validation"] @ weights + offset
            figure = _figure(scores, probe.targets[probe.rows["validation"]], probe.several)
            if figure > best:  # never with nan
                best, strength = figure, candidate
    weights, offset = lines[strength]
    return scaled["test"] @ weights + offset, strength


def _figure(scores: np.ndarray, carried: np.ndarray, several: bool) -> float:
    """Accuracy or macro ROC-AUC; nan if no label can be told."""
    if not several:
        return float((scores.argmax(axis=1) == carried.argmax(axis=1)).mean())
    found = [
        auc(scores[:, number], carried[:, number])
        for number in np.flatnonzero(is_learnable(carried))
    ]
    return float(np.mean(found)) if found else float("nan")


def _fit(
    vectors: np.ndarray, targets: np.ndarray, several: bool
) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """The lines of every strength: (d, C) weights and (C,) offsets, scores = vectors @ weights +
    offsets.

    vectors: (N, d) centred, of mean variance 1; targets: (N, C) bool, every label carried by some
    and not by all. One
    label a track: a softmax over labels, or a sigmoid where there are two; `require_list`: a
    sigmoid a label. They minimise the summed log loss + |weights|^2 / (2 strength), as
    scikit-learn's LogisticRegression does, which takes each label by itself.

    All labels are fitted at once by L-BFGS, each strength from where the one before ended, in the
    principal axes of the vectors, scaled by the curvature there would be if every track had its
    label's mean probability. It then ends after some dozen steps; DataError if MAX_ITERATIONS do
    not suffice.
    Cost: N x r x C a step. One core, 50 labels, all strengths: 0.2 s for 400 x 64, half a second
    for 400 x 1,251, 8 s for 14,000 x 64 and a minute for 14,000 x 1,251; the softmax takes three
    times as long.
    """
    values, axes = np.linalg.eigh(vectors.T @ vectors)
    spanned = values > SPANNED * values[-1]
    values, axes = values[spanned], axes[:, spanned]  # (r,), (d, r)
    turned, sizes = (
        vectors @ axes,
        np.r_[values, len(vectors)][:, None],
    )  # (N, r), (r + 1, 1); below: the offsets
    share = targets.mean(axis=0)
    is_sigmoid = several or len(share) == 2
    at = np.zeros((len(sizes), len(share)))
    at[-1] = np.log(share / (1 - share)) if is_sigmoid else np.log(share)
    options = {
        "maxiter": MAX_ITERATIONS,
        "maxfun": 2 * MAX_ITERATIONS,
        "gtol": GRADIENT,
        "ftol": 0.0,
    }
    lines = {}
    for strength in STRENGTHS:
        shrinkage = np.r_[np.full(len(values), 1 / strength), 0.0][:, None]  # the offsets are free
        scale = 1 / np.sqrt(share * (1 - share) * sizes + shrinkage)  # (r + 1, C)
        given = (turned, targets, scale, shrinkage, is_sigmoid)
        found = minimize(
            _loss, (at / scale).ravel(), given, method="L-BFGS-B", jac=True, options=options
        )
        if not found.success:
            raise DataError(
                f"at strength {strength:g} the fit stopped after {found.nit} steps: {found.message}"
            )
        at = found.x.reshape(scale.shape) * scale
        lines[strength] = (axes @ at[:-1], at[-1])
    return lines


def _loss(
    flat: np.ndarray,
    vectors: np.ndarray,
    targets: np.ndarray,
    scale: np.ndarray,
    shrinkage: np.ndarray,
    is_sigmoid: bool,
) -> tuple[float, np.ndarray]:
    """What `_fit` minimises and its slope, both in lines / scale, flattened."""
    at = flat.reshape(scale.shape) * scale  # (r + 1, C)
    scores = vectors @ at[:-1] + at[-1]  # (N, C)
    if is_sigmoid:
        total, chances = np.logaddexp(0.0, scores).sum(), expit(scores)
    else:
        total, chances = logsumexp(scores, axis=1).sum(), softmax(scores, axis=1)
    wrong = chances - targets
    slope = np.vstack([vectors.T @ wrong, wrong.sum(axis=0)]) + shrinkage * at
    return float(total - scores[targets].sum() + (shrinkage * at**2).sum() / 2), (
        slope * scale
    ).ravel()
