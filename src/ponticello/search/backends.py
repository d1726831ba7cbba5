"""Chooses how a library is searched, from the setting `search.backend` and the library's size."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np

from ponticello.errors import LibraryError
from ponticello.search.exact import ExactIndex, NeighborIndex
from ponticello.search.faiss_index import LEAST_ROWS, build_clusters, open_clusters
from ponticello.search.pgvector_index import PgvectorIndex, build_table, drop_tables

EXACT_ROWS = 200_000  # rows up to which all of them are compared: 7 ms on one core
INSTALL = "pip install 'ponticello[faiss]'"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VectorBackend:
    """The backend of a generation, as its index.json describes it.

    kind: of the FAISS index. table: on the server. probed: the clusters searched at each blend.
    recall: the share of the exact ten best rows that the backend returned at each blend. Both are
    empty for exact search.
    """

    backend: Literal["exact", "faiss", "postgres"]
    kind: str = ""
    table: str = ""
    probed: Mapping[str, int] = field(default_factory=dict)
    recall: Mapping[str, float] = field(default_factory=dict)


def build_backend(
    backend: str, vectors: np.ndarray, track_ids: Sequence[str], n_spaces: int, folder: Path
) -> VectorBackend:
    """Builds the backend for `vectors` (n, D) float32, with its files in `folder`.

    backend: as the setting. `auto` is exact up to `EXACT_ROWS` and FAISS above; if FAISS is not
    installed, it is exact and logs a warning. Below `LEAST_ROWS` `faiss` is exact, too.
    LibraryError if `faiss` is set and not installed, or as `PgvectorIndex`.
    """
    if _is_url(backend):
        table, probed, recall = build_table(backend, vectors, track_ids, n_spaces)
        return VectorBackend("postgres", "IVFFlat" if probed else "", table, probed, recall)
    is_wanted = backend == "faiss" or (backend == "auto" and len(vectors) > EXACT_ROWS)
    if not is_wanted or len(vectors) < LEAST_ROWS:
        return VectorBackend("exact")
    if find_spec("faiss") is None:
        if backend == "faiss":
            raise LibraryError(f"search.backend is faiss, which is not installed: {INSTALL}")
        logger.warning(
            "every one of %s tracks is looked at for each question; faster: %s",
            len(vectors),
            INSTALL,
        )
        return VectorBackend("exact")
    clusters = build_clusters(vectors, n_spaces, _files(folder, n_spaces))
    return VectorBackend("faiss", clusters.kind, "", clusters.probed, clusters.recall)


def open_backend(
    finder: VectorBackend, backend: str, vectors: np.ndarray, n_spaces: int, folder: Path
) -> NeighborIndex:
    """Opens the backend of a generation.

    LibraryError if the generation was written for another backend, or a package is missing.
    """
    if backend == "exact":
        return ExactIndex(vectors)
    if _is_url(backend) != (finder.backend == "postgres"):
        where = "on a server" if finder.backend == "postgres" else "on no server"
        raise LibraryError(
            f"the index is {where}, and search.backend is {_shown(backend)}; change that, or run: "
            "ponticello embed"
        )
    if finder.backend == "postgres":
        return PgvectorIndex(backend, finder.table, vectors, n_spaces, finder.probed)
    if finder.backend == "exact":
        return ExactIndex(vectors)
    if find_spec("faiss") is None:
        raise LibraryError(
            f"the index needs FAISS: {INSTALL}; or ask without it: search.backend=exact"
        )
    return open_clusters(_files(folder, n_spaces), vectors, finder.probed)


def remove_tables(backend: str, tables: Collection[str]) -> None:
    """Drops the tables of former generations, if the setting still names their server."""
    if tables and _is_url(backend):
        drop_tables(backend, tables)


def _files(folder: Path, n_spaces: int) -> list[Path]:
    return [folder / f"space-{number}.faiss" for number in range(n_spaces)]


def _is_url(backend: str) -> bool:
    return "://" in backend


def _shown(backend: str) -> str:
    return "a PostgreSQL" if _is_url(backend) else backend
