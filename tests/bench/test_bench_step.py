"""The two towers that bench/step.py times do the same work, and it counts that work right."""

import pytest
import torch

import step
from ponticello.config import Config
from reference_step import ReferenceTower, reference_loss
from timing import Timed, in_turn, said

TINY = Config.from_preset(
    "paper",
    {
        "audio": {
            "conv_channels": [16, 16, 16],
            "hidden_size": 32,
            "n_layers": 2,
            "n_heads": 2,
            "ffn_size": 48,
        },
        "heads": {"hidden_sizes": [24], "embed_dim": 8},
    },
)
NAMES = {
    "projection.0.": "encoder.projection_norm.",
    "projection.1.": "encoder.projection.",
    "norm.0.": "encoder.norm.",
    "layers.layers.": "encoder.layers.",
    "head.": "head.",
}


def ours_name(name: str) -> str:
    """What a weight of the reference is called in our tower."""
    for theirs, ours in NAMES.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return f"encoder.{name}"


def test_reference_and_ours_agree_where_nothing_is_padded() -> None:
    torch.manual_seed(0)
    ours, theirs = step.Ours(TINY).eval(), ReferenceTower(TINY).eval()
    weights = ours.state_dict()
    theirs.load_state_dict({name: weights[ours_name(name)] for name in theirs.state_dict()})
    mel = torch.randn(3, 200, TINY.mel.n_mels)
    with torch.no_grad():
        found = torch.nn.functional.normalize(theirs(mel), dim=-1)
        torch.testing.assert_close(
            found, ours(mel, torch.zeros(3, 200, dtype=torch.bool)), atol=1e-5, rtol=1e-4
        )


def test_reference_loss_is_low_when_pairs_match() -> None:
    vectors, scale = torch.eye(4), torch.tensor(2.6)
    assert (
        reference_loss(vectors, vectors, scale)
        < 1e-4
        < reference_loss(vectors, vectors.flip(0), scale)
    )


def test_operations_are_those_that_torch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    tower = step.Ours(step.CONFIG).train()  # in eval mode a fused layer hides its products
    mel, mask = torch.randn(1, 313, step.CONFIG.mel.n_mels), torch.zeros(1, 313, dtype=torch.bool)
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        tower(mel, mask)
    assert counter.get_total_flops() == pytest.approx(step.operations(313), rel=0.02)


def test_ratio_pairs_the_runs() -> None:
    timed = Timed({"ours": [1.0, 2.0, 4.0], "theirs": [2.0, 6.0, 4.0]})
    assert timed.ratio("theirs", "ours") == (1.0, 2.0, 3.0)
    assert timed.median("ours") == 2.0
    assert said((1.0, 2.0, 3.0)) == "2.00 [1.00, 3.00]"


def test_cases_run_in_turn_after_one_unmeasured_run() -> None:
    order: list[str] = []
    timed = in_turn({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 2)
    assert order == ["a", "b", "a", "b", "a", "b"]
    assert len(timed.seconds["a"]) == 2
