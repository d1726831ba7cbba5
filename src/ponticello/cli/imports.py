"""import-history: listening comes in, from whatever kept it.

import-dataset: a public music data set as tracks and listening of a library.

scan: a folder of music as a catalogue.

init, import-tracks: a library and its catalogue.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    ColumnsOption,
    JsonOption,
    LibraryOption,
    open_folder,
    print_json,
    progress,
    read_columns,
    skipped_note,
    strip_control_chars,
)

if TYPE_CHECKING:
    from datetime import tzinfo

    from ponticello.listening.importers.run import HistoryImport
    from ponticello.storage.layout import LibraryPaths
    from ponticello.tracks.scan import ScanResult


_SHOWN = 5  # missing files a receipt names


def _register_datasets(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("import-dataset")(import_dataset)


def import_dataset(
    name: Annotated[str | None, typer.Argument(help="A name that --list prints.")] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--from", help="The folder with the set's own files. Required.", show_default=False
        ),
    ] = None,
    library: LibraryOption = HERE,
    show_list: Annotated[
        bool, typer.Option("--list", help="Print the sets, their terms and where to get them.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Brings a public data set in. You get its files yourself, under its licence; nothing is
    downloaded.

    \b
    Example:
    ponticello import-dataset gtzan --from downloads/gtzan -L my-library
    """
    from dataclasses import asdict

    from ponticello.datasets import registry as sets
    from ponticello.errors import ConfigError

    if show_list:
        _print_sets(as_json)
        return
    if name is None:
        raise ConfigError(f"import-dataset needs the name of a set: one of {', '.join(sets.SETS)}")
    if source is None:
        raise ConfigError(
            f"import-dataset {name} needs --from DIR, the folder with the set's own files"
        )
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
    from ponticello.datasets.registry import SETS

    if as_json:
        fields = ("name", "title", "licence", "source", "how_to_get", "metric")
        print_json(
            [{field: getattr(public, field) for field in fields} for public in SETS.values()]
        )
        return
    rows = [("name", "licence", "how to get it")]
    rows += [(public.name, public.licence, public.how_to_get) for public in SETS.values()]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    for name, licence, how_to_get in rows:
        typer.echo(f"{name:<{widths[0]}}  {licence:<{widths[1]}}  {how_to_get}")


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


def _register_history(app: typer.Typer) -> None:
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
        str | None,
        typer.Option("--format", help="What the files are; else told from what they hold."),
    ] = None,
    columns: ColumnsOption = None,
    user: Annotated[
        str | None, typer.Option(help="Who listened, in exports of one person.", show_default="me")
    ] = None,
    plain_users: Annotated[
        bool,
        typer.Option(
            "--no-pseudonyms",
            help="Keep new listeners' names as their ids, not a keyed hash of them.",
        ),
    ] = False,
    fuzzy: Annotated[
        bool, typer.Option("--fuzzy", help="Also match names that differ in accents and spaces.")
    ] = False,
    timezone: Annotated[
        str, typer.Option(help="Where dates were written that name no zone, such as Europe/Berlin.")
    ] = "UTC",
    rematch: Annotated[
        bool,
        typer.Option(
            "--retry-unmatched", help="Without a path: try again what found no track before."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Brings listening in. What was imported before is not counted twice.

    \b
    Example:
    ponticello import-history my_spotify_data.zip -L my-library --user alice
    ponticello import-history listening.csv --columns played_at=timestamp -L my-library
    ponticello import-history --retry-unmatched -L my-library
    """
    from ponticello.errors import ConfigError
    from ponticello.listening.importers import run as ingest
    from ponticello.listening.importers.detect import FORMATS

    if (path is None) != rematch:
        raise ConfigError("import-history needs a path, or --retry-unmatched without one")
    known = next((name for name in FORMATS if name == form), None)
    if form is not None and known is None:
        raise ConfigError(f"--format {form!r} is unknown; use one of {', '.join(FORMATS)}")
    folder = open_folder(library)
    with progress("reading", "bytes") if path else nullcontext() as report:
        done = ingest.import_history(
            folder,
            path,
            file_format=known,
            columns=read_columns(columns),
            user=user,
            pseudonyms=not plain_users,
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
        raise ConfigError(
            f"--timezone {name!r} is unknown; use a name such as Europe/Berlin"
        ) from None


def _print(done: "HistoryImport", folder: "LibraryPaths") -> None:
    """What was read and from which kind of file, what matched by which rule, and the receipt."""
    if done.files:
        forms = ", ".join(sorted(set(done.files.values())))
        whose = f' of one listener, "{strip_control_chars(done.user)}"' if done.user else ""
        files = "1 file" if len(done.files) == 1 else f"{len(done.files):,} files"
        typer.echo(f"{done.n_read:,} events{whose} from {files} ({forms})")
    if done.n_not_music:
        typer.echo(f"{done.n_not_music:,} podcasts, audiobooks or unfinished plays passed over")
    if done.ignored_files:
        typer.echo(f"no listening in: {_few(done.ignored_files)}")
    if done.dropped_columns:
        typer.echo(f"columns left out: {_few(done.dropped_columns)}")
    if done.match_rate is not None:
        by_rule = ", ".join(f"{n:,} by {_SAYS[rule]}" for rule, n in done.matched.items())
        found = f"{done.n_matched:,} of {done.n_read:,} events matched ({done.match_rate:.1%})"
        typer.echo(f"{found}: {by_rule}" if by_rule else found)
    if done.n_newly_matched:
        typer.echo(f"{done.n_newly_matched:,} events of earlier imports found their track")
    waiting = ""
    if done.n_kept:
        from ponticello.listening.unmatched import unmatched_list_path

        waiting = f", {done.n_kept:,} without a track kept (see {unmatched_list_path(folder)})"
    updated = f", {done.n_updated:,} replaced by what says more" if done.n_updated else ""
    typer.echo(
        f"{done.n_new:,} events new{updated}{waiting}{skipped_note(done.n_skipped, folder)}; "
        f"{done.n_total:,} in {folder.interactions}"
    )


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
    return strip_control_chars(", ".join(names[:_SHOWN])) + more


def _as_json(done: "HistoryImport", folder: "LibraryPaths") -> dict[str, object]:
    from dataclasses import asdict

    from ponticello.listening.unmatched import unmatched_list_path

    rate = None if done.match_rate is None else round(done.match_rate, 4)
    return {
        **asdict(done),
        "match_rate": rate,
        "unmatched_list": str(unmatched_list_path(folder)) if done.n_kept else None,
    }


_SHOWN_SUFFIXES = 4


def _register_scan(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("scan")(scan)


def scan(
    music: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder with your music.")],
    library: LibraryOption = HERE,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that read; else one a core.")
    ] = None,
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

    from ponticello.tracks.scan import scan_folder

    folder = open_folder(library)
    with folder.lock(), progress("reading", "files") as report:
        done = scan_folder(
            folder, music, workers=workers or os.cpu_count() or 1, on_progress=report
        )
    if as_json:
        print_json(asdict(done))
        return
    _print_scanned(done, folder, library)


def _print_scanned(done: "ScanResult", folder: "LibraryPaths", library: Path) -> None:
    if done.n_gone:
        typer.echo(f"{done.n_gone:,} files have gone; their tracks stay (see {folder.skipped})")
    if done.n_duplicates:
        typer.echo(
            f"{done.n_duplicates:,} tracks share a recording; nothing was merged (see {folder.duplicates})"
        )
    if done.ignored:
        commonest = list(done.ignored.items())[:_SHOWN_SUFFIXES]
        some = ", ".join(
            f"{count:,} {strip_control_chars(suffix) or 'without a suffix'}"
            for suffix, count in commonest
        )
        more = ", ..." if len(done.ignored) > _SHOWN_SUFFIXES else ""
        typer.echo(
            f"{sum(done.ignored.values()):,} files not named like sound, left alone ({some}{more})"
        )
    moved = f", {done.n_moved:,} moved" if done.n_moved else ""
    is_changed = done.n_new or done.n_updated
    typer.echo(
        f"{done.n_new:,} tracks new, {done.n_updated:,} updated{moved}, {done.n_unchanged:,} unchanged"
        f"{skipped_note(done.n_skipped, folder)}; {done.n_total:,} in {folder.tracks}"
        + (f"; next: ponticello prepare -L {library}" if is_changed else "")
    )


def _register_tables(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("init")(init)
    app.command("import-tracks")(import_tracks)


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to make.")],
    preset: Annotated[
        str, typer.Option(help="paper, base, small or tiny: how large, how long.")
    ] = "small",
) -> None:
    """Makes an empty library.

    \b
    Example:
    ponticello init my-library --preset small
    """
    from ponticello.storage.layout import create_library

    made = create_library(folder, preset)
    typer.echo(
        f"made {made.root} with preset {preset}; next: ponticello scan FOLDER (or import-tracks TABLE) -L {folder}"
    )


def import_tracks(
    table: Annotated[
        Path,
        typer.Argument(
            help="CSV, Parquet or JSONL with a track_id column; or a .txt/.m3u of paths."
        ),
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

    from ponticello.errors import ConfigError
    from ponticello.tracks import catalog

    folder = open_folder(library)
    if table.suffix.lower() in catalog.LIST_SUFFIXES:
        if audio_root or columns:
            raise ConfigError(
                f"{table.name} is a list of paths: it has no columns, and its paths start from its own folder; "
                "leave --columns and --audio-root out"
            )
        done = catalog.import_track_list(folder, table)
    else:
        done = catalog.import_tracks(
            folder, table, audio_root=audio_root, columns=read_columns(columns)
        )
    if as_json:
        print_json(asdict(done))
        return
    typer.echo(
        f"{done.n_new:,} tracks new, {done.n_updated:,} updated{skipped_note(done.n_skipped, folder)}; "
        f"{done.n_total:,} in {folder.tracks}"
    )


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    _register_datasets(app)
    _register_history(app)
    _register_scan(app)
    _register_tables(app)
