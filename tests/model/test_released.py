"""The released weights: what they compute, what they are called, and which files are refused."""

import json
import math
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ponticello.config import Config
from ponticello.errors import CheckpointError, ConfigError, PonticelloError
from ponticello.model.htcl import HTCL, Embeddings, HTCLConfig
from ponticello.model.released import (
    import_released,
    read_weights,
    released_config,
    rename_released,
)
from ponticello.model.text_encoder import load_text_encoder
from ponticello.train.losses import PreferenceLoss, SemanticLoss

REFERENCE = Path(__file__).parents[1] / "reference"
RELEASED = REFERENCE / "released_layout_tiny.safetensors"
TOLERANCE = 1e-5
SMALL_BERT = {
    "model_type": "bert",
    "vocab_size": 10,
    "hidden_size": 768,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
}


class Trap:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return load_file(RELEASED)


@pytest.fixture(scope="module")
def behaviour() -> dict[str, Tensor]:
    return load_file(REFERENCE / "released_behaviour_tiny.safetensors")


@pytest.fixture(scope="module")
def layout() -> dict[str, Any]:
    released: dict[str, Any] = json.loads(
        (REFERENCE / "released_layout.json").read_text(encoding="utf-8")
    )
    return released


@pytest.fixture(scope="module")
def model() -> HTCL:
    return load(RELEASED)[0]


def load(path: Path) -> tuple[HTCL, list[str]]:
    return import_released(path, n_heads=4, text_heads=4)


def no_padding(mel: Tensor) -> Tensor:
    return torch.zeros(mel.shape[:2], dtype=torch.bool)


@torch.no_grad()
def embed(model: HTCL, behaviour: dict[str, Tensor], side: str) -> Embeddings:
    mel = behaviour[f"mel_{side}"]  # normalised already
    embeddings: Embeddings = model(
        mel, no_padding(mel), behaviour[f"input_ids_{side}"], behaviour[f"attention_mask_{side}"]
    )
    return embeddings


def both_sides(model: HTCL, behaviour: dict[str, Tensor]) -> Embeddings:
    sides = [embed(model, behaviour, side) for side in ("anchor", "positive")]
    audio, text, fused = (
        torch.cat([getattr(side, name) for side in sides]) for name in ("audio", "text", "fused")
    )
    return Embeddings(audio, text, fused, sides[0].logit_scales)


def assert_close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)


def paper_model() -> HTCL:
    """The `paper` preset at full size, without memory for its weights; its text tower is small."""
    with torch.device("meta"):
        return HTCL(HTCLConfig(Config.from_preset("paper").model_dump(mode="json"), SMALL_BERT))


def shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


# What the released weights compute


def test_audio_encoder_gives_the_released_token_states(
    model: HTCL, behaviour: dict[str, Tensor]
) -> None:
    mel = behaviour["mel_anchor"]
    with torch.no_grad():
        tokens, mask = model.audio_encoder(mel, no_padding(mel))
    assert not mask.any()
    assert_close(tokens, behaviour["expected.audio_hidden_anchor"])


@pytest.mark.parametrize("side", ["anchor", "positive"])
def test_heads_give_the_released_vectors(
    model: HTCL, behaviour: dict[str, Tensor], side: str
) -> None:
    embeddings = embed(model, behaviour, side)
    assert_close(embeddings.audio, behaviour[f"expected.audio_{side}"])
    assert_close(embeddings.text, behaviour[f"expected.text_{side}"])
    assert_close(embeddings.fused, behaviour[f"expected.fusion_{side}"])


def test_stage_one_loss_is_the_released_one(model: HTCL, behaviour: dict[str, Tensor]) -> None:
    numbers = torch.arange(6)
    losses = SemanticLoss(gather_negatives=False)(
        embed(model, behaviour, "anchor"), numbers, numbers
    )
    assert set(losses) == {"audio_text"}
    assert_close(losses["audio_text"], behaviour["expected.loss_stage1_anchor"].squeeze())


def test_stage_two_losses_are_the_released_ones(model: HTCL, behaviour: dict[str, Tensor]) -> None:
    numbers = torch.arange(12)
    losses = PreferenceLoss(gather_negatives=False)(both_sides(model, behaviour), numbers, numbers)
    assert set(losses) == {"audio_text", "audio_audio", "audio_fusion"}
    for name, loss in losses.items():
        assert_close(loss, behaviour[f"expected.loss_{name}"].squeeze())
    assert_close(
        torch.stack(list(losses.values())).sum(), behaviour["expected.loss_stage2"].squeeze()
    )


def test_every_released_number_is_reproduced_above(behaviour: dict[str, Tensor]) -> None:
    """4 losses of stage two, 1 of stage one, 3 vectors of 2 sides, 1 encoder output: 12 of 12."""
    assert len([name for name in behaviour if name.startswith("expected.")]) == 12


# What they are called


def test_paper_preset_has_exactly_the_released_audio_tensors(layout: dict[str, Any]) -> None:
    released = {
        name: torch.empty(shape, device="meta")
        for name, shape in layout["released_audio_state_dict"].items()
    }
    renamed = rename_released(released)
    assert len(renamed) == len(released) == 165
    ours = {
        name: weight
        for name, weight in paper_model().state_dict().items()
        if name.startswith("audio_encoder.")
    }
    assert shapes(renamed) == shapes(ours)


def test_paper_preset_has_the_released_heads_and_scales(layout: dict[str, Any]) -> None:
    released = {
        "audio_model.cls_token": torch.empty(1, 1, 768),
        **{f"tau_{i}": torch.empty(()) for i in (1, 2, 3)},
    }
    for head, sizes in layout["released_heads"].items():
        for place, n_in, n_out in zip((0, 3, 6), sizes, sizes[1:], strict=False):
            released[f"{head}.{place}.weight"] = torch.empty(n_out, n_in)
            released[f"{head}.{place}.bias"] = torch.empty(n_out)
    towers = ("audio_encoder.", "text_encoder.")
    ours = {
        name: weight
        for name, weight in paper_model().state_dict().items()
        if not name.startswith(towers)
    }
    renamed = {
        name: weight
        for name, weight in rename_released(released).items()
        if not name.startswith(towers)
    }
    assert len(ours) == 3 * 6 + 3
    assert shapes(renamed) == shapes(ours)


def test_paper_audio_tower_has_88_500_511_parameters(layout: dict[str, Any]) -> None:
    """Convolutions 328,704 + 2 * 787,456; projection 395,008; positions 1,145,119; norm and CLS
    2,304;
    12 layers of 7,087,872: 88,500,511, to which the released list sums as well.
    """
    assert sum(weight.numel() for weight in paper_model().audio_encoder.parameters()) == 88_500_511
    assert (
        sum(math.prod(shape) for shape in layout["released_audio_state_dict"].values())
        == 88_500_511
    )


def test_every_tensor_of_the_file_arrives_unchanged(
    model: HTCL, weights: dict[str, Tensor]
) -> None:
    state, renamed = model.state_dict(), rename_released(weights)
    assert set(renamed) == set(state)
    for name, weight in renamed.items():
        assert torch.equal(state[name], weight), name


def test_scales_keep_their_released_order() -> None:
    scales = {f"tau_{number}": torch.tensor(number) for number in (1, 2, 3)}
    renamed = rename_released({"audio_model.cls_token": torch.tensor(0), **scales})
    assert {name: int(value) for name, value in renamed.items()} == {
        "audio_encoder.cls_token": 0,
        "logit_scales.audio_text": 1,
        "logit_scales.audio_audio": 2,
        "logit_scales.audio_fusion": 3,
    }


def test_sizes_are_read_from_the_shapes(
    model: HTCL, weights: dict[str, Tensor], layout: dict[str, Any]
) -> None:
    config = released_config(rename_released(weights), 4, 4)
    audio, tiny = config.checked_settings.audio, layout["tiny_audio_config"]
    assert config.checked_settings.mel.n_mels == tiny["input_dim"]
    assert list(audio.conv_channels) == tiny["conv_filters"]
    assert list(audio.conv_kernels) == tiny["conv_kernels"]
    assert list(audio.conv_strides) == tiny["conv_strides"]
    assert audio.hidden_size == tiny["hidden_size"]
    assert audio.n_layers == tiny["num_hidden_layers"]
    assert audio.n_heads == tiny["num_attention_heads"]
    assert audio.ffn_size == tiny["intermediate_size"]
    assert audio.position_kernel == tiny["kernel_size_pos_conv_emb"]
    assert audio.position_groups == tiny["groups_pos_conv_emb"]
    assert [
        *config.checked_settings.heads.hidden_sizes,
        config.checked_settings.heads.embed_dim,
    ] == layout["tiny_heads"]["audio_mlp"][1:]
    assert (
        list(config.checked_settings.heads.fusion_hidden_sizes)
        == layout["tiny_heads"]["fusion_mlp"][1:3]
    )
    assert {name: config.text_config[name] for name in layout["tiny_bert_config"]} == layout[
        "tiny_bert_config"
    ]
    assert config.checked_settings.mel.released_padding
    assert config.checked_settings.text.pooling == "pooler"
    assert not model.training


# Which files load


def test_full_stage_two_file_leaves_nothing_fresh() -> None:
    assert load(RELEASED)[1] == []


def test_stage_one_file_leaves_fusion_and_its_scales_fresh(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    stage_one = {
        name: weight
        for name, weight in weights.items()
        if not name.startswith(("fusion_mlp.", "tau_"))
    }
    save_file({**stage_one, "tau": torch.tensor(3.25)}, tmp_path / "stage_one.safetensors")
    model, fresh = load(tmp_path / "stage_one.safetensors")
    assert fresh == ["fusion_head", "logit_scales"]
    assert {name: scale.item() for name, scale in model.logit_scales.items()} == {
        "audio_text": 3.25,
        "audio_audio": pytest.approx(2.6),
        "audio_fusion": pytest.approx(2.6),
    }


def test_pth_file_of_plain_tensors_gives_the_same_weights(
    tmp_path: Path, model: HTCL, weights: dict[str, Tensor]
) -> None:
    torch.save(weights, tmp_path / "released.pth")
    loaded, fresh = load(tmp_path / "released.pth")
    assert fresh == []
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_file_saved_under_data_parallel_gives_the_same_weights(
    tmp_path: Path, model: HTCL, weights: dict[str, Tensor]
) -> None:
    save_file(
        {f"module.{name}": weight for name, weight in weights.items()}, tmp_path / "ddp.safetensors"
    )
    loaded, fresh = load(tmp_path / "ddp.safetensors")
    assert fresh == []
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name


def test_tokenizer_comes_with_the_text_tower(text_encoder_folder: Path) -> None:
    loaded, _ = import_released(
        RELEASED, n_heads=4, text_heads=4, tokenizer=str(text_encoder_folder)
    )
    assert loaded.tokenizer.tokenize("slow piece by 7") == ["slow", "piece", "by", "7"]
    assert load(RELEASED)[0].tokenizer is None


def test_tokenizer_with_more_words_than_the_text_tower_is_refused(
    text_encoder_folder: Path, tmp_path: Path
) -> None:
    """The released file has 120 word vectors; the encoder that the tokenizer comes with has as many
    as it needs.
    """
    encoder, tokenizer = load_text_encoder(str(text_encoder_folder))
    encoder.resize_token_embeddings(200)
    encoder.save_pretrained(str(tmp_path))
    words = [f"word{number}" for number in range(120 - len(tokenizer))]
    tokenizer.add_tokens(words)
    tokenizer.save_pretrained(str(tmp_path))
    loaded, _ = import_released(RELEASED, n_heads=4, text_heads=4, tokenizer=str(tmp_path))
    assert np.isfinite(loaded.encode_text([words[-1]])).all()
    tokenizer.add_tokens(["harpsichord"])
    tokenizer.save_pretrained(str(tmp_path))
    with pytest.raises(
        CheckpointError,
        match=r"tokenizer of '.*' knows 121 tokens, the text encoder 120: they do not",
    ):
        import_released(RELEASED, n_heads=4, text_heads=4, tokenizer=str(tmp_path))


def test_text_longer_than_the_position_table_is_cut(text_encoder_folder: Path) -> None:
    """The file's table has 64 positions; `text.max_tokens` is 128 else."""
    loaded, _ = import_released(
        RELEASED, n_heads=4, text_heads=4, tokenizer=str(text_encoder_folder)
    )
    assert loaded.settings.text.max_tokens == 64
    full, longer = loaded.encode_text([" ".join(["slow", "fast"] * n) for n in (31, 60)])
    np.testing.assert_array_equal(longer, full)


def test_imported_model_survives_saving(
    tmp_path: Path, model: HTCL, behaviour: dict[str, Tensor]
) -> None:
    model.save_pretrained(tmp_path)
    again = embed(HTCL.from_pretrained(tmp_path), behaviour, "anchor")
    assert_close(again.audio, behaviour["expected.audio_anchor"])
    assert_close(again.fused, behaviour["expected.fusion_anchor"])


# Which files are refused


def test_pth_file_with_code_is_refused_and_never_run(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    torch.save({**weights, "extra": Trap(tmp_path / "trapped")}, tmp_path / "released.pth")
    with pytest.raises(
        CheckpointError, match=r"released\.pth cannot be read as plain weights: UnpicklingError"
    ):
        load(tmp_path / "released.pth")
    assert not (tmp_path / "trapped").exists()
    torch.load(tmp_path / "released.pth", weights_only=False)
    assert (tmp_path / "trapped").exists(), "the trap of this test does not work"


def test_modules_lying_in_the_current_folder_are_not_run(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(weights, tmp_path / "released.pth")
    for name in ("torch", "safetensors"):
        (tmp_path / f"{name}.py").write_text(
            f"open({str(tmp_path / 'trapped')!r}, 'w').close()\n", encoding="utf-8"
        )
    monkeypatch.chdir(tmp_path)
    read = read_weights(Path("released.pth"))
    assert set(read) == set(weights)
    assert not (tmp_path / "trapped").exists()


def test_pth_file_that_is_no_state_dict_is_refused(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    with pytest.raises(
        CheckpointError,
        match="cannot be read as plain weights: the file is not a state dict of tensors",
    ):
        read_weights(tmp_path / "epoch.pth")


def test_truncated_pth_file_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    torch.save(weights, tmp_path / "whole.pth")
    assert zipfile.is_zipfile(tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"cut\.pth cannot be read as plain weights"):
        read_weights(tmp_path / "cut.pth")


@pytest.mark.parametrize("n_bytes", [0, 5, 1000, -1000])
def test_truncated_safetensors_file_is_refused(tmp_path: Path, n_bytes: int) -> None:
    (tmp_path / "cut.safetensors").write_bytes(RELEASED.read_bytes()[:n_bytes])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors"):
        load(tmp_path / "cut.safetensors")


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth does not exist"):
        load(tmp_path / "none.pth")


def test_foreign_names_are_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    save_file({**weights, "decoder.weight": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(
        CheckpointError, match=r"weight 'decoder\.weight' is not part of the released layout"
    ):
        load(tmp_path / "foreign.safetensors")


def test_tensors_beyond_the_layers_of_the_layout_are_refused(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    save_file(
        {**weights, "audio_model.layer_norm.scale": torch.zeros(2)}, tmp_path / "more.safetensors"
    )
    with pytest.raises(
        CheckpointError, match=r"holds tensors the layout does not have: audio_encoder\.norm\.scale"
    ):
        load(tmp_path / "more.safetensors")


def test_bare_audio_encoder_is_refused_for_want_of_a_text_tower(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    prefix = "audio_model."
    bare = {
        name.removeprefix(prefix): weight
        for name, weight in weights.items()
        if name.startswith(prefix)
    }
    save_file(bare, tmp_path / "audio.safetensors")
    with pytest.raises(
        CheckpointError, match="the file has no text encoder: give the stage-one or stage-two file"
    ):
        load(tmp_path / "audio.safetensors")


def test_empty_file_is_refused(tmp_path: Path) -> None:
    save_file({}, tmp_path / "empty.safetensors")
    with pytest.raises(CheckpointError):
        load(tmp_path / "empty.safetensors")


def test_file_that_lacks_a_tensor_of_a_tower_is_refused(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    failures = []
    for name in weights:
        if name.startswith(("audio_model.", "text_model.")):
            save_file(
                {key: value for key, value in weights.items() if key != name},
                tmp_path / "lacks.safetensors",
            )
            try:
                load(tmp_path / "lacks.safetensors")
            except CheckpointError:
                continue
            except Exception as error:
                failures.append(f"{name}: {error!r}")
            else:
                failures.append(f"{name}: loaded")
    assert failures == []


def test_head_that_lacks_one_tensor_is_refused_or_named_fresh(
    tmp_path: Path, weights: dict[str, Tensor]
) -> None:
    failures = []
    for name in weights:
        if "_mlp." in name:
            save_file(
                {key: value for key, value in weights.items() if key != name},
                tmp_path / "lacks.safetensors",
            )
            try:
                fresh = load(tmp_path / "lacks.safetensors")[1]
            except CheckpointError:
                continue
            except Exception as error:
                failures.append(f"{name}: {error!r}")
            else:
                if fresh != [name.split("_")[0] + "_head"]:
                    failures.append(f"{name}: fresh is {fresh}")
    assert failures == []


def test_tensor_of_the_wrong_shape_is_refused(tmp_path: Path, weights: dict[str, Tensor]) -> None:
    failures = []
    for name in weights:
        save_file({**weights, name: torch.zeros(7, 7)}, tmp_path / "shape.safetensors")
        try:
            load(tmp_path / "shape.safetensors")
        except PonticelloError:
            continue
        except Exception as error:
            failures.append(f"{name}: {error!r}")
        else:
            failures.append(f"{name}: loaded")
    assert failures == []


@pytest.mark.parametrize(("n_heads", "text_heads"), [(5, 4), (4, 5)])
def test_heads_that_do_not_divide_the_hidden_size_are_refused(
    n_heads: int, text_heads: int
) -> None:
    with pytest.raises((CheckpointError, ConfigError), match="5"):
        import_released(RELEASED, n_heads=n_heads, text_heads=text_heads)


def test_reading_a_pth_file_leaves_nothing_behind(
    tmp_path: Path, weights: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    torch.save({"tau": weights["tau_1"]}, tmp_path / "tau.pth")
    assert torch.equal(read_weights(tmp_path / "tau.pth")["tau"], weights["tau_1"])
    assert list((tmp_path / "temporary").iterdir()) == []
