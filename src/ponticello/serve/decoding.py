"""Sound files become samples and peaks in processes of their own, kept warm, each task within
limits.

The life of the process that decodes for the service: it may crash, hang or be taken over, and costs
one answer.

    service --{"task": "sound", "path": ...}--> child     JSON in; JSON and raw float32 out, never a
    pickle service <--{...} and the samples----------- child

It has no environment and writes no file; its time and memory are limited.
"""

import contextlib
import json
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ponticello.audio.decode import load_audio
from ponticello.audio.formats import printable_path
from ponticello.audio.worker_pool import limit_memory, limit_time, silence
from ponticello.config import LimitsConfig
from ponticello.errors import AudioError
from ponticello.serve.errors import APIError

READY = b"ready"
PEAKS_HZ = 8_000  # the rate at which peaks are looked for: finer than any screen
TOO_LONG, TOO_BIG, NO_SOUND = "too_long", "too_big", "no_sound"


def live(pipe: Connection, seconds: float, memory_mb: int) -> None:
    """Tasks in, answers out, until the service is gone. seconds: of processor time for a task."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the service, which ends this process
    os.environ.clear()  # a token may stand in it
    silence()
    limit_memory(memory_mb)
    _write_no_files()
    with contextlib.suppress(EOFError, OSError):  # the service has gone
        pipe.send_bytes(READY)
        while True:
            task = json.loads(pipe.recv_bytes())
            limit_time(seconds)
            head, body = answer(task)
            pipe.send_bytes(json.dumps(head).encode())
            pipe.send_bytes(body)


def answer(task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
    """What a task gives: facts, and numbers as raw float32; {"failed": ..., "reason": ...} where it
    gives none.

    sound: the first `keep_s` of a file at `sample_rate` Hz; peaks: `n` of it, 0 to 1. Above
    `most_s` it fails, and nothing past that is decoded.
    """
    path = Path(task["path"])
    rate = task["sample_rate"] if task["task"] == "sound" else PEAKS_HZ
    try:
        waveform = load_audio(path, rate, task["most_s"] + 1)
    except AudioError as error:
        return _failed(NO_SOUND, str(error).removeprefix(f"{printable_path(path)}: "))
    except MemoryError:
        return _failed(TOO_BIG, "needs more memory to decode than one file may take")
    except Exception as error:  # a damaged file can provoke anything in a library that reads it
        return _failed(NO_SOUND, f"cannot be read ({type(error).__name__})")
    duration_s = len(waveform) / rate
    if duration_s > task["most_s"]:
        return _failed(TOO_LONG, f"lasts longer than {task['most_s']:g} s")
    kept = (
        waveform[: int(task["keep_s"] * rate)]
        if task["task"] == "sound"
        else peaks(waveform, task["n"])
    )
    return {"duration_s": duration_s}, np.ascontiguousarray(kept, dtype="<f4").tobytes()


def peaks(waveform: np.ndarray, n: int) -> np.ndarray:
    """(n,) float32, 0 to 1: how loud each n-th of a waveform gets, of the loudest."""
    edges = np.linspace(0, len(waveform), n + 1).astype(np.int64)
    starts = np.minimum(
        edges[:-1], len(waveform) - 1
    )  # with fewer samples than n a sample is shown more than once
    loudest = np.maximum.reduceat(np.abs(waveform), starts).astype(np.float32)
    most = float(loudest.max())
    return loudest / np.float32(most) if most > 0 else loudest


def _failed(how: str, reason: str) -> tuple[dict[str, Any], bytes]:
    return {"failed": how, "reason": reason}, b""


def _write_no_files() -> None:
    """Where the system can see to it."""
    if sys.platform == "win32":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


# by the clock a task may take so many times its processor time: the machine may be busy, the disk
# slow
_CLOCK = 4
_START_S = 60.0  # a child imports before it is ready
_WAIT_S = 20.0  # for a child that is free
_MOST_WAITING = (
    8  # tasks: each holds a thread of the service, which has some forty for all there is to answer
)
_HEAD_BYTES = 1 << 16
_BODY_BYTES = 1 << 26  # 16.7 million samples: 17 minutes at 16 kHz
RETRY_S = 5  # what a client is told to wait when all are busy
_STATUS = {
    NO_SOUND: (422, "unsupported_audio"),
    TOO_LONG: (413, "too_large"),
    TOO_BIG: (413, "too_large"),
}


@dataclass(frozen=True)
class Sound:
    """values: (n,) float32, a mono waveform or the peaks of one. duration_s: of the whole file."""

    values: np.ndarray
    duration_s: float


class Decoder:
    """Decodes in `n_children` processes. One that dies or overruns its time is replaced.

    limits: of one file. Failure: 422 unsupported_audio for what is no sound, 413 too_large for what
    lasts too long, 503 busy while all of them are.
    """

    def __init__(self, limits: LimitsConfig, n_children: int = 2) -> None:
        self._limits, self._n_children = limits, n_children
        self._free: queue.LifoQueue[_Child] = queue.LifoQueue()  # the warmest first
        self._children: set[_Child] = set()
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)

    def start(self) -> None:
        """Starts the processes, which the first task would otherwise do; once is enough."""
        with self._lock:
            while len(self._children) < self._n_children:
                child = _Child(self._limits)
                self._children.add(child)
                self._free.put(child)

    def sound(self, path: Path, sample_rate: int, keep_s: float, most_s: float) -> Sound:
        """The first `keep_s` of a file that lasts `most_s` at most, mono at `sample_rate` Hz."""
        task = {
            "task": "sound",
            "path": str(path),
            "sample_rate": sample_rate,
            "keep_s": keep_s,
            "most_s": most_s,
        }
        return self._asked(task)

    def peaks(self, path: Path, n: int, most_s: float) -> Sound:
        """(n,) how loud each n-th of a file gets, 0 to 1."""
        return self._asked({"task": "peaks", "path": str(path), "n": n, "most_s": most_s})

    def close(self) -> None:
        """Ends the processes."""
        with self._lock:
            for child in self._children:
                child.end()
            self._children.clear()
            self._free = queue.LifoQueue()

    def _asked(self, task: dict[str, Any]) -> Sound:
        if not self._waiting.acquire(blocking=False):
            raise _busy()
        try:
            return self._decoded(task)
        finally:
            self._waiting.release()

    def _decoded(self, task: dict[str, Any]) -> Sound:
        self.start()
        free = self._free
        try:
            child = free.get(timeout=_WAIT_S)
        except queue.Empty:
            raise _busy() from None
        try:
            child = (
                child if child.is_alive else self._another(child)
            )  # the system may have ended it
            head, body = child.ask(task)
        finally:
            free.put(child if child.is_alive else self._another(child))
        if "failed" in head:
            status, code = _STATUS[head["failed"]]
            raise APIError(status, code, f"the file {head['reason']}")
        return Sound(np.frombuffer(body, dtype="<f4").astype(np.float32), float(head["duration_s"]))

    def _another(self, lost: "_Child") -> "_Child":
        """A fresh process in the place of a lost one; the lost one itself once all have been ended."""
        lost.end()
        with self._lock:
            if lost not in self._children:
                return lost
            child = _Child(self._limits)
            self._children.remove(lost)
            self._children.add(child)
            return child


def _busy() -> APIError:
    return APIError(
        503, "busy", "too many sounds at once; try again", {"Retry-After": str(RETRY_S)}
    )


class _Child:
    """One process that decodes; it starts at once and is ready some tenths of a second later."""

    def __init__(self, limits: LimitsConfig) -> None:
        # spawn: a forked child of a process that runs threads may hang, and would hold all that
        # this one does.
        context = multiprocessing.get_context("spawn")
        self._pipe: Connection
        self._pipe, theirs = context.Pipe()
        self._limits = limits
        self._process = context.Process(
            target=live, args=(theirs, limits.seconds, limits.memory_mb), daemon=True
        )
        self._process.start()
        theirs.close()
        self._started, self._is_ready = time.monotonic(), False

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return self._process.is_alive()

    def ask(self, task: dict[str, Any]) -> tuple[dict[str, Any], bytes]:
        """The child's answer; one that tells of a failure where the child came to grief."""
        try:
            if not self._is_ready:
                if not self._pipe.poll(max(0.0, self._started + _START_S - time.monotonic())):
                    raise EOFError
                self._is_ready = self._pipe.recv_bytes(_HEAD_BYTES) == READY
            self._pipe.send_bytes(json.dumps(task).encode())
            if not self._pipe.poll(_CLOCK * self._limits.seconds):
                self.end()
                return {"failed": NO_SOUND, "reason": "takes too long to decode"}, b""
            head: dict[str, Any] = json.loads(self._pipe.recv_bytes(_HEAD_BYTES))
            return head, self._pipe.recv_bytes(_BODY_BYTES)
        except (EOFError, OSError, ValueError) as error:
            self.end()
            if not self._is_ready:
                raise RuntimeError(
                    f"the process that decodes cannot start (exit {self._process.exitcode})"
                ) from error
            return {"failed": NO_SOUND, "reason": self._reason()}, b""

    def end(self) -> None:
        """Kills it, if it still lives: it holds nothing that could be lost."""
        self._process.kill()
        self._process.join()
        self._pipe.close()

    def _reason(self) -> str:
        if self._process.exitcode == -getattr(signal, "SIGPROF", 0):
            return "takes too long to decode"
        return "ends the process that decodes it"
