"""Prepared tracks that hold the same recording: encoded anew, louder or softer, or with a slightly
later start.

Two steps, both on the loudness of bands over time, less its slow trend:

    all tracks  -> a descriptor that a late start hardly changes -> cosine -> pairs worth a look
    those pairs -> correlation at every start up to 1.1 s apart  -> pairs that are the same
    recording

Measured on 565 excerpts of 30 s of game music, 159,330 pairs of recordings, and on 44 of them
encoded again; the figures stand in `near_duplicates`. Dimensions: T frames, F mel bands, b bands
here, n tracks, q of them asked about.

Which tracks are one recording, so that an answer can hold it once: kept with the index, and up to
date with it.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ponticello.features.store import MANIFEST, FeatureStore
from ponticello.storage.schema import TRACK_ID

OTHER_ID = "other_id"
SIMILARITY = "similarity"
DUPLICATES_SCHEMA = {TRACK_ID: pl.String(), OTHER_ID: pl.String(), SIMILARITY: pl.Float64()}

SAME_RECORDING = 0.55  # correlation; see `near_duplicates` for what lies on either side
HOP_S = 0.096  # what a frame is below: those of finer mels are averaged to about this
MIN_FRAMES = 104  # 10 s: in less, two pulses of one tempo look the same
_WORTH_A_LOOK = 0.82  # cosine of descriptors
_FRAMES = 300  # of a track's start, 28.8 s, that its descriptor sees
_BANDS = 32  # of the lower three quarters of the mel bands: what low bit rates keep
_FLOOR_DB = (
    45.0  # below the loudest; what lies deeper is the encoder's choice rather than the music's
)
_TREND_FRAMES = 65  # 6.2 s: slower changes are fades, which many tracks share
_FREQUENCIES = slice(2, 34)  # of the 300 frames' Fourier series: 0.07 to 1.15 Hz
_COARSE_BANDS = 16  # of a descriptor, which holds 16 x 32 numbers
_MOST_SHIFT = 12  # frames, 1.15 s
_BLOCK_COSINES = 2**25  # held at once: 128 MB of float32

Floats = NDArray[np.float32]


def near_duplicates(
    store: FeatureStore,
    track_ids: Sequence[str],
    threshold: float = SAME_RECORDING,
    hop_s: float = HOP_S,
) -> pl.DataFrame:
    """Pairs of one recording as (track_id, other_id, similarity), sorted by the ids, each pair
    once.

    track_ids: the tracks asked about, each compared with all of `store`; DataError if one has no
    mel. In a pair of two
        that were asked about, track_id is the smaller id. Tracks below LEAST_FRAMES are not
        compared, nor are silent ones.
    similarity: correlation of band loudness in dB at the best start within 12 frames (1.15 s), in
    [-1, 1].
    threshold: least similarity of a pair. hop_s: s, from one frame of the store's mels to the next.

    Measured (see the top of the file). Different recordings: similarity at most 0.35, and 0.30 for
    the tenth highest of 159,330 pairs; the two highest are of different games, the third, by its
    names, of two versions of one tune (0.34). None is worth a look by its descriptor, the highest
    cosine being 0.81. Of 44 copies each, all are found as Vorbis of the lowest quality (least
    similarity 0.98), as MP3 at 32 kbit/s (0.76), with 6 dB less, at 22 kHz, with the start cut by
    0.1 s (0.98) or 0.5 s (0.81), and with 0.7 s of silence before it (0.66). A cut of 1.0 s falls
    between two frames (10.4 of them), and 40 of 44 are found: fast pulses are lost. Of copies
    played 0.5 % faster 41 of 44 are found, of those cut by 0.55 s and at MP3's 8 kbit/s 28. Pulses
    of one tempo made by a machine can be called the
    same: of `synthetic` sounds of 30 s, 7 of 19,900 pairs are.

    Cost: q x n x 512 multiplications, one reading of each mel's first 29 s, and of both mels of a
    pair worth a look. On two cores 0.8 ms a track and 2.7 s for 20,000 tracks against each other:
    some three minutes for 100,000, beside the disk and the pairs worth a look. Memory: 2 KB a track
    and 128 MB.
    """
    n_a_frame = max(1, round(HOP_S / hop_s))
    asked = sorted(
        {track_id for track_id in track_ids if store.n_frames(track_id) >= MIN_FRAMES * n_a_frame}
    )
    others = sorted(set(store.track_ids) - set(asked))
    ids = [
        *asked,
        *(track_id for track_id in others if store.n_frames(track_id) >= MIN_FRAMES * n_a_frame),
    ]
    descriptors = np.empty(
        (len(ids), _COARSE_BANDS * (_FREQUENCIES.stop - _FREQUENCIES.start)), dtype=np.float32
    )
    for row, track_id in enumerate(ids):
        descriptors[row] = _descriptor(
            _loudness(store.read(track_id)[: _FRAMES * n_a_frame], n_a_frame)
        )
    found, last, loudness = [], -1, np.empty((0, 0), dtype=np.float32)
    for row, other in _candidates(descriptors, len(asked)):
        if row != last:
            last, loudness = row, _loudness(store.read(ids[row]), n_a_frame)
        similarity = _similarity(loudness, _loudness(store.read(ids[other]), n_a_frame))
        if similarity >= threshold:
            found.append((ids[row], ids[other], similarity))
    return pl.DataFrame(found, schema=DUPLICATES_SCHEMA, orient="row").sort(TRACK_ID, OTHER_ID)


def _loudness(mel: NDArray[np.float16], n_a_frame: int) -> Floats:
    """(T, b) dB of each band, less its mean over the 6 s around; a track's gain falls out. mel: (T
    * n_a_frame, F).
    """
    level = mel.astype(np.float32)
    power = 10.0 ** ((level - level.max()) / 10)
    power = (
        power[: len(power) // n_a_frame * n_a_frame]
        .reshape(-1, n_a_frame, power.shape[1])
        .mean(axis=1)
    )  # (T, F)
    n_used = max(1, level.shape[1] * 3 // 4)
    edges = np.unique(np.linspace(0, n_used, _BANDS, endpoint=False).astype(np.int64))
    widths = np.diff(edges, append=n_used)
    bands = np.add.reduceat(power[:, :n_used], edges, axis=1) / widths  # (T, b)
    decibels = 10 * np.log10(bands + 10 ** (-_FLOOR_DB / 10))
    loudness: Floats = decibels - uniform_filter1d(decibels, _TREND_FRAMES, axis=0, mode="nearest")
    return loudness.astype(np.float32)


def _descriptor(loudness: Floats) -> Floats:
    """(512,) unit length, or 0 for silence: how strongly each band moves at each frequency,
    whenever it does so.
    """
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
    """The highest correlation of two loudnesses over all starts, whole frames and half frames
    apart.
    """
    between: Floats = ((left[1:] + left[:-1]) / 2).astype(np.float32)
    return max(
        _correlation(version, right, shift)
        for version in (left, between)
        for shift in range(-_MOST_SHIFT, _MOST_SHIFT + 1)
    )


def _correlation(left: Floats, right: Floats, shift: int) -> float:
    """Of `left` from frame `shift` on with `right`, over the frames both have; 0 if one does not
    change.
    """
    left, right = left[max(0, shift) :], right[max(0, -shift) :]
    n_both = min(len(left), len(right))
    one, two = (
        left[:n_both].ravel(),
        right[:n_both].ravel(),
    )  # the trend is gone, and with it the mean
    scale = float(np.sqrt(np.dot(one, one)) * np.sqrt(np.dot(two, two)))
    return float(np.dot(one, two)) / scale if scale > 1e-6 else 0.0


MEL_SHA256, RECORDING = "mel_sha256", "recording"
RECORDINGS_SCHEMA = {TRACK_ID: pl.String(), MEL_SHA256: pl.String(), RECORDING: pl.String()}


def find_recordings(mels: Path, known: pl.DataFrame | None, hop_s: float) -> pl.DataFrame:
    """(track_id, mel_sha256, recording) of every track prepared in `mels`, by id; no row if nothing
    is prepared.

    recording: the smallest id of the tracks that `near_duplicates` joins, also in several steps.
    known: an earlier answer; only tracks that are new or have another mel since are compared, with
    all. hop_s: from one frame of a mel to the next. Cost: as `near_duplicates`, or none where
    nothing changed.
    """
    if not (mels / MANIFEST).exists():
        return pl.DataFrame(schema=RECORDINGS_SCHEMA)
    store = FeatureStore(mels)
    now = pl.DataFrame(
        {
            TRACK_ID: store.track_ids,
            MEL_SHA256: [store.sha256(track_id) for track_id in store.track_ids],
        },
        schema={TRACK_ID: pl.String, MEL_SHA256: pl.String},
    )
    earlier = (
        pl.DataFrame(schema=RECORDINGS_SCHEMA)
        if known is None
        else known.select(*RECORDINGS_SCHEMA)
    )
    now = now.join(earlier, on=[TRACK_ID, MEL_SHA256], how="left", maintain_order="left")
    new = now.filter(pl.col(RECORDING).is_null())[TRACK_ID].to_list()
    pairs = near_duplicates(store, new, hop_s=hop_s)
    return now.with_columns(
        pl.Series(
            RECORDING, merge_recordings(now[TRACK_ID], now[RECORDING], pairs), dtype=pl.String
        )
    )


def merge_recordings(track_ids: pl.Series, recordings: pl.Series, pairs: pl.DataFrame) -> list[str]:
    """The smallest id of each track's recording, from names of recordings (null = none yet) and
    pairs of one recording.

    pairs: track_id, other_id, all of them in `track_ids`.
    """
    place = {track_id: row for row, track_id in enumerate(track_ids)}
    first: dict[str, int] = {}
    edges = [
        (place[left], place[right]) for left, right in pairs.select(TRACK_ID, OTHER_ID).iter_rows()
    ]
    edges += [
        (first.setdefault(name, row), row)
        for row, name in enumerate(recordings)
        if name is not None
    ]
    left, right = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_matrix((np.ones(len(edges)), (left, right)), shape=(len(place), len(place)))
    numbers = (
        connected_components(graph, directed=False)[1]
        if len(place)
        else np.zeros(0, dtype=np.int64)
    )
    smallest: dict[int, str] = {}
    for number, track_id in zip(numbers.tolist(), track_ids, strict=True):
        smallest[number] = min(track_id, smallest.get(number, track_id))
    return [smallest[number] for number in numbers.tolist()]
