"""The report as Markdown: evaluation.md, the model card, and the summary for the terminal.

The model card's front matter follows Hugging Face's model card metadata.
"""

import re
from collections.abc import Sequence
from math import isnan

from huggingface_hub import EvalResult, ModelCardData

from ponticello.evaluate.report.tables import (
    NOT_MEASURED,
    SECTION_NAMES,
    SIMULATED,
    Table,
    display_name,
    display_section_task,
    format_value,
    methods_of,
    report_template,
    strip_control_chars,
    tables_of,
)
from ponticello.evaluate.results import (
    SERVED,
    STAGE_ONE,
    STAGE_TWO,
    Section,
    Summary,
)

TERMINAL_SECTIONS: tuple[Section, ...] = ("semantic", "preference")
TAGS = (
    "ponticello",
    "music",
    "audio",
    "contrastive-learning",
    "music-retrieval",
    "music-recommendation",
)
_SPECIAL = re.compile(
    r"[\\`*<>|$~]"  # escapes, code, emphasis, tags, cells, formulas, strokes
    r"|(?<!\w)_|_(?!\w)"  # emphasis; not inside a word
    r"|\](?=[(\[])|^\s*\["  # links, pictures and their targets; an interval stays as it is
    r"|&(?=#?\w+;)"
    r"|^\s*[#+=-](?=\s|[-=]|$)"
)


def markdown_text(text: str) -> str:
    """Returns text from data as one line of Markdown that shows it unchanged.

    >>> markdown_text("a|b [x](y)")
    'a\\\\|b [x\\\\](y)'
    """
    line = strip_control_chars(text)
    return _SPECIAL.sub(lambda match: match[0][:-1] + "\\" + match[0][-1], line)


def as_markdown(summary: Summary) -> str:
    """Returns claims, one table per task, differences, the background and notes as Markdown."""
    return _render("evaluation.md.jinja", summary)


def model_card(summary: Summary) -> str:
    """Returns the README of a model: stage two, or stage one where there is no stage two."""
    metadata = _card_metadata(summary).to_yaml().strip()
    return _render("model_card.md.jinja", summary, metadata)


def terminal_summary(summary: Summary) -> str:
    """Returns the joint claim and a table per section, padded for a fixed-width font."""
    lines = []
    if summary.about.is_simulated:
        lines = [SIMULATED, ""]
    if summary.claims:
        lines.append(strip_control_chars(summary.claims[0]))
    tables = tables_of(summary.figures)
    for section in TERMINAL_SECTIONS:
        shown = [table for table in tables if table.section == section and table.record]
        if shown:
            lines += ["", f"{SECTION_NAMES[section]}, value [95 % interval]", _aligned(shown)]
    return "\n".join(lines)


def _aligned(tables: Sequence[Table]) -> str:
    header = ["method"]
    for table in tables:
        header.append(strip_control_chars(f"{display_name(table.task)}: {table.record}"))
    rows = [header]
    for method in methods_of(tables):
        row = [strip_control_chars(display_name(method))]
        for table in tables:
            figure = table.cells.get((method, table.record or ""))
            row.append(NOT_MEASURED if figure is None else format_value(figure))
        rows.append(row)
    for column in range(len(header)):
        width = max(len(row[column]) for row in rows)
        for row in rows:
            row[column] = row[column].ljust(width)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "|---" * len(header) + "|")
    return "\n".join(lines)


def _card_metadata(summary: Summary) -> ModelCardData:
    """Returns the front matter, with the model's value in every metric of record."""
    figures = [figure for figure in summary.figures if figure.of_record and not isnan(figure.value)]
    methods = {figure.method for figure in figures}
    model = next((name for name in (SERVED, STAGE_TWO) if name in methods), STAGE_ONE)
    results = []
    for figure in figures:
        if figure.method != model:
            continue
        metric = strip_control_chars(figure.metric)
        # a hub writes `NDCG@10` as `ndcg_at_10`
        metric_type = re.sub(r"\W+", "_", metric.lower().replace("@", "_at_")).strip("_")
        result = EvalResult(
            task_type="feature-extraction",
            task_name=strip_control_chars(display_section_task(figure)),
            dataset_type="ponticello-library",
            dataset_name=strip_control_chars(summary.about.library),
            dataset_config=strip_control_chars(figure.task),  # keeps the tasks apart
            metric_type=metric_type or "metric",
            metric_name=metric,
            metric_value=float(figure.value),
        )
        results.append(result)
    metadata = ModelCardData(library_name="ponticello", license="unknown", tags=list(TAGS))
    if results:
        metadata.metrics = list(dict.fromkeys(result.metric_type for result in results))
        metadata.model_name = display_name(model)
        metadata.eval_results = results
    return metadata


def _render(template: str, summary: Summary, metadata: str = "") -> str:
    text = report_template(template, md=markdown_text).render(
        summary=summary,
        about=summary.about,
        tables=tables_of(summary.figures),
        metadata=metadata,
    )
    return text.rstrip("\n") + "\n"
