"""Dot-and-interval plots: one row a method or task, a mark at the value and a line over its 95 % interval."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ponticello.evaluate.report.canvas import BLUE, INK, MUTED, ORANGE, PAPER
from ponticello.evaluate.report.words import clean

ROW_IN, FRAME_IN = 0.33, 0.5  # height of a row; of the axis and its label below the rows
LABEL_WIDTH = 24  # characters a line; longer names take a second line and are then cut
CAPTION_WIDTH = 52
Emphasis = Literal["first", "second", ""]
_MARKS = {"first": (BLUE, "D", 6.0), "second": (ORANGE, "s", 6.0), "": (MUTED, "o", 5.0)}


@dataclass(frozen=True)
class Dot:
    """One row. low and high may be nan: then there is no line. is_open: drawn as an outline."""

    label: str
    value: float
    low: float
    high: float
    emphasis: Emphasis = ""
    is_open: bool = False


def dots_height(dots: Sequence[Dot], caption: str) -> float:
    """Inches a plot of `dots` needs."""
    return FRAME_IN + ROW_IN * len(dots) + 0.16 * len(_wrapped(caption, CAPTION_WIDTH, 3))


def draw_dots(figure: Figure, dots: Sequence[Dot], caption: str, reference: float | None) -> None:
    """Rows from the top in the order of `dots`, all with finite values; reference: a dotted line across all rows."""
    axes = figure.add_subplot()
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)))
    for row, dot in enumerate(dots):
        colour, marker, size = _MARKS[dot.emphasis]
        if isfinite(dot.low) and isfinite(dot.high):
            axes.plot([dot.low, dot.high], [row, row], color=colour, linewidth=1.8, solid_capstyle="butt")
        face = PAPER if dot.is_open else colour
        axes.plot(dot.value, row, marker, color=colour, markersize=size, markerfacecolor=face, markeredgewidth=1.3)
    axes.set_ylim(len(dots) - 0.4, -0.6)
    labels = ["\n".join(_wrapped(dot.label, LABEL_WIDTH, 2)) for dot in dots]
    axes.set_yticks(range(len(dots)), labels, linespacing=1.05)
    for text, dot in zip(axes.get_yticklabels(), dots, strict=True):
        text.set_color(_MARKS[dot.emphasis][0] if dot.emphasis else INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    figure.supxlabel("\n".join(_wrapped(caption, CAPTION_WIDTH, 3)), fontsize="medium")


def _wrapped(text: str, width: int, max_lines: int) -> list[str]:
    return textwrap.wrap(clean(text), width, max_lines=max_lines, placeholder="…") or [""]
