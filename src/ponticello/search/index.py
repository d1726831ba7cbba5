"""One vector a track holds both spaces, so any position of the dial is one dot product.

Each space is calibrated (`calibration.py`): the scale goes to the query, the means become one
offset. Which rows come first is for `neighbours.py`; the files are in `generations.py`.

How cosines lie in a space. Raw cosines of two spaces cannot be compared: a cosine c counts as (c -
mean) / std.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl

from ponticello.errors import DataError, LibraryError
from ponticello.search.exact import ExactIndex, NeighborIndex
from ponticello.search.user_profiles import UserProfiles, fit_profiles
from ponticello.storage.schema import TRACK_ID

CALIBRATION_PAIRS = 20_000  # random pairs: mean and standard deviation to about 1 %


@dataclass(frozen=True)
class Calibration:
    """Mean and standard deviation of cosines between random queries and tracks."""

    mean: float
    std: float


@dataclass(frozen=True)
class VectorSpace:
    """One of the two spaces: the run it comes from, its id, and how cosines are distributed in it."""

    run: str
    space_id: str
    audio: Calibration  # between two tracks
    text: Calibration  # between a text and a track


def calibrate(queries: np.ndarray, vectors: np.ndarray, seed: int = 0) -> Calibration:
    """Mean and standard deviation of the cosine between random rows of `queries` (q, d) and of
    `vectors` (n, d).

    When both are the same array, a row is never paired with itself.
    """
    generator = np.random.default_rng(seed)
    left = generator.integers(len(queries), size=CALIBRATION_PAIRS)
    right = generator.integers(len(vectors), size=CALIBRATION_PAIRS)
    if queries is vectors:
        left, right = left[left != right], right[left != right]
    cosines = np.einsum("id,id->i", queries[left], vectors[right]) if len(left) else np.zeros(1)
    return Calibration(float(cosines.mean()), max(float(cosines.std()), 1e-6))


ROW = "row of the index"  # a filter cannot name it, nor will a catalogue
Kind = Literal["audio", "text", "profile"]


@dataclass(frozen=True)
class Query:
    """What is asked, as (q, d) in each space; preference None before stage two. Unit vectors, but
    for a profile.
    """

    semantic: np.ndarray
    preference: np.ndarray | None
    kind: Kind
    offsets: tuple[float, ...] = ()  # of a profile: what its scores start from in each space
    levels: tuple[
        np.ndarray, ...
    ] = ()  # of a profile: (n,) what each track's scores are multiplied by in each space


class EmbeddingIndex:
    """Tracks to ask: `track_ids`, their vectors and the spaces' calibration.

    recordings: a name for what each track is a copy of; None = no two tracks are known to be one
    recording.
    neighbours: what finds the closest rows; None = by looking at each.
    """

    def __init__(
        self,
        track_ids: list[str],
        vectors: np.ndarray,
        spaces: list[VectorSpace],
        recordings: list[str] | None = None,
        neighbours: NeighborIndex | None = None,
    ) -> None:
        self.track_ids, self.vectors, self.spaces = track_ids, vectors, spaces
        self.recordings = track_ids if recordings is None else recordings
        self.neighbours = ExactIndex(vectors) if neighbours is None else neighbours
        self.embed_dim = vectors.shape[1] // len(spaces)
        self._profiles: dict[
            tuple[float, float], tuple[list[UserProfiles], tuple[np.ndarray, ...]]
        ] = {}  # when asked for

    @cached_property
    def rows(self) -> dict[str, int]:
        """Each track's row."""
        return {track_id: row for row, track_id in enumerate(self.track_ids)}

    def placed(self, tracks: pl.DataFrame) -> pl.DataFrame:
        """Those of `tracks` that the index holds, in its order, their row in the column `ROW`; once
        is enough.
        """
        if ROW in tracks.columns:
            return tracks
        places = pl.DataFrame(
            {TRACK_ID: self.track_ids}, schema={TRACK_ID: pl.String}
        ).with_row_index(ROW)
        return tracks.join(places.cast({ROW: pl.Int64}), on=TRACK_ID, how="inner").sort(ROW)

    @property
    def has_preference(self) -> bool:
        """Whether it holds taste beside meaning."""
        return len(self.spaces) == 2

    def track_query(self, track_ids: list[str]) -> Query:
        """The query "like these tracks", one row each; DataError names the first that is not in the
        index.
        """
        for track_id in track_ids:
            if track_id not in self.rows:
                raise DataError(
                    f"track {track_id!r} is not in the index; check the id, or run: ponticello embed",
                    code="unknown_track",
                )
        vectors = self.vectors[[self.rows[track_id] for track_id in track_ids]]
        both = self.has_preference
        return Query(
            vectors[:, : self.embed_dim], vectors[:, self.embed_dim :] if both else None, "audio"
        )

    def profile_query(self, track_ids: list[str], ridge: float, hub_correction: float) -> Query:
        """The query "what a listener of these tracks likes", one row; DataError as `track_query`."""
        found = self._asked(track_ids, ridge, hub_correction, UserProfiles.direction)
        return self._profile([directions[None] for directions in found], ridge, hub_correction)

    def seed_queries(
        self, track_ids: list[str], ridge: float, hub_correction: float
    ) -> list[Query]:
        """What each of the tracks adds to `profile_query`, one query a track: their parts add up to
        its parts.
        """
        found = self._asked(track_ids, ridge, hub_correction, UserProfiles.shares)
        return [
            self._profile([shares[number : number + 1] for shares in found], ridge, hub_correction)
            for number in range(len(track_ids))
        ]

    def _asked(
        self,
        track_ids: list[str],
        ridge: float,
        hub_correction: float,
        how: Callable[[UserProfiles, np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """What these tracks ask in each space, as `how` has it."""
        seeds = self.track_query(track_ids)
        sides = [side for side in (seeds.semantic, seeds.preference) if side is not None]
        profiles = self.profiles(ridge, hub_correction)[0]
        return [how(profile, side) for profile, side in zip(profiles, sides, strict=True)]

    def _profile(self, rows: list[np.ndarray], ridge: float, hub_correction: float) -> Query:
        """The query with these directions, (1, d) float64 in each space."""
        profiles, levels = self.profiles(ridge, hub_correction)
        offsets = tuple(
            float(u[0] @ profile.mean) for u, profile in zip(rows, profiles, strict=True)
        )
        told = levels if hub_correction > 0 else ()  # else all of them are 1
        sides = [u.astype(np.float32) for u in rows]
        return Query(sides[0], sides[1] if self.has_preference else None, "profile", offsets, told)

    def profiles(
        self, ridge: float, hub_correction: float
    ) -> tuple[list[UserProfiles], tuple[np.ndarray, ...]]:
        """Each space's profiles and levels, kept once made."""
        key = ridge, hub_correction
        if key not in self._profiles:
            sides = [self.space_vectors(number) for number in range(len(self.spaces))]
            profiles = [fit_profiles(side, ridge) for side in sides]
            levels = [
                own.levels(side, hub_correction) for own, side in zip(profiles, sides, strict=True)
            ]
            self._profiles[key] = profiles, tuple(level.astype(np.float32) for level in levels)
        return self._profiles[key]

    def space_vectors(self, number: int) -> np.ndarray:
        """(n, d) the vectors of one space."""
        side: np.ndarray = self.vectors[:, number * self.embed_dim : (number + 1) * self.embed_dim]
        return side

    def scores(self, query: Query, blend: float) -> np.ndarray:
        """(q, n): (1 - blend) * semantic + blend * preference, each calibrated; higher is closer.

        blend: 0 = meaning .. 1 = taste. DataError outside that range, or above 0 before stage two.
        """
        if query.levels:
            return self._levelled_scores(query, blend)
        scaled, offset = self.scaled(query, blend)
        found: np.ndarray = scaled @ self.vectors.T + np.float32(offset)
        return found

    def top(
        self, query: Query, blend: float, k: int, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """(m,) the best `k` rows for `query`, of one row, best first, ties by row; fewer if there
        are fewer.

        allowed: as in `NeighborIndex.top`. A profile with levels has two products a track and is
        always looked up exactly. DataError as `scores`.
        """
        if not query.levels:
            return self.neighbours.top(self.scaled(query, blend)[0][0], k, allowed)[0]
        scores = self._levelled_scores(query, blend)[0]
        rows = np.arange(len(scores)) if allowed is None else allowed
        best: np.ndarray = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return best

    def scaled(self, query: Query, blend: float) -> tuple[np.ndarray, float]:
        """(q, D) float32 by which the vectors are multiplied, and what is added to the products to
        give `scores`.
        """
        sides, offset = [], 0.0
        for weight, calibration, side in self.weighted(query, blend):
            sides.append(side * np.float32(weight / calibration.std))
            offset -= weight * calibration.mean / calibration.std
        return np.concatenate(sides, axis=1).astype(np.float32, copy=False), offset

    def _levelled_scores(self, query: Query, blend: float) -> np.ndarray:
        """As `scores`, of a profile: a product for each space, as a track has a level in each."""
        found = np.zeros((len(query.semantic), len(self.track_ids)), dtype=np.float32)
        for number, (weight, calibration, side) in enumerate(self.weighted(query, blend)):
            own = side @ self.space_vectors(number).T - np.float32(calibration.mean)
            found += np.float32(weight / calibration.std) * query.levels[number] * own
        return found

    def parts(self, query: Query, blend: float, rows: np.ndarray) -> np.ndarray:
        """(q, len(rows), 2): the semantic and the preference part of each score; they add up to it."""
        parts = np.zeros((len(query.semantic), len(rows), 2))
        for number, (weight, calibration, side) in enumerate(self.weighted(query, blend)):
            vectors = self.vectors[rows, number * self.embed_dim : (number + 1) * self.embed_dim]
            parts[:, :, number] = weight * (side @ vectors.T - calibration.mean) / calibration.std
            if query.levels:
                parts[:, :, number] *= query.levels[number][rows]
        return parts

    def require_blend(self, blend: float) -> None:
        """DataError for a blend outside 0 to 1, LibraryError for one above 0 before there is taste."""
        if not 0 <= blend <= 1:
            raise DataError(f"blend {blend} must lie between 0 (meaning) and 1 (taste)")
        if blend > 0 and not self.has_preference:
            raise LibraryError(
                "the index holds no preference space yet: use blend 0, or train stage two and embed",
                code="no_preference",
            )

    def weighted(self, query: Query, blend: float) -> list[tuple[float, Calibration, np.ndarray]]:
        """What each space has to say: its weight, how its scores lie, and the query in it."""
        self.require_blend(blend)
        if not self.has_preference:
            return [(1.0, self.calibration(query, 0), query.semantic)]
        if query.preference is None:
            raise DataError("the query has no vector in the preference space")
        return [
            (1 - blend, self.calibration(query, 0), query.semantic),
            (blend, self.calibration(query, 1), query.preference),
        ]

    def calibration(self, query: Query, number: int) -> Calibration:
        """How a query's cosines lie in the space of this number, 0 = semantic."""
        if query.kind == "profile":
            return Calibration(query.offsets[number], 1.0)  # its spread over the index is 1 already
        space = self.spaces[number]
        return space.audio if query.kind == "audio" else space.text
