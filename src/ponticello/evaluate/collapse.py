"""Rankings of recordings instead of tracks, as `search.collapse_copies` answers: of copies only the best is shown.

Dimensions: n candidate tracks, r recordings, b queries of one block.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ponticello.evaluate.baselines import popularity
from ponticello.evaluate.ranking import Scorer, Task


@dataclass(frozen=True)
class Collapsed:
    """A task over recordings, `task`, and the same queries over tracks, `tracks`, to make scorers for."""

    task: Task
    tracks: Task
    numbers: np.ndarray  # (n,) each track's recording, as a column of `task`

    def plays(self, events: pl.DataFrame) -> np.ndarray:
        """(r,) how often each recording was played in `events`, under any of its tracks' ids."""
        counts = popularity(events, self.tracks.candidates)
        return np.bincount(self.numbers, counts, minlength=len(self.task.candidates))

    def scorer(self, of_tracks: Scorer) -> Scorer:
        """A recording's score is that of its best copy. of_tracks: a scorer of `tracks`."""
        if self.task is self.tracks:
            return of_tracks
        order = np.argsort(self.numbers, kind="stable")
        starts = np.searchsorted(self.numbers[order], np.arange(len(self.task.candidates)))

        def scores(rows: np.ndarray) -> np.ndarray:
            best: np.ndarray = np.maximum.reduceat(of_tracks(rows)[:, order], starts, axis=1)
            return best

        return scores


def collapse(task: Task, recordings: Mapping[str, str]) -> Collapsed:
    """The task with one candidate a recording, named by its first track's id.

    recordings: a name by track id; a track without one is a recording alone. A recording is relevant if one of its
    tracks is, and excluded if one of them is: who has met a copy has met them all. Queries that have nothing relevant
    left are dropped. Where listeners are the candidates, or no two candidates are copies, the task stays as it is.
    """
    names = [recordings.get(track_id, track_id) for track_id in task.candidates]
    if task.seeds_of_candidates or len(set(names)) == len(names):
        return Collapsed(task, task, np.arange(len(names)))
    place = {name: column for column, name in enumerate(dict.fromkeys(names))}
    numbers = np.array([place[name] for name in names], dtype=np.int64)
    first = np.unique(numbers, return_index=True)[1]
    excluded = [np.unique(numbers[columns]) for columns in task.excluded]
    both = zip(task.relevant, excluded, strict=True)
    relevant = [np.setdiff1d(numbers[columns], met) for columns, met in both]
    kept = np.flatnonzero([len(columns) > 0 for columns in relevant])
    candidates = [task.candidates[column] for column in first]
    collapsed = replace(task, candidates=candidates, relevant=relevant, excluded=excluded)
    return Collapsed(collapsed.rows(kept), task.rows(kept), numbers)
