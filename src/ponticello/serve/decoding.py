"""The life of the process that decodes for the service: it may crash, hang or be taken over, and costs one answer.

    service --{"task": "sound", "path": ...}--> child     JSON in; JSON and raw float32 out, never a pickle
    service <--{...} and the samples----------- child

It has no environment and writes no file; its time and memory are limited.
"""

import contextlib
import json
import os
import signal
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from ponticello.data.audio import load_audio
from ponticello.data.sniff import one_line
from ponticello.data.workers import limit_memory, limit_time, silence
from ponticello.errors import AudioError

READY = b"ready"
PEAKS_HZ = 8_000  # the rate at which peaks are looked for: finer than any screen
TOO_LONG, TOO_BIG, NO_SOUND = "too_long", "too_big", "no_sound"


def live(pipe: Connection, seconds: float, memory_mb: int) -> None:
    """Tasks in, answers out, until the service is gone. seconds: of processor time for a task."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the service, which ends this process
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
    """What a task gives: facts, and numbers as raw float32; {"failed": ..., "reason": ...} where it gives none.

    sound: the first `keep_s` of a file at `sample_rate` Hz; peaks: `n` of it, 0 to 1. Above `most_s` it fails, and
    nothing past that is decoded.
    """
    path = Path(task["path"])
    rate = task["sample_rate"] if task["task"] == "sound" else PEAKS_HZ
    try:
        waveform = load_audio(path, rate, task["most_s"] + 1)
    except AudioError as error:
        return _failed(NO_SOUND, str(error).removeprefix(f"{one_line(path)}: "))
    except MemoryError:
        return _failed(TOO_BIG, "needs more memory to decode than one file may take")
    except Exception as error:  # a damaged file can provoke anything in a library that reads it
        return _failed(NO_SOUND, f"cannot be read ({type(error).__name__})")
    duration_s = len(waveform) / rate
    if duration_s > task["most_s"]:
        return _failed(TOO_LONG, f"lasts longer than {task['most_s']:g} s")
    kept = waveform[: int(task["keep_s"] * rate)] if task["task"] == "sound" else peaks(waveform, task["n"])
    return {"duration_s": duration_s}, np.ascontiguousarray(kept, dtype="<f4").tobytes()


def peaks(waveform: np.ndarray, n: int) -> np.ndarray:
    """(n,) float32, 0 to 1: how loud each n-th of a waveform gets, of the loudest."""
    edges = np.linspace(0, len(waveform), n + 1).astype(np.int64)
    starts = np.minimum(edges[:-1], len(waveform) - 1)  # with fewer samples than n a sample is shown more than once
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
