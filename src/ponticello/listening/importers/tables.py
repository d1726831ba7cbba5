"""Reads a table of events (CSV, TSV, JSONL, Parquet) with our column names, or others by a map.

Columns other than ours are dropped: a table's addresses, countries and devices never reach the
library.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl

from ponticello.errors import DataError
from ponticello.listening.importers.records import IS_TABLE, parse_isrc, parse_mbid, parse_uri
from ponticello.listening.importers.sources import HistoryFile
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import (
    ALBUM,
    ARTIST,
    DURATION_S,
    EVENT,
    INTERACTIONS,
    ISRC,
    MBID,
    PATH,
    PLAYED_AT,
    TITLE,
    TRACK_ID,
    TRACKS,
    USER_ID,
    Kind,
    Table,
)
from ponticello.storage.tables import read_raw
from ponticello.storage.validation import raw_kinds, validate_table

URI = "uri"
KINDS: dict[str, Kind] = {
    **INTERACTIONS.kinds,
    **{name: TRACKS.kinds[name] for name in (MBID, ISRC, PATH, ARTIST, TITLE, ALBUM, DURATION_S)},
    URI: "text",
}
# Each of these sets of columns can identify a track in place of track_id.
_IDENTIFYING = ({MBID}, {ISRC}, {URI}, {PATH}, {ARTIST, TITLE})
_PARSERS = {MBID: parse_mbid, ISRC: parse_isrc, URI: parse_uri}
MOST_BYTES_IN_ZIP = 4 << 30
# Columns that show a table of play counts, which has no times: a row is then a `collect` event.
COUNT_COLUMNS = {"plays", "play_count", "playcount", "count", "listens", "n_plays"}
UNKNOWN_TIME = datetime(2000, 1, 1, tzinfo=UTC)


def read_event_table(
    source: HistoryFile, columns: Mapping[str, str], *, has_one_user: bool
) -> tuple[pl.DataFrame, list[SkippedRow], list[str]]:
    """Reads a table of events: (good rows, bad rows, columns that are not ours and are dropped).

    columns: our column -> the table's. has_one_user: the caller names the user, so that `user_id`
    is not required. A table of play counts may lack `played_at`; its events all get
    `UNKNOWN_TIME`.
    DataError: the file cannot be read, or lacks a column.
    """
    for column in columns:
        if column not in KINDS:
            raise DataError(
                f"--columns {column}=...: there is no such column of a history; "
                f"use one of {', '.join(KINDS)}"
            )
    if source.path is None and source.size > MOST_BYTES_IN_ZIP:
        raise DataError(
            f"{source.name} is too large to be read in its zip; unpack it and pass the file"
        )
    kinds = raw_kinds(Table("history", KINDS, ()), columns)
    with source.open() as stream:
        raw = read_raw(source.path or stream.read(), source.name, kinds)
    our_names = {file_column: column for column, file_column in columns.items()}
    names = {our_names.get(name, name) for name in raw.frame.columns}
    required = _required_columns(names, has_one_user)
    if USER_ID not in names and USER_ID in required and names.issuperset(required - {USER_ID}):
        raise DataError(
            f"{source.name}: column {USER_ID!r} is missing; pass --columns {USER_ID}=COLUMN, "
            "or --user NAME if one person listened"
        )
    ordered = tuple(column for column in (USER_ID, TRACK_ID, PLAYED_AT) if column in required)
    table = Table("history", KINDS, ordered)
    rows, lines, bad_rows = validate_table(raw, source.name, table, columns)
    dropped_columns = [name for name in rows.columns if name not in KINDS]
    rows = rows.drop(dropped_columns)
    for column, parse in _PARSERS.items():
        if column in rows.columns:
            rows = rows.with_columns(pl.Series(column, map(parse, rows[column]), pl.String))
    is_identified = _is_identified(rows)
    skipped = []
    for row in bad_rows:  # whole lines and user ids may name a person
        is_personal = row.field in ("", USER_ID)
        skipped.append(replace(row, value="") if is_personal else row)
    for line in lines.filter(~is_identified):
        reason = "is missing, and so is what could stand in for it"
        skipped.append(SkippedRow(source.name, line, TRACK_ID, "", reason))
    default_event = "play"
    if PLAYED_AT not in rows.columns:
        default_event = "collect"
        rows = rows.with_columns(pl.lit(UNKNOWN_TIME).alias(PLAYED_AT))
    event = pl.lit(default_event).alias(EVENT)
    if EVENT in rows.columns:
        event = pl.col(EVENT).fill_null(default_event)
    rows = rows.filter(is_identified).with_columns(event, pl.lit(True).alias(IS_TABLE))
    return rows, skipped, dropped_columns


def _required_columns(names: set[str], has_one_user: bool) -> set[str]:
    required = set()
    if PLAYED_AT in names or not names & COUNT_COLUMNS:
        required.add(PLAYED_AT)
    if not has_one_user:
        required.add(USER_ID)
    if not any(columns <= names for columns in _IDENTIFYING):
        required.add(TRACK_ID)
    return required


def _is_identified(rows: pl.DataFrame) -> pl.Series:
    """Returns which rows have a track_id, or all columns of one of `_IDENTIFYING`."""
    names = set(rows.columns)
    groups = []
    if TRACK_ID in names:
        groups.append(pl.col(TRACK_ID).is_not_null())
    for columns in _IDENTIFYING:
        if columns <= names:
            groups.append(pl.all_horizontal(pl.col(column).is_not_null() for column in columns))
    return rows.select(pl.any_horizontal(groups).alias("is_identified"))["is_identified"]
