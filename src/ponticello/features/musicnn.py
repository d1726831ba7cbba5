"""MusiCNN: a small pretrained music tagger, as a frozen front end and as a maker of tags.

Its weights ship with the package (ISC licence, beside them). Dimensions: B patches, P patches of
one track, T mel frames, C channels.

Source: Pons and Serra 2019 (arXiv:1909.06654), the models MSD_musicnn and MTT_musicnn; the
architecture is that of Pons et al. 2018 (arXiv:1711.02520).
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors.torch import load
from torch import Tensor, nn

from ponticello.audio.mel import mel_power
from ponticello.config import MelConfig
from ponticello.errors import CheckpointError, ShapeError

Tagger = Literal["msd", "mtt"]
MEL = MelConfig(sample_rate=16_000, n_fft=512, hop_length=256, n_mels=96, f_max_hz=8_000.0)
PATCH_FRAMES = 187  # 2.99 s: what the models were trained on
N_POOLED, N_PENULTIMATE, N_TAGS = 753, 200, 50  # numbers a patch
BATCH_PATCHES = 2  # at once: what stays in a core's cache; 8 take half as long again
WEIGHTS = Path(__file__).parent / "weights"
SHA256 = {
    "msd": "1338013b245b814d6643a3823d31779795078f955108e3a933544e290d1e8cf8",
    "mtt": "4940a57059e3de93bf6e4276916c228d0af17cee173ba8a71747bba31b83d41e",
}
_EPS = 0.001  # of every batch norm: TensorFlow's default


class TaggerOutput(NamedTuple):
    """What MusiCNN makes of B patches, float32."""

    taggram: Tensor  # (B, 50), each tag on its own in 0..1
    penultimate: Tensor  # (B, 200)
    mean_pool: Tensor  # (B, 753)
    max_pool: Tensor  # (B, 753)


class _Conv(nn.Module):
    """Convolution, ReLU, batch norm, in this order; padded in time only, an even kernel's extra
    zero at the end.
    """

    def __init__(self, n_in: int, n_out: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel)
        self.bn = nn.BatchNorm2d(n_out, eps=_EPS)
        self.padding = (0, 0, (kernel[0] - 1) // 2, kernel[0] // 2)

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, C, T, W) -> (B, C', T, W')."""
        normed: Tensor = self.bn(F.relu(self.conv(F.pad(image, self.padding))))
        return normed

    def peaks(self, image: Tensor) -> Tensor:
        """`forward(image).amax(dim=3)`, (B, C', T), at two thirds of the cost.

        ReLU keeps the order and batch norm keeps or turns it, so both can wait until the one that
        remains is found.
        """
        sign = self.bn.weight.sign()  # where batch norm turns the order, the least is looked for
        weight, bias = self.conv.weight * sign[:, None, None, None], self.conv.bias
        found = F.conv2d(F.pad(image, self.padding), weight, None if bias is None else bias * sign)
        normed: Tensor = self.bn(F.relu(found.amax(dim=3, keepdim=True) * sign[:, None, None]))
        return normed.squeeze(3)


class MusiCNN(nn.Module):
    """The tagger of 50 tags, in eval mode and without gradients once it comes from `load_musicnn`."""

    def __init__(self) -> None:
        super().__init__()
        self.input_bn = nn.BatchNorm2d(1, eps=_EPS)
        self.timbral38, self.timbral67 = _Conv(1, 204, (7, 38)), _Conv(1, 204, (7, 67))
        self.temporal128, self.temporal64 = _Conv(1, 51, (128, 1)), _Conv(1, 51, (64, 1))
        self.temporal32 = _Conv(1, 51, (32, 1))
        self.mid1, self.mid2, self.mid3 = (
            _Conv(1, 64, (7, 561)),
            _Conv(1, 64, (7, 64)),
            _Conv(1, 64, (7, 64)),
        )
        self.pool_bn = nn.BatchNorm1d(2 * N_POOLED, eps=_EPS)
        self.penultimate = nn.Linear(2 * N_POOLED, N_PENULTIMATE)
        self.penultimate_bn = nn.BatchNorm1d(N_PENULTIMATE, eps=_EPS)
        self.output = nn.Linear(N_PENULTIMATE, N_TAGS)

    def forward(self, log_mel: Tensor) -> TaggerOutput:
        """log_mel: (B, T, 96) as `musicnn_mel` makes it, T any, 187 as trained; ShapeError for
        another shape.
        """
        if log_mel.ndim != 3 or log_mel.shape[2] != MEL.n_mels:
            raise ShapeError(f"log_mel must be (B, T, {MEL.n_mels}); found {tuple(log_mel.shape)}")
        image = self.input_bn(log_mel[:, None])  # (B, 1, T, 96)
        timbral = [conv.peaks(image) for conv in (self.timbral38, self.timbral67)]
        temporal = [
            conv.peaks(image) for conv in (self.temporal128, self.temporal64, self.temporal32)
        ]
        front = torch.cat([*timbral, *temporal], dim=1)  # (B, 561, T)
        mid1 = self.mid1(front.transpose(1, 2)[:, None]).squeeze(3)  # (B, 64, T)
        mid2 = self.mid2(mid1.transpose(1, 2)[:, None]).squeeze(3) + mid1
        mid3 = self.mid3(mid2.transpose(1, 2)[:, None]).squeeze(3) + mid2
        frames = torch.cat([front, mid1, mid2, mid3], dim=1)  # (B, 753, T)
        max_pool, mean_pool = frames.amax(dim=2), frames.mean(dim=2)
        pooled = torch.stack([max_pool, mean_pool], dim=2).flatten(
            1
        )  # (B, 1506), max and mean of each in turn
        penultimate = self.penultimate_bn(F.relu(self.penultimate(self.pool_bn(pooled))))
        return TaggerOutput(
            torch.sigmoid(self.output(penultimate)), penultimate, mean_pool, max_pool
        )


@lru_cache(maxsize=2)
def load_musicnn(tagger: Tagger) -> MusiCNN:
    """The pretrained tagger: `msd` (Last.fm tags of the Million Song Dataset) or `mtt`
    (MagnaTagATune).

    CheckpointError if the file in the package is missing or not the published one.
    """
    path = WEIGHTS / f"{tagger}_musicnn.safetensors"
    data = path.read_bytes() if path.is_file() else b""
    if hashlib.sha256(data).hexdigest() != SHA256[tagger]:
        raise CheckpointError(f"{path} is missing or damaged; install ponticello again")
    model = MusiCNN()
    model.load_state_dict(load(data))
    model.requires_grad_(False)
    model.train(False)
    return model


@lru_cache(maxsize=2)
def tag_names(tagger: Tagger) -> tuple[str, ...]:
    """The 50 tags of a tagger, in lower case, in the order of its output."""
    names = json.loads((WEIGHTS / "tags.json").read_text(encoding="utf-8"))[f"{tagger}_musicnn"]
    return tuple(name.lower() for name in names)


def musicnn_mel(waveform: NDArray[np.floating]) -> NDArray[np.float32]:
    """The input of MusiCNN: (T, 96) float32, log10(10000 power + 1); about 0 to 6.5, finite for any
    finite sound.

    waveform: (n,) at 16 kHz; errors as `log_mel`. The power is rounded to float16 as in the
    reference, but multiplied
    in float32: there every loud bin became infinite.
    """
    power = np.minimum(mel_power(waveform, MEL), np.finfo(np.float16).max).astype(np.float16)
    compressed: NDArray[np.float32] = np.log10(
        np.float32(10_000.0) * power.astype(np.float32) + np.float32(1.0)
    )
    return compressed


def split_patches(waveform: NDArray[np.floating]) -> Tensor:
    """Every whole 3 s of a waveform as MusiCNN takes them, (P, 187, 96); a shorter sound is
    repeated to fill one.

    waveform: (n,) at 16 kHz; errors as `log_mel`. The remainder after the last whole patch is left
    out, as the reference does.
    """
    mel = musicnn_mel(waveform)
    if len(mel) < PATCH_FRAMES:
        mel = np.tile(mel, (-(-PATCH_FRAMES // len(mel)), 1))[:PATCH_FRAMES]
    n_patches = len(mel) // PATCH_FRAMES
    return torch.from_numpy(mel[: n_patches * PATCH_FRAMES]).reshape(
        n_patches, PATCH_FRAMES, MEL.n_mels
    )


@torch.no_grad()
def musicnn_forward(patches: Tensor, tagger: Tagger) -> TaggerOutput:
    """What MusiCNN makes of patches (P, 187, 96), (P, ...) each. Cost: 1/70 of the sound's length
    on one core.
    """
    model = load_musicnn(tagger)
    heard = [
        model(patches[start : start + BATCH_PATCHES])
        for start in range(0, len(patches), BATCH_PATCHES)
    ]
    return TaggerOutput(*(torch.cat(parts) for parts in zip(*heard, strict=True)))
