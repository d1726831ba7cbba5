"""Who would like a track: every listener's profile asked about one track, the same scores `recommend` ranks by."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponticello.config import SearchConfig
from ponticello.errors import DataError
from ponticello.search.index import EmbeddingIndex
from ponticello.search.listening import Listening
from ponticello.search.profile import Profiles, directions

MOST_LISTENERS = 100_000  # those who like most tracks, where there are more: 80 MB of profiles


@dataclass(frozen=True)
class Listener:
    """One listener a track would suit. `semantic` + `preference` = `score`; has_met: they played it before."""

    rank: int
    user_id: str
    score: float
    semantic: float
    preference: float
    has_met: bool


@dataclass(frozen=True)
class Audience:
    """Many listeners' profiles, to be asked about any track. Made by `gather_audience`."""

    index: EmbeddingIndex
    sides: tuple[np.ndarray, ...]  # (m, d) float32 directions, one array a space; row i is one listener
    profiles: tuple[Profiles, ...]
    levels: tuple[np.ndarray, ...]

    def parts(self, row: int, blend: float) -> np.ndarray:
        """(m, 2): the semantic and preference part of each listener's score of the index's row `row`."""
        weights = (1 - blend, blend) if len(self.sides) == 2 else (1.0,)
        parts = np.zeros((len(self.sides[0]), 2))
        for number, (weight, side, profile) in enumerate(zip(weights, self.sides, self.profiles, strict=True)):
            offset = self.index.side(number)[row] - profile.mean
            parts[:, number] = weight * (side @ offset) * (self.levels[number][row] if self.levels else 1.0)
        return parts


def gather_audience(
    index: EmbeddingIndex, seeds: Sequence[np.ndarray], ridge: float, hub_correction: float
) -> Audience:
    """The profiles of m listeners. seeds: each one's liked tracks as rows of the index, one array a listener.

    As `EmbeddingIndex.profile_query`, for all at once. Cost: m x d x d; memory m x D float32.
    """
    profiles, levels = index.profiles(ridge, hub_correction)
    sides = [directions(profile, index.side(number), seeds) for number, profile in enumerate(profiles)]
    return Audience(
        index,
        tuple(side.astype(np.float32) for side in sides),
        tuple(profiles),
        levels if hub_correction > 0 else (),
    )


def gathered(index: EmbeddingIndex, listening: Listening, config: SearchConfig) -> tuple[np.ndarray, Audience]:
    """The listeners who like something, `MOST_LISTENERS` at most, as numbers, ascending, and their profiles."""
    numbers = np.flatnonzero(listening.n_liked > 0)
    if len(numbers) > MOST_LISTENERS:
        order = np.argsort(-listening.n_liked[numbers], kind="stable")[:MOST_LISTENERS]
        numbers = np.sort(numbers[order])
    seeds = [listening.seeds(number, config.recent_seeds) for number in numbers.tolist()]
    return numbers, gather_audience(index, seeds, config.profile_ridge, config.hub_correction)


def best_listeners(
    index: EmbeddingIndex,
    listening: Listening,
    numbers: np.ndarray,
    audience: Audience,
    track: str,
    k: int,
    blend: float,
) -> list[Listener]:
    """The `k` best of `gathered` listeners for `track`, ties by id; DataError if the index does not hold it."""
    if track not in index.rows:
        raise DataError(f"track {track!r} is not in the index; check the id, or run: ponticello embed")
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
            has_met=bool((listening.met(numbers[place]) == row).any()),
        )
        for rank, place in enumerate(best, 1)
    ]


def listeners_for(
    index: EmbeddingIndex, listening: Listening, track: str, k: int, blend: float, config: SearchConfig
) -> list[Listener]:
    """`gathered` and `best_listeners` in one, for a single question; errors also as `EmbeddingIndex.require_blend`."""
    index.require_blend(blend)
    return best_listeners(index, listening, *gathered(index, listening, config), track, k, blend)
