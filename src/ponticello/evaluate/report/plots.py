"""The plots of a report: changes by stage two, one interval plot per task, and the trade-off.

Each plot is as wide as one column of a paper or a phone, and the same figures give the same bytes.
Text stays text in the SVG. matplotlib is used without pyplot and its global state.
"""

import io
import math
import textwrap
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite, isnan
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

import defusedxml.ElementTree
import matplotlib
import matplotlib.style
import numpy as np
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
BLUE, ORANGE = "#0072b2", "#b8500c"  # colour-blind readers can tell these apart
CSS_COLOURS = {
    INK: "currentColor",
    MUTED: "var(--muted)",
    RULE: "var(--rule)",
    PAPER: "var(--card)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
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

# Interval plots
ROW_IN = 0.33
FRAME_IN = 0.5  # of the axis and its label below the rows
LABEL_WIDTH = 24  # characters per line; longer names take a second line and are then cut
CAPTION_WIDTH = 52
Emphasis = Literal["first", "second", ""]
_MARKS = {"first": (BLUE, "D", 6.0), "second": (ORANGE, "s", 6.0), "": (MUTED, "o", 5.0)}
_METHOD_EMPHASIS: dict[str, Emphasis] = {STAGE_TWO: "first", STAGE_ONE: "second"}
_VERDICT_EMPHASIS: dict[str, Emphasis] = {"better": "first", "worse": "second"}

# The trade-off
TRADEOFF_HEIGHT_IN = 4.4
CURVE_NAMES = {"weights": "interpolating the weights", "blend": "blending the scores"}
MIN_LABEL_DISTANCE_PT = 15
LABEL_OFFSET_PT = 10
_CURVE_STYLES = ((BLUE, "D"), (ORANGE, "s"))
_END_NAMES = {0.0: STAGE_ONE, 1.0: STAGE_TWO}

CHANGES, TRADEOFF = "changes", "tradeoff"
Point = tuple[float, float]


@dataclass(frozen=True)
class Drawing:
    """svg is complete, on white; inline_svg takes its colours from a page's CSS variables."""

    svg: bytes
    png: bytes
    inline_svg: str


@dataclass(frozen=True)
class Plot:
    """name: of its files, without suffix; label: a description in words."""

    name: str
    label: str
    drawing: Drawing


@dataclass(frozen=True)
class Plots:
    """changes, front: None where there is no data for them; tasks: by (section, task)."""

    changes: Plot | None
    tasks: dict[tuple[Section, str], Plot]
    front: Plot | None

    @property
    def all(self) -> list[Plot]:
        """Every plot that exists."""
        plots = list(self.tasks.values())
        if self.changes is not None:
            plots.insert(0, self.changes)
        if self.front is not None:
            plots.append(self.front)
        return plots


@dataclass(frozen=True)
class Dot:
    """A row of an interval plot. low and high may be nan: no line. is_open: drawn as an outline."""

    label: str
    value: float
    low: float
    high: float
    emphasis: Emphasis = ""
    is_open: bool = False


@dataclass(frozen=True)
class Curve:
    """The values at each position between stage one and stage two, in order of position."""

    task: str
    positions: list[str]
    semantic: list[Figure]
    preference: list[Figure]

    @property
    def points(self) -> list[Point]:
        """(semantic, preference) at each position."""
        pairs = zip(self.semantic, self.preference, strict=True)
        return [(semantic.value, preference.value) for semantic, preference in pairs]


@dataclass(frozen=True)
class TradeoffCurve:
    """All curves, on the same two metrics."""

    semantic_metric: str
    preference_metric: str
    curves: list[Curve]


def plots_of(summary: Summary) -> Plots:
    """Draws all plots of a summary; about a quarter of a second each."""
    tables = []
    names = []
    for table in tables_of(summary.figures):
        if table.record is not None and table.section != "tradeoff" and _measured(table):
            tables.append(table)
            names.append(f"{table.section} {table.task}")
    tasks = {}
    for table, slug in zip(tables, distinct_slugs(names, (CHANGES, TRADEOFF)), strict=True):
        tasks[table.section, table.task] = _plot_task(table, slug)
    return Plots(_plot_changes(summary), tasks, _plot_tradeoff(summary))


def changes_of_record(summary: Summary) -> list[Difference]:
    """Returns stage two minus stage one in every metric of record, semantic tasks first."""
    of_record = set()
    for figure in summary.figures:
        if figure.of_record:
            of_record.add((figure.section, figure.task, figure.metric))
    changes = []
    for difference in summary.differences:
        if (difference.method, difference.against) != (STAGE_TWO, STAGE_ONE):
            continue
        key = (difference.section, difference.task, difference.metric)
        if key in of_record and not isnan(difference.value):
            changes.append(difference)
    return sorted(changes, key=lambda difference: difference.section != "semantic")


def figures_rise(table: Table) -> bool:
    """Returns whether a higher value of the metric of record is better."""
    return table.column(table.record or "")[0].higher_is_better


def _measured(table: Table) -> list[Figure]:
    return [figure for figure in table.column(table.record or "") if not isnan(figure.value)]


def _plot_changes(summary: Summary) -> Plot | None:
    differences = changes_of_record(summary)
    if not differences:
        return None
    dots = []
    for difference in differences:
        word = verdict(difference)
        name = strip_control_chars(f"{display_name(difference.task)}: {difference.metric}")
        emphasis = _VERDICT_EMPHASIS.get(word, "")
        is_open = word not in _VERDICT_EMPHASIS
        dots.append(Dot(name, difference.value, difference.low, difference.high, emphasis, is_open))
    mark = " Taste is that of SIMULATED listeners." if summary.about.is_simulated else ""
    caption = f"stage two minus stage one: right of 0 is better. Filled: significant.{mark}"
    label = f"Stage two minus stage one in {len(dots)} tasks; the numbers are under Differences."
    return Plot(CHANGES, label, _render_dots(dots, caption, 0.0, CHANGES, label))


def _plot_task(table: Table, slug: str) -> Plot:
    rises = figures_rise(table)
    dots = []
    chance = None
    for figure in sorted(_measured(table), key=lambda figure: figure.value, reverse=rises):
        emphasis = _METHOD_EMPHASIS.get(figure.method, "")
        name = display_name(figure.method)
        dots.append(Dot(name, figure.value, figure.low, figure.high, emphasis))
        if figure.method == RANDOM:
            chance = figure.value
    subject = strip_control_chars(f"{table.record} on {display_task(table)}")
    caption = f"{subject} ({'higher' if rises else 'lower'} is better)"
    label = f"{caption}, {len(dots)} methods with their intervals; the numbers are in the table."
    return Plot(slug, label, _render_dots(dots, caption, chance, slug, label))


def _plot_tradeoff(summary: Summary) -> Plot | None:
    tradeoff = tradeoff_curve(summary.figures)
    if tradeoff is None:
        return None
    metrics = f"{display_metric(tradeoff.preference_metric)} against "
    metrics += display_metric(tradeoff.semantic_metric)
    label = f"{strip_control_chars(metrics)} between stage one and stage two."
    draw = partial(draw_tradeoff, tradeoff=tradeoff, is_simulated=summary.about.is_simulated)
    return Plot(TRADEOFF, label, render(draw, TRADEOFF_HEIGHT_IN, TRADEOFF, label))


def _render_dots(
    dots: Sequence[Dot], caption: str, reference: float | None, prefix: str, label: str
) -> Drawing:
    draw = partial(draw_dots, dots=dots, caption=caption, reference=reference)
    return render(draw, dots_height(dots, caption), prefix, label)


def render(draw: Callable[[MplFigure], None], height_in: float, prefix: str, label: str) -> Drawing:
    """Returns the result of `draw` on an empty figure that is WIDTH_IN wide.

    prefix: begins every id of the inline SVG, since a page may hold several; label: the accessible
    name.
    """
    style = (matplotlib.style.context("default"), matplotlib.rc_context(_STYLE))
    with style[0], style[1], warnings.catch_warnings():
        # a character without a glyph is drawn as a box
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        figure = MplFigure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        svg = io.BytesIO()
        png = io.BytesIO()
        no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(svg, format="svg", metadata=no_metadata)
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return Drawing(svg.getvalue(), png.getvalue(), _inline(svg.getvalue(), prefix, label))


def _inline(svg: bytes, prefix: str, label: str) -> str:
    """Returns the SVG as an element of an HTML page, with the page's colours and font."""
    root = defusedxml.ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            # rules of a <style> would apply to the whole page
            if child.tag.endswith(("}style", "}metadata")):
                parent.remove(child)
    references = []
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        attributes = dict(element.attrib)
        element.attrib.clear()
        for qualified, value in attributes.items():
            name = qualified.rpartition("}")[2]
            element.attrib[name] = _page_value(name, value, prefix)
            if name != "id":
                references.append(element.attrib[name])
    used = "".join(references)
    for element in root.iter():
        if f"#{element.get('id', '')}" not in used:
            element.attrib.pop("id", None)
    inner = "".join(ET.tostring(child, encoding="unicode") for child in root)
    name = quoteattr(label)
    return f'<svg viewBox="{root.get("viewBox")}" role="img" aria-label={name}>{inner}</svg>'


def _page_value(name: str, value: str, prefix: str) -> str:
    """Returns an attribute's value with ids, colours and font of the page."""
    if name == "id":
        return f"{prefix}-{value}"
    if name == "href":
        return f"#{prefix}-{value.removeprefix('#')}"
    value = value.replace("url(#", f"url(#{prefix}-").replace("'DejaVu Sans'", "inherit")
    for colour, css_colour in CSS_COLOURS.items():
        value = value.replace(colour, css_colour)
    return value


def dots_height(dots: Sequence[Dot], caption: str) -> float:
    """Returns the height of a plot of `dots` in inches."""
    return FRAME_IN + ROW_IN * len(dots) + 0.16 * len(_wrapped(caption, CAPTION_WIDTH, 3))


def draw_dots(
    figure: MplFigure, dots: Sequence[Dot], caption: str, reference: float | None
) -> None:
    """Draws a row per dot from the top, with a mark at the value and a line over its interval.

    dots: with finite values; reference: a dotted line across all rows.
    """
    axes = figure.add_subplot()
    if reference is not None:
        axes.axvline(reference, color=MUTED, linewidth=1.0, linestyle=(0, (1, 2)))
    for row, dot in enumerate(dots):
        colour, marker, size = _MARKS[dot.emphasis]
        if isfinite(dot.low) and isfinite(dot.high):
            line: dict[str, Any] = {"color": colour, "linewidth": 1.8, "solid_capstyle": "butt"}
            axes.plot([dot.low, dot.high], [row, row], **line)
        style: dict[str, Any] = {"markersize": size, "markeredgewidth": 1.3}
        face = PAPER if dot.is_open else colour
        axes.plot(dot.value, row, marker, color=colour, markerfacecolor=face, **style)
    axes.set_ylim(len(dots) - 0.4, -0.6)
    labels = []
    for dot in dots:
        labels.append("\n".join(_wrapped(dot.label, LABEL_WIDTH, 2)))
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
    line = strip_control_chars(text)
    return textwrap.wrap(line, width, max_lines=max_lines, placeholder="…") or [""]


def tradeoff_curve(figures: Sequence[Figure]) -> TradeoffCurve | None:
    """Returns the trade-off among all figures of the section "tradeoff"; None if there is none.

    The first metric is semantic, the second preference. Methods are positions, "0.00" to "1.00"; a
    position that lacks one of the two values is not on the curve.
    """
    selected = [figure for figure in figures if figure.section == "tradeoff"]
    metrics = list(dict.fromkeys(figure.metric for figure in selected))
    if len(metrics) < 2:
        return None
    curves = []
    for table in tables_of(selected):
        curve = Curve(table.task, [], [], [])
        for position in sorted(table.methods, key=float):
            semantic = table.cells.get((position, metrics[0]))
            preference = table.cells.get((position, metrics[1]))
            if semantic is None or preference is None:
                continue
            if isnan(semantic.value) or isnan(preference.value):
                continue
            curve.positions.append(position)
            curve.semantic.append(semantic)
            curve.preference.append(preference)
        if curve.positions:
            curves.append(curve)
    return TradeoffCurve(metrics[0], metrics[1], curves) if curves else None


def draw_tradeoff(figure: MplFigure, tradeoff: TradeoffCurve, is_simulated: bool) -> None:
    """Draws all curves with their intervals as light crosses; better is right and up."""
    axes = figure.add_subplot()
    styles = [_CURVE_STYLES[i % len(_CURVE_STYLES)] for i in range(len(tradeoff.curves))]
    for curve, (colour, marker) in zip(tradeoff.curves, styles, strict=True):
        _draw_curve(axes, curve, colour, marker)
    axes.margins(0.04)
    if not tradeoff.curves[0].semantic[0].higher_is_better:
        axes.invert_xaxis()
    if not tradeoff.curves[0].preference[0].higher_is_better:
        axes.invert_yaxis()
    for curve, (colour, _) in zip(tradeoff.curves, styles, strict=True):
        other_points = []
        for other_curve in tradeoff.curves:
            if other_curve is not curve:
                other_points += _points_on_paper(axes, other_curve)
        _label_positions(axes, curve, colour, other_points)
    _label_ends(axes, tradeoff)
    semantic_metric = strip_control_chars(display_metric(tradeoff.semantic_metric))
    preference_metric = strip_control_chars(display_metric(tradeoff.preference_metric))
    axes.set_xlabel(f"meaning: {semantic_metric}  (better to the right)")
    listeners = "taste of SIMULATED listeners" if is_simulated else "taste"
    axes.set_ylabel(f"{listeners}\n{preference_metric}")
    axes.grid()
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, borderaxespad=0.2)


def _draw_curve(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    light: dict[str, Any] = {"color": colour, "alpha": 0.25, "linewidth": 0.8}
    for semantic, preference in zip(curve.semantic, curve.preference, strict=True):
        axes.plot([semantic.low, semantic.high], [preference.value] * 2, **light)
        axes.plot([semantic.value] * 2, [preference.low, preference.high], **light)
    points = np.array(curve.points)
    axes.plot(
        points[:, 0],
        points[:, 1],
        marker=marker,
        color=colour,
        linewidth=1.6,
        markersize=5,
        markeredgecolor=PAPER,
        label=CURVE_NAMES.get(curve.task, strip_control_chars(curve.task)),
    )


def _label_positions(axes: Axes, curve: Curve, colour: str, other_points: Sequence[Point]) -> None:
    """Writes the position beside each point that is far enough from the last labelled one.

    other_points: of the other curves; labels are on the side of the curve away from them.
    """
    points = _points_on_paper(axes, curve)
    normals = [_normal(points, row) for row in range(len(points))]
    outward = 0.0
    for point, normal in zip(points, normals, strict=True):
        nearest = min(other_points, key=partial(math.dist, point), default=point)
        outward += (point[0] - nearest[0]) * normal[0] + (point[1] - nearest[1]) * normal[1]
    distance = math.copysign(LABEL_OFFSET_PT, outward)
    last = (math.inf, math.inf)
    for row, position in enumerate(curve.positions):
        is_end = float(position) in _END_NAMES
        if is_end or math.dist(points[row], last) < MIN_LABEL_DISTANCE_PT:
            continue
        last = points[row]
        axes.annotate(
            f"{float(position):g}",
            curve.points[row],
            (distance * normals[row][0], distance * normals[row][1]),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            color=colour,
        )


def _normal(points: Sequence[Point], row: int) -> Point:
    """Returns the unit normal of the curve at a point; upward where its neighbours coincide."""
    before = points[max(0, row - 1)]
    after = points[min(len(points) - 1, row + 1)]
    length = math.dist(before, after)
    if length == 0:
        return (0.0, 1.0)
    return ((after[1] - before[1]) / length, (before[0] - after[0]) / length)


def _label_ends(axes: Axes, tradeoff: TradeoffCurve) -> None:
    """Writes the names of the ends, once where curves share them, away from the curves."""
    x_on_paper = []
    ends: dict[tuple[str, Point], None] = {}
    for curve in tradeoff.curves:
        for position, point in zip(curve.positions, curve.points, strict=True):
            x_on_paper.append(_on_paper(axes, point)[0])
            if float(position) in _END_NAMES:
                ends[_END_NAMES[float(position)], point] = None
    middle = sum(x_on_paper) / len(x_on_paper)
    ring: dict[str, Any] = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.0}
    for name, point in ends:
        is_right = _on_paper(axes, point)[0] > middle
        axes.plot(point[0], point[1], "o", markeredgecolor=MUTED, **ring)
        axes.annotate(
            display_name(name),
            point,
            (9 if is_right else -9, 0),
            textcoords="offset points",
            ha="left" if is_right else "right",
            va="center",
            weight="bold",
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
        )


def _points_on_paper(axes: Axes, curve: Curve) -> list[Point]:
    return [_on_paper(axes, point) for point in curve.points]


def _on_paper(axes: Axes, point: Point) -> Point:
    """Returns about where a point will be, in pt; the size of the axes is a guess, as the layout
    is computed later.
    """
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    x = (point[0] - left) / (right - left) * 0.8 * WIDTH_IN * 72
    y = (point[1] - bottom) / (top - bottom) * 0.75 * TRADEOFF_HEIGHT_IN * 72
    return (x, y)
