"""What commands share: their common options, bars on stderr, results on stdout."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ponticello.search.ranking import Result
    from ponticello.storage.layout import LibraryPaths

LibraryOption = Annotated[
    Path,
    typer.Option(
        "--library",
        "-L",
        envvar="PONTICELLO_LIBRARY",
        help="The library folder.",
        show_default="here",
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
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="i/n, from 1/n to n/n: do this part only, beside the other jobs; then run with --merge-shards n.",
    ),
]
JoinOption = Annotated[
    int | None,
    typer.Option(
        "--merge-shards",
        min=1,
        help="After n jobs with --shard i/n: take in what they did; an error if one lacks.",
    ),
]
EngineOption = Annotated[
    str,
    typer.Option(
        "--engine", help="here; or ray, on this machine or the cluster RAY_ADDRESS names."
    ),
]
HERE = Path()


def open_folder(library: Path, settings: Sequence[str] | None = None) -> "LibraryPaths":
    """The library's folder with the settings of the command line on top."""
    from ponticello.storage.layout import open_library

    return open_library(library, settings or ())


def read_columns(columns: Sequence[str] | None) -> dict[str, str]:
    """`["track_id=id"]` as {"track_id": "id"}; ConfigError for anything else."""
    from ponticello.errors import ConfigError

    renamed = {}
    for column in columns or ():
        ours, _, theirs = column.partition("=")
        if not ours or not theirs or "=" in theirs:
            raise ConfigError(
                f"--columns {column!r} must look like ours=theirs, such as track_id=id"
            )
        renamed[ours] = theirs
    return renamed


def read_shard(shard: str | None, join: int | None, engine: str) -> tuple[int, int] | None:
    """`"2/4"` as (2, 4); ConfigError for anything but i/n with 1 <= i <= n, or beside --merge-shards or
    another engine.
    """
    from ponticello.errors import ConfigError

    if (shard is not None) + (join is not None) + (engine != "here") > 1:
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
def progress(title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr with rate and time left; gives the function to call with (done, total)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(title),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(
            title, total=None, rate="", visible=False
        )  # shown once there is something to do

        def report(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            bar.update(
                task,
                completed=done,
                total=total,
                visible=True,
                rate=f"{speed:.0f} {unit}/s" if speed else "",
            )

        yield report


def print_json(value: Any) -> None:
    """`value` as JSON on stdout; characters that could steer a terminal are escaped."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    typer.echo(
        "".join(
            each if each.isprintable() or each == "\n" else json.dumps(each)[1:-1] for each in text
        )
    )


def print_results(results: "Sequence[Result]", as_json: bool) -> None:
    """A ranked list: rank, the score and its two parts, title, artist, id."""
    if as_json:
        print_json([asdict(result) for result in results])
        return
    if not results:
        typer.echo("nothing found")
        return
    typer.echo(f"{'':>3}  {'score':>6} = {'sem':>6} + {'pref':>6}   title, artist [track id]")
    for result in results:
        name = strip_control_chars(result.title or "(untitled)") + (
            f", {strip_control_chars(result.artist)}" if result.artist else ""
        )
        typer.echo(
            f"{result.rank:>3}  {result.score:>6.2f} = {result.semantic:>6.2f} + {result.preference:>6.2f}   "
            f"{name} [{strip_control_chars(result.track_id)}]"
        )


def strip_control_chars(text: str) -> str:
    """`text` without control characters, which a file's tags could use to rewrite a terminal."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def skipped_note(n_skipped: int, folder: "LibraryPaths") -> str:
    """`, 3 skipped (see .../skipped.csv)`, or that nothing was."""
    return f", {n_skipped:,} skipped (see {folder.skipped})" if n_skipped else ", none skipped"
