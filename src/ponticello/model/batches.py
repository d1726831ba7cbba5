"""Many inputs of different sizes through a model, in eval mode and a batch at a time."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def in_batches(
    model: nn.Module, project: Callable[[list[int]], Tensor], sizes: Sequence[int], batch_size: int, n_columns: int
) -> np.ndarray:
    """What `project` makes of all rows, (n, n_columns) float32 in the given order.

    project: row numbers -> (rows, n_columns). sizes: of each row's input; rows of like size share a batch. Every module
    of `model` is afterwards in the mode it was in.
    """
    vectors = np.empty((len(sizes), n_columns), dtype=np.float32)
    order = sorted(range(len(sizes)), key=lambda row: sizes[row])
    modes = [(module, module.training) for module in model.modules()]
    model.train(False)
    try:
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            vectors[rows] = project(rows).float().cpu().numpy()
    finally:
        for module, mode in modes:
            module.training = mode
    return vectors
