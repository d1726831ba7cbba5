"""The listening log, interactions.parquet: appends, deduplicates and reads events.

Each event is stored once, also when two exports report it in slightly different ways.
"""

from datetime import timedelta

import polars as pl

from ponticello.errors import DataError, LibraryError
from ponticello.listening.importers.records import IS_KEPT, IS_TABLE
from ponticello.storage.layout import LibraryPaths
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
from ponticello.storage.tables import scan_parquet, write_parquet
from ponticello.tracks.catalog import concat_tables, fill_columns, read_stored_table

_PLAYLIST, _IS_COUNT = "playlist", "is_count"
# Rows that are equal in all of these columns are one event.
_EVENT_KEY = (USER_ID, TRACK_ID, PLAYED_AT, EVENT, _PLAYLIST, _IS_COUNT)
_EVENT_ORDER = (PLAYED_AT, USER_ID, TRACK_ID, EVENT, _PLAYLIST, _IS_COUNT)
_MINUTE_KEY = (USER_ID, TRACK_ID, PLAYED_S, "minute")
_COUNT_KEY = (USER_ID, TRACK_ID, EVENT)
# By how much the clocks of two services may differ; it also covers rounding to the minute.
_CLOCK_TOLERANCE = timedelta(minutes=1)
_IS_PLAY = pl.col(EVENT).is_in(("play", "complete", "skip")) & pl.col(N_TIMES).is_null()
_IS_EXPORTED = ~pl.col(IS_TABLE)


def add_events(folder: LibraryPaths, events: pl.DataFrame, name: str) -> tuple[int, int, int]:
    """Adds imported events that have a track to the log; returns (n_new, n_updated, n_total).

    The caller holds `folder.lock()`. name: what an error calls these events. Duplicates are those
    of `merge_interactions` and, in exports:
    - a play at a full minute, and one in that minute of the same length: some exports round;
    - a scrobble (a play of unknown length) within a play of the same track, give or take a minute:
      two services recorded it, and the one with the length is kept (n_updated, if it comes later);
    - a track of a playlist, whenever the playlist was saved;
    - a count of plays: the larger one replaces the smaller one (n_updated).
    """
    log = read_stored_table(folder.interactions) if folder.interactions.is_file() else None
    existing = events.clear() if log is None else events_of_users(log, events[USER_ID])
    if N_TIMES not in existing.columns:
        existing = existing.with_columns(pl.lit(None, pl.Int64).alias(N_TIMES))
    events = drop_minute_rounded_duplicates(events, existing)
    events, covered_scrobbles = drop_scrobbles_covered_by_plays(events, existing)
    events = drop_repeated_playlist_entries(events, existing)
    plays = events.filter(pl.col(N_TIMES).is_null())
    counts = events.filter(pl.col(N_TIMES).is_not_null())
    counts, smaller_counts = keep_larger_counts(counts, existing)
    events = pl.concat([plays, counts]).drop(IS_TABLE, IS_KEPT)
    if counts.is_empty():
        events = events.drop(N_TIMES)  # a log without counts needs no such column
    replaced = pl.concat([covered_scrobbles, smaller_counts], how="diagonal")
    n_added, n_total = merge_interactions(folder, events, name, replaced=replaced, log=log)
    n_replacing = covered_scrobbles.n_unique((USER_ID, TRACK_ID, "play_ends"))
    n_replacing += smaller_counts.height
    # A play that was in the log already may cover a scrobble that was imported after it.
    n_updated = min(n_replacing, n_added)
    return n_added - n_updated, n_updated, n_total


def merge_interactions(
    folder: LibraryPaths,
    events: pl.DataFrame,
    name: str,
    *,
    replaced: pl.DataFrame | None = None,
    log: pl.DataFrame | None = None,
) -> tuple[int, int]:
    """Adds the events that interactions.parquet does not have yet; returns (n_new, n_total).

    Two events are one if they have the same user, track, time and kind and, in playlists, the same
    playlist; a count of plays is never the same event as a play. The caller holds `folder.lock()`.

    name: what an error calls these events. replaced: events of the log that are removed, since
    new ones contain the same and more. log: the log, where the caller has read it already.
    """
    new = _with_event_key(events).unique(_EVENT_KEY, keep="first", maintain_order=True)
    if log is None and folder.interactions.is_file():
        log = read_stored_table(folder.interactions)
    rows = new
    if log is not None:
        old = _with_event_key(log)
        if replaced is not None and replaced.height:
            old = _without_events(old, _with_event_key(replaced))
        new = _without_events(new, events_of_users(old, new[USER_ID]))
        rows = concat_tables(old, new, name)
    rows = rows.sort(_EVENT_ORDER, maintain_order=True).drop(_PLAYLIST, _IS_COUNT)
    write_parquet(folder.interactions, rows)
    return new.height, rows.height


def read_interactions(folder: LibraryPaths) -> pl.DataFrame:
    """Returns the log with every column of `INTERACTIONS`; LibraryError if there is none."""
    _require_log(folder)
    return fill_columns(read_stored_table(folder.interactions), INTERACTIONS)


def scan_interactions(folder: LibraryPaths) -> pl.LazyFrame:
    """As `read_interactions`, without loading the rows: for logs larger than the memory."""
    _require_log(folder)
    try:
        events = scan_parquet(folder.interactions)
    except DataError as error:
        message = f"{folder.interactions} is damaged ({error}); delete the file and import again"
        raise LibraryError(message) from None
    return fill_columns(events, INTERACTIONS)


def events_of_users(log: pl.DataFrame, user_ids: pl.Series) -> pl.DataFrame:
    """Returns the events of some users, with which alone new events are compared."""
    return log.filter(pl.col(USER_ID).is_in(user_ids.unique().implode()))


def is_positive(min_played_s: float) -> pl.Expr:
    """Returns an expression for likes: `POSITIVE_EVENTS`, and plays of long or unknown length."""
    is_long_enough = pl.col(PLAYED_S).is_null() | (pl.col(PLAYED_S) >= min_played_s)
    return pl.col(EVENT).is_in(POSITIVE_EVENTS) | ((pl.col(EVENT) == "play") & is_long_enough)


def drop_minute_rounded_duplicates(events: pl.DataFrame, existing: pl.DataFrame) -> pl.DataFrame:
    """Drops the rounded one of an exported play at a full minute and one in it, of equal length."""
    minute = pl.col(PLAYED_AT).dt.truncate("1m").alias("minute")
    is_rounded = (pl.col(PLAYED_AT) == pl.col(PLAYED_AT).dt.truncate("1m")).alias("is_rounded")
    rows = events.with_row_index("row").with_columns(minute, is_rounded)
    plays = rows.filter(_IS_PLAY & _IS_EXPORTED)
    rounded = plays.filter("is_rounded")
    exact = plays.filter(~pl.col("is_rounded"))
    logged_plays = existing.filter(_IS_PLAY).with_columns(minute, is_rounded)
    any_play = pl.concat([exact.select(_MINUTE_KEY), logged_plays.select(_MINUTE_KEY)])
    rounded_play = logged_plays.filter("is_rounded")
    duplicates = pl.concat(
        [
            rounded.join(any_play, on=_MINUTE_KEY, how="semi", nulls_equal=True)["row"],
            exact.join(rounded_play, on=_MINUTE_KEY, how="semi", nulls_equal=True)["row"],
        ]
    )
    rows = rows.filter(~pl.col("row").is_in(duplicates.implode()))
    return rows.drop("row", "minute", "is_rounded")


def drop_scrobbles_covered_by_plays(
    events: pl.DataFrame, existing: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Drops exported scrobbles within a play; returns the others, and those in the log."""
    rows = events.with_row_index("row")
    plays = rows.filter(_IS_PLAY & _IS_EXPORTED)
    logged_plays = existing.filter(_IS_PLAY)
    covered = _covered_scrobbles(plays, pl.concat([plays, logged_plays], how="diagonal"))
    rows = rows.filter(~pl.col("row").is_in(covered["row"].implode()))
    return rows.drop("row"), _covered_scrobbles(logged_plays, plays)


def drop_repeated_playlist_entries(events: pl.DataFrame, existing: pl.DataFrame) -> pl.DataFrame:
    """Drops exported playlist tracks that the playlist has already, here or in the log."""
    key = (USER_ID, TRACK_ID, SESSION_ID)
    is_playlist = pl.col(EVENT) == "playlist"
    is_exported_entry = is_playlist & _IS_EXPORTED
    logged = existing.filter(is_playlist)
    entries = events.filter(is_exported_entry).unique(key, keep="first", maintain_order=True)
    entries = entries.join(logged, on=key, how="anti", nulls_equal=True, maintain_order="left")
    return pl.concat([events.filter(~is_exported_entry), entries])


def keep_larger_counts(
    counts: pl.DataFrame, existing: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Returns the largest counts per user, track and kind, and the log's that they replace."""
    largest = counts.sort(N_TIMES, PLAYED_AT, descending=True)
    largest = largest.unique(_COUNT_KEY, keep="first", maintain_order=True)
    logged_counts = existing.filter(pl.col(N_TIMES).is_not_null())
    previous = logged_counts.select(USER_ID, TRACK_ID, EVENT, previous=N_TIMES)
    largest = largest.join(previous, on=_COUNT_KEY, how="left", maintain_order="left")
    is_larger = pl.col("previous").is_null() | (pl.col(N_TIMES) > pl.col("previous"))
    largest = largest.filter(is_larger).drop("previous")
    return largest, logged_counts.join(largest, on=_COUNT_KEY, how="semi")


def _covered_scrobbles(plays: pl.DataFrame, covering: pl.DataFrame) -> pl.DataFrame:
    """Returns the plays without a length that lie within one of `covering`, and when that ended."""
    length = pl.duration(microseconds=pl.col(PLAYED_S) * 1e6)
    begins = (pl.col(PLAYED_AT) - length - _CLOCK_TOLERANCE).alias("begins")
    ends = (pl.col(PLAYED_AT) + _CLOCK_TOLERANCE).alias("ends")
    timed = covering.filter(pl.col(PLAYED_S) > 0).sort(PLAYED_AT)
    timed = timed.select(USER_ID, TRACK_ID, begins, ends, ends.alias("play_ends"))
    scrobbles = plays.filter(pl.col(PLAYED_S).is_null()).sort(PLAYED_AT)
    # The first play that ends after the scrobble covers it, if it also began before.
    next_plays = scrobbles.join_asof(
        timed,
        left_on=PLAYED_AT,
        right_on="ends",
        by=[USER_ID, TRACK_ID],
        strategy="forward",
        check_sortedness=False,
    )
    covered = next_plays.filter(pl.col("begins") <= pl.col(PLAYED_AT))
    return covered.select(pl.col(plays.columns), "play_ends")


def _with_event_key(events: pl.DataFrame) -> pl.DataFrame:
    playlist = pl.when(pl.col(EVENT) == "playlist").then(pl.col(SESSION_ID))
    is_count = pl.col(N_TIMES).is_not_null() if N_TIMES in events.columns else pl.lit(False)
    complete = fill_columns(events, INTERACTIONS)
    return complete.with_columns(playlist.alias(_PLAYLIST), is_count.alias(_IS_COUNT))


def _without_events(events: pl.DataFrame, removed: pl.DataFrame) -> pl.DataFrame:
    return events.join(removed, on=_EVENT_KEY, how="anti", nulls_equal=True, maintain_order="left")


def _require_log(folder: LibraryPaths) -> None:
    if not folder.interactions.is_file():
        raise folder.lacks("listening history", "no_log", "ponticello import-history FILE")
