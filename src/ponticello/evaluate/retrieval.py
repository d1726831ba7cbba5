"""Semantic retrieval: text to audio and back, and tracks with the same labels.

Dimensions: m tracks with a text, n tracks, d vector size, L labels, b queries of one block.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.preprocessing import MultiLabelBinarizer

from ponticello.evaluate.results import RANDOM, Scores
from ponticello.metrics.beyond_accuracy import graded_ndcg_at_k
from ponticello.metrics.ranking import BLOCK_SCORES, hit_groups, recall, retrieval_ranks

CUTS = (1, 5, 10)
K_OF_RECORD = 10  # of a few hundred texts, R@1 depends on a handful of hits
N_NEIGHBOURS = 10  # of a track that count
COSINE_DECIMALS = 12  # beyond which cosines count as equal: float64 rounding, with room


def retrieval_figures(
    queries: np.ndarray, items: np.ndarray, target: np.ndarray
) -> dict[str, float]:
    """Returns recall at 10, mean reciprocal rank and median rank of the targets."""
    ranks = retrieval_ranks(queries, items, target)
    return {
        "recall@10": float((ranks <= 10).mean()),
        "mrr": float((1 / ranks).mean()),
        "median_rank": float(np.median(ranks)),
    }


def retrieval_scores(
    texts: Mapping[str, np.ndarray],
    audio: Mapping[str, np.ndarray],
    queries: list[str],
    clusters: list[str],
) -> list[Scores]:
    """Returns R@1, R@5, R@10 (of record), MRR and median rank, text to audio and audio to text.

    texts, audio: (m, d) unit vectors by method; row i of both is of track queries[i] of artist
    clusters[i]. A tied item counts half. "random" is the expected value for a target at any rank
    with equal chance.
    """
    text_to_audio = {}
    audio_to_text = {}
    targets = np.arange(len(queries))
    for method in texts:
        text_to_audio[method] = retrieval_ranks(texts[method], audio[method], targets)
        audio_to_text[method] = retrieval_ranks(audio[method], texts[method], targets)
    scores = _rank_scores("text_to_audio", text_to_audio, queries, clusters)
    scores += _rank_scores("audio_to_text", audio_to_text, queries, clusters)
    return scores


def _rank_scores(
    task: str, ranks: Mapping[str, np.ndarray], queries: list[str], clusters: list[str]
) -> list[Scores]:
    m = len(queries)
    scores = []
    for k in CUTS:
        by_method = {RANDOM: np.full(m, min(k / m, 1.0))}
        for method, method_ranks in ranks.items():
            by_method[method] = (method_ranks <= k).astype(np.float64)
        metric = f"R@{k}"
        scores.append(
            Scores("semantic", task, metric, queries, clusters, by_method, k == K_OF_RECORD)
        )
    by_method = {RANDOM: np.full(m, (1 / (np.arange(m) + 1)).mean())}
    for method, method_ranks in ranks.items():
        by_method[method] = 1 / method_ranks
    scores.append(Scores("semantic", task, "MRR", queries, clusters, by_method))
    by_method = {RANDOM: np.full(m, (m + 1) / 2), **ranks}
    median = Scores("semantic", task, "median rank", queries, clusters, by_method)
    scores.append(replace(median, statistic="median", higher_is_better=False))
    return scores


def music_to_music_scores(
    vectors: Mapping[str, np.ndarray],
    labels: list[set[str]],
    queries: list[str],
    clusters: list[str],
    column: str,
) -> list[Scores]:
    """Returns graded NDCG@10 (of record) and precision@10 of each track's neighbours.

    vectors: (n, d) unit vectors by method; row i is of track queries[i] of artist clusters[i] with
    labels[i].
    Tracks of the same artist and tracks without labels are not ranked. The gain of a track is the
    Jaccard overlap of the two label sets; precision@10 is the share of the first ten (of all, if
    fewer are left) that share a label. Ties as in `metrics.ranking`. A query that shares no label
    with a ranked track is nan; the result is empty if all are. "random" is the expected value
    under a random order, that of equal vectors.
    Cost: n x n x d a method, 8 s for 10,000 tracks, with some arrays of 32 MB held at once.
    """
    if not vectors or len(labels) < 2:
        return []
    marks = csr_matrix(MultiLabelBinarizer(sparse_output=True).fit_transform(labels), dtype=float)
    artists = np.unique(np.array(clusters, dtype=str), return_inverse=True)[1]
    ndcg = {}
    precision = {}
    for method, rows in {RANDOM: np.zeros((len(labels), 1)), **vectors}.items():
        ndcg[method], precision[method] = _rank_neighbours(rows, marks, artists)
    if np.isnan(ndcg[RANDOM]).all():
        return []
    task = f"music_to_music:{column}"
    metric = f"NDCG@{N_NEIGHBOURS} graded"
    return [
        Scores("semantic", task, metric, queries, clusters, ndcg, of_record=True),
        Scores("semantic", task, f"precision@{N_NEIGHBOURS}", queries, clusters, precision),
    ]


def _rank_neighbours(
    vectors: np.ndarray, marks: csr_matrix, artists: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns (n,) graded NDCG and (n,) precision of each track's labelled tracks of other artists.

    marks: (n, L), 1 where a track carries a label. artists: (n,) numbers.
    Only tracks that can be among the first ones are sorted: those at least as close as the last of
    them, ties included, and those with the highest gains, which are the ideal list. The result is
    the same.
    """
    n = len(vectors)
    n_labels = np.asarray(marks.sum(axis=1)).ravel()
    vectors = vectors.astype(np.float64)
    last = max(0, n - N_NEIGHBOURS)
    step = max(1, BLOCK_SCORES // n)
    ndcg = np.full(n, np.nan)
    precision = np.full(n, np.nan)
    for start in range(0, n, step):
        rows = slice(start, min(start + step, n))
        allowed = (n_labels > 0) & (artists[rows, None] != artists)  # (b, n)
        n_shared = (marks[rows] @ marks.T).toarray()
        jaccard = n_shared / np.maximum(n_labels[rows, None] + n_labels - n_shared, 1)
        gains = np.where(allowed, jaccard, -1.0)
        cosines = np.round(vectors[rows] @ vectors.T, COSINE_DECIMALS)
        scores = np.where(allowed, cosines, -np.inf)
        is_needed = scores >= np.partition(scores, last, axis=1)[:, last, None]
        np.put_along_axis(is_needed, np.argpartition(gains, last, axis=1)[:, last:], True, axis=1)
        is_needed &= allowed
        for row, query in enumerate(range(rows.start, rows.stop)):
            columns = np.flatnonzero(is_needed[row])
            query_scores = scores[row, columns]
            query_gains = gains[row, columns]
            is_relevant = query_gains > 0
            if is_relevant.any():
                ndcg[query] = graded_ndcg_at_k(query_scores, query_gains, N_NEIGHBOURS)
                groups = hit_groups(query_scores, is_relevant)
                hits = recall(groups, N_NEIGHBOURS) * min(N_NEIGHBOURS, groups.n_relevant)
                precision[query] = hits / min(N_NEIGHBOURS, int(allowed[row].sum()))
    return ndcg, precision
