"""What a stage computes before its first step: where, and that the place is the one where it
trains.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

from ponticello.config import StageConfig
from ponticello.evaluate.retrieval import retrieval_figures
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.train.loop import training_device
from ponticello.train.preference import train_preference
from ponticello.train.runs import TrainedRun
from ponticello.train.semantic import train_semantic


@pytest.mark.parametrize(("stage", "n_computed"), [("semantic", 1), ("preference", 2)])
def test_texts_and_teacher_are_computed_where_the_stage_trains(
    stage: str, n_computed: int, trained_copy: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device "meta" in the place of a GPU: stage one computes texts, stage two a teacher, too.

    The loop, which has not been told, then cannot take weights from there that do not exist.
    """
    computed: list[tuple[str, int]] = []

    def encode(model: HTCL, items: list[Any]) -> np.ndarray:
        computed.append((model.device.type, len(items)))
        size = 64 if isinstance(items[0], np.ndarray) else model.text_encoder.config.hidden_size
        return np.zeros((len(items), size), dtype=np.float32)

    monkeypatch.setattr(HTCL, "encode_features", encode)
    monkeypatch.setattr(HTCL, "encode_text_states", encode)
    monkeypatch.setattr(f"ponticello.train.{stage}.training_device", lambda _: torch.device("meta"))
    folder = Library.open(trained_copy.folder.root, ["preference.distillation_weight=1"]).folder
    two = partial(train_preference, start="semantic")
    train: Callable[..., TrainedRun] = train_semantic if stage == "semantic" else two
    with pytest.raises(NotImplementedError, match="meta tensor"):
        train(folder, "elsewhere", retrieval=retrieval_figures)
    assert [device for device, _ in computed] == ["meta"] * n_computed
    assert all(n > 2 for _, n in computed)


def test_bfloat16_trains_on_the_gpu_or_the_processor() -> None:
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert training_device(StageConfig(bf16=True)).type == expected
