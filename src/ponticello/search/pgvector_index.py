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
from ponticello.search.faiss_index import blend_of, lists_for, min_probes, probes_for_recall

if TYPE_CHECKING:
    import psycopg

INDEXED_FROM = 200_000  # rows
MOST_INDEXED_SIZE = 2_000  # dimensions that pgvector can index
MOST_PROBES = 32_768  # that pgvector accepts
INSTALL = "pip install 'ponticello[postgres]'"
COPIED_ROWS = 65_536  # rows hashed at once
SPARE = 16  # rows requested beyond k: the server rounds differently
NARROW_SHARE = 0.1  # of all rows: the index is not used if a filter passes fewer


class PgvectorIndex:
    """Finds rows in the table that `build_table` made of `n_rows` vectors; thread-safe.

    probed: lists of the index searched, by blend; empty = the table has no index. LibraryError if
    the server cannot be reached or refuses, CheckpointError if the table is missing or has another
    number of rows.
    """

    def __init__(
        self,
        url: str,
        table: str,
        n_rows: int,
        n_spaces: int,
        probed: Mapping[str, int] | None = None,
    ) -> None:
        self.url = url
        self.table = table
        self.n_rows = n_rows
        self.n_spaces = n_spaces
        self.probed = dict(probed or {})
        self._turn = threading.Lock()  # one connection: one transaction at a time
        with _server_errors(url):
            self._connect()
            n_present = _row_count(self.connection, table)
        if n_present != n_rows:
            self.connection.close()
            state = "is missing"
            if n_present is not None:
                state = f"has {n_present:,} rows, not the {n_rows:,} that were written"
            raise CheckpointError(
                f"table {table} on the server {state}",
                code="index_damaged",
                remedy="ponticello embed",
            )

    def _connect(self) -> None:
        self.connection = _open_connection(self.url)
        weakref.finalize(self, self.connection.close)

    def candidates(self, query: np.ndarray, k: int, allowed: np.ndarray | None) -> np.ndarray:
        """As `CandidateFinder.candidates`; exact without an index and under narrow filters."""
        share = 1.0 if allowed is None else len(allowed) / self.n_rows
        setting = "enable_indexscan = off"
        if self.probed and share > NARROW_SHARE:
            n_probed = probes_for_recall(self.probed, blend_of(query, self.n_spaces))
            setting = f"ivfflat.probes = {min(max(round(n_probed / share), 1), MOST_PROBES)}"
        where = "" if allowed is None else "WHERE row_number = ANY(%(allowed)s::bigint[])"
        values = {"query": query, "n": k + SPARE}
        if allowed is not None:
            values["allowed"] = allowed.tolist()
        with _server_errors(self.url), self._turn:
            if self.connection.closed or self.connection.broken:  # by the server
                self._connect()
            with self.connection.transaction():
                self.connection.execute(f"SET LOCAL {setting}")
                records = self.connection.execute(
                    f"SELECT row_number FROM {self.table} {where} "
                    "ORDER BY vector <#> %(query)s, row_number LIMIT %(n)s",
                    values,
                ).fetchall()
        return np.array(records, dtype=np.int64).reshape(-1)


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
    with _server_errors(url):
        connection = _open_connection(url)
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
    finder = PgvectorIndex(url, table, len(vectors), n_spaces)
    probed, recall = min_probes(vectors, n_spaces, finder, n_lists)
    finder.connection.close()
    return table, probed, recall


def drop_tables(url: str, tables: Collection[str]) -> None:
    """Drops tables of former generations; LibraryError as `PgvectorIndex`."""
    with _server_errors(url):
        connection = _open_connection(url)
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


def _open_connection(url: str) -> "psycopg.Connection[Any]":
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
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        return None
    records = connection.execute(f"SELECT count(*) FROM {table}").fetchall()
    return int(records[0][0])


@contextmanager
def _server_errors(url: str) -> Iterator[None]:
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
