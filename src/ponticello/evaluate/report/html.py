"""The report as one page that needs nothing else: no network, no script; style and plots are in it.

The few HTML elements the page is made of. Whatever comes from data passes through `text`.

The page's parts about tasks: a plot where there is a metric of record, and the table of all its
figures.

The page's part about differences: stage two against stage one, then against every other method,
task by task.
"""

import html
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from math import isnan

from ponticello.evaluate.report.plots import Plot, Plots
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
    EvaluationInfo,
    Figure,
    Section,
    Summary,
)


def text(content: str) -> str:
    """Text from data as HTML that shows it as it is, in elements and in quoted attributes.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return html.escape(strip_control_chars(content), quote=True)


def visually_hidden(content: str) -> str:
    """Words for who hears the page, not for who sees it."""
    return f'<span class="unseen">{content}</span>'


def section(anchor: str, title: str, body: Iterable[str]) -> list[str]:
    """A part of the page; `title` is HTML. Nothing if the body is empty."""
    lines = list(body)
    if not lines:
        return []
    start = f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
    return [start, f'<h2 id="{anchor}-title">{title}</h2>', *lines, "</section>"]


def scrolling_table(
    caption: str, header: Sequence[str], rows: Iterable[str], label: str
) -> list[str]:
    """A table in a box of its own, which scrolls when it is wider than the page.

    caption and header cells are HTML, rows are whole `<tr>`; label: text, names the box for who
    tabs into it.
    """
    heads = "".join(f'<th scope="col">{cell}</th>' for cell in header)
    return [
        f'<div class="scroll" role="region" tabindex="0" aria-label="{text(label)}">',
        f"<table><caption><span>{caption}</span></caption>",
        f"<thead><tr>{heads}</tr></thead>",
        "<tbody>",
        *rows,
        "</tbody></table>",
        "</div>",
    ]


def row(name: str, cells: Iterable[str]) -> str:
    """A row: its name, HTML, and its cells, whole `<td>`."""
    return f'<tr><th scope="row">{name}</th>{"".join(cells)}</tr>'


def details(summary: str, body: Iterable[str], is_open: bool = False) -> list[str]:
    """A part that opens and closes without a script; `summary` is HTML."""
    return [
        f"<details{' open' if is_open else ''}><summary>{summary}</summary>",
        *body,
        "</details>",
    ]


def definitions(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names and what they stand for, both HTML."""
    return [
        "<dl>",
        *(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows),
        "</dl>",
    ]


def sentences(found: Sequence[str], kind: str) -> list[str]:
    """A list of sentences from data."""
    return (
        [f'<ul class="{kind}">', *(f"<li>{text(sentence)}</li>" for sentence in found), "</ul>"]
        if found
        else []
    )


_CLASSES = {STAGE_TWO: "two", STAGE_ONE: "one"}


def task_cards(tables: Sequence[Table], plots: Plots, n_open: int) -> Iterator[str]:
    """A card a task, in the order of `tables`; the tables of the first `n_open` stand open."""
    yield '<div class="cards">'
    anchors = distinct_slugs([f"task {table.section} {table.task}" for table in tables])
    for number_of, (table, anchor) in enumerate(zip(tables, anchors, strict=True)):
        plot = plots.tasks.get((table.section, table.task))
        yield f'<article class="card" id="{anchor}"><h3>{text(display_task(table))}</h3>'
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
    """Methods down, metrics across; marks what leads a column and what its interval does not set
    apart from that.
    """
    columns = {metric: table.column(metric) for metric in table.metrics}
    standing = {metric: rank_methods(column) for metric, column in columns.items()}
    rows = [
        row(
            _method(method),
            (
                _cell(table.cells.get((method, metric)), standing[metric].get(method, ""))
                for metric in table.metrics
            ),
        )
        for method in table.methods
    ]
    header = [
        first,
        *(_heading(table.metric_heading(metric), column) for metric, column in columns.items()),
    ]
    has_marks = any(standing.values())
    return scrolling_table(
        _caption(table, has_marks), header, rows, f"Table of {display_task(table)}"
    )


def _plot_caption(table: Table) -> str:
    column = table.column(table.record or "")
    absent = [display_name(figure.method) for figure in column if figure.value != figure.value]
    without = f" Not measured: {text(', '.join(absent))}." if absent else ""
    return (
        f"Lines are 95&nbsp;% intervals over {format_count(column)} queries; best first.{without}"
    )


def _caption(table: Table, has_marks: bool) -> str:
    parts = [f"{format_count(table.figures)} queries or rows."]
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
    name = text(display_name(method))
    return f'<span class="{kind}">{name}</span>' if kind else name


def _heading(metric: str, column: Sequence[Figure]) -> str:
    name = text(metric)
    if column and is_ranked(column):
        rises = column[0].higher_is_better
        words = visually_hidden(f", {'higher' if rises else 'lower'} is better")
        name += (
            f'<span class="arrow" aria-hidden="true">&nbsp;{"↑" if rises else "↓"}</span>{words}'
        )
    return name + (
        ' <span class="record">of record</span>'
        if any(figure.of_record for figure in column)
        else ""
    )


def _cell(figure: Figure | None, standing: Standing) -> str:
    value = "-" if figure is None else number(figure.value, figure.metric)
    if figure is None or value == "-":
        return f'<td><span aria-hidden="true">–</span>{visually_hidden("not measured")}</td>'
    marks = {
        "best": visually_hidden(", best value"),
        "level": visually_hidden(", interval overlaps the best"),
        "": "",
    }
    small = "".join(
        f"<small>{minus(part)}</small>" for part in (spread(figure), interval(figure)) if part
    )
    kind = f' class="{standing}"' if standing else ""
    return f"<td{kind}><span>{minus(value)}</span>{small}{marks[standing]}</td>"


def minus(shown: str) -> str:
    """A number as it is printed, with a true minus."""
    return shown.replace("-", "−")


def _count(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def of_section(tables: Sequence[Table], section: Section) -> list[Table]:
    """The tables of one section, in order."""
    return [table for table in tables if table.section == section]


_SIGNS = {"better": "▲", "worse": "▼"}


def difference_tables(differences: Sequence[Difference]) -> Iterator[str]:
    """The tables of all differences; above 0 is better for the method named first."""
    if not differences:
        return
    yield (
        "<p>Paired by query; above 0 is better. p is of a sign-flip test, Holm p is corrected for all tests of this "
        f"report. “Better” and “worse” need an interval without 0 and a Holm p below {SIGNIFICANT}; what was not "
        "tested says so.</p>"
    )
    between, rivals = [], dict[tuple[Section, str], list[Difference]]()
    for difference in differences:
        if (difference.method, difference.against) == (STAGE_TWO, STAGE_ONE):
            between.append(difference)
        else:
            rivals.setdefault((difference.section, difference.task), []).append(difference)
    tested = [difference for difference in between if not isnan(difference.p)]
    others = [difference for difference in between if isnan(difference.p)]
    if between:
        yield "<h3>Stage two minus stage one</h3>"
    if tested:
        yield from _table(
            "Metrics of record, which were tested.", tested, "Stage two minus stage one"
        )
    if others:
        body = _table("Without a test.", others, "Stage two minus stage one in other metrics")
        yield from details(f"Other metrics, not tested: {len(others)}", body)
    if rivals:
        yield "<h3>Against the other methods, in metrics of record</h3>"
    for (side, _), found in rivals.items():
        task = display_task(found[0])
        body = _table("One row a rival.", found, f"Differences on {task}", is_named_by_methods=True)
        yield from details(f"{text(f'{SECTION_NAMES[side]}: {task}')} {_tally(found)}", body)


def _table(
    caption: str, found: Sequence[Difference], label: str, is_named_by_methods: bool = False
) -> list[str]:
    """One row a difference, named by its task or by its two methods."""
    names = [
        f"{display_name(d.method)} minus {display_name(d.against)}"
        if is_named_by_methods
        else f"{SECTION_NAMES[d.section]}: {display_task(d)}"
        for d in found
    ]
    rows = (
        row(text(name), _cells(difference)) for name, difference in zip(names, found, strict=True)
    )
    first = "Methods" if is_named_by_methods else "Task"
    header = [
        first,
        "Metric",
        "Difference",
        "95&nbsp;% interval",
        "Queries",
        "p",
        "Holm p",
        "Verdict",
    ]
    return scrolling_table(caption, header, rows, label)


def _cells(difference: Difference) -> Iterator[str]:
    yield f"<td>{text(display_metric(difference.metric))}</td>"
    for cell in (number(difference.value, difference.metric), interval(difference) or "-"):
        yield f"<td>{minus(cell)}</td>"
    yield f"<td>{difference.n:,}</td>"
    for p in (difference.p, difference.p_holm):
        yield f"<td>{text(minus(format_p(p)))}</td>"
    said = verdict(difference)
    kind = f" {said}" if said in _SIGNS else ""
    sign = f'<span aria-hidden="true">{_SIGNS[said]}</span> ' if said in _SIGNS else ""
    yield f'<td class="verdict{kind}">{sign}{said}</td>'


def _tally(differences: Sequence[Difference]) -> str:
    """How many rivals are shown to be beaten, and how many are shown to be ahead."""
    said = [verdict(difference) for difference in differences]
    return (
        f'<span class="tally">better than {said.count("better")}, worse than {said.count("worse")} '
        f"of {len(said)}</span>"
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


def as_page(summary: Summary, plots: Plots) -> str:
    """Returns the page as HTML."""
    parts = dict(_parts(summary, plots))
    titles = {anchor: title for anchor, (title, body) in parts.items() if body}
    links = "".join(f'<li><a href="#{anchor}">{title}</a></li>' for anchor, title in titles.items())
    about = summary.about
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f"<title>{TITLE}: {text(about.library)}</title>",
        f"<style>{_stylesheet()}</style>",
        "</head>",
        "<body>",
        '<a class="skip" href="#claims">Skip to what is shown</a>',
        "<header>",
        f"<h1>{TITLE}</h1>",
        f'<p class="lead">{_lead(about)}</p>',
        *(
            [f'<p class="banner" role="note"><strong>{SIMULATED}</strong></p>']
            if about.is_simulated
            else []
        ),
        f'<nav aria-label="Contents"><ol>{links}</ol></nav>',
        "</header>",
        "<main>",
        *(line for anchor, (title, body) in parts.items() for line in section(anchor, title, body)),
        "</main>",
        f"<footer><p>Made by Ponticello {text(about.version)}.</p></footer>",
        "</body>",
        "</html>",
    ]
    return "\n".join(lines) + "\n"


def _parts(summary: Summary, plots: Plots) -> Iterator[tuple[str, tuple[str, list[str]]]]:
    """Anchor, title and lines of every part, in the order of the page."""
    tables = tables_of(summary.figures)
    listeners = " (SIMULATED listeners)" if summary.about.is_simulated else ""
    yield "claims", ("What is shown", _claims(summary, plots))
    yield (
        "semantic",
        (
            "Meaning",
            _side(
                of_section(tables, "semantic"),
                plots,
                "Does the space know what the music is about?",
            ),
        ),
    )
    taste = "Is the music found that listeners like?"
    yield "preference", (f"Taste{listeners}", _side(of_section(tables, "preference"), plots, taste))
    yield (
        "tradeoff",
        (f"Between meaning and taste{listeners}", _front(of_section(tables, "tradeoff"), plots)),
    )
    space_tables = of_section(tables, "integrity")
    space = "Numbers of the vectors as a whole. More is not always better."
    yield "integrity", ("Is the space whole?", _side(space_tables, plots, space, len(space_tables)))
    yield "differences", ("Differences", list(difference_tables(summary.differences)))
    yield "background", ("What is behind the numbers", _background(summary.about))
    yield "notes", ("Notes", sentences(summary.notes, "notes"))
    yield "files", ("Files", _files())


def _lead(about: EvaluationInfo) -> str:
    listeners = f"{about.n_listeners:,}{' SIMULATED' if about.is_simulated else ''} listeners"
    return f"{text(about.library)}: {about.n_tracks:,} tracks, {listeners}, {text(format_seeds(about))}."


def _claims(summary: Summary, plots: Plots) -> list[str]:
    said = sentences(summary.claims[:1], "claims verdict") or ["<p>Nothing is claimed.</p>"]
    if len(summary.claims) > 1:
        said += details(
            f"Task by task, {len(summary.claims) - 1} sentences",
            sentences(summary.claims[1:], "claims"),
        )
    if plots.changes is None:
        return said
    caption = "What stage two changed, in the metrics of record, with 95&nbsp;% intervals. Outlined: no change is shown."
    return [
        '<div class="glance">',
        *plot_figure(plots.changes, caption),
        "<div>",
        *said,
        "</div>",
        "</div>",
    ]


def _side(tables: Sequence[Table], plots: Plots, lead: str, n_open: int = 1) -> list[str]:
    return [f"<p>{lead}</p>", *task_cards(tables, plots, n_open)] if tables else []


def _front(tables: Sequence[Table], plots: Plots) -> list[str]:
    if plots.front is None:
        return []
    lines = [
        "<p>Positions between stage one (0) and stage two (1): better meaning is right, better taste is up.</p>"
    ]
    lines += plot_figure(plots.front, "Light crosses are 95&nbsp;% intervals.")
    for table in tables:
        lines += details(
            f"Numbers: {text(display_name(table.task))}", figures_table(table, "Position")
        )
    return lines


def _background(about: EvaluationInfo) -> list[str]:
    code = {"Command", "Splits, SHA-256"}
    rows = [
        (name, f"<code>{text(value)}</code>" if name in code else text(value))
        for name, value in background(about)
    ]
    runs = [
        (f"Run: {text(display_name(method))}", f"<code>{text(run)}</code>")
        for method, run in about.runs.items()
    ]
    return definitions(rows + runs)


def _files() -> list[str]:
    return definitions((f'<a href="{name}">{name}</a>', content) for name, content in FILES.items())


def _stylesheet() -> str:
    return files("ponticello.evaluate.report").joinpath("page.css").read_text(encoding="utf-8")
