"""The report as Markdown: evaluation.md, the model card, and the summary for the terminal.

The model card's front matter follows Hugging Face's model card metadata.
"""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from math import isnan

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, PackageLoader, StrictUndefined

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
    methods_of,
    strip_control_chars,
    tables_of,
    verdict,
)
from ponticello.evaluate.results import (
    STAGE_ONE,
    STAGE_TWO,
    Difference,
    EvaluationInfo,
    Figure,
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


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table of cells that are Markdown already."""
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    for row in rows:
        lines.append("| " + " | ".join(row) + " |")
    return "\n".join(lines)


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


def figures_table(table: Table) -> str:
    """Returns methods down and metrics across, each value with its interval."""
    header = ["method"]
    for metric in table.metrics:
        header.append(markdown_text(table.metric_heading(metric)))
    rows = []
    for method in table.methods:
        row = [markdown_text(display_name(method))]
        for metric in table.metrics:
            row.append(_value(table.cells.get((method, metric))))
        rows.append(row)
    return markdown_table(header, rows)


def differences_table(differences: Sequence[Difference]) -> str:
    """Returns one table for all differences, so that Holm's correction is beside its tests."""
    header = ["section", "task", "metric", "", "difference", "p", "Holm p", "verdict"]
    rows = []
    for difference in differences:
        methods = f"{display_name(difference.method)} minus {display_name(difference.against)}"
        row = [
            SECTION_NAMES[difference.section],
            markdown_text(display_task(difference)),
            markdown_text(display_metric(difference.metric)),
            markdown_text(methods),
            format_value(difference),
            format_p(difference.p),
            format_p(difference.p_holm),
            verdict(difference),
        ]
        rows.append(row)
    return markdown_table(header, rows)


def background_table(about: EvaluationInfo) -> str:
    """Returns the data, splits, seeds, command and runs behind the numbers."""
    rows = []
    for name, value in background(about):
        rows.append([markdown_text(name), markdown_text(value)])
    for method, run in about.runs.items():
        rows.append([markdown_text(f"Run: {display_name(method)}"), markdown_text(run)])
    return markdown_table(["", ""], rows)


def _aligned(tables: Sequence[Table]) -> str:
    header = ["method"]
    for table in tables:
        header.append(strip_control_chars(f"{display_name(table.task)}: {table.record}"))
    rows = [header]
    for method in methods_of(tables):
        row = [strip_control_chars(display_name(method))]
        for table in tables:
            row.append(_value(table.cells.get((method, table.record or ""))))
        rows.append(row)
    for column in range(len(header)):
        width = max(len(row[column]) for row in rows)
        for row in rows:
            row[column] = row[column].ljust(width)
    return markdown_table(rows[0], rows[1:])


def _value(figure: Figure | None) -> str:
    return NOT_MEASURED if figure is None else format_value(figure)


def _card_metadata(summary: Summary) -> ModelCardData:
    """Returns the front matter, with the model's value in every metric of record."""
    figures = [figure for figure in summary.figures if figure.of_record and not isnan(figure.value)]
    methods = {figure.method for figure in figures}
    model = STAGE_TWO if STAGE_TWO in methods else STAGE_ONE
    results = []
    for figure in figures:
        if figure.method == model:
            results.append(_eval_result(figure, summary.about.library))
    metadata = ModelCardData(library_name="ponticello", license="unknown", tags=list(TAGS))
    if results:
        metadata.metrics = list(dict.fromkeys(result.metric_type for result in results))
        metadata.model_name = display_name(model)
        metadata.eval_results = results
    return metadata


def _eval_result(figure: Figure, library: str) -> EvalResult:
    task = f"{SECTION_NAMES[figure.section]}: {display_task(figure)}"
    metric = strip_control_chars(figure.metric)
    # a hub writes `NDCG@10` as `ndcg_at_10`
    metric_type = re.sub(r"\W+", "_", metric.lower().replace("@", "_at_")).strip("_")
    return EvalResult(
        task_type="feature-extraction",
        task_name=strip_control_chars(task),
        dataset_type="ponticello-library",
        dataset_name=strip_control_chars(library),
        dataset_config=strip_control_chars(figure.task),  # keeps the tasks apart
        metric_type=metric_type or "metric",
        metric_name=metric,
        metric_value=float(figure.value),
    )


def _render(template: str, summary: Summary, metadata: str = "") -> str:
    text = (
        _environment()
        .get_template(template)
        .render(
            summary=summary,
            about=summary.about,
            tables=tables_of(summary.figures),
            metadata=metadata,
        )
    )
    return text.rstrip("\n") + "\n"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("ponticello.evaluate", "report"),
        autoescape=False,  # the filter `md` escapes for Markdown
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["md"] = markdown_text
    environment.globals.update(
        background_table=background_table,
        differences_table=differences_table,
        display_metric=display_metric,
        display_task=display_task,
        figures_table=figures_table,
        format_count=format_count,
        section_names=SECTION_NAMES,
        simulated=SIMULATED,
    )
    return environment
