"""Who would like a track: every listener's profile asked about one track, the same scores
`recommend` ranks by.

The log as questions need it: by listener, newest first, as rows of the index. Some ten bytes an
event in memory.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from ponticello.config import SearchConfig
from ponticello.datasets.simulated import USER_PREFIX
from ponticello.errors import DataError
from ponticello.listening.log import is_positive, scan_interactions
from ponticello.search.index import EmbeddingIndex
from ponticello.search.user_profiles import UserProfiles, score_directions
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import PLAYED_AT, TRACK_ID, USER_ID
from ponticello.storage.tables import wrap_read_errors

LIKED, ROW = "liked", "row"


@dataclass(frozen=True)
class ListeningHistory:
    """Who met what. Events of tracks that the index does not hold are left out.

    users: ids, ascending; events `starts[i]` to `starts[i + 1]` are those of `users[i]`, newest
    first, ties by track.
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
        """Rows of the listener's latest distinct liked tracks, newest first: as `user_seeds`."""
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
        return np.unique(
            np.stack([listener[self.liked], self.rows[self.liked]], axis=1).astype(np.int64), axis=0
        )


def load_listening_history(folder: LibraryPaths, index: EmbeddingIndex) -> ListeningHistory:
    """The library's log; nobody, where there is none. LibraryError if it is damaged, DataError in
    its rows.
    """
    n_tracks = len(index.track_ids)
    if not folder.interactions.is_file():
        nothing = np.zeros(0, dtype=np.int32)
        return ListeningHistory(
            [], np.zeros(1, dtype=np.int64), nothing, nothing.astype(bool), n_tracks
        )
    places = pl.LazyFrame({TRACK_ID: index.track_ids}, schema={TRACK_ID: pl.String}).with_row_index(
        ROW
    )
    listened = (
        scan_interactions(folder)
        .select(
            USER_ID,
            TRACK_ID,
            PLAYED_AT,
            is_positive(folder.config.pairs.min_played_s).fill_null(False).alias(LIKED),
        )
        .join(places, on=TRACK_ID, how="inner")
        .sort(USER_ID, PLAYED_AT, TRACK_ID, descending=[False, True, False])
        .select(USER_ID, pl.col(ROW).cast(pl.Int32), LIKED)
    )
    with wrap_read_errors(folder.interactions):
        events = listened.collect()
    counts = events.group_by(USER_ID, maintain_order=True).len()
    starts = np.concatenate([[0], counts["len"].to_numpy().cumsum()]).astype(np.int64)
    return ListeningHistory(
        counts[USER_ID].to_list(),
        starts,
        events[ROW].to_numpy(),
        events[LIKED].to_numpy(),
        n_tracks,
    )


MOST_LISTENERS = 100_000  # those who like most tracks, where there are more: 80 MB of profiles


@dataclass(frozen=True)
class Listener:
    """One listener a track would suit. `semantic` + `preference` = `score`; already_played: they played it
    before.
    """

    rank: int
    user_id: str
    score: float
    semantic: float
    preference: float
    already_played: bool


@dataclass(frozen=True)
class Audience:
    """Many listeners' profiles, to be asked about any track. Made by `gather_audience`."""

    index: EmbeddingIndex
    sides: tuple[
        np.ndarray, ...
    ]  # (m, d) float32 directions, one array a space; row i is one listener
    profiles: tuple[UserProfiles, ...]
    levels: tuple[np.ndarray, ...]

    def parts(self, row: int, blend: float) -> np.ndarray:
        """(m, 2): the semantic and preference part of each listener's score of the index's row
        `row`.
        """
        weights = (1 - blend, blend) if len(self.sides) == 2 else (1.0,)
        parts = np.zeros((len(self.sides[0]), 2))
        for number, (weight, side, profile) in enumerate(
            zip(weights, self.sides, self.profiles, strict=True)
        ):
            offset = self.index.side(number)[row] - profile.mean
            parts[:, number] = (
                weight * (side @ offset) * (self.levels[number][row] if self.levels else 1.0)
            )
        return parts


def gather_audience(
    index: EmbeddingIndex, seeds: Sequence[np.ndarray], ridge: float, hub_correction: float
) -> Audience:
    """The profiles of m listeners. seeds: each one's liked tracks as rows of the index, one array a
    listener.

    As `EmbeddingIndex.profile_query`, for all at once. Cost: m x d x d; memory m x D float32.
    """
    profiles, levels = index.profiles(ridge, hub_correction)
    sides = [
        score_directions(profile, index.side(number), seeds)
        for number, profile in enumerate(profiles)
    ]
    return Audience(
        index,
        tuple(side.astype(np.float32) for side in sides),
        tuple(profiles),
        levels if hub_correction > 0 else (),
    )


def load_audience(
    index: EmbeddingIndex, listening: ListeningHistory, config: SearchConfig
) -> tuple[np.ndarray, Audience]:
    """The listeners who like something, `MOST_LISTENERS` at most, as numbers, ascending, and their
    profiles.
    """
    numbers = np.flatnonzero(listening.n_liked > 0)
    if len(numbers) > MOST_LISTENERS:
        order = np.argsort(-listening.n_liked[numbers], kind="stable")[:MOST_LISTENERS]
        numbers = np.sort(numbers[order])
    seeds = [listening.seeds(number, config.n_seed_tracks) for number in numbers.tolist()]
    return numbers, gather_audience(index, seeds, config.profile_l2, config.hub_correction)


def best_listeners(
    index: EmbeddingIndex,
    listening: ListeningHistory,
    numbers: np.ndarray,
    audience: Audience,
    track: str,
    k: int,
    blend: float,
) -> list[Listener]:
    """The `k` best of `load_audience` listeners for `track`, ties by id; DataError if the index
    does not hold it.
    """
    if track not in index.rows:
        raise DataError(
            f"track {track!r} is not in the index; check the id, or run: ponticello embed",
            code="unknown_track",
        )
    row = index.rows[track]
    parts = audience.parts(row, blend)
    best = np.argsort(-parts.sum(axis=1), kind="stable")[:k]
    return [
        Listener(
            rank=rank,
            user_id=listening.users[numbers[place]],
            score=float(parts[place].sum()),
            semantic=float(parts[place, 0]),
            preference=float(parts[place, 1]),
            already_played=bool((listening.met(numbers[place]) == row).any()),
        )
        for rank, place in enumerate(best, 1)
    ]


def find_listeners(
    index: EmbeddingIndex,
    listening: ListeningHistory,
    track: str,
    k: int,
    blend: float,
    config: SearchConfig,
) -> list[Listener]:
    """`load_audience` and `best_listeners` in one, for a single question; errors also as
    `EmbeddingIndex.require_blend`.
    """
    index.require_blend(blend)
    return best_listeners(
        index, listening, *load_audience(index, listening, config), track, k, blend
    )
