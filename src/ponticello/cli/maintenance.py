"""doctor, forget-user: checks a library, and deletes a listener from it."""

from collections import Counter
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    JsonOption,
    LibraryOption,
    SetOption,
    open_library,
    print_json,
    strip_control_chars,
)
from ponticello.cli.pairs import EngineOption, MemoryOption, TempOption, ThreadsOption

if TYPE_CHECKING:
    from ponticello.maintenance.erase_user import ErasureResult

_MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("doctor")(doctor)
    app.command("forget-user")(forget_user)


def doctor(
    library: LibraryOption = HERE,
    environment_only: Annotated[
        bool, typer.Option("--environment-only", help="Check this machine, without a library.")
    ] = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Checks the machine and the library, and names what to do. Exit code 1 for an error.

    \b
    Example:
    ponticello doctor -L my-library
    """
    from ponticello.maintenance.doctor import run_checks, worst

    findings = run_checks(None if environment_only else library, settings or ())
    severity = worst(findings)
    if as_json:
        print_json({"worst": severity, "findings": [asdict(finding) for finding in findings]})
        raise typer.Exit(1 if severity == "error" else 0)
    for finding in findings:
        typer.echo(
            f"{_MARKS[finding.severity]:<8} "
            f"{strip_control_chars(f'{finding.where}: {finding.what}')}"
        )
        if finding.do:
            typer.echo(f"{'':<8}   do: {strip_control_chars(finding.do)}")
    counts = Counter(finding.severity for finding in findings)
    typer.echo(f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes")
    raise typer.Exit(1 if severity == "error" else 0)


def forget_user(
    user: Annotated[
        str, typer.Argument(help="The listener: an id of the log, or the name it was made of.")
    ],
    library: LibraryOption = HERE,
    settings: SetOption = None,
    engine: EngineOption = "duckdb",
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    temp: TempOption = None,
    as_json: JsonOption = False,
) -> None:
    """Deletes a listener from every table, mines the pairs again, and names the runs to retrain.

    The evaluation report, which was made with them, is deleted. Files outside the library are not
    changed.

    \b
    Example:
    ponticello forget-user alice -L my-library
    """
    from ponticello.pairs.engine import EngineOptions

    opened = open_library(library, settings)
    result = opened.forget_user(user, EngineOptions(engine, memory, threads, temp))
    if as_json:
        record = asdict(replace(result, mined=None))
        del record["mined"]
        record["n_pairs"] = result.mined.n_pairs if result.mined else None
        print_json(record)
        return
    _print_erasure(result)
    pairs = f"; {result.mined.n_pairs:,} pairs mined without them" if result.mined else ""
    typer.echo(f"{result.n_events:,} events removed from {opened.folder.interactions}{pairs}")


def _print_erasure(result: "ErasureResult") -> None:
    for name, n_rows in result.n_rows.items():
        typer.echo(f"{n_rows:,} rows removed from {name}")
    if result.removed:
        typer.echo(f"deleted: {', '.join(result.removed)}")
    remedy = "delete and train again, then embed and evaluate"
    if result.runs:
        typer.echo(f"trained with them: {', '.join(result.runs)}; {remedy}")
    if result.maybe_runs:
        typer.echo(
            f"maybe trained with them, from another log: {', '.join(result.maybe_runs)}; {remedy}"
        )
