"""The metrics of record as LaTeX tables, one a side; the document needs \\usepackage{booktabs}."""

import textwrap
from math import isnan

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
    methods_of,
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
    """Escapes text from data, so that LaTeX prints it unchanged.

    >>> latex_text("50 % of a_b")
    '50 \\\\% of a\\\\_b'
    """
    return strip_control_chars(text).translate(_ESCAPES)


def as_latex(summary: Summary) -> str:
    """Returns one booktabs table per section with metrics of record; the best values are bold."""
    tables = tables_of(summary.figures)
    blocks = [r"% \usepackage{booktabs}"]
    sections: tuple[Section, ...] = ("semantic", "preference")
    for section in sections:
        selected = [table for table in tables if table.section == section and table.record]
        if selected:
            blocks.append("\n".join(_float(section, selected, summary)))
    return "\n\n".join(blocks) + "\n"


def _float(section: Section, tables: list[Table], summary: Summary) -> list[str]:
    has_spread = len(summary.about.seeds) > 1
    n_abreast = min(len(tables), TASKS_ABREAST - 1 if has_spread else TASKS_ABREAST)
    lines = [
        r"\begin{table*}",
        r"\centering",
        r"\footnotesize",
        f"\\caption{{{latex_text(_caption(section, summary))}}}",
        f"\\begin{{tabular}}{{p{{3.4cm}}{'r' * n_abreast}}}",
        r"\toprule",
    ]
    for start in range(0, len(tables), n_abreast):
        if start:
            lines.append(r"\midrule")
        lines += _panel(tables[start : start + n_abreast])
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table*}"]
    return lines


def _caption(section: Section, summary: Summary) -> str:
    facts = dict(background(summary.about))
    title = SECTION_NAMES[section].capitalize()
    sentences = [
        f"{title}, metrics of record, with 95 % bootstrap intervals over queries "
        "and over the artists of held-out tracks",
        f"{facts['Library']}: {facts['Data']}",
        f"{facts['Held out'].rstrip('.')}; splits {facts['Splits, SHA-256'][:12]}",
        facts["Seeds"],
    ]
    if len(summary.about.seeds) > 1:
        sentences[-1] += "; ± is the standard deviation over seeds"
    if summary.about.is_simulated and section == "preference":
        sentences.append(SIMULATED.rstrip("."))
    return ". ".join(sentences) + "."


def _panel(tables: list[Table]) -> list[str]:
    headings = " & ".join(map(_heading, tables))
    lines = [f"method & {headings} " + r"\\", r"\midrule"]
    standings = [rank_methods(table.record_column) for table in tables]
    for method in methods_of(tables):
        cells = [latex_text(display_name(method))]
        for table, standing in zip(tables, standings, strict=True):
            figure = table.cells.get((method, table.record or ""))
            cells.append(_cell(figure, standing.get(method) == "best"))
        lines.append(" & ".join(cells) + r" \\")
    return lines


def _heading(table: Table) -> str:
    lines = textwrap.wrap(strip_control_chars(display_task(table)), HEADING_WIDTH) or [""]
    metric = strip_control_chars(display_metric(table.record or ""))
    lines.append(f"{metric}, n = {format_count(table.record_column)}")
    return r"\shortstack[r]{" + r" \\ ".join(map(latex_text, lines)) + "}"


def _cell(figure: Figure | None, is_best: bool) -> str:
    if figure is None or isnan(figure.value):
        return "--"
    value = number(figure.value, figure.metric).replace("-", "$-$")
    if is_best:
        value = rf"\textbf{{{value}}}"
    details = " ".join(filter(None, (interval(figure), spread(figure))))
    if not details:
        return value
    return rf"{value} {{\scriptsize {latex_text(details).replace('-', '$-$')}}}"
