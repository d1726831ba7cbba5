"""A drawing as SVG and PNG bytes, the same bytes for the same drawing, and as SVG that takes a page's colours.

Drawings are as wide as one column of a paper or a phone. Text stays text in the SVG; the one font is matplotlib's own.
matplotlib is imported by the report only, without pyplot and its global state.
"""

import io
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from xml.sax.saxutils import quoteattr

import defusedxml.ElementTree
import matplotlib
import matplotlib.style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

WIDTH_IN = 4.8
DPI = 200  # of the PNG
FONT_PT = 10.0
INK, MUTED, RULE, PAPER = "#1d2126", "#5c636b", "#d5d3cc", "#ffffff"
BLUE, ORANGE = "#0072b2", "#b8500c"  # told apart by colour-blind eyes, and by their shapes besides
_VARIABLES = {INK: "currentColor", MUTED: "muted", RULE: "rule", PAPER: "card", BLUE: "blue", ORANGE: "orange"}
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
    """svg stands alone, on white; inline_svg is for a page whose CSS says --muted, --rule, --card, --blue, --orange."""

    svg: bytes
    png: bytes
    inline_svg: str


def render(draw: Callable[[Figure], None], height_in: float, prefix: str, label: str) -> Drawing:
    """What `draw` puts on an empty figure, WIDTH_IN wide.

    prefix: begins every id of the inline SVG, so that several may stand on one page; label: read to who cannot see it.
    """
    with matplotlib.style.context("default"), matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # a box is drawn
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        svg, png = io.BytesIO(), io.BytesIO()
        empty = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(svg, format="svg", metadata=empty)
        figure.savefig(png, format="png", dpi=DPI, metadata={"Software": None})
    return Drawing(svg.getvalue(), png.getvalue(), _inline(svg.getvalue(), prefix, label))


def _inline(svg: bytes, prefix: str, label: str) -> str:
    """The SVG as an element of an HTML page: no header, no namespaces, its own ids, the page's colours and font."""
    root = defusedxml.ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}style", "}metadata")):  # its rules would hold for the whole page
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        found = {name.rpartition("}")[2]: value for name, value in element.attrib.items()}
        element.attrib.clear()
        element.attrib.update({name: _own(name, value, prefix) for name, value in found.items()})
    used = "".join(value for element in root.iter() for name, value in element.attrib.items() if name != "id")
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
        value = value.replace(colour, variable if variable == "currentColor" else f"var(--{variable})")
    return value
