"""MusiCNN: a small pretrained music tagger, used as a frozen front end and for machine tags.

Its weights ship with the package (ISC licence, beside them). Dimensions: B patches, P patches of
one track, T mel frames, C channels, W bands.

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
PATCH_FRAMES = 187  # 2.99 s, the length of the training examples
N_POOLED = 753  # numbers per patch, as N_PENULTIMATE and N_TAGS
N_PENULTIMATE = 200
N_TAGS = 50
BATCH_PATCHES = 2  # fits the cache of a core; batches of 8 take 1.5 times as long
WEIGHTS = Path(__file__).parent / "weights"
SHA256 = {
    "msd": "1338013b245b814d6643a3823d31779795078f955108e3a933544e290d1e8cf8",
    "mtt": "4940a57059e3de93bf6e4276916c228d0af17cee173ba8a71747bba31b83d41e",
}
_EPS = 0.001  # of every batch norm, TensorFlow's default


class TaggerOutput(NamedTuple):
    """Output of MusiCNN for B patches, float32."""

    taggram: Tensor  # (B, 50), probability of each tag
    penultimate: Tensor  # (B, 200)
    mean_pool: Tensor  # (B, 753)
    max_pool: Tensor  # (B, 753)


class _Conv(nn.Module):
    """Convolution, ReLU and batch norm, in this order.

    Padded in time only; with an even kernel, the extra zero is at the end.
    """

    def __init__(self, n_in: int, n_out: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel)
        self.bn = nn.BatchNorm2d(n_out, eps=_EPS)
        self.padding = (0, 0, (kernel[0] - 1) // 2, kernel[0] // 2)

    def forward(self, image: Tensor) -> Tensor:
        """image: (B, C, T, W) -> (B, C', T, W')."""
        output: Tensor = self.bn(F.relu(self.conv(F.pad(image, self.padding))))
        return output

    def peaks(self, image: Tensor) -> Tensor:
        """Returns `forward(image).amax(dim=3)`, (B, C', T), at two thirds of the cost.

        ReLU preserves order and batch norm preserves or reverses it, so both are applied to the
        maximum alone; where batch norm reverses the order, to the minimum.
        """
        sign = self.bn.weight.sign()
        weight = self.conv.weight * sign[:, None, None, None]
        bias = None if self.conv.bias is None else self.conv.bias * sign
        extremes = F.conv2d(F.pad(image, self.padding), weight, bias).amax(dim=3, keepdim=True)
        output: Tensor = self.bn(F.relu(extremes * sign[:, None, None]))
        return output.squeeze(3)


class MusiCNN(nn.Module):
    """The tagger of 50 tags. `load_musicnn` returns it in eval mode, without gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.input_bn = nn.BatchNorm2d(1, eps=_EPS)
        self.timbral38 = _Conv(1, 204, (7, 38))
        self.timbral67 = _Conv(1, 204, (7, 67))
        self.temporal128 = _Conv(1, 51, (128, 1))
        self.temporal64 = _Conv(1, 51, (64, 1))
        self.temporal32 = _Conv(1, 51, (32, 1))
        self.mid1 = _Conv(1, 64, (7, 561))
        self.mid2 = _Conv(1, 64, (7, 64))
        self.mid3 = _Conv(1, 64, (7, 64))
        self.pool_bn = nn.BatchNorm1d(2 * N_POOLED, eps=_EPS)
        self.penultimate = nn.Linear(2 * N_POOLED, N_PENULTIMATE)
        self.penultimate_bn = nn.BatchNorm1d(N_PENULTIMATE, eps=_EPS)
        self.output = nn.Linear(N_PENULTIMATE, N_TAGS)

    def forward(self, log_mel: Tensor) -> TaggerOutput:
        """log_mel: (B, T, 96) as `musicnn_mel`; T = 187 as trained, any T works.

        Raises ShapeError for another shape.
        """
        if log_mel.ndim != 3 or log_mel.shape[2] != MEL.n_mels:
            raise ShapeError(f"log_mel must be (B, T, {MEL.n_mels}); found {tuple(log_mel.shape)}")
        image = self.input_bn(log_mel[:, None])  # (B, 1, T, 96)
        convolutions = (
            self.timbral38,
            self.timbral67,
            self.temporal128,
            self.temporal64,
            self.temporal32,
        )
        front = torch.cat([conv.peaks(image) for conv in convolutions], dim=1)  # (B, 561, T)
        mid1 = self.mid1(front.transpose(1, 2)[:, None]).squeeze(3)  # (B, 64, T)
        mid2 = self.mid2(mid1.transpose(1, 2)[:, None]).squeeze(3) + mid1
        mid3 = self.mid3(mid2.transpose(1, 2)[:, None]).squeeze(3) + mid2
        frames = torch.cat([front, mid1, mid2, mid3], dim=1)  # (B, 753, T)
        max_pool = frames.amax(dim=2)
        mean_pool = frames.mean(dim=2)
        pooled = torch.stack([max_pool, mean_pool], dim=2).flatten(1)  # (B, 1506), interleaved
        penultimate = self.penultimate_bn(F.relu(self.penultimate(self.pool_bn(pooled))))
        taggram = torch.sigmoid(self.output(penultimate))
        return TaggerOutput(taggram, penultimate, mean_pool, max_pool)


@lru_cache(maxsize=2)
def load_musicnn(tagger: Tagger) -> MusiCNN:
    """Loads the tagger `msd` (Last.fm tags of the Million Song Dataset) or `mtt` (MagnaTagATune).

    Raises CheckpointError if the file in the package is missing or differs from the published one.
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
    """Returns the 50 tags of a tagger, in lower case, in the order of its output."""
    names = json.loads((WEIGHTS / "tags.json").read_text(encoding="utf-8"))[f"{tagger}_musicnn"]
    return tuple(name.lower() for name in names)


def musicnn_mel(waveform: NDArray[np.floating]) -> NDArray[np.float32]:
    """Returns MusiCNN's input, log10(10000 power + 1), (T, 96) float32, about 0 to 6.5.

    waveform: (n,) at 16 kHz; errors as `log_mel`. As in the reference, the power is rounded to
    float16, but it is multiplied in float32: in the reference, loud bins overflow to infinity.
    """
    power = np.minimum(mel_power(waveform, MEL), np.finfo(np.float16).max).astype(np.float16)
    scaled = np.float32(10_000.0) * power.astype(np.float32)
    compressed: NDArray[np.float32] = np.log10(scaled + np.float32(1.0))
    return compressed


def split_patches(waveform: NDArray[np.floating]) -> Tensor:
    """Returns the whole patches of 3 s of a waveform, (P, 187, 96); a shorter sound is repeated.

    waveform: (n,) at 16 kHz; errors as `log_mel`. As in the reference, the remainder after the last
    whole patch is left out.
    """
    mel = musicnn_mel(waveform)
    if len(mel) < PATCH_FRAMES:
        mel = np.tile(mel, (-(-PATCH_FRAMES // len(mel)), 1))[:PATCH_FRAMES]
    n_patches = len(mel) // PATCH_FRAMES
    frames = torch.from_numpy(mel[: n_patches * PATCH_FRAMES])
    return frames.reshape(n_patches, PATCH_FRAMES, MEL.n_mels)


@torch.no_grad()
def musicnn_forward(patches: Tensor, tagger: Tagger) -> TaggerOutput:
    """Runs MusiCNN on patches (P, 187, 96). Cost: 1/70 of the sound's length on one core."""
    model = load_musicnn(tagger)
    batches = []
    for start in range(0, len(patches), BATCH_PATCHES):
        batches.append(model(patches[start : start + BATCH_PATCHES]))
    return TaggerOutput(
        taggram=torch.cat([batch.taggram for batch in batches]),
        penultimate=torch.cat([batch.penultimate for batch in batches]),
        mean_pool=torch.cat([batch.mean_pool for batch in batches]),
        max_pool=torch.cat([batch.max_pool for batch in batches]),
    )
