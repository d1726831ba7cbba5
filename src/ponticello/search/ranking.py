"""From a query to a ranked list: filters, ties, copies, so many tracks an artist.

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
    """The rows of `tracks` that pass every filter `column OP value`, OP one of = != < <= > >= ~
    (contains).

    Text is compared without regard to case; a list column matches if one of its entries does (with
    !=, if none is equal); a missing value or NaN matches nothing. DataError names a filter that
    cannot be read or a column that is not there, or says that there is one filter where a list of
    them belongs.
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
        tracks = tracks.filter(
            _condition(tracks.schema[column], column, operator, value).fill_null(value=False)
        )
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
    found = (
        pl.col(column)
        .list.eval(_compare(pl.element(), operator.replace("!=", "="), wanted))
        .list.any()
    )
    return ~found if operator == "!=" else found


def _compare(side: pl.Expr, operator: str, value: str | float) -> pl.Expr:
    if isinstance(value, str):
        side, value = side.cast(pl.String).str.to_lowercase(), value.lower()
        if operator == "~":
            return side.str.contains(value, literal=True)
    else:
        side = side.cast(pl.Float64).fill_nan(None)
    compared: dict[str, pl.Expr] = {
        "=": side == value,
        "!=": side != value,
        "<": side < value,
        "<=": side <= value,
        ">": side > value,
        ">=": side >= value,
        "~": side == value,
    }
    return compared[operator]


FURTHER = 4  # times as many are asked for where filters among the best leave too few


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
        schema = {
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
        rows = [asdict(result) | {"tags": list(result.tags)} for result in self]
        return pl.DataFrame(rows, schema=schema)


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
    once: bool = False,
    root: Path = Path(),
) -> list[Result]:
    """The `k` best of `tracks` (those that pass the filters) for `query`, of one row, best first;
    ties by track id.

    excluded: ids never returned. per_artist: at most so many tracks an artist (a track without
    artist counts alone).
    once: of the copies of a recording only the best that passes is returned, and none of what is
    `excluded`.
    """
    table = index.placed(tracks)
    places = table[ROW].to_numpy()
    allowed = None if len(places) == len(index.track_ids) else places
    left_out = {
        index.rows[track_id]
        for track_id in require_list(excluded, "excluded")
        if track_id in index.rows
    }
    n_asked = k + len(left_out)
    while True:  # until enough of them may stay, or there are no more
        rows = index.top(query, blend, n_asked, allowed)
        positions = np.searchsorted(places, rows)
        recordings = [index.recordings[row] for row in rows] if once else None
        heard = {index.recordings[row] for row in left_out} if once else set()
        chosen = _chosen(
            [row in left_out for row in rows],
            table[ARTIST].gather(positions).to_list(),
            recordings,
            heard,
            k,
            per_artist,
        )
        if len(chosen) == k or len(rows) < n_asked:
            break
        n_asked *= FURTHER
    parts = index.parts(query, blend, rows[chosen])[0]  # (chosen, 2)
    return [
        build_result(table.row(int(positions[place]), named=True), number, parts[number - 1], root)
        for number, place in enumerate(chosen, 1)
    ]


def _chosen(
    are_left_out: list[bool],
    artists: list[str | None],
    recordings: list[str] | None,
    heard: set[str],
    k: int,
    per_artist: int | None,
) -> list[int]:
    """Which of the ranked tracks come into the answer, `k` at most. recordings: None = they may
    repeat.
    """
    chosen: list[int] = []
    counts: Counter[str] = Counter()
    for place, (is_left_out, artist) in enumerate(zip(are_left_out, artists, strict=True)):
        if is_left_out or (recordings is not None and recordings[place] in heard):
            continue
        if per_artist is not None and (lead := lead_artist(artist)):
            if counts[lead] >= per_artist:
                continue
            counts[lead] += 1
        if recordings is not None:
            heard.add(recordings[place])
        chosen.append(place)
        if len(chosen) == k:
            break
    return chosen
