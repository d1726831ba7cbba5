"""prepare, pairs: from files and logs to what training reads."""

from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.console import (
    HERE,
    JsonOption,
    LibraryOption,
    SetOption,
    open_folder,
    print_json,
    progress,
    skipped_note,
)

if TYPE_CHECKING:
    from ponticello.data.mining import Mined
    from ponticello.data.store import Prepared
    from ponticello.library import Folder


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("prepare")(prepare)
    app.command("pairs")(pairs)


def prepare(
    library: LibraryOption = HERE,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that decode; else one a core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Decodes every track into a log-mel. A second run does only what is missing or changed.

    \b
    Example:
    ponticello prepare -L my-library
    """
    folder = open_folder(library)
    done = prepare_library(folder, workers)
    if as_json:
        print_json(
            {"n_new": done.n_new, "n_kept": done.n_kept, "n_removed": done.n_removed, "n_skipped": len(done.skipped)}
        )
        return
    removed = f", {done.n_removed:,} removed" if done.n_removed else ""
    typer.echo(
        f"{done.n_new:,} tracks prepared, {done.n_kept:,} were already{removed}"
        f"{skipped_note(len(done.skipped), folder)}; in {folder.mels}"
    )


def prepare_library(folder: "Folder", workers: int | None) -> "Prepared":
    """Prepares every track that has a path, and holds some out."""
    import os

    import polars as pl

    from ponticello.data.catalog import audio_path, read_tracks
    from ponticello.data.columns import PATH, TRACK_ID
    from ponticello.data.mining import refresh_splits
    from ponticello.data.store import prepare_mels

    tracks = read_tracks(folder).filter(pl.col(PATH).is_not_null())
    places = {row[TRACK_ID]: audio_path(folder, row[PATH]) for row in tracks.iter_rows(named=True)}
    with folder.lock(), progress("preparing", "tracks") as report:
        done = prepare_mels(folder, places, workers=workers or os.cpu_count() or 1, on_progress=report)
        refresh_splits(folder)
    return done


def pairs(library: LibraryOption = HERE, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Mines pairs of tracks liked together. Only the training window and training tracks are looked at.

    \b
    Example:
    ponticello pairs -L my-library --set pairs.min_listeners=3
    """
    from ponticello.data.mining import mine_library

    folder = open_folder(library, settings)
    with folder.lock():
        mined = mine_library(folder)
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
