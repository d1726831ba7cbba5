"""files.parquet, each scanned file as it was read last, and what a scan does to it and to the
catalogue.

The tags stand there as they were read, so that an edited cell of the catalogue can be told from a
tag that has changed.

Which track a scanned file is: the one its place had, the one its sound had elsewhere, an imported
one, or a new one.

A row is free to be claimed where its file has gone, or where its place holds other sound now.
Nothing else is guessed.

Tracks that share a recording, by what their files say: the same sound, MusicBrainz recording or
ISRC.

They are reported in duplicates.csv and left as they are. What was encoded anew or cut otherwise is
found by its mel, once prepared (`duplicates`).
"""

import csv
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from ponticello.audio import tags as file_tags
from ponticello.audio.formats import printable_path
from ponticello.audio.tags import FileFacts
from ponticello.audio.worker_pool import TaskFailure
from ponticello.errors import DataError, LibraryError
from ponticello.storage.files import atomic_write, escape_csv_cell
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import ARTIST, DURATION_S, ISRC, MBID, PATH, TITLE, TRACK_ID
from ponticello.storage.validation import DTYPES
from ponticello.tracks.catalog import merge_tracks, read_stored_table, read_tracks

_SLUG_LENGTH = 40  # characters of a file's name in an id
_HASH_LENGTH = 10  # hex digits of its sound's hash in an id


@dataclass(frozen=True)
class AudioFile:
    """path: absolute, by the way it was found. size: bytes."""

    path: str
    size: int
    mtime_ns: int


class IndexedFile(NamedTuple):
    """A file as it was read last, without its tags. track_id: None where it never was a track."""

    size: int
    mtime_ns: int
    content_hash: str | None
    audio_hash: str | None
    track_id: str | None
    reason: str | None


class TrackAssignment(NamedTuple):
    """A file's track. kind: what became of the file. moved_from: the place it had, if that is
    another.
    """

    kind: str
    track_id: str
    moved_from: str | None = None


class FileMatcher:
    """The files known before, by path, and what becomes of their tracks.

    known: by path as stored; those that move are taken out. here: the paths that are there now.
    imported: {path: id} of the catalogue. taken: ids that a new track may not have. is_there:
    whether a file outside the scanned folder is.
    """

    def __init__(
        self,
        known: dict[str, IndexedFile],
        here: Set[str],
        imported: Mapping[str, str],
        taken: set[str],
        is_there: Callable[[str], bool],
    ) -> None:
        self.known, self._imported, self._taken, self._is_there = known, imported, taken, is_there
        self._free: dict[str, IndexedFile] = {}
        self._by_hash: dict[str, list[str]] = {}
        self._replaced: set[str] = set()
        self._moved: set[str] = set()  # ids
        for path, row in sorted(known.items()):
            if path not in here and row.track_id and row.audio_hash:
                self._set_free(path, row)

    def is_replaced(self, path: str, facts: FileFacts) -> bool:
        """Whether this place held a track with other sound, which may now be elsewhere; its row is
        then free.
        """
        row = self.known.get(path)
        if row is None or row.track_id is None or row.audio_hash in (None, facts.audio_hash):
            return False
        self._replaced.add(path)
        self._set_free(path, row)
        return True

    def moved(self, path: str, facts: FileFacts) -> TrackAssignment | None:
        """The free track with this file's content, else with its sound; of several one whose file
        had this name.
        """
        for name in (facts.content_hash, f"audio {facts.audio_hash}"):
            free = [old for old in self._by_hash.get(name, ()) if old in self._free and old != path]
            for old in sorted(free, key=lambda old: Path(old).name != Path(path).name):
                if old in self._replaced or not self._is_there(old):
                    if old not in self._replaced:
                        del self.known[old]
                    track_id = str(self._free.pop(old).track_id)
                    self._moved.add(track_id)
                    return TrackAssignment("moved", track_id, old)
        return None

    def settled(self, path: str, facts: FileFacts) -> TrackAssignment:
        """The track of a file that has not moved: its place's, an imported one, or a new one."""
        row = self._free.pop(path, None) if path in self._replaced else self.known.get(path)
        if row is not None and row.track_id:
            return TrackAssignment(
                "unchanged" if row.content_hash == facts.content_hash else "updated", row.track_id
            )
        imported = self._imported.get(path)
        if imported is not None and imported not in self._moved:
            return TrackAssignment("updated", imported)
        return TrackAssignment("new", self._new_id(path, facts.audio_hash))

    def _set_free(self, path: str, row: IndexedFile) -> None:
        self._free[path] = row
        for name in (str(row.content_hash), f"audio {row.audio_hash}"):
            self._by_hash.setdefault(name, []).append(path)

    def _new_id(self, path: str, audio_hash: str) -> str:
        name = unicodedata.normalize("NFC", Path(path).stem).casefold()
        slug = re.sub(r"[\W_]+", "-", name).strip("-")[:_SLUG_LENGTH].strip("-")
        track_id = f"{slug}-{audio_hash[:_HASH_LENGTH]}".lstrip("-")
        while track_id in self._taken:  # the same sound under the same name
            track_id += "-" + blake2b(path.encode(), digest_size=3).hexdigest()
        self._taken.add(track_id)
        return track_id


AUDIO_HASH = "audio_hash"
TAG_SCHEMA: dict[str, pl.DataType] = {
    column: pl.Int64()
    if column in (file_tags.TRACK_NUMBER, file_tags.DISC_NUMBER)
    else DTYPES[kind]
    for column, kind in file_tags.KINDS.items()
}
SCHEMA: dict[str, pl.DataType] = {
    PATH: pl.String(),  # as in the catalogue: relative to the library inside it, else absolute
    "size": pl.Int64(),  # bytes
    "mtime_ns": pl.Int64(),
    "content_hash": pl.String(),
    AUDIO_HASH: pl.String(),
    TRACK_ID: pl.String(),  # null where the file never was a track
    "reason": pl.String(),  # why it cannot be read, or what of it
    **TAG_SCHEMA,
}


def read_files(folder: LibraryPaths) -> pl.DataFrame:
    """files.parquet, empty if nothing was scanned yet; LibraryError if it is damaged."""
    if not folder.files.is_file():
        return pl.DataFrame(schema=SCHEMA)
    table = read_stored_table(folder.files)
    if table.schema != pl.Schema(SCHEMA):
        raise LibraryError(
            f"{folder.files} is not what this version writes; delete it and scan again"
        )
    return table


@dataclass
class _Taken:
    """A file that was read. tags: None where they could not be. before: its tags as they were read
    the last time.
    """

    path: str
    row: IndexedFile
    tags: Mapping[str, Any] | None
    moved_from: str | None = None
    before: Mapping[str, Any] | None = None


class ScanTransaction:
    """Takes what was read of each changed file under `root`, and brings files.parquet and the
    catalogue in line.

    changed: the files to read, in the order in which `take` wants them. counts: of files, by what
    became of them (new, updated, moved, unchanged).
    """

    def __init__(self, folder: LibraryPaths, root: Path, found: Sequence[AudioFile]) -> None:
        self._folder, self._root = folder, root
        self._table = read_files(folder)
        self._here = {self._stored(file.path) for file in found}
        self._ids, imported = self._catalogue()
        rows = self._table.select(PATH, *IndexedFile._fields).iter_rows()
        self._known = {path: IndexedFile(*values) for path, *values in rows}
        taken = self._ids | {row.track_id for row in self._known.values() if row.track_id}
        self._identities = FileMatcher(
            self._known, self._here, imported, taken, lambda path: _may_be_there(folder.root / path)
        )
        # Places of tracks come first: what they held may turn up in another.
        changed = [file for file in found if self._has_changed(file)]
        places = {path for path, row in self._known.items() if row.track_id}
        self.changed = sorted(changed, key=lambda file: self._stored(file.path) not in places)
        n_places = sum(self._stored(file.path) in places for file in changed)
        self._n_to_settle = (
            n_places  # files after which those that wait for each other can be settled
        )
        unchanged = self._here - {self._stored(file.path) for file in changed}
        self.counts: Counter[str] = Counter(
            unchanged=sum(self._known[path].track_id is not None for path in unchanged)
        )
        self._batch: list[_Taken] = []
        self._waiting: dict[
            str, tuple[AudioFile, FileFacts]
        ] = {}  # other sound in the place of a track
        self._replaced: dict[str, Mapping[str, Any]] = {}  # the rows that these places had
        self._passing: list[
            tuple[str, str, str]
        ] = []  # trouble that may be over next time, and is not kept

    @property
    def n_tracks(self) -> int:
        """How many tracks the catalogue has now."""
        return len(self._ids)

    def take(self, file: AudioFile, result: FileFacts | TaskFailure) -> None:
        """What was read of one of `changed`, in their order: its facts, or why there are none."""
        path = self._stored(file.path)
        self._n_to_settle -= 1
        if isinstance(result, FileFacts):
            if self._identities.is_replaced(path, result):
                self._waiting[path] = (file, result)
                self._replaced |= self._rows(self._table, PATH, [path])
            else:
                self._assign(
                    file,
                    result,
                    self._moved(path, result) or self._identities.settled(path, result),
                )
        else:
            self._take_trouble(file, result)
        if self._n_to_settle == 0:
            for path, (file, facts) in list(self._waiting.items()):
                if claim := self._identities.moved(path, facts):
                    del self._waiting[path]
                    self._assign(file, facts, claim)

    def settle(self) -> None:
        """Decides what waited for the others; after the last `take`, for any file may hold what
        moved away.
        """
        for path, (file, facts) in self._waiting.items():
            claim = self._identities.moved(path, facts) or self._identities.settled(path, facts)
            self._assign(file, facts, claim)
        self._waiting = {}

    def publish(self) -> None:
        """Writes what was taken since the last time; first the catalogue, so that a kill in between
        loses nothing.
        """
        if not self._batch:
            return
        moved_from = {taken.moved_from for taken in self._batch if taken.moved_from}
        paths = {taken.path for taken in self._batch}
        before = {**self._rows(self._table, PATH, paths | moved_from), **self._replaced}
        for taken in self._batch:
            taken.before = before.get(taken.moved_from or taken.path)
        self._publish_tracks([taken for taken in self._batch if taken.tags is not None])
        new = [
            {PATH: taken.path, **taken.row._asdict(), **_last_tags(taken)} for taken in self._batch
        ]
        # A place whose sound was replaced has its new row, here or before, unless it waits: then it
        # has none until it
        # is read anew, should the scan stop here, for its track is elsewhere.
        left = {path for path in moved_from if path in self._waiting or path not in self._replaced}
        rest = self._table.filter(~pl.col(PATH).is_in([*paths, *left]))
        self._table = pl.concat([rest, pl.DataFrame(new, schema=SCHEMA)])
        with atomic_write(self._folder.files) as temporary:
            self._table.write_parquet(temporary, compression="zstd")
        self._batch = []

    def deleted_tracks(self) -> list[tuple[str, str]]:
        """(path, track_id) of the tracks whose file was under `root` and is no longer."""
        inside = f"{self._root}{os.sep}"
        away = [
            (str(self._folder.root / path), row)
            for path, row in self._known.items()
            if path not in self._here
        ]
        return [
            (path, row.track_id) for path, row in away if row.track_id and path.startswith(inside)
        ]

    def unreadable_files(self) -> list[tuple[str, str, str]]:
        """(path, track_id or "", why) of the files that could not be read, now or before, wholly or
        in part.
        """
        known = ((path, self._known[path]) for path in self._here if path in self._known)
        kept = [
            (str(self._folder.root / path), row.track_id or "", row.reason)
            for path, row in known
            if row.reason
        ]
        return [*self._passing, *kept]

    def _stored(self, path: str) -> str:
        inside = f"{self._folder.root}{os.sep}"
        return Path(path.removeprefix(inside) if path.startswith(inside) else path).as_posix()

    def _catalogue(self) -> tuple[set[str], dict[str, str]]:
        """The ids of the catalogue, and {path: id}; DataError if a column of it cannot take tags."""
        if not self._folder.tracks.is_file():
            return set(), {}
        tracks = read_stored_table(self._folder.tracks)
        for column, dtype in TAG_SCHEMA.items():
            found = tracks.schema.get(column, dtype)
            if found not in (dtype, pl.Null()) and (found.is_nested() or dtype.is_nested()):
                message = (
                    f"{self._folder.tracks}: column {column!r} is {found}, and scan writes {dtype}"
                )
                raise DataError(f"{message}; give yours another name")
        paths = (
            tracks.select(PATH, TRACK_ID).drop_nulls() if PATH in tracks.columns else pl.DataFrame()
        )
        return set(tracks[TRACK_ID]), dict(paths.iter_rows())

    def _has_changed(self, file: AudioFile) -> bool:
        known = self._known.get(self._stored(file.path))
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            return True
        return known.track_id is not None and known.track_id not in self._ids  # its row was lost

    def _moved(self, path: str, facts: FileFacts) -> TrackAssignment | None:
        known = self._known.get(path)
        return None if known and known.track_id else self._identities.moved(path, facts)

    def _assign(self, file: AudioFile, facts: FileFacts, claim: TrackAssignment) -> None:
        path = self._stored(file.path)
        self.counts[claim.kind] += 1
        self._ids.add(claim.track_id)
        hashes = (facts.content_hash, facts.audio_hash)
        row = IndexedFile(file.size, file.mtime_ns, *hashes, claim.track_id, facts.note or None)
        self._known[path] = row
        self._batch.append(_Taken(path, row, facts.tags, claim.moved_from))

    def _take_trouble(self, file: AudioFile, trouble: TaskFailure) -> None:
        path = self._stored(file.path)
        known = self._known.get(path)
        track_id = known.track_id if known else None
        reason = trouble.reason.removeprefix(f"{printable_path(Path(file.path))}: ")
        if not trouble.is_final:
            self._passing.append((file.path, track_id or "", reason))
            return
        self._known[path] = IndexedFile(file.size, file.mtime_ns, None, None, track_id, reason)
        self._batch.append(_Taken(path, self._known[path], None))

    def _rows(
        self, table: pl.DataFrame, column: str, values: Collection[str]
    ) -> dict[str, dict[str, Any]]:
        found = table.filter(pl.col(column).is_in(list(values)))
        return {row[column]: row for row in found.iter_rows(named=True)}

    def _publish_tracks(self, read: Sequence[_Taken]) -> None:
        if not read:
            return
        schema, now = dict(TAG_SCHEMA), {}
        if self._folder.tracks.is_file():
            tracks = read_stored_table(self._folder.tracks)
            now = self._rows(tracks, TRACK_ID, [str(taken.row.track_id) for taken in read])
            for column in TAG_SCHEMA:
                if tracks.schema.get(column, pl.Null()) not in (TAG_SCHEMA[column], pl.Null()):
                    schema[column] = (
                        pl.String()
                    )  # holds somebody's numbers and our text, or the reverse
        new = []
        for taken in read:
            cells = dict(_cells(taken, now.get(str(taken.row.track_id)), schema))
            new.append({TRACK_ID: taken.row.track_id, PATH: taken.path, **cells})
        frame = pl.DataFrame(new, schema={TRACK_ID: pl.String(), PATH: pl.String(), **schema})
        merge_tracks(self._folder, frame, "scan")


def _may_be_there(path: Path) -> bool:
    """Whether a file is there, or in a folder that cannot be looked into now."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True
    return True


def _last_tags(taken: _Taken) -> dict[str, Any]:
    """The tags as they were read last: now, or before a file went bad."""
    tags = taken.tags if taken.tags is not None else (taken.before or {})
    return {column: tags.get(column) for column in TAG_SCHEMA}


def _cells(
    taken: _Taken, now: Mapping[str, Any] | None, schema: Mapping[str, pl.DataType]
) -> Iterator[tuple[str, Any]]:
    """(column, value) of a row of the catalogue: the tag where it is new or has changed, else what
    stands there.
    """
    for column, tag in (taken.tags or {}).items():
        value = tag
        if now is not None:
            there = now.get(column)
            is_kept = there is not None if taken.before is None else tag == taken.before[column]
            value = there if is_kept else tag
        yield (
            column,
            str(value) if schema[column] != TAG_SCHEMA[column] and value is not None else value,
        )


_COLUMNS = (TRACK_ID, PATH, TITLE, ARTIST, DURATION_S)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}\d{7}")


def write_duplicates(folder: LibraryPaths, gone: Set[str]) -> int:
    """Writes duplicates.csv, a group of tracks after the other, or removes it where there are none;
    gives their number.

    gone: ids of tracks without a file, which do not count. A track in several groups counts once.
    """
    if not folder.tracks.is_file():
        return 0
    tracks = read_tracks(folder).filter(~pl.col(TRACK_ID).is_in(list(gone)))
    reasons: dict[tuple[str, ...], list[str]] = {}
    for reason, ids in _groups(folder, tracks):
        reasons.setdefault(ids, []).append(reason)
    if not reasons:
        folder.duplicates.unlink(missing_ok=True)
        return 0
    wanted = {track_id for ids in reasons for track_id in ids}
    rows = {
        row[0]: row
        for row in tracks.select(_COLUMNS).filter(pl.col(TRACK_ID).is_in(list(wanted))).iter_rows()
    }
    with (
        atomic_write(folder.duplicates) as temporary,
        temporary.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(["group", "reason", *_COLUMNS])
        for number, ids in enumerate(sorted(reasons), start=1):
            reason = "; ".join(reasons[ids])
            writer.writerows(
                [number, reason, *(escape_csv_cell(cell) for cell in rows[track_id])]
                for track_id in ids
            )
    return len(wanted)


def _groups(folder: LibraryPaths, tracks: pl.DataFrame) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(why, ids) of every two or more tracks that are one recording."""
    files = (
        read_files(folder)
        .select(TRACK_ID, AUDIO_HASH)
        .drop_nulls()
        .join(tracks, on=TRACK_ID, how="semi")
    )
    for reason, rows in (
        ("same sound", files.iter_rows()),
        ("same MusicBrainz recording", tracks.select(TRACK_ID, MBID).drop_nulls().iter_rows()),
        ("same ISRC", tracks.select(TRACK_ID, ISRC).drop_nulls().iter_rows()),
    ):
        by_value: dict[str, set[str]] = {}
        for track_id, value in rows:
            if name := _identifier(reason, value):
                by_value.setdefault(name, set()).add(track_id)
        yield from ((reason, tuple(sorted(ids))) for ids in by_value.values() if len(ids) > 1)


def _identifier(reason: str, value: str) -> str:
    """A value as it can be compared; "" for one that is none, such as a comment in the ISRC's
    place.
    """
    if reason == "same MusicBrainz recording":
        return value.lower() if _UUID.fullmatch(value.lower()) else ""
    if reason == "same ISRC":
        value = re.sub(r"[\s-]", "", value).upper()
        return value if _ISRC.fullmatch(value) else ""
    return value
