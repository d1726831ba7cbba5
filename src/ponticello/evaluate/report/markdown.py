"""The report as Markdown, for code hosts and for the terminal: escaped no more than needed."""

import re
from collections.abc import Iterable, Sequence

from ponticello.evaluate.figures import Summary
from ponticello.evaluate.report.tables import Table, tables_of
from ponticello.evaluate.report.words import SIMULATED, background, clean, n_shown, p_shown, shown, verdict

_SPECIAL = re.compile(
    r"[\\`*<>|$~]"  # escapes, code, emphasis, tags, cells, formulas, strokes
    r"|(?<!\w)_|_(?!\w)"  # emphasis; not inside a word
    r"|\](?=[(\[])|^\s*\["  # links, pictures and what they refer to; an interval stays as it is
    r"|&(?=#?\w+;)"
    r"|^\s*[#+=-](?=\s|[-=]|$)"
)


def markdown_text(text: str) -> str:
    """Text from data as one line of Markdown that shows it as it is.

    >>> markdown_text("a|b [x](y)")
    'a\\\\|b [x\\\\](y)'
    """
    return _SPECIAL.sub(lambda found: found[0][:-1] + "\\" + found[0][-1], clean(text))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table of cells that are Markdown already, as lines."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def as_markdown(summary: Summary) -> str:
    """Claims, one table a task, differences, what is behind the numbers, notes."""
    about = summary.about
    lines = ["# Meaning and taste", ""]
    if about.is_simulated:
        lines += [f"**{SIMULATED}**", ""]
    lines += _listed(summary.claims)
    for table in tables_of(summary.figures):
        lines += [f"## {table.side}: {markdown_text(table.task)}", "", *figures_table(table), ""]
        lines += [f"{n_shown(table.figures)} queries or rows; metric of record: {_record(table)}.", ""]
    lines += _differences(summary)
    lines += ["## What is behind the numbers", ""]
    rows = [*background(about), *((f"Run: {method}", run) for method, run in about.runs.items())]
    lines += [*markdown_table(["", ""], [[markdown_text(cell) for cell in row] for row in rows]), ""]
    if summary.notes:
        lines += ["## Notes", "", *_listed(summary.notes)]
    return "\n".join(lines).rstrip("\n") + "\n"


def figures_table(table: Table) -> list[str]:
    """Methods down, metrics across, each value with its interval."""
    header = ["method", *(markdown_text(metric) for metric in table.metrics)]
    rows = []
    for method in table.methods:
        found = [table.cells.get((method, metric)) for metric in table.metrics]
        rows.append([markdown_text(method), *("-" if figure is None else shown(figure) for figure in found)])
    return markdown_table(header, rows)


def _record(table: Table) -> str:
    return "none" if table.record is None else markdown_text(table.record)


def _listed(sentences: Sequence[str]) -> list[str]:
    return [*(f"- {markdown_text(sentence)}" for sentence in sentences), ""] if sentences else []


def _differences(summary: Summary) -> list[str]:
    """Above 0 is better. One table for all, so that Holm's correction can be read beside what it corrects."""
    if not summary.differences:
        return []
    header = ["side", "task", "metric", "", "difference", "p", "Holm p", "verdict"]
    rows = [
        [
            difference.side,
            markdown_text(difference.task),
            markdown_text(difference.metric),
            markdown_text(f"{difference.method} minus {difference.against}"),
            shown(difference),
            p_shown(difference.p),
            p_shown(difference.p_holm),
            verdict(difference),
        ]
        for difference in summary.differences
    ]
    return ["## Differences, paired by query (above 0 is better)", "", *markdown_table(header, rows), ""]
