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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ponticello.search.exact import SAMPLE_PER_LIST, ExactIndex, NeighborIndex, lists_for, rank_rows

if TYPE_CHECKING:
    import faiss


DIALS = (0.0, 0.25, 0.5, 0.75, 1.0)
# required at each blend, measured on 2,000 places; a margin above the documented 0.98
RECALL = 0.99
ASKED = 200  # tracks used as queries
PLACES = 10  # places compared per query
TRUTH_BLOCK_ROWS = 16_384
GROWTH = 1.4  # of the number of clusters, from one measurement to the next


class RecallQueries:
    """Tracks of the index as queries at one blend; a query's own track is not compared.

    vectors: (n, D) float32. dial: 0 = the first space alone .. 1 = the second alone; ignored with
    one space.
    """

    def __init__(self, vectors: np.ndarray, n_spaces: int, dial: float) -> None:
        self.asking = np.random.default_rng(1).choice(
            len(vectors), min(ASKED, len(vectors)), replace=False
        )
        self.asked = query_at_blend(vectors[self.asking], n_spaces, dial)
        self.wanted: list[np.ndarray] = []
        exact_rows = best_rows(vectors, self.asked, PLACES + 1)
        for query_row, rows in zip(self.asking, exact_rows, strict=True):
            self.wanted.append(rows[rows != query_row][:PLACES])

    def recall(self, neighbours: NeighborIndex) -> float:
        """Returns the share of the best rows that `neighbours` returns."""
        hits = 0
        for query, query_row, wanted in zip(self.asked, self.asking, self.wanted, strict=True):
            rows, _ = neighbours.top(query, PLACES + 1)
            hits += len(np.intersect1d(rows[rows != query_row][:PLACES], wanted))
        return hits / sum(map(len, self.wanted))


def min_probes(
    vectors: np.ndarray,
    n_spaces: int,
    looking_into: Callable[[int], NeighborIndex],
    first: int,
    most: int,
) -> tuple[dict[str, int], dict[str, float]]:
    """Returns, by blend, the smallest tried number of clusters with `RECALL`, and its recall.

    looking_into: returns an index that searches that many clusters, `first` to `most`.
    """
    probed = {}
    recall = {}
    for dial in DIALS if n_spaces == 2 else DIALS[:1]:
        queries = RecallQueries(vectors, n_spaces, dial)
        n = min(first, most)
        measured = queries.recall(looking_into(n))
        while measured < RECALL and n < most:
            n = min(int(np.ceil(GROWTH * n)), most)
            measured = queries.recall(looking_into(n))
        probed[f"{dial:g}"] = n
        recall[f"{dial:g}"] = round(measured, 4)
    return probed, recall


def query_at_blend(vectors: np.ndarray, n_spaces: int, dial: float) -> np.ndarray:
    """Returns (q, D) float32 queries: the first space of `vectors` times 1 - dial, the second times
    dial.
    """
    if n_spaces == 1:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    sides = vectors.reshape(len(vectors), 2, -1) * np.array([[1 - dial], [dial]], dtype=np.float32)
    return np.ascontiguousarray(sides.reshape(len(vectors), -1), dtype=np.float32)


def blend_of(query: np.ndarray, n_spaces: int) -> float:
    """Returns the blend of a query (D,), from the lengths of its spaces.

    The inverse of `query_at_blend` for unit vectors.
    """
    if n_spaces == 1:
        return 0.0
    lengths = np.linalg.norm(query.reshape(2, -1), axis=1)
    return float(lengths[1] / max(lengths.sum(), 1e-30))


def probes_for_recall(probed: Mapping[str, int], dial: float) -> int:
    """Returns the clusters to search at `dial`: the larger number of the two nearest measured
    blends.
    """
    measured = np.array(list(map(float, probed)))
    order = np.argsort(measured)
    n_clusters = np.array(list(probed.values()))[order]
    below = n_clusters[measured[order] <= dial + 1e-6]
    above = n_clusters[measured[order] >= dial - 1e-6]
    return int(np.concatenate([below[-1:], above[:1]]).max())


def best_rows(vectors: np.ndarray, asked: np.ndarray, k: int) -> list[np.ndarray]:
    """Returns the exact best `k` rows of `vectors` (n, D) for each query of `asked` (q, D)."""
    rows = [np.zeros(0, dtype=np.int64)] * len(asked)
    held = [np.zeros(0, dtype=np.float32)] * len(asked)
    bars = np.full(len(asked), -np.inf, dtype=np.float32)
    for start in range(0, len(vectors), TRUTH_BLOCK_ROWS):
        products = asked @ vectors[start : start + TRUTH_BLOCK_ROWS].T
        over = products >= bars[:, None]
        for number in np.flatnonzero(over.any(axis=1)):
            new = np.flatnonzero(over[number])
            both = np.concatenate([held[number], products[number, new]])
            names = np.concatenate([rows[number], start + new])
            order = np.argsort(-both, kind="stable")[:k]
            held[number] = both[order]
            rows[number] = names[order]
            if len(order) == k:
                bars[number] = both[order[-1]]
    return rows


LEAST_ROWS = 1_000  # fewer are too few to train clusters and codes
FIRST_PROBED = 8  # clusters tried first
CANDIDATES = 600  # rows ranked by their full vectors, at least
MOST_K = 2_000  # places, above which search is exact
NARROW_SHARE = 0.1  # of all rows: search is exact if a filter passes fewer
ADD_BLOCK_ROWS = 65_536  # rows added at once


@dataclass(frozen=True)
class FaissClusters:
    """How files were built. probed, recall: clusters searched and recall measured, by blend."""

    kind: str
    probed: Mapping[str, int]
    recall: Mapping[str, float]


class FaissIndex:
    """Searches `vectors` (n, D) float32 with the FAISS indexes of `build_clusters`, one per space.

    probed: clusters searched, by blend.
    """

    def __init__(
        self,
        indexes: Sequence["faiss.IndexIVFPQFastScan"],
        vectors: np.ndarray,
        probed: Mapping[str, int],
    ) -> None:
        self.indexes = indexes
        self.vectors = vectors
        self.probed = probed
        self.exact = ExactIndex(vectors)

    def top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `NeighborIndex.top`; recall as in `FaissClusters`, exact under narrow filters."""
        share = 1.0 if allowed is None else len(allowed) / len(self.vectors)
        if k > MOST_K or share <= NARROW_SHARE:
            return self.exact.top(query, k, allowed)
        query = np.ascontiguousarray(query, dtype=np.float32)
        rows = self._candidates(query, max(CANDIDATES, 4 * k), allowed, share)
        if len(rows) < k:  # the clusters hold fewer than asked for
            return self.exact.top(query, k, allowed)
        return rank_rows(self.vectors, query, rows, k)

    def _candidates(
        self, query: np.ndarray, n: int, allowed: np.ndarray | None, share: float
    ) -> np.ndarray:
        """Returns at most `n` candidates; under a filter it searches 1 / share as many clusters."""
        import faiss

        dial = blend_of(query, len(self.indexes))
        index = self.indexes[int(dial > 0.5)]
        settings = faiss.SearchParametersIVF()
        settings.nprobe = min(index.nlist, round(probes_for_recall(self.probed, dial) / share))
        if allowed is not None:
            passing = np.zeros(len(self.vectors), dtype=bool)
            passing[allowed] = True
            selector: Any = faiss.IDSelectorBitmap  # accepts an array, unlike its stub
            settings.sel = selector(np.packbits(passing, bitorder="little"))
        _, candidates = index.search(query[None], n, params=settings)
        rows: np.ndarray = candidates[0][candidates[0] >= 0]  # -1 = fewer than n
        return rows


def build_clusters(vectors: np.ndarray, n_spaces: int, files: Sequence[Path]) -> FaissClusters:
    """Writes one FAISS file per space for `vectors` (n, D) float32, n >= `LEAST_ROWS`.

    Deterministic but for the order in which threads add numbers. Cost: n x D x clusters.
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
    probed, recall = min_probes(
        vectors,
        n_spaces,
        lambda n: FaissIndex(indexes, vectors, {"0": n, "1": n}),
        FIRST_PROBED,
        n_lists,
    )
    return FaissClusters(f"IVF{n_lists},PQ{indexes[0].pq.M}x4fs", probed, recall)


def open_clusters(
    files: Sequence[Path], vectors: np.ndarray, probed: Mapping[str, int]
) -> FaissIndex:
    """Opens `files`. The caller checks their hashes: FAISS does not notice a flipped byte."""
    import faiss

    indexes: list[Any] = list(map(faiss.read_index, map(str, files)))
    return FaissIndex(indexes, vectors, probed)


def _trained(sampled: np.ndarray, space: slice, n_lists: int) -> "faiss.IndexIVFPQFastScan":
    """Returns an empty index with clusters of one space and codes of complete vectors."""
    import faiss

    size = sampled.shape[1]
    space_vectors = np.ascontiguousarray(sampled[:, space])
    means = faiss.Kmeans(space_vectors.shape[1], n_lists, niter=10, spherical=True, seed=0)
    means.train(space_vectors)
    centres = np.zeros((n_lists, size), dtype=np.float32)
    centres[:, space] = means.centroids
    chooser = faiss.IndexFlatIP(size)
    chooser.add(centres)
    parts = size // 2 if size % 2 == 0 else size
    index = faiss.IndexIVFPQFastScan(chooser, size, n_lists, parts, 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = True  # codes differences from the centre, free for dot products
    index.train(sampled)
    return index
