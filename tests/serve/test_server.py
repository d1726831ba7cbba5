"""`Library.serve`: runs the service until it is told to stop."""

import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from ponticello.errors import ConfigError
from ponticello.library import Library

SERVE = """
import functools, sys
from ponticello.library import Library

report = functools.partial(print, flush=True)
Library.open(sys.argv[1]).serve(port=0, on_start=report)
print("stopped")
"""


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_library_serves_until_a_signal(trained_root: Path, stop: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", SERVE, trained_root], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        url = child.stdout.readline().strip()
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(f"{url}api/library", timeout=30) as response:
            assert json.load(response)["n_tracks"] == 60
        child.send_signal(stop)
        rest, _ = child.communicate(timeout=60)
    if stop is signal.SIGINT:
        assert (child.returncode, rest) == (0, "stopped\n")
    else:
        assert child.returncode in (0, -signal.SIGTERM)


def test_public_address_needs_a_token(trained: Library) -> None:
    with pytest.raises(ConfigError, match="token"):
        trained.serve("0.0.0.0")
