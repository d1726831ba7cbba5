"""Ranks the tracks of a small index by the search service."""

from collections.abc import Collection, Sequence
from pathlib import Path

import polars as pl

from ponticello.config import Config
from ponticello.search.index import EmbeddingIndex, Query
from ponticello.search.results import SearchResults
from ponticello.search.service import ResolvedQuery, SearchService
from ponticello.storage.layout import LibraryPaths


def rank(
    index: EmbeddingIndex,
    query: Query,
    tracks: pl.DataFrame,
    *,
    k: int,
    blend: float,
    excluded: Collection[str] = (),
    per_artist: int | None = None,
    deduplicate_recordings: bool = False,
    where: Sequence[str] = (),
) -> SearchResults:
    """Returns the best tracks for a query, as `SearchService.rank`."""
    config = Config.model_validate({"search": {"deduplicate_recordings": deduplicate_recordings}})
    service = SearchService(LibraryPaths(Path(), config), index, tracks)
    resolved = ResolvedQuery(query, (), (), frozenset(excluded))
    return service.rank(resolved, k, blend, per_artist=per_artist, where=where)
