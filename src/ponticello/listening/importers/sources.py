"""A file, a folder or a zip as the files in it. A zip's members are read where they are, never
unpacked to disk.
"""

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from ponticello.errors import DataError

_TEXTS = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".csv",
    ".tsv",
    ".txt",
    ".m3u",
    ".m3u8",
    ".xspf",
    ".jspf",
    ".pls",
)
_BINARIES = (".parquet", ".db", ".sqlite", ".sqlite3", ".blb", ".zip")
SUFFIXES = frozenset(_TEXTS + _BINARIES)
HEAD_BYTES = 65_536  # read by `detect_format`
# Beyond these a zip is taken for a bomb. Real exports shrink to a twentieth; the largest hold some
# gigabytes.
_PIECE_BYTES = 8192  # of a damaged member at most so much is lost before the damage
MOST_MEMBERS = 100_000
MOST_BYTES = 32 << 30
MOST_RATIO = 200
_RATIO_FROM_BYTES = 16 << 20  # a small file may shrink to almost 0


@dataclass(frozen=True)
class HistoryFile:
    """One file of a history.

    name: as lists show it. path: None in a zip. modified_us: since 1970. damage: faults of its zip,
    once the file was read.
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
    archives: list[zipfile.ZipFile] = []
    try:
        listed: list[HistoryFile] = []
        for source in files:
            if source.suffix == ".zip" or source.head()[:4] == b"PK\x03\x04":
                archives.append(_archive(cast("Path", source.path), source.name))
                listed += _members(archives[-1], source, source.name if path.is_dir() else "")
            else:
                listed.append(source)
        yield listed
    finally:
        for archive in archives:
            archive.close()


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
    return HistoryFile(
        name, path, status.st_size, status.st_mtime_ns // 1000, lambda: path.open("rb")
    )


def _archive(path: Path, name: str) -> zipfile.ZipFile:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise DataError(
            f"{name} is not a readable zip ({error}); "
            "get it again, or unpack it and pass the folder"
        ) from None
    members = archive.infolist()
    reason = ""
    packed = sum(member.compress_size for member in members)
    if len(members) > MOST_MEMBERS:
        reason = f"holds {len(members):,} files"
    elif sum(member.file_size for member in members) > MOST_BYTES or packed > path.stat().st_size:
        reason = "says it holds more than an export can"
    elif bomb := next((member for member in members if _is_bomb(member)), None):
        reason = (
            f"holds {bomb.filename!r}, {bomb.file_size:,} bytes packed into {bomb.compress_size:,}"
        )
    elif locked := next((member for member in members if member.flag_bits & 0x1), None):
        archive.close()
        raise DataError(
            f"{name}: {locked.filename!r} is encrypted; unpack it yourself and pass the folder"
        )
    if reason:
        archive.close()
        raise DataError(
            f"{name} {reason}, and is not read; if you trust it, unpack it and pass the folder"
        )
    return archive


def _is_bomb(member: zipfile.ZipInfo) -> bool:
    return member.file_size > _RATIO_FROM_BYTES and member.file_size > MOST_RATIO * max(
        member.compress_size, 1
    )


def _members(archive: zipfile.ZipFile, outer: HistoryFile, name: str) -> list[HistoryFile]:
    files = []
    for member in sorted(archive.infolist(), key=lambda member: member.filename):
        inside = PurePosixPath(member.filename.replace("\\", "/"))
        if member.is_dir() or inside.suffix.lower() not in SUFFIXES - {".zip"}:
            continue
        if any(part.startswith(".") or part == "__MACOSX" for part in inside.parts):
            continue  # also `..`: a name that leaves the zip is none that an exporter writes
        shown = f"{name}/{inside}" if name else str(inside)
        damage: list[str] = []
        opens = partial(_open, archive, member, damage)
        modified_us = _zip_time(member) or outer.modified_us
        files.append(HistoryFile(shown, None, member.file_size, modified_us, opens, damage))
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
    """A zip's member up to its first damage, which is added to `damage`.

    The checksum is checked with the last piece; if it is wrong, that piece is lost.
    """

    def __init__(self, stream: IO[bytes], size: int, damage: list[str]) -> None:
        self._stream, self._left, self._damage = stream, size, damage

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read(min(len(buffer), _PIECE_BYTES, self._left))
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            self._damage[:] = [str(error)]
            data = b""
        self._left = self._left - len(data) if data else 0
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def _zip_time(member: zipfile.ZipInfo) -> int:
    """Returns microseconds since 1970; 0 for a date of 1980, which zips write for none."""
    if member.date_time[0] <= 1980:
        return 0
    try:
        year, month, day, hour, minute, second = member.date_time
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        return int(moment.timestamp()) * 1_000_000
    except ValueError:
        return 0
