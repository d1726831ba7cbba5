"""Ranks tracks for a query: filters, ties, duplicate recordings, tracks per artist.

Filters over the catalogue's columns: `artist=Askyel`, `genres=rock`, `duration_s<300`,
`title~night`.
"""

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
import polars as pl

from ponticello.checks import require_list
from ponticello.errors import DataError
from ponticello.search.index import ROW, EmbeddingIndex, Query
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
from ponticello.tracks.names import lead_artist

_FILTER = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>|~)\s*(.+?)\s*")


def filter_mask(tracks: pl.DataFrame, filters: Sequence[str]) -> pl.DataFrame:
    """Returns the rows of `tracks` that pass every filter `column OP value`, OP one of
    = != < <= > >= ~ (contains).

    Text is compared case-insensitively. A list column matches if one of its entries does (with !=:
    if none is equal). A missing value or NaN never matches. DataError for a filter that cannot be
    read, an unknown column, or one filter in place of a list.
    """
    for text in require_list(filters, "where"):
        match = _FILTER.fullmatch(text)
        if match is None:
            raise DataError(
                f"filter {text!r} must look like column=value (also != < <= > >=, ~ for contains)"
            )
        column, operator, value = match.groups()
        if column not in tracks.columns:
            raise DataError(
                f"filter {text!r}: there is no column {column!r}; found {', '.join(tracks.columns)}"
            )
        condition = _condition(tracks.schema[column], column, operator, value)
        tracks = tracks.filter(condition.fill_null(value=False))
    return tracks


def _condition(kind: pl.DataType, column: str, operator: str, value: str) -> pl.Expr:
    entry = kind.inner if isinstance(kind, pl.List) else kind
    wanted: str | float = value
    if pl.Series(dtype=entry).dtype.is_numeric():
        try:
            wanted = float(value)
        except ValueError:
            raise DataError(
                f"filter {column}{operator}{value}: column {column!r} holds numbers"
            ) from None
    if not isinstance(kind, pl.List):
        return _compare(pl.col(column), operator, wanted)
    entry_matches = _compare(pl.element(), operator.replace("!=", "="), wanted)
    has_match = pl.col(column).list.eval(entry_matches).list.any()
    return ~has_match if operator == "!=" else has_match


def _compare(cell: pl.Expr, operator: str, value: str | float) -> pl.Expr:
    if isinstance(value, str):
        cell = cell.cast(pl.String).str.to_lowercase()
        value = value.lower()
        if operator == "~":
            return cell.str.contains(value, literal=True)
    else:
        cell = cell.cast(pl.Float64).fill_nan(None)
    comparisons: dict[str, pl.Expr] = {
        "=": cell == value,
        "!=": cell != value,
        "<": cell < value,
        "<=": cell <= value,
        ">": cell > value,
        ">=": cell >= value,
        "~": cell == value,
    }
    return comparisons[operator]


LIMIT_GROWTH = 4  # when exclusions leave too few of the best rows


@dataclass(frozen=True)
class Result:
    """One track of a ranked list.

    `semantic` + `preference` = `score`, in standard deviations above a random track. path: of the
    audio file. tags: genres, tags and machine tags.
    """

    rank: int
    track_id: str
    title: str | None
    artist: str | None
    score: float
    semantic: float
    preference: float
    album: str | None = None
    path: str | None = None
    duration_s: float | None = None
    tags: tuple[str, ...] = ()


class SearchResults(Sequence[Result]):
    """A ranked list, best first. blend: that was used; has_more: whether more tracks follow."""

    def __init__(self, results: Sequence[Result], blend: float, *, has_more: bool) -> None:
        self._results = tuple(results)
        self.blend = blend
        self.has_more = has_more

    @overload
    def __getitem__(self, position: int) -> Result: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, position: int | slice) -> Result | tuple[Result, ...]:
        return self._results[position]

    def __len__(self) -> int:
        return len(self._results)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SearchResults) and self._results == other._results

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Returns one line per track, as the command line prints them."""
        lines = [f"SearchResults(blend={self.blend:g}, {len(self)} tracks)"]
        for result in self:
            name = ", ".join(filter(None, (result.title or "(untitled)", result.artist)))
            lines.append(f"{result.rank:>3}  {result.score:>6.2f}  {name} [{result.track_id}]")
        return "\n".join(lines)

    def to_polars(self) -> pl.DataFrame:
        """Returns a table with one row per track and one column per field of `Result`."""
        schema: dict[str, Any] = {
            "rank": pl.Int64,
            "track_id": pl.String,
            "title": pl.String,
            "artist": pl.String,
            "score": pl.Float64,
            "semantic": pl.Float64,
            "preference": pl.Float64,
            "album": pl.String,
            "path": pl.String,
            "duration_s": pl.Float64,
            "tags": pl.List(pl.String),
        }
        return pl.DataFrame(list(map(asdict, self)), schema=schema)


def track_tags(row: Mapping[str, Any]) -> list[str]:
    """Returns the genres, tags and machine tags of a row of the catalogue, without repeats."""
    tags: list[str] = []
    for column in (GENRES, TAGS, MACHINE_TAGS):
        tags.extend(tag for tag in row.get(column) or () if tag is not None)
    return list(dict.fromkeys(tags))


def build_result(row: Mapping[str, Any], rank: int, scores: np.ndarray, root: Path) -> Result:
    """Returns a row of the catalogue as a result. scores: (2,) semantic and preference."""
    path = row.get(PATH)
    return Result(
        rank=rank,
        track_id=row[TRACK_ID],
        title=row[TITLE],
        artist=row[ARTIST],
        score=float(scores.sum()),
        semantic=float(scores[0]),
        preference=float(scores[1]),
        album=row.get(ALBUM),
        path=None if path is None else str(root / path),
        duration_s=row.get(DURATION_S),
        tags=tuple(track_tags(row)),
    )


def rank_tracks(
    index: EmbeddingIndex,
    query: Query,
    tracks: pl.DataFrame,
    *,
    k: int,
    blend: float,
    excluded: Collection[str] = (),
    per_artist: int | None = None,
    deduplicate_recordings: bool = False,
    root: Path = Path(),
) -> list[Result]:
    """Returns the `k` best of `tracks` (those that pass the filters) for `query`, of one row, best
    first; ties by track id.

    excluded: ids that are never returned. per_artist: the most tracks per artist; tracks without
    artist are not limited.
    deduplicate_recordings: of the copies of a recording only the best that passes is returned, and
    none of an excluded track.
    """
    table = index.placed(tracks)
    index_rows = table[ROW].to_numpy()
    allowed = None if len(index_rows) == len(index.track_ids) else index_rows
    excluded_rows = {index.rows[track_id] for track_id in excluded if track_id in index.rows}
    limit = k + len(excluded_rows)
    while True:
        rows = index.top(query, blend, limit, allowed)
        positions = np.searchsorted(index_rows, rows)
        artists = table[ARTIST].gather(positions).to_list()
        recordings = [index.recordings[row] for row in rows] if deduplicate_recordings else None
        selected = _select(rows.tolist(), artists, recordings, excluded_rows, index, per_artist)[:k]
        if len(selected) == k or len(rows) < limit:
            break
        limit *= LIMIT_GROWTH
    scores = index.parts(query, blend, rows[selected])[0]  # (selected, 2)
    catalog_rows = table[positions[selected]].iter_rows(named=True)
    results = []
    for number, row in enumerate(catalog_rows):
        results.append(build_result(row, number + 1, scores[number], root))
    return results


def _select(
    rows: list[int],
    artists: list[str | None],
    recordings: list[str] | None,
    excluded_rows: set[int],
    index: EmbeddingIndex,
    per_artist: int | None,
) -> list[int]:
    """Returns which of the ranked rows may be returned. recordings: None = they may repeat."""
    selected: list[int] = []
    counts: Counter[str] = Counter()
    seen_recordings = {index.recordings[row] for row in excluded_rows}
    for number, row in enumerate(rows):
        if row in excluded_rows:
            continue
        if recordings is not None and recordings[number] in seen_recordings:
            continue
        artist = lead_artist(artists[number]) if per_artist is not None else ""
        if artist and counts[artist] == per_artist:
            continue
        counts[artist] += 1
        if recordings is not None:
            seen_recordings.add(recordings[number])
        selected.append(number)
    return selected
