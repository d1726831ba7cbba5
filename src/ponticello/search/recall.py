"""How many of the closest rows are found, at each position of the dial, against looking at every row."""

from collections.abc import Callable, Mapping

import numpy as np

from ponticello.search.neighbours import Neighbours

DIALS = (0.0, 0.25, 0.5, 0.75, 1.0)
RECALL = 0.99  # of the best ten that must be found, at each dial: above what is promised, 0.98, as 2,000 places tell
ASKED, PLACES = 200, 10  # tracks asked with, and places compared
BLOCK_ROWS = 16_384
GROWTH = 1.4  # how much more is looked at from one try to the next


class Questions:
    """Tracks of the index as questions, at one position of the dial; each track itself is left out of the comparison.

    vectors: (n, D) float32. dial: 0 = the first space alone .. 1 = the second alone; with one space it says nothing.
    """

    def __init__(self, vectors: np.ndarray, n_spaces: int, dial: float) -> None:
        self.asking = np.random.default_rng(1).choice(len(vectors), min(ASKED, len(vectors)), replace=False)
        self.asked = at_dial(vectors[self.asking], n_spaces, dial)
        self.wanted = [
            found[found != own][:PLACES]
            for own, found in zip(self.asking, best_rows(vectors, self.asked, PLACES + 1), strict=True)
        ]

    def recall(self, neighbours: Neighbours) -> float:
        """The share of the best rows that `neighbours` finds."""
        hits = 0
        for query, own, wanted in zip(self.asked, self.asking, self.wanted, strict=True):
            found, _ = neighbours.top(query, PLACES + 1)
            hits += len(np.intersect1d(found[found != own][:PLACES], wanted))
        return hits / sum(len(wanted) for wanted in self.wanted)


def least_probed(
    vectors: np.ndarray, n_spaces: int, looking_into: Callable[[int], Neighbours], first: int, most: int
) -> tuple[dict[str, int], dict[str, float]]:
    """By dial, how many clusters to look into, the smallest tried that reaches `RECALL`, and the recall then measured.

    looking_into: what answers with so many of them, `first` to `most`.
    """
    probed, recall = {}, {}
    for dial in DIALS if n_spaces == 2 else DIALS[:1]:
        questions, n = Questions(vectors, n_spaces, dial), min(first, most)
        while (found := questions.recall(looking_into(n))) < RECALL and n < most:
            n = min(int(np.ceil(GROWTH * n)), most)
        probed[f"{dial:g}"], recall[f"{dial:g}"] = n, round(found, 4)
    return probed, recall


def at_dial(vectors: np.ndarray, n_spaces: int, dial: float) -> np.ndarray:
    """(q, D) float32: the vectors (q, D) as questions, the first space times 1 - dial, the second times dial."""
    if n_spaces == 1:
        return np.ascontiguousarray(vectors, dtype=np.float32)
    sides = vectors.reshape(len(vectors), 2, -1) * np.array([[1 - dial], [dial]], dtype=np.float32)
    return np.ascontiguousarray(sides.reshape(len(vectors), -1), dtype=np.float32)


def dial_of(query: np.ndarray, n_spaces: int) -> float:
    """Where a query (D,) stands between its spaces, by their lengths in it: `at_dial` of unit vectors, undone."""
    if n_spaces == 1:
        return 0.0
    lengths = np.linalg.norm(query.reshape(2, -1), axis=1)
    return float(lengths[1] / max(lengths.sum(), 1e-30))


def probed_at(probed: Mapping[str, int], dial: float) -> int:
    """How many clusters to look into at `dial`: the larger number of the two measured dials around it."""
    known = sorted((float(measured), n) for measured, n in probed.items())
    below = [n for measured, n in known if measured <= dial + 1e-6][-1:]
    above = [n for measured, n in known if measured >= dial - 1e-6][:1]
    return max(below + above)


def best_rows(vectors: np.ndarray, asked: np.ndarray, k: int) -> list[np.ndarray]:
    """For each of `asked` (q, D) the `k` rows of `vectors` (n, D) that come first, by looking at all, many at once."""
    rows = [np.zeros(0, dtype=np.int64) for _ in asked]
    held = [np.zeros(0, dtype=np.float32) for _ in asked]
    bars = np.full(len(asked), -np.inf, dtype=np.float32)
    for start in range(0, len(vectors), BLOCK_ROWS):
        found = asked @ vectors[start : start + BLOCK_ROWS].T
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
