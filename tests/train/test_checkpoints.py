"""A run's record."""

import json
from pathlib import Path

import pytest

from ponticello.errors import CheckpointError
from ponticello.train.runs import (
    STARTED,
    last_checkpoint,
    mark_complete,
    read_record,
    read_started,
    start_run,
    write_record,
)

RECORD = {"stage": "semantic", "best": {"mrr": 0.25}, "settings": {"audio": {"kernels": [5, 3, 3]}}}


def test_record_comes_back_and_a_changed_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "semantic" / "run.json"
    write_record(path, RECORD)
    assert read_record(path) == RECORD
    for found, damaged in (
        ("0.25", "0.35"),
        ("semantic", "semant\xffc"),
        ('"best"', '"bett"'),
        ("{", "("),
        ("{", "[" * 100_000),
    ):
        content = path.read_text(encoding="latin-1")
        path.write_text(content.replace(found, damaged, 1), encoding="latin-1")
        with pytest.raises(
            CheckpointError, match=r"run.json is not what was written; delete .*semantic"
        ):
            read_record(path)
        path.write_text(content, encoding="latin-1")


def test_record_without_its_hash_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RECORD), encoding="utf-8")
    assert read_record(tmp_path / "run.json") == RECORD


def _checkpoint(run: Path, name: str) -> Path:
    folder = run / "checkpoints" / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"some weights")
    mark_complete(folder)
    return folder


@pytest.mark.parametrize("content", ["", "[1]", '{"semantic": ', "[" * 100_000])
def test_run_whose_beginning_is_damaged_cannot_go_on(tmp_path: Path, content: str) -> None:
    """Without a checkpoint it begins anew; with one it might go on with other settings."""
    run = tmp_path / "semantic"
    start_run(run, {"semantic": 1})
    (run / STARTED).write_text(content, encoding="utf-8")
    start_run(run, {"semantic": 2})
    assert read_started(run) == {"semantic": 2}
    _checkpoint(run, "checkpoint-3")
    (run / STARTED).write_text(content, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"started.json is not what was written, .* choose another --name"
    ):
        start_run(run, {"semantic": 2})


def test_folder_that_is_no_checkpoint_is_left_alone(tmp_path: Path) -> None:
    own, copied = _checkpoint(tmp_path, "checkpoint-3"), _checkpoint(tmp_path, "checkpoint-old")
    (tmp_path / "checkpoints" / "checkpoint-3 (copy)").mkdir()
    assert last_checkpoint(tmp_path / "checkpoints") == own
    assert copied.is_dir()
    assert (tmp_path / "checkpoints" / "checkpoint-3 (copy)").is_dir()
