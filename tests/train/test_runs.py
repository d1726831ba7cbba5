"""A run's folder: checkpoints, records, and finished runs that cannot be used."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.library import Library
from ponticello.train.runs import (
    STARTED,
    finished_run,
    last_checkpoint,
    mark_complete,
    read_record,
    read_started,
    seed_run,
    start_run,
    with_seed,
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


CONFIG = Config.from_preset("tiny")


def _record(**changes: Any) -> dict[str, Any]:
    counts = {"n_rows": 9, "n_left_out": 1, "n_steps": 3, "best": {"mrr": 0.5}}
    return {"stage": "semantic", **counts, "settings": CONFIG.model_dump(mode="json"), **changes}


def _finish(run: Path, record: dict[str, Any]) -> Path:
    write_record(run / "run.json", record)
    for name in ("config.json", "model.safetensors"):
        (run / name).touch()
    return run


def test_a_finished_run_is_what_its_record_says(tmp_path: Path) -> None:
    run = finished_run(_finish(tmp_path / "semantic", _record()), "semantic", CONFIG)
    assert run is not None
    assert (run.stage, run.n_rows, run.n_left_out, run.n_steps, run.best) == (
        "semantic",
        9,
        1,
        3,
        {"mrr": 0.5},
    )
    assert finished_run(tmp_path / "none", "semantic", CONFIG) is None


def test_a_setting_of_another_version_is_named(tmp_path: Path) -> None:
    """As a newer Ponticello would write it, hash and all; asked without settings of its own it does
    not matter.
    """
    settings = CONFIG.model_dump(mode="json")
    settings["semantic"]["warp"] = 9
    run = _finish(tmp_path / "semantic", _record(settings=settings))
    line = re.escape(f"{run / 'run.json'}: setting 'semantic.warp' is unknown to Ponticello ")
    with pytest.raises(
        CheckpointError, match=f"^{line}.*; use that version, or delete {re.escape(str(run))} and"
    ):
        finished_run(run, "semantic", CONFIG)
    assert finished_run(run, "semantic", None)


@pytest.mark.parametrize("name", ["stage", "n_rows", "best", "settings"])
def test_a_record_that_lacks_something_is_refused(tmp_path: Path, name: str) -> None:
    record = _record()
    del record[name]
    with pytest.raises(
        CheckpointError, match=f"run.json does not say {name}; delete .*semantic and train again"
    ):
        finished_run(_finish(tmp_path / "semantic", record), "semantic", CONFIG)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_finished_run_without_its_model_is_refused(tmp_path: Path, name: str) -> None:
    run = _finish(tmp_path / "semantic", _record())
    (run / name).unlink()
    with pytest.raises(
        CheckpointError,
        match=f"run 'semantic' is finished, but its {name} is gone; delete .*semantic",
    ):
        finished_run(run, "semantic", CONFIG)


def test_the_first_seed_keeps_the_runs_name() -> None:
    assert [seed_run("semantic", number) for number in (1, 2, 5)] == [
        "semantic",
        "semantic-2",
        "semantic-5",
    ]


def test_only_the_stages_own_seed_moves_on(trained: Library) -> None:
    third = with_seed(trained.folder, "preference", 3)
    before, after = trained.folder.config, third.config
    assert after.preference.seed == before.preference.seed + 2
    assert after.model_copy(update={"preference": before.preference}) == before
    assert third.root == trained.folder.root
