"""Which checkpoint a run goes on from and what stands beside it; what is left when it is done, and
its record.

What a finished run leaves in its folder, and how one is told from a run that is not done.

The model that comes with the package, as stage one of a library that has trained none.
"""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from ponticello.config import Config
from ponticello.errors import CheckpointError, DataError
from ponticello.model.config import MODEL_SECTIONS
from ponticello.model.saving import file_hash, saved_config
from ponticello.model.starter import N_TRACKS, SHA256, build_starter, starter_settings
from ponticello.storage.files import atomic_write, fsync_paths
from ponticello.storage.layout import LibraryPaths

logger = logging.getLogger(__name__)

LISTENING_FILE = "listening.json"  # in a run's folder: the log it was trained with
COMPLETE = (
    "complete.json"  # {file: SHA-256}, written when everything else of a checkpoint is on the disk
)
UNLOGGED = "unlogged.json"  # the losses of the steps since the last line of the log

STARTED = "checkpoints/started.json"  # in a run's folder: settings and rows it was begun with


def mark_complete(checkpoint: Path) -> None:
    """Notes that a checkpoint is whole, once the disk holds it, and what its files are."""
    files = sorted(
        file for file in checkpoint.rglob("*") if file.is_file() and file.name != COMPLETE
    )
    fsync_paths([*files, checkpoint])
    hashes = {file.relative_to(checkpoint).as_posix(): file_hash(file) for file in files}
    with atomic_write(checkpoint / COMPLETE) as temporary:
        temporary.write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The newest checkpoint that is as it was written; None if there is none. Half-written ones are
    removed.

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
            logger.warning(
                "%s of %s is not what was written; going on from before it", damaged, folder.name
            )
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
    return next(
        (name for name, file in there if not file.is_file() or file_hash(file) != hashes[name]), ""
    )


def write_unlogged(checkpoint: Path, parts: Mapping[str, list[float]]) -> None:
    """Keeps the losses by part of the steps that no line of the log tells yet."""
    (checkpoint / UNLOGGED).write_text(json.dumps(parts), encoding="utf-8")


def read_unlogged(checkpoint: Path) -> dict[str, list[float]]:
    """What `write_unlogged` kept; nothing if the checkpoint was written before it did."""
    path = checkpoint / UNLOGGED
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Replaces a JSON file by `record` and its own SHA-256."""
    with atomic_write(path) as temporary:
        temporary.write_text(
            json.dumps({**record, "sha256": _hash(record)}, indent=1) + "\n", encoding="utf-8"
        )


def read_record(path: Path) -> dict[str, Any]:
    """What `write_record` wrote; CheckpointError if it is something else. One without its SHA-256
    is taken as it is.
    """
    try:
        found = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        found = {"sha256": ""}
    written = found.pop("sha256", None)
    if written not in (None, _hash(found)):
        raise CheckpointError(
            f"{path} is not what was written; delete {path.parent} and train again"
        )
    return found


def _hash(record: Mapping[str, Any]) -> str:
    """Of what JSON makes of it, whatever its spacing and order."""
    plain = json.dumps(json.loads(json.dumps(record)), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def start_run(run: Path, started: dict[str, Any]) -> None:
    """Notes what a run starts from; CheckpointError if it was begun from something else and was
    interrupted.
    """
    if last_checkpoint(run / "checkpoints") and (before := read_started(run)):
        changed = ", ".join(key for key in started if before.get(key) != started[key])
        if changed:
            raise CheckpointError(
                f"run {run.name!r} was interrupted and cannot go on: {changed} changed since; choose another --name, "
                f"or delete {run}"
            )
    with atomic_write(run / STARTED) as temporary:
        temporary.write_text(json.dumps(started), encoding="utf-8")


def read_started(run: Path) -> dict[str, Any]:
    """What `start_run` noted of a run that has not ended; nothing if it did not. CheckpointError if
    that is damaged.
    """
    note = run / STARTED
    if not note.is_file():
        return {}
    try:
        return dict(json.loads(note.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(
            f"{note} is not what was written, so that the run cannot go on; choose another --name, or delete {run}"
        ) from None


def finalize_run(model_folder: Path, run: Path) -> None:
    """Moves the files of a finished model into its run's folder, weights last, and asks the disk to
    hold them.
    """
    files = sorted(model_folder.iterdir(), key=lambda file: file.suffix == ".safetensors")
    fsync_paths(files)
    for file in files:
        file.replace(run / file.name)
    fsync_paths([run])
    model_folder.rmdir()


STARTER = "starter"  # a run's name that no trained run may take
RUN_FILE = "run.json"  # written last: its presence says that the run is finished
_RECORDED = ("stage", "n_rows", "n_left_out", "n_steps", "best", "settings")  # in every version
_MODEL = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class TrainedRun:
    """What a finished run amounts to."""

    folder: Path
    stage: str
    n_rows: int  # tracks or pairs trained on
    n_left_out: int  # rows without audio or text
    n_steps: int
    best: dict[str, float]  # the validation the trained weights had
    selection: dict[str, Any] | None = None  # stage two: `SelectionResult` as a dict

    @classmethod
    def from_record(cls, folder: Path, record: Mapping[str, Any]) -> "TrainedRun":
        """Returns the run that a run.json record describes."""
        names = [field.name for field in fields(cls) if field.name in record]
        return cls(folder=folder, **{name: record[name] for name in names})


def is_finished(run: Path) -> bool:
    """Whether the run at `run` has ended and its model can be used."""
    return (run / RUN_FILE).is_file()


def finished_run(
    run: Path, stage: str, config: Config | None, stage_one_space_id: str | None = None
) -> TrainedRun | None:
    """The run at `run` if it is done; CheckpointError if it is damaged, of the other stage, or not
    made with `config`.

    stage_one_space_id: the space of the stage one that is asked for, which a stage two must have begun
    from.
    """
    if not is_finished(run):
        return None
    record = read_record(run / RUN_FILE)
    lacking = [name for name in _RECORDED if name not in record]
    if lacking:
        raise CheckpointError(
            f"{run / RUN_FILE} does not say {', '.join(lacking)}; delete {run} and train again"
        )
    gone = [name for name in _MODEL if not (run / name).is_file()]
    if gone:
        raise CheckpointError(
            f"run {run.name!r} is finished, but its {gone[0]} is gone; delete {run} and train again"
        )
    if record["stage"] != stage:
        raise CheckpointError(
            f"run {run.name!r} is of stage {record['stage']}; choose another --name"
        )
    if config is not None:
        made_with = saved_config(record["settings"], run / RUN_FILE)
        changed = [
            part
            for part in (stage, *MODEL_SECTIONS)
            if getattr(config, part) != getattr(made_with, part)
        ]
        if changed:
            raise CheckpointError(
                f"run {run.name!r} is finished, with other settings in [{changed[0]}]; choose another --name, "
                f"or delete {run}"
            )
    if stage_one_space_id and record.get("stage_one_space_id") not in (None, stage_one_space_id):
        raise CheckpointError(
            f"run {run.name!r} is finished, and began from another stage one; choose another --name, or delete {run}"
        )
    return TrainedRun.from_record(run, record)


def starter_run(folder: LibraryPaths) -> Path:
    """The starter model as a finished stage one of the library, named "starter": assembled when it
    is not there yet.

    It is assembled anew where the package brings another one, or the settings ask for another
    reading of the sound. CheckpointError as `build_starter`.
    """
    run, config = folder.run(STARTER), starter_settings(folder.config)
    settings = {**config.model_dump(mode="json"), STARTER: SHA256}
    if not is_finished(run) or read_record(run / RUN_FILE)["settings"] != settings:
        (run / RUN_FILE).unlink(missing_ok=True)
        build_starter(folder.config).save_pretrained(run / "finished")
        finalize_run(run / "finished", run)
        record = {
            "stage": "semantic",
            "n_rows": N_TRACKS,
            "n_left_out": 0,
            "n_steps": 0,
            "best": {},
        }
        write_record(run / RUN_FILE, {**record, "settings": settings})
    return run


def note_listening(folder: LibraryPaths, run: Path, read_sha256: str | None) -> None:
    """Notes in a run's folder the log it is trained with; from then on `erase_users` marks the run.

    read_sha256: `log_sha256` before the log and the pairs were read. DataError (log_changed) if the
    log is another one now, as a listener may have been erased from it.
    """
    if log_sha256(folder.interactions) != read_sha256:
        raise DataError(
            f"{folder.interactions.name} changed while it was read; run the same command again",
            code="log_changed",
        )
    with atomic_write(run / LISTENING_FILE) as temporary:
        temporary.write_text(json.dumps({"log_sha256": read_sha256}) + "\n", encoding="utf-8")


def log_sha256(path: Path) -> str | None:
    """Returns the hash of a listening log; None where there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seed_run(name: str, number: int) -> str:
    """Returns the run of the `number`-th seed, from 1: `semantic`, `semantic-2`, ..."""
    return name if number == 1 else f"{name}-{number}"


def with_seed(
    folder: LibraryPaths, stage: Literal["semantic", "preference"], number: int
) -> LibraryPaths:
    """Returns `folder` with the stage's configured seed plus `number` - 1."""
    settings = getattr(folder.config, stage)
    seeded = settings.model_copy(update={"seed": settings.seed + number - 1})
    return replace(folder, config=folder.config.model_copy(update={stage: seeded}))
