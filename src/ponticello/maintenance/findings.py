"""One thing the doctor has to say, and how a check that fails itself is told."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

Severity = Literal["ok", "note", "warning", "error"]
_COMMAND = re.compile(r": (ponticello [^;]+)$")  # how an error ends that knows what mends it
SEVERITIES: tuple[Severity, ...] = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """What was found and where; do: what to do about it, a command where there is one, empty where
    nothing is needed.

    error: an answer would be missing or wrong. warning: it may be worse than it could be. note:
    good to know.
    """

    severity: Severity
    what: str
    where: str
    do: str = ""


Check = Callable[[], Iterator[Finding]]


def run_check(where: str, check: Check) -> list[Finding]:
    """What a check finds; that it could not be made, where it fails."""
    found: list[Finding] = []
    try:
        found.extend(check())
    except Exception as error:  # the doctor looks at what is broken: no check may end the others
        reason = " ".join(str(error).split()) or type(error).__name__
        command = _COMMAND.search(reason)
        do = command[1] if command else "mend or remove what it names"
        found.append(Finding("error", f"could not be looked at: {reason}", where, do))
    return found
