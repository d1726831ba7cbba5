"""Every row looked at, block by block: the answer the other ways are measured against.

float32 throughout: numpy has no fast product of half-precision numbers, so that a file half the
size would take ten times as long (a million rows of 200: 500 ms, against 35).

What answers "which rows come first": one interface, behind which stand three ways to find them.

A track's vector holds both spaces and a question is scaled by the dial, so that whatever the dial
says, a score is one dot product. `ExactIndex` looks at every row, `FaissIndex` at the likeliest
ones, `PgvectorIndex` has a server look.

Dimensions: n rows, D the size of a vector over all its spaces, m rows of an answer.
"""

import math
from typing import Protocol

import numpy as np

# clusters of 64,000 to 2 million rows: a fixed number, so that ten times the rows cost ten times as
# much
LISTS = 1024
SAMPLE_PER_LIST = 64  # rows at least that a cluster is made of


class NeighborIndex(Protocol):
    """The rows whose dot product with a query is largest."""

    def top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Rows (m,) int64 and their products (m,) float32, best first, ties by row; m = k, or all
        there are if fewer.

        query: (D,) float32, of any length. k: >= 1. allowed: (a,) int64, ascending; the only rows
        that may be returned, None = all.
        """


def products(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """(n,) float32 dot products of `vectors` (n, D) and `query` (D,), each of which depends on its
    own row alone.

    So equal vectors tie and every backend gives equal numbers; a matrix product may differ in the
    last place with a row's position. It is twice as fast as one, too: numpy 2.4 takes 35 ms for a
    million rows of 200, `@` 70 to 105.
    """
    found: np.ndarray = np.einsum("nd,d->n", vectors, query, dtype=np.float32)
    return found


def rank_rows(
    vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best `k` of the candidate `rows` as `NeighborIndex.top` gives them."""
    rows = np.sort(rows)  # in the file's order: what is read one after the other comes faster
    found = products(vectors[rows], query)
    order = np.argsort(-found, kind="stable")[:k]
    return rows[order], found[order]


def lists_for(n: int) -> int:
    """How many clusters `n` vectors get: `LISTS`; of few vectors less, and above 2 million about
    the square root.
    """
    few = max(1, n // SAMPLE_PER_LIST)
    return min(1 << (few.bit_length() - 1), max(LISTS, 1 << round(math.log2(n) / 2)))


BLOCK_ROWS = 16_384  # the products of one step, 64 KiB, stay in the cache while the best are picked
GATHER_SHARE = (
    0.3  # of a block's rows: where fewer are allowed, copying them out beats multiplying all
)


class ExactIndex:
    """`NeighborIndex` by looking at all of `vectors`, (n, D) float32, which may be a memory map.
    Cost: n x D a query.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `NeighborIndex.top`."""
        query = query.astype(np.float32, copy=False)
        rows, best = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
        bar = np.float32(-np.inf)  # what a row must reach to be among the best so far
        for start in range(0, len(self.vectors), BLOCK_ROWS):
            block = self.vectors[start : start + BLOCK_ROWS]
            within, found = _products(block, query, _within(allowed, start, len(block)))
            kept = np.flatnonzero(found >= bar)
            if not len(kept):
                continue
            rows = np.concatenate([rows, start + (kept if within is None else within[kept])])
            best = np.concatenate([best, found[kept]])
            if len(best) > k:
                bar = np.partition(best, len(best) - k)[len(best) - k]
                rows, best = rows[best >= bar], best[best >= bar]
        order = np.argsort(-best, kind="stable")[:k]
        return rows[order], best[order]


def _within(allowed: np.ndarray | None, start: int, length: int) -> np.ndarray | None:
    """The allowed rows of one block, counted from its start."""
    if allowed is None:
        return None
    first, last = np.searchsorted(allowed, [start, start + length])
    within: np.ndarray = allowed[first:last] - start
    return within


def _products(
    block: np.ndarray, query: np.ndarray, within: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray]:
    """The rows of a block that may be returned, None = all, and their products."""
    if within is None:
        return None, products(block, query)
    if len(within) <= GATHER_SHARE * len(block):
        return within, products(block[within], query)
    return within, products(block, query)[within]
