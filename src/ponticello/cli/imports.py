"""init, scan, import-tracks, import-history, import-dataset: fill a library."""

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from ponticello.cli import options, output

if TYPE_CHECKING:
    from ponticello.listening.importers.run import HistoryImport
    from ponticello.storage.layout import LibraryPaths
    from ponticello.tracks.scan import ScanResult

_SHOWN_SUFFIXES = 4
_SET_FIELDS = ("name", "title", "licence", "source", "how_to_get", "metric")
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


def init(
    folder: Annotated[Path, Argument(help="The folder to create.")],
    preset: Annotated[
        str, Option(help="paper, base, small or tiny: size of the models, training time.")
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
    music: Annotated[Path, Argument(metavar="FOLDER", help="The folder with your music.")],
    library: options.LibraryPath = options.HERE,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Catalogues a folder of music from the tags of its files. Run it again after changes.

    Only new and changed files are read. Moved files keep their track; no track is deleted.

    \b
    Example:
    ponticello scan ~/Music -L my-library
    """
    opened = options.open_library(library)
    with output.progress("files") as report:
        result = opened.scan(music, n_workers=workers, on_progress=report)
    output.print_outcome(as_json, asdict(result), _scan_lines(result, opened.folder, library))


def _scan_lines(result: "ScanResult", folder: "LibraryPaths", library: Path) -> list[str]:
    lines = []
    if result.n_gone:
        gone = f"{result.n_gone:,} files no longer exist; their tracks are kept"
        lines.append(f"{gone} (see {folder.skipped})")
    if result.n_duplicates:
        lines.append(f"{result.n_duplicates:,} tracks share a recording (see {folder.duplicates})")
    if result.ignored:
        counts = []
        for suffix, count in list(result.ignored.items())[:_SHOWN_SUFFIXES]:
            counts.append(f"{count:,} {output.strip_control_chars(suffix) or 'without a suffix'}")
        if len(result.ignored) > _SHOWN_SUFFIXES:
            counts.append("...")
        n_ignored = sum(result.ignored.values())
        lines.append(f"{n_ignored:,} files that are not sound ignored ({', '.join(counts)})")
    moved = output.count_note(result.n_moved, "moved")
    is_changed = result.n_new or result.n_updated
    next_step = f"; next: ponticello prepare -L {library}" if is_changed else ""
    lines.append(
        f"{result.n_new:,} tracks new, {result.n_updated:,} updated{moved}, "
        f"{result.n_unchanged:,} unchanged{output.skipped_note(result.n_skipped, folder)}; "
        f"{result.n_total:,} in {folder.tracks}{next_step}"
    )
    return lines


def import_tracks(
    table: Annotated[
        Path,
        Argument(help="CSV, Parquet or JSONL with a track_id column; or a .txt/.m3u of paths."),
    ],
    library: options.LibraryPath = options.HERE,
    audio_root: Annotated[
        Path | None,
        Option(
            help="The folder that relative paths start from.", show_default="the table's folder"
        ),
    ] = None,
    columns: options.Columns = None,
    as_json: options.Json = False,
) -> None:
    """Imports a catalogue. Tracks with a known id are updated.

    \b
    Example:
    ponticello import-tracks tracks.csv --columns path=file -L my-library
    """
    opened = options.open_library(library)
    result = opened.import_tracks(
        table, audio_root=audio_root, columns=options.read_columns(columns)
    )
    line = (
        f"{result.n_new:,} tracks new, {result.n_updated:,} updated"
        f"{output.skipped_note(result.n_skipped, opened.folder)}; "
        f"{result.n_total:,} in {opened.folder.tracks}"
    )
    output.print_outcome(as_json, asdict(result), [line])


HistoryArgument = Annotated[
    Path | None,
    Argument(
        help="A file, folder or zip: ListenBrainz, Spotify, Last.fm, Navidrome, beets, playlists "
        "(M3U, PLS, XSPF, JSPF), or a CSV, TSV, JSONL or Parquet table.",
        show_default=False,
    ),
]
FormatOption = Annotated[
    str | None,
    Option("--format", help="The format of the files.", show_default="detected by content"),
]
UserOption = Annotated[
    str | None, Option(help="The listener, in exports of one person.", show_default="me")
]
NoPseudonymsOption = Annotated[
    bool,
    Option(
        "--no-pseudonyms", help="Keep new listeners' names as their ids, not a keyed hash of them."
    ),
]
RetryOption = Annotated[
    bool, Option("--retry-unmatched", help="Without a path: match earlier unmatched events again.")
]


def import_history(
    path: HistoryArgument = None,
    library: options.LibraryPath = options.HERE,
    file_format: FormatOption = None,
    columns: options.Columns = None,
    user: UserOption = None,
    no_pseudonyms: NoPseudonymsOption = False,
    fuzzy: Annotated[
        bool, Option("--fuzzy", help="Also match names that differ in accents and spaces.")
    ] = False,
    timezone: Annotated[
        str, Option(help="The zone of dates without one, such as Europe/Berlin.")
    ] = "UTC",
    retry_unmatched: RetryOption = False,
    as_json: options.Json = False,
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
    opened = options.open_library(library)
    with output.progress("bytes") if path else nullcontext() as report:
        result = opened.import_history(
            path,
            user=user,
            file_format=file_format,
            columns=options.read_columns(columns),
            pseudonyms=not no_pseudonyms,
            fuzzy=fuzzy,
            timezone=timezone,
            on_progress=report,
        )
    _print_history(result, opened.folder, as_json)


def _print_history(result: "HistoryImport", folder: "LibraryPaths", as_json: bool) -> None:
    record: dict[str, Any] = {**asdict(result), "match_rate": None, "unmatched_list": None}
    lines = []
    if result.files:
        formats = ", ".join(sorted(set(result.files.values())))
        user = (
            f' of one listener, "{output.strip_control_chars(result.user)}"' if result.user else ""
        )
        files = "1 file" if len(result.files) == 1 else f"{len(result.files):,} files"
        lines.append(f"{result.n_read:,} events{user} from {files} ({formats})")
    if result.n_not_music:
        lines.append(f"{result.n_not_music:,} podcasts, audiobooks or unfinished plays skipped")
    if result.ignored_files:
        lines.append(
            f"files without listening events: {output.shorten_names(result.ignored_files)}"
        )
    if result.dropped_columns:
        lines.append(f"columns not imported: {output.shorten_names(result.dropped_columns)}")
    rate = result.match_rate
    if rate is not None:
        record["match_rate"] = round(rate, 4)
        matched = f"{result.n_matched:,} of {result.n_read:,} events matched ({rate:.1%})"
        by_rule = ", ".join(f"{n:,} by {_RULES[rule]}" for rule, n in result.matched.items())
        if by_rule:
            matched += f": {by_rule}"
        lines.append(matched)
    if result.n_newly_matched:
        lines.append(f"{result.n_newly_matched:,} events of earlier imports matched")
    updated = output.count_note(result.n_updated, "updated")
    unmatched = ""
    if result.n_kept:
        record["unmatched_list"] = str(folder.unmatched)
        unmatched = f", {result.n_kept:,} kept without a track (see {record['unmatched_list']})"
    lines.append(
        f"{result.n_new:,} events new{updated}{unmatched}"
        f"{output.skipped_note(result.n_skipped, folder)}; "
        f"{result.n_total:,} in {folder.interactions}"
    )
    output.print_outcome(as_json, record, lines)


def import_dataset(
    name: Annotated[str | None, Argument(help="A name that --list prints.")] = None,
    source: Annotated[
        Path | None,
        Option("--from", help="The folder with the set's own files. Required.", show_default=False),
    ] = None,
    library: options.LibraryPath = options.HERE,
    show_list: Annotated[
        bool, Option("--list", help="Print the sets, their terms and where to get them.")
    ] = False,
    as_json: options.Json = False,
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
    opened = options.open_library(library)
    result = opened.import_dataset(name, source)
    missing = f"; missing: {output.shorten_names(result.missing)}" if result.missing else ""
    line = (
        f"{result.n_tracks_new:,} tracks new, {result.n_tracks_updated:,} updated, "
        f"{result.n_events_new:,} events new{output.skipped_note(result.n_skipped, opened.folder)}"
        f"{missing}; {result.n_tracks:,} tracks in {opened.folder.tracks}"
    )
    output.print_outcome(as_json, asdict(result), [line])


def _print_sets(as_json: bool) -> None:
    from ponticello.datasets.registry import SETS

    records = []
    rows = [("name", "licence", "how to get it")]
    for dataset in SETS.values():
        records.append({field: getattr(dataset, field) for field in _SET_FIELDS})
        rows.append((dataset.name, dataset.licence, dataset.how_to_get))
    name_width = max(len(name) for name, _, _ in rows)
    licence_width = max(len(licence) for _, licence, _ in rows)
    lines = []
    for name, licence, how_to_get in rows:
        lines.append(f"{name:<{name_width}}  {licence:<{licence_width}}  {how_to_get}")
    output.print_outcome(as_json, records, lines)
