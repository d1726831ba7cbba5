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
  frames/                what MusiCNN hears, after `ponticello tag`; in it a folder for each other front end
  runs/<name>/           one training run
  index/                 vectors, ready to ask; CURRENT names the live generation
  report/                the last evaluation
"""

import csv
import glob
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from ponticello.config import Config
from ponticello.errors import LibraryError, PonticelloError
from ponticello.several import several

SETTINGS_FILE = "ponticello.toml"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_CELL_LENGTH = 5_000  # characters of a list's cell that are kept, any path among them; `csv` reads back 131,072
_NAME_LENGTH = 100  # characters of a front end's name that its folder keeps, the last; a file system allows 255 bytes


@dataclass(frozen=True)
class Skipped:
    """One thing that could not be used: where it stands and why. `line` counts from 1, the header included."""

    file: str
    line: int | None
    field: str
    value: str
    reason: str


@dataclass(frozen=True)
class Folder:
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
    def lock(self, wait_s: float = 0.0) -> Iterator[None]:
        """Holds the library for writing; LibraryError if another process holds it for longer than `wait_s`."""
        try:
            with FileLock(self.root / ".lock", timeout=wait_s):
                yield
        except Timeout:
            raise LibraryError(f"{self.root} is being written by another process; wait for it to end") from None

    def record_skipped(self, step: str, rows: Sequence[Skipped]) -> None:
        """Replaces what `step` had in skipped.csv by `rows`; other steps' rows stay."""
        header = ["step", "file", "line", "field", "value", "reason"]
        kept: list[list[str]] = []
        if self.skipped.exists():
            kept = [row for row in read_list(self.skipped)[1:] if row and row[0] != step]
        new = [[step, r.file, "" if r.line is None else str(r.line), r.field, r.value, r.reason] for r in rows]
        if not kept and not new:
            self.skipped.unlink(missing_ok=True)
            return
        with replacing(self.skipped) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *kept, *([as_cell(cell) for cell in row] for row in new)])


def as_cell(value: object) -> object:
    """A cell that every reader can take: of a text the first 5,000 characters.

    No spreadsheet takes it for a formula: an apostrophe stands in front of a text that looks like one.
    """
    if not isinstance(value, str):
        return value
    return ("'" if value.startswith(_FORMULA) else "") + value[:_CELL_LENGTH]


def read_list(path: Path) -> list[list[str]]:
    """The rows of a list such as skipped.csv, its header first, however long a cell of an older version is."""
    import polars as pl  # `csv` refuses long cells unless a limit is raised for every caller in the process

    if not path.stat().st_size:
        return []
    frame = pl.read_csv(path, has_header=False, infer_schema=False, truncate_ragged_lines=True)
    return [list(row) for row in frame.fill_null("").iter_rows()]


def create_library(root: Path | str, preset: str = "small") -> Folder:
    """A new, empty library at `root`; LibraryError if one is there already."""
    root = Path(root)
    settings = root / SETTINGS_FILE
    if settings.exists():
        raise LibraryError(f"{root} is a library already; use it, or choose another folder")
    if root.exists() and not root.is_dir():
        raise LibraryError(f"{root} is a file; choose another folder")
    config = Config.from_preset(preset)
    root.mkdir(parents=True, exist_ok=True)
    with replacing(settings) as temporary:
        temporary.write_text(f'# Settings of this Ponticello library; see docs/config.md.\npreset = "{preset}"\n')
    return Folder(root.resolve(), config)


def open_library(root: Path | str, settings: Sequence[str] = ()) -> Folder:
    """The library at `root`, with `section.key=value` settings on top of its own; LibraryError if there is none."""
    root = Path(root)
    if not (root / SETTINGS_FILE).is_file():
        raise LibraryError(
            f"{root} is not a library ({SETTINGS_FILE} is missing); make one with: ponticello init {root}"
        )
    for aside in (*root.glob(".*.old.*.tmp"), *root.glob("*/.*.old.*.tmp")):
        _bring_back(aside)
    return Folder(root.resolve(), Config.from_toml(root / SETTINGS_FILE, several(settings, "settings")))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, whole and synced, when the block ends without an error.

    A folder takes two renames; after a kill between them the next writer, or who opens the library, brings the old one
    back. OSError where the disk is full, also from writers that have an exception of their own for it, as polars has.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside = path.with_name(f".{path.name}.old.{os.getpid()}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        for left in path.parent.glob(f".{glob.escape(path.name)}.old.*.tmp"):
            _bring_back(left)
    try:
        yield temporary
        sync(_files(temporary))
        if temporary.is_dir() and path.exists():
            path.replace(aside)  # a folder takes no other's place: two names change, and only then the old one goes
        temporary.replace(path)
        sync([path.parent])
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
    """Gives a folder that was put aside its name again, if its place is free and who put it there has ended."""
    name, _, number = aside.name.removeprefix(".").removesuffix(".tmp").rpartition(".old.")
    path = aside.with_name(name)
    if number.isdigit() and not path.exists() and not is_running(int(number)):
        with suppress(OSError):  # another process was first, or nobody may write here
            aside.rename(path)


def is_running(process: int) -> bool:
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


def sync(paths: Iterable[Path]) -> None:
    """Asks the disk to hold what `paths` (files or folders) contain."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
