"""forget-user: a listener leaves the library.

doctor: what is wrong, and what to do about it.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ponticello.cli.options import (
    HERE,
    JsonOption,
    LibraryOption,
    SetOption,
    open_folder,
    print_json,
    strip_control_chars,
)
from ponticello.cli.pairs import EngineOption, MemoryOption, TempOption, ThreadsOption

_MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


def _register_doctor(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("doctor")(doctor)


def doctor(
    library: LibraryOption = HERE,
    machine_only: Annotated[
        bool, typer.Option("--environment-only", help="Look at this machine only, at no library.")
    ] = False,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Looks for what is wrong and says what to do. Changes nothing; exit code 1 if something is in
    error.

    \b
    Example:
    ponticello doctor -L my-library
    """
    from ponticello.maintenance.doctor import run_checks, worst

    findings = run_checks(_root(library, machine_only), settings or ())
    is_bad = worst(findings) == "error"
    if as_json:
        print_json(
            {"worst": worst(findings), "findings": [asdict(finding) for finding in findings]}
        )
        raise typer.Exit(1 if is_bad else 0)
    for finding in findings:
        typer.echo(
            f"{_MARKS[finding.severity]:<8} {strip_control_chars(finding.where)}: {strip_control_chars(finding.what)}"
        )
        if finding.do:
            typer.echo(f"{'':<8}   do: {strip_control_chars(finding.do)}")
    counts = {
        severity: sum(finding.severity == severity for finding in findings) for severity in _MARKS
    }
    typer.echo(f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes")
    raise typer.Exit(1 if is_bad else 0)


def _root(library: Path, machine_only: bool) -> Path | None:
    return None if machine_only else library


def _register_forget(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("forget-user")(forget_user)


def forget_user(
    user: Annotated[
        str, typer.Argument(help="The listener, by name or by the id in the library's log.")
    ],
    library: LibraryOption = HERE,
    settings: SetOption = None,
    engine: EngineOption = "duckdb",
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    temp: TempOption = None,
    as_json: JsonOption = False,
) -> None:
    """Takes a listener out of every table, mines the pairs without them, and names the runs to
    train again.

    The evaluation report, which was made with them, is deleted. Files outside the library are not
    touched.

    \b
    Example:
    ponticello forget-user alice -L my-library
    """
    from dataclasses import asdict, replace

    from ponticello.maintenance.erase_user import erase_users
    from ponticello.pairs.engine import EngineOptions

    folder = open_folder(library, settings)
    with folder.lock():
        done = erase_users(folder, [user], EngineOptions(engine, memory, threads, temp))
    if as_json:
        told = asdict(replace(done, mined=None))
        told["n_pairs"] = done.mined.n_pairs if done.mined else None
        del told["mined"]
        print_json(told)
        return
    for name, n_rows in done.n_rows.items():
        typer.echo(f"{n_rows:,} rows removed from {name}")
    if done.removed:
        typer.echo(f"deleted: {', '.join(done.removed)}")
    for runs, how in (
        (done.runs, "trained with them"),
        (done.maybe_runs, "maybe trained with them, from another log"),
    ):
        if runs:
            typer.echo(f"{how}: {', '.join(runs)}; delete and train again, then embed and evaluate")
    pairs = f"; {done.mined.n_pairs:,} pairs mined without them" if done.mined else ""
    typer.echo(f"{done.n_events:,} events removed from {folder.interactions}{pairs}")


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    _register_doctor(app)
    _register_forget(app)
