"""How many steps a run has, when it validates, and its learning rates."""

import pytest
import torch
from torch import nn
from transformers import get_constant_schedule_with_warmup, get_cosine_schedule_with_warmup

from ponticello.config import Config, StageConfig
from ponticello.train.schedule import (
    build_optimizer,
    count_steps,
    learning_rate_factor,
    steps_between_validations,
)


@pytest.mark.parametrize(
    ("settings", "n_steps"),
    [
        ({"epochs": 2.5, "min_steps": 0}, 18),  # of 7 each: 17.5
        ({"epochs": 2.5, "min_steps": 20}, 20),
        ({"epochs": 2.5, "min_steps": 20, "max_steps": 3}, 3),
    ],
)
def test_steps_are_those_of_all_epochs_or_the_configured_number(
    settings: dict[str, float], n_steps: int
) -> None:
    assert count_steps(StageConfig.model_validate(settings), steps_per_epoch=7) == n_steps


@pytest.mark.parametrize(
    ("n_steps", "expected"), [(10_000, 200), (2_000, 200), (1_999, 199), (50, 5), (7, 1), (1, 1)]
)
def test_short_run_validates_as_often_as_a_long_one(n_steps: int, expected: int) -> None:
    """Every 200 steps, and ten times at least."""
    settings = StageConfig(eval_steps=200, min_validations=10)
    assert steps_between_validations(settings, n_steps) == expected
    assert n_steps // expected >= min(n_steps, 10)


@pytest.mark.parametrize("preset", ["base", "paper"])
@pytest.mark.parametrize("n_tracks", [2, 367, 20_000])
def test_any_library_gets_a_thousand_steps_and_ten_validations(preset: str, n_tracks: int) -> None:
    config = Config.from_preset(preset)
    for settings in (config.semantic, config.preference):
        n_steps = count_steps(settings, max(1, n_tracks // settings.batch_size))
        assert n_steps >= 1_000
        assert n_steps // steps_between_validations(settings, n_steps) >= 10


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
@pytest.mark.parametrize("warmup_share", [0.0, 0.25])
def test_rates_are_those_of_the_schedules_of_transformers(
    schedule: str, warmup_share: float
) -> None:
    """Ten steps; a quarter of them are three."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    n_warmup = 3 if warmup_share else 0
    if schedule == "cosine":
        reference = get_cosine_schedule_with_warmup(optimizer, n_warmup, 10)
    else:
        reference = get_constant_schedule_with_warmup(optimizer, n_warmup)
    settings = StageConfig.model_validate({"schedule": schedule, "warmup_share": warmup_share})
    for step in range(10):
        factor = learning_rate_factor(settings, step, n_steps=10)
        assert factor == pytest.approx(reference.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        reference.step()


def test_each_tower_has_its_rate_and_only_matrices_decay() -> None:
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("audio_encoder", "text_encoder")})
    model["audio_head"] = nn.Linear(2, 2)
    model["text_encoder"].bias.requires_grad_(False)
    settings = StageConfig(audio_lr=1e-3, text_lr=1e-4, heads_lr=1e-2, weight_decay=0.5)
    groups = set()
    for group in build_optimizer(model, settings).param_groups:
        shapes = tuple(tuple(parameter.shape) for parameter in group["params"])
        groups.add((group["initial_lr"], group["weight_decay"], shapes))
    assert groups == {
        (1e-3, 0.5, ((2, 2),)),
        (1e-3, 0.0, ((2,),)),
        (1e-4, 0.5, ((2, 2),)),
        (1e-2, 0.5, ((2, 2),)),
        (1e-2, 0.0, ((2,),)),
    }
