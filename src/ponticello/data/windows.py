"""When the log is held out: one moment for all listeners, or the last sessions of each."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from math import ceil

import polars as pl

from ponticello.data.columns import PLAYED_AT, USER_ID

_MICROSECONDS_A_MINUTE = 60_000_000
_LEAST_SESSIONS = 3  # one to train on, one to choose by, one to test on
_EVENTS_AT_ONCE = 10_000_000  # sorted in memory, by whole listeners
_DAY = "day"


@dataclass(frozen=True)
class Window:
    """Which events count: those before `until` (UTC), or each before the moment of its listener; with neither, all.

    A listener whom `listeners` does not name has no event that counts.
    """

    until: datetime | None = None
    listeners: Mapping[str, datetime] | None = None


def moment(events: pl.DataFrame | pl.LazyFrame, share: float) -> datetime | None:
    """The moment with `share` of the events before it, fewer if others fall on the same moment; None without events.

    events: played_at. Days are counted first, and then only the events of one day sorted.
    """
    at = events.lazy().select(PLAYED_AT)
    days = at.group_by(pl.col(PLAYED_AT).dt.date().alias(_DAY)).agg(n=pl.len()).sort(_DAY).collect(engine="streaming")
    n = int(days["n"].sum())
    if not n:
        return None
    place = min(int(share * n + 1e-9), n - 1)
    before = days.with_columns(before=pl.col("n").cum_sum() - pl.col("n")).filter(pl.col("before") <= place).row(-1)
    times = at.filter(pl.col(PLAYED_AT).dt.date() == before[0]).collect(engine="streaming")[PLAYED_AT]
    found: datetime = times.sort()[place - before[2]]
    return found


def last_sessions(events: pl.DataFrame | pl.LazyFrame, gap_min: float) -> dict[str, tuple[datetime, datetime]]:
    """By listener, the moments (UTC) at which the last session but one and the last session begin.

    events: user_id and played_at. A session ends where the listener's next event of any kind comes more than
    `gap_min` minutes later; a session_id is not looked at, because one may last for months.
    A listener with fewer than three sessions gets, twice, the first moment after all of them: nothing is held out.
    """
    heard = events.lazy().select(USER_ID, PLAYED_AT)
    n_parts = ceil(int(heard.select(pl.len()).collect().item()) / _EVENTS_AT_ONCE) or 1
    found: dict[str, tuple[datetime, datetime]] = {}
    for part in range(n_parts):
        own = heard if n_parts == 1 else heard.filter(pl.col(USER_ID).hash() % n_parts == part)
        found |= _last_sessions(own.collect(engine="streaming"), gap_min)
    return dict(sorted(found.items()))


def _last_sessions(heard: pl.DataFrame, gap_min: float) -> dict[str, tuple[datetime, datetime]]:
    """`last_sessions` of events that hold all of their listeners'."""
    gap = pl.duration(microseconds=round(gap_min * _MICROSECONDS_A_MINUTE))
    heard = heard.sort(USER_ID, PLAYED_AT)
    begins = (pl.col(PLAYED_AT).diff().over(USER_ID) > gap).fill_null(True)
    sessions = heard.with_columns(begins=begins).group_by(USER_ID).agg(
        n=pl.col("begins").sum(),
        begins=pl.col(PLAYED_AT).filter("begins").tail(2),
        after=pl.col(PLAYED_AT).max() + pl.duration(microseconds=1),
    )  # fmt: skip
    enough = pl.col("n") >= _LEAST_SESSIONS
    moments = sessions.sort(USER_ID).select(
        USER_ID,
        pl.when(enough).then(pl.col("begins").list.first()).otherwise("after").alias("train_until"),
        pl.when(enough).then(pl.col("begins").list.last()).otherwise("after").alias("validation_until"),
    )
    return {user: (train_until, validation_until) for user, train_until, validation_until in moments.iter_rows()}
