"""The log by user, and the profiles of its users.

In memory it takes about ten bytes per event.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from ponticello.config import SearchConfig
from ponticello.datasets.simulated import USER_PREFIX
from ponticello.listening.log import is_positive, scan_interactions
from ponticello.search.index import EmbeddingIndex, Query
from ponticello.search.user_profiles import score_directions
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import PLAYED_AT, TRACK_ID, USER_ID
from ponticello.storage.tables import wrap_read_errors

LIKED = "liked"
ROW = "row"
MAX_LISTENERS = 100_000  # profiles kept, of the users with most liked tracks: 80 MB


@dataclass(frozen=True)
class ListeningHistory:
    """The events of the log for tracks of the index, by user.

    users: ids, ascending; events `starts[i]` to `starts[i + 1]` are those of `users[i]`, newest
    first, ties by track.
    rows: (e,) int32, the track of each event; liked: (e,) bool, whether it is a positive event.
    """

    users: list[str]
    starts: np.ndarray
    rows: np.ndarray
    liked: np.ndarray
    n_tracks: int

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each user."""
        return {user: number for number, user in enumerate(self.users)}

    @property
    def is_simulated(self) -> bool:
        """Whether some users are simulated (`ponticello demo`)."""
        return any(user.startswith(USER_PREFIX) for user in self.users)

    def played_rows(self, number: int) -> np.ndarray:
        """Returns the rows of all tracks in a user's events, ascending."""
        return np.unique(self.rows[self.starts[number] : self.starts[number + 1]])

    def seeds(self, number: int, n_recent: int) -> np.ndarray:
        """Returns the rows of a user's latest distinct liked tracks, newest first."""
        events = slice(self.starts[number], self.starts[number + 1])
        rows = self.rows[events][self.liked[events]]
        _, first_events = np.unique(rows, return_index=True)
        latest: np.ndarray = rows[np.sort(first_events)[:n_recent]]
        return latest

    @cached_property
    def n_liked(self) -> np.ndarray:
        """(m,) how many distinct tracks each user likes."""
        return np.bincount(self._likes[:, 0], minlength=len(self.users))

    @cached_property
    def n_listeners(self) -> np.ndarray:
        """(n,) how many distinct users like each track of the index."""
        return np.bincount(self._likes[:, 1], minlength=self.n_tracks)

    @cached_property
    def _likes(self) -> np.ndarray:
        """(p, 2) distinct pairs of a user's number and a row."""
        users = np.repeat(np.arange(len(self.users)), np.diff(self.starts))
        likes = np.stack([users[self.liked], self.rows[self.liked]], axis=1)
        return np.unique(likes.astype(np.int64), axis=0)


def load_listening_history(folder: LibraryPaths, index: EmbeddingIndex) -> ListeningHistory:
    """Returns the log by user, empty without a log; LibraryError or DataError if it is damaged."""
    n_tracks = len(index.track_ids)
    if not folder.interactions.is_file():
        no_rows = np.zeros(0, dtype=np.int32)
        return ListeningHistory([], np.zeros(1, np.int64), no_rows, no_rows.astype(bool), n_tracks)
    is_liked = is_positive(folder.config.pairs.min_played_s).fill_null(False)
    track_rows = pl.LazyFrame({TRACK_ID: index.track_ids}, schema={TRACK_ID: pl.String})
    query = (
        scan_interactions(folder)
        .select(USER_ID, TRACK_ID, PLAYED_AT, is_liked.alias(LIKED))
        .join(track_rows.with_row_index(ROW), on=TRACK_ID, how="inner")
        .sort(USER_ID, PLAYED_AT, TRACK_ID, descending=[False, True, False])
        .select(USER_ID, pl.col(ROW).cast(pl.Int32), LIKED)
    )
    with wrap_read_errors(folder.interactions):
        events = query.collect()
    counts = events.group_by(USER_ID, maintain_order=True).len()
    starts = np.concatenate([[0], counts["len"].to_numpy().cumsum()]).astype(np.int64)
    users = counts[USER_ID].to_list()
    return ListeningHistory(
        users, starts, events[ROW].to_numpy(), events[LIKED].to_numpy(), n_tracks
    )


@dataclass(frozen=True)
class Listener:
    """A listener of `audience`. already_played: whether the track is in their events."""

    rank: int
    user_id: str
    score: float
    semantic: float
    preference: float
    already_played: bool


def build_audience(
    index: EmbeddingIndex, seeds: Sequence[np.ndarray], ridge: float, hub_correction: float
) -> Query:
    """Returns the profiles of m users from the rows of their liked tracks; memory m x D float32."""
    profiles, levels = index.profiles(ridge, hub_correction)
    directions = []
    offsets = []
    for number, profile in enumerate(profiles):
        space_directions = score_directions(profile, index.space_vectors(number), seeds)
        offsets.append(space_directions @ profile.mean[:, None])
        directions.append(space_directions.astype(np.float32))
    return Query(tuple(directions), "profile", tuple(offsets), tuple(levels))


def load_audience(
    index: EmbeddingIndex, history: ListeningHistory, config: SearchConfig
) -> tuple[np.ndarray, Query]:
    """Returns the numbers, ascending, and profiles of at most `MAX_LISTENERS` users with likes."""
    numbers = np.flatnonzero(history.n_liked > 0)
    if len(numbers) > MAX_LISTENERS:
        order = np.argsort(-history.n_liked[numbers], kind="stable")[:MAX_LISTENERS]
        numbers = np.sort(numbers[order])
    seeds = [history.seeds(number, config.n_seed_tracks) for number in numbers.tolist()]
    return numbers, build_audience(index, seeds, config.profile_l2, config.hub_correction)
