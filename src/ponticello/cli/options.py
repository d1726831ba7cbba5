"""Options and output that commands share: bars on stderr, results on stdout."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ponticello.library import Library
    from ponticello.search.ranking import Result
    from ponticello.storage.layout import LibraryPaths

LibraryOption = Annotated[
    Path,
    typer.Option(
        "--library",
        "-L",
        envvar="PONTICELLO_LIBRARY",
        help="The library folder.",
        show_default="this folder",
    ),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting on top of the library's own: section.key=value."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ColumnsOption = Annotated[
    list[str] | None,
    typer.Option("--columns", help="Our column = the table's column, such as track_id=id."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(min=1, help="Processes that read files.", show_default="one per core"),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="i/n, from 1/n to n/n: compute this shard only, beside other jobs; "
        "--merge-shards n follows.",
    ),
]
MergeShardsOption = Annotated[
    int | None,
    typer.Option(
        "--merge-shards",
        min=1,
        help="Merge what n jobs with --shard i/n computed; an error if one is missing.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine", help="here; or ray, on this machine or the cluster that RAY_ADDRESS names."
    ),
]
HERE = Path()
SHOWN_NAMES = 5


def open_library(library: Path, settings: Sequence[str] | None = None) -> "Library":
    """Opens the library with the settings of the command line on top."""
    from ponticello.library import Library

    return Library.open(library, settings or ())


def read_columns(columns: Sequence[str] | None) -> dict[str, str]:
    """Returns `["track_id=id"]` as {"track_id": "id"}; ConfigError for anything else."""
    from ponticello.errors import ConfigError

    renamed = {}
    for column in columns or ():
        name, _, table_name = column.partition("=")
        if not name or not table_name or "=" in table_name:
            raise ConfigError(
                f"--columns {column!r} must look like ours=theirs, such as track_id=id"
            )
        renamed[name] = table_name
    return renamed


def read_shard(shard: str | None, n_shards: int | None, engine: str) -> tuple[int, int] | None:
    """Returns `"2/4"` as (2, 4), None for None.

    ConfigError for anything but i/n with 1 <= i <= n, or beside --merge-shards or another engine.
    """
    from ponticello.errors import ConfigError

    if (shard is not None) + (n_shards is not None) + (engine != "here") > 1:
        raise ConfigError(
            "--shard, --merge-shards and --engine exclude each other: give one of them"
        )
    if shard is None:
        return None
    number, _, n = shard.partition("/")
    if not (number.isdecimal() and n.isdecimal() and 1 <= int(number) <= int(n)):
        raise ConfigError(f"--shard {shard!r} must be i/n with i from 1 to n, such as 2/4")
    return int(number), int(n)


@contextmanager
def progress(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """Yields an `on_progress` that shows a bar on stderr, with the rate in `unit` per second."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=10),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=Console(stderr=True))

    def report(step: str, n_done: int, n_total: int) -> None:
        if not bar.tasks or bar.tasks[-1].total != n_total or n_done < bar.tasks[-1].completed:
            bar.add_task(step, total=n_total, rate="")  # the next step
            bar.start()
        task = bar.tasks[-1]
        rate = f"{task.speed:.3g} {unit}/s" if task.speed else ""
        bar.update(task.id, description=step, completed=n_done, rate=rate)

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


def print_json(value: Any) -> None:
    """Prints `value` as JSON; characters that could control a terminal are escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    escaped = []
    for character in text:
        is_plain = character.isprintable() or character == "\n"
        escaped.append(character if is_plain else json.dumps(character)[1:-1])
    typer.echo("".join(escaped))


def print_results(results: "Sequence[Result]", as_json: bool) -> None:
    """Prints a ranked list: rank, score, its two components, title, artist and id."""
    if as_json:
        print_json([asdict(result) for result in results])
        return
    if not results:
        typer.echo("no tracks found")
        return
    typer.echo(f"{'':>3}  {'score':>6} = {'sem':>6} + {'pref':>6}   title, artist [track id]")
    for result in results:
        name = result.title or "(untitled)"
        if result.artist:
            name = f"{name}, {result.artist}"
        typer.echo(
            f"{result.rank:>3}  {result.score:>6.2f} = {result.semantic:>6.2f} + "
            f"{result.preference:>6.2f}   {strip_control_chars(f'{name} [{result.track_id}]')}"
        )


def strip_control_chars(text: str) -> str:
    """Replaces control characters, with which a file's tags could rewrite a terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def shorten_names(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are."""
    n_more = len(names) - SHOWN_NAMES
    more = f" and {n_more:,} more" if n_more > 0 else ""
    return strip_control_chars(", ".join(names[:SHOWN_NAMES])) + more


def skipped_note(n_skipped: int, folder: "LibraryPaths") -> str:
    """Returns `, 3 skipped (see .../skipped.csv)`, or `, none skipped`."""
    return f", {n_skipped:,} skipped (see {folder.skipped})" if n_skipped else ", none skipped"
