"""Encodes the listening log for mining: ids become numbers, times and weights become integers.

    interactions -> selected tracks, numbered in the order of their ids -> events in the window
                 -> users, numbered -> microseconds and millionths -> partitions by user, on disk

Millions of numbers sort and join several times faster than texts, in a fraction of the memory.
Track numbers keep the order of the ids, so ties break as ids would.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from math import ceil

import ibis
import ibis.expr.types as ir
import polars as pl

from ponticello.errors import DataError
from ponticello.pairs.engine import Engine
from ponticello.splits.splits import RandomWindow, Until, window
from ponticello.storage.schema import (
    CONTEXT_TRACK_ID,
    EVENT,
    INTERACTIONS,
    PLAYED_AT,
    PLAYED_S,
    SESSION_ID,
    TRACK_ID,
    USER_ID,
    WEIGHT,
    WEIGHT_LIMIT,
)
from ponticello.storage.validation import DTYPES

AT = "at"  # time of an event, in whole microseconds
WEIGHT_UNIT = 1_000_000  # encoded weights are whole millionths
USER_NUMBER = "user_number"
EVENTS_SCHEMA = {name: DTYPES[kind] for name, kind in INTERACTIONS.kinds.items()}
_COLUMNS = [USER_ID, TRACK_ID, AT, EVENT, PLAYED_S, WEIGHT, CONTEXT_TRACK_ID, SESSION_ID]
_EVENTS_PER_PARTITION = 10_000_000  # sorting them takes the engine about 1 GB
_TABLE = "log"
_TRACK_NUMBER = "track_number"
_CONTEXT_ID = "context_id"
_CONTEXT_NUMBER = "context_number"
_UNTIL = "until"


@dataclass(frozen=True)
class EncodedLog:
    """An encoded log. tracks: sorted ids, by their numbers. users: (user_id, user_number)."""

    engine: Engine
    tracks: pl.Series
    users: ir.Table
    n_partitions: int

    def partitions(self) -> Iterator[ir.Table]:
        """Yields tables that together hold all events, each with all events of its users."""
        for number in range(self.n_partitions):
            table = self.engine.read_partition([_TABLE], number, self.n_partitions)
            if table is not None:
                yield table.select(_COLUMNS)

    def events(self) -> ir.Table:
        """Returns all events."""
        return reduce(ibis.union, self.partitions())


def encode_log(engine: Engine, events: ir.Table, tracks: pl.Series, until: Until) -> EncodedLog:
    """Encodes the events of `tracks` before `until`.

    events: columns of EVENTS_SCHEMA, in any order of rows.
    tracks: sorted distinct ids. Events of other tracks are left out, and a context_track_id that is
        not among them becomes null.

    Raises DataError for a null user, track, time or event, and for weights that are NaN or beyond
    a million.
    """
    events = events.select(list(EVENTS_SCHEMA))
    n_events = _check_events(engine, events)
    n_partitions = 1 if engine.is_spark else max(1, ceil(n_events / _EVENTS_PER_PARTITION))
    numbers = pl.int_range(len(tracks), dtype=pl.Int32, eager=True)
    track_numbers = engine.upload(
        pl.DataFrame({TRACK_ID: tracks, _TRACK_NUMBER: numbers}), "track-numbers"
    )
    encoded = events.mutate(
        {AT: engine.microseconds(events[PLAYED_AT]), WEIGHT: _millionths(events[WEIGHT])}
    )
    encoded = encoded.drop(PLAYED_AT).join(track_numbers, TRACK_ID)
    encoded = _select_window(engine, encoded, until)
    users = encoded.select(USER_ID).distinct()
    user_number = ibis.row_number().over(ibis.window(order_by=users[USER_ID]))
    users = engine.materialize(
        users.mutate({USER_NUMBER: user_number.cast("int32")}), "user-numbers"
    )
    encoded = encoded.join(users, USER_ID)
    contexts = track_numbers.rename({_CONTEXT_ID: TRACK_ID, _CONTEXT_NUMBER: _TRACK_NUMBER})
    encoded = encoded.left_join(contexts, encoded[CONTEXT_TRACK_ID] == contexts[_CONTEXT_ID])
    columns = {
        USER_ID: encoded[USER_NUMBER],
        TRACK_ID: encoded[_TRACK_NUMBER],
        CONTEXT_TRACK_ID: encoded[_CONTEXT_NUMBER],
    }
    encoded = encoded.select(AT, EVENT, PLAYED_S, WEIGHT, SESSION_ID, **columns)
    partition = encoded[USER_ID] % n_partitions
    engine.materialize_partitions(encoded, _TABLE, partition, n_partitions)
    return EncodedLog(engine, tracks, users, n_partitions)


def fill_columns(events: ir.Table) -> ir.Table:
    """Returns the columns of EVENTS_SCHEMA of an interactions.parquet; missing ones are null."""
    columns = {}
    for name in EVENTS_SCHEMA:
        kind = "float64" if name in (PLAYED_S, WEIGHT) else "string"
        if name not in events.columns:
            columns[name] = ibis.null(kind)
        elif name == PLAYED_AT:
            columns[name] = events[name]
        else:
            columns[name] = events[name].cast(kind)
    return events.select(columns)


def _check_events(engine: Engine, events: ir.Table) -> int:
    required = (USER_ID, TRACK_ID, PLAYED_AT, EVENT)
    counts = {f"no {name}": events[name].isnull().sum() for name in required}
    is_in_range = events[WEIGHT].abs() <= WEIGHT_LIMIT  # false for NaN
    is_out_of_range = events[WEIGHT].notnull() & ~is_in_range
    row = engine.fetch_row(
        events.aggregate(n=events.count(), n_out_of_range=is_out_of_range.sum(), **counts)
    )
    for name in required:
        if row[f"no {name}"]:
            raise DataError(
                f"interactions: {row[f'no {name}']} rows lack {name!r}; import the history again"
            )
    if row["n_out_of_range"]:
        raise DataError(
            f"interactions: column 'weight' must lie within ±{WEIGHT_LIMIT:,}; correct the history"
        )
    return int(row["n"])


def _millionths(weight: ir.Value) -> ir.Value:
    """Returns a weight (null = 1) in whole millionths; the engines' own rounding differs."""
    scaled = weight.fill_null(1.0) * WEIGHT_UNIT
    below = scaled.floor().cast("int64")
    remainder = scaled - below
    is_up = (remainder > 0.5) | ((remainder == 0.5) & (below % 2 != 0))
    return below + is_up.cast("int64")


def _select_window(engine: Engine, events: ir.Table, until: Until) -> ir.Table:
    if until is None:
        return events
    if isinstance(until, RandomWindow):
        likes = engine.to_polars(events.select(USER_ID, TRACK_ID).distinct())
        allowed = likes.filter(window(until.splits, likes).is_in(until.names))
        allowed = allowed.select(USER_ID, TRACK_ID).sort(USER_ID, TRACK_ID)
        return events.semi_join(engine.upload(allowed, "allowed-likes"), [USER_ID, TRACK_ID])
    if not isinstance(until, datetime):
        rows = [(user, _microseconds(moment)) for user, moment in sorted(until.items())]
        columns = {USER_ID: pl.String, _UNTIL: pl.Int64}
        moments = engine.upload(pl.DataFrame(rows, columns, orient="row"), "user-moments")
        events = events.join(moments, USER_ID)
        return events.filter(events[AT] < events[_UNTIL]).drop(_UNTIL)
    return events.filter(events[AT] < _microseconds(until))


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
