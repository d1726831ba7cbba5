"""The evaluation as files: every number comes back, and words say no more than intervals do."""

import csv
import json
from math import isnan, nan
from pathlib import Path

import pytest

from ponticello.evaluate.figures import Evaluation, Figure
from ponticello.evaluate.report import as_markdown, as_record, shown, verdict, write_report


def _figure(value: float, low: float = nan, high: float = nan, metric: str = "R@1", method: str = "random") -> Figure:
    return Figure("meaning", "text to audio", metric, method, value, low, high, 12)


EVALUATION = Evaluation(
    figures=[
        _figure(1 / 12),
        _figure(0.25, 0.1, 0.4, method="stage one"),
        _figure(6.5, 4.0, 8.25, "median rank", "stage one"),
        Figure("taste", "cold tracks", "AUC", "popularity", nan, nan, nan, 0),
    ],
    differences=[Figure("meaning", "text to audio", "R@1", "stage two - stage one", -0.125, -0.2, -0.05, 12)],
    notes=['A note, with "quotes".'],
)


def test_json_gives_every_number_back_and_null_for_what_was_not_measured(tmp_path: Path) -> None:
    record = json.loads(write_report(tmp_path, EVALUATION)[0].read_text(encoding="utf-8"))
    assert record == as_record(EVALUATION)
    assert record["notes"] == EVALUATION.notes
    assert record["figures"][0] == {
        "side": "meaning",
        "task": "text to audio",
        "metric": "R@1",
        "method": "random",
        "value": 1 / 12,
        "low": None,
        "high": None,
        "n": 12,
    }
    assert record["figures"][3]["value"] is None
    assert record["differences"][0]["value"] == -0.125


def test_csv_gives_every_number_back_figures_first(tmp_path: Path) -> None:
    with write_report(tmp_path, EVALUATION)[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wanted = [*EVALUATION.figures, *EVALUATION.differences]
    assert [row["method"] for row in rows] == [figure.method for figure in wanted]
    for row, figure in zip(rows, wanted, strict=True):
        assert int(row["n"]) == figure.n
        for name in ("value", "low", "high"):
            found, number = float(row[name]), getattr(figure, name)
            assert found == number or (isnan(found) and isnan(number))


def test_markdown_is_one_table_a_task(tmp_path: Path) -> None:
    paths = write_report(tmp_path, EVALUATION)
    assert [path.name for path in paths] == ["evaluation.json", "evaluation.csv", "evaluation.md"]
    assert paths[2].read_text(encoding="utf-8") == as_markdown(EVALUATION)
    assert as_markdown(EVALUATION).splitlines() == [
        "# Meaning and taste",
        "",
        '- A note, with "quotes".',
        "",
        "## meaning: text to audio",
        "",
        "| method | R@1 | median rank |",
        "|---|---|---|",
        "| random | 0.083 | - |",
        "| stage one | 0.250 [0.100, 0.400] | 6.5 [4.0, 8.2] |",
        "",
        "## taste: cold tracks",
        "",
        "| method | AUC |",
        "|---|---|",
        "| popularity | - |",
        "",
        "## Stage two minus stage one (paired)",
        "",
        "| side | task | metric | change | |",
        "|---|---|---|---|---|",
        "| meaning | text to audio | R@1 | -0.125 [-0.200, -0.050] | worse |",
    ]


def test_differences_that_were_not_measured_have_no_heading() -> None:
    assert "Stage two minus" not in as_markdown(Evaluation(figures=EVALUATION.figures))


@pytest.mark.parametrize(
    ("figure", "wanted"),
    [
        (_figure(0.41249, 0.38, 0.4415), "0.412 [0.380, 0.442]"),
        (_figure(0.5), "0.500"),
        (_figure(nan), "-"),
        (_figure(12.0, 3.0, 40.0, "median rank"), "12.0 [3.0, 40.0]"),
    ],
)
def test_number_is_shown_with_its_interval(figure: Figure, wanted: str) -> None:
    assert shown(figure) == wanted


@pytest.mark.parametrize(
    ("low", "high", "wanted"),
    [
        (0.01, 0.2, "better"),
        (-0.2, -0.01, "worse"),
        (-0.1, 0.1, "no clear change"),
        (0.0, 0.1, "no clear change"),
        (-0.1, 0.0, "no clear change"),
        (0.0, 0.0, "no clear change"),
        (nan, nan, "not known"),
    ],
)
def test_verdict_follows_the_interval_not_the_value(low: float, high: float, wanted: str) -> None:
    assert verdict(_figure(0.05, low, high)) == wanted


def test_new_report_replaces_the_old_one_and_leaves_no_rest(tmp_path: Path) -> None:
    write_report(tmp_path / "report", EVALUATION)
    paths = write_report(tmp_path / "report", Evaluation(notes=["empty"]))
    assert json.loads(paths[0].read_text(encoding="utf-8")) == {"figures": [], "differences": [], "notes": ["empty"]}
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == sorted(path.name for path in paths)
