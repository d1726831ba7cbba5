"""import-history: listening comes in, from whatever kept it."""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.console import (
    HERE,
    ColumnsOption,
    JsonOption,
    LibraryOption,
    clean,
    open_folder,
    print_json,
    progress,
    read_columns,
    skipped_note,
)

if TYPE_CHECKING:
    from datetime import tzinfo

    from ponticello.data.history.ingest import History
    from ponticello.library import Folder

_SHOWN = 5  # names a line shows
_SAYS = {
    "track_id": "track id",
    "mbid": "MusicBrainz id",
    "isrc": "ISRC",
    "uri": "platform address",
    "path": "file",
    "title": "artist and title",
    "edition": "artist and title but for a remaster's label",
    "fuzzy": "names without accents and spaces (fuzzy)",
}


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("import-history")(import_history)


def import_history(
    path: Annotated[
        Path | None,
        typer.Argument(
            help="A file, folder or zip: ListenBrainz, Spotify, Last.fm, Navidrome, beets, playlists (M3U, PLS, XSPF, "
            "JSPF), or a CSV, TSV, JSONL or Parquet table.",
            show_default=False,
        ),
    ] = None,
    library: LibraryOption = HERE,
    form: Annotated[
        str | None, typer.Option("--format", help="What the files are; else told from what they hold.")
    ] = None,
    columns: ColumnsOption = None,
    user: Annotated[str | None, typer.Option(help="Who listened, in exports of one person.", show_default="me")] = None,
    plain_users: Annotated[
        bool, typer.Option("--plain-users", help="Keep new listeners' names as their ids, not a keyed hash of them.")
    ] = False,
    fuzzy: Annotated[bool, typer.Option("--fuzzy", help="Also match names that differ in accents and spaces.")] = False,
    timezone: Annotated[
        str, typer.Option(help="Where dates were written that name no zone, such as Europe/Berlin.")
    ] = "UTC",
    rematch: Annotated[
        bool, typer.Option("--rematch", help="Without a path: try again what found no track before.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Brings listening in. What was imported before is not counted twice.

    \b
    Example:
    ponticello import-history my_spotify_data.zip -L my-library --user alice
    ponticello import-history listening.csv --columns played_at=timestamp -L my-library
    ponticello import-history --rematch -L my-library
    """
    from ponticello.data.history import ingest
    from ponticello.data.history.detect import FORMATS
    from ponticello.errors import ConfigError

    if (path is None) != rematch:
        raise ConfigError("import-history needs a path, or --rematch without one")
    known = next((name for name in FORMATS if name == form), None)
    if form is not None and known is None:
        raise ConfigError(f"--format {form!r} is unknown; use one of {', '.join(FORMATS)}")
    folder = open_folder(library)
    with progress("reading", "bytes") if path else nullcontext() as report:
        done = ingest.import_history(
            folder,
            path,
            form=known,
            columns=read_columns(columns),
            user=user,
            plain_users=plain_users,
            fuzzy=fuzzy,
            zone=_zone(timezone),
            on_progress=report,
        )
    if as_json:
        print_json(_as_json(done, folder))
    else:
        _print(done, folder)


def _zone(name: str) -> "tzinfo":
    from datetime import UTC
    from zoneinfo import ZoneInfo

    from ponticello.errors import ConfigError

    try:
        return UTC if name == "UTC" else ZoneInfo(name)
    except (KeyError, OSError, ValueError):
        raise ConfigError(f"--timezone {name!r} is unknown; use a name such as Europe/Berlin") from None


def _print(done: "History", folder: "Folder") -> None:
    """What was read and from which kind of file, what matched by which rule, and the receipt."""
    if done.files:
        forms = ", ".join(sorted(set(done.files.values())))
        whose = f' of one listener, "{clean(done.listener)}"' if done.listener else ""
        files = "1 file" if len(done.files) == 1 else f"{len(done.files):,} files"
        typer.echo(f"{done.n_read:,} events{whose} from {files} ({forms})")
    if done.n_not_music:
        typer.echo(f"{done.n_not_music:,} podcasts, audiobooks or unfinished plays passed over")
    if done.ignored:
        typer.echo(f"no listening in: {_few(done.ignored)}")
    if done.left_out:
        typer.echo(f"columns left out: {_few(done.left_out)}")
    if done.match_rate is not None:
        by_rule = ", ".join(f"{n:,} by {_SAYS[rule]}" for rule, n in done.matched.items())
        found = f"{done.n_matched:,} of {done.n_read:,} events matched ({done.match_rate:.1%})"
        typer.echo(f"{found}: {by_rule}" if by_rule else found)
    if done.n_found_again:
        typer.echo(f"{done.n_found_again:,} events of earlier imports found their track")
    waiting = ""
    if done.n_kept:
        from ponticello.data.history.unmatched import list_path

        waiting = f", {done.n_kept:,} without a track kept (see {list_path(folder)})"
    updated = f", {done.n_updated:,} replaced by what says more" if done.n_updated else ""
    typer.echo(
        f"{done.n_new:,} events new{updated}{waiting}{skipped_note(done.n_skipped, folder)}; "
        f"{done.n_total:,} in {folder.interactions}"
    )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return clean(", ".join(names[:_SHOWN])) + more


def _as_json(done: "History", folder: "Folder") -> dict[str, object]:
    from dataclasses import asdict

    from ponticello.data.history.unmatched import list_path

    rate = None if done.match_rate is None else round(done.match_rate, 4)
    return {**asdict(done), "match_rate": rate, "unmatched_list": str(list_path(folder)) if done.n_kept else None}
