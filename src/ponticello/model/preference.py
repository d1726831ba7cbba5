"""The preference space over a frozen front end: one encoder for sound, words, or both.

Stage two leaves the semantic space as it is and trains this encoder beside it. A vector of a track
without text, of words alone, and of both lie in the same space.

Dimensions: B rows, d semantic vector size, D text state size, p preference vector size.
"""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ponticello.model.adapter import MIN_DEVIATION

EncoderKind = Literal["contrast", "regression", "both"]


class Standardize(nn.Module):
    """Centres inputs and scales each to deviation 1 / sqrt(size), so that rows have length 1."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    @torch.no_grad()
    def fit(self, rows: Tensor) -> None:
        """Takes mean and deviation of rows (N, size); N >= 1."""
        self.mean.copy_(rows.mean(dim=0))
        deviation = rows.std(dim=0, correction=0).clamp(min=MIN_DEVIATION)
        self.deviation.copy_(deviation * rows.shape[1] ** 0.5)

    def forward(self, rows: Tensor) -> Tensor:
        """Returns standardised rows (B, size)."""
        standardised: Tensor = (rows - self.mean) / self.deviation
        return standardised


class PreferenceEncoder(nn.Module):
    """Maps audio vectors and text states, either of them possibly missing, to unit vectors (B, p).

    kind: "contrast", `n_members` MLPs with one hidden layer and other initial weights, which share
        the p dimensions; "regression", a linear map for each set of modalities; "both", the two
        with half of the dimensions each. The unit vectors of the parts stand side by side, so that
        a cosine is the mean of theirs.
    """

    def __init__(
        self,
        kind: EncoderKind,
        audio_dim: int,
        text_size: int,
        hidden_size: int,
        embed_dim: int,
        n_members: int,
        dropout: float,
        logit_scale: float,
    ) -> None:
        super().__init__()
        self.kind = kind
        self.audio_dim = audio_dim
        self.text_size = text_size
        self.audio_inputs = Standardize(audio_dim)
        self.text_inputs = Standardize(text_size)
        part_dim = embed_dim // 2 if kind == "both" else embed_dim
        self.members = nn.ModuleList()
        if kind != "regression":
            n_inputs = audio_dim + text_size + 2  # and which modalities there are
            for _ in range(n_members):
                self.members.append(_mlp(n_inputs, hidden_size, part_dim // n_members, dropout))
        self.linear: LinearByModality | None = None
        if kind != "contrast":
            self.linear = LinearByModality(audio_dim, text_size, part_dim)
        self.logit_scale = nn.Parameter(torch.tensor(logit_scale))

    def forward(self, audio: Tensor, text: Tensor, has_audio: Tensor, has_text: Tensor) -> Tensor:
        """Returns unit vectors (B, p).

        audio: (B, d); text: (B, D); has_audio, has_text: (B,) bool, False = the row is missing and
        its numbers are not read.
        """
        audio_mask = has_audio[:, None].to(audio.dtype)
        text_mask = has_text[:, None].to(audio.dtype)
        inputs = torch.cat(
            [
                self.audio_inputs(audio) * audio_mask,
                self.text_inputs(text) * text_mask,
                audio_mask,
                text_mask,
            ],
            dim=1,
        )
        parts = []
        if len(self.members):
            by_member = [F.normalize(member(inputs), dim=-1) for member in self.members]
            parts.append(torch.cat(by_member, dim=-1) / len(by_member) ** 0.5)
        if self.linear is not None:
            parts.append(F.normalize(self.linear(inputs), dim=-1))
        vectors: Tensor = torch.cat(parts, dim=-1) / len(parts) ** 0.5
        return vectors

    def encode(self, audio: Tensor | None, text: Tensor | None) -> Tensor:
        """Returns unit vectors (B, p) of audio (B, d), of text states (B, D), or of both.

        Rows of zeros in `text` have no text.
        """
        rows = audio if audio is not None else text
        assert rows is not None
        n_rows = len(rows)
        has_audio = torch.full((n_rows,), audio is not None, device=rows.device)
        if text is None:
            text = rows.new_zeros(n_rows, self.text_size)
        has_text = text.any(dim=1) if audio is not None else torch.ones_like(has_audio)
        if audio is None:
            audio = rows.new_zeros(n_rows, self.audio_dim)
        vectors: Tensor = self(audio, text, has_audio, has_text)
        return vectors


class LinearByModality(nn.Module):
    """Three linear maps: for audio alone, for text alone and for both."""

    def __init__(self, audio_dim: int, text_size: int, n_outputs: int) -> None:
        super().__init__()
        n_inputs = audio_dim + text_size
        self.audio = nn.Linear(n_inputs, n_outputs)
        self.text = nn.Linear(n_inputs, n_outputs)
        self.both = nn.Linear(n_inputs, n_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns (B, n_outputs); inputs: (B, d + D + 2), the last two the masks."""
        features = inputs[:, :-2]
        has_audio = inputs[:, -2:-1] > 0
        has_text = inputs[:, -1:] > 0
        by_single = torch.where(has_audio, self.audio(features), self.text(features))
        return torch.where(has_audio & has_text, self.both(features), by_single)


def _mlp(n_inputs: int, hidden_size: int, n_outputs: int, dropout: float) -> nn.Sequential:
    layers: Sequence[nn.Module] = (
        nn.Linear(n_inputs, hidden_size),
        nn.BatchNorm1d(hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, n_outputs),
    )
    return nn.Sequential(*layers)
