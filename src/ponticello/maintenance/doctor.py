"""Runs every check of the machine and of a library."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ponticello.errors import PonticelloError
from ponticello.maintenance import check_environment, check_library
from ponticello.maintenance.check_environment import MACHINE
from ponticello.maintenance.findings import SEVERITIES, Check, Finding, run_check
from ponticello.storage.layout import SETTINGS_FILE, LibraryPaths, open_library

_LIBRARY_CHECKS: tuple[tuple[str, Callable[[LibraryPaths], Iterator[Finding]]], ...] = (
    ("tracks.parquet", check_library.check_tracks),
    ("interactions.parquet", check_library.check_log),
    ("pairs.parquet", check_library.check_pairs),
    ("prepared frames", check_library.check_frames),
    ("runs/", check_library.check_runs),
    ("index/", check_library.check_index),
    ("left over", check_library.check_left_over),
    ("disk", check_library.check_room),
)


def run_checks(root: Path | None, settings: Sequence[str] = ()) -> list[Finding]:
    """Returns the findings on this machine and, unless `root` is None, on the library there.

    Changes no file: a check that fails is a finding. Cost: seconds, and reading the whole index.
    """
    checks: list[tuple[str, Check]] = [
        (MACHINE, check_environment.check_versions),
        (MACHINE, check_environment.check_extras),
        (MACHINE, check_environment.check_decoders),
    ]
    if root is not None:
        try:
            folder = open_library(root, settings)
        except (PonticelloError, OSError) as error:
            do = "mend it: docs/config.md; or ponticello init"
            return [*_run(checks), Finding("error", str(error), do, SETTINGS_FILE)]
        name = folder.config.text.name
        checks.append((MACHINE, partial(check_environment.check_text_encoder, name)))
        for where, check in _LIBRARY_CHECKS:
            checks.append((where, partial(check, folder)))
    return _run(checks)


def _run(checks: Sequence[tuple[str, Check]]) -> list[Finding]:
    """Returns all findings; an error that several checks report, such as one damaged file, once."""
    findings: list[Finding] = []
    errors: set[str] = set()
    for where, check in checks:
        for finding in run_check(where, check):
            if finding.severity == "error" and finding.what in errors:
                continue
            if finding.severity == "error":
                errors.add(finding.what)
            findings.append(finding)
    return findings


def worst(findings: Sequence[Finding]) -> str:
    """Returns the highest severity of the findings; "ok" if there are none."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="ok")
