"""A model between two others: their weights, mixed."""

from copy import deepcopy

from ponticello.errors import CheckpointError
from ponticello.model.htcl import HTCL


def interpolate_weights(one: HTCL, two: HTCL, alpha: float) -> HTCL:
    """A new model with the weights (1 - alpha) `one` + alpha `two`, in eval mode; 0 gives `one`, 1
    gives `two`.

    It lies where `two` does: what was just trained may be on a GPU, and what it began with is read
    from the disk.

    CheckpointError if the two are not of the same layout.
    Source: Wortsman et al. 2022, robust fine-tuning by weight interpolation.
    """
    start, end = one.state_dict(), two.state_dict()
    shapes = [
        {name: tuple(weight.shape) for name, weight in state.items()} for state in (start, end)
    ]
    if shapes[0] != shapes[1]:
        differing = sorted(name for name, _ in set(shapes[0].items()) ^ set(shapes[1].items()))
        raise CheckpointError(
            f"models of different layouts cannot be mixed; they differ in {differing[0]}"
        )
    mixed = deepcopy(two)
    mixed.load_state_dict(
        {
            name: weight.to(end[name].device).lerp(end[name], alpha)
            if weight.is_floating_point()
            else end[name]
            for name, weight in start.items()
        }
    )
    mixed.train(False)
    return mixed
