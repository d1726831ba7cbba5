"""MusicCaps (clips of videos) and the Song Describer Dataset (tracks of MTG-Jamendo): captions."""

import polars as pl

from ponticello.datasets.tables import Content, SetFolder
from ponticello.storage.schema import DESCRIPTION, DURATION_S, TAGS, TRACK_ID

_SUFFIXES = ("wav", "flac", "mp3", "ogg")


def read_musiccaps(files: SetFolder) -> Content:
    """Reads `musiccaps-public.csv`; audio, if present, is `audio/<ytid>.wav`, .flac, .mp3 or .ogg.

    track_id: the video's id. description: the caption. tags: the list of aspects. split: test for
    clips of the evaluation set, else train. start_s: start of the clip in its video.
    is_balanced_subset: as in the file.

    DataError: no musiccaps-public.csv.
    """
    path = files.required(["musiccaps-public.csv"], "the clips and their captions")
    times = ["start_s", "end_s"]
    flags = ["is_balanced_subset", "is_audioset_eval"]
    texts = ["ytid", "aspect_list", "caption"]
    rows = files.read(path, texts + times + flags, delimiter=",", quoted=True)
    rows.require_unique("ytid")
    rows.refuse(~pl.col("ytid").str.contains(r"^[\w-]+$"), "ytid", "is not a video's id")
    rows.parse_numbers("start_s", "end_s")
    rows.parse_flags("is_balanced_subset", "is_audioset_eval")
    rows.parse_lists("aspect_list", "['a']")
    length = pl.col("end_s") - pl.col("start_s")
    rows.refuse(length < 0, "end_s", "is before start_s")
    names = [pl.format(f"audio/{{}}.{suffix}", "ytid") for suffix in _SUFFIXES]
    split = pl.when("is_audioset_eval").then(pl.lit("test")).otherwise(pl.lit("train"))
    tracks = rows.frame.select(
        pl.col("ytid").alias(TRACK_ID),
        files.audio_paths(rows.frame, names),
        pl.col("caption").alias(DESCRIPTION),
        pl.col("aspect_list").alias(TAGS),
        length.alias(DURATION_S),
        "start_s",
        "is_balanced_subset",
        split.alias("split"),
    )
    files.has_folder("audio")
    return files.content(tracks)


def read_song_describer(files: SetFolder) -> Content:
    """Reads `song_describer.csv`; audio is `audio/<last two digits>/<id>.2min.mp3`.

    captions: all of a track, in the file's order. captions_valid: those of the valid subset.
    description: the first valid caption, else the first. split: `test` for every track, since the
    set is made for evaluation. duration_s: as in the file.

    DataError: no song_describer.csv.
    """
    path = files.required(["song_describer.csv"], "the captions")
    columns = ["caption_id", "track_id", "caption", "is_valid_subset", "duration"]
    rows = files.read(path, columns, delimiter=",", quoted=True)
    rows.require_unique("caption_id")
    rows.refuse(~pl.col(TRACK_ID).str.contains(r"^\d+$"), TRACK_ID, "is not a number")
    rows.require(TRACK_ID, "caption")
    rows.parse_flags("is_valid_subset")
    rows.parse_numbers("duration")
    valid = pl.col("caption").filter("is_valid_subset")
    tracks = rows.frame.group_by(TRACK_ID, maintain_order=True).agg(
        pl.coalesce(valid.first(), pl.col("caption").first()).alias(DESCRIPTION),
        pl.col("caption").alias("captions"),
        valid.alias("captions_valid"),
        pl.col("duration").first().alias(DURATION_S),
        pl.lit("test").alias("split"),
    )
    name = pl.format("audio/{}/{}.2min.mp3", pl.col(TRACK_ID).str.tail(2), TRACK_ID)
    files.has_folder("audio")
    return files.content(tracks.with_columns(files.audio_paths(tracks, [name])))
