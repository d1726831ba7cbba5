"""From a query to a ranked list: filters, ties, copies, so many tracks an artist; and what a
listener asks with.

Filters over the catalogue's columns: `artist=Askyel`, `genres=rock`, `duration_s<300`,
`title~night`.
"""

import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ponticello.checks import require_list
from ponticello.errors import DataError
from ponticello.listening.log import is_positive
from ponticello.search.index import ROW, EmbeddingIndex, Query
from ponticello.storage.schema import ARTIST, PLAYED_AT, TITLE, TRACK_ID, USER_ID
from ponticello.tracks.names import lead_artist

_FILTER = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>|~)\s*(.+?)\s*")


def filter_mask(tracks: pl.DataFrame, filters: Sequence[str]) -> pl.DataFrame:
    """The rows of `tracks` that pass every filter `column OP value`, OP one of = != < <= > >= ~
    (contains).

    Text is compared without regard to case; a list column matches if one of its entries does (with
    !=, if none is equal); a missing value or NaN matches nothing. DataError names a filter that
    cannot be read or a column that is not there, or says that there is one filter where a list of
    them belongs.
    """
    for text in require_list(filters, "where"):
        match = _FILTER.fullmatch(text)
        if match is None:
            raise DataError(
                f"filter {text!r} must look like column=value (also != < <= > >=, ~ for contains)"
            )
        column, operator, value = match.groups()
        if column not in tracks.columns:
            raise DataError(
                f"filter {text!r}: there is no column {column!r}; found {', '.join(tracks.columns)}"
            )
        tracks = tracks.filter(
            _condition(tracks.schema[column], column, operator, value).fill_null(value=False)
        )
    return tracks


def _condition(kind: pl.DataType, column: str, operator: str, value: str) -> pl.Expr:
    entry = kind.inner if isinstance(kind, pl.List) else kind
    wanted: str | float = value
    if pl.Series(dtype=entry).dtype.is_numeric():
        try:
            wanted = float(value)
        except ValueError:
            raise DataError(
                f"filter {column}{operator}{value}: column {column!r} holds numbers"
            ) from None
    if not isinstance(kind, pl.List):
        return _compare(pl.col(column), operator, wanted)
    found = (
        pl.col(column)
        .list.eval(_compare(pl.element(), operator.replace("!=", "="), wanted))
        .list.any()
    )
    return ~found if operator == "!=" else found


def _compare(side: pl.Expr, operator: str, value: str | float) -> pl.Expr:
    if isinstance(value, str):
        side, value = side.cast(pl.String).str.to_lowercase(), value.lower()
        if operator == "~":
            return side.str.contains(value, literal=True)
    else:
        side = side.cast(pl.Float64).fill_nan(None)
    compared: dict[str, pl.Expr] = {
        "=": side == value,
        "!=": side != value,
        "<": side < value,
        "<=": side <= value,
        ">": side > value,
        ">=": side >= value,
        "~": side == value,
    }
    return compared[operator]


FURTHER = 4  # times as many are asked for where filters among the best leave too few


@dataclass(frozen=True)
class Result:
    """One track of an answer. `semantic` + `preference` = `score`, in standard deviations above a
    random track.
    """

    rank: int
    track_id: str
    title: str | None
    artist: str | None
    score: float
    semantic: float
    preference: float


def rank_tracks(
    index: EmbeddingIndex,
    query: Query,
    tracks: pl.DataFrame,
    *,
    k: int,
    blend: float,
    excluded: Collection[str] = (),
    per_artist: int | None = None,
    once: bool = False,
) -> list[Result]:
    """The `k` best of `tracks` (those that pass the filters) for `query`, of one row, best first;
    ties by track id.

    excluded: ids never returned. per_artist: at most so many tracks an artist (a track without
    artist counts alone).
    once: of the copies of a recording only the best that passes is returned, and none of what is
    `excluded`.
    """
    table = index.placed(tracks)
    named, places = table.select(TRACK_ID, TITLE, ARTIST), table[ROW].to_numpy()
    allowed = None if len(places) == len(index.track_ids) else places
    left_out = {
        index.rows[track_id]
        for track_id in require_list(excluded, "excluded")
        if track_id in index.rows
    }
    n_asked = k + len(left_out)
    while True:  # until enough of them may stay, or there are no more
        rows = index.top(query, blend, n_asked, allowed)
        found = named[np.searchsorted(places, rows)]
        recordings = [index.recordings[row] for row in rows] if once else None
        heard = {index.recordings[row] for row in left_out} if once else set()
        chosen = _chosen(
            [row in left_out for row in rows],
            found[ARTIST].to_list(),
            recordings,
            heard,
            k,
            per_artist,
        )
        if len(chosen) == k or len(rows) < n_asked:
            break
        n_asked *= FURTHER
    parts = index.parts(query, blend, rows[chosen])[0]  # (chosen, 2)
    return [
        Result(
            rank=number + 1,
            track_id=found[TRACK_ID][place],
            title=found[TITLE][place],
            artist=found[ARTIST][place],
            score=float(parts[number].sum()),
            semantic=float(parts[number, 0]),
            preference=float(parts[number, 1]),
        )
        for number, place in enumerate(chosen)
    ]


def _chosen(
    are_left_out: list[bool],
    artists: list[str | None],
    recordings: list[str] | None,
    heard: set[str],
    k: int,
    per_artist: int | None,
) -> list[int]:
    """Which of the ranked tracks come into the answer, `k` at most. recordings: None = they may
    repeat.
    """
    chosen: list[int] = []
    counts: Counter[str] = Counter()
    for place, (is_left_out, artist) in enumerate(zip(are_left_out, artists, strict=True)):
        if is_left_out or (recordings is not None and recordings[place] in heard):
            continue
        if per_artist is not None and (lead := lead_artist(artist)):
            if counts[lead] >= per_artist:
                continue
            counts[lead] += 1
        if recordings is not None:
            heard.add(recordings[place])
        chosen.append(place)
        if len(chosen) == k:
            break
    return chosen


def user_seeds(
    interactions: pl.DataFrame,
    user_id: str,
    known: Collection[str],
    n_recent: int,
    min_played_s: float,
) -> tuple[list[str], set[str]]:
    """The listener's latest `n_recent` distinct liked tracks that are `known`, newest first, and
    all they ever met.

    DataError if the listener is not in the log, or liked nothing that is known.
    """
    events = interactions.filter(pl.col(USER_ID) == user_id)
    if events.is_empty():
        raise DataError(
            f"listener {user_id!r} is not in the log; check the id, or run: ponticello import-history",
            code="unknown_user",
        )
    liked = (
        events.filter(is_positive(min_played_s) & pl.col(TRACK_ID).is_in(list(known)))
        .sort(PLAYED_AT, TRACK_ID, descending=[True, False])
        .unique(TRACK_ID, keep="first", maintain_order=True)
    )
    if liked.is_empty():
        raise DataError(
            f"listener {user_id!r} has liked no track of the index; search or use similar instead",
            code="no_likes",
        )
    return liked[TRACK_ID].head(n_recent).to_list(), set(events[TRACK_ID])
