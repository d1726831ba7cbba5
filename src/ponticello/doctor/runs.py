"""Training runs: those that stopped, those that have to be trained again, and what they leave lying about."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ponticello.data.forget import RETRAIN_FILE
from ponticello.doctor.finding import Finding, run_check
from ponticello.errors import CheckpointError, PonticelloError
from ponticello.library import Folder
from ponticello.model.checksums import check_checksums
from ponticello.model.space import space_id
from ponticello.train.checkpoints import read_started
from ponticello.train.finished import RUN_FILE, STARTER, finished_run, is_finished

_WORTH_TELLING = 100 * 2**20  # bytes


def check_runs(folder: Folder) -> Iterator[Finding]:
    """Every run in the library."""
    runs = sorted(path for path in (folder.root / "runs").glob("*") if path.is_dir())
    if not [run for run in runs if run.name != STARTER] and folder.tracks.is_file():
        what = "nothing is trained yet: answers come from the starter model, where there are any"
        yield Finding("note", what, "runs/", "ponticello train semantic")
    for run in runs:
        where = f"runs/{run.name}/"
        yield from run_check(where, partial(_check_run, run, where))  # one that fails hides no other


def _check_run(run: Path, where: str) -> Iterator[Finding]:
    if (run / RETRAIN_FILE).is_file():
        what = f"it learned from a listener who has been forgotten since{_why(run / RETRAIN_FILE)}"
        yield Finding("warning", what, where, f"delete {where}, train it again, and embed")
    train = f"ponticello train {_stage(run)} --name {run.name}"
    try:
        if not is_finished(run):
            read_started(run)
            note = "training was begun and has not ended"
            yield Finding("note", note, where, f"{train}, which goes on; or delete {where}")
            return
        finished_run(run, _stage(run), None)
        check_checksums(run)
        own = space_id(run)
    except (PonticelloError, OSError, ValueError) as error:
        what = f"its model cannot be read: {error}" if is_finished(run) else str(error)
        yield Finding("error", what, where, f"delete {where}, then {train}, and ponticello embed")
        return
    yield Finding("ok", f"finished, space {own}", where)
    stale = [path for path in (run / "vectors").glob("*") if path.is_dir() and path.name.split("-")[0] != own]
    for path, what in [*((path, "vectors of a model it no longer is") for path in stale), *_checkpoints(run)]:
        n_bytes = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
        if n_bytes >= _WORTH_TELLING:
            told = f"{what}, {n_bytes / 2**20:,.0f} MB"
            yield Finding("note", told, f"{where}{path.relative_to(run)}/", "delete it, if the room is wanted")


def _checkpoints(run: Path) -> list[tuple[Path, str]]:
    place = run / "checkpoints"
    return [(place, "checkpoints of a run that has ended")] if place.is_dir() else []


def _why(note: Path) -> str:
    """What a note says of how it came about, in brackets; nothing where it is damaged: that it is there says enough."""
    try:
        return f" ({dict(json.loads(note.read_text(encoding='utf-8')))['why']})"
    except (ValueError, LookupError, TypeError, RecursionError):
        return ""


def _stage(run: Path) -> str:
    """As its record says, or what it began with, which names the settings of its stage; else as it is called."""
    try:
        stage = json.loads((run / RUN_FILE).read_text(encoding="utf-8"))["stage"]
    except (OSError, ValueError, LookupError, TypeError):
        stage = None
    if stage in ("semantic", "preference"):
        return str(stage)
    try:
        begun = read_started(run)
    except CheckpointError:
        begun = {}
    is_preference = "preference" in begun if begun else run.name.startswith("preference")
    return "preference" if is_preference else "semantic"
