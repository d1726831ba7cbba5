"""Scans a folder of sound files: the catalogue gets their tracks and stays in step with them.

    folder -> names, sizes, times -> new and changed files -> workers: tags and hashes
           -> tracks.parquet, and files.parquet (each file as it was last read)

A file with the same size and time as before is not opened. A track's id is made of the file's name
and the hash of its sound when that is first read; it stays when tags, name, folder or sound change.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ponticello.audio.tags import FileFacts, facts_from_reply, facts_reply, read_facts
from ponticello.audio.worker_pool import TaskFailure, WorkerPool
from ponticello.config import LimitsConfig
from ponticello.errors import AudioError, DataError
from ponticello.storage.layout import LibraryPaths, SkippedRow
from ponticello.storage.schema import PATH
from ponticello.tracks.file_index import AudioFile, ScanTransaction, write_duplicates

# Names of sound files. Files that no decoder supports are refused later, by their content.
_SUFFIXES = """
.mp3 .mp2 .flac .ogg .oga .opus .spx .m4a .m4b .mp4 .aac .wav .wave .aif .aiff .aifc .wma .asf .au
.caf .w64 .ape .wv .mpc .tta .dsf .dff .mka .ra .rm .amr"""
SUFFIXES = frozenset(_SUFFIXES.split())
STEP = "scan"
_BATCH = 5_000  # files between two writes of the tables: the most that a killed scan loses


@dataclass(frozen=True)
class ScanResult:
    """The result of a scan, in files.

    n_duplicates: tracks that share a recording with another. n_total: tracks in the catalogue.
    ignored: the number of files without the name of a sound file, by suffix.
    """

    n_new: int
    n_updated: int
    n_moved: int
    n_unchanged: int
    n_gone: int
    n_skipped: int
    n_duplicates: int
    n_total: int
    ignored: Mapping[str, int] = field(default_factory=dict)


def scan_folder(
    folder: LibraryPaths,
    root: Path,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ScanResult:
    """Brings the catalogue in step with the sound files under `root`.

    The caller holds `folder.lock()`. New files become tracks. A changed tag changes its cell; an
    edited cell stays until its tag changes. A moved or renamed file keeps its track, by its content
    or its sound; so does a deleted one. A track that was imported with the same path is taken over,
    and its empty cells are filled.

    workers: processes that read, within `limits`; None reads trusted files in this process.
    on_progress: called with (files read, files to read).
    DataError if `root` is not a folder; LibraryError for damaged tables.
    Cost: each new or changed file is read once, whole; memory for the tables and 40 MB a worker.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; check the path")
    root = root.resolve()
    walk = find_audio_files(root)
    transaction = ScanTransaction(folder, root, walk.files)
    paths = [Path(file.path) for file in transaction.changed]
    n_read = 0
    try:
        with closing(_read(paths, workers, folder.config.limits)) as results:
            for file, result in zip(transaction.changed, results, strict=True):
                transaction.take(file, result)
                n_read += 1
                if n_read % _BATCH == 0:
                    transaction.publish()
                if on_progress is not None:
                    on_progress(n_read, len(paths))
        transaction.settle()
    finally:
        transaction.publish()  # also after Ctrl-C: files that wait for others stay as they were
    deleted = transaction.deleted_tracks()
    unreadable = transaction.unreadable_files()
    for path, reason in walk.refused:
        unreadable.append((_printable(path), "", reason))
    rows = list(unreadable)
    for path, track_id in deleted:
        rows.append((path, track_id, "the file has gone; its track stays"))
    skipped = [SkippedRow(path, None, PATH, value, reason) for path, value, reason in sorted(rows)]
    folder.record_skipped(STEP, skipped)
    return ScanResult(
        n_new=transaction.counts["new"],
        n_updated=transaction.counts["updated"],
        n_moved=transaction.counts["moved"],
        n_unchanged=transaction.counts["unchanged"],
        n_gone=len(deleted),
        n_skipped=len(unreadable),
        n_duplicates=write_duplicates(folder, {track_id for _, track_id in deleted}),
        n_total=transaction.n_tracks,
        ignored=dict(walk.ignored.most_common()),
    )


def find_audio_files(root: Path) -> "FolderWalk":
    """Finds the sound files under `root` by name, sorted by path; opens none.

    Links are followed after everything else, and each folder and file is taken once, so that loops
    end. Names that begin with a dot are left out: systems make them (`._song.mp3`, `.Trash`).
    Memory: 300 bytes a file.
    """
    walk = FolderWalk()
    walk.add_folder(str(root))
    while walk.links:
        links = sorted(walk.links)
        walk.links = []
        for path in links:
            walk.add_link(path)
    walk.files.sort(key=lambda file: file.path)
    return walk


def modified_ns(status: os.stat_result) -> int:
    """Returns when a file was changed, in ns since 1970, clamped to 64 bits (1677 to 2262)."""
    return max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))


class FolderWalk:
    """The sound files of a folder.

    refused: (path, reason) of files that cannot be scanned. ignored: the number of files by other
    suffixes. links: not followed yet.
    """

    def __init__(self) -> None:
        self.files: list[AudioFile] = []
        self.refused: list[tuple[str, str]] = []
        self.ignored: Counter[str] = Counter()
        self.links: list[str] = []
        self._folder_ids: set[tuple[int, int]] = set()
        self._file_ids: set[tuple[int, int]] = set()

    def add_folder(self, top: str) -> None:
        """Adds the files in `top` and below; links are kept for later."""
        folders = [top]
        while folders:
            path = folders.pop()
            try:
                identity = _identity(Path(path).stat())
                if identity in self._folder_ids:
                    continue
                self._folder_ids.add(identity)
                with os.scandir(path) as iterator:
                    entries = [entry for entry in iterator if not entry.name.startswith(".")]
            except OSError as error:
                self._refuse(path, error)
                continue
            for entry in entries:
                try:
                    if entry.is_symlink():
                        self.links.append(entry.path)
                    elif not entry.is_dir(follow_symlinks=False):
                        self._add_file(entry.path, entry.stat(follow_symlinks=False))
                    elif self._is_unicode(entry.path):
                        folders.append(entry.path)
                except OSError as error:
                    self._refuse(entry.path, error)

    def add_link(self, path: str) -> None:
        """Adds the target of a link, unless it was added under its own name."""
        try:
            status = Path(path).stat()
        except OSError as error:
            if _suffix(path) in SUFFIXES:
                reason = f"is a link that leads nowhere: {error.strerror or error}"
                self.refused.append((path, reason))
            return
        if not stat.S_ISDIR(status.st_mode):
            if _identity(status) not in self._file_ids:
                self._add_file(path, status)
        elif self._is_unicode(path):
            self.add_folder(path)

    def _add_file(self, path: str, status: os.stat_result) -> None:
        suffix = _suffix(path)
        if suffix not in SUFFIXES:
            self.ignored[suffix] += 1
        elif not stat.S_ISREG(status.st_mode):
            self.refused.append((path, "is a device or pipe, not a file"))
        elif self._is_unicode(path):
            self._file_ids.add(_identity(status))
            self.files.append(AudioFile(path, status.st_size, modified_ns(status)))

    def _is_unicode(self, path: str) -> bool:
        """Returns whether a table can hold this name, and refuses it if not."""
        try:
            path.encode()
        except UnicodeEncodeError:
            self.refused.append((path, "its name is not valid Unicode (UTF-8); rename it"))
            return False
        return True

    def _refuse(self, path: str, error: OSError) -> None:
        self.refused.append((path, f"cannot be read: {error.strerror or error}"))


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()  # noqa: PTH122  # ten times as fast as Path


def _read(
    paths: Sequence[Path], workers: int | None, limits: LimitsConfig
) -> Generator[FileFacts | TaskFailure]:
    if workers is None or not paths:
        for path in paths:
            try:
                yield read_facts(path)
            except AudioError as error:
                yield TaskFailure(str(error), "refused")
        return
    pool = WorkerPool(facts_reply, min(workers, len(paths)), limits)
    with closing(pool.map(paths)) as results:
        for result in results:
            yield result if isinstance(result, TaskFailure) else facts_from_reply(result)


def _printable(path: str) -> str:
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
