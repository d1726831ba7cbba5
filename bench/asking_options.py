"""Other ways to ask the same vectors, for `asking.py`: against hubs, by weighted seeds, with the artist's other tracks.

Dimensions: q queries, n items, b of a bank that tells which items are near everything, s seeds, d vector size.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ponticello.evaluate.baselines import unit
from ponticello.search.profile import LEAST_SPREAD, Profiles

N_NEAREST = 10  # of the bank, behind an item's hubness; Lample et al. 2018
INVERTED_SCALE = 20.0  # of cosines; Bogolin et al. 2022

Correction = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]  # (q, d), (n, d), (b, d) -> (q, n) scores


def plain(queries: np.ndarray, items: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Dot products: cosines of unit vectors."""
    del bank
    scores: np.ndarray = queries.astype(np.float64) @ items.T.astype(np.float64)
    return scores


def centred(queries: np.ndarray, items: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Cosines once the bank's mean is taken from the queries and the items' own from the items (Suzuki et al. 2013)."""
    return plain(unit(queries - bank.mean(axis=0)), unit(items - items.mean(axis=0)), bank)


def csls(queries: np.ndarray, items: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Cosine less half the item's mean cosine to its ten nearest of the bank (Lample et al. 2018, equation 1)."""
    return plain(queries, items, bank) - nearness(items, bank) / 2


def local_scaling(queries: np.ndarray, items: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Minus the distance, in units of the root of the item's mean distance to its ten nearest (Schnitzer et al. 2012).

    The query's own unit changes no order and is left out.
    """
    reach = np.maximum(1 - nearness(items, bank), 1e-6)
    scaled: np.ndarray = (plain(queries, items, bank) - 1) / np.sqrt(reach)
    return scaled


def inverted_softmax(queries: np.ndarray, items: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """Log of each item's share of the whole bank's attention that the query gives it (Bogolin et al. 2022)."""
    attention = INVERTED_SCALE * plain(bank, items, bank)  # (b, n)
    most = attention.max(axis=0)
    total = most + np.log(np.exp(attention - most).sum(axis=0))
    scores: np.ndarray = INVERTED_SCALE * plain(queries, items, bank) - total
    return scores


def nearness(items: np.ndarray, bank: np.ndarray) -> np.ndarray:
    """(n,) each item's mean dot product with its ten nearest of the bank; where both are one array, without itself."""
    found = plain(items, bank, bank)
    if items is bank:
        np.fill_diagonal(found, -np.inf)
    k = min(N_NEAREST, found.shape[1] - (items is bank))
    nearest: np.ndarray = np.sort(found, axis=1)[:, -k:].mean(axis=1)
    return nearest


CORRECTIONS: dict[str, Correction] = {
    "centred": centred,
    "CSLS": csls,
    "local scaling": local_scaling,
    "inverted softmax": inverted_softmax,
}


def weighted_direction(profiles: Profiles, seeds: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """`Profiles.direction` of seeds (s, d) that do not all count alike; weights: (s,), their sum above 0."""
    middle = weights @ seeds.astype(np.float64) / weights.sum()
    raw = profiles.sharpened @ (middle - profiles.mean)
    spread = float(np.sqrt(raw @ profiles.covariance @ raw))
    unit_spread: np.ndarray = raw / spread if spread > LEAST_SPREAD else np.zeros_like(raw)
    return unit_spread


def agreement(profiles: Profiles, seeds: np.ndarray, sharpness: float) -> np.ndarray:
    """(s,) weights: exp(sharpness x the mean cosine of a seed to the others), vectors centred; alike for one seed."""
    middle = unit(seeds.astype(np.float64) - profiles.mean)
    cosines = middle @ middle.T
    others = (cosines.sum(axis=1) - np.diag(cosines)) / max(1, len(seeds) - 1)
    weights: np.ndarray = np.exp(sharpness * (others - others.max()))
    return weights


def recency(n_seeds: int, half_life: float) -> np.ndarray:
    """(s,) weights of seeds, newest first, halved every `half_life` seeds."""
    weights: np.ndarray = 0.5 ** (np.arange(n_seeds) / half_life)
    return weights


def with_artist(
    vectors: np.ndarray, artists: Sequence[str | None], known: np.ndarray, blended: np.ndarray, share: float
) -> np.ndarray:
    """(n, d): tracks of `blended` moved by `share` to the mean of their artist's known tracks, at unit length.

    artists: n names, None = nobody; known, blended: (n,) bool. A track whose artist has no known track stays.
    """
    moved = vectors.astype(np.float64)
    rows_of: dict[str, list[int]] = {}
    for row in np.flatnonzero(known).tolist():
        if name := artists[row]:
            rows_of.setdefault(name, []).append(row)
    means: Mapping[str, np.ndarray] = {name: moved[rows].mean(axis=0) for name, rows in rows_of.items()}
    for row in np.flatnonzero(blended).tolist():
        if (name := artists[row]) and name in means:
            moved[row] = (1 - share) * moved[row] + share * means[name]
    return unit(moved)
