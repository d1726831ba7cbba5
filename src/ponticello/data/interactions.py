"""The listening log: events come in from a table, each of them once, and are read back complete."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from ponticello.data.catalog import complete, read_tracks, stacked, stored_table
from ponticello.data.columns import (
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
from ponticello.data.intake import DTYPES, Imported, read_numbered
from ponticello.data.parquet import scan_parquet
from ponticello.errors import DataError, LibraryError
from ponticello.library import Folder, Skipped, replacing

_LIST, _IS_COUNT = "list", "is_count"
_SAME_EVENT = (USER_ID, TRACK_ID, PLAYED_AT, EVENT, _LIST, _IS_COUNT)  # rows equal in all of these are one event
_STEP = "import-history"
_UNKNOWN = "track is not in the catalogue"
_MOST_LISTED = 10_000  # rows of unknown tracks named one by one


def import_interactions(folder: Folder, path: Path, *, columns: Mapping[str, str] | None = None) -> Imported:
    """Adds the events of a table to the library; rows that cannot be used go to skipped.csv.

    columns: our column name -> the table's own, as in {"played_at": "ts"}.
    A row without `event` is a play. Rows with the same user, track, time and event (and playlist) count once, also
    over several imports, so n_new is what was not there before and n_updated is 0. Kept in the order of time, user,
    track.
    Of the rows whose track is unknown the first 10,000 are listed, the others counted in one further row.

    DataError: see `read_table`. LibraryError: no catalogue yet, or another process is writing.

        import_interactions(folder, Path("plays.parquet"), columns={"user_id": "listener"})
    """
    frame, lines, bad = read_numbered(path, INTERACTIONS, columns)
    skipped = nameless(bad)
    frame = complete(frame, INTERACTIONS).with_columns(pl.col(EVENT).fill_null("play"))
    with folder.lock():
        catalogue = read_tracks(folder).select(TRACK_ID)
        unknown = frame.with_columns(line=lines).join(catalogue, on=TRACK_ID, how="anti").sort("line")
        new = frame.join(catalogue, on=TRACK_ID, how="semi", maintain_order="left")
        n_new, n_total = merge_interactions(folder, new, path.name)
        n_skipped = len(skipped) + unknown.height
        skipped = sorted([*skipped, *_listed(unknown.head(_MOST_LISTED), path.name)], key=lambda row: row.line or 0)
        if (n_more := unknown.height - _MOST_LISTED) > 0:
            skipped.append(Skipped(path.name, None, TRACK_ID, f"{n_more} more rows", _UNKNOWN))
        folder.record_skipped(_STEP, skipped)
    return Imported(n_new, 0, n_skipped, n_total)


def merge_interactions(
    folder: Folder,
    new: pl.DataFrame,
    name: str,
    *,
    replaced: pl.DataFrame | None = None,
    log: pl.DataFrame | None = None,
) -> tuple[int, int]:
    """Adds the events that are not there yet to interactions.parquet; gives (n_new, n_total).

    The caller holds `folder.lock()`. name: what an error calls these rows. replaced: events of the log that go because
    new ones say the same and more. log: the log as it stands, where the caller has read it. One event: the same
    listener, track, moment and kind; of playlists also the same one, and a count of plays is none of the plays.
    """
    new = _keyed(new).unique(_SAME_EVENT, keep="first", maintain_order=True)
    if log is None and folder.interactions.is_file():
        log = stored_table(folder.interactions)
    if log is None:
        rows = new
    else:
        old = _keyed(log)
        if replaced is not None and replaced.height:
            old = _without(old, _keyed(replaced))
        new = _without(new, events_of(old, new[USER_ID]))
        rows = stacked(old, new, name)
    rows = rows.sort(PLAYED_AT, *_SAME_EVENT, maintain_order=True).drop(_LIST, _IS_COUNT)
    with replacing(folder.interactions) as temporary:
        rows.write_parquet(temporary, compression="zstd")
    return new.height, rows.height


def read_interactions(folder: Folder) -> pl.DataFrame:
    """The listening log, one row an event, with every column of `INTERACTIONS` (null where nothing is known).

    LibraryError: nothing was imported yet, or the file is damaged.
    """
    if not folder.interactions.is_file():
        raise LibraryError(f"{folder.root} has no listening history; add one with: ponticello import-history TABLE")
    return complete(stored_table(folder.interactions), INTERACTIONS)


def scan_interactions(folder: Folder) -> pl.LazyFrame:
    """As `read_interactions`, without loading the rows: for logs that need not fit into memory."""
    if not folder.interactions.is_file():
        raise LibraryError(f"{folder.root} has no listening history; add one with: ponticello import-history TABLE")
    try:
        events = scan_parquet(folder.interactions)
    except DataError as error:
        raise LibraryError(f"{folder.root} is damaged ({error}); delete the file and import again") from None
    found = events.collect_schema()
    missing = {column: kind for column, kind in INTERACTIONS.kinds.items() if column not in found}
    return events.with_columns([pl.lit(None, DTYPES[kind]).alias(column) for column, kind in missing.items()])


def nameless(skipped: Sequence[Skipped]) -> list[Skipped]:
    """Bad rows of a history without what may name somebody: whole lines, and the listener."""
    return [replace(row, value="") if row.field in ("", USER_ID) else row for row in skipped]


def is_positive(min_played_s: float) -> pl.Expr:
    """True where an event speaks for the track: a `POSITIVE_EVENTS`, or a play of at least `min_played_s` seconds.

    A play of unknown length counts.

        events.filter(is_positive(30.0))
    """
    lasted = pl.col(PLAYED_S).is_null() | (pl.col(PLAYED_S) >= min_played_s)
    return pl.col(EVENT).is_in(POSITIVE_EVENTS) | ((pl.col(EVENT) == "play") & lasted)


def events_of(log: pl.DataFrame, users: pl.Series) -> pl.DataFrame:
    """The rows of some listeners, in the order of `log`: what new events are compared with, be the log however long."""
    return log.filter(pl.col(USER_ID).is_in(users.unique().implode()))


def _keyed(events: pl.DataFrame) -> pl.DataFrame:
    """`events` with what else tells them apart: the playlist, and whether one stands for several plays."""
    playlist = pl.when(pl.col(EVENT) == "playlist").then(pl.col(SESSION_ID))
    is_count = pl.col(N_TIMES).is_not_null() if N_TIMES in events.columns else pl.lit(False)
    return complete(events, INTERACTIONS).with_columns(playlist.alias(_LIST), is_count.alias(_IS_COUNT))


def _without(some: pl.DataFrame, others: pl.DataFrame) -> pl.DataFrame:
    return some.join(others, on=_SAME_EVENT, how="anti", nulls_equal=True, maintain_order="left")


def _listed(unknown: pl.DataFrame, name: str) -> list[Skipped]:
    rows = unknown.select("line", TRACK_ID).iter_rows()
    return [Skipped(name, line, TRACK_ID, track_id, _UNKNOWN) for line, track_id in rows]
