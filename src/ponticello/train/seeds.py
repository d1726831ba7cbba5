"""The same training with several seeds: what each run is called, and its settings."""

from dataclasses import replace
from typing import Literal

from ponticello.library import Folder


def seed_run(name: str, number: int) -> str:
    """The run of the `number`-th seed, from 1: `semantic`, `semantic-2`, `semantic-3`, ..."""
    return name if number == 1 else f"{name}-{number}"


def with_seed(folder: Folder, stage: Literal["semantic", "preference"], number: int) -> Folder:
    """`folder` with the stage's configured seed plus `number` - 1."""
    settings = getattr(folder.config, stage)
    seeded = settings.model_copy(update={"seed": settings.seed + number - 1})
    return replace(folder, config=folder.config.model_copy(update={stage: seeded}))
