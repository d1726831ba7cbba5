"""Which checkpoint a run goes on from, and what is left behind when it is done."""

import shutil
from pathlib import Path

from ponticello.library import sync

COMPLETE = "complete"  # an empty file, written after everything else of a checkpoint


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was written whole; None if there is none. Half-written ones are removed."""
    whole = []
    for folder in checkpoints.glob("checkpoint-*"):
        if (folder / COMPLETE).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder)
    return max(whole, key=lambda folder: int(folder.name.removeprefix("checkpoint-")), default=None)


def publish(model_folder: Path, run: Path) -> None:
    """Moves the files of a finished model into its run's folder, weights last, and asks the disk to hold them."""
    files = sorted(model_folder.iterdir(), key=lambda file: file.suffix == ".safetensors")
    sync(files)
    for file in files:
        file.replace(run / file.name)
    sync([run])
    model_folder.rmdir()
