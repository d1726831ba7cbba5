"""Search in PostgreSQL with pgvector: the vectors of a generation as a table on a server.

A table is written in one transaction, named after the hash of its content, and never changed. Up to
`INDEXED_FROM` rows the server compares all of them; above it uses an IVFFlat index, with as many
probes as the measured recall requires (`faiss_index.py`). The rows from the server are ranked by
the vectors of the local file: a changed table can hide a track, but not give a wrong score.
"""

import hashlib
import threading
import weakref
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np

from ponticello.errors import CheckpointError, LibraryError
from ponticello.search.exact import ExactIndex, lists_for, rank_rows
from ponticello.search.faiss_index import blend_of, min_probes, probes_for_recall

if TYPE_CHECKING:
    import psycopg

INDEXED_FROM = 200_000  # rows
MOST_INDEXED_SIZE = 2_000  # dimensions that pgvector can index
FIRST_PROBED = 8  # lists tried first
INSTALL = "pip install 'ponticello[postgres]'"
COPIED_ROWS = 65_536  # rows hashed at once
SPARE = 16  # rows requested beyond k: the server rounds differently
NARROW_SHARE = 0.1  # of all rows: the index is not used if a filter passes fewer


class PgvectorIndex:
    """Searches the table that `build_table` made of `vectors` (n, D) float32; thread-safe.

    probed: lists of the index searched, by blend; empty = the table has no index. LibraryError if
    the server cannot be reached or refuses, CheckpointError if the table is missing or has another
    number of rows.
    """

    def __init__(
        self,
        url: str,
        table: str,
        vectors: np.ndarray,
        n_spaces: int,
        probed: Mapping[str, int] | None = None,
    ) -> None:
        self.url = url
        self.table = table
        self.vectors = vectors
        self.n_spaces = n_spaces
        self.probed = dict(probed or {})
        self.exact = ExactIndex(vectors)
        self._turn = threading.Lock()  # one connection: one transaction at a time
        with _said(url):
            self._connect()
            n_rows = _row_count(self.connection, table)
        if n_rows != len(vectors):
            self.close()
            state = "is missing"
            if n_rows is not None:
                state = f"has {n_rows:,} rows, not the {len(vectors):,} that were written"
            raise CheckpointError(
                f"table {table} on the server {state}",
                code="index_damaged",
                remedy="ponticello embed",
            )

    def top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `NeighborIndex.top`; approximate with an index, exact under narrow filters."""
        query = query.astype(np.float32, copy=False)
        available = len(self.vectors) if allowed is None else len(allowed)
        rows = (
            self._candidates(query, min(k + SPARE, available), allowed)
            if available
            else np.zeros(0, dtype=np.int64)
        )
        if len(rows) < min(k, available):  # the searched lists hold fewer than k
            return self.exact.top(query, k, allowed)
        return rank_rows(self.vectors, query, rows, k)

    def _candidates(self, query: np.ndarray, n: int, allowed: np.ndarray | None) -> np.ndarray:
        """Returns the best `n` rows on the server, ties by row."""
        share = 1.0 if allowed is None else len(allowed) / len(self.vectors)
        is_indexed = bool(self.probed) and share > NARROW_SHARE
        with _said(self.url), self._turn, self._alive() as connection, connection.transaction():
            if is_indexed:
                n_probed = round(
                    probes_for_recall(self.probed, blend_of(query, self.n_spaces)) / share
                )
                connection.execute(f"SET LOCAL ivfflat.probes = {min(max(n_probed, 1), 32_768)}")
            else:
                connection.execute("SET LOCAL enable_indexscan = off")
            where = "" if allowed is None else "WHERE row_number = ANY(%(allowed)s)"
            records = connection.execute(
                f"SELECT row_number FROM {self.table} {where} "
                "ORDER BY vector <#> %(query)s, row_number LIMIT %(n)s",
                {"query": query, "n": n, "allowed": None if allowed is None else allowed.tolist()},
            ).fetchall()
        return np.array(records, dtype=np.int64).reshape(-1)

    @contextmanager
    def _alive(self) -> "Iterator[psycopg.Connection[Any]]":
        """Yields the connection, opened again if the server has closed it."""
        if self.connection.closed or self.connection.broken:
            self._connect()
        yield self.connection

    def _connect(self) -> None:
        self.connection = _connected(self.url)
        self._ending = weakref.finalize(self, self.connection.close)

    def close(self) -> None:
        """Ends the connection."""
        self.connection.close()


def build_table(
    url: str,
    vectors: np.ndarray,
    track_ids: Sequence[str],
    n_spaces: int,
    indexed_from: int = INDEXED_FROM,
) -> tuple[str, dict[str, int], dict[str, float]]:
    """Writes `vectors` (n, D) float32 and their ids to a table.

    Returns its name, and the lists to search and their recall, both by blend. A table with the same
    content is kept. LibraryError as `PgvectorIndex`. Cost: a million rows of 200 take the server
    several minutes and 1 GB.
    """
    digest = hashlib.sha256("\0".join(track_ids).encode())
    for start in range(0, len(vectors), COPIED_ROWS):
        digest.update(np.ascontiguousarray(vectors[start : start + COPIED_ROWS]).data)
    table = f"ponticello_{digest.hexdigest()[:16]}"
    is_indexed = len(vectors) > indexed_from and vectors.shape[1] <= MOST_INDEXED_SIZE
    n_lists = lists_for(len(vectors))
    with _said(url):
        connection = _connected(url)
        if _row_count(connection, table) != len(vectors):
            with connection.transaction():
                _fill(connection, table, vectors, track_ids)
                if is_indexed:
                    connection.execute(
                        f"CREATE INDEX ON {table} USING ivfflat (vector vector_ip_ops) "
                        f"WITH (lists = {n_lists})"
                    )
            connection.execute(f"VACUUM ANALYZE {table}")
        connection.close()
    if not is_indexed:
        return table, {}, {}
    index = PgvectorIndex(url, table, vectors, n_spaces)

    def looking_into(n: int) -> PgvectorIndex:
        index.probed = {"0": n, "1": n}
        return index

    probed, recall = min_probes(vectors, n_spaces, looking_into, FIRST_PROBED, n_lists)
    index.close()
    return table, probed, recall


def drop_tables(url: str, tables: Collection[str]) -> None:
    """Drops tables of former generations; LibraryError as `PgvectorIndex`."""
    with _said(url):
        connection = _connected(url)
        for table in tables:
            connection.execute(f"DROP TABLE IF EXISTS {table}")
        connection.close()


def _fill(
    connection: "psycopg.Connection[Any]", table: str, vectors: np.ndarray, track_ids: Sequence[str]
) -> None:
    connection.execute(f"DROP TABLE IF EXISTS {table}")
    connection.execute(
        f"CREATE TABLE {table} (row_number bigint PRIMARY KEY, track_id text NOT NULL,"
        f" vector vector({vectors.shape[1]}) NOT NULL)"
    )
    with (
        connection.cursor() as cursor,
        cursor.copy(f"COPY {table} FROM STDIN (FORMAT BINARY)") as copy,
    ):
        copy.set_types(["int8", "text", "vector"])
        for row, (track_id, vector) in enumerate(zip(track_ids, vectors, strict=True)):
            copy.write_row((row, track_id, vector))


def _connected(url: str) -> "psycopg.Connection[Any]":
    try:
        import psycopg
        from pgvector.psycopg import register_vector
    except ImportError:
        raise LibraryError(f"search.backend is a PostgreSQL; to ask it: {INSTALL}") from None
    connection = psycopg.connect(url, autocommit=True)
    if connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'vector'").fetchone() is None:
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
    register_vector(connection)
    return connection


def _row_count(connection: "psycopg.Connection[Any]", table: str) -> int | None:
    """Returns the number of rows of `table`; None if it does not exist."""
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        return None
    record = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return None if record is None else int(record[0])


@contextmanager
def _said(url: str) -> Iterator[None]:
    """Raises errors of the server as LibraryError, with the name of its host."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("psycopg"):
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LibraryError(
            f"PostgreSQL at {urlsplit(url).hostname or 'this machine'}: {first}"
        ) from None
