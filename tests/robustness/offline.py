"""Without any network: in a network namespace of its own, in which there is nothing but an
unconnected loopback.
"""

import os
import sys
from functools import partial
from pathlib import Path

from tests.robustness.children import Child, Tell
from tests.robustness.namespaces import without_network
from tests.robustness.rows import NotPermitted, Outcome, Row, Trial

ROOT = Path(__file__).parents[2]
TESTS = (
    "tests/cli/test_demo.py",
    "tests/model/test_text_encoder.py",
    "tests/model/test_htcl.py",
    "tests/model/test_model_folders.py",
)
FORBIDDEN = "not permitted: "
HOUR_S = 3_600.0


def _run(tell: Tell, arguments: list[str]) -> None:
    try:
        without_network()
    except NotPermitted as reason:
        tell(f"{FORBIDDEN}{reason}")
        return
    os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, *arguments])


def offline(trial: Trial) -> Outcome:
    """Runs the demo's tests; with more tries also those of the models, and then the demo."""
    outcome = Outcome()
    runs = [["-m", "pytest", "-q", "-p", "no:cacheprovider", test] for test in TESTS]
    runs.append(["-m", "ponticello", "demo", "--library", str(trial.work / "demo-library")])
    for arguments in runs[: trial.tries]:
        ended = Child(partial(_run, arguments=arguments)).wait(HOUR_S)
        if reasons := [line for line in ended.told if line.startswith(FORBIDDEN)]:
            raise NotPermitted(reasons[0].removeprefix(FORBIDDEN))
        with outcome.counted(" ".join(arguments[1:])):
            ended.require_success()
        outcome.notes.append(
            f"{arguments[-1] if 'pytest' in arguments else 'the demo'}: {ended.seconds:.0f} s"
        )
    return outcome


ROWS = [
    Row(
        "no-network",
        "Without a network (a namespace with nothing but an unconnected loopback) the demo and the "
        "tests of it and of the models pass",
        4,
        1,
        offline,
    )
]
