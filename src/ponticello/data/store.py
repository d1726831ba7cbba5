"""Prepared frames, read in place. How they are made: `prepare`; how the files look: `shards`.

Dimensions: T frames, F numbers a frame.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ponticello.data.shards import AGAIN, Mel, damaged, hash_mel, open_shard, read_manifest
from ponticello.errors import DataError, LibraryError

BY_WEIGHTS = " @ "  # in a key: what follows names the weights that the frames were made with


class FrameStore:
    """The prepared frames of a library's `mels` or `frames` folder, read in place. Can be sent to other processes.

    track_ids: sorted.

    Raises LibraryError if nothing was prepared or a file of the store is damaged; reading a track that is not there
    is a DataError.

        >>> store = FrameStore(folder.mels)
        >>> store.read(store.track_ids[0]).shape
        (1251, 128)
    """

    def __init__(self, place: Path) -> None:
        self._folder = Path(place)
        manifest = read_manifest(self._folder).sort("track_id")
        self.track_ids: list[str] = manifest["track_id"].to_list()
        self._row_of = {track_id: row for row, track_id in enumerate(self.track_ids)}
        self._places: NDArray[np.int64] = manifest.select("shard", "start", "n_frames").to_numpy()  # (tracks, 3)
        self._hashes: list[str] = manifest["sha256"].to_list()
        self._keys = set(manifest["mel_key"])
        self._shards: dict[int, Mel] = {}
        self._is_checked = np.zeros(len(self.track_ids), dtype=bool)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_shards": {}}  # a memory map would travel as a copy of the whole shard

    def __len__(self) -> int:
        return len(self.track_ids)

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._row_of

    @property
    def frame_size(self) -> int:
        """F, numbers a frame; LibraryError if there are no frames."""
        if not self._hashes:
            raise LibraryError(f"{self._folder.name} were prepared from no track yet; {AGAIN}")
        return int(self.read(self.track_ids[0]).shape[1])

    @property
    def weights(self) -> str:
        """Which weights the frames were made with, where their key says so (`key @ weights`); else ""."""
        return next(iter(self._keys), "").partition(BY_WEIGHTS)[2]

    def require(self, key: str) -> None:
        """LibraryError unless there are frames and all were prepared under this key (`FrontEnd.key`).

        A key without weights asks for none: frames made with any, but all with the same, will do.
        """
        if self._keys != {key} and not (len(self._keys) == 1 and min(self._keys).startswith(key + BY_WEIGHTS)):
            found = "with other settings" if self._keys else "from no track yet"
            raise LibraryError(
                f"{self._folder.name} were prepared {found}; {AGAIN}, with the settings the model was made with"
            )

    def n_frames(self, track_id: str) -> int:
        """T of the track's frames."""
        return int(self._places[self._row(track_id), 2])

    def sha256(self, track_id: str) -> str:
        """The hash of the track's float16 bytes, in hex, as it was when they were written."""
        return self._hashes[self._row(track_id)]

    def read(self, track_id: str) -> Mel:
        """The track's frames: (T, F) float16 (log-mels in dB), a read-only view of the file.

        LibraryError if they are not what was written. Cost: the hash, when a track is first read, at 1 to 2 GB/s.
        """
        row = self._row(track_id)
        mel = self._frames(row)
        if not self._is_checked[row]:
            if hash_mel(mel) != self._hashes[row]:
                raise damaged(self._folder, int(self._places[row, 0]))
            self._is_checked[row] = True
        return mel

    def _frames(self, row: int) -> Mel:
        shard, start, n_frames = (int(place) for place in self._places[row])
        if shard not in self._shards:
            self._shards[shard] = open_shard(self._folder, shard)
        mel = self._shards[shard][start : start + n_frames]
        if len(mel) != n_frames:
            raise damaged(self._folder, shard)
        return mel

    def verify(self) -> list[str]:
        """The ids of tracks whose bytes are not what was written, sorted. Reads everything."""
        return [track_id for track_id in self.track_ids if not self.is_whole(track_id)]

    def is_whole(self, track_id: str) -> bool:
        """Whether a track's bytes are what was written."""
        try:
            return hash_mel(self._frames(self._row(track_id))) == self.sha256(track_id)
        except LibraryError:
            return False

    def _row(self, track_id: str) -> int:
        if track_id not in self._row_of:
            raise DataError(f"track {track_id!r} has no prepared frames; {AGAIN}, and see skipped.csv")
        return self._row_of[track_id]


class PooledFrames:
    """A store whose tracks are their mean frame each, (1, F) float32, kept in memory once read.

    For what only sees a track's mean: the tower over a frozen front end.
    """

    def __init__(self, store: FrameStore) -> None:
        self._store = store
        self.frame_size, self.weights = store.frame_size, store.weights
        self._means: dict[str, NDArray[np.float32]] = {}
        self.track_ids = store.track_ids

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._store

    def read(self, track_id: str) -> NDArray[np.float32]:
        """(1, F) float32; DataError as `FrameStore.read`."""
        if track_id not in self._means:
            mean = self._store.read(track_id).mean(axis=0, dtype=np.float64, keepdims=True)
            self._means[track_id] = mean.astype(np.float32)
        return self._means[track_id]
