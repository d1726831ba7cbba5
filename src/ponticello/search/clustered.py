"""FAISS for large libraries: a question looks into the likeliest clusters, at 4 bits for two dimensions of a vector.

What comes out best there, some hundred rows, is ranked again by the full vectors, so that scores are exact and only a
row can be missed. How many are is measured when the files are made, at five positions of the dial (`recall.py`), and
decides how many clusters are looked into.

Why so: the parts of a product add up dimension by dimension, so one code serves any dial. Clusters do not: those of
both spaces together tell little of who is close in one of them. So there is a file a space, whose clusters are of that
space and whose codes are whole vectors, and a question goes to the one that its dial leans to. A graph (HNSW) is built
for one kind of closeness, too, and takes several times as long to build.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ponticello.search.exact import Exact
from ponticello.search.neighbours import SAMPLE_PER_LIST, lists_for, ranked
from ponticello.search.recall import dial_of, least_probed, probed_at

if TYPE_CHECKING:
    import faiss

LEAST_ROWS = 1_000  # below, there is nothing to learn clusters and codes from
FIRST_PROBED = 8  # clusters tried first
CANDIDATES = 600  # rows at least that are ranked by their full vectors
MOST_K = 2_000  # places asked for, above which every row is looked at
NARROW_SHARE = 0.1  # of all rows: where a filter lets fewer through, those are looked at one by one
BLOCK_ROWS = 65_536  # rows added at once


@dataclass(frozen=True)
class Clusters:
    """How the files were made and how good they are. probed, recall: by dial, clusters looked into and share found."""

    kind: str
    probed: Mapping[str, int]
    recall: Mapping[str, float]


class Clustered:
    """`Neighbours` by FAISS, one index a space over the same `vectors`, (n, D) float32, as `build_clusters` made them.

    probed: clusters looked into, by dial.
    """

    def __init__(
        self, indexes: Sequence["faiss.IndexIVFPQFastScan"], vectors: np.ndarray, probed: Mapping[str, int]
    ) -> None:
        self.indexes, self.vectors, self.probed = indexes, vectors, probed
        self.exact = Exact(vectors)

    def top(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Neighbours.top`; a row may be missed, as often as `Clusters.recall` says. Narrow filters miss nothing."""
        share = 1.0 if allowed is None else len(allowed) / len(self.vectors)
        if k > MOST_K or share <= NARROW_SHARE:
            return self.exact.top(query, k, allowed)
        query = np.ascontiguousarray(query, dtype=np.float32)
        rows = self._candidates(query, max(CANDIDATES, 4 * k), allowed, share)
        if len(rows) < k:  # the clusters hold fewer than asked for
            return self.exact.top(query, k, allowed)
        return ranked(self.vectors, query, rows, k)

    def _candidates(self, query: np.ndarray, n: int, allowed: np.ndarray | None, share: float) -> np.ndarray:
        """At most `n` rows that look best; under a filter as many more clusters are looked into as it leaves out."""
        import faiss

        dial = dial_of(query, len(self.indexes))
        index = self.indexes[int(dial > 0.5)]
        settings = faiss.SearchParametersIVF()
        settings.nprobe = min(index.nlist, round(probed_at(self.probed, dial) / share))
        if allowed is not None:
            passing = np.zeros(len(self.vectors), dtype=bool)
            passing[allowed] = True
            selector: Any = faiss.IDSelectorBitmap  # takes an array, whatever its stub says
            settings.sel = selector(np.packbits(passing, bitorder="little"))
        _, found = index.search(query[None], n, params=settings)
        rows: np.ndarray = found[0][found[0] >= 0]
        return rows


def build_clusters(vectors: np.ndarray, n_spaces: int, files: Sequence[Path]) -> Clusters:
    """Writes one FAISS file a space for `vectors` (n, D) float32 and says how they were made; n >= `LEAST_ROWS`.

    Deterministic but for the order in which threads add numbers. Cost: n x D x clusters.
    """
    import faiss

    size = vectors.shape[1] // n_spaces
    n_lists = lists_for(len(vectors))
    sample = min(len(vectors), max(SAMPLE_PER_LIST * n_lists, 16_384))
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), sample, replace=False))
    sampled = np.ascontiguousarray(vectors[rows])
    indexes = [_trained(sampled, slice(number * size, (number + 1) * size), n_lists) for number in range(n_spaces)]
    for start in range(0, len(vectors), BLOCK_ROWS):
        block = np.ascontiguousarray(vectors[start : start + BLOCK_ROWS])
        for index in indexes:
            index.add(block)
    for index, file in zip(indexes, files, strict=True):
        faiss.write_index(index, str(file))
    probed, recall = least_probed(
        vectors, n_spaces, lambda n: Clustered(indexes, vectors, {"0": n, "1": n}), FIRST_PROBED, n_lists
    )
    return Clusters(f"IVF{n_lists},PQ{indexes[0].pq.M}x4fs", probed, recall)


def open_clusters(files: Sequence[Path], vectors: np.ndarray, probed: Mapping[str, int]) -> Clustered:
    """The indexes in `files`, whose hashes were checked: FAISS itself takes a flipped byte without a word."""
    import faiss

    indexes: list[Any] = [faiss.read_index(str(file)) for file in files]
    return Clustered(indexes, vectors, probed)


def _trained(sampled: np.ndarray, side: slice, n_lists: int) -> "faiss.IndexIVFPQFastScan":
    """An empty index whose clusters are those of one side of the vectors and whose codes hold all of a vector."""
    import faiss

    size = sampled.shape[1]
    own = np.ascontiguousarray(sampled[:, side])
    means = faiss.Kmeans(own.shape[1], n_lists, niter=10, spherical=True, seed=0)
    means.train(own)
    centres = np.zeros((n_lists, size), dtype=np.float32)
    centres[:, side] = means.centroids
    chooser = faiss.IndexFlatIP(size)
    chooser.add(centres)
    parts = size // 2 if size % 2 == 0 else size
    index = faiss.IndexIVFPQFastScan(chooser, size, n_lists, parts, 4, faiss.METRIC_INNER_PRODUCT)
    index.by_residual = True  # codes what is left after the centre; of a dot product that costs a question nothing
    index.train(sampled)
    return index
