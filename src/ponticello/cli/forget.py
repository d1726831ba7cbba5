"""forget-user: a listener leaves the library."""

from typing import Annotated

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, SetOption, open_folder, print_json
from ponticello.cli.pairs import EngineOption, MemoryOption, TempOption, ThreadsOption


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("forget-user")(forget_user)


def forget_user(
    user: Annotated[str, typer.Argument(help="The listener, by name or by the id in the library's log.")],
    library: LibraryOption = HERE,
    settings: SetOption = None,
    engine: EngineOption = "duckdb",
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    temp: TempOption = None,
    as_json: JsonOption = False,
) -> None:
    """Takes a listener out of every table, mines the pairs without them, and names the runs to train again.

    The evaluation report, which was made with them, is deleted. Files outside the library are not touched.

    \b
    Example:
    ponticello forget-user alice -L my-library
    """
    from dataclasses import asdict, replace

    from ponticello.data.engine import EngineOptions
    from ponticello.data.forget import forget_users

    folder = open_folder(library, settings)
    with folder.lock():
        done = forget_users(folder, [user], EngineOptions(engine, memory, threads, temp))
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
    for runs, how in ((done.runs, "trained with them"), (done.maybe_runs, "maybe trained with them, from another log")):
        if runs:
            typer.echo(f"{how}: {', '.join(runs)}; delete and train again, then embed and evaluate")
    pairs = f"; {done.mined.n_pairs:,} pairs mined without them" if done.mined else ""
    typer.echo(f"{done.n_events:,} events removed from {folder.interactions}{pairs}")
