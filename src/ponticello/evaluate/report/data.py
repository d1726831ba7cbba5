"""An evaluation as data: evaluation.json, figures.csv, and queries.parquet with every score."""

from collections.abc import Sequence
from dataclasses import asdict, fields
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ponticello.evaluate.results import Difference, Figure, Measurements, Scores, Summary
from ponticello.storage.files import escape_csv_cell

QUERIES_SCHEMA = {
    "seed": pl.Int64,
    "section": pl.String,
    "task": pl.String,
    "metric": pl.String,
    "is_simulated": pl.Boolean,  # the listeners
    "query": pl.String,
    "cluster": pl.String,  # null: the query is a cluster of its own
    "method": pl.String,
    "score": pl.Float64,  # nan: not counted
}


def write_queries(path: Path, seeds: Sequence[int], evaluations: Sequence[Measurements]) -> None:
    """Writes Parquet with the columns of QUERIES_SCHEMA, a row group per seed, task and metric.

    There may be millions of rows; one row group is in memory at a time.
    """
    schema = pa.schema(pl.DataFrame(schema=QUERIES_SCHEMA).to_arrow().schema)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for seed, evaluation in zip(seeds, evaluations, strict=True):
            for scores in evaluation.scores:
                if scores.queries and scores.by_method:
                    writer.write_table(_query_rows(seed, scores).to_arrow().cast(schema))


def _query_rows(seed: int, scores: Scores) -> pl.DataFrame:
    """Returns a row per method and query, in that order."""
    no_clusters: list[str | None] = [None] * len(scores.queries)
    clusters = scores.clusters or no_clusters
    frames = []
    for method, values in scores.by_method.items():
        columns = {
            "query": pl.Series(scores.queries, dtype=pl.String),
            "cluster": pl.Series(clusters, dtype=pl.String),
            "score": np.asarray(values, np.float64),
        }
        frames.append(pl.DataFrame(columns).with_columns(method=pl.lit(method)))
    rows = pl.concat(frames).with_columns(
        seed=pl.lit(seed, pl.Int64),
        section=pl.lit(scores.section),
        task=pl.lit(scores.task),
        metric=pl.lit(scores.metric),
        is_simulated=pl.lit(scores.is_simulated),
    )
    return rows.select(list(QUERIES_SCHEMA))


def as_record(summary: Summary) -> dict[str, object]:
    """Returns the summary as plain lists and dicts; a number that was not measured is None."""
    return {
        "about": {**asdict(summary.about), "seeds": list(summary.about.seeds)},
        "figures": list(map(_plain, summary.figures)),
        "differences": list(map(_plain, summary.differences)),
        "claims": summary.claims,
        "notes": summary.notes,
    }


def as_frame(figures: Sequence[Figure]) -> pl.DataFrame:
    """Returns one row per figure, with columns named as the fields of `Figure`; nan stays nan."""
    types: dict[Any, Any] = {float: pl.Float64, int: pl.Int64, bool: pl.Boolean}
    schema = {field.name: types.get(field.type, pl.String) for field in fields(Figure)}
    return pl.DataFrame(list(map(asdict, figures)), schema)


def write_figures(path: Path, figures: Sequence[Figure]) -> None:
    """Writes one row per figure as CSV; text that looks like a formula is escaped."""
    frame = as_frame(figures)
    for name, dtype in frame.schema.items():
        if dtype == pl.String:
            cells = list(map(escape_csv_cell, frame[name]))
            frame = frame.with_columns(pl.Series(name, cells, pl.String))
    frame.write_csv(path)


def _plain(row: Figure | Difference) -> dict[str, object]:
    record = asdict(row)
    for name, value in record.items():
        if isinstance(value, float) and not isfinite(value):
            record[name] = None
    return record
