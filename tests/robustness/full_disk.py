"""The disk is full: a small file system of its own, in memory, that really has no more room.

It is mounted in a child's own mount namespace, which takes root or a system that lets users make
namespaces.
"""

import hashlib
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ponticello.cli import main as command_line
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.tracks.catalog import audio_files
from tests.robustness.children import Child, Tell, command, in_child
from tests.robustness.namespaces import mount_memory
from tests.robustness.rows import NotPermitted, Outcome, Row, Trial, require
from tests.robustness.world import copy_library, make_world

PAGE = 4096  # what a file system in memory gives out at a time
SIZE = 96 << 20
QUESTION = "slow low dark piece"


@dataclass(frozen=True)
class Case:
    """What writes, what must still open when it could not, and what it leaves when it could."""

    name: str
    run: Callable[[Path], Callable[[Tell], None]]
    still_opens: Callable[[Path], object]
    result: Callable[[Path], object]


def _prepare(library: Path) -> Callable[[Tell], None]:
    """`prepare` in this process alone: starting its workers takes seconds."""

    def work(_: Tell) -> None:
        folder = Library.open(library).folder

        def app() -> None:
            with folder.lock():
                prepare_features(folder, audio_files(folder))

        command_line.app = app  # type: ignore[assignment]
        command_line.main()

    return work


def _store(library: Path) -> object:
    store = FeatureStore(library / "mels")
    require(store.verify() == [], "frames are not what was written")
    return [store.track_ids, [store.sha256(track_id) for track_id in store.track_ids]]


def _answer(library: Path) -> object:
    return [[found.track_id, found.score] for found in Library.open(library).search(QUESTION, k=5)]


def _model(run: str) -> Callable[[Path], object]:
    return lambda library: hashlib.sha256(
        HTCL.from_pretrained(library / "runs" / run).encode_text([QUESTION]).tobytes()
    ).hexdigest()


CASES = (
    Case(
        "checkpoint",
        lambda library: command("train", "preference", "-L", library),
        _model("semantic"),
        _model("preference"),
    ),
    Case("store", _prepare, _store, _store),
    Case("index", lambda library: command("embed", "-L", library), _answer, _answer),
)


def _before(library: Path, name: str) -> None:
    """Takes away what the case is to write."""
    if name == "checkpoint":
        shutil.rmtree(library / "runs" / "preference")
    if name == "store":
        folder = Library.open(library).folder
        some = dict(list(audio_files(folder).items())[:5])
        with folder.lock():
            prepare_features(folder, some)
    if name == "index":
        shutil.rmtree(library / "index")
        shutil.rmtree(library / "runs" / "preference" / "vectors")
        Library.open(library).embed("semantic", with_preference=False)


def _free(place: Path) -> int:
    found = os.statvfs(place)
    return found.f_bavail * found.f_frsize


def _use_up(place: Path, left: int) -> None:
    """Fills the file system but for `left` bytes."""
    with (place / "filler").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(PAGE, _free(place) - left))


def _tries(start: Path, place: Path, case: Case, n: int, seed: int) -> dict[str, object]:
    """In a file system that is full after so many bytes: from one page, doubled to enough, then
    anywhere below.
    """
    mount_memory(place, SIZE)
    library, filler = place / "library", place / "filler"
    copy_library(start, library)
    in_child(partial(_before, library, case.name))
    before = copy_library(library, place / "before")
    still = in_child(partial(case.still_opens, library))
    require(Child(case.run(library)).wait().code == 0, "does not even run with room")
    expected = in_child(partial(case.result, library))
    outcome, chance = Outcome(), random.Random(seed)

    def attempt(left: int) -> bool:
        copy_library(before, library)
        _use_up(place, left)
        ended = Child(case.run(library)).wait()
        if ended.code == 0:
            filler.unlink()
            return True
        with outcome.counted(f"{case.name}, {left:,} bytes left"):
            ended.require_error_line()
            opened = in_child(partial(case.still_opens, library))
            if case.name != "store":  # which may have grown by what did have room
                require(opened == still, "what was there before answers otherwise")
            filler.unlink()
            Child(case.run(library)).wait().require_success()
            require(
                in_child(partial(case.result, library)) == expected,
                "with room again it ends as something else",
            )
        filler.unlink(missing_ok=True)
        return False

    enough = PAGE
    while not attempt(enough):
        enough *= 2
    while outcome.tries < n:  # what had room after all is no try
        attempt(chance.randrange(enough // PAGE) * PAGE)
    return {"tries": outcome.tries, "failures": outcome.failures, "enough": enough}


def full_disk(trial: Trial) -> Outcome:
    """Each case in a child with a mount of its own."""
    outcome = Outcome()
    start = make_world(trial.work, trial.seed, train=True)
    for case in CASES:
        place = trial.work / case.name
        place.mkdir()
        found = in_child(
            partial(_mounted, start, place, case, trial.tries // len(CASES), trial.seed), 3_000
        )
        if "not permitted" in found:
            raise NotPermitted(found["not permitted"])
        outcome.tries += found["tries"]
        outcome.failures += found["failures"]
        outcome.notes.append(
            f"{case.name}: {found['tries']} tries below {found['enough'] >> 10:,} KiB"
        )
    return outcome


def _mounted(start: Path, place: Path, case: Case, n: int, seed: int) -> dict[str, object]:
    try:
        return _tries(start, place, case, n, seed)
    except NotPermitted as reason:
        return {"not permitted": str(reason)}


ROWS = [
    Row(
        "disk-full",
        "The disk is full at any point of writing a checkpoint, prepared frames or an index: one "
        "readable line, what was there before still opens, and with room again the command ends as "
        "if nothing had been",
        150,
        15,
        full_disk,
    )
]
