"""Model folders give back what was saved and refuse what is damaged; what changes between the
stages.
"""

import json
import re
import shutil
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel

from ponticello.config import Config
from ponticello.errors import CheckpointError, PonticelloError
from ponticello.model.htcl import HTCL, SCALES
from ponticello.model.saving import CHECKSUMS, SPACE_FILE, run_config, space_id
from tests.small_htcl import (
    TEXTS,
    assert_same_weights,
    build,
    mels_of_any_length,
    small_config,
)

ARCHITECTURE_CHANGES = [
    {"mel": {"hop_length": 512}},
    {"audio": {"n_layers": 3}},
    {"text": {"pooling": "pooler"}},
    {"heads": {"embed_dim": 32}},
]


@pytest.fixture(scope="module")
def config(text_encoder_folder: Path) -> Config:
    return small_config(text_encoder_folder)


@pytest.fixture(scope="module")
def model(config: Config) -> HTCL:
    """In eval mode. Read only."""
    return build(config)


@pytest.fixture
def fresh(config: Config) -> HTCL:
    """A model to be changed."""
    return build(config)


@pytest.fixture(scope="module")
def saved(model: HTCL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder `model` was saved to. Read only."""
    folder = tmp_path_factory.mktemp("saved")
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    """The saved folder, to be damaged, without its hashes."""
    folder = Path(shutil.copytree(saved, tmp_path / "model"))
    (folder / CHECKSUMS).unlink()
    return folder


@pytest.fixture(scope="module")
def mels(config: Config) -> list[np.ndarray]:
    return mels_of_any_length(config)


def change_json(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def test_saved_model_comes_back_bit_for_bit(
    model: HTCL, saved: Path, mels: list[np.ndarray]
) -> None:
    loaded = HTCL.from_pretrained(saved)
    assert_same_weights(loaded, model)
    assert loaded.settings == model.settings
    assert not loaded.training
    assert loaded.tokenizer.get_vocab() == model.tokenizer.get_vocab()
    np.testing.assert_array_equal(loaded.encode_text(TEXTS), model.encode_text(TEXTS))
    np.testing.assert_array_equal(loaded.encode_features(mels[:4]), model.encode_features(mels[:4]))


def test_saving_what_was_loaded_writes_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    HTCL.from_pretrained(str(saved)).save_pretrained(str(tmp_path))
    names = {path.name for path in saved.iterdir()}
    assert {path.name for path in tmp_path.iterdir()} == names
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes(), name


def test_auto_model_loads_it(model: HTCL, saved: Path) -> None:
    loaded = AutoModel.from_pretrained(str(saved))
    assert isinstance(loaded, HTCL)
    assert_same_weights(loaded, model)


def test_folder_is_complete_and_holds_no_pickle(saved: Path) -> None:
    names = {path.name for path in saved.rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= names
    assert {name for name in names if not name.endswith((".json", ".safetensors", ".txt"))} == set()


def test_folder_needs_nothing_else(
    saved: Path, config: Config, tmp_path: Path, model: HTCL
) -> None:
    """The text encoder it was made from may be gone: its name is kept, its folder is not read
    again.
    """
    moved = shutil.copytree(saved, tmp_path / "moved")
    (moved / CHECKSUMS).unlink()
    gone = str(tmp_path / "gone")
    change_json(
        moved / "config.json", lambda content: content["settings"]["text"].update(name=gone)
    )
    loaded = HTCL.from_pretrained(moved)
    assert loaded.settings.text.name == gone != config.text.name
    np.testing.assert_array_equal(loaded.encode_text(TEXTS), model.encode_text(TEXTS))


def test_model_without_a_tokenizer_loads_without_one(fresh: HTCL, tmp_path: Path) -> None:
    fresh.tokenizer = None
    fresh.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        CHECKSUMS,
        SPACE_FILE,
    ]
    assert HTCL.from_pretrained(tmp_path).tokenizer is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weight_that_is_not_finite_is_not_saved(fresh: HTCL, tmp_path: Path, value: float) -> None:
    with torch.no_grad():
        fresh.get_parameter("audio_head.linears.0.bias")[3] = value
    with pytest.raises(
        CheckpointError,
        match=r"weight audio_head\.linears\.0\.bias is not finite: nothing was saved",
    ):
        fresh.save_pretrained(tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(
            CheckpointError,
            match=r"holds no model \(config\.json is missing\); train one, or check",
        ):
            HTCL.from_pretrained(place)


def test_folder_without_weights_is_refused(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"cannot be loaded: .*model\.safetensors"):
        HTCL.from_pretrained(copy)


def test_damaged_weights_are_refused_by_their_hash(saved: Path, tmp_path: Path) -> None:
    """One byte near the end, which is a weight's."""
    damaged = Path(shutil.copytree(saved, tmp_path / "model"))
    content = bytearray((damaged / "model.safetensors").read_bytes())
    content[-2] ^= 1
    (damaged / "model.safetensors").write_bytes(content)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is not what was saved \(sha256\.json\)"
    ):
        HTCL.from_pretrained(damaged)


def test_pickled_weights_are_not_read(copy: Path, model: HTCL) -> None:
    (copy / "model.safetensors").unlink()
    torch.save(model.state_dict(), copy / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HTCL.from_pretrained(copy)


@pytest.mark.parametrize("n_bytes", [0, 100, -100])
def test_truncated_weights_are_refused(copy: Path, n_bytes: int) -> None:
    whole = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(whole[:n_bytes])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HTCL.from_pretrained(copy)


def test_weights_that_lack_a_tensor_are_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    del weights["audio_head.linears.0.weight"]
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"audio_head\.linears\.0\.weight"):
        HTCL.from_pretrained(copy)


def test_weights_of_another_shape_are_refused(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["audio_head.linears.0.weight"] = torch.zeros(2, 2)
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HTCL.from_pretrained(copy)


@pytest.mark.parametrize("content", ['{"model_type": ', "[" * 100_000])
def test_broken_configuration_is_refused(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        HTCL.from_pretrained(copy)


@pytest.mark.parametrize("content", ["", "[1]", "{}", "[" * 100_000])
def test_damaged_configuration_says_what_to_do(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(
        CheckpointError, match=r"config.json is damaged: copy the model again, or delete .*model"
    ):
        run_config(copy)


def test_unknown_setting_in_a_folder_is_refused(copy: Path) -> None:
    """By the model and by those that read its settings alone, with the file and what to do."""
    change_json(copy / "config.json", lambda content: content["settings"]["mel"].update(bogus=1))
    line = re.escape(f"{copy / 'config.json'}: setting 'mel.bogus' is unknown to Ponticello ")
    for read in (HTCL.from_pretrained, run_config, space_id):
        with pytest.raises(
            CheckpointError, match=rf"^{line}\S+: another version .* use that version, or delete "
        ):
            read(copy)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"mel": {"n_mels": "many"}},
            "setting 'mel.n_mels': Input should be a valid integer.*; found 'many'; mend it",
        ),
        (
            {"mel": 7},
            "setting 'mel': Input should be a valid dictionary.*; found '7'; mend it, or train "
            "again",
        ),
        (
            [1],
            "setting 'all of them': Input should be a valid dictionary .*; found '.1.'; mend it, "
            "or train again",
        ),
    ],
    ids=["value", "part", "all"],
)
def test_unusable_setting_in_a_folder_is_refused(copy: Path, settings: object, line: str) -> None:
    change_json(copy / "config.json", lambda content: content.update(settings=settings))
    for read in (HTCL.from_pretrained, run_config):
        with pytest.raises(
            CheckpointError, match=re.escape(str(copy / "config.json")) + f": {line}"
        ):
            read(copy)


def test_broken_tokenizer_is_refused(copy: Path) -> None:
    (copy / "tokenizer_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(PonticelloError):
        HTCL.from_pretrained(copy)


def test_tokenizer_of_another_model_is_refused(copy: Path, model: HTCL) -> None:
    larger = deepcopy(model.tokenizer)
    larger.add_tokens(["harpsichord"])
    larger.save_pretrained(str(copy))
    with pytest.raises(
        CheckpointError, match=r"the tokenizer of '.*model' knows \d+ tokens, the text encoder \d+:"
    ):
        HTCL.from_pretrained(copy)


def test_folder_of_another_kind_of_model_is_refused(text_encoder_folder: Path) -> None:
    with pytest.raises(CheckpointError, match="bert"):
        HTCL.from_pretrained(text_encoder_folder)


# Between the stages


def test_new_training_settings_are_taken_over_and_saved(
    fresh: HTCL, config: Config, tmp_path: Path
) -> None:
    changed = config.model_copy(
        update={"preference": config.preference.model_copy(update={"epochs": 77.0})}
    )
    fresh.use_settings(changed)
    assert fresh.settings.preference.epochs == 77
    fresh.save_pretrained(tmp_path)
    assert HTCL.from_pretrained(tmp_path).settings == changed


@pytest.mark.parametrize("change", ARCHITECTURE_CHANGES, ids=["mel", "audio", "text", "heads"])
def test_settings_of_another_model_are_refused(
    fresh: HTCL, config: Config, change: dict[str, Any]
) -> None:
    (part,) = change
    other = getattr(config, part).model_copy(update=change[part])
    with pytest.raises(
        CheckpointError, match=rf"the model was made with \[{part}\] .*; the settings now say "
    ):
        fresh.use_settings(config.model_copy(update={part: other}))
    assert fresh.settings == config
    assert fresh.config.settings == config.model_dump(mode="json")


def test_reset_heads_leaves_the_towers_alone(fresh: HTCL, model: HTCL) -> None:
    with torch.no_grad():
        for scale in fresh.logit_scales.values():
            scale.fill_(4.0)
    torch.manual_seed(99)
    fresh.reset_heads()
    assert_same_weights(fresh.audio_encoder, model.audio_encoder)
    assert_same_weights(fresh.text_encoder, model.text_encoder)
    for name in ("audio_head", "text_head", "fusion_head"):
        before, after = (
            model.get_submodule(name).state_dict(),
            fresh.get_submodule(name).state_dict(),
        )
        assert set(before) == set(after)
        for key, weight in before.items():
            assert not torch.equal(weight, after[key]), f"{name}.{key}"
            n_in = before[key.replace("bias", "weight")].shape[1]
            assert after[key].abs().max() <= n_in**-0.5  # PyTorch draws from +-1 / sqrt(inputs)
    assert {name: scale.item() for name, scale in fresh.logit_scales.items()} == {
        name: pytest.approx(2.6) for name in SCALES
    }
    assert all(weight.requires_grad for weight in fresh.parameters())


def test_fresh_scales_are_those_of_the_settings(config: Config) -> None:
    settings = config.model_copy(
        update={"heads": config.heads.model_copy(update={"logit_scale": 1.5})}
    )
    assert {
        name: scale.item() for name, scale in build(settings).logit_scales.items()
    } == dict.fromkeys(SCALES, 1.5)
