"""Finds tracks with the same recording: re-encoded, at another level, or with a shifted start.

Two steps, both on the loudness of frequency bands over time without its slow trend:

    all tracks       descriptors that a shifted start hardly changes, compared by cosine
    candidate pairs  correlation at every shift of up to 1.15 s

Dimensions: T frames, F mel bands, b bands here, n tracks in the store, q tracks searched for.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from ponticello.features.store import MANIFEST, Features, FeatureStore
from ponticello.storage.schema import TRACK_ID

OTHER_ID = "other_id"
SIMILARITY = "similarity"
DUPLICATES_SCHEMA = {TRACK_ID: pl.String(), OTHER_ID: pl.String(), SIMILARITY: pl.Float64()}
MEL_SHA256 = "mel_sha256"
RECORDING = "recording"
RECORDINGS_SCHEMA = {TRACK_ID: pl.String(), MEL_SHA256: pl.String(), RECORDING: pl.String()}

SAME_RECORDING = 0.55  # least correlation of a pair; see `near_duplicates`
HOP_S = 0.096  # of a frame here: finer log-mels are averaged to about this
MIN_FRAMES = 104  # 10 s; in shorter excerpts, pulses of equal tempo look the same
_MIN_COSINE = 0.82  # of the descriptors of a candidate pair
_DESCRIPTOR_FRAMES = 300  # first 28.8 s of a track
_N_BANDS = 32  # of the lower three quarters of the mel bands, which low bit rates keep
_FLOOR_DB = 45.0  # below the peak; lower levels depend on the encoder
_TREND_FRAMES = 65  # 6.2 s; slower changes are fades, which many tracks share
_FREQUENCIES = slice(2, 34)  # of the Fourier series of 300 frames: 0.07 to 1.15 Hz
_N_COARSE_BANDS = 16
_DESCRIPTOR_SIZE = _N_COARSE_BANDS * (_FREQUENCIES.stop - _FREQUENCIES.start)  # 512
_MAX_SHIFT = 12  # frames, 1.15 s
_BLOCK_COSINES = 2**25  # in memory at once: 128 MB of float32

Floats = NDArray[np.float32]


def near_duplicates(
    store: FeatureStore,
    track_ids: Sequence[str],
    threshold: float = SAME_RECORDING,
    hop_s: float = HOP_S,
) -> pl.DataFrame:
    """Returns pairs of tracks with the same recording, sorted: (track_id, other_id, similarity).

    track_ids: tracks to search for among all of `store`; DataError if one has no log-mel. If both
        tracks of a pair are searched for, track_id is the smaller id. Tracks below MIN_FRAMES and
        silent ones are not compared.
    threshold: least similarity. hop_s: seconds between frames of the store.
    similarity: highest correlation of band loudness in dB over shifts of up to 12 frames, in
        [-1, 1].

    Measured on 565 excerpts of 30 s of game music and altered copies of 44 of them. Different
    recordings: at most 0.35 of 159,330 pairs; no pair is a candidate (highest cosine 0.81). All
    44 copies are found as Vorbis of the lowest quality (least similarity 0.98), as MP3 at
    32 kbit/s (0.76), 6 dB softer, at 22 kHz, with the start cut by 0.1 s (0.98) or 0.5 s (0.81) and
    with 0.7 s of silence before it (0.66); 40 with a cut of 1.0 s; 41 played 0.5 % faster; 28 cut
    by 0.55 s and as MP3 at 8 kbit/s. Machine-made pulses of one tempo can be taken for the same.

    Cost: q x n x 512 multiplications, one read of 29 s of each log-mel, and of both of a candidate
    pair. On two cores 0.8 ms per track and 2.7 s for 20,000 tracks against each other. Memory: 2 KB
    per track and 128 MB.
    """
    n_pooled = max(1, round(HOP_S / hop_s))  # frames of the store per frame here
    min_frames = MIN_FRAMES * n_pooled
    searched = sorted({id_ for id_ in track_ids if store.n_frames(id_) >= min_frames})
    remaining = sorted(set(store.track_ids) - set(searched))
    ids = searched + [id_ for id_ in remaining if store.n_frames(id_) >= min_frames]
    descriptors = np.empty((len(ids), _DESCRIPTOR_SIZE), dtype=np.float32)
    for row, track_id in enumerate(ids):
        start = store.read(track_id)[: _DESCRIPTOR_FRAMES * n_pooled]
        descriptors[row] = _descriptor(_loudness(start, n_pooled))
    pairs = []
    for row, candidates in groupby(_candidates(descriptors, len(searched)), key=itemgetter(0)):
        loudness = _loudness(store.read(ids[row]), n_pooled)
        for _, other_row in candidates:
            similarity = _similarity(loudness, _loudness(store.read(ids[other_row]), n_pooled))
            if similarity >= threshold:
                pairs.append((ids[row], ids[other_row], similarity))
    return pl.DataFrame(pairs, schema=DUPLICATES_SCHEMA, orient="row").sort(TRACK_ID, OTHER_ID)


def _loudness(mel: Features, n_pooled: int) -> Floats:
    """Returns (T, b) dB per band minus its mean over the surrounding 6 s, which removes the gain.

    mel: (T * n_pooled, F) dB.
    """
    level = mel.astype(np.float32)
    power = 10.0 ** ((level - level.max()) / 10)
    n_frames = len(power) // n_pooled
    n_mels = power.shape[1]
    power = power[: n_frames * n_pooled].reshape(n_frames, n_pooled, n_mels).mean(axis=1)
    n_used = max(1, n_mels * 3 // 4)
    edges = np.unique(np.linspace(0, n_used, _N_BANDS, endpoint=False).astype(np.int64))
    widths = np.diff(edges, append=n_used)
    bands = np.add.reduceat(power[:, :n_used], edges, axis=1) / widths  # (T, b)
    decibels = 10 * np.log10(bands + 10 ** (-_FLOOR_DB / 10))
    trend = uniform_filter1d(decibels, _TREND_FRAMES, axis=0, mode="nearest")
    loudness: Floats = (decibels - trend).astype(np.float32)
    return loudness


def _descriptor(loudness: Floats) -> Floats:
    """Returns (512,) of unit length, 0 for silence: the modulation spectrum of each band."""
    n_frames, n_bands = loudness.shape
    padded = np.zeros((_DESCRIPTOR_FRAMES, n_bands), dtype=np.float32)
    padded[:n_frames] = loudness[:_DESCRIPTOR_FRAMES]
    windowed = padded * np.hanning(_DESCRIPTOR_FRAMES)[:, None]
    spectrum = np.abs(np.fft.rfft(windowed, axis=0))[_FREQUENCIES]
    edges = np.linspace(0, n_bands, _N_COARSE_BANDS, endpoint=False).astype(np.int64)
    coarse = np.add.reduceat(spectrum, edges, axis=1).ravel()
    centred = coarse - coarse.mean()
    length = np.linalg.norm(centred)
    if length <= 1e-6:
        return np.zeros(_DESCRIPTOR_SIZE, dtype=np.float32)
    descriptor: Floats = (centred / length).astype(np.float32)
    return descriptor


def _candidates(descriptors: Floats, n_searched: int) -> Iterator[tuple[int, int]]:
    """Yields candidate pairs of rows: the first below `n_searched`, the second above the first."""
    block = max(1, _BLOCK_COSINES // max(1, len(descriptors)))
    for start in range(0, n_searched, block):
        cosines = descriptors[start : min(start + block, n_searched)] @ descriptors[start:].T
        for row, other_row in np.argwhere(cosines >= _MIN_COSINE):
            if other_row > row:
                yield start + int(row), start + int(other_row)


def _similarity(left: Floats, right: Floats) -> float:
    """Returns the highest correlation over all shifts, in steps of half a frame."""
    half_frames: Floats = ((left[1:] + left[:-1]) / 2).astype(np.float32)
    highest = -1.0
    for version in (left, half_frames):
        for shift in range(-_MAX_SHIFT, _MAX_SHIFT + 1):
            highest = max(highest, _correlation(version, right, shift))
    return highest


def _correlation(left: Floats, right: Floats, shift: int) -> float:
    """Correlates `left` from frame `shift` on with `right`; 0 if one of them is constant.

    Both have mean 0 per band, because their trend was removed.
    """
    left_frames = left[max(0, shift) :]
    right_frames = right[max(0, -shift) :]
    n_frames = min(len(left_frames), len(right_frames))
    x = left_frames[:n_frames].ravel()
    y = right_frames[:n_frames].ravel()
    scale = float(np.sqrt(np.dot(x, x)) * np.sqrt(np.dot(y, y)))
    return float(np.dot(x, y)) / scale if scale > 1e-6 else 0.0


def find_recordings(mels: Path, previous: pl.DataFrame | None, hop_s: float) -> pl.DataFrame:
    """Returns (track_id, mel_sha256, recording) of every track in `mels/`, sorted by id.

    recording: smallest id of the tracks that `near_duplicates` connects, also over several pairs.
    previous: an earlier result; only tracks that are new or have changed since are compared.
    hop_s: seconds between frames. Cost: as `near_duplicates`, or none if no track has changed.
    """
    if not (mels / MANIFEST).exists():
        return pl.DataFrame(schema=RECORDINGS_SCHEMA)
    store = FeatureStore(mels)
    rows = [(track_id, store.sha256(track_id)) for track_id in store.track_ids]
    schema = {TRACK_ID: pl.String, MEL_SHA256: pl.String}
    tracks = pl.DataFrame(rows, schema, orient="row")
    if previous is None:
        previous = pl.DataFrame(schema=RECORDINGS_SCHEMA)
    previous = previous.select(list(RECORDINGS_SCHEMA))
    tracks = tracks.join(previous, on=list(schema), how="left", maintain_order="left")
    new_ids = tracks.filter(pl.col(RECORDING).is_null())[TRACK_ID].to_list()
    pairs = near_duplicates(store, new_ids, hop_s=hop_s)
    recordings = merge_recordings(tracks[TRACK_ID], tracks[RECORDING], pairs)
    return tracks.with_columns(pl.Series(RECORDING, recordings, dtype=pl.String))


def merge_recordings(track_ids: pl.Series, recordings: pl.Series, pairs: pl.DataFrame) -> list[str]:
    """Returns the recording of each track: the smallest id of the tracks connected with it.

    recordings: earlier recording of each track, null for a new one; tracks with the same one are
        connected. pairs: connected tracks, columns track_id and other_id.
    """
    if not len(track_ids):
        return []
    row_of = {track_id: row for row, track_id in enumerate(track_ids)}
    edges = [(0, 0)]  # so that the array below has two columns where no tracks are connected
    for left_id, right_id in pairs.select(TRACK_ID, OTHER_ID).iter_rows():
        edges.append((row_of[left_id], row_of[right_id]))
    first_row: dict[str, int] = {}
    for row, recording in enumerate(recordings):
        if recording is not None:
            edges.append((first_row.setdefault(recording, row), row))
    rows, columns = np.array(edges).T
    graph = coo_matrix((np.ones(len(edges)), (rows, columns)), shape=(len(row_of), len(row_of)))
    _, components = connected_components(graph, directed=False)
    smallest = pl.DataFrame({"component": components, TRACK_ID: track_ids})
    return smallest.select(pl.col(TRACK_ID).min().over("component")).to_series().to_list()
