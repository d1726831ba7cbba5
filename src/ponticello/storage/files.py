"""SHA-256 of files, fast enough to check every byte of a large index whenever it is opened.

A file above one block is named by the SHA-256 of its blocks' SHA-256s, so that all processor cores
can take part.
"""

import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from ponticello.errors import PonticelloError

BLOCK_BYTES = 16 << 20
_IN_BLOCKS = "16MiB:"


def file_hash(path: Path) -> str:
    """What names the content of `path`: its SHA-256, or of a file above 16 MiB `16MiB:` and that of
    its blocks'.
    """
    size = path.stat().st_size
    if size <= BLOCK_BYTES:
        return _whole(path)
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        blocks = workers.map(lambda start: _block(path, start), range(0, size, BLOCK_BYTES))
        return _IN_BLOCKS + hashlib.sha256(b"".join(blocks)).hexdigest()


def is_unchanged(path: Path, written: str) -> bool:
    """Whether the file still is what `file_hash`, or plain SHA-256, said of it."""
    return written == (file_hash(path) if written.startswith(_IN_BLOCKS) else _whole(path))


def _whole(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _block(path: Path, start: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return hashlib.sha256(file.read(BLOCK_BYTES)).digest()


# characters of a list's cell that are kept, any path among them; `csv` reads back 131,072
_CELL_LENGTH = 5_000


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def escape_csv_cell(value: object) -> object:
    """A cell that every reader can take: of a text the first 5,000 characters.

    No spreadsheet takes it for a formula: an apostrophe stands in front of a text that looks like
    one.
    """
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(_FORMULA) else "") + value[:_CELL_LENGTH]


def read_csv_rows(path: Path) -> list[list[str]]:
    """The rows of a list such as skipped.csv, its header first, however long a cell of an older
    version is.
    """
    # `csv` refuses long cells unless a limit is raised for every caller in the process
    import polars as pl

    if not path.stat().st_size:
        return []
    frame = pl.read_csv(
        path, has_header=False, infer_schema=False, truncate_ragged_lines=True, glob=False
    )
    return [list(row) for row in frame.fill_null("").iter_rows()]


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, whole and synced, when the block ends
    without an error.

    A folder takes two renames; after a kill between them the next writer, or who opens the library,
    brings the old one back. OSError where the disk is full, also from writers that have an
    exception of their own for it, as polars has.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside = path.with_name(f".{path.name}.old.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        for left in path.parent.glob(f".{glob.escape(path.name)}.old.*.tmp"):
            _bring_back(left)
    try:
        yield temporary
        fsync_paths(_files(temporary))
        if temporary.is_dir() and path.exists():
            path.replace(
                aside
            )  # a folder takes no other's place: two names change, and only then the old one goes
        temporary.replace(path)
        fsync_paths([path.parent])
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if isinstance(error, PonticelloError) or number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    finally:
        if aside.exists() and not path.exists():
            aside.replace(path)
        for rest in (temporary, aside):
            if rest.is_dir():
                shutil.rmtree(rest)
            else:
                rest.unlink(missing_ok=True)


def _bring_back(aside: Path) -> None:
    """Gives a folder that was put aside its name again, if its place is free and who put it there
    has ended.
    """
    name, _, number = aside.name.removeprefix(".").removesuffix(".tmp").rpartition(".old.")
    path = aside.with_name(name)
    if number.isdigit() and not path.exists() and not is_process_alive(int(number)):
        with suppress(OSError):  # another process was first, or nobody may write here
            aside.rename(path)


def is_process_alive(process: int) -> bool:
    """Whether a process of this number is there; yes where that cannot be told."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def fsync_paths(paths: Iterable[Path]) -> None:
    """Asks the disk to hold what `paths` (files or folders) contain."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
