"""MagnaTagATune: 29 s clips with 188 tags that players of a game gave, split by folder.

`folder` holds `annotations_final.csv` and `clip_info_final.csv`; the clips lie beside them, in `0/` .. `f/` or `mp3/`.
"""

from pathlib import Path

import polars as pl

from ponticello.data.columns import ALBUM, ARTIST, DURATION_S, PATH, TAGS, TITLE, TRACK_ID
from ponticello.data.public.content import OUTSIDE, Content, audio_at, optional, required, track_table
from ponticello.data.public.rows import LINE, column_names, numbers, read_rows, refuse, unique_ids
from ponticello.library import Skipped

HOW_TO_GET = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset: two csv files and mp3.zip.001 to .003"
_ANNOTATIONS = "annotations_final.csv"
_INFO = "clip_info_final.csv"
_N_TOP = 50
_SPLITS = {**dict.fromkeys("0123456789ab", "train"), "c": "validation", **dict.fromkeys("def", "test")}


def read(folder: Path) -> Content:
    """The clips, with `split` by the first letter of their path: 0-b train, c validation, d-f test.

    tags: the columns with a 1. tags_top50: those of them among the 50 most used in the file, the usual labels.
    duration_s: the length of the clip. Some published lists leave out clips without a top-50 tag; this one does not.

    DataError: no annotations_final.csv.
    """
    skipped: list[Skipped] = []
    missing: list[str] = []
    path = required(folder, [_ANNOTATIONS], "the tags of every clip", HOW_TO_GET)
    tags = [column for column in column_names(path) if column not in ("clip_id", "mp3_path")]
    clips, bad = read_rows(path, ["clip_id", "mp3_path", *tags], quoted=True)
    skipped += bad
    clips = unique_ids(clips, "clip_id", path.name, skipped)
    where = pl.col("mp3_path")
    is_bad = ~where.str.slice(0, 1).is_in(list(_SPLITS)) | where.str.contains(OUTSIDE)
    clips = refuse(clips, is_bad.fill_null(True), "mp3_path", "is not a path such as f/name.mp3", path.name, skipped)
    for tag in tags:
        clips = refuse(clips, ~pl.col(tag).is_in(["0", "1"]).fill_null(False), tag, "is not 0 or 1", path.name, skipped)
    counts = {tag: int((clips[tag] == "1").sum()) for tag in tags}
    top = sorted(tags, key=lambda tag: -counts[tag])[:_N_TOP]
    table = clips.select(
        pl.col("clip_id").alias(TRACK_ID),
        pl.Series(PATH, [audio_at(folder, name, f"mp3/{name}") for name in clips["mp3_path"]], pl.String),
        where.str.slice(0, 1).replace_strict(_SPLITS, return_dtype=pl.String).alias("split"),
        _given(tags).alias(TAGS),
        _given([tag for tag in tags if tag in top]).alias("tags_top50"),
    )
    if info := optional(folder, _INFO, missing):
        table = table.join(_information(info, skipped), on=TRACK_ID, how="left", maintain_order="left")
    return Content(track_table(table), None, skipped, missing)


def _given(tags: list[str]) -> pl.Expr:
    return pl.concat_list(pl.when(pl.col(tag) == "1").then(pl.lit(tag)) for tag in tags).list.drop_nulls()


def _information(path: Path, skipped: list[Skipped]) -> pl.DataFrame:
    names = {"clip_id": TRACK_ID, "title": TITLE, "artist": ARTIST, "album": ALBUM}
    info, bad = read_rows(path, [*names, "segmentStart", "segmentEnd"], quoted=True)
    skipped += bad
    info = unique_ids(info, "clip_id", path.name, skipped)
    for column in ("segmentStart", "segmentEnd"):
        info = numbers(info, column, path.name, skipped)
    length = pl.col("segmentEnd") - pl.col("segmentStart")
    info = refuse(info, length < 0, "segmentEnd", "is before segmentStart", path.name, skipped)
    return info.with_columns(length.alias(DURATION_S)).drop("segmentStart", "segmentEnd", LINE).rename(names)
