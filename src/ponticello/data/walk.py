"""The sound files under a folder, found without opening one: names, sizes and times.

Links are followed, after everything that is really there, and each folder and file is taken once: loops end. Names that
begin with a dot are left out: what they name is a system's, not a listener's (`._song.mp3`, `.Trash`).
"""

import os
import stat
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

# Named like sound. What the file really is, its content says later; those that no decoder here reads are then refused.
# fmt: off
SUFFIXES = frozenset({
    ".mp3", ".mp2", ".flac", ".ogg", ".oga", ".opus", ".spx", ".m4a", ".m4b", ".mp4", ".aac", ".wav", ".wave", ".aif",
    ".aiff", ".aifc", ".wma", ".asf", ".au", ".caf", ".w64", ".ape", ".wv", ".mpc", ".tta", ".dsf", ".dff", ".mka",
    ".ra", ".rm", ".amr",
})
# fmt: on


@dataclass(frozen=True)
class FoundFile:
    """path: absolute, by the way it was found. size: bytes."""

    path: str
    size: int
    mtime_ns: int


@dataclass
class Walk:
    """What a folder holds. refused: (path, why) of what cannot be taken; ignored: how many files of other suffixes."""

    files: list[FoundFile] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)
    ignored: Counter[str] = field(default_factory=Counter)


def find_sounds(root: Path, on_folder: Callable[[int], None] | None = None) -> Walk:
    """The sound files under `root`, by path. on_folder: called after each folder with the number of files so far.

    Memory: some 300 bytes a file. Nothing is opened, so no pipe or device can hold it up.
    """
    walk = Walk()
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
    walk: Walk,
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
    """When a file was changed, in ns since 1970; held to the 64 bits of a table, which end in 1677 and 2262."""
    return max(-(2**63), min(status.st_mtime_ns, 2**63 - 1))


def _entries(path: str) -> Iterator[os.DirEntry[str]]:
    with os.scandir(path) as entries:
        yield from (entry for entry in entries if not entry.name.startswith("."))


def _take_file(walk: Walk, path: str, status: os.stat_result, files: set[tuple[int, int]]) -> None:
    suffix = os.path.splitext(path)[1].lower()  # noqa: PTH122  # 100,000 times
    if suffix not in SUFFIXES:
        walk.ignored[suffix] += 1
    elif not stat.S_ISREG(status.st_mode):
        walk.refused.append((path, "is a device or pipe, not a file"))
    elif _is_unicode(walk, path):
        files.add(_identity(status))
        walk.files.append(FoundFile(path, status.st_size, modified_ns(status)))


def _take_link(
    walk: Walk,
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


def _is_unicode(walk: Walk, path: str) -> bool:
    """Whether a table can hold this name; if not, it is refused."""
    try:
        path.encode()
    except UnicodeEncodeError:
        walk.refused.append((path, "its name is not valid Unicode (UTF-8); rename it"))
        return False
    return True
