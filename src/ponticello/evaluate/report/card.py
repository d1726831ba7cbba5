"""The model card: YAML for a model hub above, prose for people below.

Source: the front matter follows Hugging Face's model card metadata (`library_name`, `tags`, `metrics`, `model-index`).
"""

import json
import re
from collections.abc import Iterator

from ponticello.evaluate.figures import STAGE_ONE, STAGE_TWO, Figure, Summary
from ponticello.evaluate.report.markdown import figures_table, markdown_table, markdown_text
from ponticello.evaluate.report.tables import tables_of
from ponticello.evaluate.report.words import SIMULATED, background, clean

TAGS = ("music", "audio", "contrastive-learning", "music-retrieval", "music-recommendation")
PAPER = "https://arxiv.org/abs/2505.23298"


def as_card(summary: Summary) -> str:
    """README text of a model: stage two, or stage one where there is no other; never what stands beside them."""
    figures = _of_record(summary)
    return "---\n" + "\n".join(_front_matter(summary, figures)) + "\n---\n\n" + "\n".join(_prose(summary)) + "\n"


def yaml_scalar(value: str | float) -> str:
    """`value` as a YAML scalar that loads as itself: text always quoted, floats always with a point.

    >>> yaml_scalar("yes: no"), yaml_scalar(1e-05)
    ('"yes: no"', '1.0e-05')
    """
    if isinstance(value, str):
        return json.dumps(clean(value), ensure_ascii=False)  # double-quoted YAML takes every escape of JSON
    digits, e, exponent = repr(float(value)).partition("e")
    return digits + ("" if "." in digits else ".0") + e + exponent  # YAML 1.1 reads 1e-05 as text


def _of_record(summary: Summary) -> list[Figure]:
    """What the model got in every metric of record that was measured."""
    figures = [figure for figure in summary.figures if figure.of_record and figure.value == figure.value]
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
    yield from (f"- {yaml_scalar(kind)}" for kind in dict.fromkeys(_kind(figure.metric) for figure in figures))
    yield "model-index:"
    yield f"- name: {yaml_scalar(figures[0].method)}"
    yield "  results:"
    for figure in figures:
        yield "  - task:"
        yield "      type: feature-extraction"
        yield f"      name: {yaml_scalar(f'{figure.side}: {figure.task}')}"
        yield "    dataset:"
        yield "      type: ponticello-library"
        yield f"      name: {yaml_scalar(summary.about.library)}"
        yield "    metrics:"
        yield f"    - type: {yaml_scalar(_kind(figure.metric))}"
        yield f"      name: {yaml_scalar(figure.metric)}"
        yield f"      value: {yaml_scalar(figure.value)}"


def _kind(metric: str) -> str:
    """`NDCG@10` as a hub writes it, `ndcg_at_10`."""
    return re.sub(r"\W+", "_", clean(metric).lower().replace("@", "_at_")).strip("_") or "metric"


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
    rows = [*background(about), *((f"Run: {method}", run) for method, run in about.runs.items())]
    yield from _section("Data, split, seeds and command", markdown_table(["", ""], _escaped(rows)))
    yield from _section("What is shown", _bullets(summary.claims, "Nothing is claimed."))
    yield "## Figures"
    yield ""
    yield "Values with 95 % bootstrap intervals over queries; ± is the standard deviation over seeds."
    yield ""
    for table in tables_of(summary.figures):
        if table.record is not None:
            yield from (f"### {table.side}: {markdown_text(table.task)}", "", *figures_table(table), "")
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
