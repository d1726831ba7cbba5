"""The report as one HTML page that needs no network and no script: page.html filled by Jinja.

Text from data passes through the filter `printable`, and Jinja escapes every value.
"""

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import chain
from math import isnan

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from ponticello.evaluate.report.plots import Plots
from ponticello.evaluate.report.tables import (
    SECTION_NAMES,
    SIMULATED,
    Standing,
    Table,
    background,
    display_metric,
    display_name,
    display_task,
    distinct_slugs,
    format_count,
    format_p,
    format_seeds,
    interval,
    is_ranked,
    number,
    rank_methods,
    spread,
    strip_control_chars,
    tables_of,
    verdict,
)
from ponticello.evaluate.results import (
    SIGNIFICANT,
    STAGE_ONE,
    STAGE_TWO,
    Difference,
    Figure,
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
    "preference": "Does the ranking contain the music that listeners like?",
    "integrity": "Properties of the vectors as a whole. More is not always better.",
}


def as_page(summary: Summary, plots: Plots) -> str:
    """Returns the page as HTML."""
    sections: dict[Section, list[Table]] = {}
    for table in tables_of(summary.figures):
        sections.setdefault(table.section, []).append(table)
    tested, untested, rivals = group_differences(summary.differences)
    page = _template().render(
        title=TITLE,
        stylesheet=_read_stylesheet(),
        summary=summary,
        about=summary.about,
        plots=plots,
        titles=_titles(summary, plots, sections),
        leads=LEADS,
        tables=sections,
        anchors=_anchors(sections),
        tested=tested,
        untested=untested,
        rivals=rivals,
        background=background(summary.about),
        files=FILES,
    )
    return page + "\n"


def group_differences(
    differences: Sequence[Difference],
) -> tuple[list[Difference], list[Difference], dict[str, list[Difference]]]:
    """Returns stage two minus stage one, tested and untested, and the rivals of each task."""
    tested: list[Difference] = []
    untested: list[Difference] = []
    rivals: dict[str, list[Difference]] = {}
    for difference in differences:
        if (difference.method, difference.against) != (STAGE_TWO, STAGE_ONE):
            rivals.setdefault(_task_name(difference), []).append(difference)
        elif isnan(difference.p):
            untested.append(difference)
        else:
            tested.append(difference)
    return tested, untested, rivals


def _titles(summary: Summary, plots: Plots, sections: dict[Section, list[Table]]) -> dict[str, str]:
    """Returns {anchor: title} of the sections that have content, in the order of the page."""
    mark = " (SIMULATED listeners)" if summary.about.is_simulated else ""
    titles = {
        "claims": "Claims",
        "semantic": "Meaning",
        "preference": f"Taste{mark}",
        "tradeoff": f"Between meaning and taste{mark}",
        "integrity": "Is the space intact?",
        "differences": "Differences",
        "background": "Data, splits and command",
        "notes": "Notes",
        "files": "Files",
    }
    is_empty = {
        "semantic": "semantic" not in sections,
        "preference": "preference" not in sections,
        "tradeoff": plots.front is None,
        "integrity": "integrity" not in sections,
        "differences": not summary.differences,
        "notes": not summary.notes,
    }
    for anchor, is_left_out in is_empty.items():
        if is_left_out:
            del titles[anchor]
    return titles


def _anchors(sections: dict[Section, list[Table]]) -> dict[tuple[str, str], str]:
    """Returns a distinct anchor for each table, by (section, task)."""
    keys = []
    names = []
    for table in chain.from_iterable(sections.values()):
        keys.append((table.section, table.task))
        names.append(f"task {table.section} {table.task}")
    return dict(zip(keys, distinct_slugs(names), strict=True))


def _task_name(difference: Difference) -> str:
    return f"{SECTION_NAMES[difference.section]}: {display_task(difference)}"


def _difference_name(difference: Difference, heading: str) -> str:
    """Returns the name of a row: its two methods under "Methods", else its task."""
    if heading == "Methods":
        return f"{display_name(difference.method)} minus {display_name(difference.against)}"
    return _task_name(difference)


def _standings(table: Table) -> dict[str, dict[str, Standing]]:
    return {metric: rank_methods(table.column(metric)) for metric in table.metrics}


def _methods_without_value(table: Table) -> list[str]:
    column = table.column(table.record or "")
    return [display_name(figure.method) for figure in column if isnan(figure.value)]


def _has_intervals(figures: Sequence[Figure]) -> bool:
    return any(map(interval, figures))


def _has_spreads(figures: Sequence[Figure]) -> bool:
    return any(map(spread, figures))


def _count_verdicts(differences: Sequence[Difference], word: str) -> int:
    return sum(verdict(difference) == word for difference in differences)


def _count_of(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _minus(text: str) -> str:
    """Returns a printed number with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("ponticello.evaluate", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters.update(printable=strip_control_chars, minus=_minus, count_of=_count_of)
    environment.globals.update(
        display_name=display_name,
        display_task=display_task,
        display_metric=display_metric,
        difference_name=_difference_name,
        format_count=format_count,
        format_p=format_p,
        format_seeds=format_seeds,
        has_intervals=_has_intervals,
        has_spreads=_has_spreads,
        interval=interval,
        is_ranked=is_ranked,
        methods_without_value=_methods_without_value,
        number=number,
        spread=spread,
        standings=_standings,
        verdict=verdict,
        count_verdicts=_count_verdicts,
        method_classes={STAGE_TWO: "two", STAGE_ONE: "one"},
        code_names=("Command", "Splits, SHA-256"),
        signs={"better": "▲", "worse": "▼"},
        significant=SIGNIFICANT,
        simulated=SIMULATED,
    )
    return environment.get_template("page.html")


def _read_stylesheet() -> str:
    return files("ponticello.evaluate.report").joinpath("page.css").read_text(encoding="utf-8")
