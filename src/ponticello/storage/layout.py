"""The folder that holds everything a user has: where things lie, and how they are written safely.

my-library/
  ponticello.toml        preset and settings
  tracks.parquet         one row a track
  files.parquet          each file that was scanned, as it was read last
  duplicates.csv         scanned tracks that share a recording
  interactions.parquet   one row a listening event
  pairs.parquet          mined (anchor, positive) pairs
  validation-pairs.parquet  the same with held-out tracks, for validation only
  splits.parquet         which track and which moment is held out
  splits-listeners.parquet  each listener's own moments, where splits.events is last-session
  skipped.csv            what could not be used, by step, file and line
  unmatched.csv          what was heard and is not in the catalogue, with what came near
  unmatched-history.parquet  the events of it, kept until it is
  user-salt.txt          what listeners' ids are hashed with
  mels/                  prepared log-mels
  frames/                what MusiCNN hears, after `ponticello tag`; in it a folder for each other
  front end runs/<name>/           one training run index/                 vectors, ready to ask;
  CURRENT names the live generation report/                the last evaluation
"""

import csv
import json
import os
import re
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname

from filelock import FileLock, Timeout

from ponticello.checks import require_list
from ponticello.config import Config
from ponticello.errors import LibraryError
from ponticello.storage.files import _bring_back, atomic_write, escape_csv_cell, read_csv_rows

SETTINGS_FILE = "ponticello.toml"
# characters of a front end's name that its folder keeps, the last; a file system allows 255 bytes
_NAME_LENGTH = 100


@dataclass(frozen=True)
class SkippedRow:
    """One thing that could not be used: where it stands and why. `line` counts from 1, the header
    included.
    """

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
        """What scan remembers of each file."""
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
        """Who is held out."""
        return self.root / "splits.parquet"

    @property
    def skipped(self) -> Path:
        """What could not be used."""
        return self.root / "skipped.csv"

    @property
    def mels(self) -> Path:
        """Prepared log-mels."""
        return self.root / "mels"

    @property
    def frames(self) -> Path:
        """What frozen front ends hear."""
        return self.root / "frames"

    def frames_of(self, front_end: str) -> Path:
        """Where what this front end (as the setting) makes of the tracks is kept."""
        if front_end in ("logmel", "musicnn"):
            return self.mels if front_end == "logmel" else self.frames
        return self.frames / re.sub(r"[^\w.-]+", "-", front_end)[-_NAME_LENGTH:]

    @property
    def index(self) -> Path:
        """Vectors, ready to ask."""
        return self.root / "index"

    @property
    def report(self) -> Path:
        """The last evaluation."""
        return self.root / "report"

    def run(self, name: str) -> Path:
        """The folder of a training run; LibraryError if `name` is not a plain folder name."""
        if not name or name != Path(name).name or name.startswith("."):
            raise LibraryError(f"run name {name!r} must be a plain folder name")
        return self.root / "runs" / name

    @contextmanager
    def lock(self, wait_s: float = 0.0, purpose: str = "writing") -> Iterator[None]:
        """Holds the library for writing.

        purpose: what the library is held for; shown to other processes that are refused.
        LibraryError, with the process that holds it, if that takes longer than `wait_s`.
        """
        holder = self.root / ".lock.json"
        try:
            with FileLock(self.root / ".lock", timeout=wait_s):
                record = {"purpose": purpose, "process": os.getpid(), "host": gethostname()}
                holder.write_text(json.dumps(record), encoding="utf-8")
                try:
                    yield
                finally:
                    holder.unlink(missing_ok=True)
        except Timeout:
            raise LibraryError(
                f"{self.root} is being written by another process{_describe_holder(holder)}; "
                "wait for it to end",
                code="library_locked",
            ) from None

    def record_skipped(self, step: str, rows: Sequence[SkippedRow]) -> None:
        """Replaces what `step` had in skipped.csv by `rows`; other steps' rows stay."""
        header = ["step", "file", "line", "field", "value", "reason"]
        kept: list[list[str]] = []
        if self.skipped.exists():
            kept = [row for row in read_csv_rows(self.skipped)[1:] if row and row[0] != step]
        new = [
            [step, r.file, "" if r.line is None else str(r.line), r.field, r.value, r.reason]
            for r in rows
        ]
        if not kept and not new:
            self.skipped.unlink(missing_ok=True)
            return
        with (
            atomic_write(self.skipped) as temporary,
            temporary.open("w", encoding="utf-8", newline="") as file,
        ):
            csv.writer(file).writerows(
                [header, *kept, *([escape_csv_cell(cell) for cell in row] for row in new)]
            )


def _describe_holder(holder: Path) -> str:
    try:
        record = json.loads(holder.read_text(encoding="utf-8"))
        return f" ({record['purpose']}, process {record['process']} on {record['host']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # the other process has not written it yet, or has just ended


def create_library(root: Path | str, preset: str = "small") -> LibraryPaths:
    """A new, empty library at `root`; LibraryError if one is there already."""
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
    """The library at `root`, with `section.key=value` settings on top of its own; LibraryError if
    there is none.
    """
    root = Path(root)
    if not (root / SETTINGS_FILE).is_file():
        raise LibraryError(
            f"{root} is not a library ({SETTINGS_FILE} is missing)",
            code="no_library",
            remedy=f"ponticello init {shlex.quote(str(root))}",
        )
    for aside in (*root.glob(".*.old.*.tmp"), *root.glob("*/.*.old.*.tmp")):
        _bring_back(aside)
    return LibraryPaths(
        root.resolve(), Config.from_toml(root / SETTINGS_FILE, require_list(settings, "settings"))
    )
