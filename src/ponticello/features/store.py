"""Stores features on disk, as float16 shards in files that are read in place (memory-mapped).

    mels/
      manifest.parquet        one row per track: shard, first row, frames, hash, source file, key
      shard-00000.npy         (frames of many tracks, F) float16
      shard-00001.npy

A shard never changes once it is written. The manifest is replaced as a whole and contains a hash
of its own rows.
Dimensions: T frames of a track, F numbers per frame (mel bands, where the features are log-mels).
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
FEATURES_KEY = "features_key"
MANIFEST_SCHEMA = {
    "track_id": pl.String(),
    "shard": pl.Int64(),
    "start": pl.Int64(),  # first row in the shard
    "n_frames": pl.Int64(),
    "sha256": pl.String(),  # hex, of the track's float16 bytes
    "source": pl.String(),  # path of the file
    "source_size": pl.Int64(),  # bytes
    "source_mtime_ns": pl.Int64(),
    FEATURES_KEY: pl.String(),
}
WEIGHTS_SEPARATOR = " @ "  # in a key, before the hash of the encoder's weights
_PREPARE = "ponticello prepare"
_ARROW_TYPES = {pl.Int64(): pa.int64(), pl.String(): pa.large_string()}
_ARROW_SCHEMA = pa.schema([(name, _ARROW_TYPES[kind]) for name, kind in MANIFEST_SCHEMA.items()])
_ROWS_HASH = b"sha256"  # key in the metadata of the Parquet file


def read_manifest(folder: Path) -> pl.DataFrame:
    """Returns the manifest of a features folder; LibraryError if it is missing or damaged."""
    path = folder / MANIFEST
    if not path.exists():
        raise _not_prepared(f"{folder} holds no prepared features ({MANIFEST} is missing)")
    damaged = _not_prepared(f"{path} is damaged; delete it")
    try:  # with pyarrow, because polars panics on some damaged files
        table = pq.read_table(path)
        table.validate(full=True)
        manifest = pl.DataFrame(pl.from_arrow(table.cast(_ARROW_SCHEMA)))
    except (OSError, ValueError, pa.ArrowException):
        raise damaged from None
    if (table.schema.metadata or {}).get(_ROWS_HASH) != _hash_rows(manifest):
        raise damaged
    return manifest


def write_manifest(folder: Path, manifest: pl.DataFrame) -> None:
    """Replaces the manifest of a features folder."""
    table = manifest.to_arrow().replace_schema_metadata({_ROWS_HASH: _hash_rows(manifest)})
    with atomic_write(folder / MANIFEST) as temporary:
        pq.write_table(table, temporary)


def _hash_rows(manifest: pl.DataFrame) -> bytes:
    return hashlib.sha256(manifest.write_csv(include_header=False).encode()).hexdigest().encode()


def write_shard(folder: Path, tracks: Sequence[Features]) -> int:
    """Writes the features of tracks, (T, F) each, to a new shard; returns its number."""
    number = _next_shard_number(folder)
    n_frames = sum(len(features) for features in tracks)
    header = {"descr": "<f2", "fortran_order": False, "shape": (n_frames, tracks[0].shape[1])}
    with atomic_write(_shard_path(folder, number)) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for features in tracks:
            file.write(_little_endian(features).data)
    return number


def adopt_shard(source: Path, number: int, folder: Path) -> int:
    """Moves a shard from the folder `source` to `folder`; returns its new number.

    Both folders must be on the same file system.
    """
    new_number = _next_shard_number(folder)
    _shard_path(source, number).rename(_shard_path(folder, new_number))
    return new_number


def open_shard(folder: Path, number: int) -> Features:
    """Returns the rows of a shard, (frames, F), as a read-only memory map.

    Raises LibraryError if it is missing or damaged.
    """
    try:
        shard = np.load(_shard_path(folder, number), mmap_mode="r", allow_pickle=False)
    # The last three are errors of the header, which numpy parses as Python source.
    except (OSError, ValueError, EOFError, SyntaxError, TypeError, tokenize.TokenError):
        raise _damaged_shard_error(folder, number) from None
    if not isinstance(shard, np.memmap) or shard.dtype != "<f2" or shard.ndim != 2:
        raise _damaged_shard_error(folder, number)
    return shard.view(np.ndarray)


def remove_unnamed_shards(folder: Path, manifest: pl.DataFrame) -> None:
    """Deletes the shards that the manifest does not name."""
    for number in set(_shard_numbers(folder)) - set(manifest["shard"]):
        _shard_path(folder, number).unlink()


def hash_features(features: Features) -> str:
    """Returns the SHA-256 of the bytes of features, in hex."""
    return hashlib.sha256(_little_endian(features).data).hexdigest()


def _little_endian(features: Features) -> Features:
    return np.ascontiguousarray(features, dtype="<f2")


def _damaged_shard_error(folder: Path, number: int) -> LibraryError:
    return _not_prepared(f"{_shard_path(folder, number)} is missing or damaged; delete it")


def _not_prepared(message: str) -> LibraryError:
    return LibraryError(message, code="not_prepared", remedy=_PREPARE)


def _shard_path(folder: Path, number: int) -> Path:
    return folder / f"shard-{number:05d}.npy"


def _shard_numbers(folder: Path) -> list[int]:
    return [int(path.stem.removeprefix("shard-")) for path in folder.glob("shard-*.npy")]


def _next_shard_number(folder: Path) -> int:
    return 1 + max(_shard_numbers(folder), default=-1)


class FeatureStore:
    """Reads the prepared features of one folder of a library, such as `mels/`, in place.

    track_ids: sorted. A store can be pickled for other processes.

    Raises LibraryError if the folder has no manifest or a file is damaged, and DataError for a
    track without features.

        >>> store = FeatureStore(folder.mels)
        >>> store.read(store.track_ids[0]).shape
        (1251, 128)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = Path(folder)
        manifest = read_manifest(self._folder).sort("track_id")
        self.track_ids: list[str] = manifest["track_id"].to_list()
        self._row_of = {track_id: row for row, track_id in enumerate(self.track_ids)}
        locations = manifest.select("shard", "start", "n_frames")
        self._locations: NDArray[np.int64] = locations.to_numpy()  # (tracks, 3)
        self._hashes: list[str] = manifest["sha256"].to_list()
        self._keys = set(manifest[FEATURES_KEY])
        self._shards: dict[int, Features] = {}
        self._is_checked = np.zeros(len(self.track_ids), dtype=bool)

    def __getstate__(self) -> dict[str, object]:
        state = dict(self.__dict__)
        state["_shards"] = {}  # a memory map would be pickled as a copy of the whole shard
        return state

    def __len__(self) -> int:
        return len(self.track_ids)

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._row_of

    @property
    def frame_size(self) -> int:
        """F, the numbers per frame; LibraryError if the store is empty."""
        if not self.track_ids:
            raise _not_prepared(f"{self._folder.name} were prepared from no track yet")
        return int(self.read(self.track_ids[0]).shape[1])

    @property
    def weights(self) -> str:
        """Hash of the encoder weights in the store's key (`key @ weights`); "" if it has none."""
        return next(iter(self._keys), "").partition(WEIGHTS_SEPARATOR)[2]

    def require(self, key: str) -> None:
        """Raises LibraryError unless there are features and all were prepared with this key.

        key: `ExtractionJob.key`. A key without weights accepts any weights, but the same ones for
            all tracks.
        """
        if self._keys == {key}:
            return
        if len(self._keys) == 1 and min(self._keys).startswith(key + WEIGHTS_SEPARATOR):
            return
        problem = "with other settings" if self._keys else "from no track yet"
        raise LibraryError(
            f"{self._folder.name} were prepared {problem}; run: {_PREPARE}, with the settings the "
            "model was made with",
            code="not_prepared",
        )

    def n_frames(self, track_id: str) -> int:
        """Returns T of the track's features."""
        return int(self._locations[self._row(track_id), 2])

    def sha256(self, track_id: str) -> str:
        """Returns the hash of the track's bytes at the time of writing, in hex."""
        return self._hashes[self._row(track_id)]

    def read(self, track_id: str) -> Features:
        """Returns the track's features, (T, F) float16, as a read-only view of the file.

        Raises LibraryError if the bytes differ from those written. Cost: at the first read of a
        track its hash, at 1 to 2 GB/s.
        """
        row = self._row(track_id)
        features = self._map_rows(row)
        if not self._is_checked[row]:
            if hash_features(features) != self._hashes[row]:
                raise _damaged_shard_error(self._folder, int(self._locations[row, 0]))
            self._is_checked[row] = True
        return features

    def _map_rows(self, row: int) -> Features:
        shard, start, n_frames = self._locations[row].tolist()
        if shard not in self._shards:
            self._shards[shard] = open_shard(self._folder, shard)
        features = self._shards[shard][start : start + n_frames]
        if len(features) != n_frames:
            raise _damaged_shard_error(self._folder, shard)
        return features

    def verify(self) -> list[str]:
        """Returns the sorted ids of tracks with damaged bytes. Reads every shard."""
        return [track_id for track_id in self.track_ids if not self.is_intact(track_id)]

    def is_intact(self, track_id: str) -> bool:
        """Returns whether a track's bytes are those that were written."""
        row = self._row(track_id)
        try:
            return hash_features(self._map_rows(row)) == self._hashes[row]
        except LibraryError:
            return False

    def _row(self, track_id: str) -> int:
        if track_id not in self._row_of:
            raise DataError(
                f"track {track_id!r} has no prepared features; run: {_PREPARE}, and see "
                "skipped.csv",
                code="not_prepared",
            )
        return self._row_of[track_id]


class PooledFeatures:
    """A store of the mean frame of each track, (1, F) float32, cached in memory.

    For the adapter over a frozen front end, which reads only the mean.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.frame_size = store.frame_size
        self.weights = store.weights
        self.track_ids = store.track_ids
        self._means: dict[str, NDArray[np.float32]] = {}

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._store

    def read(self, track_id: str) -> NDArray[np.float32]:
        """Returns (1, F) float32; errors as `FeatureStore.read`."""
        if track_id not in self._means:
            mean = self._store.read(track_id).mean(axis=0, dtype=np.float64, keepdims=True)
            self._means[track_id] = mean.astype(np.float32)
        return self._means[track_id]
