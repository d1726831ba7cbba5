"""Every row looked at, block by block: the answer the other ways are measured against.

float32 throughout: numpy has no fast product of half-precision numbers, so that a file half the size would take ten
times as long (a million rows of 200: 500 ms, against 35).
"""

import numpy as np

from ponticello.search.neighbours import products

BLOCK_ROWS = 16_384  # the products of one step, 64 KiB, stay in the cache while the best are picked
GATHER_SHARE = 0.3  # of a block's rows: where fewer are allowed, copying them out beats multiplying all


class Exact:
    """`Neighbours` by looking at all of `vectors`, (n, D) float32, which may be a memory map. Cost: n x D a query."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def top(self, query: np.ndarray, k: int, allowed: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `Neighbours.top`."""
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


def _products(block: np.ndarray, query: np.ndarray, within: np.ndarray | None) -> tuple[np.ndarray | None, np.ndarray]:
    """The rows of a block that may be returned, None = all, and their products."""
    if within is None:
        return None, products(block, query)
    if len(within) <= GATHER_SHARE * len(block):
        return within, products(block[within], query)
    return within, products(block, query)[within]
