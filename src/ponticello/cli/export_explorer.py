"""export-explorer: the explorer as a folder that any file server can show."""

from pathlib import Path
from typing import Annotated

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, print_json, progress


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("export-explorer")(export_explorer)


def export_explorer(
    target: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder to write: new, empty or an earlier export.")
    ],
    library: LibraryOption = HERE,
    as_json: JsonOption = False,
) -> None:
    """Writes the explorer as a folder: similar songs, maps, dial and lists without the service.

    \b
    Example:
    ponticello export-explorer my-page -L my-library
    python3 -m http.server --directory my-page --bind 127.0.0.1
    """
    from ponticello.api import Library
    from ponticello.serve.static_export import export_explorer as write

    with progress("neighbours", "tracks") as report:
        done = write(Library.open(library), target, report)
    if as_json:
        values = {"n_tracks": done.n_tracks, "n_indexed": done.n_indexed, "n_bytes": done.n_bytes}
        print_json({"folder": str(done.folder), **values})
        return
    left_out = done.n_tracks - done.n_indexed
    note = f", {left_out:,} of them not in the index" if left_out else ""
    size = f"{done.n_bytes / 1e6:,.1f} MB"
    typer.echo(f"{done.n_tracks:,} tracks to explore{note}, {size}; in {done.folder}")
