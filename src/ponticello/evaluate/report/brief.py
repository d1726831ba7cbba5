"""What the terminal shows of a report: its first claim, and one table a side with each task's metric of record."""

from ponticello.evaluate.figures import Summary
from ponticello.evaluate.report.markdown import markdown_table
from ponticello.evaluate.report.tables import Table, tables_of
from ponticello.evaluate.report.words import NOT_MEASURED, SIMULATED, clean, shown, without_suffix

SIDES = ("meaning", "taste")


def as_brief(summary: Summary) -> str:
    """The joint claim, then methods down and tasks across; columns are padded to be read in a fixed-width font."""
    lines = [SIMULATED, ""] if summary.about.is_simulated else []
    lines += [clean(claim) for claim in summary.claims[:1]]
    for side in SIDES:
        tables = [table for table in tables_of(summary.figures) if table.side == side and table.record]
        if tables:
            lines += ["", f"{side}, value [95 % interval]", *_aligned(tables)]
    return "\n".join(lines)


def _aligned(tables: list[Table]) -> list[str]:
    methods = list(dict.fromkeys(method for table in tables for method in table.methods))
    rows = [["method", *(clean(f"{without_suffix(table.task)}: {table.record}") for table in tables)]]
    for method in methods:
        found = [table.cells.get((method, table.record or "")) for table in tables]
        rows.append([clean(method), *(NOT_MEASURED if figure is None else shown(figure) for figure in found)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return markdown_table(padded[0], padded[1:])
