"""Every check, in the order of what depends on what."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from ponticello.errors import PonticelloError
from ponticello.maintenance.check_environment import (
    check_decoders,
    check_extras,
    check_room,
    check_text_encoder,
    check_versions,
)
from ponticello.maintenance.check_library import (
    bytes_to_write,
    check_frames,
    check_index,
    check_left_over,
    check_log,
    check_pairs,
    check_runs,
    check_tracks,
)
from ponticello.maintenance.findings import SEVERITIES, Check, Finding, run_check
from ponticello.storage.layout import SETTINGS_FILE, LibraryPaths, open_library

_OF_A_LIBRARY: tuple[tuple[str, Callable[[LibraryPaths], Iterator[Finding]]], ...] = (
    ("tracks.parquet", check_tracks),
    ("interactions.parquet", check_log),
    ("pairs.parquet", check_pairs),
    ("prepared frames", check_frames),
    ("runs/", check_runs),
    ("index/", check_index),
    ("left over", check_left_over),
)


def run_checks(root: Path | None, settings: Sequence[str] = ()) -> list[Finding]:
    """Everything there is to say of this machine and, unless `root` is None, of the library there.
    Changes nothing.

    A check that fails is a finding; nothing is raised. Cost: seconds, and reading the whole index.
    """
    checks: list[tuple[str, Check]] = [
        ("versions", check_versions),
        ("extras", check_extras),
        ("decoders", check_decoders),
    ]
    if root is not None:
        try:
            folder = open_library(root, settings)
        except (PonticelloError, OSError) as error:
            found = [finding for where, check in checks for finding in run_check(where, check)]
            return [
                *found,
                Finding(
                    "error",
                    str(error),
                    SETTINGS_FILE,
                    "mend it: docs/config.md; or ponticello init",
                ),
            ]
        checks.append(("text encoder", partial(check_text_encoder, folder.config.text.name)))
        checks += [(where, partial(check, folder)) for where, check in _OF_A_LIBRARY]
        checks.append(("disk", partial(_check_disk, folder)))
    return _once([finding for where, check in checks for finding in run_check(where, check)])


def _once(findings: Sequence[Finding]) -> list[Finding]:
    """Without the errors that said the same before: what one file's damage keeps several checks
    from looking at.
    """
    told: dict[object, Finding] = {}
    for number, finding in enumerate(findings):
        told.setdefault(finding.what if finding.severity == "error" else number, finding)
    return list(told.values())


def _check_disk(folder: LibraryPaths) -> Iterator[Finding]:
    return check_room(folder.root, bytes_to_write(folder), "preparing and embedding the rest")


def worst(findings: Sequence[Finding]) -> str:
    """The severest of the findings; `ok` if there are none."""
    return max((finding.severity for finding in findings), key=SEVERITIES.index, default="ok")
