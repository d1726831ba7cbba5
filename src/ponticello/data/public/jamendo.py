"""MTG-Jamendo: full tracks with genre, instrument and mood tags, in five official splits.

`folder` is a clone of its repository: `data/splits/split-{0..4}/autotagging{,_genre,...}-{train,validation,test}.tsv`,
with `data/raw.meta.tsv` for names; audio beside it, in `audio/` (24/3524.mp3) or `audio-low/` (24/3524.low.mp3).
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ponticello.data.columns import ALBUM, ARTIST, DURATION_S, GENRES, PATH, RELEASE_DATE, TAGS, TITLE, TRACK_ID
from ponticello.data.formats import lines_of, shown
from ponticello.data.public.content import OUTSIDE, Content, audio_at, optional, track_table
from ponticello.data.public.rows import read_rows, unique_ids
from ponticello.errors import DataError
from ponticello.library import Skipped

HOW_TO_GET = "git clone https://github.com/MTG/mtg-jamendo-dataset, then its scripts/download/download.py for the audio"
N_SPLITS = 5
_FAMILIES = ("", "_genre", "_instrument", "_moodtheme", "_top50tags")
_PARTS = ("train", "validation", "test")
_HEADER = ["TRACK_ID", "ARTIST_ID", "ALBUM_ID", "PATH", "DURATION", "TAGS"]
_COLUMNS = {"genre": GENRES, "instrument": "instruments", "mood/theme": "moods"}  # by the part before ---
_META = "data/raw.meta.tsv"
_NAMES = {"TRACK_NAME": TITLE, "ARTIST_NAME": ARTIST, "ALBUM_NAME": ALBUM, "RELEASEDATE": RELEASE_DATE}


@dataclass
class _Track:
    """One track while its lines come in; the keys of `tags` and `top50` are in the order they were met."""

    audio: str
    duration_s: float
    splits: dict[int, str] = field(default_factory=dict)
    tags: dict[str, None] = field(default_factory=dict)
    top50: dict[str, None] = field(default_factory=dict)


def read(folder: Path) -> Content:
    """The tracks of every split file that is there.

    split_0 .. split_4: train, validation or test, null where the track is not in that split.
    genres, instruments, moods: tags without their category; `tags` has instruments and moods together.
    tags_top50: the labels of the top-50 task as the set spells them, such as `genre---rock`.

    DataError: no split file at all, or one with another header.
    """
    tracks: dict[str, _Track] = {}
    skipped: list[Skipped] = []
    missing: list[str] = []
    for k in range(N_SPLITS):
        for name in [f"autotagging{family}-{part}.tsv" for family in _FAMILIES for part in _PARTS]:
            if path := optional(folder, f"data/splits/split-{k}/{name}", missing):
                _read_split(path, k, tracks, skipped)
    if len(missing) == N_SPLITS * len(_FAMILIES) * len(_PARTS):
        raise DataError(f"{folder} has no {missing[0]} nor another split file; to get them: {HOW_TO_GET}")
    table = track_table(_row(folder, track_id, track) for track_id, track in tracks.items())
    if meta := optional(folder, _META, missing):
        names, bad = read_rows(meta, ["TRACK_ID", *_NAMES])
        skipped += bad
        names = unique_ids(names, "TRACK_ID", meta.name, skipped).rename({"TRACK_ID": TRACK_ID, **_NAMES})
        table = table.join(names.drop("line"), on=TRACK_ID, how="left", maintain_order="left")
    return Content(table, None, skipped, missing)


def _read_split(path: Path, k: int, tracks: dict[str, _Track], skipped: list[Skipped]) -> None:
    """Adds the lines of one split file to `tracks`; it has as many TAB-separated tags at its end as it needs."""
    file = f"{path.parent.name}/{path.name}"
    part = path.stem.rpartition("-")[2]
    lines, not_utf8 = lines_of(path.read_bytes())
    if not lines or lines[0].rstrip("\r\n").split("\t") != _HEADER:
        raise DataError(f"{file}: line 1 is {shown(''.join(lines[:1]).rstrip())!r}; wanted {' '.join(_HEADER)}")
    for number, line in enumerate(lines[1:], 2):
        fields = line.rstrip("\r\n\t").split("\t")
        known = tracks.get(fields[0])
        column, value, reason = _problem(fields, known.splits.get(k, part) if known else part, part)
        if number in not_utf8:
            column, value, reason = "", "", "is not UTF-8"
        if reason:
            skipped.append(Skipped(file, number, column, shown(value), reason))
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
    return ("TRACK_ID", fields[0], f"is in {before} of this split too") if before != part else ("", "", "")


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
