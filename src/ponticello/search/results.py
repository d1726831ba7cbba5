"""Ranked lists, and the filters over the catalogue's columns that narrow them: `artist=Askyel`,
`genres=rock`, `duration_s<300`, `title~night`.
"""

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import get_type_hints, overload

import polars as pl

from ponticello.checks import require_list
from ponticello.errors import DataError

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


@dataclass(frozen=True, repr=False)
class SearchResults(Sequence[Result]):
    """A ranked list, best first. blend: that was used; has_more: whether more tracks follow."""

    results: tuple[Result, ...]
    blend: float
    has_more: bool

    @overload
    def __getitem__(self, position: int) -> Result: ...
    @overload
    def __getitem__(self, position: slice) -> tuple[Result, ...]: ...
    def __getitem__(self, position: int | slice) -> Result | tuple[Result, ...]:
        return self.results[position]

    def __len__(self) -> int:
        return len(self.results)

    def __repr__(self) -> str:
        """Returns one line per track, as the command line prints them."""
        lines = [f"SearchResults(blend={self.blend:g}, {len(self)} tracks)"]
        for result in self:
            name = ", ".join(filter(None, (result.title or "(untitled)", result.artist)))
            lines.append(f"{result.rank:>3}  {result.score:>6.2f}  {name} [{result.track_id}]")
        return "\n".join(lines)

    def to_polars(self) -> pl.DataFrame:
        """Returns a table with one row per track and one column per field of `Result`."""
        return pl.DataFrame(list(map(asdict, self)), schema=get_type_hints(Result))
