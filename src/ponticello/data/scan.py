"""scan: a folder of sound files becomes rows of the catalogue, and the catalogue stays in step with it.

    folder -> names, sizes, times -> what is new or changed -> workers: tags and hashes -> tracks.parquet
                                          ^                                                files.parquet
                                          '-- files.parquet: each file as it was read last ----'

A file that has the size and time it had is not opened. A track's id is made when its sound is first met, of its file's
name and its sound's hash, and stays: new tags, another name or place, or other sound in its place do not change it.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from ponticello.config import LimitsConfig
from ponticello.data.columns import PATH
from ponticello.data.file_tags import FileFacts, facts_or_reason
from ponticello.data.files import CatalogueUpdate
from ponticello.data.recordings import write_duplicates
from ponticello.data.walk import find_sounds
from ponticello.data.workers import Lost, SafePool
from ponticello.errors import DataError
from ponticello.library import Folder, Skipped

STEP = "scan"
_BATCH = 5_000  # files read between two writings of the tables; what a killed run can lose


@dataclass(frozen=True)
class Scanned:
    """What a scan found, in files."""

    n_new: int
    n_updated: int
    n_moved: int
    n_unchanged: int
    n_gone: int
    n_skipped: int
    n_duplicates: int  # tracks that share a recording with another
    n_total: int  # tracks in the catalogue
    ignored: Mapping[str, int] = field(default_factory=dict)  # files that are not named like sound, by suffix


def scan_folder(
    folder: Folder, root: Path, *, workers: int | None = None, on_progress: Callable[[int, int], None] | None = None
) -> Scanned:
    """Brings the catalogue in line with the sound files under `root`.

    The caller holds `folder.lock()`. New files become tracks. A changed tag changes its cell; a cell that was edited
    stays until its tag changes, and other columns stay as they are. A file that was moved or renamed keeps its track,
    known by its content or, tagged anew, by its sound. One that has gone keeps its row and is listed, like every file
    that cannot be read, in skipped.csv. Tracks that share a recording are listed in duplicates.csv. A track that was
    imported with the same path is taken over: its empty cells are filled.

    workers: processes that read, within `limits`; None: this one, for files that one trusts.
    on_progress: called with (done, to do) files.
    DataError if `root` is no folder; LibraryError for damaged tables.
    Cost: each new or changed file is read once, whole; memory is that of the tables and 40 MB a worker.
    """
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; check the path")
    root = root.resolve()
    walk = find_sounds(root)
    update = CatalogueUpdate(folder, root, walk.files)
    paths = [Path(found.path) for found in update.changed]
    try:
        with closing(_read(paths, workers, folder.config.limits)) as results:
            for n_done, (found, result) in enumerate(zip(update.changed, results, strict=True), start=1):
                update.take(found, result)
                if n_done % _BATCH == 0:
                    update.publish()
                if on_progress is not None:
                    on_progress(n_done, len(paths))
        update.settle()
    finally:
        update.publish()  # also of a scan that is stopped, where what waits for files not yet read is left as it was
    gone = update.gone()
    bad = [*update.bad(), *((_shown(path), "", why) for path, why in walk.refused)]
    lines = [*bad, *((path, track_id, "the file has gone; its track stays") for path, track_id in gone)]
    folder.record_skipped(STEP, [Skipped(path, None, PATH, value, why) for path, value, why in sorted(lines)])
    return Scanned(
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


def _read(paths: Sequence[Path], workers: int | None, limits: LimitsConfig) -> Generator[FileFacts | str | Lost]:
    """What each file says of itself, or why nothing."""
    if workers is None or not paths:
        yield from map(facts_or_reason, paths)
        return
    pool: SafePool[Path, FileFacts | str] = SafePool(facts_or_reason, min(workers, len(paths)), limits)
    with closing(pool.run(paths)) as results:
        yield from results


def _shown(path: str) -> str:
    """A path as a table of text can hold it."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
