"""The data files of a report: every number comes back, from JSON, CSV and Parquet."""

import csv
import json
from dataclasses import asdict, replace
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ponticello.evaluate.report.data import (
    QUERIES_SCHEMA,
    as_frame,
    as_record,
    write_figures,
    write_queries,
)
from ponticello.evaluate.results import Figure, Measurements, Scores, Summary


def _same(found: Any, wanted: Any) -> bool:
    return bool(found == wanted or (isinstance(wanted, float) and isnan(wanted) and isnan(found)))


def test_record_is_plain_json_with_null_for_what_was_not_measured(summary: Summary) -> None:
    record = json.loads(json.dumps(as_record(summary), allow_nan=False))
    assert record == as_record(summary)
    assert record["about"] == {**asdict(summary.about), "seeds": [7, 8]}
    assert record["claims"] == summary.claims
    assert record["notes"] == summary.notes
    for name, rows in (("figures", summary.figures), ("differences", summary.differences)):
        wanted = [
            {key: None if value != value else value for key, value in asdict(row).items()}
            for row in rows
        ]
        assert record[name] == wanted
    assert record["figures"][0]["value"] == 1 / 12


def test_hostile_text_comes_back_from_json_as_it_is(hostile: Summary) -> None:
    assert json.loads(json.dumps(as_record(hostile)))["about"]["library"] == hostile.about.library


def test_figures_come_back_exactly_from_csv(summary: Summary, tmp_path: Path) -> None:
    write_figures(tmp_path / "figures.csv", summary.figures)
    with (tmp_path / "figures.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for figure, row in zip(summary.figures, rows, strict=True):
        for field, value in asdict(figure).items():
            assert _same(
                float(row[field]) if isinstance(value, float) else row[field], _as_csv(value)
            )


def _as_csv(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


def test_frame_of_nothing_still_has_its_columns() -> None:
    assert as_frame([]).columns == list(Figure.__dataclass_fields__)
    assert as_frame([]).schema["value"] == pl.Float64
    assert as_frame([]).schema["of_record"] == pl.Boolean


def _plain(seeds: tuple[int, ...], evaluations: list[Measurements]) -> list[tuple[object, ...]]:
    """The rows as nested loops would write them."""
    rows: list[tuple[object, ...]] = []
    for seed, evaluation in zip(seeds, evaluations, strict=True):
        for scores in evaluation.scores:
            for method, values in scores.by_method.items():
                for number, query in enumerate(scores.queries):
                    cluster = None if scores.clusters is None else scores.clusters[number]
                    where = (seed, scores.section, scores.task, scores.metric, scores.is_simulated)
                    rows.append((*where, query, cluster, method, float(values[number])))
    return rows


def test_every_score_of_every_query_comes_back(
    evaluations: list[Measurements], tmp_path: Path
) -> None:
    write_queries(tmp_path / "queries.parquet", (7, 8), evaluations)
    read = pl.read_parquet(tmp_path / "queries.parquet")
    assert dict(read.schema) == QUERIES_SCHEMA
    wanted = _plain((7, 8), evaluations)
    assert len(wanted) == 2 * 2 * 2 * 12
    for row, expected in zip(read.rows(), wanted, strict=True):
        assert all(_same(a, b) for a, b in zip(row, expected, strict=True))


def test_floats_of_any_size_come_back_from_csv_bit_for_bit(tmp_path: Path) -> None:
    """Random bit patterns: 2,000 doubles of all magnitudes, without nan and infinity."""
    values = np.random.default_rng(0).integers(0, 2**63, 2000).view(np.float64)
    values = values[np.isfinite(values)]
    figure = Figure(
        "preference",
        "cold",
        "AUC",
        "m",
        0.0,
        0.0,
        0.0,
        1,
        0.0,
        of_record=True,
        higher_is_better=True,
    )
    figures = [replace(figure, value=value) for value in values.tolist()]
    write_figures(tmp_path / "f.csv", figures)
    with (tmp_path / "f.csv").open(encoding="utf-8", newline="") as file:
        assert [float(row["value"]) for row in csv.DictReader(file)] == values.tolist()


def test_evaluations_without_scores_give_a_table_without_rows(tmp_path: Path) -> None:
    nothing = Scores("preference", "cold", "AUC", [], None, {"one": np.empty(0)})
    for evaluations in ([], [Measurements()], [Measurements([nothing])]):
        write_queries(tmp_path / "q.parquet", range(len(evaluations)), evaluations)
        read = pl.read_parquet(tmp_path / "q.parquet")
        assert dict(read.schema) == QUERIES_SCHEMA
        assert read.is_empty()
