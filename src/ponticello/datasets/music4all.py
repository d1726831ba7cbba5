"""Music4All and Music4All-Onion: 109,269 clips of 30 s with genres, tags and listening histories.

`folder` holds the TAB-separated `id_*.csv` files and `listening_history.csv` of Music4All,
`audios/<id>.mp3` (sent on request), and Onion's log `userid_trackid_timestamp.tsv`, also as
`.tsv.bz2`. One of the two is enough.
"""

from pathlib import Path

import polars as pl

from ponticello.datasets.tables import (
    LINE,
    Content,
    audio_at,
    event_table,
    numbers,
    optional,
    read_rows,
    refuse,
    times,
    track_table,
    unique_ids,
)
from ponticello.errors import DataError
from ponticello.storage.layout import SkippedRow
from ponticello.storage.schema import (
    ALBUM,
    ARTIST,
    DURATION_S,
    EVENT,
    GENRES,
    LANGUAGE,
    PATH,
    PLAYED_AT,
    RELEASE_DATE,
    TAGS,
    TITLE,
    TRACK_ID,
    USER_ID,
)

MUSIC4ALL_HOW = "Music4All: ask its authors (https://sites.google.com/view/contact4music4all); Onion: Zenodo record 15394646"
_INFORMATION = "id_information.csv"
_LOGS = {  # the first that is there is read; Onion's holds far more, under other users' names
    "userid_trackid_timestamp.tsv": ["user_id", "track_id", "timestamp"],
    "userid_trackid_timestamp.tsv.bz2": ["user_id", "track_id", "timestamp"],
    "listening_history.csv": ["user", "song", "timestamp"],
}
_FURTHER = {
    "id_metadata.csv": {
        "spotify_id": "spotify_id",
        "release": RELEASE_DATE,
        "duration_ms": DURATION_S,
    },
    "id_genres.csv": {"genres": GENRES},
    "id_tags.csv": {"tags": TAGS},
    "id_lang.csv": {"lang": LANGUAGE},
}


def read_music4all(folder: Path) -> Content:
    """Tracks with what the id_*.csv files say of them, and one `play` of unknown length a listening
    event.

    duration_s: of the whole song; the audio is a clip of 30 s. release_date: a year. Times name no
    zone: taken as UTC. Without id_information.csv the tracks are those of the log, by id only.
    Onion's feature tables are not read. The log is held in memory; Onion's whole log (252,984,396
    events) needs a machine for it.

    DataError: neither id_information.csv nor a log.
    """
    skipped: list[SkippedRow] = []
    missing: list[str] = []
    information = optional(folder, _INFORMATION, missing)
    log = next((folder / name for name in _LOGS if (folder / name).is_file()), None)
    if log is None:
        missing.append("userid_trackid_timestamp.tsv (or listening_history.csv)")
    if information is None and log is None:
        raise DataError(
            f"{folder} has no {_INFORMATION} and no listening log; to get them: {MUSIC4ALL_HOW}"
        )
    events = _events(log, skipped) if log else None
    if information:
        tracks = _tracks(folder, information, missing, skipped)
    else:
        tracks = (
            pl.DataFrame() if events is None else events.select(TRACK_ID).unique().sort(TRACK_ID)
        )
    if information and log and events is not None:
        known = tracks[TRACK_ID].implode()
        events = refuse(
            events,
            ~pl.col(TRACK_ID).is_in(known),
            TRACK_ID,
            f"is not in {_INFORMATION}",
            log.name,
            skipped,
        )
    return Content(
        track_table(tracks), None if events is None else events.drop(LINE), skipped, missing
    )


def _tracks(
    folder: Path, path: Path, missing: list[str], skipped: list[SkippedRow]
) -> pl.DataFrame:
    names = {"id": TRACK_ID, "artist": ARTIST, "song": TITLE, "album_name": ALBUM}
    tracks, bad = read_rows(path, list(names))
    skipped += bad
    tracks = unique_ids(tracks, "id", path.name, skipped)
    tracks = refuse(
        tracks, ~pl.col("id").str.contains(r"^\w+$"), "id", "is not an id", path.name, skipped
    )
    tracks = tracks.drop(LINE).rename(names)
    for name, columns in _FURTHER.items():
        if further := optional(folder, name, missing):
            table = _further(further, columns, skipped)
            tracks = tracks.join(table, on=TRACK_ID, how="left", maintain_order="left")
    if not (folder / "audios").is_dir():
        missing.append("audios/")
        return tracks
    return tracks.with_columns(
        pl.Series(
            PATH, [audio_at(folder, f"audios/{name}.mp3") for name in tracks[TRACK_ID]], pl.String
        )
    )


def _further(path: Path, columns: dict[str, str], skipped: list[SkippedRow]) -> pl.DataFrame:
    table, bad = read_rows(path, ["id", *columns])
    skipped += bad
    table = unique_ids(table, "id", path.name, skipped)
    if "duration_ms" in columns:
        table = numbers(table, "duration_ms", path.name, skipped).with_columns(
            pl.col("duration_ms") / 1000
        )
    for column in [theirs for theirs, ours in columns.items() if ours in (GENRES, TAGS)]:
        parts = pl.col(column).str.split(",").list.eval(pl.element().str.strip_chars())
        table = table.with_columns(parts.list.eval(pl.element().filter(pl.element() != "")))
    return table.drop(LINE).rename({"id": TRACK_ID, **columns})


def _events(path: Path, skipped: list[SkippedRow]) -> pl.DataFrame:
    """The log as interactions, with each event's line."""
    names = dict(zip(_LOGS[path.name], (USER_ID, TRACK_ID, PLAYED_AT), strict=True))
    events, bad = read_rows(path, list(names))
    skipped += bad
    for column in list(names)[:2]:
        events = refuse(events, pl.col(column).is_null(), column, "is missing", path.name, skipped)
    events = times(events, "timestamp", path.name, skipped).rename(names)
    return event_table(events.with_columns(pl.lit("play").alias(EVENT)))
