"""A named Hugging Face audio encoder: pooled by hand, from this machine only, known again by its
weights.
"""

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModel, ClapConfig, ClapFeatureExtractor, ClapModel

from ponticello.errors import CheckpointError, DataError, ShapeError
from ponticello.features.huggingface import HuggingFaceExtractor, licence_of, load_audio_encoder
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.storage.layout import create_library

RATE = 16_000
NOISE = np.random.default_rng(0).normal(0, 0.1, 12 * RATE).astype(np.float32)


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLAP with fusion: two Swin stages, 24 joint dimensions."""
    folder = tmp_path_factory.mktemp("clap")
    audio = {
        "hidden_size": 16,
        "patch_embeds_hidden_size": 8,
        "depths": [1, 1],
        "num_attention_heads": [1, 2],
        "num_hidden_layers": 2,
        "spec_size": 128,
        "num_mel_bins": 16,
        "window_size": 4,
        "projection_dim": 24,
        "enable_fusion": True,
        "fusion_type": "aff_2d",
        "aff_block_r": 2,
    }
    text = {"vocab_size": 20, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text |= {"intermediate_size": 32, "projection_dim": 24}
    torch.manual_seed(0)
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)).save_pretrained(
        str(folder)
    )
    ClapFeatureExtractor(feature_size=16, truncation="fusion", padding="repeatpad").save_pretrained(
        str(folder)
    )
    return folder


def test_a_frame_is_the_mean_over_layers_and_time_of_five_seconds(
    audio_encoder_folder: Path,
) -> None:
    """12 s hold two whole windows; each is standardised by its own mean and deviation, as the
    extractor says.
    """
    frames = HuggingFaceExtractor(str(audio_encoder_folder), 60.0).extract(NOISE, RATE)
    assert frames.shape == (2, 32)
    assert frames.dtype == np.float16
    model = AutoModel.from_pretrained(str(audio_encoder_folder))
    model.train(False)
    for number in range(2):
        window = NOISE[number * 5 * RATE : (number + 1) * 5 * RATE]
        values = torch.from_numpy((window - window.mean()) / np.sqrt(window.var() + 1e-7))[None]
        with torch.no_grad():
            states = model(values, output_hidden_states=True).hidden_states
        assert len(states) == 3  # the input of the first layer, and two layers
        wanted = (states[1].mean(dim=1) + states[2].mean(dim=1)) / 2
        np.testing.assert_allclose(frames[number], wanted[0].numpy(), atol=2e-3)


def test_a_short_sound_is_repeated_and_a_long_one_cut(audio_encoder_folder: Path) -> None:
    front_end = HuggingFaceExtractor(str(audio_encoder_folder), 5.5)
    short = NOISE[: 3 * RATE]
    repeated = np.tile(short, 2)[: 5 * RATE]
    np.testing.assert_array_equal(front_end.extract(short, RATE), front_end.extract(repeated, RATE))
    np.testing.assert_array_equal(
        front_end.extract(NOISE, RATE), front_end.extract(NOISE[: 5 * RATE], RATE)
    )


def test_a_file_and_its_waveform_give_the_same(audio_encoder_folder: Path, tmp_path: Path) -> None:
    """The file at 16 kHz; the waveform again at 32 kHz, resampled on its way."""
    front_end = HuggingFaceExtractor(str(audio_encoder_folder), 60.0)
    soundfile.write(tmp_path / "a.wav", NOISE, RATE, subtype="FLOAT")
    heard = front_end.extract(tmp_path / "a.wav", 44_100).astype(np.float32)
    np.testing.assert_array_equal(heard, front_end.extract(NOISE, RATE))
    tone = np.sin(2 * np.pi * 440 * np.arange(5 * 2 * RATE) / (2 * RATE)).astype(np.float32)
    np.testing.assert_allclose(
        front_end.extract(tone, 2 * RATE), front_end.extract(tone[::2], RATE), atol=0.02
    )


def test_clap_gives_its_joint_vector_the_same_every_time(clap_folder: Path) -> None:
    """At 48 kHz; its extractor would mark one window at random as longer than it is."""
    front_end = HuggingFaceExtractor(str(clap_folder), 60.0)
    frames = front_end.extract(NOISE, RATE)
    assert frames.shape == (2, 24)
    np.testing.assert_allclose(np.linalg.norm(frames.astype(np.float64), axis=1), 1.0, atol=1e-3)
    for _ in range(3):
        np.testing.assert_array_equal(front_end.extract(NOISE, RATE), frames)
    np.testing.assert_allclose(
        front_end.extract(NOISE[5 * RATE : 10 * RATE], RATE)[0], frames[1], atol=5e-3
    )


def test_prepared_frames_carry_the_encoder_and_its_weights(
    audio_encoder_folder: Path, tmp_path: Path
) -> None:
    folder = create_library(tmp_path / "library", "tiny")
    soundfile.write(tmp_path / "a.wav", NOISE, RATE, subtype="FLOAT")
    front_end = HuggingFaceExtractor(str(audio_encoder_folder), 30.0)
    pl.DataFrame({"track_id": ["a"], "path": [str(tmp_path / "a.wav")]}).write_parquet(
        folder.tracks
    )
    preparation, files = front_end.job(folder)
    with folder.lock():
        prepare_features(folder, files, preparation, workers=4)
    (place,) = folder.frames.iterdir()
    store = FeatureStore(place)
    assert place.name.startswith("hf-")
    store.require(f"hf 1 30 {audio_encoder_folder}")
    store.require(
        f"hf 1 30 {audio_encoder_folder} @ {load_audio_encoder(str(audio_encoder_folder)).weights}"
    )
    assert store.weights == load_audio_encoder(str(audio_encoder_folder)).weights
    np.testing.assert_array_equal(store.read("a"), front_end.extract(NOISE, RATE))


def test_other_weights_under_the_same_name_are_refused(
    audio_encoder_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(audio_encoder_folder, tmp_path / "copy")
    before = load_audio_encoder(str(tmp_path / "copy")).weights
    weights = load_file(tmp_path / "copy" / "model.safetensors")
    weights["feature_projection.projection.bias"] = weights[
        "feature_projection.projection.bias"
    ] + np.float32(1)
    save_file(weights, tmp_path / "copy" / "model.safetensors", metadata={"format": "pt"})
    load_audio_encoder.cache_clear()
    after = load_audio_encoder(str(tmp_path / "copy")).weights
    assert before == load_audio_encoder(str(audio_encoder_folder)).weights != after
    HuggingFaceExtractor(str(tmp_path / "copy"), 30.0, after).extract(NOISE, RATE)
    with pytest.raises(
        CheckpointError, match=rf"has other weights \({after}\) than those .* \({before}\)"
    ):
        HuggingFaceExtractor(str(tmp_path / "copy"), 30.0, before).extract(NOISE, RATE)


def test_weights_that_are_missing_or_no_safetensors_are_refused(
    audio_encoder_folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(audio_encoder_folder, tmp_path / "part")
    weights = load_file(tmp_path / "part" / "model.safetensors")
    left_out = weights.pop("feature_projection.projection.weight")
    save_file(weights, tmp_path / "part" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError,
        match=r"does not hold all its weights: feature_projection\.projection\.weight",
    ):
        load_audio_encoder(str(tmp_path / "part"))
    (tmp_path / "part" / "model.safetensors").unlink()
    torch.save(
        {"feature_projection.projection.weight": torch.from_numpy(left_out)},
        tmp_path / "part" / "pytorch_model.bin",
    )
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_audio_encoder(str(tmp_path / "part"))


@pytest.mark.parametrize("name", ["nobody/no-such-encoder", "none/at/all"])
def test_an_encoder_that_is_not_here_is_not_fetched(name: str) -> None:
    with pytest.raises(
        CheckpointError,
        match=f"audio encoder '{name}' cannot be loaded: .*downloads are off",
    ):
        load_audio_encoder(name)
    assert licence_of(name) == "unknown: read its card"


def test_code_that_comes_with_a_model_is_not_run(
    audio_encoder_folder: Path, tmp_path: Path
) -> None:
    place = tmp_path / "own-code"
    shutil.copytree(audio_encoder_folder, place)
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    config |= {
        "model_type": "own",
        "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"},
    }
    (place / "config.json").write_text(json.dumps(config), encoding="utf-8")
    marker = tmp_path / "was-run"
    (place / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\n", encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"own-code' cannot be loaded: .*"):
        load_audio_encoder(str(place))
    assert not marker.exists()


def test_a_model_that_hears_nothing_is_refused(text_encoder_folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"audio encoder .* cannot be loaded"):
        load_audio_encoder(str(text_encoder_folder))


def test_senseless_waveforms_are_refused(audio_encoder_folder: Path) -> None:
    front_end = HuggingFaceExtractor(str(audio_encoder_folder), 30.0)
    with pytest.raises(ShapeError, match=r"one dimension, \(n,\); found \(2, 5\)"):
        front_end.extract(np.zeros((2, 5), dtype=np.float32), RATE)
    for bad in (np.zeros(0, dtype=np.float32), np.full(9, np.nan, dtype=np.float32)):
        with pytest.raises(
            DataError, match=r"a waveform must (hold at least one sample|be finite)"
        ):
            front_end.extract(bad, RATE)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlanguage: en\nlicense: cc-by-nc-4.0\ntags:\n- music\n---\n# MERT\n", "cc-by-nc-4.0"),
        ('---\nlicense: "apache-2.0"\n---\n', "apache-2.0"),
        ("---\nlicense:\n- mit\n---\n", "unknown: read its card"),
        ("# No head\nlicense: mit\n", "unknown: read its card"),
        ("---\ntags:\n- x\n---\nlicense: mit\n", "unknown: read its card"),
    ],
)
def test_licence_is_what_the_head_of_the_card_says(tmp_path: Path, card: str, licence: str) -> None:
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    assert licence_of(str(tmp_path)) == licence
    assert (
        HuggingFaceExtractor(str(tmp_path), 30.0).notice
        == f"audio encoder {tmp_path}: licence {licence}"
    )
