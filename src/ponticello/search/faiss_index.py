"""Approximate search with FAISS for large libraries.

A query searches the most likely clusters, in codes of 4 bits for two dimensions of a vector. The
best rows there, several hundred, are ranked again by the full vectors. So scores are exact, and the
only error is a missing row. The recall against exact search is measured at five blends when the
files are built, and decides how many clusters are searched.

A dot product is a sum over dimensions, so one code serves all blends. Clusters do not: clusters of
both spaces together separate one space poorly. So there is one file per space, with clusters of
that space and codes of complete vectors, and a query uses the file of the space with more weight.
A graph (HNSW) is built for one similarity, too, and takes several times as long to build.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ponticello.search.index import CandidateFinder, nearest_rows

if TYPE_CHECKING:
    import faiss

BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
# required at each blend, measured on 2,000 places; a margin above the documented 0.98
RECALL = 0.99
N_QUERIES = 200  # tracks used as queries
PLACES = 10  # places compared per query
TRUTH_BLOCK_ROWS = 16_384
GROWTH = 1.4  # of the number of clusters, from one measurement to the next
LISTS = 1024  # clusters of 64,000 to 2 million rows: fixed, so that cost is linear in rows
SAMPLE_PER_LIST = 64  # rows per cluster in training, at least
LEAST_ROWS = 1_000  # fewer are too few to train clusters and codes
FIRST_PROBED = 8  # clusters tried first
CANDIDATES = 600  # rows ranked by their full vectors, at least
MOST_K = 2_000  # places, above which search is exact
NARROW_SHARE = 0.1  # of all rows: search is exact if a filter passes fewer
ADD_BLOCK_ROWS = 65_536  # rows added at once


class FaissIndex:
    """Finds rows with the indexes of `build_clusters`. probed: clusters searched, by blend."""

    def __init__(
        self, indexes: Sequence["faiss.IndexIVFPQFastScan"], n_rows: int, probed: Mapping[str, int]
    ) -> None:
        self.indexes = indexes
        self.n_rows = n_rows
        self.probed = dict(probed)

    def candidates(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None
    ) -> np.ndarray | None:
        """As `CandidateFinder.candidates`; under a filter it searches more clusters."""
        import faiss

        share = 1.0 if allowed is None else len(allowed) / self.n_rows
        if k > MOST_K or share <= NARROW_SHARE:
            return None
        blend = blend_of(query, len(self.indexes))
        index = self.indexes[int(blend > 0.5)]
        settings = faiss.SearchParametersIVF()
        settings.nprobe = min(index.nlist, round(probes_for_recall(self.probed, blend) / share))
        if allowed is not None:
            passing = np.zeros(self.n_rows, dtype=bool)
            passing[allowed] = True
            selector: Any = faiss.IDSelectorBitmap  # accepts an array, unlike its stub
            settings.sel = selector(np.packbits(passing, bitorder="little"))
        n_candidates = max(CANDIDATES, 4 * k)
        _, rows = index.search(np.ascontiguousarray(query[None]), n_candidates, params=settings)
        candidates: np.ndarray = rows[0][rows[0] >= 0]  # -1 = fewer than that
        return candidates


def build_clusters(
    vectors: np.ndarray, n_spaces: int, files: Sequence[Path]
) -> tuple[str, dict[str, int], dict[str, float]]:
    """Writes one FAISS file per space for `vectors` (n, D) float32, n >= `LEAST_ROWS`.

    Returns the kind of the index, and as `min_probes`. Deterministic but for the order in which
    threads add numbers. Cost: n x D x clusters.
    """
    import faiss

    size = vectors.shape[1] // n_spaces
    n_lists = lists_for(len(vectors))
    sample = min(len(vectors), max(SAMPLE_PER_LIST * n_lists, 16_384))
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), sample, replace=False))
    sampled = np.ascontiguousarray(vectors[rows])
    indexes = []
    for number in range(n_spaces):
        space = slice(number * size, (number + 1) * size)
        indexes.append(_trained(sampled, space, n_lists))
    for start in range(0, len(vectors), ADD_BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[start : start + ADD_BLOCK_ROWS])
        for index in indexes:
            index.add(block)
    for index, file in zip(indexes, files, strict=True):
        faiss.write_index(index, str(file))
    finder = FaissIndex(indexes, len(vectors), {})
    probed, recall = min_probes(vectors, n_spaces, finder, n_lists)
    return f"IVF{n_lists},PQ{indexes[0].pq.M}x4fs", probed, recall


def open_clusters(files: Sequence[Path], n_rows: int, probed: Mapping[str, int]) -> FaissIndex:
    """Opens `files`. The caller checks their hashes: FAISS does not notice a flipped byte."""
    import faiss

    indexes: list[Any] = [faiss.read_index(str(file)) for file in files]
    return FaissIndex(indexes, n_rows, probed)


def _trained(sampled: np.ndarray, space: slice, n_lists: int) -> "faiss.IndexIVFPQFastScan":
    import faiss

    size = sampled.shape[1]
    space_vectors = np.ascontiguousarray(sampled[:, space])
    means = faiss.Kmeans(space_vectors.shape[1], n_lists, niter=10, spherical=True, seed=0)
    means.train(space_vectors)
    centres = np.zeros((n_lists, size), dtype=np.float32)
    centres[:, space] = means.centroids
    chooser = faiss.IndexFlatIP(size)
    chooser.add(centres)
    n_codes = size // 2 if size % 2 == 0 else size
    index = faiss.IndexIVFPQFastScan(chooser, size, n_lists, n_codes, 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = True  # codes differences from the centre, free for dot products
    index.train(sampled)
    return index


def lists_for(n: int) -> int:
    """Returns `LISTS`; fewer below 64,000 vectors, and about the root of `n` above 2 million."""
    few = max(1, n // SAMPLE_PER_LIST)
    return min(1 << (few.bit_length() - 1), max(LISTS, 1 << round(math.log2(n) / 2)))


def min_probes(
    vectors: np.ndarray, n_spaces: int, finder: CandidateFinder, most: int
) -> tuple[dict[str, int], dict[str, float]]:
    """Returns, by blend, the smallest tried number of clusters with `RECALL`, and its recall.

    The queries are tracks of the index; a query's own track is not compared. finder: over the
    vectors (n, D) float32; its `probed` is changed. most: its clusters.
    """
    generator = np.random.default_rng(1)
    query_rows = generator.choice(len(vectors), min(N_QUERIES, len(vectors)), replace=False)
    probed = {}
    recall = {}
    for blend in BLENDS if n_spaces == 2 else BLENDS[:1]:
        queries = query_at_blend(vectors[query_rows], n_spaces, blend)
        expected = best_rows(vectors, queries, PLACES + 1)
        n = min(FIRST_PROBED, most)
        while True:
            finder.probed = {"0": n, "1": n}
            measured = _recall(vectors, queries, query_rows, expected, finder)
            if measured >= RECALL or n >= most:
                break
            n = min(math.ceil(GROWTH * n), most)
        probed[f"{blend:g}"] = n
        recall[f"{blend:g}"] = round(measured, 4)
    return probed, recall


def _recall(
    vectors: np.ndarray,
    queries: np.ndarray,
    query_rows: np.ndarray,
    expected: np.ndarray,
    finder: CandidateFinder,
) -> float:
    n_hits = 0
    n_expected = 0
    for query, query_row, best in zip(queries, query_rows, expected, strict=True):
        rows, _ = nearest_rows(vectors, query, PLACES + 1, finder=finder)
        wanted = best[best != query_row][:PLACES]
        n_hits += len(np.intersect1d(rows[rows != query_row][:PLACES], wanted))
        n_expected += len(wanted)
    return n_hits / n_expected


def query_at_blend(vectors: np.ndarray, n_spaces: int, blend: float) -> np.ndarray:
    """Returns (q, D) float32 queries: the first space times 1 - blend, the second times blend."""
    weights = np.array([1 - blend, blend] if n_spaces == 2 else [1.0], dtype=np.float32)
    spaces = vectors.reshape(len(vectors), n_spaces, -1) * weights[:, None]
    return np.ascontiguousarray(spaces.reshape(len(vectors), -1), dtype=np.float32)


def blend_of(query: np.ndarray, n_spaces: int) -> float:
    """Returns the blend of a query (D,): the inverse of `query_at_blend` for unit vectors."""
    if n_spaces == 1:
        return 0.0
    lengths = np.linalg.norm(query.reshape(2, -1), axis=1)
    return float(lengths[1] / max(lengths.sum(), 1e-30))


def probes_for_recall(probed: Mapping[str, int], blend: float) -> int:
    """Returns the clusters to search: the larger number of the two nearest measured blends."""
    below = max(float(measured) for measured in probed if float(measured) <= blend + 1e-6)
    above = min(float(measured) for measured in probed if float(measured) >= blend - 1e-6)
    return max(probed[f"{below:g}"], probed[f"{above:g}"])


def best_rows(vectors: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    """Returns the exact best `k` rows (q, k) of `vectors` (n, D) for each query (q, D)."""
    rows = []
    products = []
    for start in range(0, len(vectors), TRUTH_BLOCK_ROWS):
        block_products = queries @ vectors[start : start + TRUTH_BLOCK_ROWS].T
        n_best = min(k, block_products.shape[1])
        best = np.argpartition(-block_products, n_best - 1, axis=1)[:, :n_best]
        rows.append(start + best)
        products.append(np.take_along_axis(block_products, best, axis=1))
    candidates = np.concatenate(rows, axis=1)
    order = np.lexsort((candidates, -np.concatenate(products, axis=1)))[:, :k]
    return np.take_along_axis(candidates, order, axis=1)
