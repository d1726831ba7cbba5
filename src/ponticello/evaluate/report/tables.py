"""Figures arranged to be read: one table a task, methods down, metrics across, and which values lead a column."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal

from ponticello.evaluate.figures import Figure, Side

Standing = Literal["best", "level", ""]


@dataclass(frozen=True)
class Table:
    """All figures of one task; methods and metrics in order of first appearance, not every pair has a figure."""

    side: Side
    task: str
    methods: list[str]
    metrics: list[str]
    cells: dict[tuple[str, str], Figure]  # (method, metric) -> figure

    @property
    def figures(self) -> list[Figure]:
        """Every figure of the table."""
        return list(self.cells.values())

    @property
    def record(self) -> str | None:
        """The metric of record, if the task has one."""
        return next((figure.metric for figure in self.figures if figure.of_record), None)

    def column(self, metric: str) -> list[Figure]:
        """The figures of one metric, in the order of methods."""
        return [self.cells[method, metric] for method in self.methods if (method, metric) in self.cells]


def tables_of(figures: Sequence[Figure]) -> list[Table]:
    """One table a (side, task), in order of first appearance."""
    groups: dict[tuple[Side, str], list[Figure]] = {}
    for figure in figures:
        groups.setdefault((figure.side, figure.task), []).append(figure)
    return [
        Table(
            side,
            task,
            list(dict.fromkeys(figure.method for figure in group)),
            list(dict.fromkeys(figure.metric for figure in group)),
            {(figure.method, figure.metric): figure for figure in group},
        )
        for (side, task), group in groups.items()
    ]


def is_ranked(column: Sequence[Figure]) -> bool:
    """True where values may be called better or worse: on the sides meaning and taste, two methods with intervals.

    A number of a whole (coverage, effective rank) has no interval, and more of it is not always better.
    """
    return sum(_has_interval(figure) and figure.side in ("meaning", "taste") for figure in column) >= 2


def standings(column: Sequence[Figure]) -> dict[str, Standing]:
    """Method -> "best" for the best value of one metric, "level" where the interval overlaps the best one's.

    "best" is what was measured, not a claim: a method that is level may be as good. Equal values are all best. Where
    `is_ranked` is False, nobody stands anywhere.
    """
    if not is_ranked(column):
        return {}
    sign = 1.0 if column[0].higher_is_better else -1.0
    ranked = [figure for figure in column if _has_interval(figure)]
    best = max(ranked, key=lambda figure: sign * figure.value)
    found: dict[str, Standing] = {}
    for figure in ranked:
        if figure.value == best.value:
            found[figure.method] = "best"
        elif figure.low <= best.high and figure.high >= best.low:
            found[figure.method] = "level"
    return found


def _has_interval(figure: Figure) -> bool:
    return not (isnan(figure.value) or isnan(figure.low) or isnan(figure.high))
