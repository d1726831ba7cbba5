"""export: a trained library's towers as ONNX, named by their space, and what a wrong run says."""

import json
from pathlib import Path

import numpy as np
import pytest

from ponticello.errors import CheckpointError
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.model.onnx import run_onnx
from ponticello.model.saving import space_id
from ponticello.model.text_encoder import tokenize
from tests.cli.commands import error, out

pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def test_towers_of_the_last_stage_are_written_and_answer_like_the_model(
    trained: Library, tmp_path: Path
) -> None:
    run = trained.folder.run("preference")
    said = json.loads(
        out("export", "--onnx", tmp_path / "towers", "-L", trained.folder.root, "--json")
    )
    assert (said["run"], said["space_id"]) == ("preference", space_id(run))
    assert max(said["audio_difference"], said["text_difference"]) < 1e-5
    assert json.loads((tmp_path / "towers" / "ponticello.json").read_text(encoding="utf-8"))[
        "space_id"
    ] == space_id(run)
    model = HTCL.from_pretrained(run)
    tokens = tokenize(["low dark slow"], model.tokenizer, model.settings.text.max_tokens)
    vector = run_onnx(tmp_path / "towers" / "text.onnx")(*(ids.numpy() for ids in tokens.values()))
    assert np.abs(vector - model.encode_text(["low dark slow"])).max() < 1e-5


def test_run_without_a_model_is_refused(trained: Library, tmp_path: Path) -> None:
    message = error(
        CheckpointError,
        "export",
        "--onnx",
        tmp_path / "x",
        "--run",
        "none",
        "-L",
        trained.folder.root,
    )
    assert "holds no model; train it with: ponticello train" in message
    assert not (tmp_path / "x").exists()
