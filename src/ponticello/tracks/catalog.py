"""The catalogue: tracks come in from a table or a list of audio files, and are read back complete."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import polars as pl

from ponticello.errors import DataError, LibraryError
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths, SkippedRow
from ponticello.storage.schema import PATH, TITLE, TRACK_ID, TRACKS, Table
from ponticello.storage.tables import lines_of, read_parquet
from ponticello.storage.validation import DTYPES, ImportResult, read_numbered

LIST_SUFFIXES = (".txt", ".m3u", ".m3u8")
_STEP = "import-tracks"
_SLUG_LENGTH = 60  # characters of a path that stay readable in an id
_HASH_LENGTH = (
    16  # hex digits of its hash in an id, 64 bits: deep folders give thousands of files one slug
)


def import_tracks(
    folder: LibraryPaths,
    path: Path,
    *,
    audio_root: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> ImportResult:
    """Adds the tracks of a table to the library, and replaces those whose id it knows; bad rows go
    to skipped.csv.

    audio_root: what a relative `path` starts from; the table's own folder if None. Such a path may
    not leave it.
    columns: our column name -> the table's own, as in {"path": "file"}.
    An update sets every column the table has (an empty cell empties it) and leaves the others as
    they were. A row without `path` is a track without audio.

    DataError: see `read_table`; audio_root is no folder. LibraryError: another process is writing.

        import_tracks(folder, Path("tracks.csv"), columns={"path": "file", "genres": "genre"})
    """
    root = (audio_root or path.parent).resolve()
    if audio_root and not root.is_dir():
        raise DataError(f"audio folder {audio_root} is not a folder; check the path")
    frame, lines, skipped = read_numbered(path, TRACKS, columns)
    if PATH in frame.columns:
        located = [
            ("", "") if value is None else _locate(folder, root, value) for value in frame[PATH]
        ]
        for line, value, (_, reason) in zip(lines, frame[PATH], located, strict=True):
            if reason:
                skipped.append(SkippedRow(path.name, line, PATH, value, reason))
        stored = pl.Series(PATH, [stored or None for stored, _ in located], pl.String)
        is_good = pl.Series([not reason for _, reason in located], dtype=pl.Boolean)
        frame = frame.with_columns(stored).filter(is_good)
    return _upsert(folder, frame, skipped, path.name)


def import_track_list(folder: LibraryPaths, path: Path) -> ImportResult:
    """Adds the audio files named in a text file or playlist, one a line, to the library.

    Relative paths start from the list's folder and may not leave it; empty lines and lines with `#`
    are ignored.
    track_id: the path relative to that folder as a slug, and 16 hex digits of its SHA-256. title:
    the file's name.

    DataError: the list is not a .txt, .m3u or .m3u8 file. LibraryError: another process is writing.

        import_track_list(folder, Path("music/all.m3u8"))
    """
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise DataError(
            f"{path.name}: cannot read {path.suffix!r} as a list; use {', '.join(LIST_SUFFIXES)}"
        )
    if not path.is_file():
        raise DataError(f"{path} is not a file; check the path")
    lines, not_utf8 = lines_of(path.read_bytes())
    rows: dict[str, dict[str, str]] = {}
    first: dict[str, int] = {}
    skipped: list[SkippedRow] = []
    for number, value in enumerate((line.strip() for line in lines), 1):
        if not value or value.startswith("#"):
            continue
        if number in not_utf8:
            shown = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            skipped.append(SkippedRow(path.name, number, "", shown, "is not UTF-8"))
            continue
        stored, reason = _locate(folder, path.parent.resolve(), value)
        track_id = _list_id(Path(os.path.relpath(path.parent / value, path.parent)).as_posix())
        if track_id in first:
            reason = f"repeats the file of line {first[track_id]}"
        if reason:
            skipped.append(SkippedRow(path.name, number, PATH, value, reason))
            continue
        first[track_id] = number
        rows[track_id] = {TRACK_ID: track_id, PATH: stored, TITLE: _readable(Path(value).stem)}
    frame = pl.DataFrame(
        list(rows.values()), schema=dict.fromkeys((TRACK_ID, PATH, TITLE), pl.String)
    )
    return _upsert(folder, frame, skipped, path.name)


def read_tracks(folder: LibraryPaths) -> pl.DataFrame:
    """The catalogue, one row a track, with every column of `TRACKS` (null where nothing is known).

    LibraryError: nothing was imported yet, or the file is damaged.
    """
    if not folder.tracks.is_file():
        raise LibraryError(
            f"{folder.root} has no tracks",
            code="no_tracks",
            remedy="ponticello scan MUSIC",
            library=folder.root,
        )
    return fill_columns(read_stored_table(folder.tracks), TRACKS)


def audio_path(folder: LibraryPaths, path: str) -> Path:
    """Where the audio of a catalogue row lies: its `path` column, seen from the library."""
    return folder.root / path


def audio_files(folder: LibraryPaths) -> dict[str, Path]:
    """{track_id: its audio file} of the tracks that have one."""
    rows = read_tracks(folder).select(TRACK_ID, PATH).drop_nulls().iter_rows()
    return {track_id: audio_path(folder, path) for track_id, path in rows}


def read_stored_table(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A table this library wrote, or only `columns` of it; LibraryError if it cannot be read."""
    try:
        return read_parquet(path, "it", columns)
    except DataError as error:
        raise LibraryError(f"{path} is damaged ({error}); delete it and import again") from None


def fill_columns(frame: pl.DataFrame, table: Table) -> pl.DataFrame:
    """`frame` with the columns of `table` that it lacks, filled with nulls."""
    missing = {column: kind for column, kind in table.kinds.items() if column not in frame.columns}
    return frame.with_columns(
        [pl.lit(None, DTYPES[kind]).alias(column) for column, kind in missing.items()]
    )


def concat_tables(old: pl.DataFrame, new: pl.DataFrame, name: str) -> pl.DataFrame:
    """The rows and columns of both; DataError if a further column of the file `name` has changed
    its type.
    """
    try:
        return pl.concat([old, new], how="diagonal_relaxed")
    except pl.exceptions.PolarsError:
        for column in [column for column in new.columns if column in old.columns]:
            found, wanted = new[column].dtype, old[column].dtype
            if found.is_nested() != wanted.is_nested() or (found.is_nested() and found != wanted):
                message = f"{name}: column {column!r} is {found} but {wanted} in the library; give it the same type"
                raise DataError(message) from None
        raise


def merge_tracks(folder: LibraryPaths, new: pl.DataFrame, name: str) -> tuple[int, int]:
    """Adds rows with distinct ids to tracks.parquet, replacing those it has; gives (n_updated,
    n_total).

    The caller holds `folder.lock()`. name: what an error calls these rows.
    """
    old = read_stored_table(folder.tracks) if folder.tracks.is_file() else new.clear()
    n_updated = new.join(old, on=TRACK_ID, how="semi").height
    kept = [column for column in old.columns if column not in new.columns]
    ids = pl.concat([old.select(TRACK_ID), new.select(TRACK_ID)]).unique(maintain_order=True)
    new = new.join(old.select(TRACK_ID, *kept), on=TRACK_ID, how="left")
    rows = concat_tables(old.join(new, on=TRACK_ID, how="anti"), new, name)
    rows = ids.join(rows, on=TRACK_ID, how="left", maintain_order="left")
    with atomic_write(folder.tracks) as temporary:
        rows.write_parquet(temporary, compression="zstd")
    return n_updated, rows.height


def _upsert(
    folder: LibraryPaths, new: pl.DataFrame, skipped: list[SkippedRow], name: str
) -> ImportResult:
    with folder.lock():
        n_updated, n_total = merge_tracks(folder, new, name)
        folder.record_skipped(_STEP, sorted(skipped, key=lambda row: row.line or 0))
    return ImportResult(new.height - n_updated, n_updated, len(skipped), n_total)


def _locate(folder: LibraryPaths, root: Path, value: str) -> tuple[str, str]:
    """(the path as stored, why it cannot be): relative to the library when inside it, else
    absolute.
    """
    try:
        target = (root / value).resolve()
        if not Path(value).is_absolute() and not target.is_relative_to(root):
            return "", f"leaves the audio folder {root.as_posix()}"
        if not target.exists():
            return "", f"does not exist ({target.as_posix()})"
        if not target.is_file():
            return "", "is not a regular file"
    except (OSError, RuntimeError, ValueError) as error:
        return "", f"is not a usable path: {error}"
    return (
        target.relative_to(folder.root) if target.is_relative_to(folder.root) else target
    ).as_posix(), ""


def _list_id(relative: str) -> str:
    relative = unicodedata.normalize("NFC", relative)
    slug = (
        re.sub(r"[\W_]+", "-", str(Path(relative).with_suffix("")).casefold())
        .strip("-")[:_SLUG_LENGTH]
        .strip("-")
    )
    return f"{slug}-{hashlib.sha256(relative.encode()).hexdigest()[:_HASH_LENGTH]}".lstrip("-")


def _readable(stem: str) -> str:
    """A file name as a title: `03_slow-piano` becomes `slow piano`."""
    title = " ".join(stem.replace("_", " ").split())
    title = re.sub(r"^\d{1,3}(?:[.\-)]\s*|\s+(?:-\s+)?)", "", title) or title
    return title if " " in title else title.replace("-", " ").strip() or stem
