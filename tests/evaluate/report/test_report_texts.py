"""Markdown, LaTeX and the model card: the same numbers, and text that stays text."""

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from ponticello.evaluate.report.latex import as_latex, latex_text
from ponticello.evaluate.report.markdown import as_markdown, markdown_text, model_card
from ponticello.evaluate.report.tables import SIMULATED, strip_control_chars
from ponticello.evaluate.results import Summary


def _front_matter(card: str) -> Any:
    return yaml.safe_load(card.split("---\n")[1])


def test_markdown_is_claims_then_one_table_a_task_then_differences(summary: Summary) -> None:
    lines = as_markdown(summary).splitlines()
    assert lines[:12] == [
        "# Meaning and taste",
        "",
        "- Stage two finds more: 0.700 against 0.300, a gain of 0.400 [0.350, 0.450].",
        "- Meaning was lost.",
        "",
        "## meaning: text to audio",
        "",
        "| method | R@10 | median rank |",
        "|---|---|---|",
        "| random | 0.083 [0.013, 0.153] ± 0.010 | 12.0 [11.5, 12.5] ± 0.0 |",
        "| stage one | 0.500 [0.430, 0.570] ± 0.010 | 2.0 [1.5, 2.5] ± 0.0 |",
        "| stage two | 0.400 [0.330, 0.470] ± 0.010 | 2.5 [2.0, 3.0] ± 0.0 |",
    ]
    assert "| stage one | - | - |" in lines
    wanted = (
        "| meaning | text to audio | R@10 | stage two minus stage one | -0.100 [-0.150, -0.050] | "
        "<0.001 | 0.001 |"
    )
    assert f"{wanted} worse |" in lines
    assert "| Command | ponticello evaluate -L my-library |" in lines
    assert lines[-1] == "- A note."


def test_markdown_of_nothing_has_no_empty_headings(empty: Summary) -> None:
    headings = [line for line in as_markdown(empty).splitlines() if line.startswith("#")]
    assert headings == ["# Meaning and taste", "## Data, splits and command"]


def test_every_text_says_that_simulated_listeners_are_simulated(
    summary: Summary, simulated: Summary
) -> None:
    for write in (as_markdown, model_card):
        assert SIMULATED in write(simulated)
        assert "SIMULATED" not in write(summary)
    assert "SIMULATED listeners: no real person listened" in as_latex(simulated)
    assert "SIMULATED" not in as_latex(summary)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a gain of 0.1 [0.05, 0.15]: shown", "a gain of 0.1 [0.05, 0.15]: shown"),
        ("freemusic_lib, R@10 & more", "freemusic_lib, R@10 & more"),
        ("a|b", "a\\|b"),
        ("![x](http://y)", "![x\\](http://y)"),
        ("[x]: http://y", "\\[x]: http://y"),
        ("_so_ *it* `is`", "\\_so\\_ \\*it\\* \\`is\\`"),
        ("<img src=x>", "\\<img src=x\\>"),
        ("&lt; $x$ \\", "\\&lt; \\$x\\$ \\\\"),
        ("# no\nheading", "\\# no heading"),
        ("---", "\\---"),
    ],
)
def test_markdown_shows_text_as_it_is_and_leaves_plain_text_alone(text: str, wanted: str) -> None:
    assert markdown_text(text) == wanted


def test_hostile_text_makes_no_markup_in_markdown(hostile: Summary) -> None:
    for text in (as_markdown(hostile), model_card(hostile).split("---\n", 2)[2]):
        assert not re.search(r"(?<!\\)<script", text)
        assert not re.search(r"(?<!\\)\]\(b\)", text)
        for line in text.splitlines():
            if line.startswith("|"):
                assert line.endswith("|")
        widths = {
            len(re.findall(r"(?<!\\)\|", line))
            for line in text.splitlines()
            if line.startswith("| taste |")
        }
        assert widths <= {9}


def test_latex_has_a_table_a_side_with_the_best_value_bold(summary: Summary) -> None:
    latex = as_latex(summary)
    assert latex.count(r"\begin{table*}") == latex.count(r"\end{table*}") == 2
    assert r"stage one & \textbf{0.500} {\scriptsize {[}0.430, 0.570{]} $\pm$ 0.010} \\" in latex
    assert r"stage one & -- \\" in latex
    assert r"\shortstack[r]{text to audio \\ R@10, n = 12}" in latex
    assert "median rank" not in latex
    for part in (
        "Whole artists are held out",
        "splits 9f2c1e7ab4d0",
        r"mean of 2 seeds (7, 8)",
        r"95 \%",
    ):
        assert part in latex


def test_latex_of_nothing_is_a_comment(empty: Summary) -> None:
    assert as_latex(empty) == "% \\usepackage{booktabs}\n"


def test_more_tasks_than_fit_stand_below_each_other(summary: Summary) -> None:
    """Five tasks of one seed, three abreast: two panels, so two rows that begin with `method`."""
    figures = [replace(summary.figures[0], task=f"task {number}") for number in range(5)]
    latex = as_latex(replace(summary, figures=figures, about=replace(summary.about, seeds=(1,))))
    assert latex.count("method & ") == 2
    assert r"\begin{tabular}{p{3.4cm}rrr}" in latex


def test_hostile_text_is_printed_by_latex_not_run(hostile: Summary) -> None:
    latex = as_latex(hostile)
    assert latex_text(r"\input{x}$_^&#%~") == (
        r"\textbackslash{}input\{x\}\$\_\textasciicircum{}\&\#\%\textasciitilde{}"
    )
    assert r"\input" not in latex
    assert all(
        line.count("{") - line.count(r"\{") == line.count("}") - line.count(r"\}")
        for line in latex.splitlines()
    )
    assert "%" not in re.sub(r"\\%", "", latex).removeprefix("%")


def test_front_matter_holds_the_figures_of_stage_two(summary: Summary) -> None:
    loaded = _front_matter(model_card(summary))
    assert loaded["library_name"] == "ponticello"
    assert loaded["license"] == "unknown"
    assert loaded["metrics"] == ["r_at_10", "ndcg_at_10"]
    assert "language" not in loaded
    (model,) = loaded["model-index"]
    assert model["name"] == "stage two"
    results = model["results"]
    assert [result["task"]["name"] for result in results] == [
        "meaning: text to audio",
        "taste: next tracks",
    ]
    assert [result["metrics"][0]["value"] for result in results] == [0.4, 0.7]
    assert [result["metrics"][0]["name"] for result in results] == ["R@10", "NDCG@10"]
    assert {result["dataset"]["name"] for result in results} == {"game music"}


def test_front_matter_is_of_stage_one_where_there_is_no_stage_two_and_of_no_other_method(
    summary: Summary,
) -> None:
    without = [figure for figure in summary.figures if figure.method != "stage_two"]
    (model,) = _front_matter(model_card(replace(summary, figures=without)))["model-index"]
    assert model["name"] == "stage one"
    others = [figure for figure in without if figure.method != "stage_one"]
    assert others
    assert "model-index" not in _front_matter(model_card(replace(summary, figures=others)))


def test_front_matter_of_nothing_has_no_results(empty: Summary) -> None:
    assert "model-index" not in _front_matter(model_card(empty))
    assert "No claim is supported." in model_card(empty)


def test_hostile_front_matter_loads_as_the_text_it_was(hostile: Summary) -> None:
    figures = [replace(figure, method="stage_two") for figure in hostile.figures]
    (model,) = _front_matter(model_card(replace(hostile, figures=figures)))["model-index"]
    assert model["results"][0]["dataset"]["name"] == strip_control_chars(hostile.about.library)
