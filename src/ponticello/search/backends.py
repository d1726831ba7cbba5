"""Which of the three ways a library is searched, as the setting `search.backend` and its size have
it.
"""

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

EXACT_ROWS = 200_000  # rows up to which every one is looked at: 7 ms on one core
INSTALL = "pip install 'ponticello[faiss]'"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class VectorBackend:
    """What finds rows in a generation, and how well: in its index.json.

    kind: of the FAISS index. table: on the server. probed, recall: by dial, clusters looked into,
    and the share of the best ten that was found, measured against looking at every row; empty where
    every row is looked at.
    """

    backend: Literal["exact", "faiss", "postgres"]
    kind: str = ""
    table: str = ""
    probed: Mapping[str, int] = field(default_factory=dict)
    recall: Mapping[str, float] = field(default_factory=dict)


def build_backend(
    backend: str, vectors: np.ndarray, track_ids: Sequence[str], n_spaces: int, folder: Path
) -> VectorBackend:
    """Makes what finds rows of `vectors` (n, D) float32, its files in `folder`, and says how good
    it is.

    backend: as the setting. `auto` is exact up to `EXACT_ROWS` and FAISS above, exact with a
    warning where that is not installed; below `LEAST_ROWS` FAISS is exact, too. LibraryError if
    FAISS is asked for and missing, or as `PgvectorIndex`.
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
    """What finds rows in a generation. LibraryError if it was not written for the setting, or lacks
    what it needs.
    """
    if backend == "exact":
        return ExactIndex(vectors)
    if _is_url(backend) != (finder.backend == "postgres"):
        where = "on a server" if finder.backend == "postgres" else "on no server"
        raise LibraryError(
            f"the index is {where}, and search.backend is {_shown(backend)}; change that, or run: ponticello embed"
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
    """Takes the tables of former generations off the server, if the setting still names it."""
    if tables and _is_url(backend):
        drop_tables(backend, tables)


def _files(folder: Path, n_spaces: int) -> list[Path]:
    return [folder / f"space-{number}.faiss" for number in range(n_spaces)]


def _is_url(backend: str) -> bool:
    return "://" in backend


def _shown(backend: str) -> str:
    return "a PostgreSQL" if _is_url(backend) else backend
