"""The vectors of tracks: queries, scores and the nearest rows.

A track's vector holds both spaces, so a score is one dot product at every blend. Raw cosines of two
spaces cannot be compared, so each space is calibrated: a cosine c counts as (c - mean) / std. The
scale is applied to the query, and the means become one offset.

float32 throughout: numpy has no fast product of half-precision numbers, so a file of half the size
would take ten times as long (a million rows of 200: 500 ms, against 35).

Dimensions: n rows, d the size of a space, D the size of a vector over all its spaces, q queries,
m rows of an answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import numpy as np

from ponticello.errors import DataError, LibraryError
from ponticello.search.user_profiles import UserProfiles, fit_profiles

CALIBRATION_PAIRS = 20_000  # random pairs: mean and standard deviation to about 1 %
BLOCK_ROWS = 16_384  # allowed rows copied at once
# of all rows: if fewer are allowed, copying them is faster than multiplying all
GATHER_SHARE = 0.3


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
    """Returns the calibration of cosines between random, different rows of (q, d) and (n, d)."""
    generator = np.random.default_rng(seed)
    left = generator.integers(len(queries), size=CALIBRATION_PAIRS)
    right = generator.integers(len(vectors), size=CALIBRATION_PAIRS)
    if queries is vectors:
        is_pair = left != right
        left = left[is_pair]
        right = right[is_pair]
    cosines = np.einsum("id,id->i", queries[left], vectors[right]) if len(left) else np.zeros(1)
    return Calibration(float(cosines.mean()), max(float(cosines.std()), 1e-6))


@dataclass(frozen=True)
class Query:
    """Query vectors (q, d) of each space, semantic first.

    They have unit length, except those of a profile. offsets: of a profile's scores, by space: one
    number, or (q, 1). levels: factors (n,) of the tracks' scores, by space; () = all are 1.
    """

    vectors: tuple[np.ndarray, ...]
    kind: Literal["audio", "text", "profile"]
    offsets: tuple[float | np.ndarray, ...] = ()
    levels: tuple[np.ndarray, ...] = ()


class CandidateFinder(Protocol):
    """Finds rows that are likely to be the nearest. probed: the clusters searched, by blend."""

    probed: dict[str, int]

    def candidates(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None
    ) -> np.ndarray | None:
        """Returns distinct rows (m,) int64 that should hold the best `k`; None = compare all.

        query: (D,) float32. allowed: as in `nearest_rows`.
        """


class EmbeddingIndex:
    """Tracks to search: `track_ids`, their vectors and the calibration of the spaces.

    recordings: the name of each track's recording; None = every track is a recording of its own.
    finder: of the nearest rows; None = exact search.
    """

    def __init__(
        self,
        track_ids: list[str],
        vectors: np.ndarray,
        spaces: list[VectorSpace],
        recordings: list[str] | None = None,
        finder: CandidateFinder | None = None,
    ) -> None:
        self.track_ids = track_ids
        self.vectors = vectors
        self.spaces = spaces
        self.recordings = track_ids if recordings is None else recordings
        self.finder = finder
        self.embed_dim = vectors.shape[1] // len(spaces)
        self._profiles: dict[tuple[float, float], tuple[list[UserProfiles], list[np.ndarray]]] = {}

    @cached_property
    def rows(self) -> dict[str, int]:
        """Each track's row."""
        return dict(zip(self.track_ids, range(len(self.track_ids)), strict=True))

    def row(self, track_id: str) -> int:
        """Returns a track's row; DataError for an unknown track."""
        if track_id not in self.rows:
            raise DataError(
                f"track {track_id!r} is not in the index; check the id, or run: ponticello embed",
                code="unknown_track",
            )
        return self.rows[track_id]

    @property
    def has_preference(self) -> bool:
        """Whether it has a preference space."""
        return len(self.spaces) == 2

    def space_vectors(self, number: int) -> np.ndarray:
        """Returns the vectors (n, d) of one space."""
        first = number * self.embed_dim
        space_vectors: np.ndarray = self.vectors[:, first : first + self.embed_dim]
        return space_vectors

    # Queries

    def track_query(self, track_ids: list[str]) -> Query:
        """Returns the query "like these tracks", a row each; DataError for an unknown track."""
        vectors = self.vectors[[self.row(track_id) for track_id in track_ids]]
        return Query(tuple(np.split(vectors, len(self.spaces), axis=1)), "audio")

    def profile_query(
        self, track_ids: list[str], ridge: float, hub_correction: float
    ) -> tuple[Query, list[Query]]:
        """Returns the profile of a user with these liked tracks, and each track's share of it."""
        seeds = self.track_query(track_ids).vectors
        profiles, levels = self.profiles(ridge, hub_correction)
        shares = []
        for profile, vectors in zip(profiles, seeds, strict=True):
            shares.append(profile.shares(vectors))

        def as_query(directions: list[np.ndarray]) -> Query:
            offsets = []
            for profile, direction in zip(profiles, directions, strict=True):
                offsets.append(float(direction[0] @ profile.mean))
            vectors = tuple(direction.astype(np.float32) for direction in directions)
            return Query(vectors, "profile", tuple(offsets), tuple(levels))

        terms = []
        for number in range(len(track_ids)):
            terms.append(as_query([share[number : number + 1] for share in shares]))
        return as_query([share.sum(axis=0, keepdims=True) for share in shares]), terms

    def profiles(
        self, ridge: float, hub_correction: float
    ) -> tuple[list[UserProfiles], list[np.ndarray]]:
        """Returns each space's profiles, and levels (n,) float32: none without hub correction."""
        key = (ridge, hub_correction)
        if key not in self._profiles:
            profiles = []
            levels = []
            for number in range(len(self.spaces)):
                vectors = self.space_vectors(number)
                profiles.append(fit_profiles(vectors, ridge))
                if hub_correction > 0:
                    space_levels = profiles[number].levels(vectors, hub_correction)
                    levels.append(space_levels.astype(np.float32))
            self._profiles[key] = (profiles, levels)
        return self._profiles[key]

    def compose(
        self, queries: Sequence[Query], weights: Sequence[float]
    ) -> tuple[Query, list[Query]]:
        """Returns the query with the score sum of weight x score / sum of |weight| over `queries`,
        of one row each and without levels; and the share of each query in it.

        A score is linear in the query. So queries are added before the search: ten cost as much as
        one. DataError if there is none, or a weight is 0 or not finite.
        """
        if not queries:
            raise DataError("a query needs at least one term: words, a track or a sound")
        if not np.isfinite(weights).all() or not np.all(weights):
            raise DataError("each term's weight must be a number other than 0")
        shares = np.array(weights) / np.abs(weights).sum()
        terms = []
        for query, share in zip(queries, shares.tolist(), strict=True):
            vectors = []
            offsets: list[float | np.ndarray] = []
            for mean, std, space_vectors in self._calibrated(query):
                vectors.append((space_vectors * (share / std)).astype(np.float32))
                offsets.append(mean * share / std)
            terms.append(Query(tuple(vectors), "profile", tuple(offsets)))
        sums = []
        sum_offsets = []
        for number in range(len(self.spaces)):
            vectors_of_terms = np.concatenate([term.vectors[number] for term in terms])
            sums.append(vectors_of_terms.sum(axis=0, keepdims=True))
            sum_offsets.append(sum(term.offsets[number] for term in terms))
        return Query(tuple(sums), "profile", tuple(sum_offsets)), terms

    # Scores

    def scores(self, query: Query, blend: float) -> np.ndarray:
        """Returns (q, n) float32: (1 - blend) * semantic + blend * preference, each calibrated.

        DataError for a blend outside 0 to 1, LibraryError above 0 before stage two.
        """
        scores = np.zeros((len(query.vectors[0]), len(self.track_ids)), dtype=np.float32)
        for number, (scale, mean, vectors) in enumerate(self.weighted(query, blend)):
            centred = vectors @ self.space_vectors(number).T - np.float32(mean)
            if query.levels:
                centred *= query.levels[number]
            scores += np.float32(scale) * centred
        return scores

    def parts(self, query: Query, blend: float, rows: np.ndarray) -> np.ndarray:
        """Returns (q, len(rows), 2): the semantic and preference parts of the scores."""
        parts = np.zeros((len(query.vectors[0]), len(rows), 2))
        for number, (scale, mean, vectors) in enumerate(self.weighted(query, blend)):
            cosines = vectors @ self.space_vectors(number)[rows].T
            parts[:, :, number] = scale * (cosines - mean)
            if query.levels:
                parts[:, :, number] *= query.levels[number][rows]
        return parts

    def top(
        self, query: Query, blend: float, k: int, allowed: np.ndarray | None = None
    ) -> np.ndarray:
        """Returns (m,) the best `k` rows for a query of one row, best first, ties by row.

        There are fewer if fewer are allowed. allowed: as in `nearest_rows`. A profile with levels
        has two products per track, so its search is exact. DataError as `scores`.
        """
        if query.levels:
            scores = self.scores(query, blend)[0]
            rows = np.arange(len(scores)) if allowed is None else allowed
            best: np.ndarray = rows[_best_positions(scores[rows], k)]
            return best
        factors = []
        for scale, _, vectors in self.weighted(query, blend):
            factors.append(vectors[0] * np.float32(scale))
        return nearest_rows(self.vectors, np.concatenate(factors), k, allowed, self.finder)[0]

    def weighted(
        self, query: Query, blend: float
    ) -> list[tuple[float, float | np.ndarray, np.ndarray]]:
        """Returns (scale, mean, query vectors) of each space, scored scale * (cosine - mean)."""
        if not 0 <= blend <= 1:
            raise DataError(f"blend {blend} must lie between 0 (semantic) and 1 (preference)")
        if blend > 0 and not self.has_preference:
            raise LibraryError("the index has one space: use blend 0", code="no_preference")
        weights = (1 - blend, blend) if self.has_preference else (1.0,)
        spaces = []
        for weight, (mean, std, vectors) in zip(weights, self._calibrated(query), strict=True):
            spaces.append((weight / std, mean, vectors))
        return spaces

    def _calibrated(self, query: Query) -> list[tuple[float | np.ndarray, float, np.ndarray]]:
        """Returns the mean and deviation of a query's cosines, and its vectors, in each space."""
        if len(query.vectors) < len(self.spaces):
            raise DataError("the query has no vector in the preference space")
        spaces: list[tuple[float | np.ndarray, float, np.ndarray]] = []
        for number, space in enumerate(self.spaces):
            if query.kind == "profile":  # its spread over the index is 1 already
                spaces.append((query.offsets[number], 1.0, query.vectors[number]))
            else:
                calibration = space.audio if query.kind == "audio" else space.text
                spaces.append((calibration.mean, calibration.std, query.vectors[number]))
        return spaces


def nearest_rows(
    vectors: np.ndarray,
    query: np.ndarray,
    k: int,
    allowed: np.ndarray | None = None,
    finder: CandidateFinder | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows (m,) int64 of `vectors` with the largest dot products with a query, and
    their products (m,) float32, best first, ties by row.

    m is k, or the number of rows that may be returned if that is smaller. A row can only be missing
    from it with a `finder`; the products are the same with each.

    vectors: (n, D) float32, which may be a memory map. query: (D,), of any length. k: >= 1.
    allowed: (a,) int64, ascending; the only rows that may be returned, None = all. Cost: n x D.
    """
    query = query.astype(np.float32, copy=False)
    rows = allowed
    if finder is not None:
        candidates = finder.candidates(query, k, allowed)
        n_available = len(vectors) if allowed is None else len(allowed)
        if candidates is not None and len(candidates) >= min(k, n_available):
            rows = np.sort(candidates)  # the order of the file: sequential reads are faster
    products = _products(vectors, query, rows)
    best = _best_positions(products, k)
    return best if rows is None else rows[best], products[best]


def _products(vectors: np.ndarray, query: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
    """Returns the dot products (m,) float32 of a query with some rows, None = all.

    Each depends on its row alone: equal vectors tie, and all finders lead to equal numbers. The
    last place of a matrix product may depend on a row's position. It is also twice as fast as one:
    numpy 2.4 takes 35 ms for a million rows of 200, `@` 70 to 105.
    """
    if rows is None or len(rows) > GATHER_SHARE * len(vectors):
        products: np.ndarray = np.einsum("nd,d->n", vectors, query, dtype=np.float32)
        return products if rows is None else products[rows]
    products = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), BLOCK_ROWS):
        block = vectors[rows[start : start + BLOCK_ROWS]]
        np.einsum("nd,d->n", block, query, out=products[start : start + BLOCK_ROWS])
    return products


def _best_positions(scores: np.ndarray, k: int) -> np.ndarray:
    """Returns the positions of the `k` largest `scores` (n,), largest first, ties by position."""
    positions = np.arange(len(scores))
    if k < len(scores):
        least = np.partition(scores, len(scores) - k)[len(scores) - k]
        positions = np.flatnonzero(scores >= least)
    best: np.ndarray = positions[np.argsort(-scores[positions], kind="stable")[:k]]
    return best
