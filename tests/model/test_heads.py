"""The projection heads, against numbers worked out by hand."""

from collections.abc import Sequence

import pytest
import torch
from torch import nn

from ponticello.model.htcl import MLP


def set_weights(head: MLP, weights: Sequence[tuple[list[list[float]], list[float]]]) -> None:
    with torch.no_grad():
        for linear, (weight, bias) in zip(head.linears, weights, strict=True):
            assert isinstance(linear, nn.Linear)
            linear.weight.copy_(torch.tensor(weight))
            linear.bias.copy_(torch.tensor(bias))


def test_head_is_linear_relu_linear() -> None:
    """x = (1, 2): hidden = (1 - 2 + 0, 2 * 1 + 2 - 1) = (-1, 3), after ReLU (0, 3); out = 5 * 0 - 2
    * 3 + 0.5 = -5.5.

    A negative result shows that no ReLU follows the last layer.
    """
    head = MLP((2, 2, 1), dropout=0.1).train(False)
    set_weights(head, [([[1.0, -1.0], [2.0, 1.0]], [0.0, -1.0]), ([[5.0, -2.0]], [0.5])])
    assert head(torch.tensor([[1.0, 2.0]])).item() == pytest.approx(-5.5, abs=1e-6)


def test_head_of_two_sizes_is_one_linear_layer() -> None:
    """-3 * 2 + 1 = -5."""
    head = MLP((1, 1), dropout=0.5)
    set_weights(head, [([[-3.0]], [1.0])])
    assert head(torch.tensor([[2.0]])).item() == pytest.approx(-5.0, abs=1e-6)


def test_sizes_follow_one_another() -> None:
    head = MLP((768, 384, 192, 100), dropout=0.1)
    assert [tuple(weight.shape) for weight in head.parameters()] == [
        *((384, 768), (384,)),
        *((192, 384), (192,)),
        *((100, 192), (100,)),
    ]


def test_dropout_falls_between_layers_in_training_only() -> None:
    """With identity weights and dropout 0.5 a hidden value is 0 or doubled; the output itself is
    never dropped.

    The last layer adds 1, so each output is 0 + 1 or 2 + 1.
    """
    head = MLP((1000, 1000, 1000), dropout=0.5)
    with torch.no_grad():
        for linear, bias in zip(head.linears, (0.0, 1.0), strict=True):
            assert isinstance(linear, nn.Linear)
            linear.weight.copy_(torch.eye(1000))
            linear.bias.fill_(bias)
    torch.manual_seed(0)
    dropped = head.train()(torch.ones(1, 1000))
    assert set(dropped.flatten().tolist()) == {1.0, 3.0}
    assert (dropped == 3.0).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert set(head.train(False)(torch.ones(1, 1000)).flatten().tolist()) == {2.0}


def test_rows_do_not_see_one_another() -> None:
    torch.manual_seed(0)
    head = MLP((8, 6, 4), dropout=0.0)
    vectors = torch.randn(5, 8)
    together = head(vectors)
    alone = torch.cat([head(vector[None]) for vector in vectors])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-6)
