"""The front: meaning against taste, from stage one to stage two by mixing weights, and by the dial
at asking time.

weights: the model with weights (1 - a) stage one + a stage two; each model between the two has to
embed all tracks.
dial: both vectors a track, the question scaled; what `--blend` does, and what the index serves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ponticello.evaluate.results import STAGE_ONE, STAGE_TWO, Measurements, Scores
from ponticello.evaluate.tasks import DeduplicatedTask, rank_task, score_by_profile
from ponticello.evaluate.vectors import EvaluationVectors
from ponticello.metrics.ranking import retrieval_ranks
from ponticello.model.htcl import HTCL
from ponticello.model.interpolate import interpolate_weights
from ponticello.search.embed import PART_SIZE
from ponticello.search.index import calibrate

POSITIONS = (0.0, 0.25, 0.5, 0.75, 1.0)
SEMANTIC_METRIC = "text_to_audio:MRR"
LARGEST_FRONT = 20_000  # tracks to embed again at each position between


@dataclass(frozen=True)
class _Point:
    """What stands at one position: texts (m, d) that ask, tracks (n, d) that answer, and each space
    with its weight.
    """

    texts: np.ndarray
    answering: np.ndarray
    spaces: list[tuple[float, np.ndarray]]


def measure_tradeoff(
    evaluation: Measurements,
    materials: EvaluationVectors,
    collapsed: DeduplicatedTask,
    is_simulated: bool,
    say: Callable[[str], None],
) -> None:
    """Both curves at `POSITIONS`: mean reciprocal rank of a text's track, and NDCG@k on `next
    tracks, cold`.
    """
    cold = collapsed.tracks
    if not {STAGE_ONE, STAGE_TWO} <= materials.models.keys():
        return
    rows = [row for row in materials.rows_of("test") if materials.texts[row]]
    if len(rows) < 2 or not cold.queries:
        evaluation.notes.append(
            "The front is not measured: it needs test tracks with texts, and listeners who like some."
        )
        return
    if len(materials.ids) > LARGEST_FRONT:
        evaluation.notes.append(
            f"The front is not measured: more than {LARGEST_FRONT:,} tracks to embed again."
        )
        return
    curves = {"weights": _mixed_weights, "blend": _dialled}
    for name, points in curves.items():
        meaning, taste = {}, {}
        for position, point in points(materials, rows, say).items():
            target = np.arange(len(rows))
            meaning[position] = 1 / retrieval_ranks(point.texts, point.answering[rows], target)
            spaces = [
                (weight, dict(zip(materials.ids, side, strict=True)))
                for weight, side in point.spaces
            ]
            scorer = score_by_profile(cold, spaces, materials.config.search)
            taste[position] = rank_task(
                collapsed.task, collapsed.scorer(scorer), materials.config.evaluate.k
            ).metrics
        queries = [materials.ids[row] for row in rows]
        clusters = [materials.clusters[row] for row in rows]
        ndcg = f"NDCG@{materials.config.evaluate.k}"
        evaluation.scores.append(
            Scores("tradeoff", name, SEMANTIC_METRIC, queries, clusters, meaning)
        )
        by_position = {position: metrics[ndcg] for position, metrics in taste.items()}
        evaluation.scores.append(
            Scores(
                "tradeoff",
                name,
                f"{cold.name}:{ndcg}",
                cold.queries,
                cold.clusters,
                by_position,
                is_simulated=is_simulated,
            )
        )


def _mixed_weights(
    materials: EvaluationVectors, rows: list[int], say: Callable[[str], None]
) -> dict[str, _Point]:
    one, two = materials.models[STAGE_ONE], materials.models[STAGE_TWO]
    texts = [materials.texts[row] for row in rows]
    points = {}
    for position in POSITIONS:
        say(f"front: weights at {position:g}")
        if position in (0.0, 1.0):
            method = STAGE_TWO if position else STAGE_ONE
            model, vectors = materials.models[method], materials.vectors[method]
        else:
            model = interpolate_weights(one, two, position)
            vectors = _embed(model, materials)
        points[f"{position:.2f}"] = _Point(model.encode_text(texts), vectors, [(1.0, vectors)])
    return points


def _embed(model: HTCL, materials: EvaluationVectors) -> np.ndarray:
    """(n, d), with the mels of `PART_SIZE` tracks in memory at once."""
    store = materials.store
    assert store is not None  # runs are embedded from it
    parts = (
        materials.ids[start : start + PART_SIZE]
        for start in range(0, len(materials.ids), PART_SIZE)
    )
    return np.concatenate(
        [model.encode_features([store.read(track_id) for track_id in part]) for part in parts]
    )


def _dialled(
    materials: EvaluationVectors, rows: list[int], say: Callable[[str], None]
) -> dict[str, _Point]:
    """Each space calibrated as in the index, the scale on the asking side."""
    say("front: the dial")
    sides = [materials.vectors[method] for method in (STAGE_ONE, STAGE_TWO)]
    texts = [
        materials.models[method].encode_text([materials.texts[row] for row in rows])
        for method in (STAGE_ONE, STAGE_TWO)
    ]
    spreads = [calibrate(text, side).std for side, text in zip(sides, texts, strict=True)]
    answering = np.concatenate(sides, axis=1)
    points = {}
    for position in POSITIONS:
        shares = (1 - position, position)
        words = [
            share / spread * text
            for share, spread, text in zip(shares, spreads, texts, strict=True)
        ]
        spaces = list(zip(shares, sides, strict=True))
        points[f"{position:.2f}"] = _Point(np.concatenate(words, axis=1), answering, spaces)
    return points
