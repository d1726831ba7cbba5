"""Rows of the catalogue as clients see them, and pages of it."""

import math
from collections.abc import Sequence
from typing import Any

import polars as pl

from ponticello.search.results import filter_mask
from ponticello.serve.schemas import Column, Track, TrackDetails, Tracks
from ponticello.serve.snapshot import HIDDEN, Snapshot
from ponticello.storage.schema import (
    ALBUM,
    ARTIST,
    DURATION_S,
    GENRES,
    MACHINE_TAGS,
    PATH,
    TAGS,
    TITLE,
    TRACK_ID,
)

SHOWN = (TRACK_ID, TITLE, ARTIST, ALBUM, GENRES, TAGS, MACHINE_TAGS, DURATION_S, PATH)
_COMMON_VALUES = 50  # of a column, offered as filters
_COUNTED = (GENRES, TAGS, MACHINE_TAGS, ARTIST, ALBUM, "language")


def tracks_of(snapshot: Snapshot, track_ids: Sequence[str]) -> list[dict[str, Any]]:
    """Returns the fields of `Track` for each id; APIError 404 for an unknown track."""
    rows = [snapshot.row(track_id) for track_id in track_ids]
    table = snapshot.tracks.select(SHOWN)[rows]
    return [_fields(snapshot, row) for row in table.iter_rows(named=True)]


def track_details(snapshot: Snapshot, track_id: str) -> TrackDetails:
    """Returns a track with all its columns but those that are `HIDDEN`; APIError as `tracks_of`."""
    fields = tracks_of(snapshot, [track_id])[0]
    other_columns = snapshot.tracks.drop(*SHOWN, *HIDDEN, strict=False)
    row = other_columns.row(snapshot.rows[track_id], named=True)
    return TrackDetails(**fields, more=_plain(row))


def browse(snapshot: Snapshot, where: Sequence[str], text: str, offset: int, k: int) -> Tracks:
    """Returns a page of the tracks that pass the filters and hold `text` in a name or as id."""
    table = snapshot.tracks.drop(HIDDEN, strict=False)
    if wanted := text.strip():
        held = snapshot.names.select(
            pl.any_horizontal(pl.all().str.contains(wanted.lower(), literal=True))
        )
        table = table.filter(held.to_series().fill_null(value=False) | (table[TRACK_ID] == wanted))
    table = filter_mask(table, where)
    page = tracks_of(snapshot, table[TRACK_ID].slice(offset, k).to_list())
    return Tracks(tracks=[Track(**fields) for fields in page], n_total=table.height)


def columns_of(snapshot: Snapshot) -> list[Column]:
    """Returns the columns that filters may name."""
    schema = snapshot.tracks.drop(HIDDEN, strict=False).schema
    return [Column(name=name, kind=_kind(dtype)) for name, dtype in schema.items()]


def common_values(snapshot: Snapshot) -> dict[str, list[str]]:
    """Returns the most frequent values of text columns, most frequent first."""
    common = {}
    for name in _COUNTED:
        if name not in snapshot.tracks.columns:
            continue
        values = snapshot.tracks[name].drop_nulls()
        if isinstance(values.dtype, pl.List):
            values = values.explode().drop_nulls()
        if values.dtype != pl.String or values.is_empty():
            continue
        counts = values.value_counts(name="n").sort(["n", name], descending=[True, False])
        common[name] = counts[name].head(_COMMON_VALUES).to_list()
    return common


def _fields(snapshot: Snapshot, row: dict[str, Any]) -> dict[str, Any]:
    fields = {name: row[name] for name in (TRACK_ID, TITLE, ARTIST, ALBUM)}
    for name in (GENRES, TAGS, MACHINE_TAGS):
        fields[name] = [value for value in row[name] or () if value is not None]
    fields[DURATION_S] = _plain(row[DURATION_S])
    fields["has_audio"] = row[PATH] is not None
    fields["row"] = None if snapshot.index is None else snapshot.index.rows.get(row[TRACK_ID])
    return fields


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return list(map(_plain, value))
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _kind(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.List):
        return "texts"
    if dtype.is_numeric():
        return "number"
    return "time" if dtype.is_temporal() else "text"
