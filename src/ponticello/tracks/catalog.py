"""The catalogue, tracks.parquet: imports tracks from tables and lists of files, and reads them."""

import hashlib
import os
import re
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import polars as pl

from ponticello.errors import DataError, LibraryError
from ponticello.storage.layout import LibraryPaths, SkippedRow
from ponticello.storage.schema import PATH, TITLE, TRACK_ID, TRACKS, Table
from ponticello.storage.tables import lines_of, read_parquet, write_parquet
from ponticello.storage.validation import DTYPES, ImportResult, read_table
from ponticello.tracks.names import slugify

LIST_SUFFIXES = (".txt", ".m3u", ".m3u8")
_STEP = "import-tracks"
_SLUG_LENGTH = 60  # characters of a path that stay readable in an id
_HASH_LENGTH = 16  # hex digits, 64 bits: thousands of files in deep folders share a slug
Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


class _UnusablePath(Exception):
    """A path cannot be stored in the catalogue; the message is the reason for skipped.csv."""


def import_tracks(
    folder: LibraryPaths,
    path: Path,
    *,
    audio_root: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> ImportResult:
    """Adds the tracks of a table to the library and updates known ones; bad rows go to skipped.csv.

    audio_root: the folder that relative paths start from and may not leave; None: the table's.
    columns: our column name -> the table's, as in {"path": "file"}.
    An update sets every column that the table has (an empty cell empties it) and keeps the others.
    A row without `path` is a track without audio.

    DataError: see `read_table`; audio_root is not a folder.
    """
    root = (audio_root or path.parent).resolve()
    if audio_root and not root.is_dir():
        raise DataError(f"audio folder {audio_root} is not a folder; check the path")
    tracks, lines, skipped = read_table(path, TRACKS, columns)
    if PATH in tracks.columns:
        stored_paths: list[str | None] = []
        is_usable = []
        for line, value in zip(lines, tracks[PATH], strict=True):
            try:
                stored_paths.append(None if value is None else _stored_path(folder, root, value))
                is_usable.append(True)
            except _UnusablePath as error:
                skipped.append(SkippedRow(path.name, line, PATH, value, str(error)))
                stored_paths.append(None)
                is_usable.append(False)
        tracks = tracks.with_columns(pl.Series(PATH, stored_paths, pl.String))
        tracks = tracks.filter(pl.Series(is_usable, dtype=pl.Boolean))
    return _import_rows(folder, tracks, skipped, path.name)


def import_track_list(folder: LibraryPaths, path: Path) -> ImportResult:
    """Adds the audio files that a text file or playlist names, one per line, to the library.

    Relative paths start from the list's folder and may not leave it; empty lines and lines with `#`
    are ignored. A track's id is the slug of its path relative to that folder, with 16 hex digits of
    the path's SHA-256. DataError: the list is not a .txt, .m3u or .m3u8 file.
    """
    if path.suffix.lower() not in LIST_SUFFIXES:
        raise DataError(
            f"{path.name}: cannot read {path.suffix!r} as a list; use {', '.join(LIST_SUFFIXES)}"
        )
    if not path.is_file():
        raise DataError(f"{path} is not a file; check the path")
    lines, not_utf8 = lines_of(path.read_bytes())
    root = path.parent.resolve()
    rows: list[tuple[str, str, str]] = []
    first_lines: dict[str, int] = {}
    skipped: list[SkippedRow] = []
    for number, line in enumerate(lines, 1):
        value = line.strip()
        if not value or value.startswith("#"):
            continue
        if number in not_utf8:
            printable = value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
            skipped.append(SkippedRow(path.name, number, "", printable, "is not UTF-8"))
            continue
        track_id = _id_of_listed_file(os.path.relpath(path.parent / value, path.parent))
        try:
            if track_id in first_lines:
                raise _UnusablePath(f"repeats the file of line {first_lines[track_id]}")
            rows.append((track_id, _stored_path(folder, root, value), _title_of_file(value)))
        except _UnusablePath as error:
            skipped.append(SkippedRow(path.name, number, PATH, value, str(error)))
        else:
            first_lines[track_id] = number
    schema = dict.fromkeys((TRACK_ID, PATH, TITLE), pl.String)
    tracks = pl.DataFrame(rows, schema=schema, orient="row")
    return _import_rows(folder, tracks, skipped, path.name)


def read_tracks(folder: LibraryPaths) -> pl.DataFrame:
    """Returns the catalogue with every column of `TRACKS`; LibraryError if there is none."""
    if not folder.tracks.is_file():
        raise folder.lacks("tracks", "no_tracks", "ponticello scan MUSIC")
    return fill_columns(read_stored_table(folder.tracks), TRACKS)


def audio_path(folder: LibraryPaths, path: str) -> Path:
    """Returns the audio file of a catalogue row from its `path` column."""
    return folder.root / path


def audio_files(folder: LibraryPaths) -> dict[str, Path]:
    """Returns {track_id: audio file} of the tracks that have one."""
    rows = read_tracks(folder).select(TRACK_ID, PATH).drop_nulls().iter_rows()
    return {track_id: audio_path(folder, path) for track_id, path in rows}


def read_stored_table(path: Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """Reads a table that this library wrote, or only `columns`; LibraryError if it is damaged."""
    try:
        return read_parquet(path, "it", columns)
    except DataError as error:
        raise LibraryError(f"{path} is damaged ({error}); delete it and import again") from None


def fill_columns(frame: Frame, table: Table) -> Frame:
    """Adds the columns of `table` that `frame` lacks, filled with nulls."""
    columns = frame.collect_schema().names()
    missing = []
    for column, kind in table.kinds.items():
        if column not in columns:
            missing.append(pl.lit(None, DTYPES[kind]).alias(column))
    return frame.with_columns(missing)


def concat_tables(old: pl.DataFrame, new: pl.DataFrame, name: str) -> pl.DataFrame:
    """Returns the rows of both; DataError names the file `name` if types cannot be merged."""
    try:
        return pl.concat([old, new], how="diagonal_relaxed")
    except pl.exceptions.PolarsError:
        for column in new.columns:
            new_type = new[column].dtype
            old_type = old[column].dtype if column in old.columns else new_type
            if new_type != old_type and (new_type.is_nested() or old_type.is_nested()):
                raise DataError(
                    f"{name}: column {column!r} is {new_type} but {old_type} in the library; "
                    "give it the same type"
                ) from None
        raise


def merge_tracks(folder: LibraryPaths, tracks: pl.DataFrame, name: str) -> tuple[int, int]:
    """Adds and updates rows of tracks.parquet; returns (n_updated, n_total). name: in errors."""
    old = read_stored_table(folder.tracks) if folder.tracks.is_file() else tracks.clear()
    n_updated = tracks.join(old, on=TRACK_ID, how="semi").height
    replaced_columns = [column for column in tracks.columns if column != TRACK_ID]
    updated = tracks.join(old.drop(replaced_columns, strict=False), on=TRACK_ID, how="left")
    rows = concat_tables(old.join(updated, on=TRACK_ID, how="anti"), updated, name)
    order = pl.concat([old.select(TRACK_ID), tracks.select(TRACK_ID)]).unique(maintain_order=True)
    rows = order.join(rows, on=TRACK_ID, how="left", maintain_order="left")
    write_parquet(folder.tracks, rows)
    return n_updated, rows.height


def _import_rows(
    folder: LibraryPaths, tracks: pl.DataFrame, skipped: list[SkippedRow], name: str
) -> ImportResult:
    with folder.lock():
        n_updated, n_total = merge_tracks(folder, tracks, name)
        folder.record_skipped(_STEP, sorted(skipped, key=lambda row: row.line or 0))
    return ImportResult(tracks.height - n_updated, n_updated, len(skipped), n_total)


def _stored_path(folder: LibraryPaths, root: Path, value: str) -> str:
    try:
        target = (root / value).resolve()
        if not Path(value).is_absolute() and not target.is_relative_to(root):
            raise _UnusablePath(f"leaves the audio folder {root.as_posix()}")
        if not target.exists():
            raise _UnusablePath(f"does not exist ({target.as_posix()})")
        if not target.is_file():
            raise _UnusablePath("is not a regular file")
    except (OSError, RuntimeError, ValueError) as error:
        raise _UnusablePath(f"is not a usable path: {error}") from None
    if target.is_relative_to(folder.root):
        target = target.relative_to(folder.root)
    return target.as_posix()


def _id_of_listed_file(relative_path: str) -> str:
    path = unicodedata.normalize("NFC", Path(relative_path).as_posix())
    slug = slugify(str(Path(path).with_suffix("")), _SLUG_LENGTH)
    return f"{slug}-{hashlib.sha256(path.encode()).hexdigest()[:_HASH_LENGTH]}".lstrip("-")


def _title_of_file(path: str) -> str:
    stem = Path(path).stem
    name = " ".join(stem.replace("_", " ").split())
    title = re.sub(r"^\d{1,3}(?:[.\-)]\s*|\s+(?:-\s+)?)", "", name) or name
    if " " not in title:
        title = title.replace("-", " ").strip()
    return title or stem
