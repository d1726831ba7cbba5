"""Plots: reproducible bytes, text as text, marks at the numbers, and the colours of the page."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from math import nan

import pytest
from matplotlib.figure import Figure as MplFigure

from ponticello.evaluate.report.plots import (
    PAPER,
    Dot,
    changes_of_record,
    draw_dots,
    draw_tradeoff,
    plots_of,
    tradeoff_curves,
)
from ponticello.evaluate.results import Difference, Summary


def _texts(svg: str | bytes) -> list[str]:
    return [
        "".join(element.itertext())
        for element in ET.fromstring(svg).iter()
        if element.tag.endswith("text")
    ]


def test_summary_has_a_plot_a_task_of_record_the_changes_and_the_front(summary: Summary) -> None:
    plots = plots_of(summary)
    assert [plot.name for plot in plots.all] == [
        "changes",
        "semantic-text-to-audio",
        "preference-next-tracks",
        "tradeoff",
    ]
    assert list(plots.tasks) == [("semantic", "text_to_audio"), ("preference", "next tracks")]


def test_empty_summary_has_no_plots(empty: Summary) -> None:
    assert plots_of(empty).all == []


def test_task_without_a_single_value_has_no_plot(summary: Summary) -> None:
    figures = [replace(figure, value=nan, low=nan, high=nan) for figure in summary.figures]
    assert plots_of(replace(summary, figures=figures, differences=[])).all == []


def test_same_summary_gives_the_same_bytes(summary: Summary) -> None:
    first, second = plots_of(summary), plots_of(summary)
    assert first.all == second.all
    for plot in first.all:
        assert plot.png.startswith(b"\x89PNG")
        assert b"<dc:date>" not in plot.svg


def test_methods_stand_as_text_in_the_plot_best_first_and_without_those_not_measured(
    summary: Summary,
) -> None:
    plots = plots_of(summary).tasks
    meaning = _texts(plots["semantic", "text_to_audio"].svg)
    assert [text for text in meaning if text in ("random", "stage one", "stage two")] == [
        "stage one",
        "stage two",
        "random",
    ]
    assert "R@10 on text to audio (higher is better)" in meaning
    taste = _texts(plots["preference", "next tracks"].svg)
    assert "stage two" in taste
    assert "stage one" not in taste


def test_dots_stand_at_their_values_with_lines_over_their_intervals() -> None:
    figure = MplFigure()
    dots = [Dot("a", 0.5, 0.4, 0.7), Dot("b", 0.2, nan, nan, is_open=True)]
    draw_dots(figure, dots, "AUC", reference=0.25)
    (axes,) = figure.axes
    drawn = [(list(line.get_xdata()), list(line.get_ydata())) for line in axes.lines]  # type: ignore[arg-type]
    assert drawn == [([0.25, 0.25], [0, 1]), ([0.4, 0.7], [0, 0]), ([0.5], [0]), ([0.2], [1])]
    assert axes.lines[3].get_markerfacecolor() == PAPER
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]  # the first row is on top


def test_front_takes_meaning_from_the_first_metric_and_taste_from_the_second(
    summary: Summary,
) -> None:
    curves = tradeoff_curves(summary.figures)
    assert [curve.task for curve in curves] == ["weights", "blend"]
    assert (curves[0].semantic_name, curves[0].preference_name) == ("R@10", "NDCG@10")
    assert curves[0].positions == ["0.00", "0.50", "1.00"]
    assert curves[0].points == [(0.5, 0.3), (0.48, 0.6), (0.4, 0.7)]


def test_front_is_in_order_of_position_and_without_what_was_not_measured(summary: Summary) -> None:
    figures = [
        replace(figure, value=nan)
        if figure.section == "tradeoff" and figure.method == "0.50"
        else figure
        for figure in reversed(summary.figures)
    ]
    assert [curve.positions for curve in tradeoff_curves(figures)] == [["0.00", "1.00"]] * 2


def test_no_front_without_two_metrics(summary: Summary) -> None:
    assert tradeoff_curves([row for row in summary.figures if row.metric == "R@10"]) == []
    assert tradeoff_curves([]) == []


def test_front_names_its_ends_once_and_its_positions(summary: Summary) -> None:
    plot = plots_of(summary).front
    assert plot is not None
    texts = _texts(plot.svg)
    assert texts.count("stage one") == texts.count("stage two") == 1
    assert texts.count("0.5") == 2


@pytest.mark.parametrize("rises", [True, False])
def test_better_is_right_and_up_in_the_front(summary: Summary, rises: bool) -> None:
    curves = tradeoff_curves([replace(row, higher_is_better=rises) for row in summary.figures])
    figure = MplFigure()
    draw_tradeoff(figure, curves, is_simulated=False)
    (left, right), (bottom, top) = figure.axes[0].get_xlim(), figure.axes[0].get_ylim()
    assert (left < right, bottom < top) == (rises, rises)


def test_changes_are_of_stage_two_against_stage_one_in_metrics_of_record_meaning_first(
    summary: Summary,
) -> None:
    taste = Difference(
        "preference",
        "next tracks",
        "NDCG@10",
        "stage_two",
        "stage_one",
        0.1,
        0.0,
        0.2,
        12,
        0.1,
        0.1,
    )
    found = changes_of_record(replace(summary, differences=[taste, *summary.differences]))
    assert [(difference.section, difference.metric) for difference in found] == [
        ("semantic", "R@10"),
        ("preference", "NDCG@10"),
    ]


def test_plots_of_simulated_listeners_say_so(simulated: Summary) -> None:
    plots = plots_of(simulated)
    assert plots.changes is not None
    assert plots.front is not None
    for plot in (plots.changes, plots.front):
        assert "SIMULATED" in " ".join(_texts(plot.svg))


def test_inline_plot_takes_ids_of_its_own_and_colours_from_the_page(summary: Summary) -> None:
    for plot in plots_of(summary).all:
        inline = plot.inline_svg
        assert not re.search("#[0-9a-f]{6}", inline)
        assert "currentColor" in inline
        assert "<style" not in inline
        assert "http" not in inline
        ids = set(re.findall(r' id="([^"]*)"', inline))
        used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', inline)
        assert {first or second for first, second in used} == ids
        assert all(name.startswith(f"{plot.name}-") for name in ids)


def test_hostile_names_are_drawn_as_text_and_warn_nobody(hostile: Summary) -> None:
    for plot in plots_of(hostile).all:
        assert "<script" not in plot.inline_svg
        assert b"<script" not in plot.svg
        assert re.fullmatch("[a-z0-9-]+", plot.name)
        assert ET.fromstring(plot.inline_svg).tag == "svg"
