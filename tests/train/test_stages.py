"""What each stage leaves alone: every parameter that is to learn is reached by the loss, as DDP
demands.
"""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from ponticello.config import Config
from ponticello.model.htcl import HTCL, SCALES, HTCLConfig
from ponticello.train.stages import Stage, preference_stage, semantic_stage
from tests.logmel import LOGMEL

BERT = {"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1}
BERT |= {"num_attention_heads": 2, "intermediate_size": 16}
N_ROWS, N_FRAMES = 8, 20


def _model(config: Config) -> tuple[HTCL, int]:
    """A small model in training mode, and how many numbers a frame has that it reads."""
    size = 6 if config.front_end == "musicnn" else config.mel.n_mels
    torch.manual_seed(0)
    model = HTCL(HTCLConfig(config.model_dump(mode="json"), BERT, frame_size=size))
    model.train(True)
    return model, size


def _not_reached(model: HTCL, frame_size: int, stage: Stage) -> set[str]:
    """The parameters that are to learn in this stage and get no gradient."""
    stage.freeze_idle(model)
    model.zero_grad()
    tokens = torch.randint(5, 50, (N_ROWS, 4))
    mel, padding = (
        torch.randn(N_ROWS, N_FRAMES, frame_size),
        torch.zeros(N_ROWS, N_FRAMES, dtype=torch.bool),
    )
    rows = model(mel, padding, input_ids=tokens, attention_mask=torch.ones_like(tokens))
    numbers, teacher = (
        torch.arange(N_ROWS),
        F.normalize(torch.randn(N_ROWS, rows.audio.shape[1]), dim=-1),
    )
    beside = {"teacher": teacher} if stage.name == "preference" else {}
    parts = stage.loss(rows, numbers, numbers, **beside)
    torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
    return {
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.grad is None
    }


@pytest.mark.parametrize("front_end", ["logmel", "musicnn"])
def test_every_loss_alone_or_with_others_reaches_all_that_learns(front_end: str) -> None:
    """Each of the 15 choices of losses in stage two, with heads carried over or fresh, and stage
    one.
    """
    changes = {**(LOGMEL if front_end == "logmel" else {}), "text": {"trainable": True}}
    config = Config.from_preset("tiny", changes)
    model, frame_size = _model(config)
    assert _not_reached(model, frame_size, semantic_stage(config)) == set()
    if front_end == "musicnn":
        return  # its stage two has another loss: test_listener_sets.py
    for *weights, reset in product((1.0, 0.0), repeat=5):
        settings_names = [f"{name}_loss_weight" for name in SCALES]
        losses = dict(zip((*settings_names, "distillation_weight"), weights, strict=True))
        if any(weights):
            settings = config.preference.model_copy(update={**losses, "reset_heads": bool(reset)})
            stage = preference_stage(config.model_copy(update={"preference": settings}))
            assert _not_reached(model, frame_size, stage) == set(), (losses, reset)
