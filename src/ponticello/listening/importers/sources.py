"""Opens a file, a folder or a zip as the files in it; zips are never unpacked to disk."""

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO

from ponticello.errors import DataError

_TEXTS = ".json .jsonl .ndjson .csv .tsv .txt .m3u .m3u8 .xspf .jspf .pls"
_BINARIES = ".parquet .db .sqlite .sqlite3 .blb .zip"
SUFFIXES = frozenset(_TEXTS.split() + _BINARIES.split())
_ZIP_MAGIC = b"PK\x03\x04"
HEAD_BYTES = 65_536  # read by `detect_format`
_PIECE_BYTES = 8192  # the most that is lost of a damaged member before the damage
# Beyond these a zip is taken for a bomb. Real exports shrink to a twentieth; the largest hold some
# gigabytes.
MOST_MEMBERS = 100_000
MOST_BYTES = 32 << 30
MOST_RATIO = 200
_RATIO_FROM_BYTES = 16 << 20  # a small file may shrink to almost 0


@dataclass(frozen=True)
class HistoryFile:
    """One file of a history.

    name: for lists and errors. path: None in a zip. modified_us: since 1970. damage: faults of its
    zip, known after reading.
    """

    name: str
    path: Path | None
    size: int
    modified_us: int
    open: Callable[[], BinaryIO]
    damage: list[str] = field(default_factory=list, compare=False)

    def head(self) -> bytes:
        """Returns the first 64 KiB."""
        with self.open() as stream:
            return stream.read(HEAD_BYTES)

    @property
    def suffix(self) -> str:
        """The file's ending, in lower case."""
        return PurePosixPath(self.name).suffix.lower()


@contextmanager
def open_sources(path: Path) -> Iterator[list[HistoryFile]]:
    """Yields the file at `path`, the files of a zip, or those of a folder and of its zips, by name.

    In a folder and in a zip, hidden files, links and files with other endings than `SUFFIXES` are
    skipped. DataError: no such path; a zip that is damaged, encrypted, or larger inside than an
    export can be.
    """
    if path.is_dir():
        files = [_file(file, file.relative_to(path).as_posix()) for file in _files(path)]
    elif path.is_file():
        files = [_file(path, path.name)]
    else:
        raise DataError(f"{path} is not a file or folder; check the path")
    sources: list[HistoryFile] = []
    with ExitStack() as archives:
        for file in files:
            if file.path is not None and (file.suffix == ".zip" or file.head()[:4] == _ZIP_MAGIC):
                archive = archives.enter_context(_open_zip(file.path, file.name))
                _check_zip(archive, file)
                sources += _members(archive, file, f"{file.name}/" if path.is_dir() else "")
            else:
                sources.append(file)
        yield sources


def _files(folder: Path) -> list[Path]:
    files = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(root) / name
            if name.startswith(".") or path.suffix.lower() not in SUFFIXES:
                continue
            if path.is_file() and not path.is_symlink():
                files.append(path)
    return sorted(files)


def _file(path: Path, name: str) -> HistoryFile:
    status = path.stat()
    modified_us = status.st_mtime_ns // 1000
    return HistoryFile(name, path, status.st_size, modified_us, lambda: path.open("rb"))


def _open_zip(path: Path, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(
            f"{name} is not a readable zip ({error}); "
            "get it again, or unpack it and pass the folder"
        ) from None


def _check_zip(archive: zipfile.ZipFile, file: HistoryFile) -> None:
    """Raises DataError for a zip that is encrypted, or larger inside than an export can be."""
    members = archive.infolist()
    n_packed_bytes = sum(member.compress_size for member in members)
    n_bytes = sum(member.file_size for member in members)
    reason = ""
    if len(members) > MOST_MEMBERS:
        reason = f"holds {len(members):,} files"
    elif n_bytes > MOST_BYTES or n_packed_bytes > file.size:
        reason = "says it holds more than an export can"
    for member in members:
        if member.flag_bits & 0x1:
            raise DataError(
                f"{file.name}: {member.filename!r} is encrypted; "
                "unpack it yourself and pass the folder"
            )
        most_bytes = max(_RATIO_FROM_BYTES, MOST_RATIO * max(member.compress_size, 1))
        if member.file_size > most_bytes:
            sizes = f"{member.file_size:,} bytes packed into {member.compress_size:,}"
            reason = reason or f"holds {member.filename!r}, {sizes}"
    if reason:
        raise DataError(
            f"{file.name} {reason}, and is not read; if you trust it, unpack it and pass the folder"
        )


def _members(archive: zipfile.ZipFile, outer: HistoryFile, prefix: str) -> list[HistoryFile]:
    files = []
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if member.is_dir() or path.suffix.lower() not in SUFFIXES - {".zip"}:
            continue
        # Also leaves out `..`: exporters write no name that leaves the zip.
        if any(name.startswith(".") or name == "__MACOSX" for name in path.parts):
            continue
        damage: list[str] = []
        open_member = partial(_open, archive, member, damage)
        modified_us = _zip_time_us(member) or outer.modified_us
        files.append(
            HistoryFile(f"{prefix}{path}", None, member.file_size, modified_us, open_member, damage)
        )
    return files


def _open(archive: zipfile.ZipFile, member: zipfile.ZipInfo, damage: list[str]) -> BinaryIO:
    try:
        return io.BufferedReader(
            _Member(archive.open(member), member.file_size, damage), HEAD_BYTES
        )
    except (zipfile.BadZipFile, NotImplementedError) as error:
        damage.append(str(error))
        return io.BytesIO()


class _Member(io.RawIOBase):
    """A zip's member up to its first damage, which is added to `damage`."""

    def __init__(self, stream: IO[bytes], size: int, damage: list[str]) -> None:
        self._stream = stream
        self._n_left = size
        self._damage = damage

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(min(len(buffer), _PIECE_BYTES, self._n_left))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            self._damage[:] = [str(error)]
            data = b""
        self._n_left = self._n_left - len(data) if data else 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _zip_time_us(member: zipfile.ZipInfo) -> int:
    """Returns microseconds since 1970; 0 for a date of 1980, which zips write for none."""
    if member.date_time[0] <= 1980:
        return 0
    try:
        return int(datetime(*member.date_time, tzinfo=UTC).timestamp()) * 1_000_000
    except ValueError:
        return 0
