"""The optimiser of a stage and its schedule: learning rates, steps, validations, patience."""

import math
from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ponticello.config import StageConfig
from ponticello.train.stages import decays, learning_rate


def build_optimizer(model: nn.Module, settings: StageConfig) -> torch.optim.Optimizer:
    """Returns AdamW with a learning rate for each tower and weight decay on matrices only."""
    rate = learning_rate(settings)
    parameters: dict[tuple[float, float], list[Tensor]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decay = settings.weight_decay if decays(name, parameter) else 0.0
            parameters[rate(name), decay].append(parameter)
    groups = []
    for (lr, decay), group in parameters.items():
        groups.append({"params": group, "initial_lr": lr, "weight_decay": decay})
    return torch.optim.AdamW(groups, fused=settings.fused_optimizer or None)


def learning_rate_factor(settings: StageConfig, step: int, n_steps: int) -> float:
    """Returns the factor of all learning rates in a step, counted from 0.

    It rises from 0 over the warm-up; then it is 1, or falls to 0 along half a cosine (Loshchilov
    and Hutter 2017, without restarts).
    """
    n_warmup = math.ceil(settings.warmup_share * n_steps)
    if step < n_warmup:
        return step / n_warmup
    if settings.schedule == "constant":
        return 1.0
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return 0.5 * (1.0 + math.cos(math.pi * progress))


def count_steps(settings: StageConfig, steps_per_epoch: int) -> int:
    """Returns the optimiser steps of a run: `max_steps`, or those of all epochs."""
    if settings.max_steps > 0:
        return settings.max_steps
    return max(math.ceil(settings.epochs * steps_per_epoch), settings.min_steps)


def steps_between_validations(settings: StageConfig, n_steps: int) -> int:
    """Returns `eval_steps`, or fewer where a run would have less than `min_validations`."""
    return max(1, min(settings.eval_steps, n_steps // settings.min_validations))


def is_out_of_patience(values: Sequence[float], patience: int) -> bool:
    """Returns whether the last `patience` validations were not better than the best before."""
    if not values:
        return False
    n_since_best = len(values) - 1 - values.index(max(values))
    return n_since_best >= patience
