"""Sound and words to vectors: order, batches, files and waveforms, the mode a model is in, and bad
input.
"""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AutoModel

from ponticello.audio.mel import log_mel, mel_of_file
from ponticello.config import Config
from ponticello.errors import AudioError, CheckpointError, ShapeError
from ponticello.model.batching import pad_features
from ponticello.model.htcl import HTCL, SCALES
from ponticello.model.text_encoder import tokenize
from tests.small_htcl import (
    MIN_FRAMES,
    TEXTS,
    assert_close,
    assert_same_weights,
    build,
    mels_of_any_length,
    small_config,
)
from tests.synthetic import SyntheticCatalogue

EMBED_DIM = 64  # of the tiny preset


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
def mels(config: Config) -> list[np.ndarray]:
    return mels_of_any_length(config)


@pytest.fixture(scope="module")
def inputs(model: HTCL, mels: list[np.ndarray], config: Config) -> dict[str, Tensor]:
    mel, mask = pad_features(mels[: len(TEXTS)], config.mel, MIN_FRAMES)
    return {
        "features": mel,
        "padding_mask": mask,
        **tokenize(TEXTS, model.tokenizer, config.text.max_tokens),
    }


def test_vectors_have_unit_length(model: HTCL, mels: list[np.ndarray]) -> None:
    for vectors, n in (
        (model.encode_features(mels), len(mels)),
        (model.encode_text(TEXTS), len(TEXTS)),
    ):
        assert vectors.dtype == np.float32
        assert vectors.shape == (n, EMBED_DIM)
        assert_close(np.linalg.norm(vectors, axis=1), np.ones(n))


def test_order_is_kept_for_every_batch_size(model: HTCL, mels: list[np.ndarray]) -> None:
    audio, text = (
        model.encode_features(mels, batch_size=32),
        model.encode_text(TEXTS, batch_size=32),
    )
    states = model.encode_text_states(TEXTS)
    for batch_size in (2, 7):
        assert_close(model.encode_features(mels, batch_size), audio)
        assert_close(model.encode_text(TEXTS, batch_size), text)
        assert_close(model.encode_text_states(TEXTS, batch_size), states)
    assert_close(model.encode_features(mels[7::-1]), audio[7::-1])
    assert_close(model.encode_text(TEXTS[::-1]), text[::-1])


def test_nothing_to_encode_gives_no_rows(model: HTCL) -> None:
    assert model.encode_audio([]).shape == (0, EMBED_DIM)
    assert model.encode_features([]).shape == (0, EMBED_DIM)
    assert model.encode_text([]).shape == (0, EMBED_DIM)
    assert model.encode_text_states([]).shape == (0, 32)
    assert model.encode_text_from_states(np.empty((0, 32), dtype=np.float32)).shape == (
        0,
        EMBED_DIM,
    )


def test_audio_file_is_the_mel_of_its_sound(
    model: HTCL, config: Config, catalogue: SyntheticCatalogue, tmp_path: Path
) -> None:
    path = tmp_path / "sound.flac"
    soundfile.write(path, catalogue.waveforms[0], 16_000, subtype="PCM_16")
    (from_path,) = model.encode_audio([path])
    np.testing.assert_array_equal(
        from_path, model.encode_features([mel_of_file(path, config.mel)])[0]
    )
    np.testing.assert_array_equal(from_path, model.encode_audio([str(path)])[0])


def test_waveform_is_heard_as_its_file_would_be(
    model: HTCL, config: Config, catalogue: SyntheticCatalogue, tmp_path: Path
) -> None:
    first, second = catalogue.waveforms[:2]
    soundfile.write(tmp_path / "sound.wav", first, 16_000, subtype="FLOAT")
    vectors = model.encode_audio([second, tmp_path / "sound.wav", first])
    assert_close(vectors[1], vectors[2])
    assert_close(
        vectors[0], model.encode_features([log_mel(second, config.mel).astype(np.float16)])[0]
    )
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_encoding_does_not_change_the_training_mode(fresh: HTCL, mels: list[np.ndarray]) -> None:
    quiet = fresh.encode_features(mels[:2]), fresh.encode_text(TEXTS)
    assert not any(module.training for module in fresh.modules())
    fresh.train()
    assert_close(fresh.encode_features(mels[:2]), quiet[0])  # without dropout all the same
    assert_close(fresh.encode_text(TEXTS), quiet[1])
    assert all(module.training for module in fresh.modules())


def test_encoding_keeps_a_part_that_was_put_to_eval_in_eval(
    fresh: HTCL, mels: list[np.ndarray]
) -> None:
    fresh.train()
    fresh.text_encoder.train(False)
    fresh.encode_features(mels[:1])
    assert fresh.audio_encoder.training
    assert not fresh.text_encoder.training


def test_failed_encoding_does_not_change_the_training_mode(fresh: HTCL) -> None:
    fresh.train()
    with pytest.raises(ShapeError):
        fresh.encode_features([np.zeros((20, 5), dtype=np.float16)])
    assert fresh.training


def test_text_head_follows_the_text_states(model: HTCL) -> None:
    states = torch.from_numpy(model.encode_text_states(TEXTS))
    assert states.shape == (len(TEXTS), 32)
    with torch.no_grad():
        assert_close(F.normalize(model.text_head(states), dim=-1), model.encode_text(TEXTS))
    for batch_size in (2, 512):
        assert_close(
            model.encode_text_from_states(states.numpy(), batch_size), model.encode_text(TEXTS)
        )


def test_text_is_cut_to_max_tokens(model: HTCL, config: Config) -> None:
    """64 tokens are 62 words between the special ones; what follows is not read."""
    words = ["slow", "fast"] * 31
    full, longer = model.encode_text([" ".join(words), " ".join([*words, *["bright"] * 30])])
    assert config.text.max_tokens == 64
    assert_close(longer, full)


# Forward


@torch.no_grad()
def test_forward_with_text_states_equals_forward_with_tokens(
    model: HTCL, inputs: dict[str, Tensor]
) -> None:
    with_tokens = model(**inputs)
    states = torch.from_numpy(model.encode_text_states(TEXTS))
    with_states = model(inputs["features"], inputs["padding_mask"], text_states=states)
    assert_close(with_states.audio, with_tokens.audio)
    assert_close(with_states.text, with_tokens.text)
    assert_close(with_states.fused, with_tokens.fused)


@torch.no_grad()
def test_forward_gives_what_is_encoded_before_normalisation(
    model: HTCL, inputs: dict[str, Tensor]
) -> None:
    embeddings = model(**inputs)
    assert_close(F.normalize(embeddings.text, dim=-1), model.encode_text(TEXTS))
    joined = torch.cat([embeddings.audio, embeddings.text], dim=-1)
    assert_close(embeddings.fused, model.fusion_head(joined))
    assert (embeddings.audio.norm(dim=-1) - 1).abs().min() > 1e-3
    assert {name: scale.item() for name, scale in embeddings.logit_scales.items()} == {
        name: pytest.approx(2.6) for name in SCALES
    }


def test_every_trainable_part_gets_a_gradient(fresh: HTCL, inputs: dict[str, Tensor]) -> None:
    embeddings = fresh(**inputs)
    total = embeddings.audio.sum() + embeddings.text.sum() + embeddings.fused.sum()
    (total * torch.stack(list(embeddings.logit_scales.values())).sum()).backward()
    silent = {name for name, weight in fresh.named_parameters() if weight.grad is None}
    assert silent == {
        "text_encoder.pooler.dense.weight",
        "text_encoder.pooler.dense.bias",
    }  # the mean does without it


def test_forward_without_texts_is_refused(model: HTCL, inputs: dict[str, Tensor]) -> None:
    for given in (
        {},
        {"input_ids": inputs["input_ids"]},
        {"attention_mask": inputs["attention_mask"]},
    ):
        with pytest.raises(
            ShapeError, match="forward needs input_ids and attention_mask, or text_states"
        ):
            model(inputs["features"], inputs["padding_mask"], **given)


def test_bad_input_is_refused(model: HTCL, tmp_path: Path) -> None:
    with pytest.raises(
        ShapeError,
        match=r"a log-mel must be \(frames, 128\) with at least one frame; found \(20, 5\)",
    ):
        model.encode_features([np.zeros((20, 5), dtype=np.float16)])
    with pytest.raises(ShapeError, match="a waveform must have one dimension"):
        model.encode_audio([np.zeros((2, 16_000), dtype=np.float32)])
    with pytest.raises(AudioError, match="there is no such file"):
        model.encode_audio([tmp_path / "none.wav"])


def test_a_single_item_gives_a_single_vector_as_in_sentence_transformers(
    model: HTCL, catalogue: SyntheticCatalogue, tmp_path: Path
) -> None:
    """A str, a path or a waveform gives (d,), the row that a list of one gives."""
    path = tmp_path / "sound.wav"
    soundfile.write(path, catalogue.waveforms[0], 16_000, subtype="FLOAT")
    for item in (path, str(path), catalogue.waveforms[0]):
        assert model.encode_audio(item).shape == (EMBED_DIM,)
        np.testing.assert_array_equal(model.encode_audio(item), model.encode_audio([item])[0])
    assert model.encode_text("slow piano").shape == (EMBED_DIM,)
    for encode in (model.encode_text, model.encode_text_states):
        np.testing.assert_array_equal(encode("slow piano"), encode(["slow piano"])[0])


def test_arrays_and_tuples_of_texts_are_lists_of_them(model: HTCL) -> None:
    for texts in (tuple(TEXTS), np.array(TEXTS)):
        assert_close(model.encode_text(texts), model.encode_text(TEXTS))  # type: ignore[arg-type]


# Made from settings


def test_text_tower_is_the_pretrained_one(model: HTCL, text_encoder_folder: Path) -> None:
    assert_same_weights(model.text_encoder, AutoModel.from_pretrained(str(text_encoder_folder)))


def test_seed_decides_the_fresh_weights(config: Config, model: HTCL) -> None:
    assert_same_weights(build(config, seed=0), model)
    weights = [
        built.get_parameter("audio_head.linears.0.weight")
        for built in (model, build(config, seed=1))
    ]
    assert not torch.equal(*weights)


def test_layers_of_the_finished_model_have_different_weights(model: HTCL) -> None:
    first, second = model.audio_encoder.layers
    for name in (
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    ):
        assert not torch.equal(first.get_parameter(name), second.get_parameter(name)), name


def test_model_without_a_tokenizer_says_so(fresh: HTCL, mels: list[np.ndarray]) -> None:
    fresh.tokenizer = None
    assert len(fresh.encode_features(mels[:1])) == 1
    for encode in (fresh.encode_text, fresh.encode_text_states):
        with pytest.raises(
            CheckpointError, match="this model has no tokenizer; save one beside it"
        ):
            encode(["slow"])
