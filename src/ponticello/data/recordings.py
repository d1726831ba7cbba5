"""Tracks that share a recording, by what their files say: the same sound, MusicBrainz recording or ISRC.

They are reported in duplicates.csv and left as they are. What was encoded anew or cut otherwise is found by its mel,
once prepared (`duplicates`).
"""

import csv
import re
from collections.abc import Iterator, Set

import polars as pl

from ponticello.data.catalog import read_tracks
from ponticello.data.columns import ARTIST, DURATION_S, ISRC, MBID, PATH, TITLE, TRACK_ID
from ponticello.data.files import AUDIO_HASH, read_files
from ponticello.library import Folder, as_cell, replacing

_COLUMNS = (TRACK_ID, PATH, TITLE, ARTIST, DURATION_S)
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}\d{7}")


def write_duplicates(folder: Folder, gone: Set[str]) -> int:
    """Writes duplicates.csv, a group of tracks after the other, or removes it where there are none; gives their number.

    gone: ids of tracks without a file, which do not count. A track in several groups counts once.
    """
    if not folder.tracks.is_file():
        return 0
    tracks = read_tracks(folder).filter(~pl.col(TRACK_ID).is_in(list(gone)))
    reasons: dict[tuple[str, ...], list[str]] = {}
    for reason, ids in _groups(folder, tracks):
        reasons.setdefault(ids, []).append(reason)
    if not reasons:
        folder.duplicates.unlink(missing_ok=True)
        return 0
    wanted = {track_id for ids in reasons for track_id in ids}
    rows = {row[0]: row for row in tracks.select(_COLUMNS).filter(pl.col(TRACK_ID).is_in(list(wanted))).iter_rows()}
    with replacing(folder.duplicates) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["group", "reason", *_COLUMNS])
        for number, ids in enumerate(sorted(reasons), start=1):
            reason = "; ".join(reasons[ids])
            writer.writerows([number, reason, *(as_cell(cell) for cell in rows[track_id])] for track_id in ids)
    return len(wanted)


def _groups(folder: Folder, tracks: pl.DataFrame) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(why, ids) of every two or more tracks that are one recording."""
    files = read_files(folder).select(TRACK_ID, AUDIO_HASH).drop_nulls().join(tracks, on=TRACK_ID, how="semi")
    for reason, rows in (
        ("same sound", files.iter_rows()),
        ("same MusicBrainz recording", tracks.select(TRACK_ID, MBID).drop_nulls().iter_rows()),
        ("same ISRC", tracks.select(TRACK_ID, ISRC).drop_nulls().iter_rows()),
    ):
        by_value: dict[str, set[str]] = {}
        for track_id, value in rows:
            if name := _identifier(reason, value):
                by_value.setdefault(name, set()).add(track_id)
        yield from ((reason, tuple(sorted(ids))) for ids in by_value.values() if len(ids) > 1)


def _identifier(reason: str, value: str) -> str:
    """A value as it can be compared; "" for one that is none, such as a comment in the ISRC's place."""
    if reason == "same MusicBrainz recording":
        return value.lower() if _UUID.fullmatch(value.lower()) else ""
    if reason == "same ISRC":
        value = re.sub(r"[\s-]", "", value).upper()
        return value if _ISRC.fullmatch(value) else ""
    return value
