"""Interpolates the weights of two models."""

from copy import deepcopy

from ponticello.errors import CheckpointError
from ponticello.model.htcl import HTCL


def interpolate_weights(start: HTCL, end: HTCL, alpha: float) -> HTCL:
    """Returns a new model with the weights (1 - alpha) `start` + alpha `end`, in eval mode.

    It is on the device of `end`. Raises CheckpointError if the two have different layouts.
    Source: Wortsman et al. 2022, robust fine-tuning by weight interpolation.
    """
    start_weights = start.state_dict()
    end_weights = end.state_dict()
    for name in sorted(start_weights.keys() | end_weights.keys()):
        is_shared = name in start_weights and name in end_weights
        if not is_shared or start_weights[name].shape != end_weights[name].shape:
            raise CheckpointError(
                f"models of different layouts cannot be mixed; they differ in {name}"
            )
    weights = {}
    for name, weight in start_weights.items():
        weights[name] = end_weights[name]
        if weight.is_floating_point():
            weights[name] = weight.to(end_weights[name].device).lerp(end_weights[name], alpha)
    model = deepcopy(end)
    model.load_state_dict(weights)
    model.train(False)
    return model
