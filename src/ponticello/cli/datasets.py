"""import-dataset: a public music data set as tracks and listening of a library."""

from pathlib import Path
from typing import Annotated

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, open_folder, print_json, skipped_note

_SHOWN = 5  # missing files a receipt names


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("import-dataset")(import_dataset)


def import_dataset(
    name: Annotated[str | None, typer.Argument(help="A name that --list prints.")] = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="The folder with the set's own files. Required.", show_default=False)
    ] = None,
    library: LibraryOption = HERE,
    show_list: Annotated[
        bool, typer.Option("--list", help="Print the sets, their terms and where to get them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Brings a public data set in. You get its files yourself, under its licence; nothing is downloaded.

    \b
    Example:
    ponticello import-dataset gtzan --from downloads/gtzan -L my-library
    """
    from dataclasses import asdict

    from ponticello.data.public import sets
    from ponticello.errors import ConfigError

    if show_list:
        _print_sets(as_json)
        return
    if name is None:
        raise ConfigError(f"import-dataset needs the name of a set: one of {', '.join(sets.SETS)}")
    if source is None:
        raise ConfigError(f"import-dataset {name} needs --from DIR, the folder with the set's own files")
    folder = open_folder(library)
    done = sets.import_dataset(folder, name, source)
    if as_json:
        print_json(asdict(done))
        return
    more = f" and {len(done.missing) - _SHOWN} more" if len(done.missing) > _SHOWN else ""
    missing = f"; missing: {', '.join(done.missing[:_SHOWN])}{more}" if done.missing else ""
    typer.echo(
        f"{done.n_tracks_new:,} tracks new, {done.n_tracks_updated:,} updated, {done.n_events_new:,} events new"
        f"{skipped_note(done.n_skipped, folder)}{missing}; {done.n_tracks:,} tracks in {folder.tracks}"
    )


def _print_sets(as_json: bool) -> None:
    from ponticello.data.public.sets import SETS

    if as_json:
        fields = ("name", "title", "licence", "source", "how_to_get", "metric")
        print_json([{field: getattr(public, field) for field in fields} for public in SETS.values()])
        return
    rows = [("name", "licence", "how to get it")]
    rows += [(public.name, public.licence, public.how_to_get) for public in SETS.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, licence, how_to_get in rows:
        typer.echo(f"{name:<{widths[0]}}  {licence:<{widths[1]}}  {how_to_get}")
