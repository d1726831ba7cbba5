"""What must hold while a model is saved: its weights are finite, and a disk that is full is said in one line."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ponticello.errors import CheckpointError


def require_finite(weights: Mapping[str, Tensor], place: str | Path) -> None:
    """CheckpointError names the first weight that is not finite."""
    for name, weight in weights.items():
        if not torch.isfinite(weight).all():
            raise CheckpointError(f"weight {name} is not finite: nothing was saved to {place}")


@contextmanager
def written_to(place: str | Path) -> Iterator[None]:
    """Around writing: CheckpointError where there is no room, or the disk fails.

    safetensors, tokenizers and torch each have an exception of their own for what elsewhere is an OSError.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        if not re.search(r"os error \d+|inline_container\.cc", str(error)):
            raise
        reason = re.search(r"[^:]* \(os error \d+\)", str(error))
        why = reason[0].strip() if reason else "it takes no more, as when it is full"
        raise CheckpointError(
            f"{place} cannot be written: {why}; make room, then run the same command again to go on"
        ) from None
