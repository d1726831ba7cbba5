"""The meaning side: does a text find its track, and can a straight line read labels off the vectors?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

from ponticello.errors import DataError
from ponticello.evaluate.metrics import retrieval_ranks

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)  # inverse regularisation, chosen on validation tracks only


def retrieval_figures(queries: np.ndarray, items: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Recall at 10, mean reciprocal rank and median rank of the targets: what training reports of validation."""
    ranks = retrieval_ranks(queries, items, target)
    figures = {"recall@10": (ranks <= 10).mean(), "mrr": (1 / ranks).mean(), "median_rank": np.median(ranks)}
    return {name: float(value) for name, value in figures.items()}


@dataclass(frozen=True)
class Probe:
    """A linear probe's outcome on the test tracks: `metric` is accuracy (one label) or macro ROC-AUC (several).

    per_query: one number a test track (accuracy) or a label (AUC), whose mean is the figure.
    """

    metric: str
    per_query: np.ndarray
    rows: np.ndarray  # test rows the numbers belong to; empty for AUC
    n_train: int
    n_classes: int


def linear_probe(vectors: np.ndarray, labels: list[Any], roles: list[str]) -> Probe:
    """Logistic regression on frozen vectors (n, d): fitted on training tracks, its strength chosen on validation ones.

    labels: a text or a list of texts a track; None or [] = unlabelled, left out. Test labels never seen in training
    cannot be answered and are left out too; with no labelled validation track the strength is 1. DataError, saying
    why, if nothing is left to measure.
    """
    several = any(isinstance(label, list) for label in labels)
    sets = [set(label) if isinstance(label, list) else ({label} if label else set()) for label in labels]
    role = np.array(roles)
    train = np.array([r == "train" and bool(s) for r, s in zip(roles, sets, strict=True)])
    known = sorted(set().union(*(sets[row] for row in np.flatnonzero(train))))
    rows = {
        name: np.array([row for row in np.flatnonzero(role == name) if sets[row] & set(known)], dtype=np.int64)
        for name in ("validation", "test")
    }
    if len(known) < 2 or len(rows["test"]) < 2:
        raise DataError(f"{len(known)} labels in training and {len(rows['test'])} test tracks carrying one of them")
    targets = np.array([[name in s for name in known] for s in sets])
    scaler = StandardScaler().fit(vectors[train])
    scaled = scaler.transform(vectors)
    measure = _macro_auc if several else _accuracy
    if not several:
        targets = targets.argmax(axis=1)
    best = (
        1.0
        if len(rows["validation"]) == 0
        else max(
            STRENGTHS,
            key=lambda strength: _mean(
                measure(_fit(scaled[train], targets[train], strength), scaled, targets, rows["validation"])
            ),
        )
    )
    per_query = measure(_fit(scaled[train], targets[train], best), scaled, targets, rows["test"])
    if not np.isfinite(per_query).any():
        raise DataError("no label has both a track that carries it and one that does not among the test tracks")
    return Probe(
        "macro ROC-AUC" if several else "accuracy",
        per_query,
        np.array([], dtype=np.int64) if several else rows["test"],
        int(train.sum()),
        len(known),
    )


def _fit(vectors: np.ndarray, targets: np.ndarray, strength: float) -> list[Any]:
    """One classifier over all classes, or one a label where a track may carry several (None where all agree)."""
    columns = targets.T if targets.ndim == 2 else [targets]
    return [
        LogisticRegression(C=strength, max_iter=2000).fit(vectors, column) if len(set(column)) > 1 else None
        for column in columns
    ]


def _accuracy(classifiers: list[Any], vectors: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    if classifiers[0] is None or len(rows) == 0:
        return np.array([np.nan])
    hits: np.ndarray = (classifiers[0].predict(vectors[rows]) == targets[rows]).astype(np.float64)
    return hits


def _macro_auc(classifiers: list[Any], vectors: np.ndarray, targets: np.ndarray, rows: np.ndarray) -> np.ndarray:
    figures = []
    for number, classifier in enumerate(classifiers):
        truth = targets[rows, number]
        if classifier is None or len(set(truth)) < 2:
            figures.append(np.nan)
        else:
            figures.append(float(roc_auc_score(truth, classifier.decision_function(vectors[rows]))))
    return np.array(figures)


def _mean(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0
