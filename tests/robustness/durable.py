"""The store of prepared frames and the index, killed while they are written."""

import random
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from ponticello.features import prepare
from ponticello.features.extraction import ExtractionJob
from ponticello.features.prepare import prepare_features
from ponticello.features.store import FeatureStore
from ponticello.search.embed import Vectors
from ponticello.search.generations import open_index, write_index
from ponticello.search.index import Calibration, VectorSpace, nearest_rows
from ponticello.storage.layout import SETTINGS_FILE, LibraryPaths, create_library, open_library
from tests.robustness.children import Child, Tell, in_child
from tests.robustness.rows import Outcome, Row, Trial, require

N_BEFORE, N_A_CALL, N_CALLS = 20, 15, 6  # tracks there before; tracks a call adds, and calls
FRAME_SIZE, SIZE = 16, 24
ACKNOWLEDGED = (
    "acknowledged "  # told with a number of tracks once the call that added them has returned
)


def frames_of(track_id: str) -> np.ndarray:
    """(T, F) float16: what the track's frames are, told by its name."""
    generator = np.random.default_rng(int(track_id.removeprefix("t")))
    return generator.normal(-40, 10, (int(generator.integers(20, 60)), FRAME_SIZE)).astype(
        np.float16
    )


def _extract(_path: Path, track_id: str) -> np.ndarray:
    return frames_of(track_id)


def names(n: int) -> list[str]:
    """The first n tracks."""
    return [f"t{number:05}" for number in range(n)]


def _prepare(folder: LibraryPaths, sound: Path, n: int) -> None:
    front_end = ExtractionJob(folder.mels, "made up", _extract, "prepare", is_safe=True)
    with folder.lock(10.0):
        prepare_features(folder, dict.fromkeys(names(n), sound), front_end)


def _grow_store(tell: Tell, place: Path) -> None:
    folder, sound = _library(place)
    prepare._SHARD_TRACKS = 4  # so that a call has several shards to lose
    for call in range(N_CALLS + 1):
        n = N_BEFORE + call * N_A_CALL
        _prepare(folder, sound, n)
        tell(f"{ACKNOWLEDGED}{n}")


def _check_store(place: Path, acknowledged: int) -> None:
    """Opens, holds what was acknowledged and nothing wrong; and goes on to the whole."""
    folder, sound = _library(place)
    if acknowledged or (folder.mels / "manifest.parquet").exists():
        store = FeatureStore(folder.mels)
        require(store.verify() == [], "a track's bytes are not what was written")
        lost = set(names(acknowledged)) - set(store.track_ids)
        require(not lost, f"{len(lost)} acknowledged tracks are lost")
        for track_id in store.track_ids:
            require(
                np.array_equal(store.read(track_id), frames_of(track_id)),
                f"{track_id} has other frames",
            )
    n = N_BEFORE + N_CALLS * N_A_CALL
    _prepare(folder, sound, n)
    store = FeatureStore(folder.mels)
    require(store.track_ids == names(n), "running again does not complete it")
    require(
        all(np.array_equal(store.read(t), frames_of(t)) for t in store.track_ids),
        "completed with other frames",
    )
    leftovers = [path.name for path in folder.mels.iterdir() if path.name.endswith(".tmp")]
    require(not leftovers, f"{leftovers[:1]} is left behind for good")


def vectors_of(n: int) -> Vectors:
    """Unit vectors that a track's name tells."""
    rows = np.stack(
        [np.random.default_rng(number).normal(size=SIZE) for number in range(n)]
    ).astype(np.float32)
    return Vectors(names(n), rows / np.linalg.norm(rows, axis=1, keepdims=True), "made-up")


def _grow_index(tell: Tell, place: Path) -> None:
    space = VectorSpace("made-up", "made-up", Calibration(0.0, 1.0), Calibration(0.0, 1.0))
    for call in range(N_CALLS + 1):
        n = N_BEFORE + call * N_A_CALL
        write_index(place, vectors_of(n), None, [space], backend="exact")
        tell(f"{ACKNOWLEDGED}{n}")


def _check_index(place: Path, acknowledged: int) -> None:
    """Opens, with what was acknowledged or the call after it; its neighbours are those of brute
    force.
    """
    if not acknowledged and not (place / "CURRENT").is_file():
        return
    index = open_index(place)
    n = len(index.track_ids)
    require(index.track_ids == names(n), "other tracks than were given")
    require(
        acknowledged <= n <= max(acknowledged + N_A_CALL, N_BEFORE),
        f"{n} tracks, acknowledged {acknowledged}",
    )
    expected = vectors_of(n).matrix
    require(np.array_equal(index.vectors, expected), "other vectors than were given")
    for row in range(0, n, 7):
        scores = expected @ expected[row]
        best = set(np.argsort(-scores, kind="stable")[:5].tolist())
        found = set(nearest_rows(index.vectors, expected[row], 5, finder=index.finder)[0].tolist())
        require(found == best, "the neighbours are not those of brute force")
    _grow_index(lambda _: None, place)
    require(
        len(open_index(place).track_ids) == N_BEFORE + N_CALLS * N_A_CALL,
        "running again does not complete it",
    )


def _library(place: Path) -> tuple[LibraryPaths, Path]:
    """The library at `place`, made if it is not there, and the file all its tracks come from."""
    place.mkdir(exist_ok=True)
    (place / "sound").write_bytes(b"sound")
    root = place / "library"
    is_there = (root / SETTINGS_FILE).exists()
    return (open_library(root) if is_there else create_library(root, "tiny")), place / "sound"


def _killed(
    trial: Trial, grow: Callable[[Tell, Path], None], check: Callable[[Path, int], None]
) -> Outcome:
    """Grows in a child, which is killed at a random time, and checks what is there in another."""
    outcome, chance = Outcome(), random.Random(trial.seed)
    seconds = []
    for _ in range(3):  # the first one is slower
        whole = Child(lambda tell: grow(tell, trial.work / "whole")).wait()
        whole.require_success()
        shutil.rmtree(trial.work / "whole")
        seconds.append(whole.seconds)
    n_late = 0
    while outcome.tries < trial.tries:
        child = Child(lambda tell: grow(tell, trial.work / "place"))
        time.sleep(chance.uniform(0, min(seconds)))
        child.kill()
        ended = child.wait()
        told = [
            int(line.removeprefix(ACKNOWLEDGED))
            for line in ended.told
            if line.startswith(ACKNOWLEDGED)
        ]
        n_late += ended.code == 0
        if ended.code != 0:
            with outcome.counted(f"try {outcome.tries}"):
                in_child(partial(check, trial.work / "place", max(told, default=0)))
        shutil.rmtree(trial.work / "place", ignore_errors=True)
    outcome.notes.append(f"{n_late} kills that came after the end are not counted")
    return outcome


def store_killed(trial: Trial) -> Outcome:
    """Preparing goes on call after call until it is killed."""
    return _killed(trial, _grow_store, _check_store)


def index_killed(trial: Trial) -> Outcome:
    """Generation after generation is written until it is killed."""
    return _killed(trial, _grow_index, _check_index)


ROWS = [
    Row(
        "store-killed",
        "Prepared frames, killed -9 at a random point of `prepare`: they open, no acknowledged "
        "track is lost, every byte is what was written, and running again completes them",
        200,
        15,
        store_killed,
    ),
    Row(
        "index-killed",
        "The index, killed -9 at a random point of being rebuilt: it opens, with what was "
        "acknowledged, its neighbours equal brute force, and running again completes it",
        200,
        15,
        index_killed,
    ),
]
