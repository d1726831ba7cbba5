"""files.parquet, each scanned file as it was read last, and what a scan does to it and to the catalogue.

The tags stand there as they were read, so that an edited cell of the catalogue can be told from a tag that has changed.
"""

import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.data import file_tags
from ponticello.data.catalog import merge_tracks, stored_table
from ponticello.data.columns import PATH, TRACK_ID
from ponticello.data.file_tags import FileFacts
from ponticello.data.identity import Claim, Identities, KnownFile
from ponticello.data.intake import DTYPES
from ponticello.data.walk import FoundFile
from ponticello.data.workers import Lost
from ponticello.errors import DataError, LibraryError
from ponticello.library import Folder, replacing

AUDIO_HASH = "audio_hash"
TAG_SCHEMA: dict[str, pl.DataType] = {
    column: pl.Int64() if column in (file_tags.TRACK_NUMBER, file_tags.DISC_NUMBER) else DTYPES[kind]
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


def read_files(folder: Folder) -> pl.DataFrame:
    """files.parquet, empty if nothing was scanned yet; LibraryError if it is damaged."""
    if not folder.files.is_file():
        return pl.DataFrame(schema=SCHEMA)
    table = stored_table(folder.files)
    if table.schema != pl.Schema(SCHEMA):
        raise LibraryError(f"{folder.files} is not what this version writes; delete it and scan again")
    return table


@dataclass
class _Taken:
    """A file that was read. tags: None where they could not be. before: its tags as they were read the last time."""

    path: str
    row: KnownFile
    tags: Mapping[str, Any] | None
    moved_from: str | None = None
    before: Mapping[str, Any] | None = None


class CatalogueUpdate:
    """Takes what was read of each changed file under `root`, and brings files.parquet and the catalogue in line.

    changed: the files to read, in the order in which `take` wants them. counts: of files, by what became of them (new,
    updated, moved, unchanged).
    """

    def __init__(self, folder: Folder, root: Path, found: Sequence[FoundFile]) -> None:
        self._folder, self._root = folder, root
        self._table = read_files(folder)
        self._here = {self._stored(file.path) for file in found}
        self._ids, imported = self._catalogue()
        rows = self._table.select(PATH, *KnownFile._fields).iter_rows()
        self._known = {path: KnownFile(*values) for path, *values in rows}
        taken = self._ids | {row.track_id for row in self._known.values() if row.track_id}
        self._identities = Identities(
            self._known, self._here, imported, taken, lambda path: _may_be_there(folder.root / path)
        )
        # Places of tracks come first: what they held may turn up in another.
        changed = [file for file in found if self._has_changed(file)]
        places = {path for path, row in self._known.items() if row.track_id}
        self.changed = sorted(changed, key=lambda file: self._stored(file.path) not in places)
        n_places = sum(self._stored(file.path) in places for file in changed)
        self._n_to_settle = n_places  # files after which those that wait for each other can be settled
        unchanged = self._here - {self._stored(file.path) for file in changed}
        self.counts: Counter[str] = Counter(unchanged=sum(self._known[path].track_id is not None for path in unchanged))
        self._batch: list[_Taken] = []
        self._waiting: dict[str, tuple[FoundFile, FileFacts]] = {}  # other sound in the place of a track
        self._replaced: dict[str, Mapping[str, Any]] = {}  # the rows that these places had
        self._passing: list[tuple[str, str, str]] = []  # trouble that may be over next time, and is not kept

    @property
    def n_tracks(self) -> int:
        """How many tracks the catalogue has now."""
        return len(self._ids)

    def take(self, file: FoundFile, result: FileFacts | str | Lost) -> None:
        """What was read of one of `changed`, in their order: its facts, or why there are none."""
        path = self._stored(file.path)
        self._n_to_settle -= 1
        if isinstance(result, FileFacts):
            if self._identities.is_replaced(path, result):
                self._waiting[path] = (file, result)
                self._replaced |= self._rows(self._table, PATH, [path])
            else:
                self._assign(file, result, self._moved(path, result) or self._identities.settled(path, result))
        else:
            self._take_trouble(file, result)
        if self._n_to_settle == 0:
            for path, (file, facts) in list(self._waiting.items()):
                if claim := self._identities.moved(path, facts):
                    del self._waiting[path]
                    self._assign(file, facts, claim)

    def settle(self) -> None:
        """Decides what waited for the others; after the last `take`, for any file may hold what moved away."""
        for path, (file, facts) in self._waiting.items():
            claim = self._identities.moved(path, facts) or self._identities.settled(path, facts)
            self._assign(file, facts, claim)
        self._waiting = {}

    def publish(self) -> None:
        """Writes what was taken since the last time; first the catalogue, so that a kill in between loses nothing."""
        if not self._batch:
            return
        moved_from = {taken.moved_from for taken in self._batch if taken.moved_from}
        paths = {taken.path for taken in self._batch}
        before = {**self._rows(self._table, PATH, paths | moved_from), **self._replaced}
        for taken in self._batch:
            taken.before = before.get(taken.moved_from or taken.path)
        self._publish_tracks([taken for taken in self._batch if taken.tags is not None])
        new = [{PATH: taken.path, **taken.row._asdict(), **_last_tags(taken)} for taken in self._batch]
        # A place whose sound was replaced has its new row, here or before, unless it waits: then it has none until it
        # is read anew, should the scan stop here, for its track is elsewhere.
        left = {path for path in moved_from if path in self._waiting or path not in self._replaced}
        rest = self._table.filter(~pl.col(PATH).is_in([*paths, *left]))
        self._table = pl.concat([rest, pl.DataFrame(new, schema=SCHEMA)])
        with replacing(self._folder.files) as temporary:
            self._table.write_parquet(temporary, compression="zstd")
        self._batch = []

    def gone(self) -> list[tuple[str, str]]:
        """(path, track_id) of the tracks whose file was under `root` and is no longer."""
        inside = f"{self._root}{os.sep}"
        away = [(str(self._folder.root / path), row) for path, row in self._known.items() if path not in self._here]
        return [(path, row.track_id) for path, row in away if row.track_id and path.startswith(inside)]

    def bad(self) -> list[tuple[str, str, str]]:
        """(path, track_id or "", why) of the files that could not be read, now or before, wholly or in part."""
        known = ((path, self._known[path]) for path in self._here if path in self._known)
        kept = [(str(self._folder.root / path), row.track_id or "", row.reason) for path, row in known if row.reason]
        return [*self._passing, *kept]

    def _stored(self, path: str) -> str:
        inside = f"{self._folder.root}{os.sep}"
        return Path(path.removeprefix(inside) if path.startswith(inside) else path).as_posix()

    def _catalogue(self) -> tuple[set[str], dict[str, str]]:
        """The ids of the catalogue, and {path: id}; DataError if a column of it cannot take tags."""
        if not self._folder.tracks.is_file():
            return set(), {}
        tracks = stored_table(self._folder.tracks)
        for column, dtype in TAG_SCHEMA.items():
            found = tracks.schema.get(column, dtype)
            if found not in (dtype, pl.Null()) and (found.is_nested() or dtype.is_nested()):
                message = f"{self._folder.tracks}: column {column!r} is {found}, and scan writes {dtype}"
                raise DataError(f"{message}; give yours another name")
        paths = tracks.select(PATH, TRACK_ID).drop_nulls() if PATH in tracks.columns else pl.DataFrame()
        return set(tracks[TRACK_ID]), dict(paths.iter_rows())

    def _has_changed(self, file: FoundFile) -> bool:
        known = self._known.get(self._stored(file.path))
        if known is None or (known.size, known.mtime_ns) != (file.size, file.mtime_ns):
            return True
        return known.track_id is not None and known.track_id not in self._ids  # its row was lost

    def _moved(self, path: str, facts: FileFacts) -> Claim | None:
        known = self._known.get(path)
        return None if known and known.track_id else self._identities.moved(path, facts)

    def _assign(self, file: FoundFile, facts: FileFacts, claim: Claim) -> None:
        path = self._stored(file.path)
        self.counts[claim.kind] += 1
        self._ids.add(claim.track_id)
        hashes = (facts.content_hash, facts.audio_hash)
        row = KnownFile(file.size, file.mtime_ns, *hashes, claim.track_id, facts.note or None)
        self._known[path] = row
        self._batch.append(_Taken(path, row, facts.tags, claim.moved_from))

    def _take_trouble(self, file: FoundFile, trouble: str | Lost) -> None:
        path = self._stored(file.path)
        known = self._known.get(path)
        track_id = known.track_id if known else None
        reason = trouble.reason if isinstance(trouble, Lost) else trouble
        if isinstance(trouble, Lost) and not trouble.is_final:
            self._passing.append((file.path, track_id or "", reason))
            return
        self._known[path] = KnownFile(file.size, file.mtime_ns, None, None, track_id, reason)
        self._batch.append(_Taken(path, self._known[path], None))

    def _rows(self, table: pl.DataFrame, column: str, values: Collection[str]) -> dict[str, dict[str, Any]]:
        found = table.filter(pl.col(column).is_in(list(values)))
        return {row[column]: row for row in found.iter_rows(named=True)}

    def _publish_tracks(self, read: Sequence[_Taken]) -> None:
        if not read:
            return
        schema, now = dict(TAG_SCHEMA), {}
        if self._folder.tracks.is_file():
            tracks = stored_table(self._folder.tracks)
            now = self._rows(tracks, TRACK_ID, [str(taken.row.track_id) for taken in read])
            for column in TAG_SCHEMA:
                if tracks.schema.get(column, pl.Null()) not in (TAG_SCHEMA[column], pl.Null()):
                    schema[column] = pl.String()  # holds somebody's numbers and our text, or the reverse
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
    """(column, value) of a row of the catalogue: the tag where it is new or has changed, else what stands there."""
    for column, tag in (taken.tags or {}).items():
        value = tag
        if now is not None:
            there = now.get(column)
            is_kept = there is not None if taken.before is None else tag == taken.before[column]
            value = there if is_kept else tag
        yield column, str(value) if schema[column] != TAG_SCHEMA[column] and value is not None else value
