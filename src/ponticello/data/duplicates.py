"""Prepared tracks that hold the same recording: encoded anew, louder or softer, or with a slightly later start.

Two steps, both on the loudness of bands over time, less its slow trend:

    all tracks  -> a descriptor that a late start hardly changes -> cosine -> pairs worth a look
    those pairs -> correlation at every start up to 1.1 s apart  -> pairs that are the same recording

Measured on 565 excerpts of 30 s of game music, 159,330 pairs of recordings, and on 44 of them encoded again; the
figures stand in `near_duplicates`. Dimensions: T frames, F mel bands, b bands here, n tracks, q of them asked about.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from ponticello.data.columns import TRACK_ID
from ponticello.data.store import FrameStore

OTHER_ID = "other_id"
SIMILARITY = "similarity"
SCHEMA = {TRACK_ID: pl.String(), OTHER_ID: pl.String(), SIMILARITY: pl.Float64()}

SAME_RECORDING = 0.55  # correlation; see `near_duplicates` for what lies on either side
HOP_S = 0.096  # what a frame is below: those of finer mels are averaged to about this
LEAST_FRAMES = 104  # 10 s: in less, two pulses of one tempo look the same
_WORTH_A_LOOK = 0.82  # cosine of descriptors
_FRAMES = 300  # of a track's start, 28.8 s, that its descriptor sees
_BANDS = 32  # of the lower three quarters of the mel bands: what low bit rates keep
_FLOOR_DB = 45.0  # below the loudest; what lies deeper is the encoder's choice rather than the music's
_TREND_FRAMES = 65  # 6.2 s: slower changes are fades, which many tracks share
_FREQUENCIES = slice(2, 34)  # of the 300 frames' Fourier series: 0.07 to 1.15 Hz
_COARSE_BANDS = 16  # of a descriptor, which holds 16 x 32 numbers
_MOST_SHIFT = 12  # frames, 1.15 s
_BLOCK_COSINES = 2**25  # held at once: 128 MB of float32

Floats = NDArray[np.float32]


def near_duplicates(
    store: FrameStore, track_ids: Sequence[str], threshold: float = SAME_RECORDING, hop_s: float = HOP_S
) -> pl.DataFrame:
    """Pairs of one recording as (track_id, other_id, similarity), sorted by the ids, each pair once.

    track_ids: the tracks asked about, each compared with all of `store`; DataError if one has no mel. In a pair of two
        that were asked about, track_id is the smaller id. Tracks below LEAST_FRAMES are not compared, nor are silent
        ones.
    similarity: correlation of band loudness in dB at the best start within 12 frames (1.15 s), in [-1, 1].
    threshold: least similarity of a pair. hop_s: s, from one frame of the store's mels to the next.

    Measured (see the top of the file). Different recordings: similarity at most 0.35, and 0.30 for the tenth highest of
    159,330 pairs; the two highest are of different games, the third, by its names, of two versions of one tune (0.34).
    None is worth a look by its descriptor, the highest cosine being 0.81. Of 44 copies each, all are found as Vorbis of
    the lowest quality (least similarity 0.98), as MP3 at 32 kbit/s (0.76), with 6 dB less, at 22 kHz, with the start
    cut by 0.1 s (0.98) or 0.5 s (0.81), and with 0.7 s of silence before it (0.66). A cut of 1.0 s falls between two
    frames (10.4 of them), and 40 of 44 are found: fast pulses are lost. Of copies played 0.5 % faster 41 of 44 are
    found, of those cut by 0.55 s and at MP3's 8 kbit/s 28. Pulses of one tempo made by a machine can be called the
    same: of `synthetic` sounds of 30 s, 7 of 19,900 pairs are.

    Cost: q x n x 512 multiplications, one reading of each mel's first 29 s, and of both mels of a pair worth a look.
    On two cores 0.8 ms a track and 2.7 s for 20,000 tracks against each other: some three minutes for 100,000, beside
    the disk and the pairs worth a look. Memory: 2 KB a track and 128 MB.
    """
    n_a_frame = max(1, round(HOP_S / hop_s))
    asked = sorted({track_id for track_id in track_ids if store.n_frames(track_id) >= LEAST_FRAMES * n_a_frame})
    others = sorted(set(store.track_ids) - set(asked))
    ids = [*asked, *(track_id for track_id in others if store.n_frames(track_id) >= LEAST_FRAMES * n_a_frame)]
    descriptors = np.empty((len(ids), _COARSE_BANDS * (_FREQUENCIES.stop - _FREQUENCIES.start)), dtype=np.float32)
    for row, track_id in enumerate(ids):
        descriptors[row] = _descriptor(_loudness(store.read(track_id)[: _FRAMES * n_a_frame], n_a_frame))
    found, last, loudness = [], -1, np.empty((0, 0), dtype=np.float32)
    for row, other in _candidates(descriptors, len(asked)):
        if row != last:
            last, loudness = row, _loudness(store.read(ids[row]), n_a_frame)
        similarity = _similarity(loudness, _loudness(store.read(ids[other]), n_a_frame))
        if similarity >= threshold:
            found.append((ids[row], ids[other], similarity))
    return pl.DataFrame(found, schema=SCHEMA, orient="row").sort(TRACK_ID, OTHER_ID)


def _loudness(mel: NDArray[np.float16], n_a_frame: int) -> Floats:
    """(T, b) dB of each band, less its mean over the 6 s around; a track's gain falls out. mel: (T * n_a_frame, F)."""
    level = mel.astype(np.float32)
    power = 10.0 ** ((level - level.max()) / 10)
    power = power[: len(power) // n_a_frame * n_a_frame].reshape(-1, n_a_frame, power.shape[1]).mean(axis=1)  # (T, F)
    n_used = max(1, level.shape[1] * 3 // 4)
    edges = np.unique(np.linspace(0, n_used, _BANDS, endpoint=False).astype(np.int64))
    widths = np.diff(edges, append=n_used)
    bands = np.add.reduceat(power[:, :n_used], edges, axis=1) / widths  # (T, b)
    decibels = 10 * np.log10(bands + 10 ** (-_FLOOR_DB / 10))
    loudness: Floats = decibels - uniform_filter1d(decibels, _TREND_FRAMES, axis=0, mode="nearest")
    return loudness.astype(np.float32)


def _descriptor(loudness: Floats) -> Floats:
    """(512,) unit length, or 0 for silence: how strongly each band moves at each frequency, whenever it does so."""
    n_frames, n_bands = loudness.shape
    padded = np.zeros((_FRAMES, n_bands), dtype=np.float32)
    padded[:n_frames] = loudness[:_FRAMES]
    strength = np.abs(np.fft.rfft(padded * np.hanning(_FRAMES)[:, None], axis=0))[_FREQUENCIES]
    edges = np.linspace(0, n_bands, _COARSE_BANDS, endpoint=False).astype(np.int64)
    coarse = np.add.reduceat(strength, edges, axis=1).ravel()
    return _unit(coarse - coarse.mean())


def _unit(vector: NDArray[np.floating]) -> Floats:
    length = np.linalg.norm(vector)
    return (vector / length if length > 1e-6 else np.zeros_like(vector)).astype(np.float32)


def _candidates(descriptors: Floats, n_asked: int) -> Iterator[tuple[int, int]]:
    """Rows of pairs worth a look, the first among the `n_asked` first rows, the second after it."""
    block = max(1, _BLOCK_COSINES // max(1, len(descriptors)))
    for start in range(0, n_asked, block):
        cosines = descriptors[start : min(start + block, n_asked)] @ descriptors[start:].T
        for row, other in np.argwhere(cosines >= _WORTH_A_LOOK):
            if other > row:
                yield start + int(row), start + int(other)


def _similarity(left: Floats, right: Floats) -> float:
    """The highest correlation of two loudnesses over all starts, whole frames and half frames apart."""
    between: Floats = ((left[1:] + left[:-1]) / 2).astype(np.float32)
    return max(
        _correlation(version, right, shift)
        for version in (left, between)
        for shift in range(-_MOST_SHIFT, _MOST_SHIFT + 1)
    )


def _correlation(left: Floats, right: Floats, shift: int) -> float:
    """Of `left` from frame `shift` on with `right`, over the frames both have; 0 if one does not change."""
    left, right = left[max(0, shift) :], right[max(0, -shift) :]
    n_both = min(len(left), len(right))
    one, two = left[:n_both].ravel(), right[:n_both].ravel()  # the trend is gone, and with it the mean
    scale = float(np.sqrt(np.dot(one, one)) * np.sqrt(np.dot(two, two)))
    return float(np.dot(one, two)) / scale if scale > 1e-6 else 0.0
