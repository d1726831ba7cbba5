"""The front: what meaning and taste become on the way from stage one (0) to stage two (1), one
curve a way.

A drawing as SVG and PNG bytes, the same bytes for the same drawing, and as SVG that takes a page's
colours.

Drawings are as wide as one column of a paper or a phone. Text stays text in the SVG; the one font
is matplotlib's own. matplotlib is imported by the report only, without pyplot and its global state.

Dot-and-interval plots: one row a method or task, a mark at the value and a line over its 95 %
interval.

Which plots a summary has: what stage two changed, one a task of record, and the front.
"""

import io
import math
import textwrap
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle
from math import isfinite, isnan
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import defusedxml.ElementTree
import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import MaxNLocator

from ponticello.evaluate.report.tables import (
    Table,
    display_metric,
    display_name,
    display_task,
    distinct_slugs,
    strip_control_chars,
    tables_of,
    verdict,
)
from ponticello.evaluate.results import (
    RANDOM,
    STAGE_ONE,
    STAGE_TWO,
    Difference,
    Figure,
    Section,
    Summary,
)

WIDTH_IN = 4.8
DPI = 200  # of the PNG
FONT_PT = 10.0
INK, MUTED, RULE, PAPER = "#1d2126", "#5c636b", "#d5d3cc", "#ffffff"
BLUE, ORANGE = "#0072b2", "#b8500c"  # told apart by colour-blind eyes, and by their shapes besides
_VARIABLES = {
    INK: "currentColor",
    MUTED: "muted",
    RULE: "rule",
    PAPER: "card",
    BLUE: "blue",
    ORANGE: "orange",
}
_STYLE: dict[Any, Any] = {
    "svg.hashsalt": "ponticello",
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": FONT_PT,
    "text.parse_math": False,  # names may hold dollar signs
    "axes.formatter.use_mathtext": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}


@dataclass(frozen=True)
class Drawing:
    """svg stands alone, on white; inline_svg is for a page whose CSS says --muted, --rule, --card,
    --blue, --orange.
    """

    svg: bytes
    png: bytes
    inline_svg: str


def render(draw: Callable[[MplFigure], None], height_in: float, prefix: str, label: str) -> Drawing:
    """What `draw` puts on an empty figure, WIDTH_IN wide.

    prefix: begins every id of the inline SVG, so that several may stand on one page; label: read to
    who cannot see it.
    """
    with (
        matplotlib.style.context("default"),
        matplotlib.rc_context(_STYLE),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from", category=UserWarning
        )  # a box is drawn
        figure = MplFigure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(svg, format="svg", metadata=empty)
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return Drawing(svg.getvalue(), png.getvalue(), _inline(svg.getvalue(), prefix, label))


def _inline(svg: bytes, prefix: str, label: str) -> str:
    """The SVG as an element of an HTML page: no header, no namespaces, its own ids, the page's
    colours and font.
    """
    root = defusedxml.ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(
                ("}style", "}metadata")
            ):  # its rules would hold for the whole page
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        found = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: _own(name, value, prefix) for name, value in found.items()})
    used = "".join(
        value for element in root.iter() for name, value in element.attrib.items() if name != "id"
    )
    for element in root.iter():
        if f"#{element.get('id', '')}" not in used:
            element.attrib.pop("id", None)
    inner = "".join(ET.tostring(child, encoding="unicode") for child in root)
    return f'<svg viewBox="{root.get("viewBox")}" role="img" aria-label={quoteattr(label)}>{inner}</svg>'


def _own(name: str, value: str, prefix: str) -> str:
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return f"#{prefix}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{prefix}-").replace("'DejaVu Sans'", "inherit")
    for colour, variable in _VARIABLES.items():
        value = value.replace(
            colour, variable if variable == "currentColor" else f"var(--{variable})"
        )
    return value


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


def draw_dots(
    figure: MplFigure, dots: Sequence[Dot], caption: str, reference: float | None
) -> None:
    """Rows from the top in the order of `dots`, all with finite values; reference: a dotted line
    across all rows.
    """
    axes = figure.add_subplot()
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)))
    for row, dot in enumerate(dots):
        colour, marker, size = _MARKS[dot.emphasis]
        if isfinite(dot.low) and isfinite(dot.high):
            axes.plot(
                [dot.low, dot.high], [row, row], color=colour, linewidth=1.8, solid_capstyle="butt"
            )
        face = PAPER if dot.is_open else colour
        axes.plot(
            dot.value,
            row,
            marker,
            color=colour,
            markersize=size,
            markerfacecolor=face,
            markeredgewidth=1.3,
        )
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
    return textwrap.wrap(
        strip_control_chars(text), width, max_lines=max_lines, placeholder="…"
    ) or [""]


HEIGHT_IN = 4.4
WAYS = {"weights": "between the weights", "blend": "by the dial, between the vectors"}
APART_PT = 15  # labels of one curve stand at least this far apart
LABEL_PT = 10  # between a point and its label
_STYLES = ((BLUE, "D"), (ORANGE, "s"))
_ENDS = {0.0: STAGE_ONE, 1.0: STAGE_TWO}


@dataclass(frozen=True)
class Curve:
    """One way from stage one to stage two, in order of position."""

    task: str
    positions: list[str]
    meaning: list[Figure]
    taste: list[Figure]

    @property
    def points(self) -> list[tuple[float, float]]:
        """(meaning, taste), one a position."""
        return [
            (meaning.value, taste.value)
            for meaning, taste in zip(self.meaning, self.taste, strict=True)
        ]


@dataclass(frozen=True)
class TradeoffCurve:
    """All curves, on the same two metrics."""

    meaning_metric: str
    taste_metric: str
    curves: list[Curve]


def tradeoff_curve(figures: Sequence[Figure]) -> TradeoffCurve | None:
    """The front among all figures: section "tradeoff", the first metric is meaning and the second taste;
    None without one.

    Methods are positions, "0.00" to "1.00"; a position that lacks one of the two values is not on
    the curve.
    """
    of_front = [figure for figure in figures if figure.section == "tradeoff"]
    metrics = list(dict.fromkeys(figure.metric for figure in of_front))
    if len(metrics) < 2:
        return None
    curves = []
    for table in tables_of(of_front):
        values = [
            [table.cells.get((position, metric)) for metric in metrics[:2]]
            for position in table.methods
        ]
        points = [
            (position, meaning, taste)
            for position, (meaning, taste) in zip(table.methods, values, strict=True)
            if meaning is not None
            and taste is not None
            and not math.isnan(meaning.value)
            and not math.isnan(taste.value)
        ]
        points.sort(key=lambda point: float(point[0]))
        if points:
            names, meanings, tastes = (list(column) for column in zip(*points, strict=True))
            curves.append(Curve(table.task, names, meanings, tastes))
    return TradeoffCurve(metrics[0], metrics[1], curves) if curves else None


def draw_tradeoff(drawn: MplFigure, front: TradeoffCurve, is_simulated: bool) -> None:
    """All curves with their intervals as light crosses; better is right and up, whatever the
    metrics are.
    """
    axes = drawn.add_subplot()
    for curve, (colour, marker) in zip(front.curves, cycle(_STYLES), strict=False):
        _draw_curve(axes, curve, colour, marker)
    axes.margins(0.04)
    if not front.curves[0].meaning[0].higher_is_better:
        axes.invert_xaxis()
    if not front.curves[0].taste[0].higher_is_better:
        axes.invert_yaxis()
    for curve, (colour, _) in zip(front.curves, cycle(_STYLES), strict=False):
        others = [
            _on_paper(axes, point)
            for other in front.curves
            if other is not curve
            for point in other.points
        ]
        _label_positions(axes, curve, colour, others)
    _label_ends(axes, front)
    axes.set_xlabel(
        f"meaning: {strip_control_chars(display_metric(front.meaning_metric))}  (better to the right)"
    )
    whose = "taste of SIMULATED listeners" if is_simulated else "taste"
    axes.set_ylabel(f"{whose}\n{strip_control_chars(display_metric(front.taste_metric))}")
    axes.grid()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, borderaxespad=0.2)


def _draw_curve(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    for meaning, taste in zip(curve.meaning, curve.taste, strict=True):
        axes.plot(
            [meaning.low, meaning.high], [taste.value] * 2, color=colour, alpha=0.25, linewidth=0.8
        )
        axes.plot(
            [meaning.value] * 2, [taste.low, taste.high], color=colour, alpha=0.25, linewidth=0.8
        )
    x, y = zip(*curve.points, strict=True)
    name = WAYS.get(curve.task, strip_control_chars(curve.task))
    axes.plot(
        x,
        y,
        marker=marker,
        color=colour,
        linewidth=1.6,
        markersize=5,
        markeredgecolor=PAPER,
        label=name,
    )


def _label_positions(
    axes: Axes, curve: Curve, colour: str, others: Sequence[tuple[float, float]]
) -> None:
    """The position beside each point that is far enough from the last labelled one; the ends have
    names instead.

    others: where the points of other curves lie; labels stand on the side of the curve that is away
    from them.
    """
    places = [_on_paper(axes, point) for point in curve.points]
    normals = [_normal(places, number) for number in range(len(places))]
    outward = 0.0
    for place, normal in zip(places, normals, strict=True):
        nearest = min(others, key=partial(math.dist, place), default=place)
        outward += (place[0] - nearest[0]) * normal[0] + (place[1] - nearest[1]) * normal[1]
    away = math.copysign(LABEL_PT, outward)
    last = (math.inf, math.inf)
    for position, at, place, normal in zip(
        curve.positions, curve.points, places, normals, strict=True
    ):
        if float(position) in _ENDS or math.dist(place, last) < APART_PT:
            continue
        last = place
        offset = (away * normal[0], away * normal[1])
        label = f"{float(position):g}"
        axes.annotate(
            label,
            at,
            offset,
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color=colour,
        )


def _normal(places: Sequence[tuple[float, float]], number: int) -> tuple[float, float]:
    """Unit length, at right angles to the way from the point before to the point after; upward
    where they coincide.
    """
    before, after = places[max(0, number - 1)], places[min(len(places) - 1, number + 1)]
    length = math.dist(before, after)
    return (
        ((after[1] - before[1]) / length, (before[0] - after[0]) / length) if length else (0.0, 1.0)
    )


def _label_ends(axes: Axes, front: TradeoffCurve) -> None:
    """The names of the ends, once where curves share them, on the side away from the curves."""
    places = [_on_paper(axes, point) for curve in front.curves for point in curve.points]
    middle = sum(x for x, _ in places) / len(places)
    found = dict.fromkeys(
        (_ENDS[float(position)], point)
        for curve in front.curves
        for position, point in zip(curve.positions, curve.points, strict=True)
        if float(position) in _ENDS
    )
    for name, point in found:
        side = 1 if _on_paper(axes, point)[0] > middle else -1
        axes.plot(
            *point,
            "o",
            markersize=11,
            markerfacecolor="none",
            markeredgecolor=MUTED,
            markeredgewidth=1.0,
        )
        axes.annotate(
            display_name(name),
            point,
            (9 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            weight="bold",
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
        )


def _on_paper(axes: Axes, point: tuple[float, float]) -> tuple[float, float]:
    """About where a point comes to lie, in points; the layout is made later, so the size of the
    axes is a guess.
    """
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    width, height = 0.8 * WIDTH_IN * 72, 0.75 * HEIGHT_IN * 72
    return (point[0] - left) / (right - left) * width, (point[1] - bottom) / (top - bottom) * height


CHANGES, TRADEOFF = "changes", "tradeoff"
_EMPHASIS: dict[str, Emphasis] = {STAGE_TWO: "first", STAGE_ONE: "second"}


@dataclass(frozen=True)
class Plot:
    """name: of its files, without suffix; label: what it shows, in words."""

    name: str
    label: str
    drawing: Drawing


@dataclass(frozen=True)
class Plots:
    """changes, front: None where there is nothing to show; tasks: by (section, task)."""

    changes: Plot | None
    tasks: dict[tuple[Section, str], Plot]
    front: Plot | None

    @property
    def all(self) -> list[Plot]:
        """Every plot that there is."""
        return [
            plot for plot in (self.changes, *self.tasks.values(), self.front) if plot is not None
        ]


def plots_of(summary: Summary) -> Plots:
    """Draws all plots of a summary; about a quarter of a second each."""
    tables = [
        table
        for table in tables_of(summary.figures)
        if table.record is not None and table.section != "tradeoff"
    ]
    tables = [table for table in tables if _values(table)]
    slugs = distinct_slugs(
        [f"{table.section} {table.task}" for table in tables], taken=(CHANGES, TRADEOFF)
    )
    tasks = {
        (table.section, table.task): _task(table, slug)
        for table, slug in zip(tables, slugs, strict=True)
    }
    return Plots(_changes(summary), tasks, _front(summary))


def changes_of_record(summary: Summary) -> list[Difference]:
    """Stage two minus stage one in every metric of record that both have, meaning first."""
    of_record = {
        (figure.section, figure.task, figure.metric)
        for figure in summary.figures
        if figure.of_record
    }
    found = [
        difference
        for difference in summary.differences
        if (difference.method, difference.against) == (STAGE_TWO, STAGE_ONE)
        and (difference.section, difference.task, difference.metric) in of_record
        and not isnan(difference.value)
    ]
    return sorted(found, key=lambda difference: difference.section != "semantic")


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
    label = strip_control_chars(f"{display_name(difference.task)}: {difference.metric}")
    is_open = said not in emphasis
    return Dot(
        label, difference.value, difference.low, difference.high, emphasis.get(said, ""), is_open
    )


def _task(table: Table, slug: str) -> Plot:
    figures = sorted(_values(table), key=lambda figure: figure.value, reverse=figures_rise(table))
    dots = [
        Dot(display_name(f.method), f.value, f.low, f.high, _EMPHASIS.get(f.method, ""))
        for f in figures
    ]
    chance = [figure.value for figure in figures if figure.method == RANDOM]
    direction = "higher" if figures_rise(table) else "lower"
    caption = f"{strip_control_chars(table.record or '')} on {strip_control_chars(display_task(table))} ({direction} is better)"
    label = f"{caption}, {len(dots)} methods with their intervals; the numbers are in the table."
    return Plot(slug, label, _drawn(dots, caption, chance[0] if chance else None, slug, label))


def figures_rise(table: Table) -> bool:
    """Whether more is better in the metric of record."""
    return table.column(table.record or "")[0].higher_is_better


def _values(table: Table) -> list[Figure]:
    return [figure for figure in table.column(table.record or "") if not isnan(figure.value)]


def _drawn(
    dots: Sequence[Dot], caption: str, reference: float | None, prefix: str, label: str
) -> Drawing:
    draw = partial(draw_dots, dots=dots, caption=caption, reference=reference)
    return render(draw, dots_height(dots, caption), prefix, label)


def _front(summary: Summary) -> Plot | None:
    front = tradeoff_curve(summary.figures)
    if front is None:
        return None
    metrics = [display_metric(front.taste_metric), display_metric(front.meaning_metric)]
    label = f"{strip_control_chars(' against '.join(metrics))} between stage one and stage two."
    draw = partial(draw_tradeoff, front=front, is_simulated=summary.about.is_simulated)
    return Plot(TRADEOFF, label, render(draw, HEIGHT_IN, TRADEOFF, label))
