"""Preparing frames: once from the audio files, resumed where it stopped.

A library keeps log-mels in `mels/`, and beside them what another front end makes of the sound in
`frames/`.
Dimensions: T frames, F numbers a frame. How the files look: `shards`.

Preparing on many machines: each job does its part of the tracks in a folder of its own, and a last
call adopts them.

    mels/part-2-of-4/      what job 2 of 4 made: shards and a manifest, as in mels/ itself
      finished             once it has ended: the key of the settings it was made with

Jobs share nothing they write, so none waits for another. Which tracks a job has hangs on their ids
alone, so that a job that begins late or again has the same ones.
"""

import shutil
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import polars as pl
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from ponticello.audio.decode import load_audio
from ponticello.audio.formats import printable_path
from ponticello.audio.mel import mel_key, mel_of_file
from ponticello.audio.worker_pool import TaskFailure, WorkerPool
from ponticello.config import LimitsConfig, MelConfig
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.features.ray_tasks import Task, run_on_ray
from ponticello.features.store import (
    MANIFEST,
    SCHEMA,
    Mel,
    adopt_shard,
    hash_mel,
    open_shard,
    read_manifest,
    remove_unnamed_shards,
    write_manifest,
    write_shard,
)
from ponticello.storage.layout import LibraryPaths, SkippedRow
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.scan import modified_ns

_SHARD_BYTES = 256 * 2**20  # held in memory until the shard is published
_SHARD_TRACKS = 1000  # what a killed run can lose


@dataclass(frozen=True)
class PrepareResult:
    """What `prepare_frames` did, in tracks. `n_removed` had frames but are no longer among the
    sources.
    """

    n_new: int
    n_kept: int
    n_removed: int
    skipped: list[SkippedRow]


@dataclass(frozen=True)
class Source:
    """A file to prepare, as it was when it was looked at."""

    track_id: str
    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class ExtractionJob:
    """How a track's file becomes frames.

    place: where they are kept. key: changes whenever the numbers would. step: heads its skipped.csv
    lines.
    extract: (T, F) float16 of a file and the id of its track, DataError where there are none;
    picklable, for worker
        processes. finish: turns what `extract` gives into that in this process, where a model is
        too large for many.
    is_safe: nothing that is read could harm this process, so that no other is needed.
    unusable: what is known not to be usable before anything is read.
    """

    place: Path
    key: str
    extract: Callable[[Path, str], Any]
    step: str
    finish: Callable[[Any], Mel] | None = None
    is_safe: bool = False
    unusable: tuple[SkippedRow, ...] = ()


def mel_front_end(folder: LibraryPaths) -> ExtractionJob:
    """The library's log-mels, in `mels/`."""
    config = folder.config.mel
    return ExtractionJob(
        folder.mels, mel_key(config), partial(_mel_of_track, config=config), "prepare"
    )


def _mel_of_track(path: Path, _track_id: str, config: MelConfig) -> Mel:
    return mel_of_file(path, config)


def waveform_of_track(
    path: Path, _track_id: str, sample_rate: int, seconds: float
) -> NDArray[np.float32]:
    """An `extract` that leaves the listening to `ExtractionJob.finish`: the first `seconds`, (n,),
    as `load_audio`.
    """
    return load_audio(path, sample_rate, seconds)


def prepare_frames(
    folder: LibraryPaths,
    sources: Mapping[str, Path],
    front_end: ExtractionJob | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrepareResult:
    """Brings the frames at `front_end.place` in line with `sources` (track_id -> audio file); says
    what that took.

    The caller holds `folder.lock()`. Only tracks without frames, with a changed file (size or time)
    or with another key are decoded; a prepared track whose file has gone keeps its frames. A file
    that cannot be decoded is skipped, and listed in skipped.csv. Tracks that are not in `sources`
    lose their frames. front_end: else the log-mels. Finished tracks are published a shard at a time
    and when an error ends the run; running again resumes.

    workers: processes, in which a file that crashes or hangs its decoder or passes `limits` is
    skipped; each track's
        bytes are the same for any number. None: in this process, for files that one trusts.
        ConfigError below 1.
    on_progress: called after each track with (done, to do).

    Raises DataError when worker processes cannot start, LibraryError for a damaged manifest.
    Cost: about 1/300 of the sound's length a core; 256 MB of memory and 300 MB a worker.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1; found {workers}")
    front_end = front_end or mel_front_end(folder)
    place = front_end.place
    place.mkdir(parents=True, exist_ok=True)
    for leftover in place.glob(".*.tmp"):
        leftover.unlink()
    if not (place / MANIFEST).exists():
        write_manifest(place, pl.DataFrame(schema=SCHEMA))
    known = read_manifest(place)
    kept, todo = plan_frames(place, known, sources, front_end.key)
    if len(kept) < len(known):
        write_manifest(place, kept)
    remove_unnamed_shards(place, kept)
    writer = _ShardWriter(place, kept, front_end.key)
    skipped = list(front_end.unusable)
    try:
        with closing(_decode(todo, front_end, workers, folder.config.limits)) as mels:
            for n_done, (source, mel) in enumerate(zip(todo, mels, strict=True), start=1):
                if isinstance(mel, str):
                    skipped.append(SkippedRow(str(source.path), None, "path", source.track_id, mel))
                else:
                    writer.add(source, mel)
                if on_progress is not None:
                    on_progress(n_done, len(todo))
    finally:
        writer.publish()
    folder.record_skipped(front_end.step, skipped)
    n_removed = sum(track_id not in sources for track_id in known["track_id"])
    n_new = len(todo) - len(skipped) + len(front_end.unusable)
    return PrepareResult(n_new, len(kept), n_removed, skipped)


def plan_frames(
    folder: Path, known: pl.DataFrame, sources: Mapping[str, Path], key: str
) -> tuple[pl.DataFrame, list[Source]]:
    """The manifest rows of `folder` that still hold, and the files to decode. key:
    `ExtractionJob.key`.
    """
    fresh = known.filter(pl.col("mel_key") == key)
    for number, ends in (
        fresh.group_by("shard").agg((pl.col("start") + pl.col("n_frames")).max()).iter_rows()
    ):
        if not _has_rows(folder, number, ends):
            fresh = fresh.filter(pl.col("shard") != number)
    columns = fresh.select("track_id", "source_size", "source_mtime_ns").iter_rows()
    prepared = {track_id: (size, mtime_ns) for track_id, size, mtime_ns in columns}
    kept: set[str] = set()
    todo: list[Source] = []
    for track_id, path in sources.items():
        stamp = _stamp(path)
        if track_id in prepared and stamp in (None, prepared[track_id]):
            kept.add(track_id)
        else:
            todo.append(Source(track_id, path, *(stamp or (0, 0))))
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
    return status.st_size, modified_ns(status)


def _decode(
    todo: Sequence[Source], front_end: ExtractionJob, workers: int | None, limits: LimitsConfig
) -> Generator[Mel | str]:
    """In the order of `todo`, each file's frames, or the reason why there are none."""
    extract = partial(_extracted_or_reason, extract=front_end.extract)
    if workers is None or front_end.is_safe or not todo:
        yield from (_finished_or_reason(extract(source), front_end) for source in todo)
        return
    pool: WorkerPool[Source, Any] = WorkerPool(
        extract, min(workers, len(todo)), limits, _on_one_core
    )
    with closing(pool.run(todo)) as extracted:
        for source, result in zip(todo, extracted, strict=True):
            if isinstance(result, TaskFailure):
                yield f"{printable_path(source.path)}: {result.reason}"
            else:
                yield _finished_or_reason(result, front_end)


def _on_one_core() -> None:
    torch.set_num_threads(1)


def _extracted_or_reason(source: Source, extract: Callable[[Path, str], Any]) -> Any:
    try:
        return extract(source.path, source.track_id)
    except DataError as error:
        return str(error)


def _finished_or_reason(extracted: Any, front_end: ExtractionJob) -> Mel | str:
    if isinstance(extracted, str) or front_end.finish is None:
        result: Mel | str = extracted
        return result
    try:
        return front_end.finish(extracted)
    except DataError as error:
        return str(error)


class _ShardWriter:
    """Collects mels, and publishes them as shards that the manifest then names."""

    def __init__(self, folder: Path, kept: pl.DataFrame, key: str) -> None:
        self._folder, self._manifest, self._key = folder, kept, key
        self._pending: list[tuple[Source, Mel]] = []
        self._n_bytes = 0

    def add(self, source: Source, mel: Mel) -> None:
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


FINISHED = "finished"
TRACKS_A_TASK = 250  # of Ray: some minutes of one core, and a shard of 80 MB
Shard = tuple[int, int]
"""(i, n): the i-th of n parts, from 1."""


def prepare_shard(
    folder: LibraryPaths,
    sources: Mapping[str, Path],
    shard: Shard,
    front_end: ExtractionJob | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrepareResult:
    """Prepares part `shard` of what `prepare_frames` would; `merge_shards` brings it in. Resumes,
    and raises, alike.

    The library's lock is not needed: LibraryError where another process is at the same part. What
    cannot be decoded is listed in the part's own skipped.csv, and by the call that adopts it in the
    library's.
    """
    front_end = front_end or mel_front_end(folder)
    own, part = _lacking(front_end, sources, shard), _place(front_end, shard)
    part.mkdir(parents=True, exist_ok=True)
    with _held(part):
        (part / FINISHED).unlink(missing_ok=True)
        unusable = front_end.unusable if shard[0] == 1 else ()
        done = prepare_frames(
            replace(folder, root=part),
            own,
            replace(front_end, place=part, unusable=unusable),
            workers=workers,
            on_progress=on_progress,
        )
        (part / FINISHED).write_text(front_end.key, encoding="utf-8")
    return done


def require_shards_done(
    sources: Mapping[str, Path], front_end: ExtractionJob, n_parts: int
) -> None:
    """LibraryError that names the parts, of `n_parts`, whose jobs have not ended, or were done with
    other settings.
    """
    missing: list[str] = []
    foreign: list[str] = []
    for number in range(1, n_parts + 1):
        shard = (number, n_parts)
        record = _place(front_end, shard) / FINISHED
        found = record.read_text(encoding="utf-8") if record.exists() else None
        if found != front_end.key and _lacking(front_end, sources, shard):
            (missing if found is None else foreign).append(f"{number}/{n_parts}")
    told = [f"shards {', '.join(missing)} are not finished"] if missing else []
    told += [f"shards {', '.join(foreign)} were made with other settings"] if foreign else []
    if told:
        raise LibraryError(
            f"{front_end.place}: {'; '.join(told)}; run those jobs again, or ponticello prepare alone to do here what "
            "is missing"
        )


def prepare_on_ray(
    folder: LibraryPaths,
    sources: Mapping[str, Path],
    front_end: ExtractionJob,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Has Ray prepare what is missing, in parts, and adopts them; how many tracks that gave.

    The caller holds `folder.lock()`; every worker must see the library and the files under the same
    paths. ConfigError without Ray, PonticelloError where a worker failed; finished parts are kept
    for the next call.
    """
    n_adopted = merge_shards(front_end.place, front_end.key)
    n_missing = len(_lacking(front_end, sources, (1, 1)))
    n_parts = -(-n_missing // TRACKS_A_TASK)
    n_done = 0
    for n_tracks in run_on_ray(
        partial(_begin, folder, sources, front_end, n_parts), range(1, n_parts + 1)
    ):
        n_done += n_tracks
        if on_progress:
            on_progress(n_done, n_missing)
    return n_adopted + merge_shards(front_end.place, front_end.key)


def _begin(
    folder: LibraryPaths, sources: Mapping[str, Path], front_end: ExtractionJob, n_parts: int
) -> Task:
    """What a worker does with the number of a part; gives how many tracks it looked at."""

    def task(number: int) -> int:
        done = prepare_shard(folder, sources, (number, n_parts), front_end, workers=1)
        return done.n_new + len(done.skipped)

    return task


def _lacking(
    front_end: ExtractionJob, sources: Mapping[str, Path], shard: Shard
) -> dict[str, Path]:
    """The tracks of a part that `front_end.place` lacks."""
    whole, (number, n_parts) = front_end.place, shard
    own = {
        track_id: path
        for track_id, path in sources.items()
        if crc32(track_id.encode()) % n_parts == number - 1
    }
    missing = plan_frames(whole, _manifest(whole), own, front_end.key)[1]
    return {source.track_id: source.path for source in missing}


def _place(front_end: ExtractionJob, shard: Shard) -> Path:
    return front_end.place / f"part-{shard[0]}-of-{shard[1]}"


def _manifest(place: Path) -> pl.DataFrame:
    return read_manifest(place) if (place / MANIFEST).exists() else pl.DataFrame(schema=SCHEMA)


def merge_shards(place: Path, key: str) -> int:
    """Moves what jobs prepared into `place`, the frames' own folder, and says of how many tracks.

    The caller holds `folder.lock()`. key: `ExtractionJob.key`; parts of another are thrown away.
    LibraryError if a job is still at its part. Ended half-way, a track may have to be prepared
    again, and nothing else.
    """
    n_tracks = 0
    for part in sorted(place.glob("part-*-of-*")):
        with _held(part):
            n_tracks += _adopt(part, place, key)
            shutil.rmtree(part)
    return n_tracks


def _adopt(part: Path, place: Path, key: str) -> int:
    if not (part / MANIFEST).exists():
        return 0
    rows = read_manifest(part).filter(pl.col("mel_key") == key)
    known = _manifest(place)
    for number in rows["shard"].unique().sort():
        of_shard = rows.filter(pl.col("shard") == number)
        moved = of_shard.with_columns(
            pl.lit(adopt_shard(part, number, place), pl.Int64).alias("shard")
        )
        known = pl.concat([known.filter(~pl.col(TRACK_ID).is_in(moved[TRACK_ID].to_list())), moved])
        write_manifest(place, known)
    return len(rows)


@contextmanager
def _held(part: Path) -> Iterator[None]:
    try:
        with FileLock(part / ".lock", timeout=0):
            yield
    except Timeout:
        raise LibraryError(
            f"{part} is being prepared by another process; wait for it to end"
        ) from None
