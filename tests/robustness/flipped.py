"""One byte of a model, the prepared frames or the index becomes another one."""

import hashlib
import json
import random
from functools import partial
from pathlib import Path

import numpy as np

from ponticello.errors import PonticelloError
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.model.htcl import HTCL
from ponticello.train.runs import is_finished
from tests.robustness.children import Child, Tell
from tests.robustness.rows import Outcome, Row, Trial, require
from tests.robustness.world import generation_of, make_world, train_stage

DETECTED = 3  # a child's exit code
QUESTIONS = ("slow low dark piece", "fast bright sounds", "artist 3")


def _answers_of_model(root: Path) -> object:
    """Hashes of the text and audio vectors, and the trained run if it counts as finished."""
    run = root / "runs" / "preference"
    model = HTCL.from_pretrained(run)
    store = FeatureStore(root / "mels")
    sounds = model.encode_features([store.read(track_id) for track_id in store.track_ids[:6]])
    trained = train_stage(root, "preference") if is_finished(run) else None
    return [_hash(model.encode_text(list(QUESTIONS))), _hash(sounds), str(trained)]


def _answers_of_store(root: Path) -> object:
    """Every track's frames, by name."""
    store = FeatureStore(root / "mels")
    store.require(next(iter(store._keys)))
    return {track_id: _hash(store.read(track_id)) for track_id in store.track_ids}


def _answers_of_index(root: Path) -> object:
    """Ranked lists for texts, for a track and for a listener."""
    library = Library.open(root)
    found = [library.search(text, k=8) for text in QUESTIONS]
    found += [
        library.similar(library.index.track_ids[0], k=8),
        library.recommend("simulated-0001", k=8),
    ]
    return [[(result.track_id, result.score) for result in results] for results in found]


ANSWERS = {"model": _answers_of_model, "store": _answers_of_store, "index": _answers_of_index}


def _hash(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def _ask(tell: Tell, what: str, root: Path) -> None:
    try:
        tell("answers " + json.dumps(ANSWERS[what](root)))
    except PonticelloError as error:
        line = str(error)
        tell("error " + json.dumps(line))
        raise SystemExit(DETECTED if line and "\n" not in line else 1) from None


def files_of(root: Path) -> dict[str, list[Path]]:
    """What is damaged, by what is asked of it afterwards."""
    model_files = []
    for path in sorted((root / "runs" / "preference").iterdir()):
        if path.suffix in (".json", ".safetensors") and path.name != "listening.json":
            model_files.append(path)
    return {
        "model": model_files,
        "store": sorted((root / "mels").iterdir()),
        "index": [root / "index" / "CURRENT", *sorted(generation_of(root).iterdir())],
    }


def flipped(trial: Trial) -> Outcome:
    """Small files and large ones are hit alike, and half of the bytes lie at either end, where
    headers are.
    """
    outcome, chance = Outcome(), random.Random(trial.seed)
    root = make_world(trial.work, trial.seed, train=True)
    every = files_of(root)
    whole = {what: Child(partial(_ask, what=what, root=root)).wait() for what in every}
    for ended in whole.values():
        ended.require_success()
    detected = 0
    for number in range(trial.tries):
        what = ("model", "store", "index")[number % 3]
        path = chance.choice(every[what])
        content = path.read_bytes()
        places = [
            range(len(content)),
            range(min(200, len(content))),
            range(max(0, len(content) - 200), len(content)),
        ]
        place = chance.choice(places[chance.choice([0, 0, 1, 2])])
        damaged = bytearray(content)
        damaged[place] ^= chance.randrange(1, 256)
        path.write_bytes(bytes(damaged))
        with outcome.counted(f"try {number}, byte {place} of {path.relative_to(root)}"):
            ended = Child(partial(_ask, what=what, root=root)).wait()
            detected += ended.code == DETECTED
            if ended.code != DETECTED:
                ended.require_success()
                require(ended.told == whole[what].told, "another answer, and not a word")
        path.write_bytes(content)
    harmless = outcome.tries - detected - len(outcome.failures)
    outcome.notes.append(f"{detected} detected, {harmless} harmless (the same answers)")
    return outcome


ROWS = [
    Row(
        "byte-flipped",
        "A single flipped byte in a model folder, the prepared frames or the index (their "
        "configs and records too) is detected with one readable line, or every answer is the same "
        "as before",
        1000,
        60,
        flipped,
    )
]
