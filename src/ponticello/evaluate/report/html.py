"""The report as one HTML page that needs no network and no script: page.html filled by Jinja.

Text from data passes through the filter `printable`, and Jinja escapes every value.
"""

from importlib.resources import files
from itertools import chain
from math import isnan

from ponticello.evaluate.report.plots import Plots
from ponticello.evaluate.report.tables import (
    Table,
    background,
    display_section_task,
    distinct_slugs,
    report_template,
    strip_control_chars,
    tables_of,
)
from ponticello.evaluate.results import (
    SIGNIFICANT,
    Difference,
    Section,
    Summary,
)

TITLE = "Meaning and taste"
FILES = {
    "evaluation.md": "claims and tables as text",
    "evaluation.json": "all of this page as data",
    "figures.csv": "every figure",
    "queries.parquet": "every score of every query",
    "tables.tex": "metrics of record for LaTeX",
    "model-card.md": "a card to publish with the model",
}
LEADS = {
    "semantic": "How well do the vectors describe the music?",
    "preference": "Does the ranking contain the music that listeners like? "
    "Where held-out tracks are ranked, the intervals are over their artists too.",
    "integrity": "Properties of the vectors as a whole. More is not always better.",
}


def as_page(summary: Summary, plots: Plots) -> str:
    """Returns the page as HTML."""
    sections: dict[Section, list[Table]] = {}
    for table in tables_of(summary.figures):
        sections.setdefault(table.section, []).append(table)
    tested = []
    untested = []
    rivals: dict[str, list[Difference]] = {}
    for difference in summary.differences:
        if not difference.is_of_stages:
            rivals.setdefault(display_section_task(difference), []).append(difference)
        elif isnan(difference.p):
            untested.append(difference)
        else:
            tested.append(difference)
    keys = [(table.section, table.task) for table in chain.from_iterable(sections.values())]
    anchors = distinct_slugs([f"task {section} {task}" for section, task in keys])
    stylesheet = files("ponticello.evaluate.report").joinpath("page.css")
    template = report_template("page.html", printable=strip_control_chars, minus=_minus)
    page = template.render(
        title=TITLE,
        stylesheet=stylesheet.read_text(encoding="utf-8"),
        summary=summary,
        about=summary.about,
        plots=plots,
        titles=_titles(summary, plots, sections),
        leads=LEADS,
        tables=sections,
        anchors=dict(zip(keys, anchors, strict=True)),
        tested=tested,
        untested=untested,
        rivals=rivals,
        background=background(summary.about),
        files=FILES,
        significant=SIGNIFICANT,
    )
    return page + "\n"


def _titles(summary: Summary, plots: Plots, sections: dict[Section, list[Table]]) -> dict[str, str]:
    """Returns {anchor: title} of the sections that have content, in the order of the page."""
    mark = " (SIMULATED listeners)" if summary.about.is_simulated else ""
    titles = (
        ("claims", "Claims", True),
        ("semantic", "Meaning", "semantic" in sections),
        ("preference", f"Taste{mark}", "preference" in sections),
        ("tradeoff", f"Between meaning and taste{mark}", plots.front is not None),
        ("integrity", "Is the space intact?", "integrity" in sections),
        ("differences", "Differences", bool(summary.differences)),
        ("background", "Data, splits and command", True),
        ("notes", "Notes", bool(summary.notes)),
        ("files", "Files", True),
    )
    return {anchor: title for anchor, title, has_content in titles if has_content}


def _minus(text: str) -> str:
    return text.replace("-", "\N{MINUS SIGN}")
