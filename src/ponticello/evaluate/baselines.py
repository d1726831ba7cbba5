"""The simple rows every figure stands beside: random, popularity, raw mel statistics, a pretrained tagger."""

from collections.abc import Callable

import numpy as np
import polars as pl

from ponticello.data.columns import TRACK_ID
from ponticello.data.store import FrameStore


def random_vectors(n: int, d: int, seed: int) -> np.ndarray:
    """(n, d) float32 unit vectors that know nothing."""
    return unit(np.random.default_rng(seed).standard_normal((n, d)))


def mel_statistics(store: FrameStore, track_ids: list[str], reference_ids: list[str]) -> np.ndarray:
    """(n, 2F) float32 unit vectors: mean and standard deviation of every mel band over time, in dB.

    Each of the 2F numbers is standardised over `reference_ids` (the training tracks).
    """

    def describe(mel: np.ndarray) -> np.ndarray:
        return np.concatenate([mel.mean(axis=0), mel.std(axis=0)])

    return _standardised(store, track_ids, reference_ids, describe)


def frame_means(store: FrameStore, track_ids: list[str], reference_ids: list[str], n_numbers: int) -> np.ndarray:
    """(n, n_numbers) float32 unit vectors: the mean over a track's frames of the first numbers of each.

    Each number is standardised over `reference_ids`.
    """
    return _standardised(store, track_ids, reference_ids, lambda frames: frames[:, :n_numbers].mean(axis=0))


def _standardised(
    store: FrameStore, track_ids: list[str], reference_ids: list[str], describe: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """(n, ...) unit vectors: what `describe` makes of each track's frames (T, F), less the reference tracks' mean, in
    their deviations.
    """

    def described(ids: list[str]) -> np.ndarray:
        return np.stack([describe(np.asarray(store.read(track_id), dtype=np.float32)) for track_id in ids])

    reference, asked = described(reference_ids), described(track_ids)
    return unit((asked - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-6))


def popularity(events: pl.DataFrame, candidates: list[str]) -> np.ndarray:
    """(n,) how often each candidate was played in `events`; 0 for a cold track, about which popularity says nothing."""
    counts = dict(events.group_by(TRACK_ID).len().iter_rows())
    return np.array([counts.get(track_id, 0) for track_id in candidates], dtype=np.float64)


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, d) float32: each row at unit length; a row of zeros stays zeros."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scaled: np.ndarray = (vectors / lengths).astype(np.float32)
    return scaled
