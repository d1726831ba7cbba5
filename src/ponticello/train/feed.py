"""What of a batch the towers get: one wording of a text, one crop of a track, and only so many rows at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ponticello.data.batch import random_crop

TEXTS = ("text_states", "input_ids", "attention_mask")  # (B, V, ...): V wordings of each row's text


def one_wording(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The texts of a batch, (B, V, ...), with one wording a row drawn from torch's global generator: (B, ...)."""
    texts = {name: batch[name] for name in TEXTS if name in batch}
    n_rows, n_wordings = next(iter(texts.values())).shape[:2]
    chosen = torch.randint(n_wordings, (n_rows,)) if n_wordings > 1 else torch.zeros(n_rows, dtype=torch.long)
    return {name: value[torch.arange(n_rows), chosen] for name, value in texts.items()}


class Feed:
    """A batch whose sound is read and padded when its rows are asked for, so that a chunk is all that is held of it.

    Wordings and crops are drawn once, when the feed is made, from torch's global generator and in the order of an
    unchunked step: asked twice, a row is the same.

    batch: as `Collator.unpadded` gives it, without what is for the loss. pad: `Collator.pad`. crop_frames: 0 = none.
    """

    def __init__(
        self,
        batch: dict[str, Any],
        pad: Callable[[Sequence[np.ndarray]], tuple[Tensor, Tensor]],
        crop_frames: int,
        device: torch.device,
    ) -> None:
        self.mels: list[np.ndarray] = batch["mels"]
        self.beside = {"has_text": batch["has_text"], **one_wording(batch)}
        self.pad, self.crop_frames, self.device = pad, crop_frames, device
        self.drawn = torch.rand(len(self.mels)) if crop_frames else torch.zeros(0)

    def chunks(self, size: int) -> list[Tensor]:
        """Row numbers, at most `size` each, rows of like length together: little of a chunk is padding."""
        n_frames = torch.tensor([len(mel) for mel in self.mels])
        heard = n_frames.clamp(max=self.crop_frames) if self.crop_frames else n_frames
        return list(torch.split(heard.argsort(stable=True), size))

    def rows(self, chosen: Tensor) -> dict[str, Tensor]:
        """The model's inputs for the rows `chosen`, (n,) numbers."""
        mel, padding_mask = self.pad([self.mels[row] for row in chosen.tolist()])
        if self.crop_frames:
            mel, padding_mask = random_crop(mel, padding_mask, self.crop_frames, self.drawn[chosen])
        beside = {name: value[chosen.to(value.device)] for name, value in self.beside.items()}
        return {"mel": mel.to(self.device), "padding_mask": padding_mask.to(self.device), **beside}
