"""init, scan, import-tracks, import-history, import-dataset: fill a library."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    ColumnsOption,
    JsonOption,
    LibraryOption,
    WorkersOption,
    open_library,
    print_json,
    progress,
    read_columns,
    shorten_names,
    skipped_note,
    strip_control_chars,
)

if TYPE_CHECKING:
    from ponticello.listening.importers.run import HistoryImport
    from ponticello.storage.layout import LibraryPaths
    from ponticello.tracks.scan import ScanResult

_SHOWN_SUFFIXES = 4
_RULES = {
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
    """Adds the commands of this file."""
    app.command("init")(init)
    app.command("scan")(scan)
    app.command("import-tracks")(import_tracks)
    app.command("import-history")(import_history)
    app.command("import-dataset")(import_dataset)


def init(
    folder: Annotated[Path, typer.Argument(help="The folder to create.")],
    preset: Annotated[
        str, typer.Option(help="paper, base, small or tiny: size of the models, training time.")
    ] = "small",
) -> None:
    """Creates an empty library.

    \b
    Example:
    ponticello init my-library --preset small
    """
    from ponticello.library import Library

    library = Library.create(folder, preset)
    typer.echo(
        f"created {library.folder.root} with preset {preset}; "
        f"next: ponticello scan FOLDER (or import-tracks TABLE) -L {folder}"
    )


def scan(
    music: Annotated[Path, typer.Argument(metavar="FOLDER", help="The folder with your music.")],
    library: LibraryOption = HERE,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Catalogues a folder of music from the tags of its files. Run it again after changes.

    Only new and changed files are read. Moved files keep their track; no track is deleted.

    \b
    Example:
    ponticello scan ~/Music -L my-library
    """
    opened = open_library(library)
    with progress("files") as report:
        result = opened.scan(music, n_workers=workers, on_progress=report)
    if as_json:
        print_json(asdict(result))
        return
    _print_scan(result, opened.folder, library)


def _print_scan(result: "ScanResult", folder: "LibraryPaths", library: Path) -> None:
    if result.n_gone:
        typer.echo(
            f"{result.n_gone:,} files no longer exist; their tracks are kept (see {folder.skipped})"
        )
    if result.n_duplicates:
        typer.echo(f"{result.n_duplicates:,} tracks share a recording (see {folder.duplicates})")
    if result.ignored:
        counts = []
        for suffix, count in list(result.ignored.items())[:_SHOWN_SUFFIXES]:
            counts.append(f"{count:,} {strip_control_chars(suffix) or 'without a suffix'}")
        if len(result.ignored) > _SHOWN_SUFFIXES:
            counts.append("...")
        n_ignored = sum(result.ignored.values())
        typer.echo(f"{n_ignored:,} files that are not sound ignored ({', '.join(counts)})")
    moved = f", {result.n_moved:,} moved" if result.n_moved else ""
    is_changed = result.n_new or result.n_updated
    next_step = f"; next: ponticello prepare -L {library}" if is_changed else ""
    typer.echo(
        f"{result.n_new:,} tracks new, {result.n_updated:,} updated{moved}, "
        f"{result.n_unchanged:,} unchanged{skipped_note(result.n_skipped, folder)}; "
        f"{result.n_total:,} in {folder.tracks}{next_step}"
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
        Path | None,
        typer.Option(
            help="The folder that relative paths start from.", show_default="the table's folder"
        ),
    ] = None,
    columns: ColumnsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Imports a catalogue. Tracks with a known id are updated.

    \b
    Example:
    ponticello import-tracks tracks.csv --columns path=file -L my-library
    """
    opened = open_library(library)
    result = opened.import_tracks(table, audio_root=audio_root, columns=read_columns(columns))
    if as_json:
        print_json(asdict(result))
        return
    typer.echo(
        f"{result.n_new:,} tracks new, {result.n_updated:,} updated"
        f"{skipped_note(result.n_skipped, opened.folder)}; "
        f"{result.n_total:,} in {opened.folder.tracks}"
    )


HistoryArgument = Annotated[
    Path | None,
    typer.Argument(
        help="A file, folder or zip: ListenBrainz, Spotify, Last.fm, Navidrome, beets, playlists "
        "(M3U, PLS, XSPF, JSPF), or a CSV, TSV, JSONL or Parquet table.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    str | None,
    typer.Option("--format", help="The format of the files.", show_default="detected by content"),
]
UserOption = Annotated[
    str | None, typer.Option(help="The listener, in exports of one person.", show_default="me")
]
NoPseudonymsOption = Annotated[
    bool,
    typer.Option(
        "--no-pseudonyms", help="Keep new listeners' names as their ids, not a keyed hash of them."
    ),
]
RetryOption = Annotated[
    bool,
    typer.Option("--retry-unmatched", help="Without a path: match earlier unmatched events again."),
]


def import_history(
    path: HistoryArgument = None,
    library: LibraryOption = HERE,
    file_format: FormatOption = None,
    columns: ColumnsOption = None,
    user: UserOption = None,
    no_pseudonyms: NoPseudonymsOption = False,
    fuzzy: Annotated[
        bool, typer.Option("--fuzzy", help="Also match names that differ in accents and spaces.")
    ] = False,
    timezone: Annotated[
        str, typer.Option(help="The zone of dates without one, such as Europe/Berlin.")
    ] = "UTC",
    retry_unmatched: RetryOption = False,
    as_json: JsonOption = False,
) -> None:
    """Imports listening history. Events that were imported before are not counted twice.

    \b
    Example:
    ponticello import-history my_spotify_data.zip -L my-library --user alice
    ponticello import-history listening.csv --columns played_at=timestamp -L my-library
    ponticello import-history --retry-unmatched -L my-library
    """
    from ponticello.errors import ConfigError

    if (path is None) != retry_unmatched:
        raise ConfigError("import-history needs a path, or --retry-unmatched without one")
    opened = open_library(library)
    with progress("bytes") if path else nullcontext() as report:
        result = opened.import_history(
            path,
            user=user,
            file_format=file_format,
            columns=read_columns(columns),
            pseudonyms=not no_pseudonyms,
            fuzzy=fuzzy,
            timezone=timezone,
            on_progress=report,
        )
    if as_json:
        print_json(_history_as_json(result, opened.folder))
    else:
        _print_history(result, opened.folder)


def _print_history(result: "HistoryImport", folder: "LibraryPaths") -> None:
    from ponticello.listening.unmatched import unmatched_list_path

    if result.files:
        formats = ", ".join(sorted(set(result.files.values())))
        listener = ""
        if result.user:
            listener = f' of one listener, "{strip_control_chars(result.user)}"'
        files = "1 file" if len(result.files) == 1 else f"{len(result.files):,} files"
        typer.echo(f"{result.n_read:,} events{listener} from {files} ({formats})")
    if result.n_not_music:
        typer.echo(f"{result.n_not_music:,} podcasts, audiobooks or unfinished plays skipped")
    if result.ignored_files:
        typer.echo(f"files without listening events: {shorten_names(result.ignored_files)}")
    if result.dropped_columns:
        typer.echo(f"columns not imported: {shorten_names(result.dropped_columns)}")
    if result.match_rate is not None:
        by_rule = ", ".join(f"{n:,} by {_RULES[rule]}" for rule, n in result.matched.items())
        typer.echo(
            f"{result.n_matched:,} of {result.n_read:,} events matched ({result.match_rate:.1%})"
            + (f": {by_rule}" if by_rule else "")
        )
    if result.n_newly_matched:
        typer.echo(f"{result.n_newly_matched:,} events of earlier imports matched")
    updated = f", {result.n_updated:,} updated" if result.n_updated else ""
    unmatched = ""
    if result.n_kept:
        unmatched = f", {result.n_kept:,} kept without a track (see {unmatched_list_path(folder)})"
    typer.echo(
        f"{result.n_new:,} events new{updated}{unmatched}"
        f"{skipped_note(result.n_skipped, folder)}; {result.n_total:,} in {folder.interactions}"
    )


def _history_as_json(result: "HistoryImport", folder: "LibraryPaths") -> dict[str, object]:
    from ponticello.listening.unmatched import unmatched_list_path

    rate = None if result.match_rate is None else round(result.match_rate, 4)
    unmatched_list = str(unmatched_list_path(folder)) if result.n_kept else None
    return {**asdict(result), "match_rate": rate, "unmatched_list": unmatched_list}


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
    """Imports a public data set from files that you got under its licence; no download.

    \b
    Example:
    ponticello import-dataset gtzan --from downloads/gtzan -L my-library
    """
    from ponticello.datasets.registry import SETS
    from ponticello.errors import ConfigError

    if show_list:
        _print_sets(as_json)
        return
    if name is None:
        raise ConfigError(f"import-dataset needs the name of a set: one of {', '.join(SETS)}")
    if source is None:
        raise ConfigError(
            f"import-dataset {name} needs --from DIR, the folder with the set's own files"
        )
    opened = open_library(library)
    result = opened.import_dataset(name, source)
    if as_json:
        print_json(asdict(result))
        return
    missing = f"; missing: {shorten_names(result.missing)}" if result.missing else ""
    typer.echo(
        f"{result.n_tracks_new:,} tracks new, {result.n_tracks_updated:,} updated, "
        f"{result.n_events_new:,} events new{skipped_note(result.n_skipped, opened.folder)}"
        f"{missing}; {result.n_tracks:,} tracks in {opened.folder.tracks}"
    )


def _print_sets(as_json: bool) -> None:
    from ponticello.datasets.registry import SETS

    if as_json:
        fields = ("name", "title", "licence", "source", "how_to_get", "metric")
        records = []
        for dataset in SETS.values():
            records.append({field: getattr(dataset, field) for field in fields})
        print_json(records)
        return
    rows = [("name", "licence", "how to get it")]
    rows += [(dataset.name, dataset.licence, dataset.how_to_get) for dataset in SETS.values()]
    name_width = max(len(row[0]) for row in rows)
    licence_width = max(len(row[1]) for row in rows)
    for name, licence, how_to_get in rows:
        typer.echo(f"{name:<{name_width}}  {licence:<{licence_width}}  {how_to_get}")
