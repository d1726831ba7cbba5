"""A run's record."""

import json
from pathlib import Path

import pytest

from ponticello.errors import CheckpointError
from ponticello.train.checkpoints import read_record, write_record

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
        with pytest.raises(CheckpointError, match=r"run.json is not what was written; delete .*semantic"):
            read_record(path)
        path.write_text(content, encoding="latin-1")


def test_record_without_its_hash_is_read(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(RECORD), encoding="utf-8")
    assert read_record(tmp_path / "run.json") == RECORD
