"""FAISS for large libraries: a question looks into the likeliest clusters, at 4 bits for two
dimensions of a vector.

What comes out best there, some hundred rows, is ranked again by the full vectors, so that scores
are exact and only a row can be missed. How many are is measured when the files are made, at five
positions of the dial (`recall.py`), and decides how many clusters are looked into.

Why so: the parts of a product add up dimension by dimension, so one code serves any dial. Clusters
do not: those of both spaces together tell little of who is close in one of them. So there is a file
a space, whose clusters are of that space and whose codes are whole vectors, and a question goes to
the one that its dial leans to. A graph (HNSW) is built for one kind of closeness, too, and takes
several times as long to build.

How many of the closest rows are found, at each position of the dial, against looking at every row.
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
# of the best ten that must be found, at each dial: above what is promised, 0.98, as 2,000 places
# tell
RECALL = 0.99
ASKED, PLACES = 200, 10  # tracks asked with, and places compared
TRUTH_BLOCK_ROWS = 16_384
GROWTH = 1.4  # how much more is looked at from one try to the next


class RecallQueries:
    """Tracks of the index as questions, at one position of the dial; each track itself is left out
    of the comparison.

    vectors: (n, D) float32. dial: 0 = the first space alone .. 1 = the second alone; with one space
    it says nothing.
    """

    def __init__(self, vectors: np.ndarray, n_spaces: int, dial: float) -> None:
        self.asking = np.random.default_rng(1).choice(
            len(vectors), min(ASKED, len(vectors)), replace=False
        )
        self.asked = query_at_blend(vectors[self.asking], n_spaces, dial)
        self.wanted = [
            found[found != own][:PLACES]
            for own, found in zip(
                self.asking, best_rows(vectors, self.asked, PLACES + 1), strict=True
            )
        ]

    def recall(self, neighbours: NeighborIndex) -> float:
        """The share of the best rows that `neighbours` finds."""
        hits = 0
        for query, own, wanted in zip(self.asked, self.asking, self.wanted, strict=True):
            found, _ = neighbours.top(query, PLACES + 1)
            hits += len(np.intersect1d(found[found != own][:PLACES], wanted))
        return hits / sum(len(wanted) for wanted in self.wanted)


def min_probes(
    vectors: np.ndarray,
    n_spaces: int,
    looking_into: Callable[[int], NeighborIndex],
    first: int,
    most: int,
) -> tuple[dict[str, int], dict[str, float]]:
    """By dial, how many clusters to look into, the smallest tried that reaches `RECALL`, and the
    recall then measured.

    looking_into: what answers with so many of them, `first` to `most`.
    """
    probed, recall = {}, {}
    for dial in DIALS if n_spaces == 2 else DIALS[:1]:
        questions, n = RecallQueries(vectors, n_spaces, dial), min(first, most)
        while (found := questions.recall(looking_into(n))) < RECALL and n < most:
            n = min(int(np.ceil(GROWTH * n)), most)
        probed[f"{dial:g}"], recall[f"{dial:g}"] = n, round(found, 4)
    return probed, recall


def query_at_blend(vectors: np.ndarray, n_spaces: int, dial: float) -> np.ndarray:
    """(q, D) float32: the vectors (q, D) as questions, the first space times 1 - dial, the second
    times dial.
    """
    if n_spaces == 1:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    sides = vectors.reshape(len(vectors), 2, -1) * np.array([[1 - dial], [dial]], dtype=np.float32)
    return np.ascontiguousarray(sides.reshape(len(vectors), -1), dtype=np.float32)


def blend_of(query: np.ndarray, n_spaces: int) -> float:
    """Where a query (D,) stands between its spaces, by their lengths in it: `query_at_blend` of
    unit vectors, undone.
    """
    if n_spaces == 1:
        return 0.0
    lengths = np.linalg.norm(query.reshape(2, -1), axis=1)
    return float(lengths[1] / max(lengths.sum(), 1e-30))


def probes_for_recall(probed: Mapping[str, int], dial: float) -> int:
    """How many clusters to look into at `dial`: the larger number of the two measured dials around
    it.
    """
    known = sorted((float(measured), n) for measured, n in probed.items())
    below = [n for measured, n in known if measured <= dial + 1e-6][-1:]
    above = [n for measured, n in known if measured >= dial - 1e-6][:1]
    return max(below + above)


def best_rows(vectors: np.ndarray, asked: np.ndarray, k: int) -> list[np.ndarray]:
    """For each of `asked` (q, D) the `k` rows of `vectors` (n, D) that come first, by looking at
    all, many at once.
    """
    rows = [np.zeros(0, dtype=np.int64) for _ in asked]
    held = [np.zeros(0, dtype=np.float32) for _ in asked]
    bars = np.full(len(asked), -np.inf, dtype=np.float32)
    for start in range(0, len(vectors), TRUTH_BLOCK_ROWS):
        found = asked @ vectors[start : start + TRUTH_BLOCK_ROWS].T
        over = found >= bars[:, None]
        for number in np.flatnonzero(over.any(axis=1)):
            new = np.flatnonzero(over[number])
            both = np.concatenate([held[number], found[number, new]])
            names = np.concatenate([rows[number], start + new])
            order = np.argsort(-both, kind="stable")[:k]
            held[number], rows[number] = both[order], names[order]
            if len(order) == k:
                bars[number] = both[order[-1]]
    return rows


LEAST_ROWS = 1_000  # below, there is nothing to learn clusters and codes from
FIRST_PROBED = 8  # clusters tried first
CANDIDATES = 600  # rows at least that are ranked by their full vectors
MOST_K = 2_000  # places asked for, above which every row is looked at
NARROW_SHARE = 0.1  # of all rows: where a filter lets fewer through, those are looked at one by one
ADD_BLOCK_ROWS = 65_536  # rows added at once


@dataclass(frozen=True)
class FaissClusters:
    """How the files were made and how good they are. probed, recall: by dial, clusters looked into
    and share found.
    """

    kind: str
    probed: Mapping[str, int]
    recall: Mapping[str, float]


class FaissIndex:
    """`NeighborIndex` by FAISS, one index a space over the same `vectors`, (n, D) float32, as
    `build_clusters` made them.

    probed: clusters looked into, by dial.
    """

    def __init__(
        self,
        indexes: Sequence["faiss.IndexIVFPQFastScan"],
        vectors: np.ndarray,
        probed: Mapping[str, int],
    ) -> None:
        self.indexes, self.vectors, self.probed = indexes, vectors, probed
        self.exact = ExactIndex(vectors)

    def top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `NeighborIndex.top`; a row may be missed, as often as `FaissClusters.recall` says.
        Narrow filters miss nothing.
        """
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
        """At most `n` rows that look best; under a filter as many more clusters are looked into as
        it leaves out.
        """
        import faiss

        dial = blend_of(query, len(self.indexes))
        index = self.indexes[int(dial > 0.5)]
        settings = faiss.SearchParametersIVF()
        settings.nprobe = min(index.nlist, round(probes_for_recall(self.probed, dial) / share))
        if allowed is not None:
            passing = np.zeros(len(self.vectors), dtype=bool)
            passing[allowed] = True
            selector: Any = faiss.IDSelectorBitmap  # takes an array, whatever its stub says
            settings.sel = selector(np.packbits(passing, bitorder="little"))
        _, found = index.search(query[None], n, params=settings)
        rows: np.ndarray = found[0][found[0] >= 0]
        return rows


def build_clusters(vectors: np.ndarray, n_spaces: int, files: Sequence[Path]) -> FaissClusters:
    """Writes one FAISS file a space for `vectors` (n, D) float32 and says how they were made; n >=
    `LEAST_ROWS`.

    Deterministic but for the order in which threads add numbers. Cost: n x D x clusters.
    """
    import faiss

    size = vectors.shape[1] // n_spaces
    n_lists = lists_for(len(vectors))
    sample = min(len(vectors), max(SAMPLE_PER_LIST * n_lists, 16_384))
    rows = np.sort(np.random.default_rng(0).choice(len(vectors), sample, replace=False))
    sampled = np.ascontiguousarray(vectors[rows])
    indexes = [
        _trained(sampled, slice(number * size, (number + 1) * size), n_lists)
        for number in range(n_spaces)
    ]
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
    """The indexes in `files`, whose hashes were checked: FAISS itself takes a flipped byte without
    a word.
    """
    import faiss

    indexes: list[Any] = [faiss.read_index(str(file)) for file in files]
    return FaissIndex(indexes, vectors, probed)


def _trained(sampled: np.ndarray, side: slice, n_lists: int) -> "faiss.IndexIVFPQFastScan":
    """An empty index whose clusters are those of one side of the vectors and whose codes hold all
    of a vector.
    """
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
    index.by_residual = (
        True  # codes what is left after the centre; of a dot product that costs a question nothing
    )
    index.train(sampled)
    return index
