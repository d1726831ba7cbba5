"""The listening log: events come in from a table, each of them once, and are read back complete.

What was imported once is not counted twice, also where two exports tell of one event a little
differently.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl

from ponticello.errors import DataError, LibraryError
from ponticello.listening.importers.records import IS_KEPT, IS_TABLE
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths, SkippedRow
from ponticello.storage.schema import (
    EVENT,
    INTERACTIONS,
    N_TIMES,
    PLAYED_AT,
    PLAYED_S,
    POSITIVE_EVENTS,
    SESSION_ID,
    TRACK_ID,
    USER_ID,
)
from ponticello.storage.tables import scan_parquet
from ponticello.storage.validation import DTYPES, ImportResult, read_numbered
from ponticello.tracks.catalog import concat_tables, fill_columns, read_stored_table, read_tracks

_LIST, _IS_COUNT = "list", "is_count"
_SAME_EVENT = (
    USER_ID,
    TRACK_ID,
    PLAYED_AT,
    EVENT,
    _LIST,
    _IS_COUNT,
)  # rows equal in all of these are one event
_STEP = "import-history"
_UNKNOWN = "track is not in the catalogue"
_MOST_LISTED = 10_000  # rows of unknown tracks named one by one


def import_interactions(
    folder: LibraryPaths, path: Path, *, columns: Mapping[str, str] | None = None
) -> ImportResult:
    """Adds the events of a table to the library; rows that cannot be used go to skipped.csv.

    columns: our column name -> the table's own, as in {"played_at": "ts"}.
    A row without `event` is a play. Rows with the same user, track, time and event (and playlist)
    count once, also over several imports, so n_new is what was not there before and n_updated is 0.
    Kept in the order of time, user, track. Of the rows whose track is unknown the first 10,000 are
    listed, the others counted in one further row.

    DataError: see `read_table`. LibraryError: no catalogue yet, or another process is writing.

        import_interactions(folder, Path("plays.parquet"), columns={"user_id": "listener"})
    """
    frame, lines, bad = read_numbered(path, INTERACTIONS, columns)
    skipped = redact_users(bad)
    frame = fill_columns(frame, INTERACTIONS).with_columns(pl.col(EVENT).fill_null("play"))
    with folder.lock():
        catalogue = read_tracks(folder).select(TRACK_ID)
        unknown = (
            frame.with_columns(line=lines).join(catalogue, on=TRACK_ID, how="anti").sort("line")
        )
        new = frame.join(catalogue, on=TRACK_ID, how="semi", maintain_order="left")
        n_new, n_total = merge_interactions(folder, new, path.name)
        n_skipped = len(skipped) + unknown.height
        skipped = sorted(
            [*skipped, *_listed(unknown.head(_MOST_LISTED), path.name)],
            key=lambda row: row.line or 0,
        )
        if (n_more := unknown.height - _MOST_LISTED) > 0:
            skipped.append(SkippedRow(path.name, None, TRACK_ID, f"{n_more} more rows", _UNKNOWN))
        folder.record_skipped(_STEP, skipped)
    return ImportResult(n_new, 0, n_skipped, n_total)


def merge_interactions(
    folder: LibraryPaths,
    new: pl.DataFrame,
    name: str,
    *,
    replaced: pl.DataFrame | None = None,
    log: pl.DataFrame | None = None,
) -> tuple[int, int]:
    """Adds the events that are not there yet to interactions.parquet; gives (n_new, n_total).

    The caller holds `folder.lock()`. name: what an error calls these rows. replaced: events of the
    log that go because new ones say the same and more. log: the log as it stands, where the caller
    has read it. One event: the same listener, track, moment and kind; of playlists also the same
    one, and a count of plays is none of the plays.
    """
    new = _keyed(new).unique(_SAME_EVENT, keep="first", maintain_order=True)
    if log is None and folder.interactions.is_file():
        log = read_stored_table(folder.interactions)
    if log is None:
        rows = new
    else:
        old = _keyed(log)
        if replaced is not None and replaced.height:
            old = _without(old, _keyed(replaced))
        new = _without(new, events_of(old, new[USER_ID]))
        rows = concat_tables(old, new, name)
    rows = rows.sort(PLAYED_AT, *_SAME_EVENT, maintain_order=True).drop(_LIST, _IS_COUNT)
    with atomic_write(folder.interactions) as temporary:
        rows.write_parquet(temporary, compression="zstd")
    return new.height, rows.height


def read_interactions(folder: LibraryPaths) -> pl.DataFrame:
    """The listening log, one row an event, with every column of `INTERACTIONS` (null where nothing
    is known).

    LibraryError: nothing was imported yet, or the file is damaged.
    """
    if not folder.interactions.is_file():
        raise LibraryError(
            f"{folder.root} has no listening history",
            code="no_log",
            remedy="ponticello import-history FILE",
            library=folder.root,
        )
    return fill_columns(read_stored_table(folder.interactions), INTERACTIONS)


def scan_interactions(folder: LibraryPaths) -> pl.LazyFrame:
    """As `read_interactions`, without loading the rows: for logs that need not fit into memory."""
    if not folder.interactions.is_file():
        raise LibraryError(
            f"{folder.root} has no listening history",
            code="no_log",
            remedy="ponticello import-history FILE",
            library=folder.root,
        )
    try:
        events = scan_parquet(folder.interactions)
    except DataError as error:
        raise LibraryError(
            f"{folder.root} is damaged ({error}); delete the file and import again"
        ) from None
    found = events.collect_schema()
    missing = {column: kind for column, kind in INTERACTIONS.kinds.items() if column not in found}
    return events.with_columns(
        [pl.lit(None, DTYPES[kind]).alias(column) for column, kind in missing.items()]
    )


def redact_users(skipped: Sequence[SkippedRow]) -> list[SkippedRow]:
    """Bad rows of a history without what may name somebody: whole lines, and the listener."""
    return [replace(row, value="") if row.field in ("", USER_ID) else row for row in skipped]


def is_positive(min_played_s: float) -> pl.Expr:
    """True where an event speaks for the track: a `POSITIVE_EVENTS`, or a play of at least
    `min_played_s` seconds.

    A play of unknown length counts.

        events.filter(is_positive(30.0))
    """
    lasted = pl.col(PLAYED_S).is_null() | (pl.col(PLAYED_S) >= min_played_s)
    return pl.col(EVENT).is_in(POSITIVE_EVENTS) | ((pl.col(EVENT) == "play") & lasted)


def events_of(log: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """The rows of some listeners, in the order of `log`: what new events are compared with, be the
    log however long.
    """
    return log.filter(pl.col(USER_ID).is_in(users.unique().implode()))


def _keyed(events: pl.DataFrame) -> pl.DataFrame:
    """`events` with what else tells them apart: the playlist, and whether one stands for several
    plays.
    """
    playlist = pl.when(pl.col(EVENT) == "playlist").then(pl.col(SESSION_ID))
    is_count = pl.col(N_TIMES).is_not_null() if N_TIMES in events.columns else pl.lit(False)
    return fill_columns(events, INTERACTIONS).with_columns(
        playlist.alias(_LIST), is_count.alias(_IS_COUNT)
    )


def _without(some: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    return some.join(others, on=_SAME_EVENT, how="anti", nulls_equal=True, maintain_order="left")


def _listed(unknown: pl.DataFrame, name: str) -> list[SkippedRow]:
    rows = unknown.select("line", TRACK_ID).iter_rows()
    return [SkippedRow(name, line, TRACK_ID, track_id, _UNKNOWN) for line, track_id in rows]


_PLAYED = ("play", "complete", "skip")
_TWINS = (USER_ID, TRACK_ID, PLAYED_S, "minute")
_CLOCKS = timedelta(
    minutes=1
)  # by which two services may disagree; also what rounding to the minute takes
_OWN = (IS_TABLE, IS_KEPT)  # columns that the log does not have


def add_events(folder: LibraryPaths, new: pl.DataFrame, name: str) -> tuple[int, int, int]:
    """Adds events with a track to the log; gives (n_new, n_updated, n_total). The caller holds
    `folder.lock()`.

    One event: as in `merge_interactions`. Also one:
    - a play of an export at a full minute and another in that minute that lasted as long: exports
      that round to the
      minute tell of plays that exact ones tell too;
    - a scrobble (a play of unknown length) within a play of the same track, by the other's clock to
      a minute: two
      services told of it, and the one that knows how long it lasted is kept (n_updated, if it comes
      later);
    - a track of an export's playlist, whenever that was saved;
    - a count of plays: the larger one takes the place of the smaller (n_updated).
    """
    log = read_stored_table(folder.interactions) if folder.interactions.is_file() else None
    old = (
        None if log is None else events_of(log, new[USER_ID])
    )  # whatever is one event is of one listener
    if old is not None and N_TIMES not in old.columns:
        old = old.with_columns(pl.lit(None, pl.Int64).alias(N_TIMES))
    new = _drop_minute_rounded_duplicates(new, old)
    new, scrobbles = _drop_scrobbles_covered_by_plays(new, old)
    n_updated = 0 if scrobbles is None else scrobbles.n_unique((USER_ID, TRACK_ID, "by"))
    new = _drop_repeated_playlist_entries(new, old)
    counts = new.filter(pl.col(N_TIMES).is_not_null()).sort(N_TIMES, PLAYED_AT, descending=True)
    counts = counts.unique((USER_ID, TRACK_ID, EVENT), keep="first", maintain_order=True)
    replaced = scrobbles
    if old is not None and counts.height:
        known = old.filter(pl.col(N_TIMES).is_not_null())
        on = (USER_ID, TRACK_ID, EVENT)
        both = counts.join(
            known.select(*on, pl.col(N_TIMES).alias("before")),
            on=on,
            how="left",
            maintain_order="left",
        )
        counts = both.filter(
            pl.col("before").is_null() | (pl.col(N_TIMES) > pl.col("before"))
        ).drop("before")
        counted = known.join(counts, on=on, how="semi")
        n_updated += counted.height
        replaced = (
            pl.concat([scrobbles, counted], how="diagonal") if scrobbles is not None else counted
        )
    new = pl.concat([new.filter(pl.col(N_TIMES).is_null()), counts]).drop(_OWN)
    if new[N_TIMES].null_count() == new.height:
        new = new.drop(N_TIMES)  # a log without counts needs no such column
    n_added, n_total = merge_interactions(folder, new, name, replaced=replaced, log=log)
    n_updated = min(
        n_updated, n_added
    )  # a play that was there already may cover a scrobble that came later
    return n_added - n_updated, n_updated, n_total


def _drop_minute_rounded_duplicates(new: pl.DataFrame, old: pl.DataFrame | None) -> pl.DataFrame:
    minute = pl.col(PLAYED_AT).dt.truncate("1m")
    rounded = (pl.col(PLAYED_AT) == minute).alias("rounded")
    is_play = pl.col(EVENT).is_in(_PLAYED) & pl.col(N_TIMES).is_null()
    new = new.with_row_index("row").with_columns(minute.alias("minute"), rounded)
    plays = new.filter(is_play & ~pl.col(IS_TABLE))
    exact = plays.filter(~pl.col("rounded"))
    here = plays.filter(pl.col("rounded")).join(exact, on=_TWINS, how="semi", nulls_equal=True)[
        "row"
    ]
    gone = [here]
    if old is not None:
        known = (
            old.filter(is_play)
            .with_columns(minute.alias("minute"), rounded)
            .select(*_TWINS, "rounded")
        )
        gone.append(
            plays.filter(pl.col("rounded")).join(known, on=_TWINS, how="semi", nulls_equal=True)[
                "row"
            ]
        )
        roughly = known.filter(pl.col("rounded"))
        gone.append(exact.join(roughly, on=_TWINS, how="semi", nulls_equal=True)["row"])
    return new.filter(~pl.col("row").is_in(pl.concat(gone).implode())).drop(
        "row", "minute", "rounded"
    )


def _drop_scrobbles_covered_by_plays(
    new: pl.DataFrame, old: pl.DataFrame | None
) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """`new` without scrobbles that a play of known length covers, and the scrobbles of the log that
    new ones cover.
    """
    is_play = pl.col(EVENT).is_in(_PLAYED) & pl.col(N_TIMES).is_null()
    new = new.with_row_index("row")
    plays = new.filter(is_play & ~pl.col(IS_TABLE))
    known = plays if old is None else pl.concat([plays, old.filter(is_play)], how="diagonal")
    gone = _covered(plays, known)["row"]
    covered = None if old is None else _covered(old.filter(is_play), plays)
    return new.filter(~pl.col("row").is_in(gone.implode())).drop("row"), covered


def _covered(some: pl.DataFrame, by: pl.DataFrame) -> pl.DataFrame:
    """The scrobbles among `some` that lie within a play among `by`, and when that ends."""
    begins = (pl.col(PLAYED_AT) - pl.duration(microseconds=pl.col(PLAYED_S) * 1e6) - _CLOCKS).alias(
        "begins"
    )
    ends = (pl.col(PLAYED_AT) + _CLOCKS).alias("ends")
    timed = by.filter(pl.col(PLAYED_S) > 0).select(
        USER_ID, TRACK_ID, begins, ends, ends.alias("by")
    )
    scrobbles = some.filter(pl.col(PLAYED_S).is_null()).sort(PLAYED_AT)
    found = scrobbles.join_asof(
        timed.sort("ends"),
        left_on=PLAYED_AT,
        right_on="ends",
        by=[USER_ID, TRACK_ID],
        strategy="forward",
        check_sortedness=False,
    )
    return found.filter(pl.col("begins") <= pl.col(PLAYED_AT)).select(*some.columns, "by")


def _drop_repeated_playlist_entries(new: pl.DataFrame, old: pl.DataFrame | None) -> pl.DataFrame:
    """`new` without the tracks of exports' playlists that repeat one before them, or one of the
    log.
    """
    is_playlist, on = pl.col(EVENT) == "playlist", (USER_ID, TRACK_ID, SESSION_ID)
    which = is_playlist & ~pl.col(IS_TABLE)
    some = new.filter(which).unique(on, keep="first", maintain_order=True)
    if old is not None:
        some = some.join(
            old.filter(is_playlist), on=on, how="anti", nulls_equal=True, maintain_order="left"
        )
    return pl.concat([new.filter(~which), some])
