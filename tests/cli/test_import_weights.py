"""import-weights: a model folder from weights in the released layout."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from ponticello.cli.main import app
from ponticello.errors import CheckpointError, ConfigError
from ponticello.model.htcl import HTCL
from tests.cli.commands import error, out

RELEASED = Path(__file__).parents[1] / "reference" / "released_layout_tiny.safetensors"
HEADS = ["--heads", "4", "--text-heads", "4"]


def test_released_weights_become_a_folder_that_loads_with_the_same_numbers(tmp_path: Path) -> None:
    printed = out("import-weights", RELEASED, tmp_path / "model", *HEADS, "--tokenizer", "")
    model = HTCL.from_pretrained(tmp_path / "model")
    n_parameters = sum(parameter.numel() for parameter in model.parameters())
    assert printed == f"{n_parameters:,} parameters in {tmp_path / 'model'}\n"
    released = load_file(RELEASED)
    assert torch.equal(model.audio_encoder.cls_token, released["audio_model.cls_token"])
    assert torch.equal(model.logit_scales["audio_fusion"], released["tau_3"])
    assert model.settings.audio.n_heads == 4
    assert model.text_encoder.config.num_attention_heads == 4
    assert model.tokenizer is None


def test_tokenizer_of_a_local_folder_is_saved_beside(
    tmp_path: Path, text_encoder_folder: Path
) -> None:
    out("import-weights", RELEASED, tmp_path / "model", *HEADS, "--tokenizer", text_encoder_folder)
    tokens = HTCL.from_pretrained(tmp_path / "model").tokenizer("slow dark")["input_ids"]
    words = (text_encoder_folder / "vocab.txt").read_text(encoding="utf-8").split()
    assert [words[token] for token in tokens] == ["[CLS]", "slow", "dark", "[SEP]"]


def test_tokenizer_that_is_not_here_is_not_fetched_unasked(tmp_path: Path) -> None:
    message = error(
        CheckpointError,
        "import-weights",
        RELEASED,
        tmp_path / "model",
        *HEADS,
        "--tokenizer",
        tmp_path / "nowhere",
    )
    assert message.startswith(f"text encoder '{tmp_path / 'nowhere'}' cannot be loaded: ")
    assert message.endswith(
        "(nothing is fetched unasked: give --allow-download, or a local folder)"
    )
    assert not (tmp_path / "model").exists()


def test_parts_the_file_lacks_are_named(tmp_path: Path) -> None:
    """Stage one has no fusion head and one scale."""
    weights = {
        name: weight
        for name, weight in load_file(RELEASED).items()
        if not name.startswith(("fusion_mlp.", "tau_2", "tau_3"))
    }
    save_file(weights, tmp_path / "one.safetensors")
    printed = out(
        "import-weights",
        tmp_path / "one.safetensors",
        tmp_path / "model",
        *HEADS,
        "--tokenizer",
        "",
    )
    assert printed.endswith(
        f"{tmp_path / 'model'}; not in the file, so newly initialised: fusion_head, logit_scales\n"
    )


def test_missing_file_is_refused(tmp_path: Path) -> None:
    message = error(
        CheckpointError,
        "import-weights",
        tmp_path / "gone.pth",
        tmp_path / "model",
        "--tokenizer",
        "",
    )
    assert message == f"{tmp_path / 'gone.pth'} does not exist"


def test_file_that_is_no_safetensors_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    message = error(
        CheckpointError,
        "import-weights",
        tmp_path / "bad.safetensors",
        tmp_path / "model",
        "--tokenizer",
        "",
    )
    assert message.startswith(f"{tmp_path / 'bad.safetensors'} cannot be read as plain weights: ")
    assert "\n" not in message
    assert not (tmp_path / "model").exists()


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    message = error(
        CheckpointError,
        "import-weights",
        tmp_path / "other.safetensors",
        tmp_path / "model",
        "--tokenizer",
        "",
    )
    assert (
        message == "weight 'layer.weight' is not part of the released layout; is this an HTCL file?"
    )


def test_heads_that_do_not_divide_the_width_are_refused(tmp_path: Path) -> None:
    message = error(
        ConfigError,
        "import-weights",
        RELEASED,
        tmp_path / "model",
        "--heads",
        "7",
        "--tokenizer",
        "",
    )
    assert message == "n_heads 7 must divide hidden_size 48; change one of them"


@pytest.mark.parametrize("option", ["--heads", "--text-heads"])
def test_no_heads_at_all_is_a_usage_error(tmp_path: Path, option: str) -> None:
    result = CliRunner().invoke(
        app, ["import-weights", str(RELEASED), str(tmp_path / "model"), option, "0"]
    )
    assert result.exit_code == 2
    assert option in result.stderr
