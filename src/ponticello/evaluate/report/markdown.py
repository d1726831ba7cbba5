"""The model card: YAML for a model hub above, prose for people below.

Source: the front matter follows Hugging Face's model card metadata (`library_name`, `tags`,
`metrics`, `model-index`).

The report as Markdown, for code hosts and for the terminal: escaped no more than needed.

What the terminal shows of a report: its first claim, and one table a side with each task's metric
of record.
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from ponticello.evaluate.report.tables import (
    NOT_MEASURED,
    SECTION_NAMES,
    SIMULATED,
    Table,
    background,
    display_metric,
    display_name,
    display_task,
    format_count,
    format_p,
    format_value,
    strip_control_chars,
    tables_of,
    verdict,
)
from ponticello.evaluate.results import STAGE_ONE, STAGE_TWO, Figure, Section, Summary

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
    return _SPECIAL.sub(
        lambda found: found[0][:-1] + "\\" + found[0][-1], strip_control_chars(text)
    )


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
        title = f"{SECTION_NAMES[table.section]}: {markdown_text(display_task(table))}"
        lines += [f"## {title}", "", *figures_table(table), ""]
        lines += [
            f"{format_count(table.figures)} queries or rows; metric of record: {_record(table)}.",
            "",
        ]
    lines += _differences(summary)
    lines += ["## What is behind the numbers", ""]
    rows = [
        *background(about),
        *((f"Run: {display_name(method)}", run) for method, run in about.runs.items()),
    ]
    lines += [
        *markdown_table(["", ""], [[markdown_text(cell) for cell in row] for row in rows]),
        "",
    ]
    if summary.notes:
        lines += ["## Notes", "", *_listed(summary.notes)]
    return "\n".join(lines).rstrip("\n") + "\n"


def figures_table(table: Table) -> list[str]:
    """Methods down, metrics across, each value with its interval."""
    header = ["method", *(markdown_text(table.metric_heading(metric)) for metric in table.metrics)]
    rows = []
    for method in table.methods:
        found = [table.cells.get((method, metric)) for metric in table.metrics]
        rows.append(
            [
                markdown_text(display_name(method)),
                *("-" if figure is None else format_value(figure) for figure in found),
            ]
        )
    return markdown_table(header, rows)


def _record(table: Table) -> str:
    return "none" if table.record is None else markdown_text(display_metric(table.record))


def _listed(sentences: Sequence[str]) -> list[str]:
    return [*(f"- {markdown_text(sentence)}" for sentence in sentences), ""] if sentences else []


def _differences(summary: Summary) -> list[str]:
    """Above 0 is better. One table for all, so that Holm's correction can be read beside what it
    corrects.
    """
    if not summary.differences:
        return []
    header = ["side", "task", "metric", "", "difference", "p", "Holm p", "verdict"]
    rows = [
        [
            SECTION_NAMES[difference.section],
            markdown_text(display_task(difference)),
            markdown_text(display_metric(difference.metric)),
            markdown_text(
                f"{display_name(difference.method)} minus {display_name(difference.against)}"
            ),
            format_value(difference),
            format_p(difference.p),
            format_p(difference.p_holm),
            verdict(difference),
        ]
        for difference in summary.differences
    ]
    return [
        "## Differences, paired by query (above 0 is better)",
        "",
        *markdown_table(header, rows),
        "",
    ]


SECTIONS: tuple[Section, ...] = ("semantic", "preference")


def terminal_summary(summary: Summary) -> str:
    """The joint claim, then methods down and tasks across; columns are padded to be read in a
    fixed-width font.
    """
    lines = [SIMULATED, ""] if summary.about.is_simulated else []
    lines += [strip_control_chars(claim) for claim in summary.claims[:1]]
    for section in SECTIONS:
        tables = [
            table
            for table in tables_of(summary.figures)
            if table.section == section and table.record
        ]
        if tables:
            lines += ["", f"{SECTION_NAMES[section]}, value [95 % interval]", *_aligned(tables)]
    return "\n".join(lines)


def _aligned(tables: list[Table]) -> list[str]:
    methods = list(dict.fromkeys(method for table in tables for method in table.methods))
    rows = [
        [
            "method",
            *(
                strip_control_chars(f"{display_name(table.task)}: {table.record}")
                for table in tables
            ),
        ]
    ]
    for method in methods:
        found = [table.cells.get((method, table.record or "")) for table in tables]
        rows.append(
            [
                strip_control_chars(display_name(method)),
                *(NOT_MEASURED if figure is None else format_value(figure) for figure in found),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    padded = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows]
    return markdown_table(padded[0], padded[1:])


TAGS = ("music", "audio", "contrastive-learning", "music-retrieval", "music-recommendation")
PAPER = "https://arxiv.org/abs/2505.23298"


def model_card(summary: Summary) -> str:
    """README text of a model: stage two, or stage one where there is no other; never what stands
    beside them.
    """
    figures = _of_record(summary)
    return (
        "---\n"
        + "\n".join(_front_matter(summary, figures))
        + "\n---\n\n"
        + "\n".join(_prose(summary))
        + "\n"
    )


def yaml_scalar(value: str | float) -> str:
    """`value` as a YAML scalar that loads as itself: text always quoted, floats always with a
    point.

    >>> yaml_scalar("yes: no"), yaml_scalar(1e-05)
    ('"yes: no"', '1.0e-05')
    """
    if isinstance(value, str):
        return json.dumps(
            strip_control_chars(value), ensure_ascii=False
        )  # double-quoted YAML takes every escape of JSON
    digits, e, exponent = repr(float(value)).partition("e")
    return digits + ("" if "." in digits else ".0") + e + exponent  # YAML 1.1 reads 1e-05 as text


def _of_record(summary: Summary) -> list[Figure]:
    """What the model got in every metric of record that was measured."""
    figures = [
        figure for figure in summary.figures if figure.of_record and figure.value == figure.value
    ]
    wanted = STAGE_TWO if any(figure.method == STAGE_TWO for figure in figures) else STAGE_ONE
    return [figure for figure in figures if figure.method == wanted]


def _front_matter(summary: Summary, figures: list[Figure]) -> Iterator[str]:
    yield "library_name: ponticello"
    yield "license: unknown"
    yield "tags:"
    yield from (f"- {yaml_scalar(tag)}" for tag in ("ponticello", *TAGS))
    if not figures:
        return
    yield "metrics:"
    yield from (
        f"- {yaml_scalar(kind)}"
        for kind in dict.fromkeys(_kind(figure.metric) for figure in figures)
    )
    yield "model-index:"
    yield f"- name: {yaml_scalar(display_name(figures[0].method))}"
    yield "  results:"
    for figure in figures:
        yield "  - task:"
        yield "      type: feature-extraction"
        yield f"      name: {yaml_scalar(f'{SECTION_NAMES[figure.section]}: {display_task(figure)}')}"
        yield "    dataset:"
        yield "      type: ponticello-library"
        yield f"      name: {yaml_scalar(summary.about.library)}"
        yield "    metrics:"
        yield f"    - type: {yaml_scalar(_kind(figure.metric))}"
        yield f"      name: {yaml_scalar(figure.metric)}"
        yield f"      value: {yaml_scalar(figure.value)}"


def _kind(metric: str) -> str:
    """`NDCG@10` as a hub writes it, `ndcg_at_10`."""
    return (
        re.sub(r"\W+", "_", strip_control_chars(metric).lower().replace("@", "_at_")).strip("_")
        or "metric"
    )


def _prose(summary: Summary) -> Iterator[str]:
    about = summary.about
    yield f"# {markdown_text(about.library)}: meaning and taste in one space"
    yield ""
    if about.is_simulated:
        yield f"> **{SIMULATED}**"
        yield ""
    yield "## The model"
    yield ""
    yield f"An audio encoder trained in two stages (HTCL, [arXiv 2505.23298]({PAPER}))."
    yield "Stage one, semantic: audio and text of a catalogue meet in one space."
    yield "Stage two, preference: pairs of tracks that listeners confirmed bend that space toward taste."
    yield ""
    rows = [
        *background(about),
        *((f"Run: {display_name(method)}", run) for method, run in about.runs.items()),
    ]
    yield from _section("Data, split, seeds and command", markdown_table(["", ""], _escaped(rows)))
    yield from _section("What is shown", _bullets(summary.claims, "Nothing is claimed."))
    yield "## Figures"
    yield ""
    yield "Values with 95 % bootstrap intervals over queries; ± is the standard deviation over seeds."
    yield ""
    for table in tables_of(summary.figures):
        if table.record is not None:
            yield from (
                f"### {SECTION_NAMES[table.section]}: {markdown_text(display_task(table))}",
                "",
                *figures_table(table),
                "",
            )
    yield from _section("Limits", _bullets([*_limits(summary), *summary.notes], ""))


def _section(title: str, lines: list[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _escaped(rows: list[tuple[str, str]]) -> list[list[str]]:
    return [[markdown_text(cell) for cell in row] for row in rows]


def _bullets(sentences: list[str], otherwise: str) -> list[str]:
    return [f"- {markdown_text(sentence)}" for sentence in sentences] or [otherwise]


def _limits(summary: Summary) -> Iterator[str]:
    yield "The figures are of this library and this split; another catalogue or another audience may give others."
    yield "No licence is stated: ask whoever trained the model, and mind the licences of the music."
    if summary.about.is_simulated:
        yield "The listeners are SIMULATED. No figure of taste says anything about people."
