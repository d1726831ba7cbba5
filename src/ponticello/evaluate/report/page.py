"""The report as one page that needs nothing else: no network, no script; style and plots are in it."""

from collections.abc import Iterator, Sequence
from importlib.resources import files

from ponticello.evaluate.figures import About, Summary
from ponticello.evaluate.report.gaps import gap_tables
from ponticello.evaluate.report.markup import definitions, details, section, sentences, text
from ponticello.evaluate.report.plots import Plots
from ponticello.evaluate.report.tables import Table, tables_of
from ponticello.evaluate.report.tasks import figures_table, of_side, plot_figure, task_cards
from ponticello.evaluate.report.words import SIMULATED, background, seeds_shown

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
        *([f'<p class="banner" role="note"><strong>{SIMULATED}</strong></p>'] if about.is_simulated else []),
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
        "meaning",
        ("Meaning", _side(of_side(tables, "meaning"), plots, "Does the space know what the music is about?")),
    )
    taste = "Is the music found that listeners like?"
    yield "taste", (f"Taste{listeners}", _side(of_side(tables, "taste"), plots, taste))
    yield "front", (f"Between meaning and taste{listeners}", _front(of_side(tables, "front"), plots))
    space_tables = of_side(tables, "integrity")
    space = "Numbers of the vectors as a whole. More is not always better."
    yield "integrity", ("Is the space whole?", _side(space_tables, plots, space, len(space_tables)))
    yield "differences", ("Differences", list(gap_tables(summary.differences)))
    yield "background", ("What is behind the numbers", _background(summary.about))
    yield "notes", ("Notes", sentences(summary.notes, "notes"))
    yield "files", ("Files", _files())


def _lead(about: About) -> str:
    listeners = f"{about.n_listeners:,}{' SIMULATED' if about.is_simulated else ''} listeners"
    return f"{text(about.library)}: {about.n_tracks:,} tracks, {listeners}, {text(seeds_shown(about))}."


def _claims(summary: Summary, plots: Plots) -> list[str]:
    said = sentences(summary.claims[:1], "claims verdict") or ["<p>Nothing is claimed.</p>"]
    if len(summary.claims) > 1:
        said += details(f"Task by task, {len(summary.claims) - 1} sentences", sentences(summary.claims[1:], "claims"))
    if plots.changes is None:
        return said
    caption = (
        "What stage two changed, in the metrics of record, with 95&nbsp;% intervals. Outlined: no change is shown."
    )
    return ['<div class="glance">', *plot_figure(plots.changes, caption), "<div>", *said, "</div>", "</div>"]


def _side(tables: Sequence[Table], plots: Plots, lead: str, n_open: int = 1) -> list[str]:
    return [f"<p>{lead}</p>", *task_cards(tables, plots, n_open)] if tables else []


def _front(tables: Sequence[Table], plots: Plots) -> list[str]:
    if plots.front is None:
        return []
    lines = ["<p>Positions between stage one (0) and stage two (1): better meaning is right, better taste is up.</p>"]
    lines += plot_figure(plots.front, "Light crosses are 95&nbsp;% intervals.")
    for table in tables:
        lines += details(f"Numbers: {text(table.task)}", figures_table(table, "Position"))
    return lines


def _background(about: About) -> list[str]:
    code = {"Command", "Splits, SHA-256"}
    rows = [(name, f"<code>{text(value)}</code>" if name in code else text(value)) for name, value in background(about)]
    runs = [(f"Run: {text(method)}", f"<code>{text(run)}</code>") for method, run in about.runs.items()]
    return definitions(rows + runs)


def _files() -> list[str]:
    return definitions((f'<a href="{name}">{name}</a>', content) for name, content in FILES.items())


def _stylesheet() -> str:
    return files("ponticello.evaluate.report").joinpath("page.css").read_text(encoding="utf-8")
