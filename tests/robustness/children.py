"""Processes to be killed, forked from one that has imported everything and run nothing.

Starting Python and PyTorch takes seconds, a fork milliseconds. It is honest as long as the parent
has started no
threads, which a fork does not copy: so whatever touches polars, duckdb or torch runs in a child,
checks included.
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

from tests.robustness.rows import Broken

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

    def wait_for(self, line: str, timeout_s: float = TIMEOUT_S) -> bool:
        """Waits until the child has told `line`; False if it ended before."""
        until = time.monotonic() + timeout_s
        while line.encode() not in self._told.splitlines():
            if self._pipe is None:
                return False
            if not self._read(until):
                self.kill()
                raise Broken(f"hangs: {line!r} did not come within {timeout_s:g} s")
        return True

    def wait_for_start(self, start: str, timeout_s: float = TIMEOUT_S) -> str:
        """The first line told that begins so; Broken if the child ended before, or it takes too
        long.
        """
        until = time.monotonic() + timeout_s
        while not (
            found := [line for line in self._told.decode().splitlines() if line.startswith(start)]
        ):
            if self._pipe is None or not self._read(until):
                raise Broken(f"no {start!r} came; it said: {self._output()[-300:]}")
        return found[0]

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
        """Takes in what the child tells; False if nothing came in time. The pipe's end is the
        child's.
        """
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


def killed_after(function: Callable[[Tell], object], delay_s: float, begin: str = "") -> Ended:
    """Runs `function` in a child and kills it -9 after the delay, counted from its telling
    `start_run` if that is given.
    """
    child = Child(function)
    if not begin or child.wait_for(begin):
        time.sleep(delay_s)
    child.kill()
    return child.wait()


def command(*arguments: str | Path) -> Callable[[Tell], None]:
    """The `ponticello` command as a child's function: its exit code is the child's."""

    def run(_: Tell) -> None:
        from ponticello.cli.main import main

        sys.argv = ["ponticello", *map(str, arguments)]
        main()

    return run
