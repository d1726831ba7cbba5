"""doctor, forget-user: checks a library, and deletes a listener from it."""

from collections import Counter
from dataclasses import asdict, replace
from typing import Annotated

import typer
from typer import Argument, Option

from ponticello.cli import options, output

_MARKS = {"ok": "ok", "note": "note", "warning": "WARNING", "error": "ERROR"}


def doctor(
    library: options.LibraryPath = options.HERE,
    environment_only: Annotated[
        bool, Option("--environment-only", help="Check this machine, without a library.")
    ] = False,
    settings: options.Settings = None,
    as_json: options.Json = False,
) -> None:
    """Checks the machine and the library, and names what to do. Exit code 1 for an error.

    \b
    Example:
    ponticello doctor -L my-library
    """
    from ponticello.maintenance.doctor import run_checks, worst

    findings = run_checks(None if environment_only else library, settings or ())
    severity = worst(findings)
    lines = []
    for finding in findings:
        what = output.strip_control_chars(f"{finding.where}: {finding.what}")
        lines.append(f"{_MARKS[finding.severity]:<8} {what}")
        if finding.do:
            lines.append(f"{'':<8}   do: {output.strip_control_chars(finding.do)}")
    counts = Counter(finding.severity for finding in findings)
    record = {"worst": severity, "findings": [asdict(finding) for finding in findings]}
    lines.append(f"{counts['error']} errors, {counts['warning']} warnings, {counts['note']} notes")
    output.print_outcome(as_json, record, lines)
    raise typer.Exit(1 if severity == "error" else 0)


def forget_user(
    user: Annotated[
        str, Argument(help="The listener: an id of the log, or the name it was made of.")
    ],
    library: options.LibraryPath = options.HERE,
    settings: options.Settings = None,
    engine: options.MiningEngine = "duckdb",
    memory: options.Memory = None,
    threads: options.Threads = None,
    temp: options.Temp = None,
    as_json: options.Json = False,
) -> None:
    """Deletes a listener from every table, mines the pairs again, and names the runs to retrain.

    The evaluation report, which was made with them, is deleted. Files outside the library are not
    changed.

    \b
    Example:
    ponticello forget-user alice -L my-library
    """
    from ponticello.pairs.engine import EngineOptions

    opened = options.open_library(library, settings)
    result = opened.forget_user(user, EngineOptions(engine, memory, threads, temp))
    record = asdict(replace(result, mined=None))
    record["n_pairs"] = record.pop("mined")
    lines = [f"{n_rows:,} rows removed from {name}" for name, n_rows in result.n_rows.items()]
    if result.removed:
        lines.append(f"deleted: {', '.join(result.removed)}")
    remedy = "delete and train again, then embed and evaluate"
    if result.runs:
        lines.append(f"trained with them: {', '.join(result.runs)}; {remedy}")
    if result.maybe_runs:
        runs = ", ".join(result.maybe_runs)
        lines.append(f"maybe trained with them, from another log: {runs}; {remedy}")
    pairs = ""
    if result.mined:
        record["n_pairs"] = result.mined.n_pairs
        pairs = f"; {result.mined.n_pairs:,} pairs mined without them"
    lines.append(f"{result.n_events:,} events removed from {opened.folder.interactions}{pairs}")
    output.print_outcome(as_json, record, lines)
