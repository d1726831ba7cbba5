"""What a public set becomes, and how its files are found."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from ponticello.data.columns import INTERACTIONS, TRACKS, Table
from ponticello.data.intake import DTYPES
from ponticello.errors import DataError
from ponticello.library import Skipped

OUTSIDE = r"^[/\\]|(^|[/\\])\.\.([/\\]|$)"  # found in a path of a set's own files that would lead out of its folder


@dataclass(frozen=True)
class Content:
    """A public set as our tables: rows that could not be used are in `skipped`, files that were not there in `missing`.

    tracks: one row a track, `track_id` unique; columns of `TRACKS` in their types, and the set's own splits.
    interactions: columns of `INTERACTIONS`, or None for a set without listeners;
        every `track_id` is in `tracks`.
    """

    tracks: pl.DataFrame
    interactions: pl.DataFrame | None
    skipped: list[Skipped]
    missing: list[str]


def track_table(rows: pl.DataFrame | Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Rows as tracks: columns of `TRACKS` in their types, empty lists as null, further columns as they are."""
    return _typed(rows, TRACKS)


def event_table(rows: pl.DataFrame | Iterable[dict[str, Any]]) -> pl.DataFrame:
    """Rows as interactions: columns of `INTERACTIONS` in their types, further columns as they are."""
    return _typed(rows, INTERACTIONS)


def _typed(rows: pl.DataFrame | Iterable[dict[str, Any]], table: Table) -> pl.DataFrame:
    frame = rows if isinstance(rows, pl.DataFrame) else pl.DataFrame(list(rows), infer_schema_length=None)
    if not frame.width:
        frame = pl.DataFrame(schema=dict.fromkeys(table.required, pl.Null))
    known = {column: DTYPES[kind] for column, kind in table.kinds.items() if column in frame.columns}
    guessed = {pl.Null(): pl.String(), pl.List(pl.Null): pl.List(pl.String)}  # what polars makes of empty columns
    others = {column: guessed.get(dtype, dtype) for column, dtype in frame.schema.items() if column not in known}
    frame = frame.cast(pl.Schema(known | others))
    texts = [column for column, dtype in frame.schema.items() if dtype == pl.List(pl.String)]
    return frame.with_columns(pl.when(pl.col(column).list.len() > 0).then(pl.col(column)) for column in texts)


def required(folder: Path, names: Iterable[str], holds: str, how_to_get: str) -> Path:
    """The first of the files `names` that is in `folder`; DataError saying what they hold and how to get them."""
    names = list(names)
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DataError(f"{folder} has no {' or '.join(names)}; wanted {holds}; to get it: {how_to_get}")


def optional(folder: Path, name: str, missing: list[str]) -> Path | None:
    """The file `name` of `folder`; None if it is not there, and then `missing` has its name."""
    if (folder / name).is_file():
        return folder / name
    missing.append(name)
    return None


def audio_at(folder: Path, *relatives: str) -> str | None:
    """The absolute path of the first of `relatives` that is a file in `folder`, or None."""
    for relative in relatives:
        try:
            if (folder / relative).is_file():
                return (folder / relative).absolute().as_posix()
        except OSError:  # a name that no file can have
            continue
    return None
