"""Queries and scores over the vectors of tracks.

A track's vector holds both spaces, so a score is one dot product at every blend. Raw cosines of two
spaces cannot be compared, so each space is calibrated: a cosine c counts as (c - mean) / std. The
scale is applied to the query, and the means become one offset.
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
    """One of the two spaces: its run, its id, and the calibration of its cosines."""

    run: str
    space_id: str
    audio: Calibration  # between two tracks
    text: Calibration  # between a text and a track


def calibrate(queries: np.ndarray, vectors: np.ndarray, seed: int = 0) -> Calibration:
    """Returns the calibration of cosines between random rows of `queries` (q, d), `vectors` (n, d).

    When both are the same array, a row is never paired with itself.
    """
    generator = np.random.default_rng(seed)
    left = generator.integers(len(queries), size=CALIBRATION_PAIRS)
    right = generator.integers(len(vectors), size=CALIBRATION_PAIRS)
    if queries is vectors:
        is_pair = left != right
        left = left[is_pair]
        right = right[is_pair]
    cosines = np.einsum("id,id->i", queries[left], vectors[right]) if len(left) else np.zeros(1)
    return Calibration(float(cosines.mean()), max(float(cosines.std()), 1e-6))


ROW = "row of the index"  # a filter cannot name it, nor will a catalogue
Kind = Literal["audio", "text", "profile"]


@dataclass(frozen=True)
class Query:
    """Query vectors, (q, d) in each space; preference is None before stage two.

    They have unit length, except those of a profile.
    """

    semantic: np.ndarray
    preference: np.ndarray | None
    kind: Kind
    # Of a profile, by space: the offset of its scores, and (n,) the factors of the tracks' scores.
    offsets: tuple[float, ...] = ()
    levels: tuple[np.ndarray, ...] = ()


class EmbeddingIndex:
    """Tracks to search: `track_ids`, their vectors and the calibration of the spaces.

    recordings: the name of each track's recording; None = every track is a recording of its own.
    neighbours: finds the nearest rows; None = exact search.
    """

    def __init__(
        self,
        track_ids: list[str],
        vectors: np.ndarray,
        spaces: list[VectorSpace],
        recordings: list[str] | None = None,
        neighbours: NeighborIndex | None = None,
    ) -> None:
        self.track_ids = track_ids
        self.vectors = vectors
        self.spaces = spaces
        self.recordings = track_ids if recordings is None else recordings
        self.neighbours = ExactIndex(vectors) if neighbours is None else neighbours
        self.embed_dim = vectors.shape[1] // len(spaces)
        self._profiles: dict[
            tuple[float, float], tuple[list[UserProfiles], tuple[np.ndarray, ...]]
        ] = {}  # by ridge and hub correction

    @cached_property
    def rows(self) -> dict[str, int]:
        """Each track's row."""
        return dict(zip(self.track_ids, range(len(self.track_ids)), strict=True))

    def placed(self, tracks: pl.DataFrame) -> pl.DataFrame:
        """Returns the rows of `tracks` in the index, in its order, with their row as column `ROW`.

        A table with that column is returned unchanged.
        """
        if ROW in tracks.columns:
            return tracks
        rows = pl.DataFrame({TRACK_ID: self.track_ids}, schema={TRACK_ID: pl.String})
        rows = rows.with_row_index(ROW).cast({ROW: pl.Int64})
        return tracks.join(rows, on=TRACK_ID, how="inner").sort(ROW)

    @property
    def has_preference(self) -> bool:
        """Whether it has a preference space."""
        return len(self.spaces) == 2

    def track_query(self, track_ids: list[str]) -> Query:
        """Returns the query "like these tracks", a row each; DataError for an unknown track."""
        for track_id in track_ids:
            if track_id not in self.rows:
                raise DataError(
                    f"track {track_id!r} is not in the index; check the id, or run: "
                    "ponticello embed",
                    code="unknown_track",
                )
        vectors = self.vectors[[self.rows[track_id] for track_id in track_ids]]
        preference = vectors[:, self.embed_dim :] if self.has_preference else None
        return Query(vectors[:, : self.embed_dim], preference, "audio")

    def profile_query(self, track_ids: list[str], ridge: float, hub_correction: float) -> Query:
        """Returns the profile of a user with these liked tracks, one row.

        DataError as `track_query`.
        """
        directions = []
        for direction in self._directions(track_ids, ridge, hub_correction, UserProfiles.direction):
            directions.append(direction[None])
        return self._profile(directions, ridge, hub_correction)

    def seed_queries(
        self, track_ids: list[str], ridge: float, hub_correction: float
    ) -> list[Query]:
        """Returns the share of each track in `profile_query`; their parts add up to its parts."""
        shares = self._directions(track_ids, ridge, hub_correction, UserProfiles.shares)
        queries = []
        for number in range(len(track_ids)):
            directions = [space_shares[number : number + 1] for space_shares in shares]
            queries.append(self._profile(directions, ridge, hub_correction))
        return queries

    def _directions(
        self,
        track_ids: list[str],
        ridge: float,
        hub_correction: float,
        compute: Callable[[UserProfiles, np.ndarray], np.ndarray],
    ) -> list[np.ndarray]:
        """Returns the result of `compute` for the vectors of these tracks in each space."""
        seeds = self.track_query(track_ids)
        profiles = self.profiles(ridge, hub_correction)[0]
        directions = [compute(profiles[0], seeds.semantic)]
        if seeds.preference is not None:
            directions.append(compute(profiles[1], seeds.preference))
        return directions

    def _profile(self, rows: list[np.ndarray], ridge: float, hub_correction: float) -> Query:
        """Returns the query with these directions, (1, d) float64 in each space."""
        profiles, levels = self.profiles(ridge, hub_correction)
        offsets = []
        for direction, profile in zip(rows, profiles, strict=True):
            offsets.append(float(direction[0] @ profile.mean))
        semantic = rows[0].astype(np.float32)
        preference = rows[1].astype(np.float32) if self.has_preference else None
        used_levels = levels if hub_correction > 0 else ()  # without correction all are 1
        return Query(semantic, preference, "profile", tuple(offsets), used_levels)

    def profiles(
        self, ridge: float, hub_correction: float
    ) -> tuple[list[UserProfiles], tuple[np.ndarray, ...]]:
        """Returns the profiles and levels of each space; they are computed once."""
        key = (ridge, hub_correction)
        if key not in self._profiles:
            profiles = []
            levels = []
            for number in range(len(self.spaces)):
                vectors = self.space_vectors(number)
                profile = fit_profiles(vectors, ridge)
                profiles.append(profile)
                levels.append(profile.levels(vectors, hub_correction).astype(np.float32))
            self._profiles[key] = (profiles, tuple(levels))
        return self._profiles[key]

    def space_vectors(self, number: int) -> np.ndarray:
        """Returns the vectors (n, d) of one space."""
        first = number * self.embed_dim
        space_vectors: np.ndarray = self.vectors[:, first : first + self.embed_dim]
        return space_vectors

    def scores(self, query: Query, blend: float) -> np.ndarray:
        """Returns (q, n): (1 - blend) * semantic + blend * preference, each calibrated.

        blend: 0 = semantic .. 1 = preference. DataError outside that range, or above 0 before stage
        two.
        """
        if query.levels:
            return self._levelled_scores(query, blend)
        scaled, offset = self.scaled(query, blend)
        scores: np.ndarray = scaled @ self.vectors.T + np.float32(offset)
        return scores

    def top(
        self, query: Query, blend: float, k: int, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns (m,) the best `k` rows for a query of one row, best first, ties by row.

        There are fewer if fewer are allowed. allowed: as in `NeighborIndex.top`. A profile with
        levels has two products per track, so its search is exact. DataError as `scores`.
        """
        if not query.levels:
            return self.neighbours.top(self.scaled(query, blend)[0][0], k, allowed)[0]
        scores = self._levelled_scores(query, blend)[0]
        rows = np.arange(len(scores)) if allowed is None else allowed
        best: np.ndarray = rows[np.argsort(-scores[rows], kind="stable")[:k]]
        return best

    def scaled(self, query: Query, blend: float) -> tuple[np.ndarray, float]:
        """Returns factors (q, D) float32 and offset: factors @ vectors.T + offset = `scores`."""
        factors = []
        offset = 0.0
        for weight, calibration, query_vectors in self.weighted(query, blend):
            factors.append(query_vectors * np.float32(weight / calibration.std))
            offset -= weight * calibration.mean / calibration.std
        return np.concatenate(factors, axis=1).astype(np.float32, copy=False), offset

    def _levelled_scores(self, query: Query, blend: float) -> np.ndarray:
        """As `scores`, for a profile: a product for each space, as levels differ by space."""
        scores = np.zeros((len(query.semantic), len(self.track_ids)), dtype=np.float32)
        for number, (weight, calibration, vectors) in enumerate(self.weighted(query, blend)):
            centred = vectors @ self.space_vectors(number).T - np.float32(calibration.mean)
            scores += np.float32(weight / calibration.std) * query.levels[number] * centred
        return scores

    def parts(self, query: Query, blend: float, rows: np.ndarray) -> np.ndarray:
        """Returns (q, len(rows), 2): the semantic and preference parts of the scores."""
        parts = np.zeros((len(query.semantic), len(rows), 2))
        for number, (weight, calibration, query_vectors) in enumerate(self.weighted(query, blend)):
            cosines = query_vectors @ self.space_vectors(number)[rows].T
            parts[:, :, number] = weight * (cosines - calibration.mean) / calibration.std
            if query.levels:
                parts[:, :, number] *= query.levels[number][rows]
        return parts

    def require_blend(self, blend: float) -> None:
        """Raises DataError outside 0 to 1, LibraryError above 0 before stage two."""
        if not 0 <= blend <= 1:
            raise DataError(f"blend {blend} must lie between 0 (meaning) and 1 (taste)")
        if blend > 0 and not self.has_preference:
            raise LibraryError(
                "the index holds no preference space yet: use blend 0, or train stage two and "
                "embed",
                code="no_preference",
            )

    def weighted(self, query: Query, blend: float) -> list[tuple[float, Calibration, np.ndarray]]:
        """Returns the weight, the calibration and the query vectors of each space."""
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
        """Returns the calibration of a query's cosines in a space, 0 = semantic."""
        if query.kind == "profile":
            return Calibration(query.offsets[number], 1.0)  # its spread over the index is 1 already
        space = self.spaces[number]
        return space.audio if query.kind == "audio" else space.text
