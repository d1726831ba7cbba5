"""mine-pairs: the pairs of tracks that stage two learns from."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    JsonOption,
    LibraryOption,
    SetOption,
    open_library,
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
    str | None,
    typer.Option(help="The most memory of the engine, such as 4GB; the rest goes to disk."),
]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="Threads of DuckDB.", show_default="one per core")
]
TempOption = Annotated[
    Path | None,
    typer.Option(help="The folder for intermediate tables.", show_default="the system's"),
]


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
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
    """Mines pairs of tracks that listeners liked together, from training tracks and events only.

    \b
    Example:
    ponticello mine-pairs -L my-library --set pairs.min_users=3 --memory 4GB
    """
    from ponticello.pairs.engine import EngineOptions

    opened = open_library(library, settings)
    result = opened.mine_pairs(EngineOptions(engine, memory, threads, temp))
    if as_json:
        print_json(
            {
                "n_pairs": result.n_pairs,
                "n_validation_pairs": result.n_validation_pairs,
                "funnel": dict(result.funnel.steps),
            }
        )
        return
    print_mining(result, opened.folder)


def print_mining(result: "MiningResult", folder: "LibraryPaths") -> None:
    """Prints the funnel, the splits and the number of pairs."""
    for line in result.funnel.lines():
        typer.echo(line)
    for note in result.notes:
        typer.echo(note)
    splits = result.splits
    roles = list(splits.roles.values())
    counts = [f"{roles.count(role):,} {role}" for role in ("train", "validation", "test")]
    if splits.n_without_role:
        counts.append(f"{splits.n_without_role:,} without a role")
    limit = "events count for training before each listener's last two sessions"
    if splits.train_until:
        limit = f"events count for training before {splits.train_until:%Y-%m-%d %H:%M}"
    if splits.shares:
        limit = f"the log has no times: {splits.shares[0]:.0%} of each listener's tracks train"
    typer.echo(f"tracks: {', '.join(counts)}; {limit}")
    typer.echo(
        f"{result.n_pairs:,} pairs in {folder.pairs}, "
        f"{result.n_validation_pairs:,} held out for validation"
    )
