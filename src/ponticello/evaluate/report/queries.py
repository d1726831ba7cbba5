"""Every score of every query, one a row, so that anyone can test again. Written task by task: there may be millions."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from ponticello.evaluate.figures import Evaluation, Scores

SCHEMA = {
    "seed": pl.Int64,
    "side": pl.String,
    "task": pl.String,
    "metric": pl.String,
    "query": pl.String,
    "cluster": pl.String,  # null: the query stands alone
    "method": pl.String,
    "score": pl.Float64,  # nan: not counted
}


def write_queries(path: Path, seeds: Sequence[int], evaluations: Sequence[Evaluation]) -> None:
    """Writes Parquet with the columns of SCHEMA, a row group per seed, task and metric; holds one of them in memory."""
    schema = pl.DataFrame(schema=SCHEMA).to_arrow().schema
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for frame in _frames(seeds, evaluations):
            writer.write_table(frame.to_arrow().cast(pa.schema(schema)))


def _frames(seeds: Sequence[int], evaluations: Sequence[Evaluation]) -> Iterator[pl.DataFrame]:
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
            "method": pl.Series(methods, dtype=pl.String).gather(np.repeat(np.arange(len(methods)), n)),
            "score": np.concatenate([np.asarray(scores.by_method[method], np.float64) for method in methods]),
        }
    ).select(
        pl.lit(seed, pl.Int64).alias("seed"),
        pl.lit(scores.side).alias("side"),
        pl.lit(scores.task).alias("task"),
        pl.lit(scores.metric).alias("metric"),
        "query",
        "cluster",
        "method",
        "score",
    )
