"""How vectors and factors answer a task: closeness to a track, a listener's profile, factors, one order, or chance.

Dimensions: q queries, n candidates, b queries of one block, d vector size, f factors.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from ponticello.config import SearchConfig
from ponticello.errors import ShapeError
from ponticello.evaluate.ranking import Scorer, Task
from ponticello.search.profile import directions, fit_profiles


def by_chance(task: Task, seed: int) -> Scorer:
    """Scores that know nothing; each query's depend on `seed` and its place alone."""

    def scores(rows: np.ndarray) -> np.ndarray:
        return np.stack([np.random.default_rng([seed, int(row)]).random(len(task.candidates)) for row in rows])

    return scores


def by_order(values: np.ndarray) -> Scorer:
    """The same (n,) scores for every query: popularity."""
    return lambda rows: np.broadcast_to(values, (len(rows), len(values)))


def by_factors(queries: np.ndarray, candidates: np.ndarray) -> Scorer:
    """Dot products of (q, f) and (n, f)."""

    def scores(rows: np.ndarray) -> np.ndarray:
        found: np.ndarray = queries[rows] @ candidates.T
        return found

    return scores


def by_closeness(task: Task, vectors: Mapping[str, np.ndarray]) -> Scorer:
    """The cosine between each query's one seed and every candidate: what `similar` answers.

    vectors: (d,) unit vectors by track id. ShapeError if a query has another number of seeds than one.
    """
    if any(len(seeds) != 1 for seeds in task.seeds):
        raise ShapeError(f"{task.name}: closeness needs one seed a query; use by_profile")
    return by_factors(_stack(vectors, [seeds[0] for seeds in task.seeds]), _stack(vectors, task.candidates))


def by_profile(task: Task, spaces: Sequence[tuple[float, Mapping[str, np.ndarray]]], search: SearchConfig) -> Scorer:
    """What a listener with these seeds likes: what `recommend` answers.

    spaces: a weight and (d,) unit vectors by track id, of the same tracks, for each space: one, or both with the dial
        between them. Profiles are fitted on all of those tracks, as in the index.
    In `audience` the seeds are the candidates', and the tracks are the queries.
    """
    asking, answering = [], []
    for weight, vectors in spaces:
        track_ids = sorted(vectors)
        place = {track_id: row for row, track_id in enumerate(track_ids)}
        matrix = _stack(vectors, track_ids)
        profiles = fit_profiles(matrix, search.profile_ridge)
        seeds = [np.array([place[track_id] for track_id in own]) for own in task.seeds]
        asking.append(weight * directions(profiles, matrix, seeds))
        tracks = task.queries if task.seeds_of_candidates else task.candidates
        levelled = profiles.levels(matrix, search.hub_correction)[:, None] * (matrix - profiles.mean)
        answering.append(levelled[[place[track_id] for track_id in tracks]])
    listeners, offered = (np.concatenate(side, axis=1).astype(np.float32) for side in (asking, answering))
    return by_factors(offered, listeners) if task.seeds_of_candidates else by_factors(listeners, offered)


def _stack(vectors: Mapping[str, np.ndarray], track_ids: list[str]) -> np.ndarray:
    return np.stack([vectors[track_id] for track_id in track_ids]).astype(np.float32)
