"""The page's parts about tasks: a plot where there is a metric of record, and the table of all its figures."""

from collections.abc import Iterator, Sequence

from ponticello.evaluate.figures import STAGE_ONE, STAGE_TWO, Figure, Side
from ponticello.evaluate.report.markup import details, row, scrolling_table, text, unseen
from ponticello.evaluate.report.names import distinct_slugs
from ponticello.evaluate.report.plots import Plot, Plots
from ponticello.evaluate.report.tables import Standing, Table, is_ranked, standings
from ponticello.evaluate.report.words import interval, n_shown, number, spread

_CLASSES = {STAGE_TWO: "two", STAGE_ONE: "one"}


def task_cards(tables: Sequence[Table], plots: Plots, n_open: int) -> Iterator[str]:
    """A card a task, in the order of `tables`; the tables of the first `n_open` stand open."""
    yield '<div class="cards">'
    anchors = distinct_slugs([f"task {table.side} {table.task}" for table in tables])
    for number_of, (table, anchor) in enumerate(zip(tables, anchors, strict=True)):
        plot = plots.tasks.get((table.side, table.task))
        yield f'<article class="card" id="{anchor}"><h3>{text(table.task)}</h3>'
        if plot is not None:
            yield from plot_figure(plot, _plot_caption(table))
        size = f"{_count(table.methods, 'method')}, {_count(table.metrics, 'metric')}"
        yield from details(f"Numbers: {size}", figures_table(table), number_of < n_open)
        yield "</article>"
    yield "</div>"


def plot_figure(plot: Plot, caption: str) -> list[str]:
    """A plot with its caption, which is HTML, and with links to its files."""
    files = f'<a href="plots/{plot.name}.svg">SVG</a> <a href="plots/{plot.name}.png">PNG</a>'
    return [
        '<figure class="plot">',
        plot.drawing.inline_svg,
        f'<figcaption>{caption} <span class="files">{files}</span></figcaption>',
        "</figure>",
    ]


def figures_table(table: Table, first: str = "Method") -> list[str]:
    """Methods down, metrics across; marks what leads a column and what its interval does not set apart from that."""
    columns = {metric: table.column(metric) for metric in table.metrics}
    standing = {metric: standings(column) for metric, column in columns.items()}
    rows = [
        row(
            _method(method),
            (_cell(table.cells.get((method, metric)), standing[metric].get(method, "")) for metric in table.metrics),
        )
        for method in table.methods
    ]
    header = [first, *(_heading(metric, column) for metric, column in columns.items())]
    has_marks = any(standing.values())
    return scrolling_table(_caption(table, has_marks), header, rows, f"Table of {table.task}")


def _plot_caption(table: Table) -> str:
    column = table.column(table.record or "")
    absent = [figure.method for figure in column if figure.value != figure.value]
    without = f" Not measured: {text(', '.join(absent))}." if absent else ""
    return f"Lines are 95&nbsp;% intervals over {n_shown(column)} queries; best first.{without}"


def _caption(table: Table, has_marks: bool) -> str:
    parts = [f"{n_shown(table.figures)} queries or rows."]
    if any(interval(figure) for figure in table.figures):
        parts.append("In brackets: 95&nbsp;% interval.")
    if any(spread(figure) for figure in table.figures):
        parts.append("±: standard deviation over seeds.")
    if has_marks:
        parts.append(
            '<span class="best">Bold</span>: best value; <span class="level">shaded</span>: its interval overlaps that '
            "of the best, which is no test; see Differences."
        )
    return " ".join(parts)


def _method(method: str) -> str:
    kind = _CLASSES.get(method)
    return f'<span class="{kind}">{text(method)}</span>' if kind else text(method)


def _heading(metric: str, column: Sequence[Figure]) -> str:
    name = text(metric)
    if column and is_ranked(column):
        rises = column[0].higher_is_better
        words = unseen(f", {'higher' if rises else 'lower'} is better")
        name += f'<span class="arrow" aria-hidden="true">&nbsp;{"↑" if rises else "↓"}</span>{words}'
    return name + (' <span class="record">of record</span>' if any(figure.of_record for figure in column) else "")


def _cell(figure: Figure | None, standing: Standing) -> str:
    value = "-" if figure is None else number(figure.value, figure.metric)
    if figure is None or value == "-":
        return f'<td><span aria-hidden="true">–</span>{unseen("not measured")}</td>'
    marks = {"best": unseen(", best value"), "level": unseen(", interval overlaps the best"), "": ""}
    small = "".join(f"<small>{minus(part)}</small>" for part in (spread(figure), interval(figure)) if part)
    kind = f' class="{standing}"' if standing else ""
    return f"<td{kind}><span>{minus(value)}</span>{small}{marks[standing]}</td>"


def minus(shown: str) -> str:
    """A number as it is printed, with a true minus."""
    return shown.replace("-", "−")


def _count(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def of_side(tables: Sequence[Table], side: Side) -> list[Table]:
    """The tables of one side, in order."""
    return [table for table in tables if table.side == side]
