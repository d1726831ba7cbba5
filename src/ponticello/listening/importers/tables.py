"""A plain table of listening (CSV, TSV, JSONL, Parquet) under our column names, or under its own
with a map.

What is not a column of ours stays outside: a table's addresses, countries and devices are never
read into the library.
"""

from collections.abc import Mapping

import polars as pl

from ponticello.errors import DataError
from ponticello.listening.importers.records import IS_TABLE, parse_isrc, parse_mbid, parse_uri
from ponticello.listening.importers.sources import HistoryFile
from ponticello.listening.log import redact_users
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
    USER_ID,
    Kind,
    Table,
)
from ponticello.storage.tables import raw_table
from ponticello.storage.validation import raw_kinds, validate_table

URI = "uri"
_NAMED: dict[str, Kind] = {
    MBID: "text",
    ISRC: "text",
    URI: "text",
    PATH: "text",
    ARTIST: "text",
    TITLE: "text",
}
KINDS: dict[str, Kind] = {**INTERACTIONS.kinds, **_NAMED, ALBUM: "text", DURATION_S: "number"}
_TELLING = (
    {MBID},
    {ISRC},
    {URI},
    {PATH},
    {ARTIST, TITLE},
)  # any of these may stand in for track_id
_READS = {MBID: parse_mbid, ISRC: parse_isrc, URI: parse_uri}
MOST_BYTES_IN_ZIP = 4 << 30


def read_event_table(
    source: HistoryFile, columns: Mapping[str, str], *, has_one_user: bool
) -> tuple[pl.DataFrame, list[SkippedRow], list[str]]:
    """(good rows, bad rows by line, the columns left out) of a table.

    columns: our column -> the table's own. has_one_user: the caller names the listener, so
    `user_id` is not needed.
    DataError: a file that cannot be read, a column that is missing.
    """
    if unknown := [ours for ours in columns if ours not in KINDS]:
        raise DataError(
            f"--columns {unknown[0]}=...: there is no such column of a history; use one of {', '.join(KINDS)}"
        )
    asked = Table("history", KINDS, ())
    if source.path is None and source.size > MOST_BYTES_IN_ZIP:
        raise DataError(
            f"{source.name} is too large to be read in its zip; unpack it and pass the file"
        )
    with source.open() as stream:
        raw = raw_table(source.path or stream.read(), source.name, raw_kinds(asked, columns))
    theirs = {theirs: ours for ours, theirs in columns.items()}
    names = {theirs.get(name, name) for name in raw.frame.columns}
    required = [PLAYED_AT] if has_one_user else [USER_ID, PLAYED_AT]
    if not any(wanted <= names for wanted in _TELLING):
        required.insert(len(required) - 1, TRACK_ID)
    if USER_ID in required and USER_ID not in names and set(required) - {USER_ID} <= names:
        raise DataError(
            f"{source.name}: column {USER_ID!r} is missing; pass --columns {USER_ID}=COLUMN, or --user NAME if one "
            "person listened"
        )
    frame, lines, bad = validate_table(
        raw, source.name, Table("history", KINDS, tuple(required)), columns
    )
    skipped = redact_users(bad)
    left_out = [name for name in frame.columns if name not in KINDS]
    frame = frame.drop(left_out)
    for column, read in _READS.items():
        if column in frame.columns:
            frame = frame.with_columns(pl.Series(column, map(read, frame[column]), pl.String))
    told = pl.any_horizontal(
        pl.all_horizontal(pl.col(name).is_not_null() for name in wanted)
        for wanted in ({TRACK_ID}, *_TELLING)
        if wanted <= set(frame.columns)
    )
    is_told = (
        frame.select(told.alias("told"))["told"]
        if TRACK_ID not in required
        else pl.repeat(True, frame.height, eager=True)
    )
    for line in lines.filter(~is_told):
        skipped.append(
            SkippedRow(
                source.name, line, TRACK_ID, "", "is missing, and so is what could stand in for it"
            )
        )
    events = (
        pl.col(EVENT).fill_null("play") if EVENT in frame.columns else pl.lit("play").alias(EVENT)
    )
    return (
        frame.filter(is_told).with_columns(events, pl.lit(True).alias(IS_TABLE)),
        skipped,
        left_out,
    )
