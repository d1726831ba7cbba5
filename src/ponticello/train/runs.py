"""A run's folder: checkpoints to resume from, the record of a finished run, the starter's run."""

import hashlib
import json
import logging
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file, load_model, save_file, save_model
from torch import Tensor, nn
from torch.optim import Optimizer

from ponticello.config import Config
from ponticello.errors import CheckpointError, DataError, LibraryError
from ponticello.model.htcl import HTCL
from ponticello.model.saving import (
    MODEL_SECTIONS,
    report_write_errors,
    require_finite,
    saved_config,
)
from ponticello.model.starter import N_TRACKS, SHA256, build_starter, starter_settings
from ponticello.storage.files import atomic_write, file_sha256, fsync_paths
from ponticello.storage.layout import LibraryPaths
from ponticello.train.distributed import launch_info, main_process_first
from ponticello.train.selection import EncoderSelection, SelectionResult

logger = logging.getLogger(__name__)

STARTER = "starter"  # a run's name that no trained run may take
LISTENING_FILE = "listening.json"  # in a run's folder: the hash of the log it was trained with
RUN_FILE = "run.json"  # written last: a run that has it is finished
STARTED = "checkpoints/started.json"  # in a run's folder: settings that must stay to resume
COMPLETE = "complete.json"  # {file: SHA-256}, written when the rest of a checkpoint is on disk
CHECKPOINT_FORMAT = 2  # 1: those of a transformers.Trainer, which cannot be read any more
WEIGHTS = "model.safetensors"  # of a checkpoint, as the next two
OPTIMIZER = "optimizer.safetensors"  # tensors by "parameter number.name"
STATE = "state.json"  # step, log, and the loss terms since the last line of the log
_RECORDED = ("stage", "n_rows", "n_left_out", "n_steps", "best", "settings")
_MODEL_FILES = ("config.json", "model.safetensors")


def write_checkpoint(
    checkpoints: Path, model: nn.Module, optimizer: Optimizer, state: dict[str, Any]
) -> None:
    """Writes the folder checkpoint-N, N = state["step"], and marks it complete at the end.

    state: JSON values. The optimiser's rates are left out: the loop computes them anew.
    Raises CheckpointError if a weight is not finite or the disk is full.
    """
    folder = checkpoints / f"checkpoint-{state['step']}"
    require_finite(model.state_dict(), folder)
    tensors = {}
    for number, parameter_state in optimizer.state_dict()["state"].items():
        for name, value in parameter_state.items():
            tensors[f"{number}.{name}"] = value.contiguous()
    shutil.rmtree(folder, ignore_errors=True)  # a damaged one
    with report_write_errors(folder):
        folder.mkdir(parents=True)
        save_model(model, str(folder / WEIGHTS))
        save_file(tensors, folder / OPTIMIZER)
        (folder / STATE).write_text(json.dumps(state), encoding="utf-8")
        mark_complete(folder)


def read_checkpoint(checkpoint: Path, model: nn.Module, optimizer: Optimizer) -> dict[str, Any]:
    """Gives `model` and `optimizer` their state of a checkpoint, and returns the rest of it."""
    load_model(model, checkpoint / WEIGHTS)
    parameter_states: dict[int, dict[str, Tensor]] = defaultdict(dict)
    for key, value in load_file(checkpoint / OPTIMIZER).items():
        number, _, name = key.partition(".")
        parameter_states[int(number)][name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": parameter_states, "param_groups": groups})
    return dict(json.loads((checkpoint / STATE).read_text(encoding="utf-8")))


def load_weights(checkpoints: Path, step: int, model: nn.Module) -> None:
    """Gives `model` the weights of the checkpoint of a step; CheckpointError if it is damaged."""
    folder = checkpoints / f"checkpoint-{step}"
    damaged = damaged_file(folder)
    if damaged is not None:
        raise CheckpointError(
            f"{damaged} of {folder}, the best checkpoint, is damaged; "
            f"delete {checkpoints.parent} and train again"
        )
    load_model(model, folder / WEIGHTS)


def remove_checkpoints(checkpoints: Path, kept_steps: Collection[int]) -> None:
    """Removes all checkpoints but those of `kept_steps`."""
    for step, folder in checkpoint_folders(checkpoints).items():
        if step not in kept_steps:
            shutil.rmtree(folder)


def mark_complete(checkpoint: Path) -> None:
    """Flushes a checkpoint to disk and then writes the hashes of its files."""
    paths = [path for path in checkpoint.rglob("*") if path.is_file() and path.name != COMPLETE]
    paths.sort()
    fsync_paths(paths)
    fsync_paths([checkpoint])
    hashes = {path.relative_to(checkpoint).as_posix(): file_sha256(path) for path in paths}
    with atomic_write(checkpoint / COMPLETE) as temporary:
        temporary.write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def checkpoint_folders(checkpoints: Path) -> dict[int, Path]:
    """Returns the folders of all checkpoints by step, incomplete ones included."""
    folders = {}
    for folder in checkpoints.glob("checkpoint-*"):
        step = folder.name.removeprefix("checkpoint-")
        if step.isdecimal():
            folders[int(step)] = folder
    return folders


def last_checkpoint(checkpoints: Path) -> Path | None:
    """Returns the newest undamaged checkpoint, or None. Incomplete ones after it are removed.

    A damaged one is skipped with a warning. Cost: reads the files of the one returned.
    """
    for _, folder in sorted(checkpoint_folders(checkpoints).items(), reverse=True):
        if not (folder / COMPLETE).is_file():
            shutil.rmtree(folder, ignore_errors=True)  # another process may remove it too
            continue
        damaged = damaged_file(folder)
        if damaged is None:
            return folder
        logger.warning("%s of %s is damaged; using the one before", damaged, folder.name)
    return None


def damaged_file(checkpoint: Path) -> str | None:
    """Returns the name of the first file that does not match its hash, or None."""
    try:
        hashes = dict(json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return COMPLETE
    for name, expected in hashes.items():
        path = checkpoint / name
        if not path.is_file() or file_sha256(path) != expected:
            return str(name)
    return None


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a JSON file of `record` and its own SHA-256."""
    content = json.dumps(dict(record, sha256=_hash(record)), indent=1) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(content, encoding="utf-8")


def read_record(path: Path) -> dict[str, Any]:
    """Reads what `write_record` wrote; CheckpointError if it was changed.

    A record without its SHA-256 is accepted.
    """
    error = CheckpointError(f"{path} is not what was written; delete {path.parent} and train again")
    try:
        record = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise error from None
    expected = record.pop("sha256", None)
    if expected not in (None, _hash(record)):
        raise error
    return record


def _hash(record: Mapping[str, Any]) -> str:
    """Returns a hash that does not depend on spacing or the order of keys."""
    canonical = json.dumps(json.loads(json.dumps(record)), sort_keys=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def training_folder(folder: LibraryPaths, name: str) -> Path:
    """Returns the folder of the run `name`; LibraryError if it is the starter model's name."""
    if name == STARTER:
        raise LibraryError(
            f"run {name!r} is the model that comes with the package; choose another --name"
        )
    return folder.run(name)


def run_fingerprint(
    stage: str, model: HTCL, rows: object, stage_one_space_id: str | None = None
) -> dict[str, Any]:
    """Returns what must be unchanged when a run resumes: settings, data, and what it starts from.

    rows: the training rows in their order; their `repr` must show all that is trained on.
    """
    settings = model.settings.model_dump(mode="json")
    fingerprint = {section: settings[section] for section in (stage, *MODEL_SECTIONS)}
    fingerprint["front_end_weights"] = model.config.front_end_weights or None
    fingerprint["training_rows_sha256"] = hashlib.sha256(repr(rows).encode()).hexdigest()
    fingerprint["stage_one_space_id"] = stage_one_space_id
    fingerprint["checkpoint_format"] = CHECKPOINT_FORMAT
    return fingerprint


def start_run(run: Path, started: dict[str, Any]) -> None:
    """Writes the start of a run; CheckpointError if it resumes one that started otherwise."""
    if last_checkpoint(run / "checkpoints"):
        previous = read_started(run)
        changed = [key for key in started if previous and previous.get(key) != started[key]]
        if changed:
            raise CheckpointError(
                f"run {run.name!r} was interrupted and cannot go on: {', '.join(changed)} changed "
                f"since; choose another --name, or delete {run}"
            )
    with atomic_write(run / STARTED) as temporary:
        temporary.write_text(json.dumps(started), encoding="utf-8")


def read_started(run: Path) -> dict[str, Any]:
    """Reads what `start_run` wrote; {} without it, CheckpointError if it is damaged."""
    path = run / STARTED
    if not path.is_file():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError):
        raise CheckpointError(
            f"{path} is not what was written, so that the run cannot go on; "
            f"choose another --name, or delete {run}"
        ) from None


@dataclass(frozen=True)
class TrainedRun:
    """The result of a finished run."""

    folder: Path
    stage: str
    n_rows: int  # tracks or pairs trained on
    n_left_out: int  # rows without audio or text
    n_steps: int
    best: dict[str, float]  # the validation metrics of the trained weights
    selection: dict[str, Any] | None = None  # stage two: `SelectionResult` as a dict

    @classmethod
    def from_record(cls, folder: Path, record: Mapping[str, Any]) -> "TrainedRun":
        """Returns the run that a run.json record describes."""
        return cls(
            folder,
            record["stage"],
            record["n_rows"],
            record["n_left_out"],
            record["n_steps"],
            record["best"],
            record.get("selection"),
        )


def publish_run(
    trained: TrainedRun,
    model: HTCL,
    *,
    select: Callable[[HTCL], tuple[HTCL, SelectionResult | EncoderSelection]] | None = None,
    stage_one_space_id: str | None = None,
) -> TrainedRun:
    """Saves a trained model as a finished run and returns the run with its selection.

    select: returns the model to save in place of `model`, and why.
    stage_one_space_id: the space of the stage one that a stage two started from.
    Of several processes only the main one selects and writes.
    """
    record = asdict(trained)
    run = record.pop("folder")
    record["stage_one_space_id"] = stage_one_space_id
    record["settings"] = model.settings.model_dump(mode="json")
    with main_process_first():  # on a large catalogue selection outlasts a collective's timeout
        if launch_info()[0] == 0:
            if select is not None:
                model, selection = select(model)
                record["selection"] = {
                    **asdict(selection),
                    "is_served": selection.is_served,
                    "sentence": selection.sentence(),
                }
            model.save_pretrained(run / "finished")
            finalize_run(run / "finished", run)
            write_record(run / RUN_FILE, record)
            shutil.rmtree(run / "checkpoints", ignore_errors=True)
    return TrainedRun.from_record(run, record)


def finalize_run(model_folder: Path, run: Path) -> None:
    """Moves the files of a finished model into its run's folder, weights last, and flushes them."""
    paths = sorted(model_folder.iterdir(), key=lambda path: path.suffix == ".safetensors")
    fsync_paths(paths)
    for path in paths:
        path.replace(run / path.name)
    fsync_paths([run])
    model_folder.rmdir()


def is_finished(run: Path) -> bool:
    """Returns whether the run has ended and its model can be used."""
    return (run / RUN_FILE).is_file()


def is_served(run: Path) -> bool:
    """Returns whether a run is finished, and was better on validation than the stage before it."""
    if not is_finished(run):
        return False
    selection = read_record(run / RUN_FILE).get("selection") or {}
    return bool(selection.get("is_served", True))


def why_one_space(run: Path) -> str:
    """Returns one sentence, without a full stop, on why an index has no preference space.

    run: the stage two that would give it one.
    """
    reason = "stage two is not trained; run: ponticello train preference, then ponticello embed"
    if is_finished(run):
        try:
            reason = "stage two is not served, as validation shows no gain over stage one"
            if is_served(run):
                reason = "stage two is trained, but not in the index; run: ponticello embed"
        except CheckpointError:
            reason = "the record of stage two is damaged; run: ponticello doctor"
    return f"there is one space and no blend: {reason}"


def finished_run(
    run: Path, stage: str, config: Config | None, stage_one_space_id: str | None = None
) -> TrainedRun | None:
    """Returns the run if it is finished, else None.

    Raises CheckpointError if it is damaged, of another stage, made with other settings than
    `config`, or if a stage two started from another stage one than that of `stage_one_space_id`.
    """
    if not is_finished(run):
        return None
    record = read_record(run / RUN_FILE)
    missing = [name for name in _RECORDED if name not in record]
    if missing:
        raise CheckpointError(
            f"{run / RUN_FILE} does not say {', '.join(missing)}; delete {run} and train again"
        )
    for name in _MODEL_FILES:
        if not (run / name).is_file():
            raise CheckpointError(
                f"run {run.name!r} is finished, but its {name} is gone; "
                f"delete {run} and train again"
            )
    if record["stage"] != stage:
        raise CheckpointError(
            f"run {run.name!r} is of stage {record['stage']}; choose another --name"
        )
    if config is not None:
        _require_same_settings(run, stage, config, record["settings"])
    if stage_one_space_id and record.get("stage_one_space_id") not in (None, stage_one_space_id):
        raise CheckpointError(
            f"run {run.name!r} is finished, and began from another stage one; "
            f"choose another --name, or delete {run}"
        )
    return TrainedRun.from_record(run, record)


def _require_same_settings(
    run: Path, stage: str, config: Config, settings: Mapping[str, Any]
) -> None:
    trained_with = saved_config(settings, run / RUN_FILE)
    sections = [stage]
    sections.extend(MODEL_SECTIONS)
    for section in sections:
        if getattr(config, section) != getattr(trained_with, section):
            raise CheckpointError(
                f"run {run.name!r} is finished, with other settings in [{section}]; "
                f"choose another --name, or delete {run}"
            )


def starter_run(folder: LibraryPaths) -> Path:
    """Returns the starter model as the finished run "starter", which it builds if needed.

    It is built again if the package brings another starter or the settings that it depends on
    changed. Raises CheckpointError as `build_starter`.
    """
    run = folder.run(STARTER)
    settings = starter_settings(folder.config).model_dump(mode="json")
    settings[STARTER] = SHA256
    if is_finished(run) and read_record(run / RUN_FILE)["settings"] == settings:
        return run
    (run / RUN_FILE).unlink(missing_ok=True)
    build_starter(folder.config).save_pretrained(run / "finished")
    finalize_run(run / "finished", run)
    record = {
        "stage": "semantic",
        "n_rows": N_TRACKS,
        "n_left_out": 0,
        "n_steps": 0,
        "best": {},
        "settings": settings,
    }
    write_record(run / RUN_FILE, record)
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
    return file_sha256(path) if path.is_file() else None


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
