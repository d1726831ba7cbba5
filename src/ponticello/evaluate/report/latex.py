"""The metrics of record as LaTeX tables, one a side; the document needs \\usepackage{booktabs}."""

import textwrap

from ponticello.evaluate.report.tables import (
    SECTION_NAMES,
    SIMULATED,
    Table,
    background,
    display_metric,
    display_name,
    display_task,
    format_count,
    interval,
    number,
    rank_methods,
    spread,
    strip_control_chars,
    tables_of,
)
from ponticello.evaluate.results import Figure, Section, Summary

# more with their intervals do not fit a page's width, nor 3 with spreads; the rest follows below
TASKS_ABREAST = 3
HEADING_WIDTH = 24  # characters a line of a column's heading
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': "{''}",
        "`": r"\textasciigrave{}",
        "[": "{[}",  # after a line's end it would begin a length
        "]": "{]}",
        "±": r"$\pm$",
        **{character: f"\\{character}" for character in "{}$&#_%"},
    }
)


def latex_text(text: str) -> str:
    """Text from data as LaTeX that prints it as it is.

    >>> latex_text("50 % of a_b")
    '50 \\\\% of a\\\\_b'
    """
    return strip_control_chars(text).translate(_ESCAPES)


def as_latex(summary: Summary) -> str:
    """One booktabs table for each of meaning and taste that has metrics of record; the best values
    are bold.
    """
    parts = [r"% \usepackage{booktabs}"]
    tables = [table for table in tables_of(summary.figures) if table.record is not None]
    sections: tuple[Section, ...] = ("semantic", "preference")
    for section in sections:
        of_section = [table for table in tables if table.section == section]
        if of_section:
            parts.append("\n".join(_float(section, of_section, summary)))
    return "\n\n".join(parts) + "\n"


def _float(section: Section, tables: list[Table], summary: Summary) -> list[str]:
    known = dict(background(summary.about))
    parts = [
        f"{SECTION_NAMES[section].capitalize()}, metrics of record, with 95 % bootstrap intervals over queries",
        f"{known['Library']}: {known['Data']}",
        f"{known['Held out'].rstrip('.')}; splits {known['Splits, SHA-256'][:12]}",
        known["Seeds"]
        + ("; ± is the standard deviation over seeds" if len(summary.about.seeds) > 1 else ""),
    ]
    if summary.about.is_simulated and section == "preference":
        parts.append(SIMULATED.rstrip("."))
    lines = [
        r"\begin{table*}",
        r"\centering",
        r"\footnotesize",
        f"\\caption{{{latex_text('. '.join(parts))}.}}",
    ]
    n_abreast = min(
        len(tables), TASKS_ABREAST if len(summary.about.seeds) < 2 else TASKS_ABREAST - 1
    )
    lines += [f"\\begin{{tabular}}{{p{{3.4cm}}{'r' * n_abreast}}}", r"\toprule"]
    for start in range(0, len(tables), n_abreast):
        lines += [r"\midrule"] if start else []
        lines += _panel(tables[start : start + n_abreast])
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table*}"]


def _panel(tables: list[Table]) -> list[str]:
    """A few tasks across and all their methods down."""
    columns = [
        [figure for figure in table.figures if figure.metric == table.record] for table in tables
    ]
    best = [rank_methods(column) for column in columns]
    found = [{figure.method: figure for figure in column} for column in columns]
    lines = ["method & " + " & ".join(_heading(table) for table in tables) + r" \\", r"\midrule"]
    for method in dict.fromkeys(method for table in tables for method in table.methods):
        cells = [
            _cell(figures[method], standing.get(method) == "best") if method in figures else "--"
            for figures, standing in zip(found, best, strict=True)
        ]
        lines.append(f"{latex_text(display_name(method))} & {' & '.join(cells)} " + r"\\")
    return lines


def _heading(table: Table) -> str:
    wrapped = textwrap.wrap(strip_control_chars(display_task(table)), HEADING_WIDTH) or [""]
    figures = [figure for figure in table.figures if figure.metric == table.record]
    lines = [
        *wrapped,
        f"{strip_control_chars(display_metric(table.record or ''))}, n = {format_count(figures)}",
    ]
    return r"\shortstack[r]{" + r" \\ ".join(latex_text(line) for line in lines) + "}"


def _cell(figure: Figure, is_best: bool) -> str:
    value = number(figure.value, figure.metric)
    if value == "-":
        return "--"
    value = value.replace("-", "$-$")
    rest = " ".join(part for part in (interval(figure), spread(figure)) if part)
    printed = latex_text(rest).replace("-", "$-$")
    return (rf"\textbf{{{value}}}" if is_best else value) + (
        rf" {{\scriptsize {printed}}}" if printed else ""
    )
