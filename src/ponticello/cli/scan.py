"""scan: a folder of music as a catalogue."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.console import (
    HERE,
    JsonOption,
    LibraryOption,
    clean,
    open_folder,
    print_json,
    progress,
    skipped_note,
)

if TYPE_CHECKING:
    from ponticello.data.scan import Scanned
    from ponticello.library import Folder

_SHOWN_SUFFIXES = 4


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("scan")(scan)


def scan(
    music: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder with your music.")],
    library: LibraryOption = HERE,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that read; else one a core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Makes a catalogue of a folder of music, from the files' own tags. Run it again after changes.

    Only new and changed files are read. Moved files keep their track, and nothing is deleted.

    \b
    Example:
    ponticello scan ~/Music -L my-library
    """
    import os
    from dataclasses import asdict

    from ponticello.data.scan import scan_folder

    folder = open_folder(library)
    with folder.lock(), progress("reading", "files") as report:
        done = scan_folder(folder, music, workers=workers or os.cpu_count() or 1, on_progress=report)
    if as_json:
        print_json(asdict(done))
        return
    _print_scanned(done, folder, library)


def _print_scanned(done: "Scanned", folder: "Folder", library: Path) -> None:
    if done.n_gone:
        typer.echo(f"{done.n_gone:,} files have gone; their tracks stay (see {folder.skipped})")
    if done.n_duplicates:
        typer.echo(f"{done.n_duplicates:,} tracks share a recording; nothing was merged (see {folder.duplicates})")
    if done.ignored:
        commonest = list(done.ignored.items())[:_SHOWN_SUFFIXES]
        some = ", ".join(f"{count:,} {clean(suffix) or 'without a suffix'}" for suffix, count in commonest)
        more = ", ..." if len(done.ignored) > _SHOWN_SUFFIXES else ""
        typer.echo(f"{sum(done.ignored.values()):,} files not named like sound, left alone ({some}{more})")
    moved = f", {done.n_moved:,} moved" if done.n_moved else ""
    is_changed = done.n_new or done.n_updated
    typer.echo(
        f"{done.n_new:,} tracks new, {done.n_updated:,} updated{moved}, {done.n_unchanged:,} unchanged"
        f"{skipped_note(done.n_skipped, folder)}; {done.n_total:,} in {folder.tracks}"
        + (f"; next: ponticello prepare -L {library}" if is_changed else "")
    )
