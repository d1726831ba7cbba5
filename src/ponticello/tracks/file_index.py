"""files.parquet: each scanned file as it was last read, and which track it is.

The tags are stored as they were read, so that an edited cell of the catalogue can be told from a
tag that has changed. A scanned file is the track of its path, the track with the same sound (if
that track's file is gone or was replaced), an imported track of the same path, or a new track.

Tracks that share a recording according to their files (sound, MusicBrainz id or ISRC) are listed in
duplicates.csv and not merged. `duplicates` finds other encodings by their prepared features.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

import polars as pl

from ponticello.audio import tags as file_tags
from ponticello.audio.formats import printable_path
from ponticello.audio.tags import FileFacts
from ponticello.audio.worker_pool import TaskFailure
from ponticello.errors import DataError, LibraryError
from ponticello.storage.files import write_csv_rows
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ARTIST, DURATION_S, ISRC, MBID, PATH, TITLE, TRACK_ID
from ponticello.storage.tables import write_parquet
from ponticello.storage.validation import DTYPES
from ponticello.tracks.catalog import merge_tracks, read_stored_table, read_tracks
from ponticello.tracks.names import slugify

_SLUG_LENGTH = 40  # characters of a file's name in an id
_HASH_LENGTH = 10  # hex digits of its sound's hash in an id
AUDIO_HASH = "audio_hash"
_INTEGERS = (file_tags.TRACK_NUMBER, file_tags.DISC_NUMBER)
TAG_SCHEMA: dict[str, pl.DataType] = {
    column: pl.Int64() if column in _INTEGERS else DTYPES[kind]
    for column, kind in file_tags.KINDS.items()
}
_DUPLICATE_COLUMNS = ("group", "reason")
_LISTED_COLUMNS = (TRACK_ID, PATH, TITLE, ARTIST, DURATION_S)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}\d{7}")


@dataclass(frozen=True)
class AudioFile:
    """A sound file in a scanned folder. path: absolute, links not resolved. size: bytes."""

    path: str
    size: int
    mtime_ns: int


class IndexedFile(NamedTuple):
    """A file as it was last read, without tags. track_id: None if it never was a track.

    reason: why the file or its tags cannot be read.
    """

    size: int
    mtime_ns: int
    content_hash: str | None
    audio_hash: str | None
    track_id: str | None
    reason: str | None


SCHEMA = pl.Schema({PATH: pl.String(), **get_type_hints(IndexedFile), **TAG_SCHEMA})


class TrackAssignment(NamedTuple):
    """The track of a file. kind: new, updated, moved or unchanged. moved_from: its old path."""

    kind: str
    track_id: str
    moved_from: str | None = None


class FileMatcher:
    """Decides which track a scanned file is.

    A track can be claimed by another file if its own is gone, or has been replaced by other sound.

    indexed: files of earlier scans by stored path; those that move are removed. present: the paths
    found now. imported: {path: id} of the catalogue. used_ids: ids that no new track may get.
    may_exist: whether a file outside the scanned folder may exist.
    """

    def __init__(
        self,
        indexed: dict[str, IndexedFile],
        present: Set[str],
        imported: Mapping[str, str],
        used_ids: set[str],
        may_exist: Callable[[str], bool],
    ) -> None:
        self.indexed = indexed
        self._imported = imported
        self._used_ids = used_ids
        self._may_exist = may_exist
        self._claimable: dict[str, IndexedFile] = {}
        self._paths_by_hash: dict[str, list[str]] = {}
        self._replaced: set[str] = set()
        self._moved_ids: set[str] = set()
        for path, row in sorted(indexed.items()):
            if path not in present and row.track_id and row.audio_hash:
                self._make_claimable(path, row)

    def is_replaced(self, path: str, facts: FileFacts) -> bool:
        """Returns whether the path held a track with other sound, and makes that claimable."""
        row = self.indexed.get(path)
        if row is None or row.track_id is None or row.audio_hash in (None, facts.audio_hash):
            return False
        self._replaced.add(path)
        self._make_claimable(path, row)
        return True

    def find_moved(self, path: str, facts: FileFacts) -> TrackAssignment | None:
        """Returns the claimable track of this content or sound, best of the same file name."""
        for file_hash in (facts.content_hash, _audio_key(facts.audio_hash)):
            candidates = []
            for old_path in self._paths_by_hash.get(file_hash, ()):
                if old_path in self._claimable and old_path != path:
                    candidates.append(old_path)
            candidates.sort(key=lambda old_path: Path(old_path).name != Path(path).name)
            for old_path in candidates:
                is_replaced = old_path in self._replaced
                if not is_replaced and self._may_exist(old_path):
                    continue
                if not is_replaced:
                    del self.indexed[old_path]
                track_id = str(self._claimable.pop(old_path).track_id)
                self._moved_ids.add(track_id)
                return TrackAssignment("moved", track_id, old_path)
        return None

    def assign_unmoved(self, path: str, facts: FileFacts) -> TrackAssignment:
        """Returns the track of the path, an imported track of the same path, or a new one."""
        row = self.indexed.get(path)
        if path in self._replaced:
            row = self._claimable.pop(path, None)
        if row is not None and row.track_id:
            is_unchanged = row.content_hash == facts.content_hash
            return TrackAssignment("unchanged" if is_unchanged else "updated", row.track_id)
        imported_id = self._imported.get(path)
        if imported_id is not None and imported_id not in self._moved_ids:
            return TrackAssignment("updated", imported_id)
        return TrackAssignment("new", self._new_id(path, facts.audio_hash))

    def _make_claimable(self, path: str, row: IndexedFile) -> None:
        self._claimable[path] = row
        for file_hash in (str(row.content_hash), _audio_key(row.audio_hash)):
            self._paths_by_hash.setdefault(file_hash, []).append(path)

    def _new_id(self, path: str, audio_hash: str) -> str:
        slug = slugify(Path(path).stem, _SLUG_LENGTH)
        track_id = f"{slug}-{audio_hash[:_HASH_LENGTH]}".lstrip("-")
        while track_id in self._used_ids:  # the same sound under the same name
            track_id += "-" + blake2b(path.encode(), digest_size=3).hexdigest()
        self._used_ids.add(track_id)
        return track_id


def _audio_key(audio_hash: str | None) -> str:
    return f"audio {audio_hash}"


def read_files(folder: LibraryPaths) -> pl.DataFrame:
    """Returns files.parquet, empty before the first scan; LibraryError if it is damaged."""
    if not folder.files.is_file():
        return pl.DataFrame(schema=SCHEMA)
    table = read_stored_table(folder.files)
    if table.schema != SCHEMA:
        raise LibraryError(
            f"{folder.files} is not what this version writes; delete it and scan again"
        )
    return table


@dataclass
class _ReadFile:
    """A file that was read now. previous: its former row; tags: None if they cannot be read."""

    path: str
    row: IndexedFile
    tags: Mapping[str, Any] | None
    moved_from: str | None = None
    previous: Mapping[str, Any] | None = None


class ScanTransaction:
    """Takes the facts of each changed file under `root`; updates files.parquet and the catalogue.

    changed: the files to read, in the order that `take` expects. counts: of files, by
    `TrackAssignment.kind`.
    """

    def __init__(self, folder: LibraryPaths, root: Path, files: Sequence[AudioFile]) -> None:
        self._folder = folder
        self._root = root
        self._table = read_files(folder)
        self._present = {self._stored_path(file.path) for file in files}
        self._track_ids, imported = self._read_catalogue()
        rows = self._table.select(IndexedFile._fields).iter_rows()
        files_in_table = zip(self._table[PATH], rows, strict=True)
        self._indexed = {path: IndexedFile(*row) for path, row in files_in_table}
        track_paths = set()
        used_ids = set(self._track_ids)
        for path, row in self._indexed.items():
            if row.track_id:
                track_paths.add(path)
                used_ids.add(row.track_id)
        self._matcher = FileMatcher(
            self._indexed,
            self._present,
            imported,
            used_ids,
            lambda path: _may_exist(folder.root / path),
        )
        self.counts: Counter[str] = Counter()
        track_files: list[AudioFile] = []
        other_files: list[AudioFile] = []
        for file in files:
            path = self._stored_path(file.path)
            if self._has_changed(file):
                (track_files if path in track_paths else other_files).append(file)
            elif self._indexed[path].track_id is not None:
                self.counts["unchanged"] += 1
        # Paths of tracks come first: their sound may appear at the path of another.
        self.changed = track_files + other_files
        self._n_before_settling = len(track_files)
        self._batch: list[_ReadFile] = []
        # Files with other sound at the path of a track, and the rows that these paths had.
        self._waiting: dict[str, tuple[AudioFile, FileFacts]] = {}
        self._replaced: dict[str, Mapping[str, Any]] = {}
        # Failures that may not happen again, which are not stored.
        self._passing_failures: list[tuple[str, str, str]] = []

    @property
    def n_tracks(self) -> int:
        """The number of tracks in the catalogue now."""
        return len(self._track_ids)

    def take(self, file: AudioFile, result: FileFacts | TaskFailure) -> None:
        """Takes the facts of the next file of `changed`, or why it could not be read."""
        path = self._stored_path(file.path)
        self._n_before_settling -= 1
        if isinstance(result, TaskFailure):
            self._take_failure(file, result)
        elif self._matcher.is_replaced(path, result):
            self._waiting[path] = (file, result)
            self._replaced |= _rows_by(self._table, PATH, [path])
        else:
            row = self._indexed.get(path)
            assignment = None
            if row is None or not row.track_id:
                assignment = self._matcher.find_moved(path, result)
            self._assign(file, result, assignment or self._matcher.assign_unmoved(path, result))
        if self._n_before_settling == 0:  # every track that moved among these paths is known
            for waiting_path, (waiting, facts) in list(self._waiting.items()):
                if assignment := self._matcher.find_moved(waiting_path, facts):
                    del self._waiting[waiting_path]
                    self._assign(waiting, facts, assignment)

    def settle(self) -> None:
        """Assigns the waiting files; after the last `take`, since any may hold a moved track."""
        for path, (file, facts) in self._waiting.items():
            assignment = self._matcher.find_moved(path, facts)
            self._assign(file, facts, assignment or self._matcher.assign_unmoved(path, facts))
        self._waiting = {}

    def publish(self) -> None:
        """Writes the files taken so far; the catalogue first, so that a kill loses no track."""
        if not self._batch:
            return
        moved_from = {file.moved_from for file in self._batch if file.moved_from}
        paths = {file.path for file in self._batch}
        previous = {**_rows_by(self._table, PATH, paths | moved_from), **self._replaced}
        rows = []
        for file in self._batch:
            file.previous = previous.get(file.moved_from or file.path)
            rows.append({PATH: file.path, **file.row._asdict(), **_last_tags(file)})
        self._publish_tracks([file for file in self._batch if file.tags is not None])
        # A replaced path has a new row, in this batch or before, unless it waits: then it has none
        # until it is read again, should the scan stop now, for its track is elsewhere.
        removed = set(paths)
        for path in moved_from:
            if path in self._waiting or path not in self._replaced:
                removed.add(path)
        kept = self._table.filter(~pl.col(PATH).is_in(list(removed)))
        self._table = pl.concat([kept, pl.DataFrame(rows, schema=SCHEMA)])
        write_parquet(self._folder.files, self._table)
        self._batch = []

    def deleted_tracks(self) -> list[tuple[str, str]]:
        """Returns (path, track_id) of the tracks with a deleted file under `root`."""
        deleted = []
        for stored_path, row in self._indexed.items():
            path = str(self._folder.root / stored_path)
            is_inside = path.startswith(f"{self._root}{os.sep}")
            if is_inside and row.track_id and stored_path not in self._present:
                deleted.append((path, row.track_id))
        return deleted

    def unreadable_files(self) -> list[tuple[str, str, str]]:
        """Returns (path, track_id or "", reason) of files that are unreadable in whole or part."""
        unreadable = list(self._passing_failures)
        for stored_path in self._present:
            row = self._indexed.get(stored_path)
            if row is not None and row.reason:
                path = str(self._folder.root / stored_path)
                unreadable.append((path, row.track_id or "", row.reason))
        return unreadable

    def _stored_path(self, path: str) -> str:
        return Path(path.removeprefix(f"{self._folder.root}{os.sep}")).as_posix()

    def _read_catalogue(self) -> tuple[set[str], dict[str, str]]:
        """Returns the track ids and {path: id}; DataError if a column cannot hold tags."""
        if not self._folder.tracks.is_file():
            return set(), {}
        tracks = read_stored_table(self._folder.tracks)
        for column, dtype in TAG_SCHEMA.items():
            old_type = tracks.schema.get(column, dtype)
            is_nested = old_type.is_nested() or dtype.is_nested()
            if is_nested and old_type not in (dtype, pl.Null()):
                raise DataError(
                    f"{self._folder.tracks}: column {column!r} is {old_type}, and scan writes "
                    f"{dtype}; give yours another name"
                )
        paths = pl.DataFrame()
        if PATH in tracks.columns:
            paths = tracks.select(PATH, TRACK_ID).drop_nulls()
        return set(tracks[TRACK_ID]), dict(paths.iter_rows())

    def _has_changed(self, file: AudioFile) -> bool:
        row = self._indexed.get(self._stored_path(file.path))
        if row is None or (row.size, row.mtime_ns) != (file.size, file.mtime_ns):
            return True
        return row.track_id is not None and row.track_id not in self._track_ids

    def _assign(self, file: AudioFile, facts: FileFacts, assignment: TrackAssignment) -> None:
        path = self._stored_path(file.path)
        self.counts[assignment.kind] += 1
        self._track_ids.add(assignment.track_id)
        row = IndexedFile(
            size=file.size,
            mtime_ns=file.mtime_ns,
            content_hash=facts.content_hash,
            audio_hash=facts.audio_hash,
            track_id=assignment.track_id,
            reason=facts.note or None,
        )
        self._indexed[path] = row
        self._batch.append(_ReadFile(path, row, facts.tags, assignment.moved_from))

    def _take_failure(self, file: AudioFile, failure: TaskFailure) -> None:
        path = self._stored_path(file.path)
        old_row = self._indexed.get(path)
        track_id = old_row.track_id if old_row else None
        reason = failure.reason.removeprefix(f"{printable_path(Path(file.path))}: ")
        if not failure.is_final:
            self._passing_failures.append((file.path, track_id or "", reason))
            return
        row = IndexedFile(file.size, file.mtime_ns, None, None, track_id, reason)
        self._indexed[path] = row
        self._batch.append(_ReadFile(path, row, None))

    def _publish_tracks(self, files: Sequence[_ReadFile]) -> None:
        if not files:
            return
        schema = dict(TAG_SCHEMA)
        current: dict[str, dict[str, Any]] = {}
        if self._folder.tracks.is_file():
            tracks = read_stored_table(self._folder.tracks)
            current = _rows_by(tracks, TRACK_ID, [str(file.row.track_id) for file in files])
            for column, dtype in TAG_SCHEMA.items():
                if tracks.schema.get(column, pl.Null()) not in (dtype, pl.Null()):
                    schema[column] = pl.String()  # numbers of the user and our text, or reversed
        rows = []
        for file in files:
            cells = _updated_cells(file, current.get(str(file.row.track_id)), schema)
            rows.append({TRACK_ID: file.row.track_id, PATH: file.path, **cells})
        table = pl.DataFrame(rows, schema={TRACK_ID: pl.String(), PATH: pl.String(), **schema})
        merge_tracks(self._folder, table, "scan")


def _rows_by(
    table: pl.DataFrame, column: str, values: Collection[str]
) -> dict[str, dict[str, Any]]:
    rows = table.filter(pl.col(column).is_in(list(values)))
    return {row[column]: row for row in rows.iter_rows(named=True)}


def _may_exist(path: Path) -> bool:
    """Returns whether a file exists, or is in a folder that cannot be read now."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _last_tags(file: _ReadFile) -> dict[str, Any]:
    tags = file.tags if file.tags is not None else (file.previous or {})
    return {column: tags.get(column) for column in TAG_SCHEMA}


def _updated_cells(
    file: _ReadFile, current: Mapping[str, Any] | None, schema: Mapping[str, pl.DataType]
) -> dict[str, Any]:
    """Returns a row's tag columns: the tag if it is new or has changed, else the current cell."""
    cells = {}
    for column, tag in (file.tags or {}).items():
        value = tag
        if current is not None:
            if file.previous is None:
                is_kept = current.get(column) is not None
            else:
                is_kept = tag == file.previous[column]
            value = current.get(column) if is_kept else tag
        if schema[column] != TAG_SCHEMA[column] and value is not None:
            value = str(value)
        cells[column] = value
    return cells


def write_duplicates(folder: LibraryPaths, deleted_ids: Set[str]) -> int:
    """Writes duplicates.csv, or removes it; returns the tracks in it. deleted_ids: left out."""
    if not folder.tracks.is_file():
        return 0
    tracks = read_tracks(folder).filter(~pl.col(TRACK_ID).is_in(list(deleted_ids)))
    reasons: dict[tuple[str, ...], list[str]] = {}
    for reason, track_ids in _duplicate_groups(folder, tracks):
        reasons.setdefault(track_ids, []).append(reason)
    if not reasons:
        folder.duplicates.unlink(missing_ok=True)
        return 0
    listed_ids = set(chain.from_iterable(reasons))
    listed = tracks.select(_LISTED_COLUMNS).filter(pl.col(TRACK_ID).is_in(list(listed_ids)))
    cells = {row[0]: row for row in listed.iter_rows()}
    rows = []
    for number, track_ids in enumerate(sorted(reasons), start=1):
        for track_id in track_ids:
            row: list[object] = [number, "; ".join(reasons[track_ids])]
            row += cells[track_id]
            rows.append(row)
    write_csv_rows(folder.duplicates, _DUPLICATE_COLUMNS + _LISTED_COLUMNS, rows)
    return len(listed_ids)


def _duplicate_groups(
    folder: LibraryPaths, tracks: pl.DataFrame
) -> Iterator[tuple[str, tuple[str, ...]]]:
    sounds = read_files(folder).select(TRACK_ID, AUDIO_HASH).drop_nulls()
    sounds = sounds.join(tracks, on=TRACK_ID, how="semi")
    for reason, identifiers in (
        ("same sound", sounds),
        ("same MusicBrainz recording", tracks.select(TRACK_ID, MBID).drop_nulls()),
        ("same ISRC", tracks.select(TRACK_ID, ISRC).drop_nulls()),
    ):
        groups: dict[str, set[str]] = {}
        for track_id, value in identifiers.iter_rows():
            if identifier := _normalize_identifier(reason, value):
                groups.setdefault(identifier, set()).add(track_id)
        for track_ids in groups.values():
            if len(track_ids) > 1:
                yield reason, tuple(sorted(track_ids))


def _normalize_identifier(reason: str, value: str) -> str:
    """Returns an identifier in one spelling; "" for other text, such as a comment in its place."""
    if reason == "same MusicBrainz recording":
        return value.lower() if _UUID.fullmatch(value.lower()) else ""
    if reason == "same ISRC":
        isrc = re.sub(r"[\s-]", "", value).upper()
        return isrc if _ISRC.fullmatch(isrc) else ""
    return value
