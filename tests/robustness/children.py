"""Processes to be killed, forked from one that has imported everything and run nothing.

Starting Python and PyTorch takes seconds, a fork milliseconds. A fork does not copy threads, so the
parent must start none: code that uses polars, duckdb or torch runs in a child, checks included.
"""

import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from tests.robustness.rows import Broken, require

TIMEOUT_S = 300.0  # whatever takes longer counts as hanging
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """How a child ended. code: its exit code, negative for a signal. said: its stdout and stderr.
    told: its lines.
    """

    code: int
    said: str
    told: list[str]
    seconds: float

    def require_success(self) -> None:
        """Broken unless the exit code is 0."""
        require(self.code == 0, f"ends with {self.code}: {self.said[-500:]}")

    def require_error_line(self) -> str:
        """Returns the last line; Broken unless it is a command's one-line error."""
        require(self.code == 1, f"ends with {self.code}: {self.said[-500:]}")
        lines = self.said.replace("\r", "\n").strip().splitlines()
        is_readable = bool(lines) and lines[-1].startswith("error: ")
        require(is_readable and "Traceback" not in self.said, self.said[-500:])
        return lines[-1]


class Child:
    """A running fork. function: gets a function that tells the parent a line at once."""

    def __init__(self, function: Callable[[Tell], object]) -> None:
        reading, writing = os.pipe()
        # as long as this
        self._said, self._since, self._told = TemporaryFile(), time.monotonic(), b""  # noqa: SIM115
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(reading)
            _live(function, writing, self._said.fileno())
        os.close(writing)
        self._pipe: int | None = reading

    def wait_for(self, start: str, timeout_s: float = TIMEOUT_S) -> str | None:
        """Returns the first line told that begins with `start`; None if the child ended before.

        Broken if the line does not come in time; the child is killed.
        """
        until = time.monotonic() + timeout_s
        while True:
            for line in self._told.decode().splitlines():
                if line.startswith(start):
                    return line
            if self._pipe is None:
                return None
            if not self._read(until):
                self.kill()
                raise Broken(f"hangs: {start!r} did not come within {timeout_s:g} s")

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends a signal; nothing if the child has ended."""
        if self._pipe is not None or self.pid > 0:
            os.kill(self.pid, number)

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """How it ended; Broken if it does not within the time, and it is killed."""
        until = time.monotonic() + timeout_s
        while self._pipe is not None:
            if not self._read(until):
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise Broken(
                    f"hangs: had not ended after {timeout_s:g} s; it said: {self._output()[-300:]}"
                )
        _, status = os.waitpid(self.pid, 0)
        seconds, self.pid = time.monotonic() - self._since, 0
        told = self._told.decode().splitlines()
        return Ended(os.waitstatus_to_exitcode(status), self._output(), told, seconds)

    def _read(self, until: float) -> bool:
        """Reads what the child tells; False if nothing came in time. Its end closes the pipe."""
        left = until - time.monotonic()
        if left <= 0 or self._pipe is None or not select.select([self._pipe], [], [], left)[0]:
            return False
        found = os.read(self._pipe, 65_536)
        self._told += found
        if not found:
            os.close(self._pipe)
            self._pipe = None
        return True

    def _output(self) -> str:
        self._said.seek(0)
        return self._said.read().decode(errors="replace")


def _live(function: Callable[[Tell], object], writing: int, said: int) -> None:
    """The child's whole life; ends the process."""
    code = 0
    try:
        os.dup2(said, 1)
        os.dup2(said, 2)
        function(lambda line: (os.write(writing, f"{line}\n".encode()), None)[1])
        sys.stdout.flush()
        sys.stderr.flush()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 70  # EX_SOFTWARE: nothing of the product ends with it
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


RESULT = "result "


def in_child(function: Callable[[], Any], timeout_s: float = TIMEOUT_S) -> Any:
    """What `function` gives, by way of JSON; whatever it raises is a Broken here."""

    def work(tell: Tell) -> None:
        try:
            tell(RESULT + json.dumps({"value": function()}))
        except Broken as broken:
            tell(RESULT + json.dumps({"broken": str(broken)}))

    ended = Child(work).wait(timeout_s)
    results = [line.removeprefix(RESULT) for line in ended.told if line.startswith(RESULT)]
    if not results:
        raise Broken(f"ended with {ended.code}: {ended.said[-2_000:]}")
    found = json.loads(results[-1])
    if "broken" in found:
        raise Broken(found["broken"])
    return found["value"]


def command(*arguments: str | Path) -> Callable[[Tell], None]:
    """The `ponticello` command as a child's function: its exit code is the child's."""

    def run(_: Tell) -> None:
        from ponticello.cli.main import main

        sys.argv = ["ponticello", *map(str, arguments)]
        main()

    return run
