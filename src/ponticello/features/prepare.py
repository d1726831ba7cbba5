"""Prepares a library: computes the features of its tracks once, and resumes where it stopped.

Every library has log-mels in `mels/`; a frozen front end adds features of its own in `frames/`.

Several machines can share the work. Each job prepares its share of the tracks in a folder of its
own, without a lock, and a last call merges these folders:

    mels/part-2-of-4/      shards and manifest of job 2 of 4, as in mels/ itself
      finished             written when the job has ended: the key of its settings

The share of a job depends on the track ids alone, so a job that is repeated has the same tracks.
Dimensions: T frames, F numbers a frame.
"""

import logging
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path
from zlib import crc32

import polars as pl
from filelock import FileLock, Timeout

from ponticello.audio.worker_pool import Reply
from ponticello.errors import ConfigError, LibraryError
from ponticello.features.extraction import ExtractionJob, Source, extract_features, mel_job
from ponticello.features.frontend import feature_extractor
from ponticello.features.musicnn_frontend import musicnn_job, tag_tracks
from ponticello.features.ray_tasks import Task, run_on_ray, uses_ray
from ponticello.features.store import (
    FEATURES_KEY,
    MANIFEST,
    MANIFEST_SCHEMA,
    Features,
    adopt_shard,
    hash_features,
    open_shard,
    read_manifest,
    remove_unnamed_shards,
    write_manifest,
    write_shard,
)
from ponticello.storage.layout import LibraryPaths, SkippedRow
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import audio_files
from ponticello.tracks.scan import modified_ns

logger = logging.getLogger(__name__)

FINISHED = "finished"
Shard = tuple[int, int]
"""(i, n): the i-th of n shares of the tracks, from 1."""
TRACKS_PER_TASK = 250  # on Ray: some minutes of one core, and a file of 80 MB
_SHARD_BYTES = 256 * 2**20  # held in memory until the file is written
_SHARD_TRACKS = 1000  # the most that a killed run can lose


@dataclass(frozen=True)
class PrepareResult:
    """What a preparation did.

    n_new, n_kept: tracks computed (or merged from other jobs) and tracks that were up to date.
    n_removed: tracks whose features were deleted, because they are no longer in the catalogue.
    skipped: files without usable content, as listed in skipped.csv.
    folder: where the counted features are.
    """

    n_new: int
    n_kept: int
    n_removed: int
    skipped: list[SkippedRow]
    folder: Path


@dataclass(frozen=True)
class TaggingResult:
    """What `tag_library` did.

    n_tagged: tracks with machine tags now; n_new: of these, tracks analysed by this call.
    skipped: files that could not be read. tags: number of tracks per tag, most frequent first.
    """

    n_tagged: int
    n_new: int
    skipped: list[SkippedRow]
    tags: dict[str, int]


def prepare_library(
    folder: LibraryPaths,
    *,
    workers: int | None = None,
    allow_download: bool = False,
    shard: Shard | None = None,
    n_shards: int | None = None,
    engine: str = "here",
    on_progress: Callable[[str, int, int], None] | None = None,
) -> PrepareResult:
    """Computes the log-mels of every track with a file, and the features its front end needs.

    Only missing or changed tracks are computed. The result counts log-mels; for front end
    `features` it counts the user's vectors, with the skipped rows of both. The splits are not
    touched: the caller refreshes them (`pairs.mine.refresh_splits`).

    workers: processes that decode, None = one per core. allow_download: lets the audio encoder of
    front end `hf:NAME` be fetched. engine: "here" or "ray". on_progress: called with (step, done,
    total), where step is "log-mels" or "features".
    shard: (i, n) prepares only share i of n, without the library's lock; a later call without
    `shard` merges the shares. Otherwise the library's lock is taken.
    n_shards: the number of shares to merge; LibraryError, before any work, if one is missing.

    Errors as `prepare_features`, and as `feature_extractor` where the front end cannot be used.
    """
    use_ray = uses_ray(engine)
    log_mel_job, log_mel_sources = mel_job(folder), audio_files(folder)
    extractor = feature_extractor(folder.config, allow_download=allow_download)
    job = None
    if extractor is not None:
        job, sources = extractor.job(folder)  # reports what is missing before hours of decoding
        if extractor.notice:
            logger.warning(extractor.notice)
    if n_shards is not None:
        require_shards_done(log_mel_sources, log_mel_job, n_shards)
        if job is not None:
            require_shards_done(sources, job, n_shards)
    update = partial(
        _update, folder, workers=workers, shard=shard, use_ray=use_ray, on_progress=on_progress
    )
    log_mels = update(log_mel_job, log_mel_sources, "log-mels")
    if job is None:
        return log_mels
    if folder.config.front_end == "features":
        vectors = update(job, sources, "features")
        return replace(vectors, skipped=log_mels.skipped + vectors.skipped)
    unreadable = {row.value for row in log_mels.skipped}
    readable = {track_id: path for track_id, path in sources.items() if track_id not in unreadable}
    update(job, readable, "features")
    return log_mels


def tag_library(
    folder: LibraryPaths,
    *,
    workers: int | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> TaggingResult:
    """Tags every track with a file by its sound, in column `machine_tags` of the catalogue.

    The MusiCNN features are kept in `frames/`, so only new or changed tracks are analysed. Takes
    the library's lock. workers, on_progress and errors as `prepare_library`.
    """
    prepared = _update(
        folder,
        musicnn_job(folder),
        audio_files(folder),
        "features",
        workers=workers,
        on_progress=on_progress,
    )
    with folder.lock():
        tags = tag_tracks(folder)
    counts = Counter(chain.from_iterable(tags.values()))
    return TaggingResult(len(tags), prepared.n_new, prepared.skipped, dict(counts.most_common()))


def _update(
    folder: LibraryPaths,
    job: ExtractionJob,
    sources: Mapping[str, Path],
    step: str,
    *,
    workers: int | None,
    shard: Shard | None = None,
    use_ray: bool = False,
    on_progress: Callable[[str, int, int], None] | None,
) -> PrepareResult:
    workers = workers or os.cpu_count() or 1
    report = partial(on_progress, step) if on_progress else None
    if shard is not None:
        return prepare_shard(folder, sources, shard, job, workers=workers, on_progress=report)
    with folder.lock():
        if use_ray and not job.is_safe:
            n_merged = prepare_on_ray(folder, sources, job, report)
        else:
            n_merged = merge_shards(job)
        result = prepare_features(folder, sources, job, workers=workers, on_progress=report)
    n_new = result.n_new + n_merged
    return replace(result, n_new=n_new, n_kept=result.n_kept - n_merged)


def prepare_features(
    folder: LibraryPaths,
    sources: Mapping[str, Path],
    job: ExtractionJob | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrepareResult:
    """Brings the features in `job.folder` in line with `sources` (track_id -> file).

    The caller holds `folder.lock()`. Files are read for tracks without features, with a changed
    file (size or time) or with another key. A prepared track keeps its features if its
    file has gone. Unreadable files are listed in skipped.csv. Tracks outside `sources` lose their
    features. Finished tracks are written a shard at a time, also when an error ends the run.

    job: None = the log-mels.
    workers: processes in which a file that crashes or hangs its decoder or exceeds `limits` is
        skipped. The bytes do not depend on the number. None reads trusted files in this process.
    on_progress: called after each track with (done, total).

    Raises ConfigError for workers below 1, DataError when worker processes cannot start,
    LibraryError for a damaged manifest.
    Cost: about 1/300 of the sound's length per core; 256 MB of memory and 300 MB per worker.
    """
    if workers is not None and workers < 1:
        raise ConfigError(f"workers must be at least 1; found {workers}")
    if job is None:
        job = mel_job(folder)
    job.folder.mkdir(parents=True, exist_ok=True)
    for leftover in job.folder.glob(".*.tmp"):
        leftover.unlink()
    if not (job.folder / MANIFEST).exists():
        write_manifest(job.folder, pl.DataFrame(schema=MANIFEST_SCHEMA))
    manifest = read_manifest(job.folder)
    kept, todo = plan_features(job.folder, manifest, sources, job.key)
    if len(kept) < len(manifest):
        write_manifest(job.folder, kept)
    remove_unnamed_shards(job.folder, kept)
    writer = _ShardWriter(job.folder, kept, job.key)
    failed = []
    try:
        with closing(extract_features(todo, job, workers, folder.config.limits)) as results:
            for n_done, (source, result) in enumerate(zip(todo, results, strict=True), start=1):
                if isinstance(result, Reply):
                    writer.add(source, result.array)
                else:
                    path = str(source.path)
                    failed.append(SkippedRow(path, None, "path", source.track_id, result.reason))
                if on_progress is not None:
                    on_progress(n_done, len(todo))
    finally:
        writer.publish()
    skipped = list(job.unusable) + failed
    folder.record_skipped(job.step, skipped)
    n_removed = sum(track_id not in sources for track_id in manifest["track_id"])
    return PrepareResult(len(todo) - len(failed), len(kept), n_removed, skipped, job.folder)


def plan_features(
    folder: Path, manifest: pl.DataFrame, sources: Mapping[str, Path], key: str
) -> tuple[pl.DataFrame, list[Source]]:
    """Returns the rows of a manifest that are up to date, and the files to read.

    folder: of the features. key: `ExtractionJob.key`.
    """
    current = manifest.filter(pl.col(FEATURES_KEY) == key)
    shard_ends = current.group_by("shard").agg((pl.col("start") + pl.col("n_frames")).max())
    for number, n_rows in shard_ends.iter_rows():
        if not _has_rows(folder, number, n_rows):
            current = current.filter(pl.col("shard") != number)
    files = current.select("track_id", "source_size", "source_mtime_ns")
    stamps = files.rows_by_key("track_id", unique=True)
    kept: set[str] = set()
    todo: list[Source] = []
    for track_id, path in sources.items():
        stamp = _file_stamp(path)
        if track_id in stamps and stamp in (None, stamps[track_id]):
            kept.add(track_id)
        else:
            size, mtime_ns = stamp or (0, 0)
            todo.append(Source(track_id, path, size, mtime_ns))
    return current.filter(pl.col("track_id").is_in(list(kept))), todo


def _has_rows(folder: Path, shard: int, n_rows: int) -> bool:
    try:
        return len(open_shard(folder, shard)) >= n_rows
    except LibraryError:
        return False


def _file_stamp(path: Path) -> tuple[int, int] | None:
    """Returns size in bytes and modification time in ns, or None if the file does not exist."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return None
    return status.st_size, modified_ns(status)


class _ShardWriter:
    """Collects features and writes them as shards, each before the manifest that names it."""

    def __init__(self, folder: Path, kept: pl.DataFrame, key: str) -> None:
        self._folder = folder
        self._manifest = kept
        self._key = key
        self._pending: list[tuple[Source, Features]] = []
        self._n_bytes = 0

    def add(self, source: Source, features: Features) -> None:
        self._pending.append((source, features))
        self._n_bytes += features.nbytes
        if self._n_bytes >= _SHARD_BYTES or len(self._pending) >= _SHARD_TRACKS:
            self.publish()

    def publish(self) -> None:
        if not self._pending:
            return
        number = write_shard(self._folder, [features for _, features in self._pending])
        rows = []
        start = 0
        for source, features in self._pending:
            location = (source.track_id, number, start, len(features), hash_features(features))
            origin = (str(source.path), source.size, source.mtime_ns, self._key)
            rows.append(location + origin)
            start += len(features)
        added = pl.DataFrame(rows, schema=MANIFEST_SCHEMA, orient="row")
        self._manifest = pl.concat([self._manifest, added])
        write_manifest(self._folder, self._manifest)
        self._pending = []
        self._n_bytes = 0


def prepare_shard(
    folder: LibraryPaths,
    sources: Mapping[str, Path],
    shard: Shard,
    job: ExtractionJob | None = None,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> PrepareResult:
    """Prepares share `shard` of what `prepare_features` would; `merge_shards` merges it.

    Needs no lock of the library; LibraryError while another process prepares the same share.
    Unreadable files are listed in the share's own skipped.csv, and by the merging call in the
    library's. Resumes and raises as `prepare_features`.
    """
    if job is None:
        job = mel_job(folder)
    missing = _missing_sources(job, sources, shard)
    shard_folder = _shard_folder(job, shard)
    shard_folder.mkdir(parents=True, exist_ok=True)
    with _hold_shard(shard_folder):
        (shard_folder / FINISHED).unlink(missing_ok=True)
        unusable = job.unusable if shard[0] == 1 else ()
        result = prepare_features(
            replace(folder, root=shard_folder),
            missing,
            replace(job, folder=shard_folder, unusable=unusable),
            workers=workers,
            on_progress=on_progress,
        )
        (shard_folder / FINISHED).write_text(job.key, encoding="utf-8")
    return result


def require_shards_done(sources: Mapping[str, Path], job: ExtractionJob, n_shards: int) -> None:
    """Raises LibraryError naming the shares that are not finished or had other settings."""
    names: dict[str, list[str]] = defaultdict(list)
    for number in range(1, n_shards + 1):
        shard = (number, n_shards)
        record = _shard_folder(job, shard) / FINISHED
        key = record.read_text(encoding="utf-8") if record.exists() else None
        if key != job.key and _missing_sources(job, sources, shard):
            problem = "are not finished" if key is None else "were made with other settings"
            names[problem].append(f"{number}/{n_shards}")
    problems = [f"shards {', '.join(shards)} {problem}" for problem, shards in names.items()]
    if problems:
        raise LibraryError(
            f"{job.folder}: {'; '.join(problems)}; run those jobs again, or compute the rest on "
            "this machine with: ponticello prepare"
        )


def prepare_on_ray(
    folder: LibraryPaths,
    sources: Mapping[str, Path],
    job: ExtractionJob,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Prepares missing tracks on a Ray cluster, merges them, and returns how many there were.

    The caller holds `folder.lock()`; every worker must see the library and the files under the
    same paths. ConfigError without Ray, PonticelloError where a worker failed; finished shares
    are kept for the next call.
    """
    n_merged = merge_shards(job)
    n_missing = len(_missing_sources(job, sources, (1, 1)))
    n_tasks = -(-n_missing // TRACKS_PER_TASK)
    n_done = 0
    load_task = partial(_ray_task, folder, sources, job, n_tasks)
    for n_tracks in run_on_ray(load_task, range(1, n_tasks + 1)):
        n_done += n_tracks
        if on_progress is not None:
            on_progress(n_done, n_missing)
    return n_merged + merge_shards(job)


def _ray_task(
    folder: LibraryPaths, sources: Mapping[str, Path], job: ExtractionJob, n_tasks: int
) -> Task:
    def task(number: int) -> int:
        result = prepare_shard(folder, sources, (number, n_tasks), job, workers=1)
        return result.n_new + len(result.skipped)

    return task


def _missing_sources(
    job: ExtractionJob, sources: Mapping[str, Path], shard: Shard
) -> dict[str, Path]:
    """Returns the files of a share that have no features in `job.folder`."""
    number, n_shards = shard
    shard_sources = {}
    for track_id, path in sources.items():
        if crc32(track_id.encode()) % n_shards == number - 1:
            shard_sources[track_id] = path
    _, todo = plan_features(job.folder, _manifest_or_empty(job.folder), shard_sources, job.key)
    return {source.track_id: source.path for source in todo}


def _shard_folder(job: ExtractionJob, shard: Shard) -> Path:
    return job.folder / f"part-{shard[0]}-of-{shard[1]}"


def _manifest_or_empty(folder: Path) -> pl.DataFrame:
    if (folder / MANIFEST).exists():
        return read_manifest(folder)
    return pl.DataFrame(schema=MANIFEST_SCHEMA)


def merge_shards(job: ExtractionJob) -> int:
    """Moves the shares that jobs prepared into `job.folder`, and returns the number of tracks.

    The caller holds `folder.lock()`. Shares of another key are deleted. LibraryError while a job
    is running. If it is interrupted, some tracks may be prepared again.
    """
    n_tracks = 0
    for shard_folder in sorted(job.folder.glob("part-*-of-*")):
        with _hold_shard(shard_folder):
            n_tracks += _merge_shard(shard_folder, job)
            shutil.rmtree(shard_folder)
    return n_tracks


def _merge_shard(shard_folder: Path, job: ExtractionJob) -> int:
    if not (shard_folder / MANIFEST).exists():
        return 0
    rows = read_manifest(shard_folder).filter(pl.col(FEATURES_KEY) == job.key)
    manifest = _manifest_or_empty(job.folder)
    for number in rows["shard"].unique().sort():
        new_number = adopt_shard(shard_folder, number, job.folder)
        moved = rows.filter(pl.col("shard") == number).with_columns(
            pl.lit(new_number, pl.Int64).alias("shard")
        )
        unmoved = manifest.filter(~pl.col(TRACK_ID).is_in(moved[TRACK_ID].to_list()))
        manifest = pl.concat([unmoved, moved])
        write_manifest(job.folder, manifest)
    return len(rows)


@contextmanager
def _hold_shard(shard_folder: Path) -> Iterator[None]:
    try:
        with FileLock(shard_folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise LibraryError(
            f"{shard_folder} is being prepared by another process; wait for it to end"
        ) from None
