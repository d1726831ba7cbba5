"""MTG-Jamendo: full tracks with genre, instrument and mood tags, in five official splits.

`folder` is a clone of its repository:
`data/splits/split-{0..4}/autotagging{,_genre,...}-{train,validation,test}.tsv`, with
`data/raw.meta.tsv` for names; audio beside it, in `audio/` (24/3524.mp3) or `audio-low/`
(24/3524.low.mp3).

GTZAN: 1,000 clips of 30 s in ten genres, with the fault-filtered, artist-aware split.

`folder` holds `genres/<genre>/<genre>.00000.wav` (or .au; or `genres_original/`) and the three
split lists, `train_filtered.txt`, `valid_filtered.txt` and `test_filtered.txt`, with lines such as
`blues/blues.00029.wav`.

MagnaTagATune: 29 s clips with 188 tags that players of a game gave, split by folder.

`folder` holds `annotations_final.csv` and `clip_info_final.csv`; the clips lie beside them, in `0/`
.. `f/` or `mp3/`.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.datasets.tables import (
    LINE,
    OUTSIDE,
    Content,
    audio_at,
    column_names,
    numbers,
    optional,
    read_rows,
    refuse,
    required,
    track_table,
    unique_ids,
)
from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import (
    ALBUM,
    ARTIST,
    DURATION_S,
    GENRES,
    PATH,
    RELEASE_DATE,
    TAGS,
    TITLE,
    TRACK_ID,
)
from ponticello.storage.tables import lines_of, truncate_value

GTZAN_HOW = (
    "the audio from a mirror (its first home is gone); the lists from GTZAN_split/ of "
    "https://github.com/jongpillee/music_dataset_split"
)
_LISTS = {
    "train_filtered.txt": "train",
    "valid_filtered.txt": "validation",
    "test_filtered.txt": "test",
}
_FOLDERS = ("genres", "genres_original")
_LINE = re.compile(r"(?P<genre>[a-z]+)/(?P<name>(?P=genre)\.\d{5})\.(?:wav|au)")


def read_gtzan(folder: Path) -> Content:
    """Every clip that lies in `folder` or stands in a list; track_id: such as `blues.00029`.

    split: train, validation or test; null for a clip in no list, which the filtered split leaves
    out.

    DataError: neither audio nor a list is there.
    """
    skipped: list[SkippedRow] = []
    missing: list[str] = []
    splits: dict[str, str] = {}
    for name, split in _LISTS.items():
        if path := optional(folder, name, missing):
            _read_list(path, split, splits, skipped)
    root = next((folder / name for name in _FOLDERS if (folder / name).is_dir()), None)
    if root is None:
        missing.append(f"{_FOLDERS[0]}/")
    audio = (
        {path.stem: path for path in sorted(root.glob("*/*")) if path.suffix in (".wav", ".au")}
        if root
        else {}
    )
    for track_id in [
        name
        for name, path in audio.items()
        if not _LINE.fullmatch(f"{path.parent.name}/{path.name}")
    ]:
        reason = "is not named as genre/genre.00000.wav"
        skipped.append(SkippedRow(audio.pop(track_id).as_posix(), None, PATH, track_id, reason))
    if not audio and not splits:
        raise DataError(
            f"{folder} has no genres/ and no {next(iter(_LISTS))}; to get them: {GTZAN_HOW}"
        )
    rows = (
        {
            TRACK_ID: track_id,
            PATH: audio[track_id].absolute().as_posix() if track_id in audio else None,
            GENRES: [track_id.partition(".")[0]],
            "split": splits.get(track_id),
        }
        for track_id in sorted({*audio, *splits})
    )
    return Content(track_table(rows), None, skipped, missing)


def _read_list(path: Path, split: str, splits: dict[str, str], skipped: list[SkippedRow]) -> None:
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line.strip())
        if match and match["name"] not in splits:
            splits[match["name"]] = split
        elif line.strip():
            reason = (
                f"is in {splits[match['name']]} already"
                if match
                else "is not such as blues/blues.00029.wav"
            )
            skipped.append(
                SkippedRow(path.name, number, PATH, truncate_value(line.strip()), reason)
            )


JAMENDO_HOW = "git clone https://github.com/MTG/mtg-jamendo-dataset, then its scripts/download/download.py for the audio"
N_SPLITS = 5
_FAMILIES = ("", "_genre", "_instrument", "_moodtheme", "_top50tags")
_PARTS = ("train", "validation", "test")
_HEADER = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_COLUMNS = {
    "genre": GENRES,
    "instrument": "instruments",
    "mood/theme": "moods",
}  # by the part before ---
_META = "data/raw.meta.tsv"
_NAMES = {
    "TRACK_NAME": TITLE,
    "ARTIST_NAME": ARTIST,
    "ALBUM_NAME": ALBUM,
    "RELEASEDATE": RELEASE_DATE,
}


@dataclass
class _Track:
    """One track while its lines come in; the keys of `tags` and `top50` are in the order they were
    met.
    """

    audio: str
    duration_s: float
    splits: dict[int, str] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    top50: dict[str, None] = field(default_factory=dict)


def read_jamendo(folder: Path) -> Content:
    """The tracks of every split file that is there.

    split_0 .. split_4: train, validation or test, null where the track is not in that split.
    genres, instruments, moods: tags without their category; `tags` has instruments and moods
    together.
    tags_top50: the labels of the top-50 task as the set spells them, such as `genre---rock`.

    DataError: no split file at all, or one with another header.
    """
    tracks: dict[str, _Track] = {}
    skipped: list[SkippedRow] = []
    missing: list[str] = []
    for k in range(N_SPLITS):
        for name in [f"autotagging{family}-{part}.tsv" for family in _FAMILIES for part in _PARTS]:
            if path := optional(folder, f"data/splits/split-{k}/{name}", missing):
                _read_split(path, k, tracks, skipped)
    if len(missing) == N_SPLITS * len(_FAMILIES) * len(_PARTS):
        raise DataError(
            f"{folder} has no {missing[0]} nor another split file; to get them: {JAMENDO_HOW}"
        )
    table = track_table(_row(folder, track_id, track) for track_id, track in tracks.items())
    if meta := optional(folder, _META, missing):
        names, bad = read_rows(meta, ["TRACK_ID", *_NAMES])
        skipped += bad
        names = unique_ids(names, "TRACK_ID", meta.name, skipped).rename(
            {"TRACK_ID": TRACK_ID, **_NAMES}
        )
        table = table.join(names.drop("line"), on=TRACK_ID, how="left", maintain_order="left")
    return Content(table, None, skipped, missing)


def _read_split(path: Path, k: int, tracks: dict[str, _Track], skipped: list[SkippedRow]) -> None:
    """Adds the lines of one split file to `tracks`; it has as many TAB-separated tags at its end as
    it needs.
    """
    file = f"{path.parent.name}/{path.name}"
    part = path.stem.rpartition("-")[2]
    lines, not_utf8 = lines_of(path.read_bytes())
    if not lines or lines[0].rstrip("\r\n").split("\t") != _HEADER:
        raise DataError(
            f"{file}: line 1 is {truncate_value(''.join(lines[:1]).rstrip())!r}; wanted {' '.join(_HEADER)}"
        )
    for number, line in enumerate(lines[1:], 2):
        fields = line.rstrip("\r\n\t").split("\t")
        known = tracks.get(fields[0])
        column, value, reason = _problem(fields, known.splits.get(k, part) if known else part, part)
        if number in not_utf8:
            column, value, reason = "", "", "is not UTF-8"
        if reason:
            skipped.append(SkippedRow(file, number, column, truncate_value(value), reason))
            continue
        track = tracks.setdefault(fields[0], known or _Track(fields[3], float(fields[4])))
        track.splits[k] = part
        tags = dict.fromkeys(fields[5:])
        track.tags |= tags
        if "top50tags" in path.name:
            track.top50 |= tags


def _problem(fields: list[str], before: str, part: str) -> tuple[str, str, str]:
    """(column, value, what is wrong) of one line, all "" if nothing is."""
    if len(fields) < len(_HEADER):
        return "", "\t".join(fields), f"has {len(fields)} fields, wanted {len(_HEADER)} or more"
    if not fields[0]:
        return "TRACK_ID", "", "is missing"
    if re.search(OUTSIDE, fields[3]):
        return "PATH", fields[3], "leaves the folder"
    if not fields[4].replace(".", "", 1).isdecimal():
        return "DURATION", fields[4], "is not a number of seconds"
    for tag in fields[5:]:
        if tag.partition("---")[0] not in _COLUMNS or not tag.partition("---")[2]:
            return "TAGS", tag, f"is not one of {', '.join(_COLUMNS)} with --- and a tag"
    return (
        ("TRACK_ID", fields[0], f"is in {before} of this split too")
        if before != part
        else ("", "", "")
    )


def _row(folder: Path, track_id: str, track: _Track) -> dict[str, Any]:
    tags: dict[str, list[str]] = {column: [] for column in _COLUMNS.values()}
    for category, _, name in (tag.partition("---") for tag in track.tags):
        tags[_COLUMNS[category]].append(name)
    low = f"{track.audio.removesuffix('.mp3')}.low.mp3"
    return {
        TRACK_ID: track_id,
        PATH: audio_at(folder, f"audio/{track.audio}", f"audio-low/{low}", track.audio, low),
        DURATION_S: track.duration_s,
        **tags,
        TAGS: [*tags["instruments"], *tags["moods"]],
        "tags_top50": list(track.top50),
        **{f"split_{k}": track.splits.get(k) for k in range(N_SPLITS)},
    }


MAGNATAGATUNE_HOW = "https://mirg.city.ac.uk/codeapps/the-magnatagatune-dataset: two csv files and mp3.zip.001 to .003"
_ANNOTATIONS = "annotations_final.csv"
_INFO = "clip_info_final.csv"
_N_TOP = 50
_SPLITS = {
    **dict.fromkeys("0123456789ab", "train"),
    "c": "validation",
    **dict.fromkeys("def", "test"),
}


def read_magnatagatune(folder: Path) -> Content:
    """The clips, with `split` by the first letter of their path: 0-b train, c validation, d-f test.

    tags: the columns with a 1. tags_top50: those of them among the 50 most used in the file, the
    usual labels.
    duration_s: the length of the clip. Some published lists leave out clips without a top-50 tag;
    this one does not.

    DataError: no annotations_final.csv.
    """
    skipped: list[SkippedRow] = []
    missing: list[str] = []
    path = required(folder, [_ANNOTATIONS], "the tags of every clip", MAGNATAGATUNE_HOW)
    tags = [column for column in column_names(path) if column not in ("clip_id", "mp3_path")]
    clips, bad = read_rows(path, ["clip_id", "mp3_path", *tags], quoted=True)
    skipped += bad
    clips = unique_ids(clips, "clip_id", path.name, skipped)
    where = pl.col("mp3_path")
    is_bad = ~where.str.slice(0, 1).is_in(list(_SPLITS)) | where.str.contains(OUTSIDE)
    clips = refuse(
        clips,
        is_bad.fill_null(True),
        "mp3_path",
        "is not a path such as f/name.mp3",
        path.name,
        skipped,
    )
    for tag in tags:
        clips = refuse(
            clips,
            ~pl.col(tag).is_in(["0", "1"]).fill_null(False),
            tag,
            "is not 0 or 1",
            path.name,
            skipped,
        )
    counts = {tag: int((clips[tag] == "1").sum()) for tag in tags}
    top = sorted(tags, key=lambda tag: -counts[tag])[:_N_TOP]
    table = clips.select(
        pl.col("clip_id").alias(TRACK_ID),
        pl.Series(
            PATH, [audio_at(folder, name, f"mp3/{name}") for name in clips["mp3_path"]], pl.String
        ),
        where.str.slice(0, 1).replace_strict(_SPLITS, return_dtype=pl.String).alias("split"),
        _given(tags).alias(TAGS),
        _given([tag for tag in tags if tag in top]).alias("tags_top50"),
    )
    if info := optional(folder, _INFO, missing):
        table = table.join(
            _information(info, skipped), on=TRACK_ID, how="left", maintain_order="left"
        )
    return Content(track_table(table), None, skipped, missing)


def _given(tags: list[str]) -> pl.Expr:
    return pl.concat_list(
        pl.when(pl.col(tag) == "1").then(pl.lit(tag)) for tag in tags
    ).list.drop_nulls()


def _information(path: Path, skipped: list[SkippedRow]) -> pl.DataFrame:
    names = {"clip_id": TRACK_ID, "title": TITLE, "artist": ARTIST, "album": ALBUM}
    info, bad = read_rows(path, [*names, "segmentStart", "segmentEnd"], quoted=True)
    skipped += bad
    info = unique_ids(info, "clip_id", path.name, skipped)
    for column in ("segmentStart", "segmentEnd"):
        info = numbers(info, column, path.name, skipped)
    length = pl.col("segmentEnd") - pl.col("segmentStart")
    info = refuse(info, length < 0, "segmentEnd", "is before segmentStart", path.name, skipped)
    return (
        info.with_columns(length.alias(DURATION_S))
        .drop("segmentStart", "segmentEnd", LINE)
        .rename(names)
    )
