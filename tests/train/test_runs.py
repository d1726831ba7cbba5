"""How a finished run is told from one that cannot be used."""

import re
from pathlib import Path
from typing import Any

import pytest

from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.train.runs import finished_run, write_record

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
