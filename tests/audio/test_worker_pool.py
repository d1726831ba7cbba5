"""Tests what a crash, a hang, too much memory and a malicious reply cost in the worker pool."""

import json
import multiprocessing
import os
import pickle
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ponticello.audio.worker_pool import (
    Reply,
    TaskFailure,
    WorkerPool,
    receive_reply,
    send_reply,
)
from ponticello.config import LimitsConfig
from ponticello.errors import AudioError, ConfigError, DataError

LIMITS = LimitsConfig(seconds=0.5, memory_mb=256)


def double(task: int) -> Reply:
    return Reply({"value": 2 * task})


def perform(task: str) -> Reply:
    """Does what its task names, and returns the task in capitals."""
    match task.split()[0]:
        case "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "exit":
            os._exit(3)
        case "spin":
            while True:
                pass
        case "wait":
            time.sleep(60)
        case "allocate":
            bytearray(2**30)
        case "fail":
            [][0]
        case "refuse":
            raise AudioError("a.mp3: is empty")
        case "misconfigured":
            raise ConfigError("these settings cannot work", code="special")
        case "print":
            os.write(2, b"a decoder's complaint\n")
    return Reply({"value": task.upper()})


def values(results: list[Reply | TaskFailure]) -> list[Any]:
    return [result.facts["value"] if isinstance(result, Reply) else result for result in results]


def perform_all(tasks: list[str], n_workers: int = 2) -> list[Any]:
    return values(list(WorkerPool(perform, n_workers, LIMITS).map(tasks)))


@pytest.mark.parametrize("n_workers", [1, 3])
def test_results_come_in_the_order_of_the_tasks(n_workers: int) -> None:
    results = list(WorkerPool(double, n_workers, LIMITS).map(range(200)))
    assert values(results) == list(range(0, 400, 2))


def test_no_task_gives_no_result() -> None:
    assert list(WorkerPool(double, 2, LIMITS).map([])) == []


@pytest.mark.parametrize("n_workers", [1, 2])
def test_each_kind_of_failure_costs_its_own_task_only(n_workers: int) -> None:
    failures = {
        "crash": TaskFailure("crashes the process that reads it (SIGSEGV)", "exit"),
        "exit": TaskFailure("ends the process that reads it (exit code 3)", "exit"),
        "spin": TaskFailure(
            "takes more than 0.5 s to read (limits.seconds), and was given up", "time"
        ),
        "wait": TaskFailure("was not done after 2 s, and was given up", "time", is_final=False),
        "allocate": TaskFailure(
            "needs more than 256 MB of memory to read (limits.memory_mb)", "memory"
        ),
        "fail": TaskFailure("cannot be read (IndexError: list index out of range)", "error"),
        "refuse": TaskFailure("a.mp3: is empty", "refused"),
    }
    tasks = []
    for name in failures:
        tasks += [f"good {name} {n}" for n in range(6)]
        tasks.append(name)
    tasks.append("last")
    expected = [failures.get(task, task.upper()) for task in tasks]
    assert perform_all(tasks, n_workers) == expected


def test_error_that_is_not_a_files_fault_ends_the_run() -> None:
    with pytest.raises(ConfigError, match=r"^these settings cannot work$") as caught:
        perform_all(["a", "misconfigured", "b"])
    assert caught.value.code == "special"


def test_workers_that_cannot_start_are_one_clear_error() -> None:
    with pytest.raises(DataError, match=r"worker processes cannot start \(exit code 7\)"):
        list(WorkerPool(double, 2, LIMITS, _leave).map([1, 2]))


def _leave() -> None:
    os._exit(7)


def test_a_decoders_messages_are_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    assert perform_all(["print"]) == ["PRINT"]
    assert capfd.readouterr().err == ""


def test_closing_early_ends_the_workers_at_once() -> None:
    pool = WorkerPool(perform, 2, LimitsConfig(seconds=100))
    results = pool.map(["a", "b", *["wait"] * 20])
    assert values([next(results)]) == ["A"]
    results.close()
    assert not any(worker.process.is_alive() for worker in pool._workers)
    with pytest.raises(RuntimeError, match="closed"):
        pool.run("a")


def test_a_task_waits_for_an_idle_worker_no_longer_than_told() -> None:
    pool = WorkerPool(perform, 1, LIMITS)
    try:
        pool.start()
        pool._idle.get()
        with pytest.raises(TimeoutError, match="all workers are busy"):
            pool.run("a", timeout_s=0.01)
    finally:
        pool.close()


def environment(_: int) -> Reply:
    return Reply({"value": dict(os.environ)})


def test_a_worker_has_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PONTICELLO_TOKEN", "secret")
    assert values(list(WorkerPool(environment, 1, LIMITS).map([0]))) == [{}]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (0,), (5,), (0, 3), (3, 4)])
def test_arrays_are_received_as_they_were_sent(dtype: Any, shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    near_end, far_end = multiprocessing.Pipe()
    send_reply(far_end, Reply({"text": "é\ud800", "number": 0.1, "list": [None, 1]}, array))
    reply = receive_reply(near_end)
    assert isinstance(reply, Reply)
    assert reply.facts == {"text": "é\ud800", "number": 0.1, "list": [None, 1]}
    assert reply.array.dtype == dtype
    assert reply.array.flags.writeable
    np.testing.assert_array_equal(reply.array, array)


class Exploit:
    """An object whose unpickling creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def send_pickle(path: Path) -> Reply:
    """Sends a pickle in place of a reply, as a worker would that a file has taken over."""
    pipe = _pipe_of_this_worker()
    pipe.send(Exploit(path))
    return Reply()


def _pipe_of_this_worker() -> Connection:
    import gc

    (pipe,) = [thing for thing in gc.get_objects() if isinstance(thing, Connection)]
    return pipe


def test_a_malicious_reply_is_not_unpickled(tmp_path: Path) -> None:
    """The same message creates the file where it is unpickled."""
    path = tmp_path / "created"
    (result,) = WorkerPool(send_pickle, 1, LIMITS).map([path])
    assert isinstance(result, TaskFailure)
    assert result.kind == "exit"
    assert not path.exists()
    pickle.loads(pickle.dumps(Exploit(path)))
    assert path.exists()


def stall(_: int) -> Reply:
    """Sends half a message and then hangs."""
    os.write(_pipe_of_this_worker().fileno(), b"\x00\x00\x01\x00half")
    time.sleep(60)
    return Reply()


def test_half_a_reply_does_not_hold_up_the_pool() -> None:
    (result,) = WorkerPool(stall, 1, LIMITS).map([0])
    assert isinstance(result, TaskFailure)
    assert (result.kind, result.is_final) == ("time", False)


@pytest.mark.parametrize(
    "header",
    [
        b"no JSON",
        b"[" * 100_000,
        b"[]",
        b"{}",
        b'{"facts": 1, "dtype": "<f4", "shape": [0]}',
        b'{"facts": {}, "dtype": "|O", "shape": [0]}',
        b'{"facts": {}, "dtype": "<f4", "shape": [3]}',
        b'{"facts": {}, "dtype": "<f4", "shape": [-1]}',
        b'{"facts": {}, "dtype": "<f4", "shape": ["x"]}',
        b'{"facts": {}, "dtype": "<f4", "shape": [1e9]}',
        b'{"reason": "x", "kind": "unknown", "is_final": true}',
        b'{"error": "SystemExit", "message": "x", "code": "x"}',
        b'{"error": "Path", "message": "x", "code": "x"}',
    ],
)
def test_a_malformed_reply_is_refused(header: bytes) -> None:
    near_end, far_end = multiprocessing.Pipe()
    far_end.send_bytes(header)
    far_end.send_bytes(bytes(8))
    with pytest.raises(ValueError, match="malformed reply"):
        receive_reply(near_end)


def test_a_reply_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ponticello.audio.worker_pool._MAX_HEADER_BYTES", 100)
    near_end, far_end = multiprocessing.Pipe()
    far_end.send_bytes(json.dumps({"facts": {"lyrics": "x" * 100}}).encode())
    with pytest.raises(OSError, match="bad message length"):
        receive_reply(near_end)


def test_a_replacement_that_cannot_start_blocks_no_later_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse() -> None:
        raise OSError("no process can be started")

    pool = WorkerPool(perform, 1, LIMITS)
    try:
        with monkeypatch.context() as patch:
            pool.start()
            patch.setattr(pool, "_start_worker", refuse)
            with pytest.raises(OSError, match="no process"):
                pool.run("exit")
        result = pool.run("print later", timeout_s=60.0)
        assert isinstance(result, Reply)
        assert result.facts == {"value": "PRINT LATER"}
    finally:
        pool.close()
