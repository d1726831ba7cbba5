"""Imports a listening history: reads a file, folder or zip, matches its tracks, updates the log."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from pathlib import Path, PurePosixPath

import polars as pl

from ponticello.errors import ConfigError, DataError
from ponticello.listening.importers.detect import FORMATS, Format, detect_format
from ponticello.listening.importers.lastfm import read_lastfm
from ponticello.listening.importers.listenbrainz import read_listenbrainz
from ponticello.listening.importers.music_servers import read_beets, read_navidrome
from ponticello.listening.importers.playlists import read_jspf, read_m3u, read_pls, read_xspf
from ponticello.listening.importers.records import (
    EVENT_COLUMNS,
    IS_KEPT,
    IS_TABLE,
    REFERENCE,
    EventBuffer,
    IgnoredRecord,
    ListenEvent,
    Records,
    TrackReference,
)
from ponticello.listening.importers.sources import HistoryFile, open_sources
from ponticello.listening.importers.spotify import read_spotify
from ponticello.listening.importers.tables import read_event_table
from ponticello.listening.log import add_events
from ponticello.listening.matching import RULES, CatalogMatcher, Match, build_catalog, match_track
from ponticello.listening.pseudonyms import assign_user_ids, pseudonym
from ponticello.listening.unmatched import (
    SuggestionIndex,
    read_pending_events,
    write_pending_events,
    write_unmatched_list,
)
from ponticello.storage.layout import LibraryPaths, SkippedRow
from ponticello.storage.schema import EVENT, SESSION_ID, TRACK_ID, USER_ID
from ponticello.storage.tables import SUFFIXES, truncate_value
from ponticello.tracks.catalog import read_stored_table, read_tracks

ME = "me"  # the user of an export that names none
_STEP = "import-history"
_MOST_LISTED = 10_000  # bad rows of one file that skipped.csv lists one by one
_RULE = "rule"
READERS: dict[Format, Callable[[HistoryFile], Records]] = {
    "listenbrainz": read_listenbrainz,
    "spotify": read_spotify,
    "navidrome": read_navidrome,
    "beets": read_beets,
    "m3u": read_m3u,
    "pls": read_pls,
    "xspf": read_xspf,
    "jspf": read_jspf,
}


@dataclass
class HistoryImport:
    """The result of an import, in events.

    n_updated: counts of plays that grew, and scrobbles with a duration that was unknown before.
    n_kept: events of this import and earlier ones that wait for their track. n_newly_matched:
    events of earlier imports that have a track now. matched: events read now, by rule. files:
    formats by file name.
    user: the name of the only user, if there is one.
    """

    n_new: int = 0
    n_updated: int = 0
    n_skipped: int = 0
    n_total: int = 0
    n_read: int = 0
    n_matched: int = 0
    n_unmatched: int = 0
    n_kept: int = 0
    n_newly_matched: int = 0
    n_not_music: int = 0
    matched: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    ignored_files: list[str] = field(default_factory=list)
    dropped_columns: list[str] = field(default_factory=list)
    user: str | None = None

    @property
    def match_rate(self) -> float | None:
        """The share of the events read now that match a track; None without any."""
        return self.n_matched / self.n_read if self.n_read else None


def import_history(
    folder: LibraryPaths,
    path: Path | None,
    *,
    file_format: Format | None = None,
    columns: Mapping[str, str] | None = None,
    user: str | None = None,
    pseudonyms: bool = True,
    fuzzy: bool = False,
    zone: tzinfo = UTC,
    on_progress: Callable[[int, int], None] | None = None,
) -> HistoryImport:
    """Adds the events of a file, folder or zip to the log, each matched to a track, each once.

    path: None only retries the events that are unmatched so far, as every import does.
    file_format: None detects it from each file's content. columns: for tables and Last.fm.
    user: the user of exports of one person (`ME` if None). pseudonyms: False keeps the names of new
    users as their ids. zone: of dates without one. on_progress: called with (bytes read, all
    bytes). Rows that cannot be read go to skipped.csv by file and line, tracks without a match to
    unmatched.csv; their events are kept.

    DataError: no readable history at `path`. ConfigError: options that exclude each other.
    """
    tracks = read_tracks(folder)
    reader = _HistoryReader(columns or {}, user, zone)
    if path is not None:
        reader.read(path, file_format, on_progress)
    result = reader.result
    references = reader.buffer.references
    with folder.lock():
        pending = read_pending_events(folder)
        if pending is not None:
            reader.buffer.add_rows(pending.with_columns(pl.lit(True).alias(IS_KEPT)))
        events = _assign_users(folder, reader.buffer.take_events(), user, pseudonyms, result)
        catalog = build_catalog(tracks, PurePosixPath(folder.root.as_posix()))
        suggestions = SuggestionIndex(catalog)
        matches = _match_all(references, catalog, suggestions if fuzzy else None)
        events = _add_tracks(events, matches)
        _count_matches(events, result)
        matched = events.filter(pl.col(TRACK_ID).is_not_null()).drop(REFERENCE, _RULE)
        unmatched = events.filter(pl.col(TRACK_ID).is_null()).select(list(EVENT_COLUMNS))
        del events  # the largest table; the steps below make copies of their own
        name = "history" if path is None else path.name
        result.n_new, result.n_updated, result.n_total = add_events(folder, matched, name)
        del matched
        unmatched = write_pending_events(folder, unmatched, references)
        result.n_kept = unmatched.height
        write_unmatched_list(folder, unmatched, references, matches, suggestions)
        if path is not None:
            folder.record_skipped(_STEP, reader.skipped)
    return result


@dataclass
class _HistoryReader:
    """Reads the files of a history into `buffer`, and records what happened in `result`."""

    columns: Mapping[str, str]
    user: str | None
    zone: tzinfo
    buffer: EventBuffer = field(default_factory=EventBuffer)
    result: HistoryImport = field(default_factory=HistoryImport)
    skipped: list[SkippedRow] = field(default_factory=list)

    def read(
        self, path: Path, file_format: Format | None, on_progress: Callable[[int, int], None] | None
    ) -> None:
        """Reads a file, folder or zip; DataError if it holds no file of a known format."""
        with open_sources(path) as sources:
            n_bytes = sum(source.size for source in sources)
            n_bytes_read = 0
            for source in sources:
                n_bytes_read += source.size
                known_format = file_format or detect_format(source)
                if known_format is None and len(sources) == 1 and source.suffix in SUFFIXES:
                    known_format = "table"  # its reader reports the missing columns
                if known_format is None:
                    self.result.ignored_files.append(source.name)
                    continue
                self._read_file(source, known_format)
                if on_progress:
                    on_progress(n_bytes_read, n_bytes)
        if not self.result.files:
            raise DataError(
                f"{path.name} holds no listening that is known; formats are {', '.join(FORMATS)}; "
                "if it is one of them, pass --format"
            )

    def _read_file(self, source: HistoryFile, file_format: Format) -> None:
        self._check_options(source, file_format)
        self.result.files[source.name] = file_format
        bad_rows: list[SkippedRow] = []
        if file_format == "table":
            self._read_table(source, bad_rows)
        elif file_format == "lastfm":
            records = read_lastfm(source, self.zone, self.columns)
            self.buffer.add(self._events(records, source, bad_rows))
        else:
            self.buffer.add(self._events(READERS[file_format](source), source, bad_rows))
        for error in source.damage:
            reason = f"is damaged in its zip; what stands before the damage was read: {error}"
            bad_rows.append(SkippedRow(source.name, None, "", "", reason))
        self.result.n_skipped += len(bad_rows)
        self.skipped += bad_rows[:_MOST_LISTED]
        if len(bad_rows) > _MOST_LISTED:
            more = f"{len(bad_rows) - _MOST_LISTED} more rows"
            self.skipped.append(SkippedRow(source.name, None, "", more, "see those above"))

    def _check_options(self, source: HistoryFile, file_format: Format) -> None:
        if self.columns and file_format not in ("table", "lastfm"):
            raise ConfigError(
                f"{source.name} is a {file_format} file, whose columns are known; "
                "leave --columns out"
            )
        if self.user is not None and file_format == "navidrome":
            raise ConfigError(f"{source.name} names its listeners itself; leave --user out")

    def _read_table(self, source: HistoryFile, bad_rows: list[SkippedRow]) -> None:
        rows, skipped, dropped_columns = read_event_table(
            source, self.columns, has_one_user=self.user is not None
        )
        if self.user is not None and USER_ID in rows.columns:
            raise ConfigError(f"{source.name} names its listeners itself; leave --user out")
        self.buffer.add_rows(rows)
        bad_rows += skipped
        for name in dropped_columns:
            if name not in self.result.dropped_columns:
                self.result.dropped_columns.append(name)

    def _events(
        self, records: Records, source: HistoryFile, bad_rows: list[SkippedRow]
    ) -> Iterator[ListenEvent]:
        for record in records:
            if isinstance(record, ListenEvent):
                yield record
            elif isinstance(record, IgnoredRecord):
                self.result.n_not_music += 1
            else:
                value = truncate_value(record.value)
                bad_rows.append(
                    SkippedRow(source.name, record.line, record.field, value, record.reason)
                )


def _assign_users(
    folder: LibraryPaths,
    events: pl.DataFrame,
    user: str | None,
    pseudonyms: bool,
    result: HistoryImport,
) -> pl.DataFrame:
    """Replaces names of users and of exported playlists by ids; kept events have theirs already."""
    is_kept = pl.col(IS_KEPT)
    user_ids = set(events.filter(is_kept)[USER_ID].unique())
    if folder.interactions.is_file():
        user_ids |= set(read_stored_table(folder.interactions, [USER_ID])[USER_ID].unique())
    events = events.with_columns(pl.col(USER_ID).fill_null(user or ME))
    names = events.filter(~is_kept)[USER_ID].unique(maintain_order=True).to_list()
    if len(names) == 1:
        result.user = names[0]
    new_ids = assign_user_ids(folder, names, user_ids, pseudonyms=pseudonyms)
    is_playlist = (pl.col(EVENT) == "playlist") & ~is_kept & ~pl.col(IS_TABLE)
    is_playlist &= pl.col(SESSION_ID).is_not_null()
    playlists = events.filter(is_playlist)[SESSION_ID].unique(maintain_order=True).to_list()
    playlist_ids = {name: pseudonym(folder, name, "playlist") for name in playlists}
    user_id = pl.when(is_kept).then(pl.col(USER_ID)).otherwise(pl.col(USER_ID).replace(new_ids))
    playlist_id = pl.col(SESSION_ID).replace(playlist_ids)
    session_id = pl.when(is_playlist).then(playlist_id).otherwise(pl.col(SESSION_ID))
    return events.with_columns(user_id.alias(USER_ID), session_id.alias(SESSION_ID))


def _match_all(
    references: list[TrackReference], catalog: CatalogMatcher, suggestions: SuggestionIndex | None
) -> list[Match]:
    matches = []
    for reference in references:
        result = match_track(reference, catalog)
        if result.track_id is None and suggestions is not None:
            entry = suggestions.fuzzy_match(reference)
            if entry is not None:
                result = Match(entry.track_id, "fuzzy")
        matches.append(result)
    return matches


def _add_tracks(events: pl.DataFrame, matches: list[Match]) -> pl.DataFrame:
    track_ids = pl.Series(TRACK_ID, [result.track_id for result in matches], pl.String)
    rules = pl.Series(_RULE, [result.rule for result in matches], pl.String)
    table = pl.DataFrame([track_ids, rules]).with_row_index(REFERENCE)
    return events.join(table, on=REFERENCE, how="left", maintain_order="left")


def _count_matches(events: pl.DataFrame, result: HistoryImport) -> None:
    read_now = events.filter(~pl.col(IS_KEPT))
    matched = read_now.filter(pl.col(TRACK_ID).is_not_null())
    counts = dict(matched.group_by(_RULE).len().iter_rows())
    result.n_read = read_now.height
    result.matched = {rule: counts[rule] for rule in RULES if rule in counts}
    result.n_matched = matched.height
    result.n_unmatched = result.n_read - result.n_matched
    is_newly_matched = pl.col(IS_KEPT) & pl.col(TRACK_ID).is_not_null()
    result.n_newly_matched = events.filter(is_newly_matched).height
