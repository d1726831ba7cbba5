"""The simple rows every figure stands beside: random, popularity, and raw mel statistics."""

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

    def describe(ids: list[str]) -> np.ndarray:
        mels = (np.asarray(store.read(track_id), dtype=np.float32) for track_id in ids)
        return np.stack([np.concatenate([mel.mean(axis=0), mel.std(axis=0)]) for mel in mels])

    reference, described = describe(reference_ids), describe(track_ids)
    return unit((described - reference.mean(axis=0)) / np.maximum(reference.std(axis=0), 1e-6))


def popularity(events: pl.DataFrame, candidates: list[str]) -> np.ndarray:
    """(n,) how often each candidate was played in `events`; 0 for a cold track, about which popularity says nothing."""
    counts = dict(events.group_by(TRACK_ID).len().iter_rows())
    return np.array([counts.get(track_id, 0) for track_id in candidates], dtype=np.float64)


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, d) float32: each row at unit length; a row of zeros stays zeros."""
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    scaled: np.ndarray = (vectors / lengths).astype(np.float32)
    return scaled
