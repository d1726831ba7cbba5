"""The sound files under a folder, found without opening one: names, sizes and times.

Links are followed, after everything that is really there, and each folder and file is taken once:
loops end. Names that
begin with a dot are left out: what they name is a system's, not a listener's (`._song.mp3`,
`.Trash`).

scan: a folder of sound files becomes rows of the catalogue, and the catalogue stays in step with
it.

    folder -> names, sizes, times -> what is new or changed -> workers: tags and hashes ->
    tracks.parquet
                                          ^
                                          files.parquet '-- files.parquet: each file as it was read
                                          last ----'

A file that has the size and time it had is not opened. A track's id is made when its sound is first
met, of its file's name and its sound's hash, and stays: new tags, another name or place, or other
sound in its place do not change it.
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
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

# Named like sound. What the file really is, its content says later; those that no decoder here
# reads are then refused.
# fmt: off
SUFFIXES = frozenset({
    ".mp3", ".mp2", ".flac", ".ogg", ".oga", ".opus", ".spx", ".m4a", ".m4b", ".mp4", ".aac", ".wav", ".wave", ".aif",
    ".aiff", ".aifc", ".wma", ".asf", ".au", ".caf", ".w64", ".ape", ".wv", ".mpc", ".tta", ".dsf", ".dff", ".mka",
    ".ra", ".rm", ".amr",
})
# fmt: on


@dataclass
class FolderWalk:
    """What a folder holds. refused: (path, why) of what cannot be taken; ignored: how many files of
    other suffixes.
    """

    files: list[AudioFile] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def find_audio_files(root: Path, on_folder: Callable[[int], None] | None = None) -> FolderWalk:
    """The sound files under `root`, by path. on_folder: called after each folder with the number of
    files so far.

    Memory: some 300 bytes a file. Nothing is opened, so no pipe or device can hold it up.
    """
    walk = FolderWalk()
    folders: set[tuple[int, int]] = set()
    files: set[tuple[int, int]] = set()
    links: list[str] = []
    _take_folder(walk, str(root), folders, files, links, on_folder)
    while links:
        now, links = sorted(links), []
        for path in now:
            _take_link(walk, path, folders, files, links, on_folder)
    walk.files.sort(key=lambda found: found.path)
    return walk


def _take_folder(
    walk: FolderWalk,
    top: str,
    folders: set[tuple[int, int]],
    files: set[tuple[int, int]],
    links: list[str],
    on_folder: Callable[[int], None] | None,
) -> None:
    """Adds what is really in `top` and below; links are put aside."""
    todo = [top]
    while todo:
        path = todo.pop()
        try:
            status = Path(path).stat()
            if _identity(status) in folders:
                continue
            folders.add(_identity(status))
            entries = list(_entries(path))
        except OSError as error:
            walk.refused.append((path, f"cannot be read: {error.strerror or error}"))
            continue
        for entry in entries:
            try:
                if entry.is_symlink():
                    links.append(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    if _is_unicode(walk, entry.path):
                        todo.append(entry.path)
                else:
                    _take_file(walk, entry.path, entry.stat(follow_symlinks=False), files)
            except OSError as error:
                walk.refused.append((entry.path, f"cannot be read: {error.strerror or error}"))
        if on_folder is not None:
            on_folder(len(walk.files))


def modified_ns(status: os.stat_result) -> int:
    """When a file was changed, in ns since 1970; held to the 64 bits of a table, which end in 1677
    and 2262.
    """
    return max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _take_file(
    walk: FolderWalk, path: str, status: os.stat_result, files: set[tuple[int, int]]
) -> None:
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122  # 100,000 times
    if suffix not in SUFFIXES:
        walk.ignored[suffix] += 1
    elif not stat.S_ISREG(status.st_mode):
        walk.refused.append((path, "is a device or pipe, not a file"))
    elif _is_unicode(walk, path):
        files.add(_identity(status))
        walk.files.append(AudioFile(path, status.st_size, modified_ns(status)))


def _take_link(
    walk: FolderWalk,
    path: str,
    folders: set[tuple[int, int]],
    files: set[tuple[int, int]],
    links: list[str],
    on_folder: Callable[[int], None] | None,
) -> None:
    try:
        status = Path(path).stat()
    except OSError as error:
        if os.path.splitext(path)[1].lower() in SUFFIXES:  # noqa: PTH122
            walk.refused.append((path, f"is a link that leads nowhere: {error.strerror or error}"))
        return
    if stat.S_ISDIR(status.st_mode):
        if _is_unicode(walk, path):
            _take_folder(walk, path, folders, files, links, on_folder)
    elif _identity(status) not in files:  # else it is there under its own name
        _take_file(walk, path, status, files)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_unicode(walk: FolderWalk, path: str) -> bool:
    """Whether a table can hold this name; if not, it is refused."""
    try:
        path.encode()
    except UnicodeEncodeError:
        walk.refused.append((path, "its name is not valid Unicode (UTF-8); rename it"))
        return False
    return True


STEP = "scan"
_BATCH = 5_000  # files read between two writings of the tables; what a killed run can lose


@dataclass(frozen=True)
class ScanResult:
    """What a scan found, in files."""

    n_new: int
    n_updated: int
    n_moved: int
    n_unchanged: int
    n_gone: int
    n_skipped: int
    n_duplicates: int  # tracks that share a recording with another
    n_total: int  # tracks in the catalogue
    ignored: Mapping[str, int] = field(
        default_factory=dict
    )  # files that are not named like sound, by suffix


def scan_folder(
    folder: LibraryPaths,
    root: Path,
    *,
    workers: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> ScanResult:
    """Brings the catalogue in line with the sound files under `root`.

    The caller holds `folder.lock()`. New files become tracks. A changed tag changes its cell; a
    cell that was edited stays until its tag changes, and other columns stay as they are. A file
    that was moved or renamed keeps its track, known by its content or, tagged anew, by its sound.
    One that has gone keeps its row and is listed, like every file that cannot be read, in
    skipped.csv. Tracks that share a recording are listed in duplicates.csv. A track that was
    imported with the same path is taken over: its empty cells are filled.

    workers: processes that read, within `limits`; None: this one, for files that one trusts.
    on_progress: called with (done, to do) files.
    DataError if `root` is no folder; LibraryError for damaged tables.
    Cost: each new or changed file is read once, whole; memory is that of the tables and 40 MB a
    worker.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; check the path")
    root = root.resolve()
    walk = find_audio_files(root)
    update = ScanTransaction(folder, root, walk.files)
    paths = [Path(found.path) for found in update.changed]
    try:
        with closing(_read(paths, workers, folder.config.limits)) as results:
            for n_done, (found, result) in enumerate(
                zip(update.changed, results, strict=True), start=1
            ):
                update.take(found, result)
                if n_done % _BATCH == 0:
                    update.publish()
                if on_progress is not None:
                    on_progress(n_done, len(paths))
        update.settle()
    finally:
        # also of a scan that is stopped, where what waits for files not yet read is left as it was
        update.publish()
    gone = update.gone()
    bad = [*update.bad(), *((_shown(path), "", why) for path, why in walk.refused)]
    lines = [
        *bad,
        *((path, track_id, "the file has gone; its track stays") for path, track_id in gone),
    ]
    folder.record_skipped(
        STEP, [SkippedRow(path, None, PATH, value, why) for path, value, why in sorted(lines)]
    )
    return ScanResult(
        n_new=update.counts["new"],
        n_updated=update.counts["updated"],
        n_moved=update.counts["moved"],
        n_unchanged=update.counts["unchanged"],
        n_gone=len(gone),
        n_skipped=len(bad),
        n_duplicates=write_duplicates(folder, {track_id for _, track_id in gone}),
        n_total=update.n_tracks,
        ignored=dict(walk.ignored.most_common()),
    )


def _read(
    paths: Sequence[Path], workers: int | None, limits: LimitsConfig
) -> Generator[FileFacts | TaskFailure]:
    """Yields the facts of each file, or why there are none."""
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


def _shown(path: str) -> str:
    """A path as a table of text can hold it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
