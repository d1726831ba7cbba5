"""pairs: from the log to the pairs that stage two learns from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    JsonOption,
    LibraryOption,
    SetOption,
    open_folder,
    print_json,
)

if TYPE_CHECKING:
    from ponticello.pairs.mine import MiningResult
    from ponticello.storage.layout import LibraryPaths

EngineOption = Annotated[
    str,
    typer.Option(
        help="duckdb, here; or a Spark master: local[*], spark://HOST:7077. The pairs are the same."
    ),
]
MemoryOption = Annotated[
    str | None, typer.Option(help="The most the engine may hold, such as 4GB; the rest on disk.")
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads of DuckDB; else one a core.")
]
TempOption = Annotated[
    Path | None, typer.Option(help="Where intermediate tables go; else the system's own folder.")
]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("mine-pairs")(mine_pairs)


def mine_pairs(
    library: LibraryOption = HERE,
    settings: SetOption = None,
    engine: EngineOption = "duckdb",
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    temp: TempOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mines pairs of tracks liked together. Only the training window and training tracks are looked
    at.

    \b
    Example:
    ponticello mine-pairs -L my-library --set pairs.min_users=3 --memory 4GB
    """
    from ponticello.pairs.engine import EngineOptions
    from ponticello.pairs.mine import mine_library

    folder, options = open_folder(library, settings), EngineOptions(engine, memory, threads, temp)
    with folder.lock():
        mined = mine_library(folder, options)
    if as_json:
        print_json(
            {
                "n_pairs": mined.n_pairs,
                "n_validation_pairs": mined.n_validation_pairs,
                "funnel": dict(mined.funnel.steps),
            }
        )
        return
    print_mined(mined, folder)


def print_mined(mined: "MiningResult", folder: "LibraryPaths") -> None:
    """The funnel and what came of it."""
    for line in mined.funnel.lines():
        typer.echo(line)
    roles = list(mined.splits.roles.values())
    held_out = ", ".join(
        f"{roles.count(role):,} {role}" for role in ("train", "validation", "test")
    )
    unused = (
        f", {mined.splits.n_without_role:,} without a role" if mined.splits.n_without_role else ""
    )
    until = mined.splits.train_until
    limit = f"{until:%Y-%m-%d %H:%M}" if until else "each listener's last two sessions"
    for note in mined.notes:
        typer.echo(note)
    typer.echo(f"tracks: {held_out}{unused}; events count for training before {limit}")
    typer.echo(
        f"{mined.n_pairs:,} pairs in {folder.pairs}, {mined.n_validation_pairs:,} held out for validation"
    )
