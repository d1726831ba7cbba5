"""Runs tasks that read untrusted files in worker processes, each within limits of time and memory.

    pool --pickled task--> worker              a task comes from this process and is trusted
    pool <--JSON header, raw array-- worker    a reply is parsed and checked, never unpickled

A damaged file can crash its decoder, hang it, fill the memory or take the process over. It costs
its own task only: the worker is killed and replaced. Scan and prepare use `WorkerPool.map`, the
server uses `WorkerPool.run`.

The pool is our own because `pebble` and `concurrent.futures` unpickle the replies of workers, and
limit neither processor time nor memory.
"""

import contextlib
import json
import math
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler
from typing import Any, Generic, Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from ponticello import errors
from ponticello.config import LimitsConfig
from ponticello.errors import DataError, PonticelloError

_TASKS_AHEAD = 32  # per worker, before the caller takes results; more would fill the memory
_START_S = 300.0  # a worker imports before it is ready, perhaps from a slow disk
_WALL_FACTOR = 4  # wall-clock limit / processor-time limit: the machine may be busy, the disk slow
_EXIT_S = 1.0  # a process that closed its pipe ends within this time
_POLL_S = 0.002
_READY = b"ready"
_MAX_HEADER_BYTES = 2**26
_MAX_ARRAY_BYTES = 2**28
_MIB = 2**20
_LOCK = threading.Lock()  # guards deadlines, and waitpid, which two threads must not call at once

Task = TypeVar("Task")
FailureKind = Literal["refused", "error", "memory", "time", "exit"]


@dataclass(frozen=True)
class Reply:
    """The result of a task. facts: JSON values. array: float16, float32 or float64."""

    facts: dict[str, Any] = field(default_factory=dict)
    array: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=np.float32))


@dataclass(frozen=True)
class TaskFailure:
    """Why a task has no result.

    kind: `refused` for a DataError with the message `reason`; `error` for any other exception;
    `memory` and `time` for a limit; `exit` for a worker that ended or sent a malformed reply.
    is_final: False if a repetition could succeed.
    """

    reason: str
    kind: FailureKind = "error"
    is_final: bool = True


class WorkerPool(Generic[Task]):
    """Runs `function` on tasks in `n_workers` processes.

    function: picklable. A DataError it raises fails the task, as any exception does that is not a
        PonticelloError; other PonticelloErrors are raised here.
    limits: per task; memory is limited on Linux only.
    initializer: called once in each worker; the memory it takes does not count.

    A worker has no environment variables after its start and can write no file.
    """

    def __init__(
        self,
        function: Callable[[Task], Reply],
        n_workers: int,
        limits: LimitsConfig,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        self._start_worker = partial(_Worker, function, limits, initializer)
        self._n_workers = n_workers
        self._limits = limits
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._workers: list[_Worker[Task]] = []
        self._idle: queue.LifoQueue[_Worker[Task]] = queue.LifoQueue()  # the warmest first

    def start(self) -> None:
        """Starts the workers before the first task; returns at once if they run."""
        with self._lock:
            if self._closed.is_set():
                raise RuntimeError("this worker pool is closed")
            if self._workers:
                return
            for _ in range(self._n_workers):
                worker = self._start_worker()
                self._workers.append(worker)
                self._idle.put(worker)
        threading.Thread(target=self._kill_overdue_workers, daemon=True).start()

    def run(self, task: Task, timeout_s: float | None = None) -> Reply | TaskFailure:
        """Returns the result of one task. May be called from several threads.

        If its worker died, a task is tried once more: the system may have killed the wrong one.
        timeout_s: waits this long for an idle worker, then raises TimeoutError.
        DataError if workers cannot start.
        """
        result = self._run_once(task, timeout_s)
        if isinstance(result, TaskFailure) and result.kind == "exit":
            result = self._run_once(task, timeout_s)
        return result

    def map(self, tasks: Iterable[Task]) -> Generator[Reply | TaskFailure]:
        """Yields each task's result in order; closing the generator closes the pool."""
        pending: deque[Future[Reply | TaskFailure]] = deque()
        with ThreadPoolExecutor(self._n_workers) as threads:
            try:
                for task in tasks:
                    pending.append(threads.submit(self.run, task))
                    if len(pending) >= _TASKS_AHEAD * self._n_workers:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()
                self.close()

    def close(self) -> None:
        """Kills the workers; a task under way fails."""
        with self._lock:
            self._closed.set()
            for worker in self._workers:
                worker.kill()

    def _run_once(self, task: Task, timeout_s: float | None) -> Reply | TaskFailure:
        self.start()
        try:
            worker = self._idle.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError("all workers are busy") from None
        try:
            worker = self._replace_if_dead(worker)  # the system may have killed it while idle
            return worker.run(task)
        finally:
            self._idle.put(worker)  # a dead one is replaced before its next task

    def _replace_if_dead(self, worker: "_Worker[Task]") -> "_Worker[Task]":
        with self._lock:
            if worker.is_alive() or self._closed.is_set():
                return worker
            replacement = self._start_worker()
            self._workers[self._workers.index(worker)] = replacement
            return replacement

    def _kill_overdue_workers(self) -> None:
        interval_s = min(1.0, _WALL_FACTOR * self._limits.seconds / 10)
        while not self._closed.wait(interval_s):
            for worker in list(self._workers):
                worker.kill_if_overdue()


class _Worker(Generic[Task]):
    def __init__(
        self,
        function: Callable[[Task], Reply],
        limits: LimitsConfig,
        initializer: Callable[[], object] | None,
    ) -> None:
        # spawn: a forked child of a process with threads may hang, and would inherit its memory.
        context = multiprocessing.get_context("spawn")
        self._pipe: Connection
        self._pipe, worker_end = context.Pipe()
        arguments = (worker_end, function, limits, initializer)
        self.process = context.Process(target=_work, args=arguments, daemon=True)
        with _LOCK:
            self.process.start()
        worker_end.close()
        self._limits = limits
        self._is_ready = False
        self._is_overdue = False
        self._deadline = math.inf

    def run(self, task: Task) -> Reply | TaskFailure:
        message = ForkingPickler.dumps(task)
        try:
            if not self._is_ready:
                self._set_deadline(_START_S)
                if self._pipe.recv_bytes(len(_READY)) != _READY:
                    raise EOFError
                self._is_ready = True
            self._set_deadline(_WALL_FACTOR * self._limits.seconds)
            self._pipe.send_bytes(message)
            return receive_reply(self._pipe)
        except (EOFError, OSError, ValueError) as error:
            failure = self._end()
            if not self._is_ready:
                raise DataError(
                    f"worker processes cannot start (exit code {self._wait(0)}); a script "
                    "needs `if __name__ == '__main__':` around the code that starts them"
                ) from error
            return failure
        finally:
            self._set_deadline(math.inf)

    def is_alive(self) -> bool:
        with _LOCK:
            return self.process.is_alive() and not self._is_overdue

    def kill(self) -> None:
        with _LOCK:
            self.process.kill()
        self._wait(math.inf)

    def kill_if_overdue(self) -> None:
        with _LOCK:
            if time.monotonic() > self._deadline:
                self._is_overdue = True
                self.process.kill()

    def _set_deadline(self, seconds: float) -> None:
        with _LOCK:
            self._deadline = time.monotonic() + seconds

    def _wait(self, seconds: float) -> int | None:
        """Returns the exit code; None if the process is still running after `seconds`."""
        end = time.monotonic() + seconds
        while True:
            with _LOCK:
                code = self.process.exitcode
            if code is not None or time.monotonic() >= end:
                return code
            time.sleep(_POLL_S)

    def _end(self) -> TaskFailure:
        """Makes sure that the process has ended; returns why it did."""
        code = self._wait(_EXIT_S)
        if code is None:
            self.kill()
            return TaskFailure("makes its worker process send a malformed reply", "exit")
        if self._is_overdue:
            wall_s = _WALL_FACTOR * self._limits.seconds
            return TaskFailure(f"was not done after {wall_s:g} s, and was given up", "time", False)
        if sys.platform != "win32" and code == -signal.SIGPROF:
            limit = f"{self._limits.seconds:g} s to read (limits.seconds)"
            return TaskFailure(f"takes more than {limit}, and was given up", "time")
        if code >= 0:
            return TaskFailure(f"ends the process that reads it (exit code {code})", "exit")
        name = signal.Signals(-code).name
        return TaskFailure(f"crashes the process that reads it ({name})", "exit")


def receive_reply(pipe: Connection) -> Reply | TaskFailure:
    """Reads one reply of an untrusted worker; a PonticelloError in it is raised.

    ValueError if the reply is malformed, OSError if it is too large, EOFError if the worker died.
    """
    try:
        header = json.loads(pipe.recv_bytes(_MAX_HEADER_BYTES))
    except (ValueError, RecursionError):
        raise ValueError("malformed reply") from None
    match header:
        case {"facts": dict(facts), "dtype": "<f2" | "<f4" | "<f8" as dtype, "shape": list(shape)}:
            content = bytearray(pipe.recv_bytes(_MAX_ARRAY_BYTES))
            is_shape = all(isinstance(size, int) and size >= 0 for size in shape)
            if is_shape and math.prod(shape) * np.dtype(dtype).itemsize == len(content):
                return Reply(facts, np.ndarray(shape, dtype, content))
        case {"reason": str(reason), "kind": str(kind), "is_final": bool(is_final)}:
            if kind in get_args(FailureKind):
                return TaskFailure(reason, kind, is_final)  # type: ignore[arg-type]  # checked
        case {"error": str(name), "message": str(message), "code": str(code)}:
            error_class = getattr(errors, name, None)
            if isinstance(error_class, type) and issubclass(error_class, PonticelloError):
                raise error_class(message, code=code)
    raise ValueError("malformed reply")


def send_reply(pipe: Connection, reply: Reply | TaskFailure | PonticelloError) -> None:
    """Sends what `receive_reply` reads: a JSON header, and for a Reply the bytes of its array."""
    if isinstance(reply, TaskFailure):
        header = asdict(reply)
    elif isinstance(reply, PonticelloError):
        header = {"error": type(reply).__name__, "message": str(reply), "code": reply.code}
    else:
        dtype = reply.array.dtype.newbyteorder("<")
        header = {"facts": reply.facts, "dtype": dtype.str, "shape": reply.array.shape}
    pipe.send_bytes(json.dumps(header).encode())
    if isinstance(reply, Reply):
        pipe.send_bytes(reply.array.astype(dtype, copy=False).tobytes())


def _work(
    pipe: Connection,
    function: Callable[[Any], Reply],
    limits: LimitsConfig,
    initializer: Callable[[], object] | None,
) -> None:
    """Runs in the worker: receives tasks and sends replies until the parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which ends this one
    if initializer is not None:
        initializer()
    os.environ.clear()  # it may hold a token
    # What decoders in C print about a damaged file is discarded; skipped.csv lists the reason.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    _limit_resources(limits.memory_mb)
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        pipe.send_bytes(_READY)
        while True:
            task = pipe.recv()
            if sys.platform != "win32":  # SIGPROF ends this process, in C code as well
                signal.setitimer(signal.ITIMER_PROF, limits.seconds)
            send_reply(pipe, _run_task(function, task, limits))


def _run_task(
    function: Callable[[Any], Reply], task: Any, limits: LimitsConfig
) -> Reply | TaskFailure | PonticelloError:
    try:
        return function(task)
    except MemoryError:
        limit = f"{limits.memory_mb} MB of memory to read (limits.memory_mb)"
        return TaskFailure(f"needs more than {limit}", "memory")
    except DataError as error:
        return TaskFailure(str(error), "refused")
    except PonticelloError as error:
        return error
    except Exception as error:  # a damaged file can provoke any exception in a decoder
        message = " ".join(str(error).split())
        return TaskFailure(f"cannot be read ({type(error).__name__}: {message})")


def _limit_resources(memory_mb: int) -> None:
    """Forbids written files and core dumps, and on Linux more than `memory_mb` MiB beyond now."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if not sys.platform.startswith("linux"):
        return
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # not a user's file
        n_pages = int(file.read().split()[0])
    limit = n_pages * resource.getpagesize() + memory_mb * _MIB
    hard_limit = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard_limit != resource.RLIM_INFINITY:
        limit = min(limit, hard_limit)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard_limit))
