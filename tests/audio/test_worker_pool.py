"""Work in processes that may be lost: what a crash, a hang or a flood costs, and what it does not."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from ponticello.audio.worker_pool import TaskFailure, WorkerPool
from ponticello.config import LimitsConfig
from ponticello.errors import ConfigError, DataError

LIMITS = LimitsConfig(seconds=0.5, memory_mb=256)


def double(task: int) -> int:
    return 2 * task


def trouble(task: str) -> str:
    """Does what its task says."""
    acts: dict[str, Callable[[], object]] = {
        "crash": lambda: os.kill(os.getpid(), signal.SIGSEGV),
        "exit": lambda: os._exit(3),
        "spin": _spin,
        "wait": lambda: time.sleep(60),
        "eat": lambda: bytearray(2**30),
        "fail": lambda: [][0],
        "refuse": _refuse,
        "noise": lambda: os.write(2, b"a decoder's complaint\n"),
    }
    act = acts.get(task.split()[0])
    if act is not None:
        act()
    return task.upper()


def _spin() -> None:
    while True:
        pass


def _refuse() -> None:
    raise ConfigError("nothing works with these settings")


def results(
    tasks: list[str], workers: int = 2, limits: LimitsConfig = LIMITS
) -> list[str | TaskFailure]:
    return list(WorkerPool(trouble, workers, limits).run(tasks))


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_tasks(workers: int) -> None:
    pool = WorkerPool(double, workers, LIMITS)
    assert list(pool.run(range(200))) == list(range(0, 400, 2))
    assert list(pool.run([])) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_each_kind_of_trouble_costs_its_own_task_only(workers: int) -> None:
    bad = {
        "crash": TaskFailure("crashes the process that reads it (SIGSEGV)"),
        "exit": TaskFailure("ends the process that reads it (exit code 3)"),
        "spin": TaskFailure("takes more than 0.5 s to read (limits.seconds), and was given up"),
        "wait": TaskFailure("was not done after 2 s, and was given up", is_final=False),
        "eat": TaskFailure("needs more than 256 MB of memory to read (limits.memory_mb)"),
        "fail": TaskFailure("cannot be read (IndexError: list index out of range)"),
    }
    tasks = [task for name in bad for task in (*(f"good {name} {n}" for n in range(6)), name)] + [
        "last"
    ]
    expected = [bad.get(task, task.upper()) for task in tasks]
    assert results(tasks, workers) == expected


def test_error_of_ours_that_is_no_files_fault_ends_the_run() -> None:
    with pytest.raises(ConfigError, match=r"^nothing works with these settings$"):
        results(["a", "refuse", "b"])


def test_workers_that_cannot_start_are_one_clear_error() -> None:
    with pytest.raises(DataError, match=r"worker processes cannot start \(exit code 7\)"):
        list(WorkerPool(double, 2, LIMITS, _leave).run([1, 2]))


def _leave() -> None:
    os._exit(7)


def test_what_a_decoder_prints_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert results(["noise"]) == ["NOISE"]
    assert capfd.readouterr().err == ""


def test_closing_early_ends_the_workers_at_once() -> None:
    pool = WorkerPool(trouble, 2, LimitsConfig(seconds=100))
    run = pool.run(["a", "b", *["wait"] * 20])
    assert next(run) == "A"
    workers = [worker.process for worker in pool._workers]
    run.close()
    assert not any(worker.is_alive() for worker in workers)
    assert pool._workers == []
