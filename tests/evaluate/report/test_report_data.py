"""The data files of a report: every number comes back, from JSON, CSV and Parquet alike."""

import csv
import json
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from ponticello.evaluate.figures import Difference, Evaluation, Figure, Scores, Summary
from ponticello.evaluate.report.queries import SCHEMA, n_query_rows, write_queries_csv, write_queries_parquet
from ponticello.evaluate.report.record import as_frame, as_record


def _same(found: Any, wanted: Any) -> bool:
    return bool(found == wanted or (isinstance(wanted, float) and isnan(wanted) and isnan(found)))


def test_record_is_plain_json_with_null_for_what_was_not_measured(summary: Summary) -> None:
    record = json.loads(json.dumps(as_record(summary), allow_nan=False))
    assert record == as_record(summary)
    assert record["about"] == {**asdict(summary.about), "seeds": [7, 8]}
    assert record["claims"] == summary.claims
    assert record["notes"] == summary.notes
    for name, rows in (("figures", summary.figures), ("differences", summary.differences)):
        wanted = [{key: None if value != value else value for key, value in asdict(row).items()} for row in rows]
        assert record[name] == wanted
    assert record["figures"][0]["value"] == 1 / 12


def test_hostile_text_comes_back_from_json_as_it_is(hostile: Summary) -> None:
    assert json.loads(json.dumps(as_record(hostile)))["about"]["library"] == hostile.about.library


@pytest.mark.parametrize(("name", "kind"), [("figures", Figure), ("differences", Difference)])
def test_figures_and_differences_come_back_exactly_from_csv_and_parquet(
    name: str, kind: type[Figure] | type[Difference], summary: Summary, tmp_path: Path
) -> None:
    rows = getattr(summary, name)
    frame = as_frame(rows, kind)
    frame.write_csv(tmp_path / "rows.csv")
    frame.write_parquet(tmp_path / "rows.parquet")
    with (tmp_path / "rows.csv").open(encoding="utf-8", newline="") as file:
        from_csv = list(csv.DictReader(file))
    from_parquet = pl.read_parquet(tmp_path / "rows.parquet").to_dicts()
    for row, text, plain in zip(rows, from_csv, from_parquet, strict=True):
        for field, value in asdict(row).items():
            assert _same(plain[field], value)
            assert _same(float(text[field]) if isinstance(value, float) else text[field], _as_csv(value))


def _as_csv(value: object) -> object:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, int) else value


def test_frame_of_nothing_still_has_its_columns() -> None:
    assert as_frame([], Figure).columns == list(Figure.__dataclass_fields__)
    assert as_frame([], Figure).schema["value"] == pl.Float64
    assert as_frame([], Figure).schema["of_record"] == pl.Boolean


def _plain(seeds: tuple[int, ...], evaluations: list[Evaluation]) -> list[tuple[object, ...]]:
    """The rows as nested loops would write them."""
    rows: list[tuple[object, ...]] = []
    for seed, evaluation in zip(seeds, evaluations, strict=True):
        for scores in evaluation.scores:
            for method, values in scores.by_method.items():
                for number, query in enumerate(scores.queries):
                    cluster = None if scores.clusters is None else scores.clusters[number]
                    where = (seed, scores.side, scores.task, scores.metric)
                    rows.append((*where, query, cluster, method, float(values[number])))
    return rows


@pytest.mark.parametrize("name", ["queries.csv", "queries.parquet"])
def test_every_score_of_every_query_comes_back(name: str, evaluations: list[Evaluation], tmp_path: Path) -> None:
    write = write_queries_csv if name.endswith("csv") else write_queries_parquet
    write(tmp_path / name, (7, 8), evaluations)
    read = pl.read_csv(tmp_path / name, schema=SCHEMA) if name.endswith("csv") else pl.read_parquet(tmp_path / name)
    assert dict(read.schema) == SCHEMA
    wanted = _plain((7, 8), evaluations)
    assert len(wanted) == n_query_rows(evaluations) == 2 * 2 * 2 * 12
    assert all(
        _same(a, b) for row, other in zip(read.rows(), wanted, strict=True) for a, b in zip(row, other, strict=True)
    )


def test_floats_of_any_size_come_back_from_csv_bit_for_bit(tmp_path: Path) -> None:
    """Random bit patterns: 2,000 doubles of all magnitudes, without nan and infinity."""
    values = np.random.default_rng(0).integers(0, 2**63, 2000).view(np.float64)
    values = values[np.isfinite(values)]
    scores = Scores("taste", "cold", "AUC", [f"q{row}" for row in range(len(values))], None, {"one": values})
    write_queries_csv(tmp_path / "q.csv", (1,), [Evaluation([scores])])
    with (tmp_path / "q.csv").open(encoding="utf-8", newline="") as file:
        assert [float(row["score"]) for row in csv.DictReader(file)] == values.tolist()


def test_evaluations_without_scores_give_tables_without_rows(tmp_path: Path) -> None:
    nothing = Scores("taste", "cold", "AUC", [], None, {"one": np.empty(0)})
    for evaluations in ([], [Evaluation()], [Evaluation([nothing])]):
        write_queries_csv(tmp_path / "q.csv", range(len(evaluations)), evaluations)
        write_queries_parquet(tmp_path / "q.parquet", range(len(evaluations)), evaluations)
        assert (tmp_path / "q.csv").read_text(encoding="utf-8").splitlines() == [",".join(SCHEMA)]
        assert dict(pl.read_parquet(tmp_path / "q.parquet").schema) == SCHEMA
        assert n_query_rows(evaluations) == 0
