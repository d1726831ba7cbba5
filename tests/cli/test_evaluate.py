"""evaluate: one table on stdout, the same figures in files and as JSON, and what was left out."""

import csv
import json
import shutil
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ponticello.api import Library
from ponticello.cli.main import app
from ponticello.errors import DataError, LibraryError

OTHERS = {"random", "popularity", "mel statistics", "text only", "item-kNN", "EASE", "ALS", "BPR", "vectors to factors"}


def _run(library: Library, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "-L", str(library.folder.root), *arguments])


def _strict(text: str) -> Any:
    """JSON as every reader takes it: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _methods(record: Any, side: str) -> set[str]:
    return {figure["method"] for figure in record["figures"] if figure["side"] == side}


def test_table_is_printed_and_written_with_every_number_beside_it(trained_copy: Library) -> None:
    result = _run(trained_copy, "--label", "tags")
    assert result.exit_code == 0, result.output
    report = trained_copy.folder.report
    assert sorted(path.name for path in report.iterdir()) == ["evaluation.csv", "evaluation.json", "evaluation.md"]
    record = _strict((report / "evaluation.json").read_text(encoding="utf-8"))
    markdown = (report / "evaluation.md").read_text(encoding="utf-8")
    assert result.stdout == f"{markdown}\n{len(record['figures']):,} figures in {report}\n"
    with (report / "evaluation.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(record["figures"]) + len(record["differences"])
    assert {(row["task"], row["metric"]) for row in rows} == {
        (figure["task"], figure["metric"]) for figure in record["figures"] + record["differences"]
    }


def test_json_is_the_written_record_and_progress_stays_on_stderr(trained_copy: Library) -> None:
    result = _run(trained_copy, "--json", "--label", "tags")
    assert result.exit_code == 0, result.output
    record = _strict(result.stdout)
    assert record == _strict((trained_copy.folder.report / "evaluation.json").read_text(encoding="utf-8"))
    assert list(record) == ["figures", "differences", "notes"]
    assert _methods(record, "meaning") == {"random", "mel statistics", "stage one", "stage two"}
    assert _methods(record, "taste") == {*OTHERS, "stage one", "stage two"}
    assert {figure["method"] for figure in record["differences"]} == {"stage two - stage one"}
    assert result.stderr.splitlines() == [
        "measuring vectors of stage one",
        "measuring vectors of stage two",
        "measuring text vectors",
        "measuring meaning: retrieval",
        "measuring meaning: probe",
        "measuring integrity",
        "measuring taste: ranking",
    ]


def test_simulated_listeners_are_told_before_the_first_table(trained_copy: Library) -> None:
    printed = _run(trained_copy).stdout
    assert 0 <= printed.index("SIMULATED LISTENERS") < printed.index("## ")


def test_without_a_label_there_is_no_probe(trained_copy: Library) -> None:
    assert "probe" not in _run(trained_copy).output
    assert "## meaning: probe: tags" in _run(trained_copy, "--label", "tags").stdout


def test_unknown_label_is_one_line_that_names_the_columns(trained_copy: Library) -> None:
    result = _run(trained_copy, "--label", "mood")
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, DataError)
    assert str(result.exception).startswith("tracks have no column 'mood' to probe; found track_id, ")
    assert not trained_copy.folder.report.exists()


def test_run_that_is_not_finished_is_left_out_and_told(trained_copy: Library) -> None:
    shutil.rmtree(trained_copy.folder.run("preference"))
    result = _run(trained_copy, "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[0] == "stage two is left out: run 'preference' is not finished"
    record = _strict(result.stdout)
    assert _methods(record, "taste") == {*OTHERS, "stage one"}
    assert record["differences"] == []


def test_misspelt_runs_do_not_pass_in_silence(trained_copy: Library) -> None:
    result = _run(trained_copy, "--semantic", "semantik", "--preference", "preferense")
    assert result.exit_code == 0, result.output
    assert result.stderr.splitlines()[:2] == [
        "stage one is left out: run 'semantik' is not finished",
        "stage two is left out: run 'preferense' is not finished",
    ]


@pytest.mark.parametrize("option", ["--semantic", "--preference"])
def test_run_name_that_leaves_the_library_is_refused(trained: Library, option: str) -> None:
    result = _run(trained, option, "../elsewhere")
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, LibraryError)
    assert str(result.exception) == "run name '../elsewhere' must be a plain folder name"
