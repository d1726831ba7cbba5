"""Combines the terms of a query into one query; its score is their weighted mean.

A score is linear in the query. So terms are added before the search: ten terms cost as much as one,
and the share of each in a score can be computed exactly afterwards.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ponticello.config import Config
from ponticello.errors import DataError
from ponticello.features.musicnn import MEL, PATCH_FRAMES
from ponticello.search.index import EmbeddingIndex, Query


@dataclass(frozen=True)
class Term:
    """A term of a query. query: one row, without levels. weight: not 0; below 0 = away from it."""

    query: Query
    weight: float = 1.0


@dataclass(frozen=True)
class ComposedQuery:
    """A query to rank by, and the queries of its terms: their components add up to its own."""

    query: Query
    terms: tuple[Query, ...]


def compose_query(index: EmbeddingIndex, terms: Sequence[Term]) -> ComposedQuery:
    """Returns the query with the score sum of weight x score / sum of |weight| over the terms.

    DataError if there is no term, or a weight is 0 or not finite.
    """
    if not terms:
        raise DataError("a query needs at least one term: words, a track or a sound")
    weights = np.array([term.weight for term in terms])
    if not np.isfinite(weights).all() or not weights.all():
        raise DataError("each term's weight must be a number other than 0")
    shares = weights / np.abs(weights).sum()
    scaled = []
    for term, share in zip(terms, shares, strict=True):
        scaled.append(_scale(index, term.query, float(share)))
    semantic = np.concatenate([query.semantic for query in scaled]).sum(axis=0, keepdims=True)
    preferences = [query.preference for query in scaled if query.preference is not None]
    preference = None
    if preferences:
        preference = np.concatenate(preferences).sum(axis=0, keepdims=True)
    offsets = []
    for number in range(len(index.spaces)):
        offsets.append(float(sum(query.offsets[number] for query in scaled)))
    query = Query(semantic, preference, "profile", tuple(offsets))
    return ComposedQuery(query, tuple(scaled))


def _scale(index: EmbeddingIndex, query: Query, weight: float) -> Query:
    """Returns `query` times `weight`, calibrated, so that it can be added to others."""
    vectors: list[np.ndarray] = []
    offsets: list[float] = []
    for number in range(len(index.spaces)):
        space_vectors = query.semantic if number == 0 else query.preference
        if space_vectors is None:
            raise DataError("a term has no vector in the preference space")
        calibration = index.calibration(query, number)
        vectors.append((space_vectors * (weight / calibration.std)).astype(np.float32))
        offsets.append(weight * calibration.mean / calibration.std)
    return Query(vectors[0], vectors[1] if len(vectors) == 2 else None, "profile", tuple(offsets))


def profile_query_terms(
    index: EmbeddingIndex, track_ids: list[str], ridge: float, hub_correction: float
) -> ComposedQuery:
    """Returns the profile of a user with these liked tracks, each a term.

    DataError as `track_query`.
    """
    return ComposedQuery(
        index.profile_query(track_ids, ridge, hub_correction),
        tuple(index.seed_queries(track_ids, ridge, hub_correction)),
    )


def term_shares(
    index: EmbeddingIndex, query: ComposedQuery, blend: float, rows: np.ndarray
) -> np.ndarray:
    """Returns (terms, len(rows), 2): each term's share of the semantic and the preference component
    of these rows' scores.
    """
    return np.stack([index.parts(term, blend, rows)[0] for term in query.terms])


def frame_seconds(config: Config) -> float | None:
    """Returns the seconds from one frame of a track's features to the next; None where it is
    unknown.
    """
    if config.front_end == "logmel":
        return config.mel.hop_s
    return PATCH_FRAMES * MEL.hop_s if config.front_end == "musicnn" else None
