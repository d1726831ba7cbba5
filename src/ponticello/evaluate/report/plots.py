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
from itertools import chain
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
from scipy.spatial.distance import cdist

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
    SERVED,
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
_METHOD_EMPHASIS: dict[str, Emphasis] = {SERVED: "first", STAGE_TWO: "first", STAGE_ONE: "second"}
_VERDICT_EMPHASIS: dict[str, Emphasis] = {"better": "first", "worse": "second"}

# The trade-off
TRADEOFF_HEIGHT_IN = 4.4
CURVE_NAMES = {"weights": "interpolating the weights", "blend": "blending the scores"}
MIN_LABEL_DISTANCE_PT = 15
LABEL_OFFSET_PT = 10
_CURVE_STYLES = ((BLUE, "D"), (ORANGE, "s"))
_POSITION_STYLE: dict[str, Any] = {
    "textcoords": "offset points",
    "ha": "center",
    "va": "center",
    "fontsize": 8,
}
_END_NAMES = {0.0: STAGE_ONE, 1.0: STAGE_TWO}

CHANGES, TRADEOFF = "changes", "tradeoff"
Point = tuple[float, float]


@dataclass(frozen=True)
class Plot:
    """svg is complete, on white; inline_svg takes its colours from a page's CSS variables.

    name: of its files, without suffix.
    """

    name: str
    svg: bytes
    png: bytes
    inline_svg: str


@dataclass(frozen=True)
class Plots:
    """changes, front: None where there is no data for them; tasks: by (section, task)."""

    changes: Plot | None
    tasks: dict[tuple[Section, str], Plot]
    front: Plot | None

    @property
    def all(self) -> list[Plot]:
        """Every plot that exists."""
        return list(filter(None, chain([self.changes], self.tasks.values(), [self.front])))


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

    @property
    def semantic_name(self) -> str:
        """The semantic metric, as written in a report."""
        return strip_control_chars(display_metric(self.semantic[0].metric))

    @property
    def preference_name(self) -> str:
        """The preference metric, as written in a report."""
        return strip_control_chars(display_metric(self.preference[0].metric))


def plots_of(summary: Summary) -> Plots:
    """Draws all plots of a summary; about a quarter of a second each."""
    tables = []
    names = []
    for table in tables_of(summary.figures):
        n_measured = len(table.record_column) - len(table.unmeasured)
        if table.section != "tradeoff" and n_measured:
            tables.append(table)
            names.append(f"{table.section} {table.task}")
    tasks = {}
    for table, slug in zip(tables, distinct_slugs(names, (CHANGES, TRADEOFF)), strict=True):
        tasks[table.section, table.task] = _plot_task(table, slug)
    return Plots(_plot_changes(summary), tasks, _plot_tradeoff(summary))


def changes_of_record(summary: Summary) -> list[Difference]:
    """Returns stage two minus stage one in every metric of record, semantic tasks first."""
    of_record = {(table.section, table.task, table.record) for table in tables_of(summary.figures)}
    changes = []
    for difference in summary.differences:
        key = (difference.section, difference.task, difference.metric)
        if difference.is_of_stages and key in of_record and not isnan(difference.value):
            changes.append(difference)
    return sorted(changes, key=lambda difference: difference.section != "semantic")


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
    return _render_dots(dots, caption, 0.0, CHANGES, label)


def _plot_task(table: Table, slug: str) -> Plot:
    rises = table.record_rises
    measured = [figure for figure in table.record_column if not isnan(figure.value)]
    dots = []
    chance = None
    for figure in sorted(measured, key=lambda figure: figure.value, reverse=rises):
        emphasis = _METHOD_EMPHASIS.get(figure.method, "")
        name = display_name(figure.method)
        dots.append(Dot(name, figure.value, figure.low, figure.high, emphasis))
        if figure.method == RANDOM:
            chance = figure.value
    subject = strip_control_chars(f"{table.record} on {display_task(table)}")
    caption = f"{subject} ({'higher' if rises else 'lower'} is better)"
    label = f"{caption}, {len(dots)} methods with their intervals; the numbers are in the table."
    return _render_dots(dots, caption, chance, slug, label)


def _render_dots(
    dots: Sequence[Dot], caption: str, reference: float | None, name: str, label: str
) -> Plot:
    caption_lines = _wrapped(caption, CAPTION_WIDTH, 3)
    height_in = FRAME_IN + ROW_IN * len(dots) + 0.16 * len(caption_lines)
    return render(
        lambda figure: draw_dots(figure, dots, "\n".join(caption_lines), reference),
        height_in,
        name,
        label,
    )


def _plot_tradeoff(summary: Summary) -> Plot | None:
    curves = tradeoff_curves(summary.figures)
    if not curves:
        return None
    label = f"{curves[0].preference_name} against {curves[0].semantic_name} "
    label += "between stage one and stage two."
    draw = partial(draw_tradeoff, curves=curves, is_simulated=summary.about.is_simulated)
    return render(draw, TRADEOFF_HEIGHT_IN, TRADEOFF, label)


def render(draw: Callable[[MplFigure], None], height_in: float, name: str, label: str) -> Plot:
    """Returns the result of `draw` on an empty figure that is WIDTH_IN wide.

    name: begins every id of the inline SVG, since a page may hold several; label: the accessible
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
    return Plot(name, svg.getvalue(), png.getvalue(), _inline(svg.getvalue(), name, label))


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
    labels = ["\n".join(_wrapped(dot.label, LABEL_WIDTH, 2)) for dot in dots]
    axes.set_yticks(range(len(dots)), labels, linespacing=1.05)
    for text, dot in zip(axes.get_yticklabels(), dots, strict=True):
        text.set_color(_MARKS[dot.emphasis][0] if dot.emphasis else INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x")
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(axis="x", style="plain", useOffset=False)
    figure.supxlabel(caption, fontsize="medium")


def _wrapped(text: str, width: int, max_lines: int) -> list[str]:
    line = strip_control_chars(text)
    return textwrap.wrap(line, width, max_lines=max_lines, placeholder="…") or [""]


def tradeoff_curves(figures: Sequence[Figure]) -> list[Curve]:
    """Returns the curves among all figures, of the tasks of the section "tradeoff".

    The first metric is semantic, the second preference. Methods are positions, "0.00" to "1.00"; a
    position that lacks one of the two values is not on the curve.
    """
    selected = [figure for figure in figures if figure.section == "tradeoff"]
    metrics = list(dict.fromkeys(figure.metric for figure in selected))
    if len(metrics) < 2:
        return []
    curves = []
    for table in tables_of(selected):
        curve = Curve(table.task, [], [], [])
        for position in sorted(table.methods, key=float):
            semantic = table.cells.get((position, metrics[0]))
            preference = table.cells.get((position, metrics[1]))
            if semantic is None or preference is None:
                continue
            if isnan(semantic.value + preference.value):
                continue
            curve.positions.append(position)
            curve.semantic.append(semantic)
            curve.preference.append(preference)
        if curve.positions:
            curves.append(curve)
    return curves


def draw_tradeoff(figure: MplFigure, curves: Sequence[Curve], is_simulated: bool) -> None:
    """Draws all curves with their intervals as light crosses; better is right and up."""
    axes = figure.add_subplot()
    for curve, (colour, marker) in zip(curves, _CURVE_STYLES, strict=False):
        _draw_curve(axes, curve, colour, marker)
    axes.margins(0.04)
    if not curves[0].semantic[0].higher_is_better:
        axes.invert_xaxis()
    if not curves[0].preference[0].higher_is_better:
        axes.invert_yaxis()
    for curve, (colour, _) in zip(curves, _CURVE_STYLES, strict=False):
        other_points = []
        for other_curve in curves:
            if other_curve is not curve:
                other_points += other_curve.points
        _label_positions(axes, curve, colour, other_points)
    _label_ends(axes, curves)
    axes.set_xlabel(f"meaning: {curves[0].semantic_name}  (better to the right)")
    listeners = "taste of SIMULATED listeners" if is_simulated else "taste"
    axes.set_ylabel(f"{listeners}\n{curves[0].preference_name}")
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
    name = CURVE_NAMES.get(curve.task, strip_control_chars(curve.task))
    style: dict[str, Any] = {"linewidth": 1.6, "markersize": 5, "markeredgecolor": PAPER}
    axes.plot(points[:, 0], points[:, 1], marker=marker, color=colour, label=name, **style)


def _label_positions(axes: Axes, curve: Curve, colour: str, other_points: list[Point]) -> None:
    """Writes the position beside each point that is far enough from the last labelled one.

    other_points: of the other curves; labels are on the side of the curve away from them.
    """
    points = _on_paper(axes, curve.points)
    padded = np.pad(points, ((1, 1), (0, 0)), "edge")
    along = padded[2:] - padded[:-2]  # from the point before to the one after
    lengths = np.linalg.norm(along, axis=1, keepdims=True)
    upward = np.array([0.0, 1.0])  # where the two coincide
    turned = np.stack([along[:, 1], -along[:, 0]], axis=1)
    normals = np.where(lengths > 0, turned / np.maximum(lengths, 1e-12), upward)
    outward = 0.0
    if other_points:
        others = _on_paper(axes, other_points)
        nearest = others[cdist(points, others).argmin(axis=1)]
        outward = float(((points - nearest) * normals).sum())
    offsets = math.copysign(LABEL_OFFSET_PT, outward) * normals
    last = np.array([math.inf, math.inf])
    for row, position in enumerate(curve.positions):
        is_near = math.dist(points[row], last) < MIN_LABEL_DISTANCE_PT
        if float(position) in _END_NAMES or is_near:
            continue
        last = points[row]
        text = f"{float(position):g}"
        axes.annotate(text, curve.points[row], offsets[row], color=colour, **_POSITION_STYLE)


def _label_ends(axes: Axes, curves: Sequence[Curve]) -> None:
    """Writes the names of the ends, once where curves share them, away from the curves."""
    all_points = list(chain.from_iterable(curve.points for curve in curves))
    middle = _on_paper(axes, all_points)[:, 0].mean()
    ends: dict[tuple[str, Point], None] = {}
    for curve in curves:
        for position, point in zip(curve.positions, curve.points, strict=True):
            if float(position) in _END_NAMES:
                ends[_END_NAMES[float(position)], point] = None
    ring: dict[str, Any] = {"markersize": 11, "markerfacecolor": "none", "markeredgewidth": 1.0}
    style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "weight": "bold"}
    style["bbox"] = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    for name, point in ends:
        axes.plot(point[0], point[1], "o", markeredgecolor=MUTED, **ring)
        if _on_paper(axes, [point])[0, 0] > middle:
            axes.annotate(display_name(name), point, (9, 0), ha="left", **style)
        else:
            axes.annotate(display_name(name), point, (-9, 0), ha="right", **style)


def _on_paper(axes: Axes, points: Sequence[Point]) -> np.ndarray:
    """Returns (n, 2), about where points will be, in pt.

    The size of the axes is a guess, as the layout is computed later.
    """
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    size_pt = 72 * np.array([0.8 * WIDTH_IN, 0.75 * TRADEOFF_HEIGHT_IN])
    return np.asarray((points - np.array([left, bottom])) / [right - left, top - bottom] * size_pt)
