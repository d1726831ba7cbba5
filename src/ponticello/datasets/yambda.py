"""Yambda: listens, likes and dislikes of a Russian service, without names or audio.

`folder` is one size of the flat form, such as `flat/50m`, with `listens.parquet`, `likes.parquet`,
`dislikes.parquet`. In these files a "line" of skipped.csv is the number of the row, from 1.
"""

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from ponticello.datasets.tables import (
    LINE,
    Content,
    event_table,
    optional,
    refuse,
    required,
    track_table,
)
from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import DURATION_S, EVENT, PLAYED_AT, PLAYED_S, TRACK_ID, USER_ID
from ponticello.storage.tables import read_parquet

YAMBDA_HOW = "flat/50m (or 500m, 5b) of https://huggingface.co/datasets/yandex/yambda"
ORIGIN = datetime(
    2024, 1, 1, tzinfo=UTC
)  # ours: the set counts seconds from a moment it does not publish
TEST_FROM_S = 26_000_000 - 86_400  # the last day of the set; from its benchmark's code
GAP_S = 1_800  # between training and test, left out; from the same code
_EVENTS = {"listens.parquet": "play", "likes.parquet": "like", "dislikes.parquet": "dislike"}
_KEYS = ("uid", "item_id", "timestamp")


def read_yambda(folder: Path) -> Content:
    """Tracks by number, with their lengths, and every event of the files that are there.

    interactions: played_at is `ORIGIN` + timestamp (steps of 5 s), so differences are real and
    dates are not. A listen is a `play` with played_s = played_ratio_pct / 100 x
    track_length_seconds, which can exceed the length.
    is_organic: false where a recommendation led there. split: train, test, or null in the half hour
    between. Withdrawn likes and dislikes (unlikes.parquet, undislikes.parquet) and the audio
    vectors are not read.
    All of it is held in memory: 50m fits a workstation, 5b does not.

    DataError: no listens.parquet, or one that is not of the flat form.
    """
    skipped: list[SkippedRow] = []
    missing: list[str] = []
    required(folder, ["listens.parquet"], "the listens of the flat form", YAMBDA_HOW)
    files = {
        path: event for name, event in _EVENTS.items() if (path := optional(folder, name, missing))
    }
    events = pl.concat(
        [_events(path, event, skipped) for path, event in files.items()], how="diagonal"
    )
    tracks = events.group_by(TRACK_ID, maintain_order=True).agg(pl.col(DURATION_S).max())
    return Content(track_table(tracks), event_table(events.drop(DURATION_S)), skipped, missing)


def _events(path: Path, event: str, skipped: list[SkippedRow]) -> pl.DataFrame:
    ratio, length = "played_ratio_pct", "track_length_seconds"
    measures = [ratio, length] if event == "play" else []
    try:
        rows = read_parquet(path, "it", [*_KEYS, "is_organic", *measures]).with_row_index(LINE, 1)
    except DataError as error:
        raise DataError(
            f"{path.name} is not of the flat form ({error}); to get it: {YAMBDA_HOW}"
        ) from None
    for column in (*_KEYS, *measures):
        if not rows[column].dtype.is_numeric():
            raise DataError(
                f"{path.name}: column {column!r} is {rows[column].dtype}, wanted a number; {YAMBDA_HOW}"
            )
        is_bad = (pl.col(column) < 0).fill_null(column in _KEYS)
        rows = refuse(rows, is_bad, column, "is not a number from 0 up", path.name, skipped)
    seconds = pl.col("timestamp").cast(pl.Int64)
    test_from, train_to = TEST_FROM_S, TEST_FROM_S - GAP_S
    split = (
        pl.when(seconds >= test_from)
        .then(pl.lit("test"))
        .when(seconds < train_to)
        .then(pl.lit("train"))
    )
    played = (
        pl.col(ratio).cast(pl.Float64) / 100 * pl.col(length)
        if measures
        else pl.lit(None, pl.Float64)
    )
    return rows.select(
        pl.col("uid").cast(pl.String).alias(USER_ID),
        pl.col("item_id").cast(pl.String).alias(TRACK_ID),
        (pl.lit(ORIGIN) + pl.duration(seconds=seconds)).alias(PLAYED_AT),
        pl.lit(event).alias(EVENT),
        played.alias(PLAYED_S),
        (pl.col(length).cast(pl.Float64) if measures else pl.lit(None, pl.Float64)).alias(
            DURATION_S
        ),
        pl.col("is_organic").cast(pl.Boolean),
        split.alias("split"),
    )
