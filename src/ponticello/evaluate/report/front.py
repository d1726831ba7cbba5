"""The front: what meaning and taste become on the way from stage one (0) to stage two (1), one curve a way."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure as MplFigure
from matplotlib.ticker import MaxNLocator

from ponticello.evaluate.figures import STAGE_ONE, STAGE_TWO, Figure
from ponticello.evaluate.report.canvas import BLUE, MUTED, ORANGE, PAPER, WIDTH_IN
from ponticello.evaluate.report.tables import tables_of
from ponticello.evaluate.report.words import clean, without_suffix

HEIGHT_IN = 4.4
WAYS = {"weights": "between the weights", "dial": "by the dial, between the vectors"}
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
        return [(meaning.value, taste.value) for meaning, taste in zip(self.meaning, self.taste, strict=True)]


@dataclass(frozen=True)
class Front:
    """All curves, on the same two metrics."""

    meaning_metric: str
    taste_metric: str
    curves: list[Curve]


def front_of(figures: Sequence[Figure]) -> Front | None:
    """The front among all figures: side "front", the first metric is meaning and the second taste; None without one.

    Methods are positions, "0.00" to "1.00"; a position that lacks one of the two values is not on the curve.
    """
    of_front = [figure for figure in figures if figure.side == "front"]
    metrics = list(dict.fromkeys(figure.metric for figure in of_front))
    if len(metrics) < 2:
        return None
    curves = []
    for table in tables_of(of_front):
        values = [[table.cells.get((position, metric)) for metric in metrics[:2]] for position in table.methods]
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
    return Front(metrics[0], metrics[1], curves) if curves else None


def draw_front(drawn: MplFigure, front: Front, is_simulated: bool) -> None:
    """All curves with their intervals as light crosses; better is right and up, whatever the metrics are."""
    axes = drawn.add_subplot()
    for curve, (colour, marker) in zip(front.curves, cycle(_STYLES), strict=False):
        _draw_curve(axes, curve, colour, marker)
    axes.margins(0.04)
    if not front.curves[0].meaning[0].higher_is_better:
        axes.invert_xaxis()
    if not front.curves[0].taste[0].higher_is_better:
        axes.invert_yaxis()
    for curve, (colour, _) in zip(front.curves, cycle(_STYLES), strict=False):
        others = [_on_paper(axes, point) for other in front.curves if other is not curve for point in other.points]
        _label_positions(axes, curve, colour, others)
    _label_ends(axes, front)
    axes.set_xlabel(f"meaning: {clean(front.meaning_metric)}  (better to the right)")
    whose = "taste of SIMULATED listeners" if is_simulated else "taste"
    axes.set_ylabel(f"{whose}\n{clean(without_suffix(front.taste_metric))}")
    axes.grid()
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), frameon=False, borderaxespad=0.2)


def _draw_curve(axes: Axes, curve: Curve, colour: str, marker: str) -> None:
    for meaning, taste in zip(curve.meaning, curve.taste, strict=True):
        axes.plot([meaning.low, meaning.high], [taste.value] * 2, color=colour, alpha=0.25, linewidth=0.8)
        axes.plot([meaning.value] * 2, [taste.low, taste.high], color=colour, alpha=0.25, linewidth=0.8)
    x, y = zip(*curve.points, strict=True)
    name = WAYS.get(curve.task, clean(curve.task))
    axes.plot(x, y, marker=marker, color=colour, linewidth=1.6, markersize=5, markeredgecolor=PAPER, label=name)


def _label_positions(axes: Axes, curve: Curve, colour: str, others: Sequence[tuple[float, float]]) -> None:
    """The position beside each point that is far enough from the last labelled one; the ends have names instead.

    others: where the points of other curves lie; labels stand on the side of the curve that is away from them.
    """
    places = [_on_paper(axes, point) for point in curve.points]
    normals = [_normal(places, number) for number in range(len(places))]
    outward = 0.0
    for place, normal in zip(places, normals, strict=True):
        nearest = min(others, key=partial(math.dist, place), default=place)
        outward += (place[0] - nearest[0]) * normal[0] + (place[1] - nearest[1]) * normal[1]
    away = math.copysign(LABEL_PT, outward)
    last = (math.inf, math.inf)
    for position, at, place, normal in zip(curve.positions, curve.points, places, normals, strict=True):
        if float(position) in _ENDS or math.dist(place, last) < APART_PT:
            continue
        last = place
        offset = (away * normal[0], away * normal[1])
        label = f"{float(position):g}"
        axes.annotate(label, at, offset, textcoords="offset points", ha="center", va="center", fontsize=8, color=colour)


def _normal(places: Sequence[tuple[float, float]], number: int) -> tuple[float, float]:
    """Unit length, at right angles to the way from the point before to the point after; upward where they coincide."""
    before, after = places[max(0, number - 1)], places[min(len(places) - 1, number + 1)]
    length = math.dist(before, after)
    return ((after[1] - before[1]) / length, (before[0] - after[0]) / length) if length else (0.0, 1.0)


def _label_ends(axes: Axes, front: Front) -> None:
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
        axes.plot(*point, "o", markersize=11, markerfacecolor="none", markeredgecolor=MUTED, markeredgewidth=1.0)
        axes.annotate(
            name,
            point,
            (9 * side, 0),
            textcoords="offset points",
            ha="left" if side > 0 else "right",
            va="center",
            weight="bold",
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.8, "pad": 1.0},
        )


def _on_paper(axes: Axes, point: tuple[float, float]) -> tuple[float, float]:
    """About where a point comes to lie, in points; the layout is made later, so the size of the axes is a guess."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    width, height = 0.8 * WIDTH_IN * 72, 0.75 * HEIGHT_IN * 72
    return (point[0] - left) / (right - left) * width, (point[1] - bottom) / (top - bottom) * height
