"""FMA: 106,574 tracks of the Free Music Archive with genres, in four nested sizes.

`folder` holds `fma_metadata/tracks.csv` and `genres.csv` beside it (or both directly), and the
audio as unpacked: `fma_full/`, `fma_large/`, `fma_medium/` or `fma_small/` with `000/000002.mp3`.
"""

import csv
from itertools import islice
from pathlib import Path

import polars as pl

from ponticello.datasets.tables import LINE, Content, SetFolder
from ponticello.errors import DataError
from ponticello.storage import schema

_AUDIO = ("fma_full", "fma_large", "fma_medium", "fma_small")  # whole tracks before clips of 30 s
_COLUMNS = {  # column of the two-row header, joined by a dot: column of the library
    "track.title": schema.TITLE,
    "artist.name": schema.ARTIST,
    "album.title": schema.ALBUM,
    "album.date_released": schema.RELEASE_DATE,
    "track.duration": schema.DURATION_S,
    "track.language_code": schema.LANGUAGE,
    "track.genres": schema.GENRES,
    "track.tags": schema.TAGS,
    "track.genre_top": "genre_top",
    "set.split": "split",
    "set.subset": "subset",
}
_SPLITS = {"training": "train", "validation": "validation", "test": "test"}


def read_fma(files: SetFolder) -> Content:
    """Reads every track of tracks.csv.

    track_id: the number as text, such as `2`. genres: by their names in genres.csv, or `genre_top`
    without that file. split: train, validation or test. subset: small, medium or large; a size
    holds the smaller ones too, so medium is where `subset` is small or medium.
    duration_s: of the full track, also if the audio is a clip of 30 s.

    DataError: no tracks.csv, or not with FMA's header.
    """
    names = ["fma_metadata/tracks.csv", "tracks.csv"]
    path = files.required(names, "the tracks and their genres")
    header, n_header = _header(path, files.how_to_get)
    columns = ["id"]
    columns.extend(_COLUMNS)
    rows = files.read(path, columns, delimiter=",", quoted=True, header=header, n_header=n_header)
    rows.require_unique("id")
    rows.refuse(~pl.col("id").str.contains(r"^\d{1,9}$"), "id", "is not a number")
    rows.parse_numbers("track.duration")
    for column in ("track.genres", "track.tags"):
        rows.parse_lists(column, "[21]")
    split = pl.col("set.split")
    is_bad = split.is_not_null() & ~split.is_in(list(_SPLITS))
    rows.refuse(is_bad, "set.split", f"is not one of {', '.join(_SPLITS)}")
    if not any((files.folder / name).is_dir() for name in _AUDIO):
        files.missing.append("fma_small/ (or another size)")
    table = rows.frame.with_columns(split.replace(_SPLITS), _genres(files, path.parent))
    number = pl.col("id").str.zfill(6)
    audio = [pl.format(f"{name}/{{}}/{{}}.mp3", number.str.head(3), number) for name in _AUDIO]
    table = table.with_columns(files.audio_paths(table, audio))
    return files.content(table.drop(LINE).rename({"id": schema.TRACK_ID, **_COLUMNS}))


def _header(path: Path, how_to_get: str) -> tuple[list[str], int]:
    """Returns the column names, such as `track.title`, and the number of header lines, 2 or 3."""
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        lines = list(islice(csv.reader(file), 3))
    lines += [[], []]
    names = ["id"]
    for group, name in zip(lines[0][1:], lines[1][1:], strict=False):
        names.append(f"{group}.{name}")
    for column in _COLUMNS:
        if column not in names:
            raise DataError(
                f"{path.name}: the two header lines name no {column!r}; to get the file: "
                f"{how_to_get}"
            )
    return names, 3 if lines[2][:1] == ["track_id"] else 2


def _genres(files: SetFolder, metadata: Path) -> pl.Expr:
    """Returns `track.genres` with names for numbers; the top genre alone without genres.csv."""
    path = metadata / "genres.csv"
    if not path.is_file():
        files.missing.append(path.name)
        return pl.concat_list(pl.col("track.genre_top")).list.drop_nulls().alias("track.genres")
    rows = files.read(path, ["genre_id", "title"], delimiter=",", quoted=True)
    rows.require_unique("genre_id")
    titles = rows.frame["title"].fill_null(rows.frame["genre_id"])
    title_of = dict(zip(rows.frame["genre_id"], titles, strict=True))
    return pl.col("track.genres").list.eval(pl.element().replace(title_of))
