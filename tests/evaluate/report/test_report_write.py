"""The report's folder: all files, the same bytes for the same input, and no rest of an earlier
report.
"""

import json
from dataclasses import replace
from pathlib import Path

from ponticello.evaluate.report.data import as_record
from ponticello.evaluate.report.markdown import as_markdown
from ponticello.evaluate.report.write import write_report
from ponticello.evaluate.results import Measurements, Summary

FILES = [
    "index.html",
    "evaluation.md",
    "evaluation.json",
    "tables.tex",
    "model-card.md",
    "figures.csv",
    "queries.parquet",
]


def _contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_same_input_gives_the_same_bytes_in_every_file(
    summary: Summary, evaluations: list[Measurements], tmp_path: Path
) -> None:
    for name in ("one", "two"):
        paths = write_report(tmp_path / name, summary, evaluations)
        assert [path for path in paths if not path.is_file()] == []
    first, second = _contents(tmp_path / "one"), _contents(tmp_path / "two")
    assert first == second
    assert sorted(first) == sorted(path.relative_to(tmp_path / "two").as_posix() for path in paths)


def test_all_files_are_written_and_named_the_page_first(
    summary: Summary, evaluations: list[Measurements], tmp_path: Path
) -> None:
    paths = [
        path.relative_to(tmp_path).as_posix()
        for path in write_report(tmp_path, summary, evaluations)
    ]
    plots = ["changes", "semantic-text-to-audio", "preference-next-tracks", "tradeoff"]
    assert paths == FILES + [
        f"plots/{name}.{suffix}" for suffix in ("svg", "png") for name in plots
    ]
    assert (tmp_path / "evaluation.md").read_text(encoding="utf-8") == as_markdown(summary)
    assert json.loads((tmp_path / "evaluation.json").read_text(encoding="utf-8")) == as_record(
        summary
    )


def test_new_report_replaces_the_old_one_and_leaves_no_rest(
    summary: Summary, empty: Summary, evaluations: list[Measurements], tmp_path: Path
) -> None:
    write_report(tmp_path, summary, evaluations)
    paths = write_report(tmp_path, empty, [Measurements()])
    assert sorted(_contents(tmp_path)) == sorted(path.name for path in paths)
    assert [path.name for path in paths] == FILES
    assert not list(tmp_path.glob(".*"))


def test_hostile_text_can_be_written(hostile: Summary, tmp_path: Path) -> None:
    """Tables hold text as it is, so there it must be what UTF-8 can hold; everywhere else it may be
    anything.
    """
    tables = {
        name: [
            replace(
                row,
                **{
                    key: str(getattr(row, key)).replace("\ud800", "")
                    for key in ("task", "metric", "method")
                },
            )
            for row in getattr(hostile, name)
        ]
        for name in ("figures", "differences")
    }
    differences = [replace(row, against="x") for row in tables["differences"]]
    clean = replace(hostile, figures=tables["figures"], differences=differences)
    paths = write_report(tmp_path, clean, [Measurements(), Measurements()])
    assert all(path.is_file() and path.is_relative_to(tmp_path) for path in paths)
