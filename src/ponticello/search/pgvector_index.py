"""PostgreSQL with pgvector: a generation's vectors as a table, asked by SQL, beside what else a
platform keeps there.

A table is made whole, in one transaction, under a name that its content gives it, and never
changed. Up to `INDEXED_FROM` rows the server looks at all of them, above through an IVFFlat index,
whose probes are chosen by measured recall (`recall.py`). What the server finds is ranked by the
vectors of the local file: a table that somebody changed can hide a track, but not give one a wrong
score.
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
SPARE = 16  # rows asked for beyond k: the server rounds in its own way
NARROW_SHARE = 0.1  # of all rows: where a filter lets fewer through, the index is passed by


class PgvectorIndex:
    """`NeighborIndex` by a table that `build_table` made of `vectors`, (n, D) float32; threads ask
    it in turn.

    probed: lists of the index looked into, by dial; none = the table has no index. LibraryError if
    the server cannot be reached or refuses, CheckpointError if the table is not there or not what
    was written.
    """

    def __init__(
        self,
        url: str,
        table: str,
        vectors: np.ndarray,
        n_spaces: int,
        probed: Mapping[str, int] | None = None,
    ) -> None:
        self.url, self.table, self.vectors = url, table, vectors
        self.n_spaces, self.probed = n_spaces, dict(probed or {})
        self.exact = ExactIndex(vectors)
        self._turn = threading.Lock()  # one connection, whose transactions may not be mixed
        with _said(url):
            self._connect()
            found = _row_count(self.connection, table)
        if found != len(vectors):
            self.close()
            state = (
                "is missing"
                if found is None
                else f"has {found:,} rows, not the {len(vectors):,} that were written"
            )
            raise CheckpointError(
                f"table {table} on the server {state}",
                code="index_damaged",
                remedy="ponticello embed",
            )

    def top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `NeighborIndex.top`; through an index a row may be missed, as often as measured.
        Narrow filters miss none.
        """
        query = query.astype(np.float32, copy=False)
        available = len(self.vectors) if allowed is None else len(allowed)
        rows = (
            self._candidates(query, min(k + SPARE, available), allowed)
            if available
            else np.zeros(0, dtype=np.int64)
        )
        if len(rows) < min(k, available):  # the lists looked into hold fewer than asked for
            return self.exact.top(query, k, allowed)
        return rank_rows(self.vectors, query, rows, k)

    def _candidates(self, query: np.ndarray, n: int, allowed: np.ndarray | None) -> np.ndarray:
        """The `n` rows that the server puts first, equal ones by row."""
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
            found = connection.execute(
                f"SELECT row_number FROM {self.table} {where} ORDER BY vector <#> %(query)s, row_number LIMIT %(n)s",
                {"query": query, "n": n, "allowed": None if allowed is None else allowed.tolist()},
            ).fetchall()
        return np.array([row for (row,) in found], dtype=np.int64)

    @contextmanager
    def _alive(self) -> "Iterator[psycopg.Connection[Any]]":
        """The connection, made anew if the server has closed it since."""
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
    """The name of a table that holds `vectors` (n, D) float32 and their ids, lists to look into and
    recall, by dial.

    One that holds the very same is kept. LibraryError as `PgvectorIndex`. Cost: a million rows of
    200 take the server some minutes and 1 GB.
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
                        f"CREATE INDEX ON {table} USING ivfflat (vector vector_ip_ops) WITH (lists = {n_lists})"
                    )
            connection.execute(f"VACUUM ANALYZE {table}")
        connection.close()
    if not is_indexed:
        return table, {}, {}
    asked = PgvectorIndex(url, table, vectors, n_spaces)

    def looking_into(n: int) -> PgvectorIndex:
        asked.probed = {"0": n, "1": n}
        return asked

    probed, recall = min_probes(vectors, n_spaces, looking_into, FIRST_PROBED, n_lists)
    asked.close()
    return table, probed, recall


def drop_tables(url: str, tables: Collection[str]) -> None:
    """Takes tables of former generations off the server; LibraryError as `PgvectorIndex`."""
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
    """Rows of `table`; None if there is none."""
    if connection.execute("SELECT to_regclass(%s)", [table]).fetchone() == (None,):
        return None
    found = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return None if found is None else int(found[0])


@contextmanager
def _said(url: str) -> Iterator[None]:
    """Errors of the server as ours, with its name."""
    try:
        yield
    except Exception as error:
        if not type(error).__module__.startswith("psycopg"):
            raise
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise LibraryError(
            f"PostgreSQL at {urlsplit(url).hostname or 'this machine'}: {first}"
        ) from None
