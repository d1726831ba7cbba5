"""When the log is held out: one moment for all listeners, or the last sessions of each."""

from datetime import datetime

import polars as pl

from ponticello.data.columns import PLAYED_AT, USER_ID

_MICROSECONDS_A_MINUTE = 60_000_000
_LEAST_SESSIONS = 3  # one to train on, one to choose by, one to test on


def moment(times: pl.Series, share: float) -> datetime | None:
    """The moment with `share` of the events before it, fewer if others fall on the same moment; None without events."""
    if not len(times):
        return None
    found: datetime = times.sort()[min(int(share * len(times) + 1e-9), len(times) - 1)]
    return found


def last_sessions(events: pl.DataFrame, gap_min: float) -> dict[str, tuple[datetime, datetime]]:
    """By listener, the moments (UTC) at which the last session but one and the last session begin.

    events: user_id and played_at. A session ends where the listener's next event of any kind comes more than
    `gap_min` minutes later; a session_id is not looked at, because one may last for months.
    A listener with fewer than three sessions gets, twice, the first moment after all of them: nothing is held out.
    """
    gap = pl.duration(microseconds=round(gap_min * _MICROSECONDS_A_MINUTE))
    heard = events.select(USER_ID, PLAYED_AT).sort(USER_ID, PLAYED_AT)
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
