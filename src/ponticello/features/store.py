"""Prepared frames, read in place. How they are made: `prepare`; how the files look: `shards`.

Dimensions: T frames, F numbers a frame.

The files of prepared mels: log-mel spectrograms at rest, as float16 in memory-mapped shards.

    mels/
      manifest.parquet   one row a track: shard, first row, frames, hash, and the source it was made
      from shard-00000.npy    (frames of many tracks, F) float16 ...

A shard is never changed once it is there; the manifest is replaced whole and holds its own hash.
Dimensions: T frames, F mel bands.
"""

import hashlib
import tokenize
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ponticello.errors import DataError, LibraryError
from ponticello.storage.files import atomic_write

Features = NDArray[np.float16]

MANIFEST = "manifest.parquet"
MANIFEST_SCHEMA = {
    "track_id": pl.String(),
    "shard": pl.Int64(),
    "start": pl.Int64(),  # first row in the shard
    "n_frames": pl.Int64(),
    "sha256": pl.String(),  # hex, of the track's float16 bytes
    "source": pl.String(),  # path as given
    "source_size": pl.Int64(),  # bytes
    "source_mtime_ns": pl.Int64(),
    "mel_key": pl.String(),
}
PREPARE = "ponticello prepare"
AGAIN = f"run: {PREPARE}"
_ARROW = {pl.Int64(): pa.int64(), pl.String(): pa.large_string()}
_ARROW_SCHEMA = pa.schema([(name, _ARROW[kind]) for name, kind in MANIFEST_SCHEMA.items()])
_OWN_HASH = b"sha256"  # of all rows, among the Parquet file's metadata


def read_manifest(folder: Path) -> pl.DataFrame:
    """The manifest of a `mels` folder; LibraryError if it is missing or damaged."""
    path = folder / MANIFEST
    if not path.exists():
        raise LibraryError(
            f"{folder} holds no prepared mels ({MANIFEST} is missing)",
            code="not_prepared",
            remedy=PREPARE,
        )
    try:  # all by pyarrow: polars panics at some damaged files
        table = pq.read_table(path)
        table.validate(full=True)
        manifest = pl.DataFrame(pl.from_arrow(table.cast(_ARROW_SCHEMA)))
    except (OSError, ValueError, pa.ArrowException):
        table, manifest = pa.table({}), pl.DataFrame()
    written = (table.schema.metadata or {}).get(
        _OWN_HASH
    )  # none in a manifest that was written before it held one
    if manifest.schema != pl.Schema(MANIFEST_SCHEMA) or written not in (None, _hash_rows(manifest)):
        raise LibraryError(f"{path} is damaged; delete it", code="not_prepared", remedy=PREPARE)
    return manifest


def write_manifest(folder: Path, manifest: pl.DataFrame) -> None:
    """Replaces the manifest of a `mels` folder."""
    table = manifest.to_arrow().replace_schema_metadata({_OWN_HASH: _hash_rows(manifest)})
    with atomic_write(folder / MANIFEST) as temporary:
        pq.write_table(table, temporary)


def _hash_rows(manifest: pl.DataFrame) -> bytes:
    return hashlib.sha256(manifest.write_csv(include_header=False).encode()).hexdigest().encode()


def write_shard(folder: Path, mels: Sequence[Features]) -> int:
    """Publishes mels, each (T, F), one after the other in a new shard, and gives its number."""
    number = 1 + max(_shard_numbers(folder), default=-1)
    shape = (sum(map(len, mels)), mels[0].shape[1])
    with atomic_write(_shard_path(folder, number)) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "<f2", "fortran_order": False, "shape": shape}
        )
        for mel in mels:
            file.write(np.ascontiguousarray(mel, dtype="<f2").data)
    return number


def adopt_shard(source: Path, number: int, folder: Path) -> int:
    """Moves a shard of another folder, on the same file system, to `folder`, and gives its number
    there.
    """
    own = 1 + max(_shard_numbers(folder), default=-1)
    _shard_path(source, number).rename(_shard_path(folder, own))
    return own


def open_shard(folder: Path, number: int) -> Features:
    """A shard's rows: (frames, F) float16, read-only and in place; LibraryError if it is missing or
    damaged.
    """
    try:
        shard = np.load(_shard_path(folder, number), mmap_mode="r", allow_pickle=False)
    except (
        OSError,
        ValueError,
        EOFError,
        SyntaxError,
        TypeError,
        tokenize.TokenError,
    ):  # the last three: its header
        raise damaged_error(folder, number) from None
    if not isinstance(shard, np.memmap) or shard.dtype != "<f2" or shard.ndim != 2:
        raise damaged_error(folder, number)
    return shard.view(np.ndarray)


def remove_unnamed_shards(folder: Path, manifest: pl.DataFrame) -> None:
    """Deletes the shards that no row of the manifest names."""
    for number in set(_shard_numbers(folder)) - set(manifest["shard"]):
        _shard_path(folder, number).unlink()


def damaged_error(folder: Path, number: int) -> LibraryError:
    """The error for a shard that cannot be read."""
    return LibraryError(
        f"{_shard_path(folder, number)} is missing or damaged; delete it",
        code="not_prepared",
        remedy=PREPARE,
    )


def hash_features(mel: Features) -> str:
    """The SHA-256 of a mel's bytes, in hex."""
    return hashlib.sha256(np.ascontiguousarray(mel, dtype="<f2").data).hexdigest()


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _shard_numbers(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("shard-")) for path in folder.glob("shard-*.npy")]


BY_WEIGHTS = " @ "  # in a key: what follows names the weights that the frames were made with


class FeatureStore:
    """The prepared frames of a library's `mels` or `frames` folder, read in place. Can be sent to
    other processes.

    track_ids: sorted.

    Raises LibraryError if nothing was prepared or a file of the store is damaged; reading a track
    that is not there is a DataError.

        >>> store = FrameStore(folder.mels)
        >>> store.read(store.track_ids[0]).shape
        (1251, 128)
    """

    def __init__(self, place: Path) -> None:
        self._folder = Path(place)
        manifest = read_manifest(self._folder).sort("track_id")
        self.track_ids: list[str] = manifest["track_id"].to_list()
        self._row_of = {track_id: row for row, track_id in enumerate(self.track_ids)}
        self._places: NDArray[np.int64] = manifest.select(
            "shard", "start", "n_frames"
        ).to_numpy()  # (tracks, 3)
        self._hashes: list[str] = manifest["sha256"].to_list()
        self._keys = set(manifest["mel_key"])
        self._shards: dict[int, Features] = {}
        self._is_checked = np.zeros(len(self.track_ids), dtype=bool)

    def __getstate__(self) -> dict[str, object]:
        return {
            **self.__dict__,
            "_shards": {},
        }  # a memory map would travel as a copy of the whole shard

    def __len__(self) -> int:
        return len(self.track_ids)

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._row_of

    @property
    def frame_size(self) -> int:
        """F, numbers a frame; LibraryError if there are no frames."""
        if not self._hashes:
            raise LibraryError(
                f"{self._folder.name} were prepared from no track yet",
                code="not_prepared",
                remedy=PREPARE,
            )
        return int(self.read(self.track_ids[0]).shape[1])

    @property
    def weights(self) -> str:
        """Which weights the frames were made with, where their key says so (`key @ weights`); else
        "".
        """
        return next(iter(self._keys), "").partition(BY_WEIGHTS)[2]

    def require(self, key: str) -> None:
        """LibraryError unless there are frames and all were prepared under this key
        (`ExtractionJob.key`).

        A key without weights asks for none: frames made with any, but all with the same, will do.
        """
        if self._keys != {key} and not (
            len(self._keys) == 1 and min(self._keys).startswith(key + BY_WEIGHTS)
        ):
            found = "with other settings" if self._keys else "from no track yet"
            raise LibraryError(
                f"{self._folder.name} were prepared {found}; {AGAIN}, with the settings the model was made with",
                code="not_prepared",
            )

    def n_frames(self, track_id: str) -> int:
        """T of the track's frames."""
        return int(self._places[self._row(track_id), 2])

    def sha256(self, track_id: str) -> str:
        """The hash of the track's float16 bytes, in hex, as it was when they were written."""
        return self._hashes[self._row(track_id)]

    def read(self, track_id: str) -> Features:
        """The track's frames: (T, F) float16 (log-mels in dB), a read-only view of the file.

        LibraryError if they are not what was written. Cost: the hash, when a track is first read,
        at 1 to 2 GB/s.
        """
        row = self._row(track_id)
        mel = self._frames(row)
        if not self._is_checked[row]:
            if hash_features(mel) != self._hashes[row]:
                raise damaged_error(self._folder, int(self._places[row, 0]))
            self._is_checked[row] = True
        return mel

    def _frames(self, row: int) -> Features:
        shard, start, n_frames = (int(place) for place in self._places[row])
        if shard not in self._shards:
            self._shards[shard] = open_shard(self._folder, shard)
        mel = self._shards[shard][start : start + n_frames]
        if len(mel) != n_frames:
            raise damaged_error(self._folder, shard)
        return mel

    def verify(self) -> list[str]:
        """The ids of tracks whose bytes are not what was written, sorted. Reads everything."""
        return [track_id for track_id in self.track_ids if not self.is_whole(track_id)]

    def is_whole(self, track_id: str) -> bool:
        """Whether a track's bytes are what was written."""
        try:
            return hash_features(self._frames(self._row(track_id))) == self.sha256(track_id)
        except LibraryError:
            return False

    def _row(self, track_id: str) -> int:
        if track_id not in self._row_of:
            raise DataError(
                f"track {track_id!r} has no prepared frames; {AGAIN}, and see skipped.csv",
                code="not_prepared",
            )
        return self._row_of[track_id]


class PooledFeatures:
    """A store whose tracks are their mean frame each, (1, F) float32, kept in memory once read.

    For what only sees a track's mean: the tower over a frozen front end.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.frame_size, self.weights = store.frame_size, store.weights
        self._means: dict[str, NDArray[np.float32]] = {}
        self.track_ids = store.track_ids

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._store

    def read(self, track_id: str) -> NDArray[np.float32]:
        """(1, F) float32; DataError as `FeatureStore.read`."""
        if track_id not in self._means:
            mean = self._store.read(track_id).mean(axis=0, dtype=np.float64, keepdims=True)
            self._means[track_id] = mean.astype(np.float32)
        return self._means[track_id]
