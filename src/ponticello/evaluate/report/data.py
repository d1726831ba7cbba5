"""Every score of every query, one a row, so that anyone can test again. Written task by task: there
may be millions.

The summary as data: plain lists and dicts for JSON, a table for CSV. Every number stays what it is.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ponticello.evaluate.report.tables import finite_or_none
from ponticello.evaluate.results import Difference, Figure, Measurements, Scores, Summary
from ponticello.storage.files import escape_csv_cell

SCHEMA = {
    "seed": pl.Int64,
    "section": pl.String,
    "task": pl.String,
    "metric": pl.String,
    "is_simulated": pl.Boolean,  # the listeners
    "query": pl.String,
    "cluster": pl.String,  # null: the query stands alone
    "method": pl.String,
    "score": pl.Float64,  # nan: not counted
}


def write_queries(path: Path, seeds: Sequence[int], evaluations: Sequence[Measurements]) -> None:
    """Writes Parquet with the columns of SCHEMA, a row group per seed, task and metric; holds one
    of them in memory.
    """
    schema = pl.DataFrame(schema=SCHEMA).to_arrow().schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for frame in _frames(seeds, evaluations):
            writer.write_table(frame.to_arrow().cast(pa.schema(schema)))


def _frames(seeds: Sequence[int], evaluations: Sequence[Measurements]) -> Iterator[pl.DataFrame]:
    for seed, evaluation in zip(seeds, evaluations, strict=True):
        for scores in evaluation.scores:
            if scores.queries and scores.by_method:
                yield _frame(seed, scores)


def _frame(seed: int, scores: Scores) -> pl.DataFrame:
    """Method by method, queries in their order."""
    n, methods = len(scores.queries), list(scores.by_method)
    query = np.tile(np.arange(n), len(methods))
    clusters: Sequence[str | None] = [None] * n if scores.clusters is None else scores.clusters
    return pl.DataFrame(
        {
            "query": pl.Series(scores.queries, dtype=pl.String).gather(query),
            "cluster": pl.Series(clusters, dtype=pl.String).gather(query),
            "method": pl.Series(methods, dtype=pl.String).gather(
                np.repeat(np.arange(len(methods)), n)
            ),
            "score": np.concatenate(
                [np.asarray(scores.by_method[method], np.float64) for method in methods]
            ),
        }
    ).select(
        pl.lit(seed, pl.Int64).alias("seed"),
        pl.lit(scores.section).alias("section"),
        pl.lit(scores.task).alias("task"),
        pl.lit(scores.metric).alias("metric"),
        pl.lit(scores.is_simulated).alias("is_simulated"),
        "query",
        "cluster",
        "method",
        "score",
    )


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
    return pl.DataFrame(
        {name: [getattr(figure, name) for figure in figures] for name in schema}, schema
    )


def as_cells(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` for a CSV that may be opened in a spreadsheet: no text of it is a formula there
    (`escape_csv_cell`).
    """
    texts = [name for name, kind in frame.schema.items() if kind == pl.String]
    return frame.with_columns(
        pl.Series(name, [escape_csv_cell(cell) for cell in frame[name]], pl.String)
        for name in texts
    )


def _plain(row: Figure | Difference) -> dict[str, object]:
    return {name: finite_or_none(value) for name, value in asdict(row).items()}
