"""Filters over the catalogue's columns: `artist=Askyel`, `genres=rock`, `duration_s<300`, `title~night`."""

import re
from collections.abc import Sequence

import polars as pl

from ponticello.errors import DataError
from ponticello.several import several

_FILTER = re.compile(r"\s*(\w+)\s*(<=|>=|!=|=|<|>|~)\s*(.+?)\s*")


def matching(tracks: pl.DataFrame, filters: Sequence[str]) -> pl.DataFrame:
    """The rows of `tracks` that pass every filter `column OP value`, OP one of = != < <= > >= ~ (contains).

    Text is compared without regard to case; a list column matches if one of its entries does (with !=, if none is
    equal); a missing value or NaN matches nothing. DataError names a filter that cannot be read or a column that is
    not there, or says that there is one filter where a list of them belongs.
    """
    for text in several(filters, "where"):
        match = _FILTER.fullmatch(text)
        if match is None:
            raise DataError(f"filter {text!r} must look like column=value (also != < <= > >=, ~ for contains)")
        column, operator, value = match.groups()
        if column not in tracks.columns:
            raise DataError(f"filter {text!r}: there is no column {column!r}; found {', '.join(tracks.columns)}")
        tracks = tracks.filter(_condition(tracks.schema[column], column, operator, value).fill_null(value=False))
    return tracks


def _condition(kind: pl.DataType, column: str, operator: str, value: str) -> pl.Expr:
    entry = kind.inner if isinstance(kind, pl.List) else kind
    wanted: str | float = value
    if pl.Series(dtype=entry).dtype.is_numeric():
        try:
            wanted = float(value)
        except ValueError:
            raise DataError(f"filter {column}{operator}{value}: column {column!r} holds numbers") from None
    if not isinstance(kind, pl.List):
        return _compare(pl.col(column), operator, wanted)
    found = pl.col(column).list.eval(_compare(pl.element(), operator.replace("!=", "="), wanted)).list.any()
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
