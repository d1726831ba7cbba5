"""From one track to another in steps that each lie near, for a journey or a mix."""

from itertools import pairwise

import numpy as np

from ponticello.search.queries import Term, compose_query
from ponticello.search.ranking import rank_tracks
from ponticello.serve.errors import APIError
from ponticello.serve.service import require_track
from ponticello.serve.snapshot import Snapshot


def path_between(
    snapshot: Snapshot, start: str, end: str, n: int, blend: float
) -> list[tuple[str, float | None]]:
    """`n` tracks at most from `start` to `end`, both included, each with its similarity to the
    next, 0 to 1.

    Step i of n is the track, not yet on the path, that fits a question best which is (1 - t) the
    start and t the end, t = i / (n - 1); the steps then stand in the order of how much more they
    are like the end than like the start. Fewer where the library has fewer. Failure for equal ends
    or a track that is not there.
    """
    for track_id in (start, end):
        require_track(snapshot, track_id)
    if start == end:
        raise APIError(422, "invalid", "a path needs two different tracks")
    index = snapshot.asked
    ends = [index.track_query([track_id]) for track_id in (start, end)]
    used = {start, end}
    for place in range(1, n - 1):
        t = place / (n - 1)
        question = compose_query(index, [Term(ends[0], 1 - t), Term(ends[1], t)])
        best = rank_tracks(
            index, question.query, snapshot.placed, k=1, blend=blend, excluded=used, once=True
        )
        used |= {each.track_id for each in best}
    between = sorted(used - {start, end})
    rows = np.array([index.rows[track_id] for track_id in between], dtype=np.int64)
    if len(rows):
        toward, away = (
            index.parts(query, blend, rows)[0].sum(axis=1) for query in (ends[1], ends[0])
        )
        between = [between[place] for place in np.argsort(toward - away, kind="stable")]
    tracks = [start, *between, end]
    near = [similarity(snapshot, here, there, blend) for here, there in pairwise(tracks)]
    return list(zip(tracks, [*near, None], strict=True))


def similarity(snapshot: Snapshot, here: str, there: str, blend: float) -> float:
    """How near two tracks of the index are, 0 to 1: their cosines in both spaces, blended, and
    moved to that range.
    """
    index = snapshot.asked
    left, right = index.rows[here], index.rows[there]
    weights = (1 - blend, blend) if index.has_preference else (1.0,)
    cosines = [
        float(index.side(number)[left] @ index.side(number)[right])
        for number in range(len(weights))
    ]
    blended = sum(weight * cosine for weight, cosine in zip(weights, cosines, strict=True))
    return min(1.0, max(0.0, (1 + blended) / 2))
