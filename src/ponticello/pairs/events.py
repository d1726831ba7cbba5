"""The listening log as the rules read it: users and tracks as numbers, only what may be learned
from, in parts.

    interactions -> tracks that take part, numbered in the order of their ids -> events before their
    moment
                 -> listeners numbered -> moments and weights as whole numbers -> parts by listener,
                 on disk

A number stands for an id everywhere in mining, because millions of numbers are sorted and joined
several times faster than as many texts, in a fraction of the memory. Tracks keep the order of their
ids, so that ties break as ids would.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import polars as pl

from ponticello.errors import DataError
from ponticello.pairs.engine import Engine
from ponticello.splits.splits import Window
from ponticello.storage.schema import (
    CONTEXT_TRACK_ID,
    EVENT,
    PLAYED_AT,
    PLAYED_S,
    SESSION_ID,
    TRACK_ID,
    USER_ID,
    WEIGHT,
    WEIGHT_LIMIT,
)

if TYPE_CHECKING:
    import ibis.expr.types as ir

AT = "at"  # the moment of an event, in whole microseconds
WEIGHT_UNIT = 1_000_000  # weights count in whole millionths
EVENTS_SCHEMA = {
    USER_ID: pl.String(),
    TRACK_ID: pl.String(),
    PLAYED_AT: pl.Datetime("us", "UTC"),
    EVENT: pl.String(),
    PLAYED_S: pl.Float64(),
    WEIGHT: pl.Float64(),
    CONTEXT_TRACK_ID: pl.String(),
    SESSION_ID: pl.String(),
}
_LOG = (USER_ID, TRACK_ID, AT, EVENT, PLAYED_S, WEIGHT, CONTEXT_TRACK_ID, SESSION_ID)
_EVENTS_A_PART = (
    10_000_000  # of the whole log; sorting one part's rows takes the engine about a gigabyte
)
NUMBER = "number"  # of a listener, beside their id
_TRACK, _TRIGGER = "track", "trigger"  # numbers, beside the ids until those are dropped
_TRIGGER_ID = "trigger_id"
_UNTIL = "until"


@dataclass(frozen=True)
class Log:
    """A log of numbers, kept by `engine`.

    tracks: the ids that their numbers stand for, sorted. listeners: (user_id, number).
    """

    engine: Engine
    tracks: pl.Series
    listeners: "ir.Table"
    n_parts: int

    def parts(self) -> Iterator["ir.Table"]:
        """All events of some listeners at a time."""
        for number in range(self.n_parts):
            table = self.engine.part(["log"], number, self.n_parts)
            if table is not None:
                yield table.select(*_LOG)

    def whole(self) -> "ir.Table":
        """All events."""
        return self.engine.whole("log", self.n_parts).select(*_LOG)


def number_log(engine: Engine, events: "ir.Table", tracks: pl.Series, window: Window) -> Log:
    """The log of `events` on `tracks` within `window`, kept by `engine`.

    events: the interactions columns, in any order. tracks: the ids that may take part, sorted and
    distinct; an event on
        another is left out, a trigger that is another is forgotten.

    DataError: a user, track, moment or event is null, or a weight is NaN or beyond a million.
    """
    import ibis

    events = events.select(*EVENTS_SCHEMA)
    n_parts = engine.n_parts(_check(engine, events), _EVENTS_A_PART)
    numbers = pl.DataFrame(
        {TRACK_ID: tracks, _TRACK: pl.int_range(len(tracks), dtype=pl.Int32, eager=True)}
    )
    number = engine.table(numbers, "track-numbers")
    heard = events.mutate(
        **{AT: engine.microseconds(events[PLAYED_AT]), WEIGHT: _millionths(events[WEIGHT])}
    )
    heard = _within(engine, heard.drop(PLAYED_AT).join(number, TRACK_ID), window)
    users = heard.select(USER_ID).distinct()
    in_order = ibis.window(order_by=users[USER_ID])
    users = engine.keep(
        users.mutate(**{NUMBER: ibis.row_number().over(in_order).cast("int32")}), "listener-numbers"
    )
    triggers = number.rename({_TRIGGER_ID: TRACK_ID, _TRIGGER: _TRACK})
    heard = heard.join(users, USER_ID)
    heard = heard.left_join(triggers, heard[CONTEXT_TRACK_ID] == triggers[_TRIGGER_ID])
    numbered = {USER_ID: heard[NUMBER], TRACK_ID: heard[_TRACK], CONTEXT_TRACK_ID: heard[_TRIGGER]}
    heard = heard.select(AT, EVENT, PLAYED_S, WEIGHT, SESSION_ID, **numbered)
    engine.keep_parts(heard, "log", heard[USER_ID] % n_parts, n_parts)
    return Log(engine, tracks, users, n_parts)


def ids_of(events: pl.DataFrame) -> pl.Series:
    """Every track that `events` name, as what set off another too, sorted."""
    ids = pl.concat([events[TRACK_ID], events[CONTEXT_TRACK_ID].rename(TRACK_ID)])
    return ids.drop_nulls().unique().sort()


def complete_events(events: "ir.Table") -> "ir.Table":
    """An interactions.parquet with the columns of EVENTS_SCHEMA alone, null where it lacks one."""
    import ibis

    numbers = (PLAYED_S, WEIGHT)
    columns = {}
    for name in EVENTS_SCHEMA:
        kind = "float64" if name in numbers else "string"
        if name not in events.columns:
            columns[name] = ibis.null(kind)
        else:
            columns[name] = events[name] if name == PLAYED_AT else events[name].cast(kind)
    return events.select(**columns)


def _check(engine: Engine, events: "ir.Table") -> int:
    """How many events there are; DataError if one lacks what it must have, or weighs too much."""
    required = (USER_ID, TRACK_ID, PLAYED_AT, EVENT)
    counts = {f"no {name}": events[name].isnull().sum() for name in required}
    heavy = events[WEIGHT].notnull() & ~(
        events[WEIGHT].abs() <= WEIGHT_LIMIT
    )  # NaN is heavy; null weighs 1
    found = engine.row(events.aggregate(n=events.count(), heavy=heavy.sum(), **counts))
    for name in required:
        if found[f"no {name}"]:
            raise DataError(
                f"interactions: {found[f'no {name}']} rows lack {name!r}; import the history again"
            )
    if found["heavy"]:
        raise DataError(
            f"interactions: column 'weight' must lie within ±{WEIGHT_LIMIT:,}; correct the history"
        )
    return int(found["n"])


def _millionths(weight: "ir.Value") -> "ir.Value":
    """A weight (null is 1) as whole millionths, a half to the even one: cast and round differ from
    engine to engine.
    """
    scaled = weight.fill_null(1.0) * WEIGHT_UNIT
    below = scaled.floor().cast("int64")
    rest = scaled - below
    is_up = (rest > 0.5) | ((rest == 0.5) & (below % 2 != 0))
    return below + is_up.cast("int64")


def _within(engine: Engine, heard: "ir.Table", window: Window) -> "ir.Table":
    if window.listeners is not None:
        rows = [(user, _microseconds(until)) for user, until in sorted(window.listeners.items())]
        moments = pl.DataFrame(rows, schema={USER_ID: pl.String, _UNTIL: pl.Int64}, orient="row")
        heard = heard.join(engine.table(moments, "listener-moments"), USER_ID)
        return heard.filter(heard[AT] < heard[_UNTIL]).drop(_UNTIL)
    return heard if window.until is None else heard.filter(heard[AT] < _microseconds(window.until))


def _microseconds(moment: datetime) -> int:
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
