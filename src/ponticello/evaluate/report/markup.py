"""The few HTML elements the page is made of. Whatever comes from data passes through `text`."""

import html
from collections.abc import Iterable, Sequence

from ponticello.evaluate.report.words import clean


def text(content: str) -> str:
    """Text from data as HTML that shows it as it is, in elements and in quoted attributes.

    >>> text("<b>")
    '&lt;b&gt;'
    """
    return html.escape(clean(content), quote=True)


def unseen(content: str) -> str:
    """Words for who hears the page, not for who sees it."""
    return f'<span class="unseen">{content}</span>'


def section(anchor: str, title: str, body: Iterable[str]) -> list[str]:
    """A part of the page; `title` is HTML. Nothing if the body is empty."""
    lines = list(body)
    if not lines:
        return []
    start = f'<section id="{anchor}" aria-labelledby="{anchor}-title">'
    return [start, f'<h2 id="{anchor}-title">{title}</h2>', *lines, "</section>"]


def scrolling_table(caption: str, header: Sequence[str], rows: Iterable[str], label: str) -> list[str]:
    """A table in a box of its own, which scrolls when it is wider than the page.

    caption and header cells are HTML, rows are whole `<tr>`; label: text, names the box for who tabs into it.
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
    return [f"<details{' open' if is_open else ''}><summary>{summary}</summary>", *body, "</details>"]


def definitions(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Names and what they stand for, both HTML."""
    return ["<dl>", *(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in rows), "</dl>"]


def sentences(found: Sequence[str], kind: str) -> list[str]:
    """A list of sentences from data."""
    return [f'<ul class="{kind}">', *(f"<li>{text(sentence)}</li>" for sentence in found), "</ul>"] if found else []
