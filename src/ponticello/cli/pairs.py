"""pairs: from the log to the pairs that stage two learns from, or why a pair is one, or what mining would cost."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, SetOption, clean, open_folder, print_json

if TYPE_CHECKING:
    from ponticello.data.engine import EngineOptions
    from ponticello.data.mining import Mined
    from ponticello.library import Folder

EngineOption = Annotated[
    str, typer.Option(help="duckdb, here; or a Spark master: local[*], spark://HOST:7077. The pairs are the same.")
]
MemoryOption = Annotated[str | None, typer.Option(help="The most the engine may hold, such as 4GB; the rest on disk.")]
ThreadsOption = Annotated[int | None, typer.Option(min=1, help="Threads of DuckDB; else one a core.")]
TempOption = Annotated[Path | None, typer.Option(help="Where intermediate tables go; else the system's own folder.")]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("pairs")(pairs)


def pairs(
    library: LibraryOption = HERE,
    settings: SetOption = None,
    explain: Annotated[
        tuple[str, str] | None, typer.Option(help="Two tracks: say why they are a pair or none; nothing is written.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count and estimate only; nothing is written.")] = False,
    engine: EngineOption = "duckdb",
    memory: MemoryOption = None,
    threads: ThreadsOption = None,
    temp: TempOption = None,
    as_json: JsonOption = False,
) -> None:
    """Mines pairs of tracks liked together. Only the training window and training tracks are looked at.

    \b
    Example:
    ponticello pairs -L my-library --set pairs.min_listeners=3 --memory 4GB
    ponticello pairs -L my-library --explain TRACK OTHER-TRACK
    """
    from ponticello.data.engine import EngineOptions
    from ponticello.data.mining import mine_library
    from ponticello.errors import ConfigError

    folder, options = open_folder(library, settings), EngineOptions(engine, memory, threads, temp)
    if explain and dry_run:
        raise ConfigError("--explain and --dry-run are two questions; ask one at a time")
    if explain:
        _explain(folder, explain, options, as_json)
        return
    if dry_run:
        _estimate(folder, options, as_json)
        return
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


def _explain(folder: "Folder", tracks: tuple[str, str], options: "EngineOptions", as_json: bool) -> None:
    from dataclasses import asdict

    from ponticello.data.explained import explain_pair

    found = explain_pair(folder, *tracks, options)
    if as_json:
        print_json(asdict(found) | {"expected": found.expected})
        return
    one, other = (clean(track_id) for track_id in tracks)
    typer.echo(f"of {found.n_all:,} listeners {found.n_one:,} like {one} and {found.n_other:,} like {other}")
    typer.echo(f"by chance {found.expected:.1f} would like both")
    for row in found.evidence:
        over = row.n_listeners - row.n_within
        busy = f" ({over:,} more have it beyond their cap)" if over else ""
        typer.echo(
            f"{row.source}: {clean(row.anchor_id)} -> {clean(row.positive_id)}, {row.n_within:,} listeners{busy}, "
            f"weight {row.weight:g}; {row.verdict}"
        )
    if not found.evidence:
        typer.echo("no listener says that they belong together, in the training window")


def _estimate(folder: "Folder", options: "EngineOptions", as_json: bool) -> None:
    from dataclasses import asdict

    from ponticello.data.estimate import estimate_mining

    found = estimate_mining(folder, options)
    if as_json:
        print_json(asdict(found) | {"steps": dict(found.steps)})
        return
    for line in found.lines():
        typer.echo(line)
    typer.echo("nothing was written")


def print_mined(mined: "Mined", folder: "Folder") -> None:
    """The funnel and what came of it."""
    for line in mined.funnel.lines():
        typer.echo(line)
    roles = list(mined.splits.roles.values())
    held_out = ", ".join(f"{roles.count(role):,} {role}" for role in ("train", "validation", "test"))
    unused = f", {mined.splits.n_without_role:,} without a role" if mined.splits.n_without_role else ""
    until = mined.splits.train_until
    limit = f"{until:%Y-%m-%d %H:%M}" if until else "each listener's last two sessions"
    for note in mined.notes:
        typer.echo(note)
    typer.echo(f"tracks: {held_out}{unused}; events count for training before {limit}")
    typer.echo(f"{mined.n_pairs:,} pairs in {folder.pairs}, {mined.n_validation_pairs:,} held out for validation")
