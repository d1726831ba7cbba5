"""Yambda: listens, likes and dislikes of a Russian service, without names or audio.

`folder` is one size of the flat form, such as `flat/50m`, with `listens.parquet`, `likes.parquet`,
`dislikes.parquet`. In these files a "line" of skipped.csv is the number of the row, from 1.
"""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ponticello.datasets.tables import LINE, Content, SetFolder
from ponticello.errors import DataError
from ponticello.storage.schema import DURATION_S, EVENT, PLAYED_AT, PLAYED_S, TRACK_ID, USER_ID
from ponticello.storage.tables import read_parquet

# Our choice: the set counts seconds from a moment that it does not publish.
ORIGIN = datetime(2024, 1, 1, tzinfo=UTC)
TEST_FROM_S = 26_000_000 - 86_400  # the last day of the set; source: the code of its benchmark
GAP_S = 1_800  # between training and test, left out; same source
_EVENTS = {"listens.parquet": "play", "likes.parquet": "like", "dislikes.parquet": "dislike"}
_KEYS = ["uid", "item_id", "timestamp"]
_IS_ORGANIC = ["is_organic"]


def read_yambda(files: SetFolder) -> Content:
    """Reads tracks by number, with their lengths, and the events of every file that exists.

    interactions: played_at is `ORIGIN` + timestamp (steps of 5 s), so differences are real and
    dates are not. A listen is a `play` with played_s = played_ratio_pct / 100 x
    track_length_seconds, which can exceed the length. is_organic: false where a recommendation led
    there. split: train, test, or null in the half hour between. Withdrawn likes and dislikes
    (unlikes.parquet, undislikes.parquet) and the audio vectors are not read.
    Memory: the full log; 50m fits a workstation, 5b does not.

    DataError: no listens.parquet, or one that is not of the flat form.
    """
    files.required(["listens.parquet"], "the listens of the flat form")
    frames = []
    for name, event in _EVENTS.items():
        if path := files.optional(name):
            frames.append(_events(files, path, event))
    events = pl.concat(frames, how="diagonal")
    tracks = events.group_by(TRACK_ID, maintain_order=True).agg(pl.col(DURATION_S).max())
    return files.content(tracks, events.drop(DURATION_S))


def _events(files: SetFolder, path: Path, event: str) -> pl.DataFrame:
    measures = []
    played_s = pl.lit(None, pl.Float64)
    duration_s = pl.lit(None, pl.Float64)
    if event == "play":
        measures = ["played_ratio_pct", "track_length_seconds"]
        duration_s = pl.col("track_length_seconds").cast(pl.Float64)
        played_s = pl.col("played_ratio_pct").cast(pl.Float64) / 100 * duration_s
    try:
        frame = read_parquet(path, "it", _KEYS + _IS_ORGANIC + measures)
    except DataError as error:
        raise DataError(
            f"{path.name} is not of the flat form ({error}); to get it: {files.how_to_get}"
        ) from None
    rows = files.rows(frame.with_row_index(LINE, 1), path.name)
    for column in _KEYS + measures:
        dtype = frame[column].dtype
        if not dtype.is_numeric():
            raise DataError(
                f"{path.name}: column {column!r} is {dtype}, wanted a number; {files.how_to_get}"
            )
        is_bad = (pl.col(column) < 0).fill_null(column in _KEYS)
        rows.refuse(is_bad, column, "is not a number from 0 up")
    seconds = pl.col("timestamp").cast(pl.Int64)
    is_train = seconds < TEST_FROM_S - GAP_S
    in_train = pl.when(is_train).then(pl.lit("train"))
    split = pl.when(seconds >= TEST_FROM_S).then(pl.lit("test")).otherwise(in_train)
    return rows.frame.select(
        pl.col("uid").cast(pl.String).alias(USER_ID),
        pl.col("item_id").cast(pl.String).alias(TRACK_ID),
        (pl.lit(ORIGIN) + pl.duration(seconds=seconds)).alias(PLAYED_AT),
        pl.lit(event).alias(EVENT),
        played_s.alias(PLAYED_S),
        duration_s.alias(DURATION_S),
        pl.col("is_organic").cast(pl.Boolean),
        split.alias("split"),
    )
