"""What was imported once is not counted twice, also where two exports tell of one event a little differently."""

from datetime import timedelta

import polars as pl

from ponticello.data.catalog import stored_table
from ponticello.data.columns import EVENT, N_TIMES, PLAYED_AT, PLAYED_S, SESSION_ID, TRACK_ID, USER_ID
from ponticello.data.history.gather import IS_KEPT, IS_TABLE
from ponticello.data.interactions import events_of, merge_interactions
from ponticello.library import Folder

_PLAYED = ("play", "complete", "skip")
_TWINS = (USER_ID, TRACK_ID, PLAYED_S, "minute")
_CLOCKS = timedelta(minutes=1)  # by which two services may disagree; also what rounding to the minute takes
_OWN = (IS_TABLE, IS_KEPT)  # columns that the log does not have


def add_events(folder: Folder, new: pl.DataFrame, name: str) -> tuple[int, int, int]:
    """Adds events with a track to the log; gives (n_new, n_updated, n_total). The caller holds `folder.lock()`.

    One event: as in `merge_interactions`. Also one:
    - a play of an export at a full minute and another in that minute that lasted as long: exports that round to the
      minute tell of plays that exact ones tell too;
    - a scrobble (a play of unknown length) within a play of the same track, by the other's clock to a minute: two
      services told of it, and the one that knows how long it lasted is kept (n_updated, if it comes later);
    - a track of an export's playlist, whenever that was saved;
    - a count of plays: the larger one takes the place of the smaller (n_updated).
    """
    log = stored_table(folder.interactions) if folder.interactions.is_file() else None
    old = None if log is None else events_of(log, new[USER_ID])  # whatever is one event is of one listener
    if old is not None and N_TIMES not in old.columns:
        old = old.with_columns(pl.lit(None, pl.Int64).alias(N_TIMES))
    new = _without_twins(new, old)
    new, scrobbles = _without_scrobbles(new, old)
    n_updated = 0 if scrobbles is None else scrobbles.n_unique((USER_ID, TRACK_ID, "by"))
    new = _without_repeated(new, old)
    counts = new.filter(pl.col(N_TIMES).is_not_null()).sort(N_TIMES, PLAYED_AT, descending=True)
    counts = counts.unique((USER_ID, TRACK_ID, EVENT), keep="first", maintain_order=True)
    replaced = scrobbles
    if old is not None and counts.height:
        known = old.filter(pl.col(N_TIMES).is_not_null())
        on = (USER_ID, TRACK_ID, EVENT)
        both = counts.join(known.select(*on, pl.col(N_TIMES).alias("before")), on=on, how="left", maintain_order="left")
        counts = both.filter(pl.col("before").is_null() | (pl.col(N_TIMES) > pl.col("before"))).drop("before")
        counted = known.join(counts, on=on, how="semi")
        n_updated += counted.height
        replaced = pl.concat([scrobbles, counted], how="diagonal") if scrobbles is not None else counted
    new = pl.concat([new.filter(pl.col(N_TIMES).is_null()), counts]).drop(_OWN)
    if new[N_TIMES].null_count() == new.height:
        new = new.drop(N_TIMES)  # a log without counts needs no such column
    n_added, n_total = merge_interactions(folder, new, name, replaced=replaced, log=log)
    n_updated = min(n_updated, n_added)  # a play that was there already may cover a scrobble that came later
    return n_added - n_updated, n_updated, n_total


def _without_twins(new: pl.DataFrame, old: pl.DataFrame | None) -> pl.DataFrame:
    minute = pl.col(PLAYED_AT).dt.truncate("1m")
    rounded = (pl.col(PLAYED_AT) == minute).alias("rounded")
    is_play = pl.col(EVENT).is_in(_PLAYED) & pl.col(N_TIMES).is_null()
    new = new.with_row_index("row").with_columns(minute.alias("minute"), rounded)
    plays = new.filter(is_play & ~pl.col(IS_TABLE))
    exact = plays.filter(~pl.col("rounded"))
    here = plays.filter(pl.col("rounded")).join(exact, on=_TWINS, how="semi", nulls_equal=True)["row"]
    gone = [here]
    if old is not None:
        known = old.filter(is_play).with_columns(minute.alias("minute"), rounded).select(*_TWINS, "rounded")
        gone.append(plays.filter(pl.col("rounded")).join(known, on=_TWINS, how="semi", nulls_equal=True)["row"])
        roughly = known.filter(pl.col("rounded"))
        gone.append(exact.join(roughly, on=_TWINS, how="semi", nulls_equal=True)["row"])
    return new.filter(~pl.col("row").is_in(pl.concat(gone).implode())).drop("row", "minute", "rounded")


def _without_scrobbles(new: pl.DataFrame, old: pl.DataFrame | None) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """`new` without scrobbles that a play of known length covers, and the scrobbles of the log that new ones cover."""
    is_play = pl.col(EVENT).is_in(_PLAYED) & pl.col(N_TIMES).is_null()
    new = new.with_row_index("row")
    plays = new.filter(is_play & ~pl.col(IS_TABLE))
    known = plays if old is None else pl.concat([plays, old.filter(is_play)], how="diagonal")
    gone = _covered(plays, known)["row"]
    covered = None if old is None else _covered(old.filter(is_play), plays)
    return new.filter(~pl.col("row").is_in(gone.implode())).drop("row"), covered


def _covered(some: pl.DataFrame, by: pl.DataFrame) -> pl.DataFrame:
    """The scrobbles among `some` that lie within a play among `by`, and when that ends."""
    begins = (pl.col(PLAYED_AT) - pl.duration(microseconds=pl.col(PLAYED_S) * 1e6) - _CLOCKS).alias("begins")
    ends = (pl.col(PLAYED_AT) + _CLOCKS).alias("ends")
    timed = by.filter(pl.col(PLAYED_S) > 0).select(USER_ID, TRACK_ID, begins, ends, ends.alias("by"))
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


def _without_repeated(new: pl.DataFrame, old: pl.DataFrame | None) -> pl.DataFrame:
    """`new` without the tracks of exports' playlists that repeat one before them, or one of the log."""
    is_playlist, on = pl.col(EVENT) == "playlist", (USER_ID, TRACK_ID, SESSION_ID)
    which = is_playlist & ~pl.col(IS_TABLE)
    some = new.filter(which).unique(on, keep="first", maintain_order=True)
    if old is not None:
        some = some.join(old.filter(is_playlist), on=on, how="anti", nulls_equal=True, maintain_order="left")
    return pl.concat([new.filter(~which), some])
