"""The folder of a library: where its files are, its lock and its list of skipped rows.

my-library/
  ponticello.toml            preset and settings
  tracks.parquet             one row per track
  files.parquet              each scanned file, as it was last read
  duplicates.csv             scanned tracks that share a recording
  interactions.parquet       one row per listening event
  pairs.parquet              mined (anchor, positive) pairs
  validation-pairs.parquet   the same with held-out tracks, for validation only
  splits.parquet             which tracks and which period are held out
  splits-listeners.parquet   the same moments per listener, if splits.events is last-session
  skipped.csv                what could not be used, by step, file and line
  unmatched.csv              entries of a history without a track, with the closest ones
  unmatched-history.parquet  their events, kept until there is one
  user-salt.txt              the salt of the listeners' pseudonyms
  mels/                      prepared log-mels
  frames/                    MusiCNN's features, and a folder for each other front end
  runs/<name>/               one training run
  index/                     search indexes; CURRENT names the live one
  report/                    the last evaluation
"""

import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from socket import gethostname

from filelock import FileLock, Timeout

from ponticello.checks import require_list
from ponticello.config import Config
from ponticello.errors import LibraryError
from ponticello.storage.files import (
    atomic_write,
    read_csv_rows,
    restore_directories,
    write_csv_rows,
)

SETTINGS_FILE = "ponticello.toml"
# last characters of a front end's name that name its folder; a file system allows 255 bytes
_NAME_LENGTH = 100


@dataclass(frozen=True)
class SkippedRow:
    """A row or file that could not be used, and why. `line` counts from 1, the header included."""

    file: str
    line: int | None
    field: str
    value: str
    reason: str


class _PathInside:
    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, library: "LibraryPaths", owner: type) -> Path:
        return library.root / self._name


@dataclass(frozen=True)
class LibraryPaths:
    """The paths of one library. Make one with `create_library` or `open_library`."""

    root: Path
    config: Config

    # The docstring of this module describes them.
    tracks = _PathInside("tracks.parquet")
    files = _PathInside("files.parquet")
    duplicates = _PathInside("duplicates.csv")
    interactions = _PathInside("interactions.parquet")
    pairs = _PathInside("pairs.parquet")
    validation_pairs = _PathInside("validation-pairs.parquet")
    splits = _PathInside("splits.parquet")
    skipped = _PathInside("skipped.csv")
    unmatched = _PathInside("unmatched.csv")
    unmatched_history = _PathInside("unmatched-history.parquet")
    mels = _PathInside("mels")
    frames = _PathInside("frames")
    index = _PathInside("index")
    report = _PathInside("report")

    def frames_of(self, front_end: str) -> Path:
        """Returns the folder of a front end's features; `front_end` as in the settings."""
        if front_end == "logmel":
            return self.mels
        if front_end == "musicnn":
            return self.frames
        return self.frames / re.sub(r"[^\w.-]+", "-", front_end)[-_NAME_LENGTH:]

    def run(self, name: str) -> Path:
        """Returns the folder of a training run; LibraryError unless `name` is a folder name."""
        if not name or name != Path(name).name or name.startswith("."):
            raise LibraryError(f"run name {name!r} must be a plain folder name")
        return self.root / "runs" / name

    def lacks(self, what: str, code: str, remedy: str) -> LibraryError:
        """Returns the error for data that the library does not have yet; remedy: the command."""
        message = f"{self.root} has no {what}"
        return LibraryError(message, code=code, remedy=remedy, library=self.root)

    @contextmanager
    def lock(self, wait_s: float = 0.0, purpose: str = "writing") -> Iterator[None]:
        """Holds the library for writing; first undoes what a killed writer of this host left
        halfway.

        purpose: shown to other processes that are refused.
        LibraryError (library_locked) if another process holds it for longer than `wait_s`.
        """
        lock = FileLock(self.root / ".lock", timeout=wait_s)
        holder = self.root / ".lock.json"
        try:
            lock.acquire()
        except Timeout:
            raise LibraryError(
                f"{self.root} is being written by another process{_describe_holder(holder)}; "
                "wait for it to end",
                code="library_locked",
            ) from None
        try:
            record = {
                "purpose": purpose,
                "process": os.getpid(),
                "host": gethostname(),
                "since": datetime.now(UTC).isoformat(" ", "seconds"),
            }
            holder.write_text(json.dumps(record), encoding="utf-8")
            restore_directories(self.root)
            for parent in self.root.glob("*/"):
                restore_directories(parent)
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()

    def record_skipped(self, step: str, rows: Sequence[SkippedRow]) -> None:
        """Replaces the rows of `step` in skipped.csv; the rows of other steps stay."""
        lines: list[Sequence[object]] = []
        if self.skipped.exists():
            lines += [line for line in read_csv_rows(self.skipped)[1:] if line and line[0] != step]
        for row in rows:
            lines.append([step, row.file, row.line, row.field, row.value, row.reason])
        if lines:
            header = ["step", "file", "line", "field", "value", "reason"]
            write_csv_rows(self.skipped, header, lines)
        else:
            self.skipped.unlink(missing_ok=True)


def _describe_holder(holder: Path) -> str:
    try:
        record = json.loads(holder.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""  # the other process has not written it yet, or has just ended
    process = f"process {record['process']} on {record['host']}"
    return f" ({record['purpose']}, {process}, since {record['since']})"


def create_library(root: Path | str, preset: str = "small") -> LibraryPaths:
    """Creates an empty library at `root`; LibraryError if there is one already."""
    root = Path(root)
    settings = root / SETTINGS_FILE
    if settings.exists():
        raise LibraryError(
            f"{root} is a library already; use it, or choose another folder", code="library_exists"
        )
    if root.exists() and not root.is_dir():
        raise LibraryError(f"{root} is a file; choose another folder")
    config = Config.from_preset(preset)
    root.mkdir(parents=True, exist_ok=True)
    with atomic_write(settings) as temporary:
        temporary.write_text(
            f'# Settings of this Ponticello library; see docs/config.md.\npreset = "{preset}"\n'
        )
    return LibraryPaths(root.resolve(), config)


def open_library(root: Path | str, settings: Sequence[str] = ()) -> LibraryPaths:
    """Opens the library at `root` and changes no file; LibraryError if there is none.

    settings: `section.key=value` strings that override those of ponticello.toml.
    """
    root = Path(root)
    if not (root / SETTINGS_FILE).is_file():
        raise LibraryError(
            f"{root} is not a library ({SETTINGS_FILE} is missing)",
            code="no_library",
            remedy=f"ponticello init {shlex.quote(str(root))}",
        )
    return LibraryPaths(
        root.resolve(), Config.from_toml(root / SETTINGS_FILE, require_list(settings, "settings"))
    )
