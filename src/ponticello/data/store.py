"""Prepared mels: made once from the audio files, resumed where they stopped, read in place.

Dimensions: T frames, F mel bands. How the files look: `shards`.
"""

import hashlib
import multiprocessing
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray

from ponticello.config import MelConfig
from ponticello.data.mel import mel_of_file
from ponticello.data.shards import (
    AGAIN,
    MANIFEST,
    SCHEMA,
    Mel,
    damaged,
    hash_mel,
    open_shard,
    read_manifest,
    remove_unnamed_shards,
    write_manifest,
    write_shard,
)
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.library import Folder, Skipped

_RECIPE = 1  # raise it when `mel_of_file` gives other numbers for the same settings
_SHARD_BYTES = 256 * 2**20  # held in memory until the shard is published
_SHARD_TRACKS = 1000  # what a killed run can lose
_CHUNK_TRACKS = 8  # sent to a worker at once
_CHUNKS_A_WORKER = 4  # under way at once, so that memory stays flat


@dataclass(frozen=True)
class Prepared:
    """What `prepare_mels` did, in tracks. `n_removed` had mels but are no longer among the sources."""

    n_new: int
    n_kept: int
    n_removed: int
    skipped: list[Skipped]


@dataclass(frozen=True)
class _Source:
    """A file to prepare, as it was when it was looked at."""

    track_id: str
    path: Path
    size: int
    mtime_ns: int


def mel_key(config: MelConfig) -> str:
    """16 hex digits that change whenever the numbers in a mel would."""
    settings = config.model_dump_json(exclude={"released_padding"})  # acts after the mel, on the batch
    return hashlib.sha256(f"{_RECIPE} {settings}".encode()).hexdigest()[:16]


def prepare_mels(
    folder: Folder,
    sources: Mapping[str, Path],
    *,
    workers: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Brings `folder.mels` in line with `sources` (track_id -> audio file), and says what that took.

    The caller holds `folder.lock()`. Only tracks without a mel, with a changed file (size or time) or with other mel
    settings are decoded; a prepared track whose file has gone keeps its mel. A file that cannot be decoded is skipped,
    and listed in skipped.csv under "prepare". Tracks that are not in `sources` lose their mel.
    Finished tracks are published a shard at a time and when an error ends the run; running again resumes.

    workers: processes; each track's bytes are the same for any number. ConfigError below 1.
    on_progress: called after each track with (done, to do).

    Raises DataError when a worker process dies, LibraryError for a damaged manifest.
    Cost: about 1/300 of the sound's length a core; 256 MB of memory and some MB a worker.
    """
    if workers < 1:
        raise ConfigError(f"workers must be at least 1; found {workers}")
    config = folder.config.mel
    folder.mels.mkdir(parents=True, exist_ok=True)
    for leftover in folder.mels.glob(".*.tmp"):
        leftover.unlink()
    if not (folder.mels / MANIFEST).exists():
        write_manifest(folder.mels, pl.DataFrame(schema=SCHEMA))
    known = read_manifest(folder.mels)
    kept, todo = _plan(folder.mels, known, sources, mel_key(config))
    if len(kept) < len(known):
        write_manifest(folder.mels, kept)
    remove_unnamed_shards(folder.mels, kept)
    writer = _ShardWriter(folder.mels, kept, mel_key(config))
    skipped: list[Skipped] = []
    try:
        with closing(_decode(todo, config, workers)) as mels:
            for n_done, (source, mel) in enumerate(zip(todo, mels, strict=True), start=1):
                if isinstance(mel, str):
                    skipped.append(Skipped(str(source.path), None, "path", source.track_id, mel))
                else:
                    writer.add(source, mel)
                if on_progress is not None:
                    on_progress(n_done, len(todo))
    finally:
        writer.publish()
    folder.record_skipped("prepare", skipped)
    n_removed = sum(track_id not in sources for track_id in known["track_id"])
    return Prepared(len(todo) - len(skipped), len(kept), n_removed, skipped)


def _plan(
    folder: Path, known: pl.DataFrame, sources: Mapping[str, Path], key: str
) -> tuple[pl.DataFrame, list[_Source]]:
    """The manifest rows that still hold, and the files to decode."""
    fresh = known.filter(pl.col("mel_key") == key)
    for number, ends in fresh.group_by("shard").agg((pl.col("start") + pl.col("n_frames")).max()).iter_rows():
        if not _has_rows(folder, number, ends):
            fresh = fresh.filter(pl.col("shard") != number)
    columns = fresh.select("track_id", "source_size", "source_mtime_ns").iter_rows()
    prepared = {track_id: (size, mtime_ns) for track_id, size, mtime_ns in columns}
    kept: set[str] = set()
    todo: list[_Source] = []
    for track_id, path in sources.items():
        stamp = _stamp(path)
        if track_id in prepared and stamp in (None, prepared[track_id]):
            kept.add(track_id)
        else:
            todo.append(_Source(track_id, path, *(stamp or (0, 0))))
    return fresh.filter(pl.col("track_id").is_in(list(kept))), todo


def _has_rows(folder: Path, shard: int, n_rows: int) -> bool:
    try:
        return len(open_shard(folder, shard)) >= n_rows
    except LibraryError:
        return False


def _stamp(path: Path) -> tuple[int, int] | None:
    """Size in bytes and modification time in ns; None if the file is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def _decode(todo: Sequence[_Source], config: MelConfig, workers: int) -> Generator[Mel | str]:
    """In the order of `todo`, each file's mel, or the reason why there is none."""
    if workers == 1 or len(todo) <= 1:
        for source in todo:
            yield _mel_or_reason(source.path, config)
        return
    chunks = [todo[start : start + _CHUNK_TRACKS] for start in range(0, len(todo), _CHUNK_TRACKS)]
    # spawn: a forked child of a process that runs threads (torch's, polars') may hang.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(workers, len(chunks)), mp_context=context, initializer=torch.set_num_threads, initargs=(1,)
    )
    try:
        under_way: deque[Future[list[Mel | str]]] = deque()
        for n_done in range(len(chunks)):
            while n_done + len(under_way) < len(chunks) and len(under_way) < workers * _CHUNKS_A_WORKER:
                paths = [source.path for source in chunks[n_done + len(under_way)]]
                under_way.append(pool.submit(_mels_or_reasons, paths, config))
            try:
                yield from under_way.popleft().result()
            except BrokenProcessPool:
                raise DataError(
                    f"a worker process died at or shortly after {chunks[n_done][0].path} (no memory left, or a file "
                    f"that crashes its decoder); the finished tracks are kept, {AGAIN} with fewer workers"
                ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _mels_or_reasons(paths: Sequence[Path], config: MelConfig) -> list[Mel | str]:
    return [_mel_or_reason(path, config) for path in paths]


def _mel_or_reason(path: Path, config: MelConfig) -> Mel | str:
    try:
        return mel_of_file(path, config)
    except DataError as error:
        return str(error)


class _ShardWriter:
    """Collects mels, and publishes them as shards that the manifest then names."""

    def __init__(self, folder: Path, kept: pl.DataFrame, key: str) -> None:
        self._folder, self._manifest, self._key = folder, kept, key
        self._pending: list[tuple[_Source, Mel]] = []
        self._n_bytes = 0

    def add(self, source: _Source, mel: Mel) -> None:
        self._pending.append((source, mel))
        self._n_bytes += mel.nbytes
        if self._n_bytes >= _SHARD_BYTES or len(self._pending) >= _SHARD_TRACKS:
            self.publish()

    def publish(self) -> None:
        """First the shard, then the manifest that names it."""
        if self._pending:
            number = write_shard(self._folder, [mel for _, mel in self._pending])
            self._manifest = pl.concat([self._manifest, self._rows(number)])
            write_manifest(self._folder, self._manifest)
            self._pending, self._n_bytes = [], 0

    def _rows(self, shard: int) -> pl.DataFrame:
        rows, start = [], 0
        for source, mel in self._pending:
            file = (str(source.path), source.size, source.mtime_ns)
            rows.append((source.track_id, shard, start, len(mel), hash_mel(mel), *file, self._key))
            start += len(mel)
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")


class MelStore:
    """The prepared mels of a library's `mels` folder, read in place. Can be sent to other processes.

    track_ids: sorted.

    Raises LibraryError if nothing was prepared or a file of the store is damaged; reading a track that is not there
    is a DataError.

        >>> store = MelStore(folder.mels)
        >>> store.read(store.track_ids[0]).shape
        (1251, 128)
    """

    def __init__(self, folder_mels: Path) -> None:
        self._folder = Path(folder_mels)
        manifest = read_manifest(self._folder).sort("track_id")
        self.track_ids: list[str] = manifest["track_id"].to_list()
        self._row_of = {track_id: row for row, track_id in enumerate(self.track_ids)}
        self._places: NDArray[np.int64] = manifest.select("shard", "start", "n_frames").to_numpy()  # (tracks, 3)
        self._hashes: list[str] = manifest["sha256"].to_list()
        self._keys = set(manifest["mel_key"])
        self._shards: dict[int, Mel] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_shards": {}}  # a memory map would travel as a copy of the whole shard

    def __len__(self) -> int:
        return len(self.track_ids)

    def __contains__(self, track_id: object) -> bool:
        return track_id in self._row_of

    def require(self, config: MelConfig) -> None:
        """LibraryError unless there are mels and all were prepared with these settings."""
        if self._keys != {mel_key(config)}:
            found = "with other [mel] settings" if self._keys else "from no track yet"
            raise LibraryError(f"mels were prepared {found}; {AGAIN}, with the settings the model was made with")

    def n_frames(self, track_id: str) -> int:
        """T of the track's mel."""
        return int(self._places[self._row(track_id), 2])

    def sha256(self, track_id: str) -> str:
        """The hash of the track's float16 bytes, in hex, as it was when they were written."""
        return self._hashes[self._row(track_id)]

    def read(self, track_id: str) -> Mel:
        """The track's mel: (T, F) float16 in dB, a read-only view of the file."""
        shard, start, n_frames = (int(place) for place in self._places[self._row(track_id)])
        if shard not in self._shards:
            self._shards[shard] = open_shard(self._folder, shard)
        mel = self._shards[shard][start : start + n_frames]
        if len(mel) != n_frames:
            raise damaged(self._folder, shard)
        return mel

    def verify(self) -> list[str]:
        """The ids of tracks whose bytes are not what was written, sorted. Reads everything."""
        return [track_id for track_id in self.track_ids if not self._is_whole(track_id)]

    def _is_whole(self, track_id: str) -> bool:
        try:
            return hash_mel(self.read(track_id)) == self.sha256(track_id)
        except LibraryError:
            return False

    def _row(self, track_id: str) -> int:
        if track_id not in self._row_of:
            raise DataError(f"track {track_id!r} has no prepared mel; {AGAIN}, and see skipped.csv")
        return self._row_of[track_id]
