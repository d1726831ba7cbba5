"""Events by the hundred thousand in little memory: what was heard is kept once, events point to it."""

from collections.abc import Iterable, Iterator

import polars as pl

from ponticello.data.columns import CONTEXT_TRACK_ID, EVENT, N_TIMES, PLAYED_AT, PLAYED_S, SESSION_ID, USER_ID, WEIGHT
from ponticello.data.history.listen import Heard, Listen
from ponticello.data.intake import DTYPES

HEARD = "heard"  # which of `Gathered.heard` an event is of
IS_TABLE = "is_table"  # rows of a table have the times they have; those of exports may be rounded to the minute
IS_KEPT = "is_kept"  # from an earlier import, where it found no track
EVENTS: dict[str, pl.DataType] = {
    USER_ID: pl.String(),
    HEARD: pl.UInt32(),
    PLAYED_AT: DTYPES["time"],
    EVENT: pl.String(),
    PLAYED_S: pl.Float64(),
    WEIGHT: pl.Float64(),
    CONTEXT_TRACK_ID: pl.String(),
    SESSION_ID: pl.String(),
    N_TIMES: pl.Int64(),
    IS_TABLE: pl.Boolean(),
    IS_KEPT: pl.Boolean(),
}
HEARD_COLUMNS: dict[str, pl.DataType] = {
    name: pl.Float64() if name == "duration_s" else pl.String() for name in Heard._fields
}
_BATCH = 50_000


class Gathered:
    """Events as a frame of `EVENTS`, and what they are of."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self._place: dict[Heard, int] = {}
        self._frames: list[pl.DataFrame] = [pl.DataFrame(schema=EVENTS)]

    def place(self, heard: Heard) -> int:
        """The number of `heard`, given when it is first met."""
        if heard not in self._place:
            self._place[heard] = len(self.heard)
            self.heard.append(heard)
        return self._place[heard]

    def add(self, listens: Iterable[Listen]) -> None:
        """Takes events of an export."""
        for batch in _batches(listens):
            n = len(batch)
            columns = {
                USER_ID: [listen.user for listen in batch],
                HEARD: [self.place(listen.heard) for listen in batch],
                PLAYED_AT: pl.Series([listen.at_us for listen in batch], dtype=pl.Int64).cast(DTYPES["time"]),
                EVENT: [listen.event for listen in batch],
                PLAYED_S: [listen.played_s for listen in batch],
                WEIGHT: [None] * n,
                CONTEXT_TRACK_ID: [None] * n,
                SESSION_ID: [listen.session for listen in batch],
                N_TIMES: [listen.n_times for listen in batch],
                IS_TABLE: [False] * n,
                IS_KEPT: [False] * n,
            }
            counted = pl.col(N_TIMES).cast(pl.Float64).log1p()  # as a count of listens weighs everywhere
            self._frames.append(pl.DataFrame(columns, schema=EVENTS).with_columns(counted.alias(WEIGHT)))

    def add_rows(self, rows: pl.DataFrame) -> None:
        """Takes rows of a table: any columns of `EVENTS` but `heard`, and any of `Heard`."""
        for wanted in (EVENTS, HEARD_COLUMNS):
            missing = [pl.lit(None, kind).alias(name) for name, kind in wanted.items() if name not in rows.columns]
            rows = rows.with_columns(missing)
        names = list(HEARD_COLUMNS)
        distinct = rows.select(names).unique(maintain_order=True)
        places = pl.Series(HEARD, [self.place(Heard(*row)) for row in distinct.iter_rows()], pl.UInt32)
        rows = rows.drop(HEARD).join(
            distinct.with_columns(places), on=names, how="left", nulls_equal=True, maintain_order="left"
        )
        flags = [pl.col(name).fill_null(False) for name in (IS_TABLE, IS_KEPT)]
        self._frames.append(rows.with_columns(flags).select(pl.col(name).cast(kind) for name, kind in EVENTS.items()))

    def take_events(self) -> pl.DataFrame:
        """All events so far, which are then the caller's.

        Those that name a ListenBrainz spelling only are of the listen with that spelling.
        """
        spelled = {heard.msid: place for place, heard in enumerate(self.heard) if heard.msid and heard.title}
        replaced = {
            place: spelled[heard.msid]
            for place, heard in enumerate(self.heard)
            if heard.msid in spelled and heard.title is None and heard.mbid is None
        }
        events = pl.concat(self._frames)
        self._frames = [events.clear()]
        return events.with_columns(pl.col(HEARD).replace(replaced)) if replaced else events


def _batches(listens: Iterable[Listen]) -> Iterator[list[Listen]]:
    batch: list[Listen] = []
    for listen in listens:
        batch.append(listen)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
