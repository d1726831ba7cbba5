"""Embedding that is killed, and an index that is rebuilt while it is asked."""

import json
import random
import shutil
import threading
import time
import urllib.parse
import urllib.request
from functools import partial
from pathlib import Path

import numpy as np

from ponticello.library import Library
from ponticello.search import embed
from ponticello.serve import snapshot as live
from ponticello.serve.app import create_app
from ponticello.serve.security import security_policy_for
from tests.robustness.children import Child, Tell, in_child
from tests.robustness.rows import Broken, Outcome, Row, Trial, require
from tests.robustness.world import copy_library, generation_of, make_world

PART_SIZE = 6  # of 48 tracks, so that there are parts to lose
QUESTIONS = ("slow low dark piece", "fast bright sounds", "artist 3", "steady warm middle")
N_THREADS = 4
KEPT = "kept"  # told when some vectors are
KEPT_S = 0.3  # from there to the end, about


def _embed(root: Path, preference: str | None = "preference", tell: Tell = lambda _: None) -> None:
    embed.PART_SIZE, compute = PART_SIZE, embed.EmbeddingBatches.compute

    def telling(lots: embed.EmbeddingBatches, lot: int, parts: Path) -> np.ndarray:
        vectors = compute(lots, lot, parts)
        tell(KEPT)
        return vectors

    embed.EmbeddingBatches.compute = telling  # type: ignore[method-assign, assignment]
    Library.open(root).embed("semantic", preference, with_preference=preference is not None)


def _answers(root: Path) -> list[list[str]]:
    library = Library.open(root)
    return [[found.track_id for found in library.search(question, k=5)] for question in QUESTIONS]


def _two_indexes(trial: Trial) -> tuple[Path, Path]:
    """A library with an index of meaning alone, to which taste is to be added, and one where that
    is done.
    """
    done = make_world(trial.work, trial.seed, train=True)
    start = copy_library(done, trial.work / "start")
    for made in [start / "index", *start.glob("runs/*/vectors")]:
        shutil.rmtree(made)
    in_child(partial(_embed, start, None))
    done = copy_library(start, trial.work / "done")
    in_child(partial(_embed, done))
    return start, done


def killed(trial: Trial) -> Outcome:
    """A kill at a random time of the call; every second one after the first vectors were kept."""
    outcome, chance = Outcome(), random.Random(trial.seed)
    start, done = _two_indexes(trial)
    before, after = in_child(partial(_answers, start)), in_child(partial(_answers, done))
    seconds, library = [], trial.work / "broken"
    for _ in range(3):
        copy_library(start, library)
        seconds.append(Child(lambda _: _embed(library)).wait().seconds)
    n_late = n_kept = 0
    while outcome.tries < trial.tries:
        copy_library(start, library)
        child = Child(lambda tell: _embed(library, tell=tell))
        if outcome.tries % 2 and child.wait_for(KEPT):
            time.sleep(chance.uniform(0, KEPT_S))
        else:
            time.sleep(chance.uniform(0, min(seconds)))
        child.kill()
        n_late += (is_late := child.wait().code == 0)
        if is_late:
            continue
        n_kept += bool(list(library.glob("runs/preference/vectors/*/part-*")))
        with outcome.counted(f"try {outcome.tries}"):
            require(
                in_child(partial(_answers, library)) in (before, after),
                "an answer of neither index",
            )
            in_child(partial(_embed, library))
            is_same = generation_of(library).name == generation_of(done).name
            require(is_same, "running again gives another index")
    outcome.notes.append(
        f"{n_kept} kills came after some vectors were kept; "
        f"{n_late} came after the end, not counted"
    )
    return outcome


def _serve(tell: Tell, root: Path) -> None:
    import uvicorn

    live.WATCH_S = 0.05
    app = create_app(root, security_policy_for("127.0.0.1", None))
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False)
    )

    def tell_port() -> None:
        while not server.started:
            time.sleep(0.02)
        tell(f"port {server.servers[0].sockets[0].getsockname()[1]}")

    threading.Thread(target=tell_port, daemon=True).start()
    server.run()


def _ask(port: int, expected: dict[str, list[list[str]]], n: int, until: Path) -> dict[str, object]:
    """Threads ask until there were `n` answers and the rebuilding is over; what answered, and what
    wrongly.
    """
    seen: dict[str, int] = {}
    wrong: list[str] = []
    lock = threading.Lock()

    def ask() -> None:
        number = 0
        while sum(seen.values()) < n or not until.exists():
            question = QUESTIONS[(number := number + 1) % len(QUESTIONS)]
            address = f"http://127.0.0.1:{port}/api/search?k=5&text={urllib.parse.quote(question)}"
            try:
                with urllib.request.urlopen(address, timeout=30) as answer:
                    found = json.load(answer)
                generation, ids = (
                    found["generation"],
                    [result["track_id"] for result in found["results"]],
                )
                is_right = ids == expected[generation][QUESTIONS.index(question)]
            except (OSError, ValueError, KeyError) as error:
                generation, is_right, found = "none", False, repr(error)
            with lock:
                seen[generation] = seen.get(generation, 0) + 1
                if not is_right:
                    wrong.append(str(found)[:200])

    threads = [threading.Thread(target=ask) for _ in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seen": seen, "wrong": wrong}


def rebuilt(trial: Trial) -> Outcome:
    """Swaps two indexes under a service; each answer must be right for the generation it names."""
    outcome = Outcome()
    start, done = _two_indexes(trial)
    expected = {
        generation_of(root).name: in_child(partial(_answers, root)) for root in (start, done)
    }
    library, over = copy_library(done, trial.work / "served"), trial.work / "over"
    server = Child(partial(_serve, root=library))
    line = server.wait_for("port ")
    if line is None:
        raise Broken(f"the server did not start: {server.wait().said[-300:]}")
    port = int(line.removeprefix("port "))
    asking = Child(lambda tell: tell(json.dumps(_ask(port, expected, trial.tries, over))))
    n_rebuilt = 0
    since = time.monotonic()
    while n_rebuilt < 6 or time.monotonic() - since < min(30.0, trial.tries / 50):
        in_child(partial(_embed, library, None if n_rebuilt % 2 == 0 else "preference"))
        n_rebuilt += 1
    over.touch()
    ended = asking.wait()
    server.kill(15)
    server.wait()
    require(bool(ended.told), f"who asked ended with {ended.code}: {ended.said[-400:]}")
    found = json.loads(ended.told[-1])
    outcome.tries, outcome.failures = sum(found["seen"].values()), found["wrong"]
    if len(found["seen"]) < 2:
        outcome.failures.append("only one generation ever answered")
    outcome.notes.append(
        f"{n_rebuilt} rebuilds; answers by generation: {sorted(found['seen'].values())}"
    )
    return outcome


ROWS = [
    Row(
        "embed-killed",
        "`embed`, killed -9 at a random point: the library answers as before it or as after it, "
        "and running again gives the very index, bit for bit, of a run left alone",
        100,
        6,
        killed,
    ),
    Row(
        "index-rebuilt",
        "The index is rebuilt, again and again by another process, under a service that is being "
        "asked: no error, and every answer is right for the index it names",
        2_000,
        200,
        rebuilt,
    ),
]
