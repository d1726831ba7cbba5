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

import csv
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
    escape_csv_cell,
    read_csv_rows,
    restore_directories,
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


@dataclass(frozen=True)
class LibraryPaths:
    """The paths of one library. Make one with `create_library` or `open_library`."""

    root: Path
    config: Config

    @property
    def tracks(self) -> Path:
        """The catalogue."""
        return self.root / "tracks.parquet"

    @property
    def files(self) -> Path:
        """Each scanned file."""
        return self.root / "files.parquet"

    @property
    def duplicates(self) -> Path:
        """Scanned tracks that share a recording."""
        return self.root / "duplicates.csv"

    @property
    def interactions(self) -> Path:
        """The listening log."""
        return self.root / "interactions.parquet"

    @property
    def pairs(self) -> Path:
        """Mined pairs, for training."""
        return self.root / "pairs.parquet"

    @property
    def validation_pairs(self) -> Path:
        """Mined pairs with held-out tracks."""
        return self.root / "validation-pairs.parquet"

    @property
    def splits(self) -> Path:
        """Held-out tracks and moments."""
        return self.root / "splits.parquet"

    @property
    def skipped(self) -> Path:
        """Rows and files that could not be used."""
        return self.root / "skipped.csv"

    @property
    def mels(self) -> Path:
        """Prepared log-mels."""
        return self.root / "mels"

    @property
    def frames(self) -> Path:
        """Features of frozen front ends."""
        return self.root / "frames"

    def frames_of(self, front_end: str) -> Path:
        """Returns the folder of a front end's features; `front_end` as in the settings."""
        if front_end in ("logmel", "musicnn"):
            return self.mels if front_end == "logmel" else self.frames
        return self.frames / re.sub(r"[^\w.-]+", "-", front_end)[-_NAME_LENGTH:]

    @property
    def index(self) -> Path:
        """Search indexes."""
        return self.root / "index"

    @property
    def report(self) -> Path:
        """The last evaluation."""
        return self.root / "report"

    def run(self, name: str) -> Path:
        """Returns the folder of a training run; LibraryError unless `name` is a folder name."""
        if not name or name != Path(name).name or name.startswith("."):
            raise LibraryError(f"run name {name!r} must be a plain folder name")
        return self.root / "runs" / name

    @contextmanager
    def lock(self, wait_s: float = 0.0, purpose: str = "writing") -> Iterator[None]:
        """Holds the library for writing.

        Directories that a killed writer of this host had moved aside get their names back first.

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
            number = "" if row.line is None else str(row.line)
            cells = [step, row.file, number, row.field, row.value, row.reason]
            lines.append([escape_csv_cell(cell) for cell in cells])
        if not lines:
            self.skipped.unlink(missing_ok=True)
            return
        with (
            atomic_write(self.skipped) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.writer(file)
            writer.writerow(["step", "file", "line", "field", "value", "reason"])
            writer.writerows(lines)


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
