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
    n_methods = len(scores.by_method)
    no_clusters: list[str | None] = [None] * len(scores.queries)
    clusters = scores.clusters or no_clusters
    columns = {
        "seed": seed,
        "section": scores.section,
        "task": scores.task,
        "metric": scores.metric,
        "is_simulated": scores.is_simulated,
        "query": scores.queries * n_methods,
        "cluster": clusters * n_methods,
        "method": np.repeat(list(scores.by_method), len(scores.queries)).tolist(),
        "score": np.concatenate(list(scores.by_method.values())).astype(np.float64),
    }
    return pl.DataFrame(columns, QUERIES_SCHEMA)


def as_record(summary: Summary) -> dict[str, object]:
    """Returns the summary as plain lists and dicts; a number that was not measured is None."""
    return {
        "about": asdict(summary.about) | {"seeds": list(summary.about.seeds)},
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
    escaped = pl.col(pl.String).map_elements(escape_csv_cell, pl.String)
    as_frame(figures).with_columns(escaped).write_csv(path)


def _plain(row: Figure | Difference) -> dict[str, object]:
    record = asdict(row)
    for name, value in record.items():
        if isinstance(value, float) and not isfinite(value):
            record[name] = None
    return record
