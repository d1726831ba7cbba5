"""init, import-tracks: a library and its catalogue."""

from pathlib import Path
from typing import Annotated

import typer

from ponticello.cli.console import (
    HERE,
    ColumnsOption,
    JsonOption,
    LibraryOption,
    open_folder,
    print_json,
    read_columns,
    skipped_note,
)


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("init")(init)
    app.command("import-tracks")(import_tracks)


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    preset: Annotated[str, typer.Option(help="paper, base, small or tiny: how large, how long.")] = "small",
) -> None:
    """Makes an empty library.

    \b
    Example:
    ponticello init my-library --preset small
    """
    from ponticello.library import create_library

    made = create_library(folder, preset)
    typer.echo(
        f"made {made.root} with preset {preset}; next: ponticello scan FOLDER (or import-tracks TABLE) -L {folder}"
    )


def import_tracks(
    table: Annotated[
        Path, typer.Argument(help="CSV, Parquet or JSONL with a track_id column; or a .txt/.m3u of paths.")
    ],
    library: LibraryOption = HERE,
    audio_root: Annotated[
        Path | None, typer.Option(help="What relative paths start from; else the table's folder.")
    ] = None,
    columns: ColumnsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Brings a catalogue in. Known tracks are updated.

    \b
    Example:
    ponticello import-tracks tracks.csv --columns path=file -L my-library
    """
    from dataclasses import asdict

    from ponticello.data import catalog
    from ponticello.errors import ConfigError

    folder = open_folder(library)
    if table.suffix.lower() in catalog.LIST_SUFFIXES:
        if audio_root or columns:
            raise ConfigError(
                f"{table.name} is a list of paths: it has no columns, and its paths start from its own folder; "
                "leave --columns and --audio-root out"
            )
        done = catalog.import_track_list(folder, table)
    else:
        done = catalog.import_tracks(folder, table, audio_root=audio_root, columns=read_columns(columns))
    if as_json:
        print_json(asdict(done))
        return
    typer.echo(
        f"{done.n_new:,} tracks new, {done.n_updated:,} updated{skipped_note(done.n_skipped, folder)}; "
        f"{done.n_total:,} in {folder.tracks}"
    )
