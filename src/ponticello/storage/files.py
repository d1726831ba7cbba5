"""Atomic replacement of files and directories, hashes of files, and CSV lists."""

import csv
import glob
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname

from ponticello.errors import PonticelloError

BLOCK_BYTES = 16 << 20
_BLOCK_HASH = "16MiB:"
# characters that are kept of a cell, longer than any path; `csv` reads back 131,072 at most
_CELL_LENGTH = 5_000
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
# .NAME.HOST.PROCESS.tmp is being written, .NAME.HOST.PROCESS.old.tmp was moved aside
_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[\w-]+)\.(?P<process>\d+)(?P<old>\.old)?\.tmp")


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path` that replaces it, synced to disk, at the end.

    After an error `path` is unchanged and the temporary file or directory is removed. Replacing a
    directory takes two renames: see `restore_directories` for a kill between them. Raises OSError
    when the disk is full, also for writers with an exception of their own for it, such as polars.
    """
    writer = f"{_host()}.{os.getpid()}"
    temporary = path.with_name(f".{path.name}.{writer}.tmp")
    aside = path.with_name(f".{path.name}.{writer}.old.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    restore_directories(path.parent, glob.escape(path.name))
    try:
        yield temporary
        fsync_paths(_files(temporary))
        if temporary.is_dir() and path.exists():
            path.replace(aside)  # a rename cannot replace a directory that has content
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
        for remainder in (temporary, aside):
            if remainder.is_dir():
                shutil.rmtree(remainder)
            else:
                remainder.unlink(missing_ok=True)


def restore_directories(parent: Path, name: str = "*") -> None:
    """Gives directories their names back that a killed writer had moved aside.

    name: a glob pattern. Skips directories that a running process or another host moved, and names
    that are taken. The caller is the writer of these directories: a reader must not call this.
    """
    for aside in parent.glob(f".{name}.*.old.tmp"):
        match = _TEMPORARY.fullmatch(aside.name)
        if match is None or not match["old"] or not is_left_over(aside):
            continue
        path = aside.with_name(match["name"])
        if not path.exists():
            with suppress(OSError):  # another process was faster, or the directory is read-only
                aside.rename(path)


def is_left_over(path: Path) -> bool:
    """Returns whether `path` is a temporary that an ended process of this host left."""
    match = _TEMPORARY.fullmatch(path.name)
    if match is None or match["host"] != _host():
        return False
    return not _is_process_alive(int(match["process"]))


def _host() -> str:
    # without dots, which separate the fields of `_TEMPORARY`
    return re.sub(r"[^\w-]", "-", gethostname())[:64]


def _is_process_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # unknown, such as the process of another user
    return True


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path]


def fsync_paths(paths: Iterable[Path]) -> None:
    """Syncs files or directories to disk."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def file_hash(path: Path) -> str:
    """Returns the SHA-256 of a file in hex; above 16 MiB, `16MiB:` and that of its blocks' hashes.

    Blocks are hashed in parallel, fast enough to check a large index whenever it is opened.
    """
    size = path.stat().st_size
    if size <= BLOCK_BYTES:
        return file_sha256(path)
    with ThreadPoolExecutor(os.cpu_count()) as workers:
        blocks = workers.map(lambda start: _block_sha256(path, start), range(0, size, BLOCK_BYTES))
        return _BLOCK_HASH + hashlib.sha256(b"".join(blocks)).hexdigest()


def is_unchanged(path: Path, written: str) -> bool:
    """Returns whether a file's hash is `written`, from `file_hash` or a plain SHA-256 in hex."""
    return written == (file_hash(path) if written.startswith(_BLOCK_HASH) else file_sha256(path))


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _block_sha256(path: Path, start: int) -> bytes:
    with path.open("rb", buffering=0) as file:
        file.seek(start)
        return hashlib.sha256(file.read(BLOCK_BYTES)).digest()


def escape_csv_cell(value: object) -> object:
    """Cuts text at 5,000 characters, and puts an apostrophe before a formula of a spreadsheet."""
    if not isinstance(value, str):
        return value
    apostrophe = "'" if value.startswith(_FORMULA_STARTS) else ""
    return (apostrophe + value)[:_CELL_LENGTH]  # unchanged by a second call


def write_csv_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Writes a list such as skipped.csv; `escape_csv_cell` is applied to every cell."""
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for row in rows:
            writer.writerow([escape_csv_cell(cell) for cell in row])


def read_csv_rows(path: Path) -> list[list[str]]:
    """Returns the rows of a list such as skipped.csv, header first; cells may have any length."""
    # `csv` refuses long cells unless a limit is raised for every caller in the process
    import polars as pl

    if not path.stat().st_size:
        return []
    frame = pl.read_csv(
        path, has_header=False, infer_schema=False, truncate_ragged_lines=True, glob=False
    )
    return [list(row) for row in frame.fill_null("").iter_rows()]
