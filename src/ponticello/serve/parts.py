"""Parts of a track: as what is asked for, and as what of a track answers a question best.

They are cut out of the frames that the library keeps, so that no file is decoded. Where sound begins with silence
MusiCNN's frames begin after it, and so do these times.
"""

import numpy as np

from ponticello.errors import PonticelloError
from ponticello.search.compose import Question
from ponticello.search.index import Query
from ponticello.search.models import frame_seconds, frames_query
from ponticello.serve.failures import Failure
from ponticello.serve.live import Snapshot
from ponticello.serve.shapes import Segment

WINDOW_S = 10.0  # how long the best part of a track is
STEP_S = 5.0


def can_hear_parts(snapshot: Snapshot) -> bool:
    """Whether frames of this library are of moments that are known."""
    return frame_seconds(snapshot.library.folder.config) is not None


def part_query(snapshot: Snapshot, track_id: str, start_s: float, end_s: float) -> Query:
    """The query "like this part of a track"; Failure if it lies past what was heard of the track."""
    frames, seconds = _frames(snapshot, track_id)
    first, last = int(start_s / seconds), int(np.ceil(end_s / seconds))
    if first >= len(frames):
        heard = f"of track {track_id[:200]!r} {len(frames) * seconds:.0f} s were heard"
        raise Failure(422, "invalid", f"{heard}; start_s {start_s:g} lies behind that")
    return frames_query(snapshot.models, [frames[first : max(last, first + 1)]])


def best_part(snapshot: Snapshot, question: Question, blend: float, track_id: str) -> Segment | None:
    """The ten seconds of a track that score highest by their sound alone; None where parts cannot be heard."""
    try:
        frames, seconds = _frames(snapshot, track_id)
        models = snapshot.models
    except Failure:
        return None
    size, step = max(1, round(WINDOW_S / seconds)), max(1, round(STEP_S / seconds))
    starts = list(range(0, max(1, len(frames) - size + 1), step))
    heard = frames_query(models, [frames[start : start + size] for start in starts])
    weights = (1 - blend, blend) if heard.preference is not None else (1.0, 0.0)
    parts = np.zeros((len(starts), 2))
    query = question.query
    for number, (side, vectors) in enumerate(((query.semantic, heard.semantic), (query.preference, heard.preference))):
        if side is not None and vectors is not None:
            parts[:, number] = weights[number] * (vectors @ side[0] - query.offsets[number])
    best = int(parts.sum(axis=1).argmax())
    end = min(starts[best] + size, len(frames))
    return Segment(
        start_s=round(starts[best] * seconds, 3),
        end_s=round(end * seconds, 3),
        semantic=float(parts[best, 0]),
        preference=float(parts[best, 1]),
    )


def _frames(snapshot: Snapshot, track_id: str) -> tuple[np.ndarray, float]:
    """What was heard of a track, and how many seconds a frame is apart."""
    config = snapshot.library.folder.config
    seconds = frame_seconds(config)
    if seconds is None:
        raise Failure(422, "invalid", "this library's vectors come from elsewhere: parts of tracks cannot be heard")
    try:
        store = snapshot.frames
    except PonticelloError as error:
        raise Failure(503, "not_ready", " ".join(str(error).split())) from error
    if track_id not in store:
        raise Failure(422, "invalid", f"track {track_id[:200]!r} is not prepared; run: ponticello prepare")
    return np.asarray(store.read(track_id)), seconds
