"""Tables keep every figure and the order of things, and mark as best only what can be called so."""

from dataclasses import replace
from math import nan

import pytest

from ponticello.evaluate.report.tables import (
    display_task,
    distinct_slugs,
    rank_methods,
    slug,
    tables_of,
)
from ponticello.evaluate.results import Figure, Section, Summary


def _column(
    *values: tuple[float, float], section: Section = "preference", rises: bool = True
) -> list[Figure]:
    return [
        Figure(
            section,
            "cold",
            "AUC",
            f"m{number}",
            value,
            value - half,
            value + half,
            12,
            nan,
            True,
            rises,
        )
        for number, (value, half) in enumerate(values)
    ]


def test_one_table_a_task_in_order_of_first_appearance_with_every_figure(summary: Summary) -> None:
    late = replace(summary.figures[0], metric="MRR", method="popularity")
    tables = tables_of([*summary.figures, late])
    assert [(table.section, table.task) for table in tables] == [
        ("semantic", "text_to_audio"),
        ("preference", "next tracks"),
        ("integrity", "space"),
        ("tradeoff", "weights"),
        ("tradeoff", "blend"),
    ]
    assert sum(len(table.figures) for table in tables) == len(summary.figures) + 1
    assert tables[0].methods == ["random", "stage_one", "stage_two", "popularity"]
    assert tables[0].metrics == ["R@10", "median rank", "MRR"]
    assert tables[0].cells["popularity", "MRR"] is late
    assert [table.record for table in tables] == ["R@10", "NDCG@10", None, None, None]


def test_best_value_leads_and_overlapping_intervals_are_level_with_it() -> None:
    """m1 is best with [0.6, 0.8]; m0 ends at 0.6 and touches it; m2 ends at 0.55."""
    assert rank_methods(_column((0.5, 0.1), (0.7, 0.1), (0.5, 0.05))) == {
        "m0": "level",
        "m1": "best",
    }


def test_lowest_is_best_where_lower_is_better() -> None:
    assert rank_methods(_column((5.0, 1.0), (9.0, 1.0), rises=False)) == {"m0": "best"}


def test_equal_values_are_all_best_and_nan_is_nothing() -> None:
    assert rank_methods(_column((0.7, 0.1), (nan, nan), (0.7, 0.2))) == {"m0": "best", "m2": "best"}


@pytest.mark.parametrize("section", ["integrity", "tradeoff"])
def test_nothing_is_best_where_more_is_not_better(section: Section) -> None:
    assert rank_methods(_column((0.5, 0.1), (0.7, 0.1), section=section)) == {}


def test_nothing_is_best_without_intervals_or_without_rivals() -> None:
    assert rank_methods(_column((0.5, nan), (0.7, nan))) == {}
    assert rank_methods(_column((0.5, 0.1), (nan, nan))) == {}
    assert rank_methods([]) == {}


def test_tasks_and_metrics_of_simulated_listeners_are_marked_once(summary: Summary) -> None:
    """A task is marked in its title if all its figures are simulated, a metric in its heading."""
    tradeoff = [figure for figure in summary.figures if figure.section == "tradeoff"]
    marked = [replace(figure, is_simulated=figure.metric == "NDCG@10") for figure in tradeoff]
    table = tables_of(marked)[0]
    assert display_task(table) == "weights"
    assert table.metric_heading("R@10") == "R@10"
    assert table.metric_heading("NDCG@10") == "NDCG@10, SIMULATED listeners"
    task = tables_of([replace(figure, is_simulated=True) for figure in tradeoff])[0]
    assert display_task(task) == "weights, SIMULATED listeners"
    assert task.metric_heading("NDCG@10") == "NDCG@10"


def test_slugs_are_short_ascii_and_distinct() -> None:
    assert slug("Ünder the Sea, cold!") == "under-the-sea-cold"
    assert slug("日本") == "task"
    assert len(slug("x" * 200)) == 60
    assert distinct_slugs(["a/b", "a b", "../a-b", "tradeoff"], taken=["tradeoff"]) == [
        "a-b",
        "a-b-2",
        "a-b-3",
        "tradeoff-2",
    ]
