"""Which plots a summary has: what stage two changed, one a task of record, and the front."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from math import isnan

from ponticello.evaluate.figures import RANDOM, STAGE_ONE, STAGE_TWO, Difference, Figure, Side, Summary
from ponticello.evaluate.report.canvas import Drawing, render
from ponticello.evaluate.report.dots import Dot, Emphasis, dots_height, draw_dots
from ponticello.evaluate.report.front import HEIGHT_IN, draw_front, front_of
from ponticello.evaluate.report.names import distinct_slugs
from ponticello.evaluate.report.tables import Table, tables_of
from ponticello.evaluate.report.words import clean, verdict, without_suffix

CHANGES, FRONT = "changes", "front"
_EMPHASIS: dict[str, Emphasis] = {STAGE_TWO: "first", STAGE_ONE: "second"}


@dataclass(frozen=True)
class Plot:
    """name: of its files, without suffix; label: what it shows, in words."""

    name: str
    label: str
    drawing: Drawing


@dataclass(frozen=True)
class Plots:
    """changes, front: None where there is nothing to show; tasks: by (side, task)."""

    changes: Plot | None
    tasks: dict[tuple[Side, str], Plot]
    front: Plot | None

    @property
    def all(self) -> list[Plot]:
        """Every plot that there is."""
        return [plot for plot in (self.changes, *self.tasks.values(), self.front) if plot is not None]


def plots_of(summary: Summary) -> Plots:
    """Draws all plots of a summary; about a quarter of a second each."""
    tables = [table for table in tables_of(summary.figures) if table.record is not None and table.side != "front"]
    tables = [table for table in tables if _values(table)]
    slugs = distinct_slugs([f"{table.side} {table.task}" for table in tables], taken=(CHANGES, FRONT))
    tasks = {(table.side, table.task): _task(table, slug) for table, slug in zip(tables, slugs, strict=True)}
    return Plots(_changes(summary), tasks, _front(summary))


def changes_of_record(summary: Summary) -> list[Difference]:
    """Stage two minus stage one in every metric of record that both have, meaning first."""
    of_record = {(figure.side, figure.task, figure.metric) for figure in summary.figures if figure.of_record}
    found = [
        difference
        for difference in summary.differences
        if (difference.method, difference.against) == (STAGE_TWO, STAGE_ONE)
        and (difference.side, difference.task, difference.metric) in of_record
        and not isnan(difference.value)
    ]
    return sorted(found, key=lambda difference: difference.side != "meaning")


def _changes(summary: Summary) -> Plot | None:
    differences = changes_of_record(summary)
    if not differences:
        return None
    dots = [_change(difference) for difference in differences]
    listeners = " Taste is that of SIMULATED listeners." if summary.about.is_simulated else ""
    caption = f"stage two minus stage one: right of 0 is better. Filled: shown.{listeners}"
    label = f"Stage two minus stage one in {len(dots)} tasks; the numbers are under Differences."
    return Plot(CHANGES, label, _drawn(dots, caption, 0.0, CHANGES, label))


def _change(difference: Difference) -> Dot:
    said = verdict(difference)
    emphasis: dict[str, Emphasis] = {"better": "first", "worse": "second"}
    label = f"{without_suffix(difference.task)}: {clean(difference.metric)}"
    is_open = said not in emphasis
    return Dot(label, difference.value, difference.low, difference.high, emphasis.get(said, ""), is_open)


def _task(table: Table, slug: str) -> Plot:
    figures = sorted(_values(table), key=lambda figure: figure.value, reverse=figures_rise(table))
    dots = [Dot(f.method, f.value, f.low, f.high, _EMPHASIS.get(f.method, "")) for f in figures]
    chance = [figure.value for figure in figures if figure.method == RANDOM]
    direction = "higher" if figures_rise(table) else "lower"
    caption = f"{clean(table.record or '')} on {clean(table.task)} ({direction} is better)"
    label = f"{caption}, {len(dots)} methods with their intervals; the numbers are in the table."
    return Plot(slug, label, _drawn(dots, caption, chance[0] if chance else None, slug, label))


def figures_rise(table: Table) -> bool:
    """Whether more is better in the metric of record."""
    return table.column(table.record or "")[0].higher_is_better


def _values(table: Table) -> list[Figure]:
    return [figure for figure in table.column(table.record or "") if not isnan(figure.value)]


def _drawn(dots: Sequence[Dot], caption: str, reference: float | None, prefix: str, label: str) -> Drawing:
    draw = partial(draw_dots, dots=dots, caption=caption, reference=reference)
    return render(draw, dots_height(dots, caption), prefix, label)


def _front(summary: Summary) -> Plot | None:
    front = front_of(summary.figures)
    if front is None:
        return None
    label = f"{clean(front.taste_metric)} against {clean(front.meaning_metric)} between stage one and stage two."
    draw = partial(draw_front, front=front, is_simulated=summary.about.is_simulated)
    return Plot(FRONT, label, render(draw, HEIGHT_IN, FRONT, label))
