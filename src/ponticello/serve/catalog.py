"""Rows of the catalogue as clients see them, and pages of it."""

from collections.abc import Sequence
from typing import Any

import polars as pl

from ponticello.search.ranking import filter_mask
from ponticello.serve.errors import APIError
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
    for track_id in track_ids:
        if track_id not in snapshot.rows:
            raise APIError(404, "not_found", f"there is no track {track_id[:200]!r}")
    table = snapshot.tracks.select(SHOWN)[[snapshot.rows[track_id] for track_id in track_ids]]
    return [_fields(snapshot, row) for row in table.iter_rows(named=True)]


def track_details(snapshot: Snapshot, track_id: str) -> TrackDetails:
    """One track with all its columns but those that are `HIDDEN`; Failure 404 if there is none."""
    fields = tracks_of(snapshot, [track_id])[0]
    row = snapshot.tracks.row(snapshot.rows[track_id], named=True)
    more = {
        name: _plain(value)
        for name, value in row.items()
        if name not in SHOWN and name not in HIDDEN
    }
    return TrackDetails(**fields, more=more)


def browse(snapshot: Snapshot, where: Sequence[str], text: str, offset: int, k: int) -> Tracks:
    """A page of the tracks that pass the filters and hold `text` in title, artist, album or id."""
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
    """What filters may name."""
    return [
        Column(name=name, kind=_kind(kind))
        for name, kind in snapshot.tracks.schema.items()
        if name not in HIDDEN
    ]


def common_values(snapshot: Snapshot) -> dict[str, list[str]]:
    """The most frequent values of columns that hold few different ones, most frequent first."""
    common = {}
    for name in _COUNTED:
        if name not in snapshot.tracks.columns:
            continue
        values = snapshot.tracks[name].drop_nulls()
        if isinstance(values.dtype, pl.List):
            values = values.explode().drop_nulls()
        if values.dtype != pl.String or values.is_empty():
            continue
        counts = values.value_counts(sort=True, name="n").sort(
            ["n", name], descending=[True, False]
        )
        common[name] = counts[name].head(_COMMON_VALUES).to_list()
    return common


def _fields(snapshot: Snapshot, row: dict[str, Any]) -> dict[str, Any]:
    return {
        TRACK_ID: row[TRACK_ID],
        **{name: row[name] for name in (TITLE, ARTIST, ALBUM)},
        **{
            name: [value for value in row[name] or () if value is not None]
            for name in (GENRES, TAGS, MACHINE_TAGS)
        },
        DURATION_S: _plain(row[DURATION_S]),
        "has_audio": row[PATH] is not None,
        "row": None if snapshot.index is None else snapshot.index.rows.get(row[TRACK_ID]),
    }


def _plain(value: Any) -> Any:
    """Returns a cell as JSON: None for NaN and infinity, text for times."""
    if isinstance(value, float):
        return value if abs(value) != float("inf") and value == value else None  # NaN
    if isinstance(value, list):
        return list(map(_plain, value))
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def _kind(kind: pl.DataType) -> str:
    if isinstance(kind, pl.List):
        return "texts"
    if kind.is_numeric():
        return "number"
    return "time" if kind.is_temporal() else "text"
