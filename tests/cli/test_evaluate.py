"""evaluate: a claim and tables on stdout, the report in files, JSON, and what was left out."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ponticello.cli.main import app
from ponticello.errors import DataError, LibraryError
from ponticello.library import Library

UNTUNED = {"random", "popularity", "mel_statistics", "text", "activity"}
TUNED = {"item_knn", "als", "content_to_als"}
NO_TUNING = ["--set", "evaluate.baselines=[]"]  # which takes most of the time


def _run(library: Library, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["evaluate", "-L", str(library.folder.root), *arguments])


def _strict(text: str) -> Any:
    """JSON as every reader takes it: without NaN and Infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def _methods(record: Any, side: str) -> set[str]:
    return {figure["method"] for figure in record["figures"] if figure["section"] == side}


def test_claim_and_tables_are_printed_and_the_report_is_written(trained_copy: Library) -> None:
    result = _run(trained_copy, "--label", "tags", *NO_TUNING)
    assert result.exit_code == 0, result.output
    report = trained_copy.folder.report
    record = _strict((report / "evaluation.json").read_text(encoding="utf-8"))
    assert result.stdout.splitlines()[0].startswith("SIMULATED listeners: no real person listened.")
    assert record["claims"][0] in result.stdout
    assert "\nmeaning, value [95 % interval]\n| method " in result.stdout
    n, m = len(record["figures"]), len(record["claims"])
    last = f"{n:,} figures and {m:,} claims, with the data, in {report / 'index.html'}"
    assert result.stdout.splitlines()[-1] == last
    with (report / "figures.csv").open(encoding="utf-8", newline="") as file:
        assert len(list(csv.DictReader(file))) == n
    assert "probe:tags" in {figure["task"] for figure in record["figures"]}


def test_json_is_the_written_record_and_progress_stays_on_stderr(trained_copy: Library) -> None:
    result = _run(trained_copy, "--json", "--label", "tags")
    assert result.exit_code == 0, result.output
    record = _strict(result.stdout)
    assert record == _strict(
        (trained_copy.folder.report / "evaluation.json").read_text(encoding="utf-8")
    )
    assert list(record) == ["about", "figures", "differences", "claims", "notes"]
    assert record["about"]["command"].startswith("ponticello")
    assert {"random", "mel_statistics", "stage_one", "stage_two"} <= _methods(record, "semantic")
    assert _methods(record, "preference") == {
        *UNTUNED,
        *TUNED,
        "stage_one",
        "stage_two",
        "served",
    }
    assert result.stderr.splitlines()[0] == "measuring leaks"
    assert result.stderr.splitlines()[-1] == "measuring integrity"


def test_another_encoders_vectors_are_a_row_of_the_table(
    trained_copy: Library, tmp_path: Path
) -> None:
    index = trained_copy.index
    file = tmp_path / "mert.npz"
    np.savez(file, ids=np.array(index.track_ids), vectors=index.vectors[:, :8])
    vectors = ["--vectors", str(file), "--vectors", f"ours={file}"]
    result = _run(trained_copy, "--json", "--label", "tags", *vectors, *NO_TUNING)
    record = _strict(result.stdout)
    for side in ("preference", "semantic"):
        assert {"mert", "ours"} <= _methods(record, side)


def test_vectors_of_one_name_are_refused(trained: Library) -> None:
    result = _run(trained, "--vectors", "one/mert.npz", "--vectors", "mert=two.npz")
    assert (result.exit_code, result.stdout) == (1, "")
    wanted = (
        "--vectors: one/mert.npz and two.npz are both named 'mert'; name one of them: NAME=FILE"
    )
    assert str(result.exception) == wanted


def test_seed_that_was_not_trained_says_what_to_run(trained: Library) -> None:
    result = _run(trained, "--seeds", "2")
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, LibraryError)
    assert result.exception.message == (
        "run 'semantic-2' is not finished; run: ponticello train semantic --seeds 2"
    )


def test_unknown_label_is_one_line_that_names_the_columns(trained_copy: Library) -> None:
    result = _run(trained_copy, "--label", "mood")
    assert (result.exit_code, result.stdout) == (1, "")
    assert isinstance(result.exception, DataError)
    assert str(result.exception).startswith(
        "tracks have no column 'mood' to read labels from; found track_id, "
    )
    assert not trained_copy.folder.report.exists()


def test_run_that_is_not_finished_is_left_out_and_told(trained_copy: Library) -> None:
    shutil.rmtree(trained_copy.folder.run("preference"))
    result = _run(trained_copy, "--json", *NO_TUNING)
    assert result.exit_code == 0, result.output
    assert (
        result.stderr.splitlines()[0] == "stage two is left out: run 'preference' is not finished"
    )
    record = _strict(result.stdout)
    assert _methods(record, "preference") == {*UNTUNED, "stage_one"}
    assert {difference["method"] for difference in record["differences"]} <= {"stage_one"}


def test_misspelt_runs_do_not_pass_in_silence(trained_copy: Library) -> None:
    runs = ["--semantic", "semantik", "--preference", "preferense"]
    result = _run(trained_copy, *runs, *NO_TUNING)
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
