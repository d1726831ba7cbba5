"""import-history: from a file, folder or zip to events of the log, and a record of what matched and
what did not.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from itertools import accumulate
from pathlib import Path, PurePosixPath

import polars as pl

from ponticello.errors import ConfigError, DataError
from ponticello.listening.importers.detect import FORMATS, TABLE_SUFFIXES, Format, detect_format
from ponticello.listening.importers.lastfm import read_lastfm
from ponticello.listening.importers.listenbrainz import read_listenbrainz
from ponticello.listening.importers.music_servers import read_beets, read_navidrome
from ponticello.listening.importers.playlists import read_jspf, read_m3u, read_pls, read_xspf
from ponticello.listening.importers.records import (
    EVENT_COLUMNS,
    IS_KEPT,
    IS_TABLE,
    REFERENCE,
    BadRecord,
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
from ponticello.storage.tables import truncate_value
from ponticello.tracks.catalog import read_stored_table, read_tracks

ME = "me"  # whose an export of one person is, unless they are named
_STEP = "import-history"
_DAMAGED = "is damaged in its zip; what stands before the damage was read"
_MOST_LISTED = 10_000  # bad rows of one file named one by one
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
    """What an import did, in events. matched: by rule, of those read now; the kept are of this
    import and before.
    """

    n_new: int = 0
    n_updated: int = 0  # counts of plays that grew, and scrobbles whose length is known now
    n_skipped: int = 0
    n_total: int = 0
    n_read: int = 0
    n_matched: int = 0
    n_unmatched: int = 0
    n_kept: int = 0
    n_newly_matched: int = 0  # kept by an earlier import, matched now
    n_not_music: int = 0
    matched: dict[str, int] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    ignored_files: list[str] = field(default_factory=list)
    dropped_columns: list[str] = field(default_factory=list)
    user: str | None = None

    @property
    def match_rate(self) -> float | None:
        """The share of the events read that found their track."""
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
    """Adds the events of a file, folder or zip to the library, each with the track it is of, each
    of them once.

    path: None tries again what earlier imports could not match, which every import does besides.
    file_format: what the files are; None tells it from each file's content. columns: for plain tables and
    Last.fm.
    user: who listened, in exports of one person (`ME` if None). pseudonyms: False keeps new listeners
    their names as ids.
    zone: in which dates that name none were written. on_progress: called with (bytes, of all bytes)
    read. What cannot be read goes to skipped.csv by file and line, what finds no track to
    unmatched.csv, and is kept.

    DataError: nothing there that can be read. ConfigError: options that do not go together.
    LibraryError: no catalogue yet, or another process is writing.

        import_history(folder, Path("my_spotify_data.zip"), user="ada")
    """
    done = HistoryImport()
    gathered = EventBuffer()
    tracks = read_tracks(folder)
    skipped: list[SkippedRow] = []
    if path is not None:
        with open_sources(path) as sources:
            ends = list(accumulate(source.size for source in sources))
            for place, found in _known(sources, file_format, done, path):
                skipped += _read(sources[place], found, gathered, done, columns or {}, user, zone)
                if on_progress:
                    on_progress(ends[place], ends[-1])
    with folder.lock():
        kept = read_pending_events(folder)
        if kept is not None:
            gathered.add_rows(kept.with_columns(pl.lit(True).alias(IS_KEPT)))
        events = _with_users(folder, gathered.take_events(), user, pseudonyms, done)
        catalogue = build_catalog(tracks, PurePosixPath(folder.root.as_posix()))
        nearest = SuggestionIndex(catalogue)
        matches = _matches(gathered.references, catalogue, nearest if fuzzy else None)
        events = _with_tracks(events, matches)
        _count(events, done)
        matched = events.filter(pl.col(TRACK_ID).is_not_null())
        new, waiting = (
            matched.drop(REFERENCE, "rule"),
            events.filter(pl.col(TRACK_ID).is_null()).select(list(EVENT_COLUMNS)),
        )
        del events, matched  # the largest things here, of which what follows makes its own
        done.n_new, done.n_updated, done.n_total = add_events(
            folder, new, "history" if path is None else path.name
        )
        del new
        waiting = write_pending_events(folder, waiting, gathered.references)
        done.n_kept = waiting.height
        write_unmatched_list(folder, waiting, gathered.references, matches, nearest)
        if path is not None:
            folder.record_skipped(_STEP, skipped)
    return done


def _known(
    sources: list[HistoryFile], form: Format | None, done: HistoryImport, path: Path
) -> Iterator[tuple[int, Format]]:
    """(which source, its format) of every one that is known; others are in `done.ignored_files`."""
    n_known = 0
    for place, source in enumerate(sources):
        found = form or detect_format(source)
        if found is None and len(sources) == 1 and source.suffix in TABLE_SUFFIXES:
            found = "table"  # which says what it misses
        if found is None:
            done.ignored_files.append(source.name)
            continue
        n_known += 1
        yield place, found
    if not n_known:
        raise DataError(
            f"{path.name} holds no listening that is known; formats are {', '.join(FORMATS)}; if it is one of them, "
            "pass --format"
        )


def _read(
    source: HistoryFile,
    form: Format,
    gathered: EventBuffer,
    done: HistoryImport,
    columns: Mapping[str, str],
    user: str | None,
    zone: tzinfo,
) -> list[SkippedRow]:
    """Adds a file's events to `load_audience`; the rows to record as skipped, of which `done`
    counts every one.
    """
    done.files[source.name] = form
    skipped: list[SkippedRow] = []
    _gather(source, form, gathered, done, skipped, columns, user, zone)
    skipped += [
        SkippedRow(source.name, None, "", "", f"{_DAMAGED}: {why}") for why in source.damage
    ]
    done.n_skipped += len(skipped)
    return _shortened(skipped, source.name)


def _gather(
    source: HistoryFile,
    form: Format,
    gathered: EventBuffer,
    done: HistoryImport,
    skipped: list[SkippedRow],
    columns: Mapping[str, str],
    user: str | None,
    zone: tzinfo,
) -> None:
    if form == "table":
        rows, bad, left_out = read_event_table(source, columns, has_one_user=user is not None)
        if user is not None and USER_ID in rows.columns:
            raise ConfigError(f"{source.name} names its listeners itself; leave --user out")
        gathered.add_rows(rows)
        skipped += bad
        done.dropped_columns += [name for name in left_out if name not in done.dropped_columns]
        return
    if columns and form != "lastfm":
        raise ConfigError(
            f"{source.name} is a {form} file, whose columns are known; leave --columns out"
        )
    if user is not None and form == "navidrome":
        raise ConfigError(f"{source.name} names its listeners itself; leave --user out")
    records = read_lastfm(source, zone, columns) if form == "lastfm" else READERS[form](source)
    gathered.add(_listens(records, source, done, skipped))


def _listens(
    records: Records, source: HistoryFile, done: HistoryImport, skipped: list[SkippedRow]
) -> Iterator[ListenEvent]:
    """The events among `records`; faults go to `skipped`, also that of a file which breaks off."""
    for record in records:
        if isinstance(record, BadRecord):
            skipped.append(
                SkippedRow(
                    source.name,
                    record.line,
                    record.field,
                    truncate_value(record.value),
                    record.reason,
                )
            )
        elif isinstance(record, IgnoredRecord):
            done.n_not_music += 1
        else:
            yield record


def _shortened(rows: list[SkippedRow], name: str) -> list[SkippedRow]:
    more = len(rows) - _MOST_LISTED
    return (
        [*rows[:_MOST_LISTED], SkippedRow(name, None, "", f"{more} more rows", "see those above")]
        if more > 0
        else rows
    )


def _with_users(
    folder: LibraryPaths,
    events: pl.DataFrame,
    user: str | None,
    pseudonyms: bool,
    done: HistoryImport,
) -> pl.DataFrame:
    """Events under the ids of their listeners, and playlists under theirs; the kept ones have both
    already.
    """
    known: set[str] = set()
    if folder.interactions.is_file():
        known |= set(read_stored_table(folder.interactions, [USER_ID])[USER_ID].unique())
    is_kept = pl.col(IS_KEPT)
    known |= set(events.filter(is_kept)[USER_ID].unique())
    events = events.with_columns(pl.col(USER_ID).fill_null(user or ME))
    names = events.filter(~is_kept)[USER_ID].unique(maintain_order=True).to_list()
    ids = assign_user_ids(folder, names, known, pseudonyms=pseudonyms)
    playlists = (
        (pl.col(EVENT) == "playlist")
        & ~is_kept
        & ~pl.col(IS_TABLE)
        & pl.col(SESSION_ID).is_not_null()
    )
    sessions = events.filter(playlists)[SESSION_ID].unique(maintain_order=True).to_list()
    hidden = {name: pseudonym(folder, name, "playlist") for name in sessions}
    if len(names) == 1:
        done.user = names[0]
    return events.with_columns(
        pl.when(is_kept)
        .then(pl.col(USER_ID))
        .otherwise(pl.col(USER_ID).replace(ids))
        .alias(USER_ID),
        pl.when(playlists)
        .then(pl.col(SESSION_ID).replace(hidden))
        .otherwise(pl.col(SESSION_ID))
        .alias(SESSION_ID),
    )


def _matches(
    heard: list[TrackReference], catalogue: CatalogMatcher, nearest: SuggestionIndex | None
) -> list[Match]:
    found = [match_track(said, catalogue) for said in heard]
    if nearest is None:
        return found
    for place, each in enumerate(found):
        if each.track_id is None and (entry := nearest.fuzzy_match(heard[place])) is not None:
            found[place] = Match(entry.track_id, "fuzzy")
    return found


def _with_tracks(events: pl.DataFrame, matches: list[Match]) -> pl.DataFrame:
    """`events` with the track each is of, if any, and the rule that found it."""
    found_ids = pl.Series(TRACK_ID, [each.track_id for each in matches], pl.String)
    rules = pl.Series("rule", [each.rule for each in matches], pl.String)
    table = pl.DataFrame([found_ids, rules]).with_row_index(REFERENCE)
    return events.join(table, on=REFERENCE, how="left", maintain_order="left")


def _count(events: pl.DataFrame, done: HistoryImport) -> None:
    now = events.filter(~pl.col(IS_KEPT))
    done.n_read = now.height
    rules = Counter(dict(now.filter(pl.col("rule") != "").group_by("rule").len().iter_rows()))
    done.matched = {rule: rules[rule] for rule in RULES if rules[rule]}
    done.n_matched = sum(done.matched.values())
    done.n_unmatched = done.n_read - done.n_matched
    done.n_newly_matched = events.filter(pl.col(IS_KEPT) & pl.col(TRACK_ID).is_not_null()).height
