"""Exact search, and the interface that it shares with the approximate backends.

A track's vector holds both spaces, and a query is scaled by the blend, so that a score is one dot
product at every blend. `ExactIndex` compares all rows, block by block, and is the reference for the
others: `FaissIndex` compares the most likely ones, `PgvectorIndex` asks a server.

float32 throughout: numpy has no fast product of half-precision numbers, so a file of half the size
would take ten times as long (a million rows of 200: 500 ms, against 35).

Dimensions: n rows, D the size of a vector over all its spaces, m rows of an answer.
"""

import math
from typing import Protocol

import numpy as np

LISTS = 1024  # clusters of 64,000 to 2 million rows: fixed, so that cost is linear in rows
SAMPLE_PER_LIST = 64  # rows per cluster in training, at least


class NeighborIndex(Protocol):
    """Finds the rows with the largest dot product with a query."""

    def top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns rows (m,) int64 and their products (m,) float32, best first, ties by row.

        m is k, or the number of rows that may be returned if that is smaller.

        query: (D,) float32, of any length. k: >= 1. allowed: (a,) int64, ascending; the only rows
        that may be returned, None = all.
        """


def products(vectors: np.ndarray, query: np.ndarray) -> np.ndarray:
    """Returns (n,) float32 dot products of `vectors` (n, D) and `query` (D,).

    Each depends on its row alone: equal vectors tie, and all backends return equal numbers. The
    last place of a matrix product may depend on a row's position. It is also twice as fast as one:
    numpy 2.4 takes 35 ms for a million rows of 200, `@` 70 to 105.
    """
    row_products: np.ndarray = np.einsum("nd,d->n", vectors, query, dtype=np.float32)
    return row_products


def rank_rows(
    vectors: np.ndarray, query: np.ndarray, rows: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the best `k` of the candidate `rows`, as `NeighborIndex.top`."""
    rows = np.sort(rows)  # the order of the file: sequential reads are faster
    row_products = products(vectors[rows], query)
    order = np.argsort(-row_products, kind="stable")[:k]
    return rows[order], row_products[order]


def lists_for(n: int) -> int:
    """Returns the number of clusters for `n` vectors.

    `LISTS`; fewer below 64,000 vectors, and about the square root above 2 million.
    """
    few = max(1, n // SAMPLE_PER_LIST)
    return min(1 << (few.bit_length() - 1), max(LISTS, 1 << round(math.log2(n) / 2)))


BLOCK_ROWS = 16_384  # the products of one step, 64 KiB, stay in the cache while the best are picked
# of a block's rows: if fewer are allowed, copying them is faster than multiplying all
GATHER_SHARE = 0.3


class ExactIndex:
    """Compares a query with all of `vectors` (n, D) float32, which may be a memory map.

    Cost: n x D per query.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def top(
        self, query: np.ndarray, k: int, allowed: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """As `NeighborIndex.top`."""
        query = query.astype(np.float32, copy=False)
        rows = np.zeros(0, dtype=np.int64)
        best = np.zeros(0, dtype=np.float32)
        bar = np.float32(-np.inf)  # the product that a row needs to be among the best so far
        for start in range(0, len(self.vectors), BLOCK_ROWS):
            block = self.vectors[start : start + BLOCK_ROWS]
            within, block_products = _products(block, query, _within(allowed, start, len(block)))
            kept = np.flatnonzero(block_products >= bar)
            if not len(kept):
                continue
            rows = np.concatenate([rows, start + (kept if within is None else within[kept])])
            best = np.concatenate([best, block_products[kept]])
            if len(best) > k:
                bar = np.partition(best, len(best) - k)[len(best) - k]
                rows = rows[best >= bar]
                best = best[best >= bar]
        order = np.argsort(-best, kind="stable")[:k]
        return rows[order], best[order]


def _within(allowed: np.ndarray | None, start: int, length: int) -> np.ndarray | None:
    """Returns the allowed rows of one block, counted from its start."""
    if allowed is None:
        return None
    first, last = np.searchsorted(allowed, [start, start + length])
    within: np.ndarray = allowed[first:last] - start
    return within


def _products(
    block: np.ndarray, query: np.ndarray, within: np.ndarray | None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns the rows of a block that may be returned, None = all, and their products."""
    if within is None:
        return None, products(block, query)
    if len(within) <= GATHER_SHARE * len(block):
        return within, products(block[within], query)
    return within, products(block, query)[within]
