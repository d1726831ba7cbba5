"""Measures the trade-off between semantic and preference quality, from stage one to stage two.

weights: models of log-mels with interpolated weights, (1 - a) x stage one + a x stage two; the
    library is embedded again by each.
blend: both vectors of a track, with the query scaled by the blend, as the index serves them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ponticello.evaluate.results import (
    STAGE_ONE,
    STAGE_TWO,
    CandidateGroups,
    Measurements,
    Scores,
    pick,
)
from ponticello.evaluate.tasks import DeduplicatedTask, rank_task, score_by_profile
from ponticello.evaluate.vectors import EvaluationVectors
from ponticello.metrics.ranking import retrieval_ranks
from ponticello.model.htcl import HTCL
from ponticello.model.interpolate import interpolate_weights
from ponticello.search.embed import PART_SIZE
from ponticello.search.index import calibrate

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEMANTIC_METRIC = "text_to_audio:MRR"
MAX_TRACKS = 20_000  # that are embedded again at each position between the stages


@dataclass(frozen=True)
class _Position:
    """The vectors at one position between the stages.

    texts: (m, d) of the test tracks' texts; tracks: (n, d); spaces: a weight and (n, d) vectors
    for each space that profiles read.
    """

    texts: np.ndarray
    tracks: np.ndarray
    spaces: list[tuple[float, np.ndarray]]


def measure_tradeoff(
    measured: Measurements,
    vectors: EvaluationVectors,
    cold_task: DeduplicatedTask,
    is_simulated: bool,
    on_step: Callable[[str], None],
) -> None:
    """Adds both curves at `POSITIONS`: mean reciprocal rank of texts, and NDCG@k of cold tracks."""
    if not {STAGE_ONE, STAGE_TWO} <= vectors.models.keys():
        return
    rows = vectors.test_rows_with_text()
    if len(rows) < 2 or not cold_task.tracks.queries:
        measured.notes.append(
            "The front is not measured: it needs test tracks with texts, "
            "and listeners who like some."
        )
        return
    if len(vectors.ids) > MAX_TRACKS:
        measured.notes.append(
            f"The front is not measured: more than {MAX_TRACKS:,} tracks to embed again."
        )
        return
    k = vectors.config.evaluate.k
    cold = cold_task.tracks
    queries, clusters = vectors.queries(rows)
    curves = {}
    if vectors.models[STAGE_TWO].preference_encoder is None:
        curves["weights"] = _interpolated_weights(vectors, rows, on_step)
    curves["blend"] = _blended_vectors(vectors, rows, on_step)
    for curve, positions in curves.items():
        mrr = {}
        ndcg = {}
        sums = {}
        for name, position in positions.items():
            tracks = position.tracks[rows]
            mrr[name] = 1 / retrieval_ranks(position.texts, tracks, np.arange(len(rows)))
            spaces = []
            for weight, matrix in position.spaces:
                spaces.append((weight, dict(zip(vectors.ids, matrix, strict=True))))
            scorer = cold_task.scorer(score_by_profile(cold, spaces, vectors.config.search))
            ranking = rank_task(cold_task.task, scorer, k)
            ndcg[name] = ranking.metrics[f"NDCG@{k}"]
            sums[name] = ranking.measured.sums[f"NDCG@{k}"]
            group_names = ranking.group_names
        measured.scores.append(Scores("tradeoff", curve, SEMANTIC_METRIC, queries, clusters, mrr))
        metric = f"{cold.name}:NDCG@{k}"
        scores = Scores("tradeoff", curve, metric, cold.queries, cold.clusters, ndcg)
        groups = CandidateGroups(group_names, sums)
        measured.scores.append(replace(scores, is_simulated=is_simulated, candidate_groups=groups))


def _interpolated_weights(
    vectors: EvaluationVectors, rows: list[int], on_step: Callable[[str], None]
) -> dict[str, _Position]:
    texts = pick(vectors.texts, rows)
    positions = {}
    for alpha in POSITIONS:
        on_step(f"front: weights at {alpha:g}")
        if alpha in (0.0, 1.0):
            method = STAGE_TWO if alpha else STAGE_ONE
            model = vectors.models[method]
            tracks = vectors.vectors[method]
        else:
            model = interpolate_weights(vectors.models[STAGE_ONE], vectors.models[STAGE_TWO], alpha)
            tracks = _embed(model, vectors)
        positions[f"{alpha:.2f}"] = _Position(model.encode_text(texts), tracks, [(1.0, tracks)])
    return positions


def _embed(model: HTCL, vectors: EvaluationVectors) -> np.ndarray:
    """Returns (n, d); the features of `PART_SIZE` tracks are in memory at once."""
    store = vectors.store
    assert store is not None  # runs are embedded from it
    batches = []
    for start in range(0, len(vectors.ids), PART_SIZE):
        track_ids = vectors.ids[start : start + PART_SIZE]
        batches.append(model.encode_features([store.read(track_id) for track_id in track_ids]))
    return np.concatenate(batches)


def _blended_vectors(
    vectors: EvaluationVectors, rows: list[int], on_step: Callable[[str], None]
) -> dict[str, _Position]:
    """Returns the positions of the blend; each space is calibrated as in the index."""
    on_step("front: blends")
    texts = pick(vectors.texts, rows)
    matrices = [vectors.vectors[STAGE_ONE], vectors.vectors[STAGE_TWO]]
    encoded = [vectors.models[method].encode_text(texts) for method in (STAGE_ONE, STAGE_TWO)]
    spreads = [calibrate(text, matrix).std for text, matrix in zip(encoded, matrices, strict=True)]
    tracks = np.concatenate(matrices, axis=1)  # by sound alone: fused ones hold the texts
    served = [vectors.vectors[vectors.served_method(stage)] for stage in (STAGE_ONE, STAGE_TWO)]
    positions = {}
    for blend in POSITIONS:
        scaled = ((1 - blend) / spreads[0] * encoded[0], blend / spreads[1] * encoded[1])
        spaces = [(1 - blend, served[0]), (blend, served[1])]
        positions[f"{blend:.2f}"] = _Position(np.concatenate(scaled, axis=1), tracks, spaces)
    return positions
