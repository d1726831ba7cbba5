"""Music4All and Music4All-Onion: 109,269 clips of 30 s with genres, tags and listening histories.

`folder` holds the TAB-separated `id_*.csv` files and `listening_history.csv` of Music4All,
`audios/<id>.mp3` (sent on request), and Onion's log `userid_trackid_timestamp.tsv`, also as
`.tsv.bz2`. One of the two is enough.
"""

from pathlib import Path

import polars as pl

from ponticello.datasets.tables import LINE, Content, SetFolder
from ponticello.errors import DataError
from ponticello.storage import schema

_INFORMATION = "id_information.csv"
_LOGS = {  # the first that exists is read; Onion's is far larger, with other user names
    "userid_trackid_timestamp.tsv": ["user_id", "track_id", "timestamp"],
    "userid_trackid_timestamp.tsv.bz2": ["user_id", "track_id", "timestamp"],
    "listening_history.csv": ["user", "song", "timestamp"],
}
_TRACK_COLUMNS = {  # file: column of the file, column of the library
    _INFORMATION: {
        "id": schema.TRACK_ID,
        "artist": schema.ARTIST,
        "song": schema.TITLE,
        "album_name": schema.ALBUM,
    },
    "id_metadata.csv": {
        "id": schema.TRACK_ID,
        "spotify_id": "spotify_id",
        "release": schema.RELEASE_DATE,
        "duration_ms": schema.DURATION_S,
    },
    "id_genres.csv": {"id": schema.TRACK_ID, "genres": schema.GENRES},
    "id_tags.csv": {"id": schema.TRACK_ID, "tags": schema.TAGS},
    "id_lang.csv": {"id": schema.TRACK_ID, "lang": schema.LANGUAGE},
}


def read_music4all(files: SetFolder) -> Content:
    """Reads tracks from the id_*.csv files, and each listening event as a `play` of unknown length.

    duration_s: of the full song; the audio is a clip of 30 s. release_date: a year. Times have no
    zone and are taken as UTC. Without id_information.csv the tracks are those of the log, by id
    only. Onion's feature tables are not read. The log is held in memory; Onion's full log has
    252,984,396 events.

    DataError: neither id_information.csv nor a log.
    """
    information = files.optional(_INFORMATION)
    logs = [files.folder / name for name in _LOGS if (files.folder / name).is_file()]
    if not logs:
        files.missing.append("userid_trackid_timestamp.tsv (or listening_history.csv)")
        if information is None:
            raise DataError(
                f"{files.folder} has no {_INFORMATION} and no listening log; to get them: "
                f"{files.how_to_get}"
            )
        return files.content(_tracks(files, information))
    events = files.rows(_events(files, logs[0]), logs[0].name)
    if information is None:
        tracks = events.frame.select(schema.TRACK_ID).unique().sort(schema.TRACK_ID)
    else:
        tracks = _tracks(files, information)
        is_unknown = ~pl.col(schema.TRACK_ID).is_in(tracks[schema.TRACK_ID].implode())
        events.refuse(is_unknown, schema.TRACK_ID, f"is not in {_INFORMATION}")
    return files.content(tracks, events.frame.drop(LINE))


def _tracks(files: SetFolder, information: Path) -> pl.DataFrame:
    tracks = _track_columns(files, information)
    for name in _TRACK_COLUMNS:
        if name != _INFORMATION and (path := files.optional(name)):
            columns = _track_columns(files, path)
            tracks = tracks.join(columns, on=schema.TRACK_ID, how="left", maintain_order="left")
    if not files.has_folder("audios"):
        return tracks
    audio = pl.format("audios/{}.mp3", schema.TRACK_ID)
    return tracks.with_columns(files.audio_paths(tracks, [audio]))


def _track_columns(files: SetFolder, path: Path) -> pl.DataFrame:
    columns = _TRACK_COLUMNS[path.name]
    rows = files.read(path, list(columns))
    rows.require_unique("id")
    if path.name == _INFORMATION:
        rows.refuse(~pl.col("id").str.contains(r"^\w+$"), "id", "is not an id")
    if "duration_ms" in columns:
        rows.parse_numbers("duration_ms")
        rows.frame = rows.frame.with_columns(pl.col("duration_ms") / 1000)
    table = rows.frame.drop(LINE).rename(columns)
    for column in (schema.GENRES, schema.TAGS):
        if column in table.columns:
            items = pl.col(column).str.split(",").list.eval(pl.element().str.strip_chars())
            is_text = pl.element() != ""
            table = table.with_columns(items.list.eval(pl.element().filter(is_text)))
    return table


def _events(files: SetFolder, path: Path) -> pl.DataFrame:
    user, track, timestamp = _LOGS[path.name]
    rows = files.read(path, _LOGS[path.name])
    rows.require(user, track)
    rows.parse_times(timestamp)
    events = rows.frame.rename(
        {user: schema.USER_ID, track: schema.TRACK_ID, timestamp: schema.PLAYED_AT}
    )
    return events.with_columns(pl.lit("play").alias(schema.EVENT))
