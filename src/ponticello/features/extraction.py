"""Computes the features of tracks from their files, one file at a time, in worker processes.

A worker that crashes, hangs or exceeds the limits costs the file it was reading.
"""

import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ponticello.audio.decode import load_audio
from ponticello.audio.formats import printable_path
from ponticello.audio.mel import mel_key, mel_of_file
from ponticello.audio.worker_pool import Reply, TaskFailure, WorkerPool
from ponticello.config import LimitsConfig, MelConfig
from ponticello.errors import DataError
from ponticello.features.store import Features
from ponticello.storage.layout import LibraryPaths, SkippedRow


@dataclass(frozen=True)
class Source:
    """A file to read, with its size and modification time when preparation began."""

    track_id: str
    path: Path
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class ExtractionJob:
    """How files become features, and where these are stored.

    folder: of the features.
    key: changes whenever the features would change.
    extract: returns the (T, F) float16 features of (file, track_id). It is pickled for worker
        processes and raises DataError for a file without usable content.
    step: name of the job in skipped.csv.
    finish: optional second half of the extraction, run in this process, for models too large to
        load in each worker; takes the array that `extract` returns.
    is_safe: the input cannot harm this process, so no workers are needed.
    unusable: inputs rejected before extraction.
    """

    folder: Path
    key: str
    extract: Callable[[Path, str], NDArray[Any]]
    step: str
    finish: Callable[[Any], Features] | None = None
    is_safe: bool = False
    unusable: tuple[SkippedRow, ...] = ()


def mel_job(folder: LibraryPaths) -> ExtractionJob:
    """Returns the job that computes a library's log-mels, stored in `mels/`."""
    config = folder.config.mel
    extract = partial(_mel_of_track, config=config)
    return ExtractionJob(folder.mels, mel_key(config), extract, "prepare")


def _mel_of_track(path: Path, _track_id: str, config: MelConfig) -> Features:
    return mel_of_file(path, config)


def waveform_of_track(path: Path, _track_id: str, sample_rate: int, seconds: float) -> NDArray[Any]:
    """Decodes the first `seconds` of a file, (n,) float32, for a job with `finish`.

    Errors as `load_audio`.
    """
    return load_audio(path, sample_rate, seconds)


def extract_features(
    sources: Sequence[Source], job: ExtractionJob, workers: int | None, limits: LimitsConfig
) -> Generator[Reply | TaskFailure]:
    """Yields the features of each source, or why there are none, in order.

    workers: number of processes; None reads the files in this process. Close the generator to end
        the workers.
    Raises DataError when worker processes cannot start.
    """
    if workers is None or job.is_safe or not sources:
        for source in sources:
            try:
                array = job.extract(source.path, source.track_id)
            except DataError as error:
                yield TaskFailure(str(error))
            else:
                yield _finish(array, job)
        return
    extract = partial(_extract, extract=job.extract)
    pool = WorkerPool(extract, min(workers, len(sources)), limits, _use_one_core)
    with closing(pool.map(sources)) as results:
        for source, result in zip(sources, results, strict=True):
            if isinstance(result, Reply):
                yield _finish(result.array, job)
            elif result.kind == "refused":
                yield result
            else:
                yield TaskFailure(f"{printable_path(source.path)}: {result.reason}")


def _use_one_core() -> None:
    if torch := sys.modules.get("torch"):  # log-mels need none, and start twice as fast without
        torch.set_num_threads(1)


def _extract(source: Source, extract: Callable[[Path, str], NDArray[Any]]) -> Reply:
    return Reply(array=extract(source.path, source.track_id))


def _finish(array: NDArray[Any], job: ExtractionJob) -> Reply | TaskFailure:
    try:
        return Reply(array=job.finish(array) if job.finish else array)
    except DataError as error:
        return TaskFailure(str(error))
