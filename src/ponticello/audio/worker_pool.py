"""Work on files that may crash, hang or eat memory, in processes that may be lost.

    parent --chunk of tasks--> worker        each worker has a pipe of its own and answers task by
    task, parent <--one answer a task-- worker     so that the parent knows what it was at when it
    died

A worker that dies or overruns its time costs the task it was at; a fresh one takes over the rest. A
task whose worker died is tried once more in another, since the system may have picked the wrong
victim.
"""

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Generic, TypeVar

from ponticello.config import LimitsConfig
from ponticello.errors import DataError, PonticelloError

_CHUNK = 8  # tasks sent at once, so that a worker need not wait for the parent
_AHEAD = (
    4  # chunks that workers may be ahead of what the caller has taken, so that memory stays flat
)
_TRIES = 2  # of a task whose worker died
_START_S = 300.0  # a worker imports before it is ready: much, perhaps from a slow disk
# by the clock a task may take so many times its processor time: the machine may be busy, the disk
# slow
_CLOCK = 4
_MIB = 2**20
_READY = "ready"

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True)
class TaskFailure:
    """Stands where a task's result would: why there is none. `is_final`: it would be so again."""

    reason: str
    is_final: bool = True


@dataclass(frozen=True)
class WorkerExit:
    """A worker is gone. code: as `Process.exitcode`, negative for a signal."""

    code: int | None


@dataclass
class _Worker(Generic[Task]):
    process: BaseProcess
    pipe: Connection
    # when it started, and then when the first of its queue began, as far as the parent knows
    since: float
    is_ready: bool = False
    queue: deque[tuple[int, Task]] = field(
        default_factory=deque
    )  # sent and not answered; the first is under way


class WorkerPool(Generic[Task, Result]):
    """Runs `function` on tasks in worker processes, each task within limits.

    function: picklable. A PonticelloError it raises ends the run; any other exception costs the
    task.
    workers: processes. limits: of one task; memory is limited on Linux only.
    initializer: called once in each worker before its first task; what it loads does not count.
    """

    def __init__(
        self,
        function: Callable[[Task], Result],
        workers: int,
        limits: LimitsConfig,
        initializer: Callable[[], object] | None = None,
    ) -> None:
        self._function, self._n_workers, self._limits, self._initializer = (
            function,
            workers,
            limits,
            initializer,
        )
        # spawn: a forked child of a process that runs threads (torch's, polars') may hang.
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker[Task]] = []

    def run(self, tasks: Sequence[Task]) -> Generator[Result | TaskFailure]:
        """Each task's result, in the order of the tasks, or `TaskFailure`. Close the generator to
        end the workers.

        DataError if workers cannot start.
        """
        again: deque[tuple[int, Task]] = deque()
        tried: set[int] = set()
        done: dict[int, Result | TaskFailure] = {}
        n_sent = 0
        try:
            for wanted in range(len(tasks)):
                while wanted not in done:
                    n_sent = self._feed(tasks, n_sent, wanted, again)
                    for index, answer in self._collect():
                        if not isinstance(answer, WorkerExit):
                            done[index] = answer
                        elif index in tried:
                            done[index] = self._lost(answer)
                        else:
                            tried.add(index)
                            again.append((index, tasks[index]))
                    for worker in [
                        worker for worker in self._workers if not worker.process.is_alive()
                    ]:
                        again.extend(worker.queue)  # what stood behind the task that was lost
                        worker.pipe.close()
                        self._workers.remove(worker)
                yield done.pop(wanted)
        finally:
            self._end()

    def _feed(
        self, tasks: Sequence[Task], n_sent: int, wanted: int, again: deque[tuple[int, Task]]
    ) -> int:
        """Gives workers something to do, starting those that are missing; the number of tasks sent
        so far.
        """
        until = min(len(tasks), wanted + self._n_workers * _CHUNK * _AHEAD)
        while again or n_sent < until:
            idlest = min(self._workers, key=lambda worker: len(worker.queue), default=None)
            if (idlest is None or idlest.queue) and len(self._workers) < self._n_workers:
                idlest = self._start()
            if idlest is None or len(idlest.queue) > (
                0 if again else _CHUNK // 2
            ):  # a suspect goes alone
                break
            if again:
                chunk = [again.popleft()]
            else:
                chunk = [
                    (index, tasks[index]) for index in range(n_sent, min(until, n_sent + _CHUNK))
                ]
                n_sent += len(chunk)
            if not idlest.queue and idlest.is_ready:
                idlest.since = time.monotonic()
            idlest.queue.extend(chunk)
            with contextlib.suppress(OSError):  # it died meanwhile: `_collect` finds that out
                idlest.pipe.send([task for _, task in chunk])
        return n_sent

    def _start(self) -> _Worker[Task]:
        ours, theirs = self._context.Pipe()
        arguments = (theirs, self._function, self._limits, self._initializer)
        process = self._context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        worker: _Worker[Task] = _Worker(process, ours, time.monotonic())
        self._workers.append(worker)
        return worker

    def _collect(self) -> Generator[tuple[int, "Result | TaskFailure | WorkerExit"]]:
        """(index, answer) of what is there or has come to grief, after waiting for some."""
        busy = [worker for worker in self._workers if worker.queue]
        left = min((self._deadline(worker) for worker in busy), default=0.0) - time.monotonic()
        ready = set(wait([worker.pipe for worker in busy], max(0.0, left)))
        for worker in busy:
            if worker.pipe in ready:
                try:
                    answer = worker.pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    self._require_ready(worker)
                    yield worker.queue.popleft()[0], WorkerExit(worker.process.exitcode)
                    continue
                if isinstance(answer, PonticelloError):
                    raise answer
                if worker.is_ready:
                    yield worker.queue.popleft()[0], answer
                worker.since, worker.is_ready = time.monotonic(), True
            elif time.monotonic() > self._deadline(worker):
                worker.process.kill()
                worker.process.join()
                self._require_ready(worker)
                reason = f"was not done after {_CLOCK * self._limits.seconds:g} s, and was given up"
                yield worker.queue.popleft()[0], TaskFailure(reason, is_final=False)

    def _require_ready(self, worker: _Worker[Task]) -> None:
        if not worker.is_ready:
            raise DataError(
                f"worker processes cannot start (exit code {worker.process.exitcode}); "
                "a script of yours needs `if __name__ == '__main__':` around what it does"
            )

    def _lost(self, died: WorkerExit) -> TaskFailure:
        if died.code is None or died.code >= 0:
            return TaskFailure(f"ends the process that reads it (exit code {died.code})")
        if sys.platform != "win32" and -died.code == signal.SIGPROF:
            return TaskFailure(
                f"takes more than {self._limits.seconds:g} s to read (limits.seconds), and was given up"
            )
        return TaskFailure(f"crashes the process that reads it ({signal.Signals(-died.code).name})")

    def _deadline(self, worker: _Worker[Task]) -> float:
        return worker.since + (_CLOCK * self._limits.seconds if worker.is_ready else _START_S)

    def _end(self) -> None:
        for worker in self._workers:
            worker.process.kill()  # it holds nothing that could be lost
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []


def _work(
    pipe: Connection,
    function: Callable[[Any], Any],
    limits: LimitsConfig,
    initializer: Callable[[], object] | None,
) -> None:
    """The life of a worker: chunks in, one answer a task out, until the parent is gone."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the parent, which ends the workers
    if initializer is not None:
        initializer()
    silence()
    limit_memory(limits.memory_mb)
    with contextlib.suppress(EOFError, OSError):  # the parent has gone
        pipe.send(_READY)
        while True:
            for task in pipe.recv():
                limit_time(limits.seconds)
                pipe.send(_answer(function, task, limits))


def _answer(function: Callable[[Any], Any], task: Any, limits: LimitsConfig) -> Any:
    try:
        return function(task)
    except MemoryError:
        return TaskFailure(
            f"needs more than {limits.memory_mb} MB of memory to read (limits.memory_mb)"
        )
    except PonticelloError as error:
        return error
    except Exception as error:
        # A damaged file can provoke anything in a library that reads it; it may cost this one file
        # only.
        return TaskFailure(
            f"cannot be read ({type(error).__name__}: {' '.join(str(error).split())})"
        )


def limit_time(seconds: float) -> None:
    """Ends this process by SIGPROF unless it is called again within `seconds` of processor time, in
    C code as well.
    """
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def limit_memory(memory_mb: int) -> None:
    """Lets this process take `memory_mb` MiB beyond what it holds now; without effect where the
    system is not Linux.
    """
    if not sys.platform.startswith("linux"):
        return
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # no file of ours
        held = int(file.read().split()[0]) * resource.getpagesize()
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + memory_mb * _MIB
    resource.setrlimit(
        resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most)
    )
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a crash leaves no core file


def silence() -> None:
    """What decoders in C print about a damaged file goes nowhere: the reason stands in skipped.csv."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, 2)
    os.close(sink)
