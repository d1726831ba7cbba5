"""Which checkpoint a run goes on from and what stands beside it; what is left when it is done, and its record."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ponticello.errors import CheckpointError
from ponticello.library import replacing, sync
from ponticello.model.checksums import file_hash

logger = logging.getLogger(__name__)

COMPLETE = "complete.json"  # {file: SHA-256}, written when everything else of a checkpoint is on the disk
UNLOGGED = "unlogged.json"  # the losses of the steps since the last line of the log

STARTED = "checkpoints/started.json"  # in a run's folder: settings and rows it was begun with


def mark_complete(checkpoint: Path) -> None:
    """Notes that a checkpoint is whole, once the disk holds it, and what its files are."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != COMPLETE)
    sync([*files, checkpoint])
    hashes = {file.relative_to(checkpoint).as_posix(): file_hash(file) for file in files}
    with replacing(checkpoint / COMPLETE) as temporary:
        temporary.write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is as it was written; None if there is none. Half-written ones are removed.

    One whose files are others now is passed over with a warning. Cost: reads the one it takes.
    """
    whole = []
    for folder in (each for each in checkpoints.glob("checkpoint-*") if _step(each).isdecimal()):
        if (folder / COMPLETE).is_file():
            whole.append(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)  # another process may be at it too
    for folder in sorted(whole, key=lambda folder: -int(_step(folder))):
        if damaged := _damaged(folder):
            logger.warning("%s of %s is not what was written; going on from before it", damaged, folder.name)
        else:
            return folder
    return None


def _step(checkpoint: Path) -> str:
    return checkpoint.name.removeprefix("checkpoint-")


def _damaged(checkpoint: Path) -> str:
    """The first file that is not what `mark_complete` saw; "" if all are."""
    try:
        hashes = dict(json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        return COMPLETE
    there = ((name, checkpoint / name) for name in hashes)
    return next((name for name, file in there if not file.is_file() or file_hash(file) != hashes[name]), "")


def write_unlogged(checkpoint: Path, parts: Mapping[str, list[float]]) -> None:
    """Keeps the losses by part of the steps that no line of the log tells yet."""
    (checkpoint / UNLOGGED).write_text(json.dumps(parts), encoding="utf-8")


def read_unlogged(checkpoint: Path) -> dict[str, list[float]]:
    """What `write_unlogged` kept; nothing if the checkpoint was written before it did."""
    path = checkpoint / UNLOGGED
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Replaces a JSON file by `record` and its own SHA-256."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({**record, "sha256": _hash(record)}, indent=1) + "\n", encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote; CheckpointError if it is something else. One without its SHA-256 is taken as it is."""
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        found = {"sha256": ""}
    written = found.pop("sha256", None)
    if written not in (None, _hash(found)):
        raise CheckpointError(f"{path} is not what was written; delete {path.parent} and train again")
    return found


def _hash(record: Mapping[str, Any]) -> str:
    """Of what JSON makes of it, whatever its spacing and order."""
    plain = json.dumps(json.loads(json.dumps(record)), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def begin(run: Path, started: dict[str, Any]) -> None:
    """Notes what a run starts from; CheckpointError if it was begun from something else and was interrupted."""
    if last_checkpoint(run / "checkpoints") and (before := read_started(run)):
        changed = ", ".join(key for key in started if before.get(key) != started[key])
        if changed:
            raise CheckpointError(
                f"run {run.name!r} was interrupted and cannot go on: {changed} changed since; choose another --name, "
                f"or delete {run}"
            )
    with replacing(run / STARTED) as temporary:
        temporary.write_text(json.dumps(started), encoding="utf-8")


def read_started(run: Path) -> dict[str, Any]:
    """What `begin` noted of a run that has not ended; nothing if it did not. CheckpointError if that is damaged."""
    note = run / STARTED
    if not note.is_file():
        return {}
    try:
        return dict(json.loads(note.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(
            f"{note} is not what was written, so that the run cannot go on; choose another --name, or delete {run}"
        ) from None


def publish(model_folder: Path, run: Path) -> None:
    """Moves the files of a finished model into its run's folder, weights last, and asks the disk to hold them."""
    files = sorted(model_folder.iterdir(), key=lambda file: file.suffix == ".safetensors")
    sync(files)
    for file in files:
        file.replace(run / file.name)
    sync([run])
    model_folder.rmdir()
