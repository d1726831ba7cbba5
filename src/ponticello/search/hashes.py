"""SHA-256 of files, fast enough to check every byte of a large index whenever it is opened.

A file above one block is named by the SHA-256 of its blocks' SHA-256s, so that all processor cores can take part.
"""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BLOCK_BYTES = 16 << 20
_IN_BLOCKS = "16MiB:"


def file_hash(path: Path) -> str:
    """What names the content of `path`: its SHA-256, or of a file above 16 MiB `16MiB:` and that of its blocks'."""
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
