"""Sets of captions: MusicCaps (clips of videos) and the Song Describer Dataset (tracks of
MTG-Jamendo).
"""

from pathlib import Path

import polars as pl

from ponticello.datasets.tables import (
    Content,
    audio_at,
    numbers,
    read_rows,
    refuse,
    required,
    text_list,
    track_table,
    unique_ids,
)
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import DESCRIPTION, DURATION_S, PATH, TAGS, TRACK_ID

MUSICCAPS_HOW = "musiccaps-public.csv from https://huggingface.co/datasets/google/MusicCaps; the set has no audio"
DESCRIBER_HOW = "song_describer.csv and audio.zip from https://zenodo.org/records/10072001"
_ENDINGS = ("wav", "flac", "mp3", "ogg")
_FLAGS = {"True": True, "False": False}


def read_musiccaps(folder: Path) -> Content:
    """The clips of `musiccaps-public.csv`; audio, if the user has it, as `audio/<ytid>.wav`, .flac,
    .mp3 or .ogg.

    track_id: the video's id. description: the caption. tags: the list of aspects. split: test where
    the clip is of the evaluation set, else train. start_s: where the clip begins in its video;
    is_balanced_subset: as the file has it.

    DataError: no musiccaps-public.csv.
    """
    skipped: list[SkippedRow] = []
    path = required(folder, ["musiccaps-public.csv"], "the clips and their captions", MUSICCAPS_HOW)
    columns = [
        "ytid",
        "start_s",
        "end_s",
        "aspect_list",
        "caption",
        "is_balanced_subset",
        "is_audioset_eval",
    ]
    table, bad = read_rows(path, columns, delimiter=",", quoted=True)
    skipped += bad
    table = unique_ids(table, "ytid", path.name, skipped)
    table = refuse(
        table,
        ~pl.col("ytid").str.contains(r"^[\w-]+$"),
        "ytid",
        "is not a video's id",
        path.name,
        skipped,
    )
    for column in ("start_s", "end_s"):
        table = numbers(table, column, path.name, skipped)
    for column in ("is_balanced_subset", "is_audioset_eval"):
        table = _flags(table, column, path.name, skipped)
    table = table.with_columns(
        pl.Series(TAGS, [text_list(v) for v in table["aspect_list"]], pl.List(pl.String))
    )
    table = refuse(
        table,
        pl.col(TAGS).is_null(),
        "aspect_list",
        "is not a list such as ['a']",
        path.name,
        skipped,
    )
    length = pl.col("end_s") - pl.col("start_s")
    table = refuse(table, length < 0, "end_s", "is before start_s", path.name, skipped)
    paths = [
        audio_at(folder, *(f"audio/{name}.{ending}" for ending in _ENDINGS))
        for name in table["ytid"]
    ]
    tracks = table.select(
        pl.col("ytid").alias(TRACK_ID),
        pl.Series(PATH, paths, pl.String),
        pl.col("caption").alias(DESCRIPTION),
        TAGS,
        length.alias(DURATION_S),
        "start_s",
        "is_balanced_subset",
        pl.when("is_audioset_eval").then(pl.lit("test")).otherwise(pl.lit("train")).alias("split"),
    )
    return Content(
        track_table(tracks), None, skipped, [] if (folder / "audio").is_dir() else ["audio/"]
    )


def read_song_describer(folder: Path) -> Content:
    """The tracks of `song_describer.csv`, one row a track; audio as `audio/<last two
    digits>/<id>.2min.mp3`.

    captions: all of a track, in the file's order; captions_valid: those of the valid subset.
    description: the first valid one, else the first. split: `test` for every track, since the set
    is made for evaluation.
    duration_s: as the file has it.

    DataError: no song_describer.csv.
    """
    skipped: list[SkippedRow] = []
    path = required(folder, ["song_describer.csv"], "the captions", DESCRIBER_HOW)
    columns = ["caption_id", "track_id", "caption", "is_valid_subset", "duration"]
    table, bad = read_rows(path, columns, delimiter=",", quoted=True)
    skipped += bad
    table = unique_ids(table, "caption_id", path.name, skipped)
    table = refuse(
        table,
        ~pl.col(TRACK_ID).str.contains(r"^\d+$"),
        TRACK_ID,
        "is not a number",
        path.name,
        skipped,
    )
    for column in (TRACK_ID, "caption"):
        table = refuse(table, pl.col(column).is_null(), column, "is missing", path.name, skipped)
    table = numbers(
        _flags(table, "is_valid_subset", path.name, skipped), "duration", path.name, skipped
    )
    valid = pl.col("caption").filter("is_valid_subset")
    tracks = table.group_by(TRACK_ID, maintain_order=True).agg(
        pl.coalesce(valid.first(), pl.col("caption").first()).alias(DESCRIPTION),
        pl.col("caption").alias("captions"),
        valid.alias("captions_valid"),
        pl.col("duration").first().alias(DURATION_S),
        pl.lit("test").alias("split"),
    )
    paths = [audio_at(folder, f"audio/{name[-2:]}/{name}.2min.mp3") for name in tracks[TRACK_ID]]
    tracks = tracks.with_columns(pl.Series(PATH, paths, pl.String))
    return Content(
        track_table(tracks), None, skipped, [] if (folder / "audio").is_dir() else ["audio/"]
    )


def _flags(table: pl.DataFrame, column: str, file: str, skipped: list[SkippedRow]) -> pl.DataFrame:
    is_bad = ~pl.col(column).is_in(list(_FLAGS)).fill_null(False)
    table = refuse(table, is_bad, column, "is not True or False", file, skipped)
    return table.with_columns(pl.col(column).replace_strict(_FLAGS, return_dtype=pl.Boolean))
