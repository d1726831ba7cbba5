"""Labels of tracks: linear probes on frozen vectors, and zero-shot tagging by prompts.

Dimensions: n tracks, N training tracks, L labels, p prompts of a label, d vector size, r dimensions
that the training vectors span.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax

from ponticello.errors import DataError
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import RANDOM, Scores, pick
from ponticello.metrics.beyond_accuracy import average_precision
from ponticello.metrics.ranking import SAME_SCORE, Bools, Floats, Ints, auc, hit_groups
from ponticello.storage.schema import GENRES, MACHINE_TAGS, TAGS

LABEL_COLUMNS = (GENRES, TAGS, MACHINE_TAGS)  # measured if no others are named
TEMPLATES = ("{label}", "{label} music", "a piece of {label} music")
CATEGORY_END = "---"  # as in "mood/theme---happy"

MAJORITY = "majority"
STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # inverse regularisation, scikit-learn's C
DEFAULT_STRENGTH = 1.0  # where validation tracks cannot choose
MIN_POSITIVES = 5  # training tracks of a label, where tracks carry several
MAX_ITERATIONS = 1000  # a few dozen are usual
GRADIENT_TOLERANCE = 1e-4  # in coordinates that give the loss a curvature near 1
MIN_RELATIVE_SPREAD = 1e-12  # of the largest number: a smaller spread is rounding
MIN_RELATIVE_EIGENVALUE = 1e-12  # of the largest: smaller ones are rounding


def known_labels(labels: Sequence[Any]) -> tuple[list[set[str]], bool]:
    """Returns each track's set of labels, and whether the column may hold several per track.

    labels: a column's values. None, "" and [] = no label; a list = several; any other value = one
    label, its text.

    >>> known_labels(["rock", None, ""])
    ([{'rock'}, set(), set()], False)
    """
    has_several = any(isinstance(value, list) for value in labels)
    label_sets = []
    for value in labels:
        names = value if isinstance(value, list) else [value]
        label_sets.append({str(name) for name in names if name not in (None, "")})
    return label_sets, has_several


def is_learnable(carried: Bools) -> Bools:
    """Returns (L,), True for labels that some but not all tracks carry. carried: (n, L) bool."""
    return np.asarray(carried.any(axis=0) & ~carried.all(axis=0))


def label_scores(
    task: str, carried: Bools, by_method: Mapping[str, Floats], labels: list[str]
) -> list[Scores]:
    """Returns macro ROC-AUC (of record) and macro PR-AUC; each learnable label is a query.

    carried: (n, L) bool, whether a track carries a label. by_method: (n, L) scores, higher = more
    likely carried. PR-AUC is average precision, as in scikit-learn. "random" is 0.5 in ROC-AUC and
    the share of tracks with the label in PR-AUC, as for equal scores. Empty without a learnable
    label (see `is_learnable`).
    """
    columns = np.flatnonzero(is_learnable(carried))
    if not len(columns):
        return []
    queries = pick(labels, columns)
    roc_auc = {RANDOM: np.full(len(columns), 0.5)}
    pr_auc = {RANDOM: carried[:, columns].mean(axis=0)}
    for method, scores in by_method.items():
        groups = [hit_groups(scores[:, column], carried[:, column]) for column in columns]
        roc_auc[method] = np.array(list(map(auc, groups)))
        pr_auc[method] = np.array(list(map(average_precision, groups)))
    return [
        Scores("semantic", task, "macro ROC-AUC", queries, None, roc_auc, of_record=True),
        Scores("semantic", task, "macro PR-AUC", queries, None, pr_auc),
    ]


def accuracy_scores(
    task: str, hits: Mapping[str, Floats], n_labels: int, queries: list[str], clusters: list[str]
) -> list[Scores]:
    """Returns accuracy (of record); each track is a query. hits: (n,) in [0, 1] by method.

    "random" guesses evenly among the labels.
    """
    by_method = {RANDOM: np.full(len(queries), 1 / n_labels), **hits}
    return [Scores("semantic", task, "accuracy", queries, clusters, by_method, of_record=True)]


def prompts(labels: Sequence[str]) -> list[list[str]]:
    """Returns the texts for each label: its words in each of TEMPLATES.

    Underscores become spaces; of "mood/theme---happy" only the last part is used.

    >>> prompts(["genre---deep_house"])
    [['deep house', 'deep house music', 'a piece of deep house music']]
    """
    texts = []
    for label in labels:
        words = label.split(CATEGORY_END)[-1].replace("_", " ").strip()
        texts.append([template.format(label=words) for template in TEMPLATES])
    return texts


def ensemble(vectors: Floats) -> NDArray[np.float64]:
    """Returns a label's unit vector (d,): the normalised mean of its prompts' unit vectors.

    vectors: (p, d), p at least 1. DataError if they cancel out or are not finite.
    Source: the prompt ensembles of CLIP, Radford et al. 2021, section 3.1.4.

    >>> ensemble(np.array([[1.0, 0.0], [0.0, 1.0]])).round(4).tolist()
    [0.7071, 0.7071]
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    length = float(np.linalg.norm(mean))
    if not length > SAME_SCORE or not np.isfinite(length):
        raise DataError(
            f"the mean of {len(vectors)} prompt vectors has length {length:.4g}, "
            "and so no direction"
        )
    return np.asarray(mean / length)


def zero_shot_scores(
    audio: Mapping[str, np.ndarray],
    prompt_vectors: Mapping[str, np.ndarray],
    label_sets: list[set[str]],
    labels: list[str],
    queries: list[str],
    clusters: list[str],
    column: str,
) -> tuple[list[Scores], list[str]]:
    """Returns how well cosines with label prompts predict labels of test tracks, and notes.

    audio: (n, d) unit vectors by method; row i is of track queries[i] of artist clusters[i], which
    carries label_sets[i]. prompt_vectors: (L, d) unit vectors by method, as of `ensemble`; row j is
    of labels[j]. A method without both is not measured.
    labels: all labels of the column in the catalogue, distinct. Tracks without one are left out.

    If no test track carries two labels: accuracy (of record) of the closest prompt, a query per
    track; tied prompts share the hit. Otherwise `label_scores`, a query per label; a label that
    all or none of the test tracks carry is left out.
    """
    methods = [method for method in audio if method in prompt_vectors]
    task = f"zero_shot:{column}"
    title = f"Zero-shot tags of {column!r}"
    has_several = any(len(label_set) > 1 for label_set in label_sets)
    answers = set(chain.from_iterable(label_sets)) if has_several else set(labels)
    rows = [row for row, label_set in enumerate(label_sets) if label_set & answers]
    if not methods:
        return [], [f"{title} are not measured: no method has vectors of both tracks and prompts."]
    if len(labels) < 2 or len(rows) < 2:
        return [], [
            f"{title} are not measured: {len(labels)} labels and {len(rows)} labelled test tracks."
        ]
    cosines = {}
    for method in methods:
        cosines[method] = audio[method][rows].astype(np.float64) @ prompt_vectors[method].T
    carried = _carried(pick(label_sets, rows), labels)
    if not has_several:
        hits = {}
        for method, scores in cosines.items():
            hits[method] = _closest_hits(scores, carried.argmax(axis=1))
        note = f"{title}: {len(labels)} labels, one a track; prompts: {', '.join(TEMPLATES)}."
        return accuracy_scores(
            task, hits, len(labels), pick(queries, rows), pick(clusters, rows)
        ), [note]
    results = label_scores(task, carried, cosines, labels)
    if not results:
        return [], [
            f"{title} are not measured: each label is on all of {len(rows)} test tracks or on none."
        ]
    n_kept = len(results[0].queries)
    notes = [f"{title}: {n_kept} labels; prompts: {', '.join(TEMPLATES)}."]
    if n_kept < len(labels):
        notes.append(
            f"{title}: {len(labels) - n_kept} of {len(labels)} labels are left out: "
            "every test track carries them, or none."
        )
    return results, notes


def _carried(label_sets: list[set[str]], labels: list[str]) -> NDArray[np.bool_]:
    """Returns (n, L), whether each track carries each label."""
    column_of = {label: column for column, label in enumerate(labels)}
    carried = np.zeros((len(label_sets), len(labels)), dtype=bool)
    for row, label_set in enumerate(label_sets):
        carried[row, pick(column_of, label_set & column_of.keys())] = True
    return carried


def _closest_hits(cosines: Floats, true_labels: Ints) -> NDArray[np.float64]:
    """Returns (n,), the chance that a random one of the closest labels is the true one."""
    is_closest = cosines >= cosines.max(axis=1, keepdims=True) - SAME_SCORE
    is_hit = is_closest[np.arange(len(true_labels)), true_labels]
    return np.asarray(is_hit / is_closest.sum(axis=1))


@dataclass(frozen=True)
class ProbeTask:
    """The labels and rows of a probe.

    targets: (n, L) bool, whether a track carries each of `names`; exactly one per row, unless
    `has_several`. rows: of "train", "validation" and "test", those with a label known from
    training.
    """

    names: list[str]
    targets: np.ndarray
    has_several: bool
    rows: dict[str, np.ndarray]


def probe_scores(
    vectors: Mapping[str, np.ndarray],
    labels: list[Any],
    roles: list[str],
    queries: list[str],
    clusters: list[str],
    column: str,
) -> tuple[list[Scores], list[str]]:
    """Returns the scores of a logistic regression from each method's vectors to labels, and notes.

    vectors: (n, d) by method; row i is of track queries[i] of artist clusters[i], with roles[i]
    ("train", "validation" or "test"; others are left out). labels: as in `known_labels`. Tracks
    without a label, and held-out tracks with only labels that are not in training, are left out. If
    there are too few labels or tracks to measure, the scores are empty and a note gives the reason.

    Vectors are centred over the training tracks and scaled by one number, to a mean variance of 1
    per column; so vectors with the same cosines give the same probe. The fit is on training tracks
    alone. Its strength comes from STRENGTHS by the same metric on validation tracks, the strongest
    regularisation of equal ones; 1 if validation cannot choose. There is no second fit on training
    and validation tracks together.

    One label per track: accuracy (of record), a query per test track, beside "majority", the most
    frequent training label. Several: `label_scores`, for labels that MIN_POSITIVES training tracks
    carry and that some but not all test tracks carry. Cost: as `_fit`.
    """
    if not vectors:
        return [], [f"The probe on {column!r} is not measured: no method has vectors."]
    predictions = {}
    strengths = []
    try:
        probe, notes = _probe_task(labels, roles, f"Probe on {column!r}")
        for method, matrix in vectors.items():
            predictions[method], strength = _predict(matrix, probe)
            strengths.append(f"{display_name(method)} {strength:g}")
    except DataError as error:
        return [], [f"The probe on {column!r} is not measured: {error}."]
    note = (
        f"Probe on {column!r}: logistic regression on {len(probe.rows['train'])} training tracks, "
        f"{len(probe.names)} labels; inverse regularisation chosen on "
        f"{len(probe.rows['validation'])} validation tracks (1 where they cannot tell): "
        f"{', '.join(strengths)}."
    )
    task = f"probe:{column}"
    test_rows = probe.rows["test"]
    if probe.has_several:
        scores = label_scores(task, probe.targets[test_rows], predictions, probe.names)
    else:
        true_labels = probe.targets.argmax(axis=1)
        majority = np.bincount(true_labels[probe.rows["train"]]).argmax()  # of equals, by name
        hits = {MAJORITY: (true_labels[test_rows] == majority).astype(np.float64)}
        for method, predicted in predictions.items():
            is_hit = predicted.argmax(axis=1) == true_labels[test_rows]
            hits[method] = is_hit.astype(np.float64)
        test_queries = pick(queries, test_rows)
        scores = accuracy_scores(
            task, hits, len(probe.names), test_queries, pick(clusters, test_rows)
        )
    notes.insert(0, note)
    return scores, notes


def _probe_task(labels: list[Any], roles: list[str], title: str) -> tuple[ProbeTask, list[str]]:
    """Returns the labels and rows of a probe, and notes; DataError if there are too few."""
    label_sets, has_several = known_labels(labels)
    counts: Counter[str] = Counter()
    for role, label_set in zip(roles, label_sets, strict=True):
        if role == "train":
            counts.update(label_set)
    rows: dict[str, list[int]] = {"train": [], "validation": [], "test": []}
    n_new = 0  # test tracks with only labels that are not in training
    for row, (role, label_set) in enumerate(zip(roles, label_sets, strict=True)):
        if role in rows and label_set & counts.keys():
            rows[role].append(row)
        elif role == "test" and label_set:
            n_new += 1
    n_train = len(rows["train"])
    n_test = len(rows["test"])
    if len(counts) < 2 or n_test < 2:
        raise DataError(
            f"{len(counts)} labels in training and {n_test} test tracks carrying one of them"
        )
    min_positives = MIN_POSITIVES if has_several else 1
    names = sorted(label for label, n in counts.items() if min_positives <= n < n_train)
    targets = _carried(label_sets, names)
    notes = []
    if n_new:
        notes.append(
            f"{title}: {n_new} test tracks are left out: "
            "no training track carries any of their labels."
        )
    n_excluded = len(counts) - int(is_learnable(targets[rows["test"]]).sum())
    if has_several and n_excluded:
        reason = (
            f"fewer than {MIN_POSITIVES} training tracks carry them, or all do, "
            "or all test tracks do, or none"
        )
        if n_excluded == len(counts):
            raise DataError(f"all {n_excluded} labels are left out: {reason}")
        notes.append(f"{title}: {n_excluded} of {len(counts)} labels are left out: {reason}.")
    row_arrays = {role: np.array(role_rows, dtype=np.int64) for role, role_rows in rows.items()}
    return ProbeTask(names, targets, has_several, row_arrays), notes


def _predict(vectors: np.ndarray, probe: ProbeTask) -> tuple[np.ndarray, float]:
    """Returns (test tracks, L) scores of one method's probe, and its strength."""
    training = vectors[probe.rows["train"]].astype(np.float64)
    mean = training.mean(axis=0)
    spread = float(np.sqrt(training.var(axis=0).mean()))
    if spread <= MIN_RELATIVE_SPREAD * np.abs(training).max():
        spread = 1.0
    scaled = {}
    for role, rows in probe.rows.items():
        scaled[role] = (vectors[rows] - mean) / spread
    fits = _fit(scaled["train"], probe.targets[probe.rows["train"]], probe.has_several)
    best = -np.inf
    chosen = DEFAULT_STRENGTH
    if len(scaled["validation"]):
        carried = probe.targets[probe.rows["validation"]]
        for strength, (weights, offsets) in fits.items():
            scores = scaled["validation"] @ weights + offsets
            figure = _validation_figure(scores, carried, probe.has_several)
            if figure > best:  # never with nan
                best = figure
                chosen = strength
    weights, offsets = fits[chosen]
    return scaled["test"] @ weights + offsets, chosen


def _validation_figure(scores: np.ndarray, carried: np.ndarray, has_several: bool) -> float:
    """Returns accuracy or macro ROC-AUC; nan if no label is learnable."""
    if not has_several:
        return float((scores.argmax(axis=1) == carried.argmax(axis=1)).mean())
    results = label_scores("", carried, {"": scores}, [""] * carried.shape[1])
    return float(results[0].by_method[""].mean()) if results else float("nan")


def _fit(
    vectors: np.ndarray, targets: np.ndarray, has_several: bool
) -> dict[float, tuple[np.ndarray, np.ndarray]]:
    """Returns (d, L) weights and (L,) offsets by strength; scores = vectors @ weights + offsets.

    vectors: (N, d), centred, of mean variance 1; targets: (N, L) bool, of learnable labels. One
    label per track: a softmax, or a sigmoid for two labels; several: a sigmoid per label. The fit
    minimises the summed log loss + |weights|^2 / (2 strength), as scikit-learn's
    LogisticRegression.

    All labels are fitted at once by L-BFGS, each strength from where the one before ended, in the
    principal axes of the vectors, scaled by the curvature there would be if every track had its
    label's mean probability. This takes some dozen steps; DataError if MAX_ITERATIONS do not
    suffice.
    Cost: N x r x L a step. One core, 50 labels, all strengths: 0.2 s for 400 x 64, half a second
    for 400 x 1,251, 8 s for 14,000 x 64 and a minute for 14,000 x 1,251; the softmax takes three
    times as long.
    """
    eigenvalues, axes = np.linalg.eigh(vectors.T @ vectors)
    is_spanned = eigenvalues > MIN_RELATIVE_EIGENVALUE * eigenvalues[-1]
    eigenvalues = eigenvalues[is_spanned]  # (r,)
    axes = axes[:, is_spanned]  # (d, r)
    rotated = vectors @ axes  # (N, r)
    sizes = np.r_[eigenvalues, len(vectors)][:, None]  # (r + 1, 1); the last row is the offsets
    share = targets.mean(axis=0)
    is_sigmoid = has_several or len(share) == 2
    point = np.zeros((len(sizes), len(share)))
    point[-1] = np.log(share / (1 - share)) if is_sigmoid else np.log(share)
    n = MAX_ITERATIONS
    options = {"maxiter": n, "maxfun": 2 * n, "gtol": GRADIENT_TOLERANCE, "ftol": 0.0}
    fits = {}
    for strength in STRENGTHS:
        # The offsets are not penalised.
        penalty = np.r_[np.full(len(eigenvalues), 1 / strength), 0.0][:, None]
        scale = 1 / np.sqrt(share * (1 - share) * sizes + penalty)  # (r + 1, L)
        result = minimize(
            _loss,
            (point / scale).ravel(),
            (rotated, targets, scale, penalty, is_sigmoid),
            method="L-BFGS-B",
            jac=True,
            options=options,
        )
        if not result.success:
            raise DataError(
                f"at strength {strength:g} the fit stopped after {result.nit} steps: "
                f"{result.message}"
            )
        point = result.x.reshape(scale.shape) * scale
        fits[strength] = (axes @ point[:-1], point[-1])
    return fits


def _loss(
    flat: np.ndarray,
    vectors: np.ndarray,
    targets: np.ndarray,
    scale: np.ndarray,
    penalty: np.ndarray,
    is_sigmoid: bool,
) -> tuple[float, np.ndarray]:
    """Returns the loss of `_fit` and its gradient, both in weights / scale, flattened."""
    point = flat.reshape(scale.shape) * scale  # (r + 1, L)
    scores = vectors @ point[:-1] + point[-1]  # (N, L)
    if is_sigmoid:
        total = np.logaddexp(0.0, scores).sum()
        probabilities = expit(scores)
    else:
        total = logsumexp(scores, axis=1).sum()
        probabilities = softmax(scores, axis=1)
    errors = probabilities - targets
    gradient = np.vstack([vectors.T @ errors, errors.sum(axis=0)]) + penalty * point
    loss = total - scores[targets].sum() + (penalty * point**2).sum() / 2
    return float(loss), (gradient * scale).ravel()
