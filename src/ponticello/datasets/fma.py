"""FMA: 106,574 tracks of the Free Music Archive with genres, in four nested sizes.

`folder` holds `fma_metadata/tracks.csv` and `genres.csv` beside it (or both directly), and the
audio as unpacked: `fma_full/`, `fma_large/`, `fma_medium/` or `fma_small/` with `000/000002.mp3`.
"""

import csv
from itertools import islice
from pathlib import Path

import polars as pl

from ponticello.datasets.tables import (
    LINE,
    Content,
    audio_at,
    numbers,
    optional,
    read_rows,
    refuse,
    required,
    text_list,
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
    LANGUAGE,
    PATH,
    RELEASE_DATE,
    TAGS,
    TITLE,
    TRACK_ID,
)

FMA_HOW = "https://github.com/mdeff/fma: fma_metadata.zip, and fma_small, fma_medium, fma_large or fma_full.zip"
_AUDIO = ("fma_full", "fma_large", "fma_medium", "fma_small")  # whole tracks before clips of 30 s
_COLUMNS = {  # of the two-row header, joined by a dot -> ours
    "track.title": TITLE,
    "artist.name": ARTIST,
    "album.title": ALBUM,
    "album.date_released": RELEASE_DATE,
    "track.duration": DURATION_S,
    "track.language_code": LANGUAGE,
    "track.genres": GENRES,
    "track.tags": TAGS,
    "track.genre_top": "genre_top",
    "set.split": "split",
    "set.subset": "subset",
}
_SPLITS = {"training": "train", "validation": "validation", "test": "test"}


def read_fma(folder: Path) -> Content:
    """Every track of tracks.csv; `split` (train, validation, test), `subset` (small, medium,
    large), `genre_top`.

    track_id: the number as text, such as `2`. genres: by their names in genres.csv, or `genre_top`
    without that file.
    A subset holds the smaller ones too: medium is where `subset` is small or medium.
    duration_s: of the whole track, also where the audio is a clip of 30 s.

    DataError: no tracks.csv, or not with FMA's header.
    """
    skipped: list[SkippedRow] = []
    missing: list[str] = []
    path = required(
        folder, ["fma_metadata/tracks.csv", "tracks.csv"], "the tracks and their genres", FMA_HOW
    )
    header, n_header = _header(path)
    table, bad = read_rows(
        path, ["id", *_COLUMNS], delimiter=",", quoted=True, header=header, n_header=n_header
    )
    skipped += bad
    table = unique_ids(table, "id", path.name, skipped)
    table = refuse(
        table, ~pl.col("id").str.contains(r"^\d{1,9}$"), "id", "is not a number", path.name, skipped
    )
    table = numbers(table, "track.duration", path.name, skipped)
    for column in ("track.genres", "track.tags"):
        table = table.with_columns(
            pl.Series("_list", [text_list(v) for v in table[column]], pl.List(pl.String))
        )
        table = refuse(
            table,
            pl.col("_list").is_null(),
            column,
            "is not a list such as [21]",
            path.name,
            skipped,
        )
        table = table.drop(column).rename({"_list": column})
    split = pl.col("set.split")
    is_bad = split.is_not_null() & ~split.is_in(list(_SPLITS))
    table = refuse(
        table, is_bad, "set.split", f"is not one of {', '.join(_SPLITS)}", path.name, skipped
    )
    roots = [name for name in _AUDIO if (folder / name).is_dir()]
    missing += [] if roots else ["fma_small/ (or another size)"]
    table = table.with_columns(
        split.replace(_SPLITS), _genres(optional(path.parent, "genres.csv", missing), skipped)
    )
    files = [f"{number[:3]}/{number}.mp3" for number in table["id"].str.zfill(6)]
    paths = [audio_at(folder, *(f"{root}/{file}" for root in roots)) for file in files]
    table = (
        table.with_columns(pl.Series(PATH, paths, pl.String))
        .drop(LINE)
        .rename({"id": TRACK_ID, **_COLUMNS})
    )
    return Content(track_table(table), None, skipped, missing)


def _header(path: Path) -> tuple[list[str], int]:
    """The names of the columns, as `track.title`, and the lines they take: 3 where the index is
    named below.
    """
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        rows = [*islice(csv.reader(file), 3), [], []]
    names = [
        "id",
        *(f"{group}.{name}" for group, name in zip(rows[0][1:], rows[1][1:], strict=False)),
    ]
    if lacking := [column for column in _COLUMNS if column not in names]:
        raise DataError(
            f"{path.name}: the two header lines name no {lacking[0]!r}; to get the file: {FMA_HOW}"
        )
    return names, 3 if rows[2][:1] == ["track_id"] else 2


def _genres(path: Path | None, skipped: list[SkippedRow]) -> pl.Expr:
    """The genres' names for their numbers."""
    if path is None:
        return pl.concat_list(pl.col("track.genre_top")).list.drop_nulls().alias("track.genres")
    names, bad = read_rows(path, ["genre_id", "title"], delimiter=",", quoted=True)
    skipped += bad
    names = unique_ids(names, "genre_id", path.name, skipped)
    titles = dict(zip(names["genre_id"], names["title"].fill_null(names["genre_id"]), strict=True))
    return pl.col("track.genres").list.eval(pl.element().replace(titles))
