"""ONNX files of both towers: PyTorch's vectors at sizes the export never saw, a full record, and
nothing half done.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ponticello.config import Config
from ponticello.errors import CheckpointError, ConfigError
from ponticello.model import onnx as onnx_export
from ponticello.model.batching import pad_features, pad_frames
from ponticello.model.htcl import HTCL
from ponticello.model.onnx import crops_of, export_onnx, run_onnx
from ponticello.model.text_encoder import tokenize
from tests.logmel import with_changes

pytest.importorskip("onnxruntime", reason="needs the extra onnx")
TEXTS = ["slow piano by low fast", "dark", "warm bright steady . , low middle high"]
TOLERANCE = 1e-5


def _model(text_encoder: Path, pooling: str, crop_seconds: float) -> HTCL:
    settings = with_changes(
        text={"name": str(text_encoder), "pooling": pooling},
        mel={"max_seconds": 20.0},
        audio={"crop_seconds": crop_seconds},
    )
    torch.manual_seed(0)
    model = HTCL.from_settings(Config.from_preset("tiny", settings))
    model.train(False)
    return model


@pytest.fixture(scope="module")
def whole(text_encoder_folder: Path) -> HTCL:
    """Over log-mels, a track in one piece, with the kernels of the paper and its pooler."""
    return _model(text_encoder_folder, "pooler", 0.0)


@pytest.fixture(scope="module")
def exported(whole: HTCL, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_onnx(whole, tmp_path_factory.mktemp("onnx") / "towers", "abc123").folder


def _noise(n_frames: int, n: int, seed: int) -> np.ndarray:
    noise: np.ndarray = (
        np.random.default_rng(seed).normal(-40, 15, (n_frames, n)).astype(np.float16)
    )
    return noise


def test_log_mels_of_any_length_give_the_models_vectors(whole: HTCL, exported: Path) -> None:
    for lengths in ([17], [60, 33, 200], [90] * 7):
        mels = [_noise(n, 128, seed) for seed, n in enumerate(lengths)]
        frames, mask = pad_features(mels, whole.settings.mel, whole.audio_encoder.min_frames)
        found = run_onnx(exported / "audio.onnx")(frames.numpy(), mask.numpy())
        assert np.abs(found - whole.encode_features(mels)).max() < TOLERANCE


def test_texts_give_the_models_vectors(whole: HTCL, exported: Path) -> None:
    for texts in (TEXTS[:1], TEXTS, TEXTS * 3):
        tokens = tokenize(texts, whole.tokenizer, whole.settings.text.max_tokens)
        found = run_onnx(exported / "text.onnx")(
            tokens["input_ids"].numpy(), tokens["attention_mask"].numpy()
        )
        assert np.abs(found - whole.encode_text(texts)).max() < TOLERANCE


def test_record_says_what_goes_in(exported: Path) -> None:
    record = json.loads((exported / "ponticello.json").read_text(encoding="utf-8"))
    assert record["space_id"] == "abc123"
    assert (record["embed_dim"], record["audio"]["shortest"], record["front_end"]["name"]) == (
        64,
        17,
        "logmel",
    )
    assert record["mel"]["hop_length"] == 1536
    assert (exported / record["text"]["tokenizer"] / "tokenizer_config.json").is_file()
    assert sorted(path.name for path in exported.iterdir()) == [
        "audio.onnx",
        "ponticello.json",
        "text.onnx",
        "tokenizer",
    ]


@pytest.fixture(scope="module")
def over_frames(text_encoder_folder: Path) -> HTCL:
    """A model over the frames of a frozen front end."""
    config = Config.from_preset("tiny", {"text": {"name": str(text_encoder_folder)}})
    torch.manual_seed(0)
    model = HTCL.from_settings(config, frame_size=24)
    model.train(False)
    return model


def test_frames_of_a_frozen_front_end_give_the_models_vectors(
    over_frames: HTCL, tmp_path: Path
) -> None:
    done = export_onnx(over_frames, tmp_path / "towers", "x")
    tracks = [_noise(n, 24, n) for n in (1, 4, 11)]
    frames, mask = pad_frames(tracks)
    vectors = run_onnx(done.folder / "audio.onnx")(frames.numpy(), mask.numpy())
    assert np.abs(vectors - over_frames.encode_features(tracks)).max() < TOLERANCE
    assert max(done.audio_difference, done.text_difference) < TOLERANCE


def test_crops_of_a_long_track_have_its_vector_as_their_mean(
    text_encoder_folder: Path, tmp_path: Path
) -> None:
    model = _model(text_encoder_folder, "mean", 5.0)
    done = export_onnx(model, tmp_path / "towers", "x")
    mel = _noise(150, 128, 0)
    frames, _ = pad_features([mel], model.settings.mel, model.audio_encoder.min_frames)
    crops = crops_of(frames[0].numpy(), model.crop_frames)
    mean = run_onnx(done.folder / "audio.onnx")(crops, np.zeros(crops.shape[:2], dtype=bool)).mean(
        axis=0
    )
    assert len(crops) == 3
    assert np.abs(mean / np.linalg.norm(mean) - model.encode_features([mel])[0]).max() < TOLERANCE


def test_file_that_differs_is_not_left(
    over_frames: HTCL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tolerance of nothing at all stands for a wrong file."""
    monkeypatch.setattr(onnx_export, "MAX_DIFFERENCE", -1.0)
    with pytest.raises(
        CheckpointError, match=r"audio\.onnx differs from PyTorch by .* nothing was written"
    ):
        export_onnx(over_frames, tmp_path / "towers", "x")
    assert list(tmp_path.iterdir()) == []


def test_folder_that_holds_something_is_left_alone(whole: HTCL, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match="holds something already; choose a new folder"):
        export_onnx(whole, tmp_path, "x")
    assert (tmp_path / "thesis.txt").read_text(encoding="utf-8") == "mine"
