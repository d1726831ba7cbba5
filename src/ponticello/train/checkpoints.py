"""Which checkpoint a run goes on from and what stands beside it, and what is left behind when it is done."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ponticello.errors import CheckpointError
from ponticello.library import replacing, sync

COMPLETE = "complete"  # an empty file, written after everything else of a checkpoint
UNLOGGED = "unlogged.json"  # the losses of the steps since the last line of the log


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that was written whole; None if there is none. Half-written ones are removed."""
    whole = []
    for folder in checkpoints.glob("checkpoint-*"):
        if (folder / COMPLETE).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too
    return max(whole, key=lambda folder: int(folder.name.removeprefix("checkpoint-")), default=None)


def write_unlogged(checkpoint: Path, parts: Mapping[str, list[float]]) -> None:
    """Keeps the losses by part of the steps that no line of the log tells yet."""
    (checkpoint / UNLOGGED).write_text(json.dumps(parts), encoding="utf-8")


def read_unlogged(checkpoint: Path) -> dict[str, list[float]]:
    """What `write_unlogged` kept; nothing if the checkpoint was written before it did."""
    path = checkpoint / UNLOGGED
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def begin(run: Path, started: dict[str, Any]) -> None:
    """Notes what a run starts from; CheckpointError if it was begun from something else and was interrupted."""
    note = run / "checkpoints" / "started.json"
    if last_checkpoint(run / "checkpoints") and note.is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        changed = ", ".join(key for key in started if before.get(key) != started[key])
        if changed:
            raise CheckpointError(
                f"run {run.name!r} was interrupted and cannot go on: {changed} changed since; choose another --name, "
                f"or delete {run}"
            )
    with replacing(note) as temporary:
        temporary.write_text(json.dumps(started), encoding="utf-8")


def publish(model_folder: Path, run: Path) -> None:
    """Moves the files of a finished model into its run's folder, weights last, and asks the disk to hold them."""
    files = sorted(model_folder.iterdir(), key=lambda file: file.suffix == ".safetensors")
    sync(files)
    for file in files:
        file.replace(run / file.name)
    sync([run])
    model_folder.rmdir()
