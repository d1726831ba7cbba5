"""MTG-Jamendo, MagnaTagATune and GTZAN: audio with tags or genres, and official splits.

MTG-Jamendo: full tracks with genre, instrument and mood tags, in five splits. `folder` is a clone
of its repository: `data/splits/split-{0..4}/autotagging{,_genre,...}-{train,validation,test}.tsv`,
`data/raw.meta.tsv` for names; audio in `audio/` (24/3524.mp3) or `audio-low/` (24/3524.low.mp3).

MagnaTagATune: 29 s clips with 188 tags that players of a game gave, split by folder. `folder` holds
`annotations_final.csv` and `clip_info_final.csv`; the clips are in `0/` .. `f/` or `mp3/`.

GTZAN: 1,000 clips of 30 s in ten genres, with the fault-filtered, artist-aware split. `folder`
holds `genres/<genre>/<genre>.00000.wav` (or .au; or `genres_original/`) and the split lists
`train_filtered.txt`, `valid_filtered.txt` and `test_filtered.txt`, with lines such as
`blues/blues.00029.wav`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.datasets.tables import LINE, OUTSIDE, Content, SetFolder
from ponticello.errors import DataError
from ponticello.storage import schema
from ponticello.storage.tables import lines_of, truncate_value

_LISTS = {
    "train_filtered.txt": "train",
    "valid_filtered.txt": "validation",
    "test_filtered.txt": "test",
}
_FOLDERS = ("genres", "genres_original")
_CLIP = re.compile(r"(?P<genre>[a-z]+)/(?P<name>(?P=genre)\.\d{5})\.(?:wav|au)")


def read_gtzan(files: SetFolder) -> Content:
    """Reads every clip that is in `folder` or in a list; track_id: such as `blues.00029`.

    split: train, validation or test; null for a clip in no list, which the filtered split omits.

    DataError: neither audio nor a list is there.
    """
    splits: dict[str, str] = {}
    for name, split in _LISTS.items():
        if path := files.optional(name):
            _read_list(files, path, split, splits)
    audio = _gtzan_audio(files)
    if not audio and not splits:
        raise DataError(
            f"{files.folder} has no genres/ and no {next(iter(_LISTS))}; to get them: "
            f"{files.how_to_get}"
        )
    tracks = []
    for track_id in sorted(audio.keys() | splits.keys()):
        track = {
            schema.TRACK_ID: track_id,
            schema.PATH: audio.get(track_id),
            schema.GENRES: [track_id.partition(".")[0]],
            "split": splits.get(track_id),
        }
        tracks.append(track)
    return files.content(pl.DataFrame(tracks, infer_schema_length=None))


def _gtzan_audio(files: SetFolder) -> dict[str, str]:
    roots = [files.folder / name for name in _FOLDERS if (files.folder / name).is_dir()]
    if not roots:
        files.missing.append(f"{_FOLDERS[0]}/")
        return {}
    clips: dict[str, Path] = {}
    for path in sorted(roots[0].glob("*/*")):
        if path.suffix in (".wav", ".au"):
            clips[path.stem] = path
    audio: dict[str, str] = {}
    for track_id, path in clips.items():
        if _CLIP.fullmatch(f"{path.parent.name}/{path.name}"):
            audio[track_id] = path.absolute().as_posix()
        else:
            reason = "is not named as genre/genre.00000.wav"
            files.skip(path.as_posix(), None, schema.PATH, track_id, reason)
    return audio


def _read_list(files: SetFolder, path: Path, split: str, splits: dict[str, str]) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        clip = line.strip()
        match = _CLIP.fullmatch(clip)
        if match and match["name"] not in splits:
            splits[match["name"]] = split
        elif match:
            reason = f"is in {splits[match['name']]} already"
            files.skip(path.name, number, schema.PATH, truncate_value(clip), reason)
        elif clip:
            reason = "is not such as blues/blues.00029.wav"
            files.skip(path.name, number, schema.PATH, truncate_value(clip), reason)


N_SPLITS = 5
_FAMILIES = ("", "_genre", "_instrument", "_moodtheme", "_top50tags")
_SPLIT_NAMES = ("train", "validation", "test")
_HEADER = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_COLUMNS = {
    "genre": schema.GENRES,
    "instrument": "instruments",
    "mood/theme": "moods",
}  # by category
_META = "data/raw.meta.tsv"
_NAMES = {
    "TRACK_ID": schema.TRACK_ID,
    "TRACK_NAME": schema.TITLE,
    "ARTIST_NAME": schema.ARTIST,
    "ALBUM_NAME": schema.ALBUM,
    "RELEASEDATE": schema.RELEASE_DATE,
}


@dataclass
class _Track:
    """One track while its lines are read; the keys of `tags` and `top50` keep their order."""

    audio: str
    duration_s: float
    splits: dict[int, str] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    top50: dict[str, None] = field(default_factory=dict)


def read_jamendo(files: SetFolder) -> Content:
    """Reads the tracks of every split file that exists.

    split_0 .. split_4: train, validation or test; null if the track is not in that split.
    genres, instruments, moods: tags without their category; `tags`: instruments and moods.
    tags_top50: the labels of the top-50 task as the set spells them, such as `genre---rock`.

    DataError: no split file at all, or one with another header.
    """
    tracks: dict[str, _Track] = {}
    n_files = 0
    for k in range(N_SPLITS):
        for family in _FAMILIES:
            for split in _SPLIT_NAMES:
                name = f"data/splits/split-{k}/autotagging{family}-{split}.tsv"
                if path := files.optional(name):
                    n_files += 1
                    _read_split(files, path, k, tracks)
    if not n_files:
        raise DataError(
            f"{files.folder} has no {files.missing[0]} nor another split file; to get them: "
            f"{files.how_to_get}"
        )
    rows = [_row(files, track_id, track) for track_id, track in tracks.items()]
    table = pl.DataFrame(rows, infer_schema_length=None)
    meta = files.optional(_META)
    if meta and tracks:
        named_tracks = files.read(meta, list(_NAMES))
        named_tracks.require_unique("TRACK_ID")
        names = named_tracks.frame.rename(_NAMES).drop(LINE)
        table = table.join(names, on=schema.TRACK_ID, how="left", maintain_order="left")
    return files.content(table)


def _read_split(files: SetFolder, path: Path, k: int, tracks: dict[str, _Track]) -> None:
    """Adds the lines of one split file to `tracks`; a line ends with any number of tags."""
    file = f"{path.parent.name}/{path.name}"
    split = path.stem.rpartition("-")[2]
    lines, not_utf8 = lines_of(path.read_bytes())
    if not lines or lines[0].rstrip("\r\n").split("\t") != _HEADER:
        first = truncate_value("".join(lines[:1]).rstrip())
        raise DataError(f"{file}: line 1 is {first!r}; wanted {' '.join(_HEADER)}")
    for number, line in enumerate(lines[1:], 2):
        fields = line.rstrip("\r\n\t").split("\t")
        track = tracks.get(fields[0])
        earlier_split = track.splits.get(k, split) if track else split
        column, value, reason = _problem(fields, earlier_split, split)
        if number in not_utf8:
            column, value, reason = "", "", "is not UTF-8"
        if reason:
            files.skip(file, number, column, truncate_value(value), reason)
            continue
        if track is None:
            track = _Track(fields[3], float(fields[4]))
            tracks[fields[0]] = track
        track.splits[k] = split
        tags = dict.fromkeys(fields[5:])
        track.tags |= tags
        if "top50tags" in path.name:
            track.top50 |= tags


def _problem(fields: list[str], earlier_split: str, split: str) -> tuple[str, str, str]:
    """Returns (column, value, problem) of one line; ("", "", "") for a valid one."""
    if len(fields) < len(_HEADER):
        return "", "\t".join(fields), f"has {len(fields)} fields, wanted {len(_HEADER)} or more"
    if not fields[0]:
        return "TRACK_ID", "", "is missing"
    if re.search(OUTSIDE, fields[3]):
        return "PATH", fields[3], "leaves the folder"
    if not fields[4].replace(".", "", 1).isdecimal():
        return "DURATION", fields[4], "is not a number of seconds"
    for tag in fields[5:]:
        category, _, name = tag.partition("---")
        if category not in _COLUMNS or not name:
            return "TAGS", tag, f"is not one of {', '.join(_COLUMNS)} with --- and a tag"
    if earlier_split != split:
        return "TRACK_ID", fields[0], f"is in {earlier_split} of this split too"
    return "", "", ""


def _row(files: SetFolder, track_id: str, track: _Track) -> dict[str, Any]:
    tags: dict[str, list[str]] = {column: [] for column in _COLUMNS.values()}
    for tag in track.tags:
        category, _, name = tag.partition("---")
        tags[_COLUMNS[category]].append(name)
    low = f"{track.audio.removesuffix('.mp3')}.low.mp3"
    path = files.audio_path(f"audio/{track.audio}", f"audio-low/{low}", track.audio, low)
    row = {
        schema.TRACK_ID: track_id,
        schema.PATH: path,
        schema.DURATION_S: track.duration_s,
        **tags,
    }
    row[schema.TAGS] = tags["instruments"] + tags["moods"]
    row["tags_top50"] = list(track.top50)
    for k in range(N_SPLITS):
        row[f"split_{k}"] = track.splits.get(k)
    return row


_N_TOP = 50
_SPLIT_OF_FOLDER = {
    **dict.fromkeys("0123456789ab", "train"),
    "c": "validation",
    **dict.fromkeys("def", "test"),
}


def read_magnatagatune(files: SetFolder) -> Content:
    """Reads the clips, with `split` by the first letter of the path: 0-b train, c validation,
    d-f test.

    tags: the columns with a 1. tags_top50: those among the 50 most used in the file, the usual
    labels. duration_s: of the clip. Some published lists omit clips without a top-50 tag; this one
    does not.

    DataError: no annotations_final.csv.
    """
    path = files.required(["annotations_final.csv"], "the tags of every clip")
    rows = files.read(path, quoted=True)
    tags = [column for column in rows.frame.columns if column not in (LINE, "clip_id", "mp3_path")]
    rows.require_unique("clip_id")
    audio = pl.col("mp3_path")
    is_bad = ~audio.str.slice(0, 1).is_in(list(_SPLIT_OF_FOLDER)) | audio.str.contains(OUTSIDE)
    rows.refuse(is_bad.fill_null(True), "mp3_path", "is not a path such as f/name.mp3")
    for tag in tags:
        is_flag = pl.col(tag).is_in(["0", "1"]).fill_null(False)
        rows.refuse(~is_flag, tag, "is not 0 or 1")
    clips = rows.frame
    counts = {tag: int((clips[tag] == "1").sum()) for tag in tags}
    top_tags = set(sorted(tags, key=lambda tag: -counts[tag])[:_N_TOP])
    split = audio.str.slice(0, 1).replace_strict(_SPLIT_OF_FOLDER, return_dtype=pl.String)
    table = clips.select(
        pl.col("clip_id").alias(schema.TRACK_ID),
        files.audio_paths(clips, [audio, pl.format("mp3/{}", "mp3_path")]),
        split.alias("split"),
        _marked(tags).alias(schema.TAGS),
        _marked([tag for tag in tags if tag in top_tags]).alias("tags_top50"),
    )
    if info := files.optional("clip_info_final.csv"):
        information = _information(files, info)
        table = table.join(information, on=schema.TRACK_ID, how="left", maintain_order="left")
    return files.content(table)


def _marked(tags: list[str]) -> pl.Expr:
    marked = [pl.when(pl.col(tag) == "1").then(pl.lit(tag)) for tag in tags]
    return pl.concat_list(marked).list.drop_nulls()


def _information(files: SetFolder, path: Path) -> pl.DataFrame:
    names = {
        "clip_id": schema.TRACK_ID,
        "title": schema.TITLE,
        "artist": schema.ARTIST,
        "album": schema.ALBUM,
    }
    times = ["segmentStart", "segmentEnd"]
    rows = files.read(path, list(names) + times, quoted=True)
    rows.require_unique("clip_id")
    rows.parse_numbers("segmentStart", "segmentEnd")
    length = pl.col("segmentEnd") - pl.col("segmentStart")
    rows.refuse(length < 0, "segmentEnd", "is before segmentStart")
    table = rows.frame.with_columns(length.alias(schema.DURATION_S))
    return table.drop("segmentStart", "segmentEnd", LINE).rename(names)
