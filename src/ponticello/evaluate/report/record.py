"""The summary as data: plain lists and dicts for JSON, a table for CSV. Every number stays what it is."""

from dataclasses import asdict, fields
from typing import Any

import polars as pl

from ponticello.evaluate.figures import Difference, Figure, Summary
from ponticello.evaluate.report.words import finite_or_none
from ponticello.library import as_cell


def as_record(summary: Summary) -> dict[str, object]:
    """The summary as plain lists and dicts; a number that could not be measured is null."""
    return {
        "about": {**asdict(summary.about), "seeds": list(summary.about.seeds)},
        "figures": [_plain(figure) for figure in summary.figures],
        "differences": [_plain(difference) for difference in summary.differences],
        "claims": summary.claims,
        "notes": summary.notes,
    }


def as_frame(figures: list[Figure]) -> pl.DataFrame:
    """Returns one row per figure, with columns named as the fields of `Figure`; nan stays nan."""
    types: dict[Any, Any] = {float: pl.Float64, int: pl.Int64, bool: pl.Boolean}
    schema = {field.name: types.get(field.type, pl.String) for field in fields(Figure)}
    return pl.DataFrame({name: [getattr(figure, name) for figure in figures] for name in schema}, schema)


def as_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` for a CSV that may be opened in a spreadsheet: no text of it is a formula there (`as_cell`)."""
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(pl.Series(name, [as_cell(cell) for cell in frame[name]], pl.String) for name in texts)


def _plain(row: Figure | Difference) -> dict[str, object]:
    return {name: finite_or_none(value) for name, value in asdict(row).items()}
