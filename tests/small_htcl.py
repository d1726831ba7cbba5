"""The small HTCL that the tests of the whole model share, and what tells two of them apart."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ponticello.config import Config
from ponticello.model.htcl import HTCL
from tests.logmel import with_changes

TOLERANCE = 1e-5
MIN_FRAMES = 17
TEXTS = [
    "slow dark piece by artist 7",
    "fast",
    "bright , high and steady",
    "low warm sounds from album 1 2 3",
    "fast .",
]


def small_config(text_encoder_folder: Path) -> Config:
    """The tiny preset, which hears 10 s."""
    return Config.from_preset(
        "tiny", with_changes(text={"name": str(text_encoder_folder)}, mel={"max_seconds": 10.0})
    )


def build(config: Config, seed: int = 0) -> HTCL:
    torch.manual_seed(seed)
    model = HTCL.from_settings(config)
    model.train(False)
    return model


def mels_of_any_length(config: Config) -> list[np.ndarray]:
    """32 log-mels from one frame to more than the most there can be, in no order."""
    rng = np.random.default_rng(0)
    lengths = [
        1,
        5,
        MIN_FRAMES - 1,
        MIN_FRAMES,
        MIN_FRAMES + 1,
        config.mel.max_frames,
        config.mel.max_frames + 40,
    ]
    lengths += rng.integers(20, 100, 32 - len(lengths)).tolist()
    return [random_mel(n, seed) for seed, n in enumerate(rng.permutation(lengths))]


def random_mel(n_frames: int, seed: int) -> np.ndarray:
    """Bands of noise that come and go, float16 dB, within 80 dB."""
    rng = np.random.default_rng(seed)
    frames = np.cumsum(rng.normal(0, 2, (n_frames, 128)), axis=0) + rng.normal(0, 6, 128)
    return np.clip(frames - 40, -80, 0).astype(np.float16)


def assert_close(
    found: np.ndarray | Tensor, expected: np.ndarray | Tensor, tolerance: float = TOLERANCE
) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=tolerance)


def assert_same_weights(left: torch.nn.Module, right: torch.nn.Module) -> None:
    assert set(left.state_dict()) == set(right.state_dict())
    for name, weight in left.state_dict().items():
        assert torch.equal(weight, right.state_dict()[name]), name
