"""Training killed at any point goes on to what it would have been."""

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ponticello.cli.main import TERMINATED
from ponticello.errors import Stopped
from ponticello.train.loop import TrainingLoop
from ponticello.train.runs import COMPLETE
from tests.robustness.children import Child, Ended, Tell
from tests.robustness.rows import Outcome, Row, Trial, require
from tests.robustness.world import copy_library, make_world, train_stage

STAGES = ("semantic", "preference")
SAVING, SAVED = "saving", "saved"  # told when a checkpoint begins and has ended to be written
STOP_S = 10.0
SAVING_S = 0.03  # that takes about so long


@dataclass(frozen=True)
class Case:
    """A stage on so many processes, and the library it starts from."""

    stage: str
    n_processes: int
    start: Path
    seconds: float  # the undisturbed run took
    log: list[dict[str, Any]]
    weights: str


def ranks(stage: str, library: Path, n_processes: int) -> list[Callable[[Tell], None]]:
    """What each process of a training run does, in the environment that torchrun makes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def of(rank: int) -> Callable[[Tell], None]:
        def work(tell: Tell) -> None:
            if n_processes > 1:
                numbers = {
                    "RANK": rank,
                    "LOCAL_RANK": rank,
                    "WORLD_SIZE": n_processes,
                    "LOCAL_WORLD_SIZE": n_processes,
                }
                os.environ.update({name: str(number) for name, number in numbers.items()})
                os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
            save = TrainingLoop.save_checkpoint

            def telling(loop: TrainingLoop[Any]) -> None:
                tell(SAVING)
                save(loop)
                tell(SAVED)

            TrainingLoop.save_checkpoint = telling  # type: ignore[method-assign, assignment]
            try:
                train_stage(library, stage)
            except Stopped as stop:  # as the command does
                print(stop)
                sys.exit(TERMINATED)

        return work

    return [of(rank) for rank in range(n_processes)]


def train(stage: str, library: Path, n_processes: int) -> Ended:
    """A whole run; how its first process ended. RuntimeError if one failed."""
    children = [Child(work) for work in ranks(stage, library, n_processes)]
    ended = [child.wait() for child in children]
    for end in ended:
        end.require_success()
    return ended[0]


def log_of(run: Path) -> list[dict[str, Any]]:
    """Every line of the log."""
    return [
        json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()
    ]


def weights_of(run: Path) -> str:
    """Hex."""
    return hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()


def cases(work: Path, seed: int, n: int) -> list[Case]:
    """Both stages, on one process and on two; the first `n` of these."""
    fresh = make_world(work / "world", seed)
    found: list[Case] = []
    for n_processes in (1, 2):
        library = fresh
        for stage in STAGES[: max(0, n - len(found))]:
            whole = copy_library(library, work / f"{stage}-{n_processes}")
            ended = train(stage, whole, n_processes)
            run = whole / "runs" / stage
            found.append(
                Case(stage, n_processes, library, ended.seconds, log_of(run), weights_of(run))
            )
            library = whole
    return found


def check(case: Case, library: Path) -> None:
    """The run, gone on with, ends as the undisturbed one did."""
    train(case.stage, library, case.n_processes)
    run = library / "runs" / case.stage
    found = log_of(run)
    for expected, entry in zip(case.log, found, strict=False):
        require(expected == entry, f"the log says {entry}, undisturbed {expected}")
    require(len(found) == len(case.log), f"{len(found)} lines of log, undisturbed {len(case.log)}")
    require(weights_of(run) == case.weights, "other weights than the undisturbed run's")


def killed(trial: Trial) -> Outcome:
    """Kills at random times; every fifth while a checkpoint is written. Of two processes all, or
    one, are killed.
    """
    outcome, chance = Outcome(), random.Random(trial.seed)
    every, library = cases(trial.work, trial.seed, trial.tries), trial.work / "broken"
    n_half = 0
    for number in range(trial.tries):
        case, in_checkpoint = every[number % len(every)], number % 5 == 4
        copy_library(case.start, library)
        children = [Child(work) for work in ranks(case.stage, library, case.n_processes)]
        n_killed = 1 + chance.randrange(case.n_processes)
        if in_checkpoint:
            for _ in range(1 + chance.randrange(3)):
                children[0].wait_for(SAVING)
            _wait(chance.uniform(0, SAVING_S))
        else:
            _wait(chance.uniform(0, case.seconds))
        for child in children[-n_killed:]:
            child.kill()
        for child in children[:-n_killed]:
            child.kill(signal.SIGTERM)  # as torchrun does when a process is gone
        for child in children:
            child.wait()
        folders = list((library / "runs" / case.stage / "checkpoints").glob("checkpoint-*"))
        n_half += any(not (folder / COMPLETE).is_file() for folder in folders)
        with outcome.counted(f"try {number}, {case.stage} on {case.n_processes}"):
            check(case, library)
    shutil.rmtree(library, ignore_errors=True)
    outcome.notes.append(f"{n_half} kills left half a checkpoint behind")
    return outcome


def stopped(trial: Trial) -> Outcome:
    """SIGTERM at random times of training, to one process or to both; then the run goes on."""
    outcome, chance = Outcome(), random.Random(trial.seed)
    every, library = cases(trial.work, trial.seed, trial.tries), trial.work / "broken"
    longest = 0.0
    while outcome.tries < trial.tries:
        case = every[outcome.tries % len(every)]
        copy_library(case.start, library)
        children = [Child(work) for work in ranks(case.stage, library, case.n_processes)]
        for _ in range(1 + chance.randrange(3)):
            children[0].wait_for(SAVING)
        _wait(chance.uniform(0, 0.2))
        start = time.monotonic()
        for child in children:
            child.kill(signal.SIGTERM)
        ended = [child.wait() for child in children]
        seconds = time.monotonic() - start
        if all(end.code == 0 for end in ended):
            continue  # training had ended before
        longest = max(longest, seconds)
        with outcome.counted(f"try {outcome.tries}, {case.stage} on {case.n_processes}"):
            codes = [end.code for end in ended]
            require(
                codes == [TERMINATED] * len(codes), f"exit codes {codes}: {ended[0].said[-300:]}"
            )
            require(
                "run the same command again to go on" in ended[0].said,
                f"it said {ended[0].said[-300:]!r}",
            )
            require(seconds < STOP_S, f"a checkpoint took {seconds:.1f} s")
            step = int(ended[0].said.rpartition("stopped after step ")[2].split(",")[0])
            whole = library / "runs" / case.stage / "checkpoints" / f"checkpoint-{step}" / COMPLETE
            require(whole.is_file(), f"no whole checkpoint of step {step}")
            check(case, library)
    shutil.rmtree(library, ignore_errors=True)
    outcome.notes.append(f"the longest stop took {longest:.2f} s")
    return outcome


def _wait(seconds: float) -> None:
    signal.sigtimedwait([], seconds)


ROWS = [
    Row(
        "training-killed",
        "A run killed -9 at a random point, in either stage, on one or two processes, and every "
        "fifth while a checkpoint is written, goes on to the same losses and the same weights, bit "
        "for bit, as one left alone",
        50,
        6,
        killed,
    ),
    Row(
        "training-stopped",
        "A run told to stop (SIGTERM) writes a checkpoint within 10 s, ends with exit code 143 and "
        "a line that says how to go on, and does so to the same losses and weights",
        20,
        4,
        stopped,
    ),
]
