"""doctor: what is wrong, and what to do about it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, SetOption, clean, print_json

_MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("doctor")(doctor)


def doctor(
    library: LibraryOption = HERE,
    machine_only: Annotated[bool, typer.Option("--machine", help="Look at this machine only, at no library.")] = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Looks for what is wrong and says what to do. Changes nothing; exit code 1 if something is in error.

    \b
    Example:
    ponticello doctor -L my-library
    """
    from ponticello.doctor.examine import examine, worst

    findings = examine(_root(library, machine_only), settings or ())
    is_bad = worst(findings) == "error"
    if as_json:
        print_json({"worst": worst(findings), "findings": [asdict(finding) for finding in findings]})
        raise typer.Exit(1 if is_bad else 0)
    for finding in findings:
        typer.echo(f"{_MARKS[finding.severity]:<8} {clean(finding.where)}: {clean(finding.what)}")
        if finding.do:
            typer.echo(f"{'':<8}   do: {clean(finding.do)}")
    counts = {severity: sum(finding.severity == severity for finding in findings) for severity in _MARKS}
    typer.echo(f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes")
    raise typer.Exit(1 if is_bad else 0)


def _root(library: Path, machine_only: bool) -> Path | None:
    return None if machine_only else library
