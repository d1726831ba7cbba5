"""The meaning side of retrieval: does a text find its track, and does a track find others that
carry its labels?

Dimensions: m tracks with a text, n tracks, d vector size, L labels, b queries of one block.
"""

from collections.abc import Callable, Mapping

import numpy as np
from scipy.sparse import csr_matrix

from ponticello.errors import DataError, ShapeError
from ponticello.evaluate.results import RANDOM, Scores
from ponticello.metrics.beyond_accuracy import graded_ndcg_at_k
from ponticello.metrics.ranking import BLOCK_SCORES, recall_at_k, retrieval_ranks

CUTS = (1, 5, 10)
OF_RECORD = 10  # R@10: with the few hundred texts a test set has, R@1 rests on a handful of hits
FIRST = 10  # places of a track's list of other tracks that count
SAME_TO = 12  # decimals to which cosines are the same: float64 rounding, with room


def retrieval_figures(
    queries: np.ndarray, items: np.ndarray, target: np.ndarray
) -> dict[str, float]:
    """Recall at 10, mean reciprocal rank and median rank of the targets: what training reports of
    validation.
    """
    ranks = retrieval_ranks(queries, items, target)
    figures = {
        "recall@10": (ranks <= 10).mean(),
        "mrr": (1 / ranks).mean(),
        "median_rank": np.median(ranks),
    }
    return {name: float(value) for name, value in figures.items()}


def retrieval_scores(
    texts: Mapping[str, np.ndarray],
    audio: Mapping[str, np.ndarray],
    queries: list[str],
    clusters: list[str],
) -> list[Scores]:
    """Text to audio and audio to text: R@1, R@5, R@10 (of record), MRR and median rank of every
    method in both.

    texts, audio: a method's (m, d) unit vectors, row i of both about track queries[i] of artist
    clusters[i]; ShapeError
        otherwise, DataError for a vector that is not finite. A tie counts as the middle of its
        places.
    "random" is the expected value of a query whose target lies anywhere with equal chance; a method
    of that name is not asked. The list is empty if fewer than two tracks or no method can be
    measured.
    """
    methods, m = [method for method in texts if method in audio and method != RANDOM], len(queries)
    if m < 2 or not methods:
        return []
    for method in methods:
        check_rows(method, audio[method], queries, clusters)
        check_rows(method, texts[method], queries, clusters)
    own = np.arange(m)
    forward = {method: retrieval_ranks(texts[method], audio[method], own) for method in methods}
    backward = {method: retrieval_ranks(audio[method], texts[method], own) for method in methods}
    found = []
    for task, ranks in (("text_to_audio", forward), ("audio_to_text", backward)):
        for k in CUTS:
            hits = {method: (rank <= k).astype(np.float64) for method, rank in ranks.items()}
            by_method = {RANDOM: np.full(m, min(k / m, 1.0)), **hits}
            found.append(
                Scores(
                    "semantic",
                    task,
                    f"R@{k}",
                    queries,
                    clusters,
                    by_method,
                    of_record=k == OF_RECORD,
                )
            )
        by_method = {
            RANDOM: np.full(m, (1 / (own + 1)).mean()),
            **{name: 1 / rank for name, rank in ranks.items()},
        }
        found.append(Scores("semantic", task, "MRR", queries, clusters, by_method))
        by_method = {RANDOM: np.full(m, (m + 1) / 2), **ranks}
        found.append(
            Scores(
                "semantic",
                task,
                "median rank",
                queries,
                clusters,
                by_method,
                statistic="median",
                higher_is_better=False,
            )
        )
    return found


def music_to_music_scores(
    vectors: Mapping[str, np.ndarray],
    labels: list[set[str]],
    queries: list[str],
    clusters: list[str],
    column: str,
) -> list[Scores]:
    """Each track asks for the others: graded NDCG@10 (of record) and precision@10 of every method.

    vectors: a method's (n, d) unit vectors, row i of track queries[i] by artist clusters[i] with
    labels[i]; ShapeError
        otherwise, DataError for a vector that is not finite.
    A track of the same artist is not in the ranking, so that knowing the artist earns nothing; nor
    is one without labels, about which nobody knows whether it fits. The gain of a track is the
    Jaccard overlap of the two label sets; precision@10 is the share of the first ten (of all, if
    fewer are left) that share any label. Ties as in `metrics.py`. A query that shares no label with
    anything ranked is nan; the list is empty if all are. "random" is the expected value under a
    random order: that of vectors all alike; a method of that name is not asked.
    Cost: n x n x d a method, 8 s for 10,000 tracks, with some arrays of 32 MB held at once.
    """
    labelled = np.array([bool(found) for found in labels])
    artists = np.unique(np.array(clusters, dtype=str), return_inverse=True)[1]
    known = {method: rows for method, rows in vectors.items() if method != RANDOM}
    for method, rows in known.items():
        check_rows(method, rows, queries, clusters)
    if len(labels) != len(queries):
        raise ShapeError(f"{len(labels)} sets of labels for {len(queries)} queries; give one each")
    if not known or len(labels) < 2:
        return []
    overlap, ndcg, precision = _overlaps(labels), {}, {}
    for method, rows in {RANDOM: np.zeros((len(labels), 1)), **known}.items():
        ndcg[method], precision[method] = _rank_others(rows, overlap, labelled, artists)
    if np.isnan(ndcg[RANDOM]).all():
        return []
    task = f"music_to_music:{column}"
    return [
        Scores("semantic", task, f"NDCG@{FIRST} graded", queries, clusters, ndcg, of_record=True),
        Scores("semantic", task, f"precision@{FIRST}", queries, clusters, precision),
    ]


def _overlaps(labels: list[set[str]]) -> Callable[[slice], np.ndarray]:
    """Jaccard overlap of some tracks' labels with those of all: takes rows, gives (b, n) float64; 0
    without labels.
    """
    numbers = {label: number for number, label in enumerate(sorted(set().union(*labels)))}
    sizes = np.array([len(found) for found in labels])
    columns = np.array(
        [numbers[label] for found in labels for label in sorted(found)], dtype=np.int64
    )
    ends = np.concatenate([[0], np.cumsum(sizes)])
    marks = csr_matrix(
        (np.ones(len(columns)), columns, ends), shape=(len(labels), max(1, len(numbers)))
    )

    def overlap(rows: slice) -> np.ndarray:
        shared = (marks[rows] @ marks.T).toarray()
        either: np.ndarray = shared / np.maximum(sizes[rows, None] + sizes - shared, 1)
        return either

    return overlap


def _rank_others(
    vectors: np.ndarray,
    overlap: Callable[[slice], np.ndarray],
    labelled: np.ndarray,
    artists: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """(n,) graded NDCG and (n,) precision of each track's list of the labelled tracks by other
    artists.

    Only what can stand among the first places is sorted: every track at least as close as the one
    that takes the last of them, ties and all, and those with the highest gains, which make up the
    ideal list. The figures are the same.
    """
    n, vectors = len(vectors), vectors.astype(np.float64)
    last, step = max(0, n - FIRST), max(1, BLOCK_SCORES // n)
    ndcg, precision = np.full(n, np.nan), np.full(n, np.nan)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        allowed = labelled & (artists[rows, None] != artists)  # (b, n)
        gains = np.where(allowed, overlap(rows), -1.0)
        scores = np.where(allowed, np.round(vectors[rows] @ vectors.T, SAME_TO), -np.inf)
        counts = scores >= np.partition(scores, last, axis=1)[:, last, None]
        np.put_along_axis(counts, np.argpartition(gains, last, axis=1)[:, last:], True, axis=1)
        counts &= allowed
        for place, query in enumerate(range(rows.start, rows.stop)):
            kept = np.flatnonzero(counts[place])
            close, gain = scores[place, kept], gains[place, kept]
            if (gain > 0).any():
                ndcg[query] = graded_ndcg_at_k(close, gain, FIRST)
                hits = recall_at_k(close, gain > 0, FIRST) * min(FIRST, int((gain > 0).sum()))
                precision[query] = hits / min(FIRST, int(allowed[place].sum()))
    return ndcg, precision


def check_rows(method: str, vectors: np.ndarray, queries: list[str], clusters: list[str]) -> None:
    """ShapeError unless there is one row, one query and one cluster each; DataError for a row that
    is not finite.
    """
    if vectors.ndim != 2 or not len(vectors) == len(queries) == len(clusters):
        rows = f"{len(queries)} queries and {len(clusters)} clusters"
        raise ShapeError(f"{method}: vectors {vectors.shape} must hold one row for each of {rows}")
    if not np.isfinite(vectors).all():
        raise DataError(f"{method}: vectors hold NaN or infinity; embed them again")
