"""The log as questions need it: by listener, newest first, as rows of the index. Some ten bytes an event in memory."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from ponticello.data.columns import PLAYED_AT, TRACK_ID, USER_ID
from ponticello.data.interactions import is_positive, scan_interactions
from ponticello.data.listeners import USER_PREFIX
from ponticello.data.parquet import reading
from ponticello.library import Folder
from ponticello.search.index import EmbeddingIndex

LIKED, ROW = "liked", "row"


@dataclass(frozen=True)
class Listening:
    """Who met what. Events of tracks that the index does not hold are left out.

    users: ids, ascending; events `starts[i]` to `starts[i + 1]` are those of `users[i]`, newest first, ties by track.
    rows: (e,) int32, the track of each event; liked: (e,) bool, whether it speaks for the track.
    """

    users: list[str]
    starts: np.ndarray
    rows: np.ndarray
    liked: np.ndarray
    n_tracks: int

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Each listener's number."""
        return {user: number for number, user in enumerate(self.users)}

    @property
    def is_simulated(self) -> bool:
        """Whether some listeners are made up (`ponticello demo`)."""
        return any(user.startswith(USER_PREFIX) for user in self.users)

    def met(self, number: int) -> np.ndarray:
        """Rows of the tracks that a listener met, ascending."""
        return np.unique(self.rows[self.starts[number] : self.starts[number + 1]])

    def seeds(self, number: int, n_recent: int) -> np.ndarray:
        """Rows of the listener's latest distinct liked tracks, newest first: as `listener_seeds`."""
        own = slice(self.starts[number], self.starts[number + 1])
        rows = self.rows[own][self.liked[own]]
        _, first = np.unique(rows, return_index=True)
        latest: np.ndarray = rows[np.sort(first)[:n_recent]]
        return latest

    @cached_property
    def n_liked(self) -> np.ndarray:
        """(m,) how many distinct tracks each listener likes."""
        pairs = self._likes
        return np.bincount(pairs[:, 0], minlength=len(self.users))

    @cached_property
    def n_listeners(self) -> np.ndarray:
        """(n,) how many distinct listeners like each track of the index."""
        return np.bincount(self._likes[:, 1], minlength=self.n_tracks)

    @cached_property
    def _likes(self) -> np.ndarray:
        """(p, 2) distinct (listener, row)."""
        listener = np.repeat(np.arange(len(self.users)), np.diff(self.starts))
        return np.unique(np.stack([listener[self.liked], self.rows[self.liked]], axis=1).astype(np.int64), axis=0)


def read_listening(folder: Folder, index: EmbeddingIndex) -> Listening:
    """The library's log; nobody, where there is none. LibraryError if it is damaged, DataError in its rows."""
    n_tracks = len(index.track_ids)
    if not folder.interactions.is_file():
        nothing = np.zeros(0, dtype=np.int32)
        return Listening([], np.zeros(1, dtype=np.int64), nothing, nothing.astype(bool), n_tracks)
    places = pl.LazyFrame({TRACK_ID: index.track_ids}, schema={TRACK_ID: pl.String}).with_row_index(ROW)
    listened = (
        scan_interactions(folder)
        .select(
            USER_ID, TRACK_ID, PLAYED_AT, is_positive(folder.config.pairs.min_played_s).fill_null(False).alias(LIKED)
        )
        .join(places, on=TRACK_ID, how="inner")
        .sort(USER_ID, PLAYED_AT, TRACK_ID, descending=[False, True, False])
        .select(USER_ID, pl.col(ROW).cast(pl.Int32), LIKED)
    )
    with reading(folder.interactions):
        events = listened.collect()
    counts = events.group_by(USER_ID, maintain_order=True).len()
    starts = np.concatenate([[0], counts["len"].to_numpy().cumsum()]).astype(np.int64)
    return Listening(counts[USER_ID].to_list(), starts, events[ROW].to_numpy(), events[LIKED].to_numpy(), n_tracks)
