"""Findings of the doctor, and how a check that fails becomes one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from ponticello.errors import PonticelloError

Severity = Literal["ok", "note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = ("ok", "note", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One observation, with the remedy in `do`, empty where no action is needed.

    error: an answer would be missing or wrong. warning: it may be worse than it could be. note:
    good to know. where: a file, folder or space; `run_check` fills in the name of the check.
    """

    severity: Severity
    what: str
    do: str = ""
    where: str = ""


Check = Callable[[], Iterator[Finding]]


def run_check(where: str, check: Check) -> list[Finding]:
    """Returns the findings of a check; an exception becomes an error finding with its remedy."""
    findings: list[Finding] = []
    try:
        for finding in check():
            findings.append(replace(finding, where=finding.where or where))
    except Exception as error:  # the doctor examines damaged libraries: no check may end the others
        reason = " ".join(str(error).split()) or type(error).__name__
        remedy = error.remedy if isinstance(error, PonticelloError) else ""
        do = remedy or "mend or remove what it names"
        findings.append(Finding("error", f"could not be checked: {reason}", do, where))
    return findings
