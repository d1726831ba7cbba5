"""Output that commands share: bars on stderr, results on stdout."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from ponticello.search.results import Result
    from ponticello.search.user_history import Listener
    from ponticello.storage.layout import LibraryPaths

SHOWN_NAMES = 5


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
    for character in set(text) - {"\n"}:
        if not character.isprintable():
            text = text.replace(character, json.dumps(character)[1:-1])
    typer.echo(text)


def print_outcome(as_json: bool, record: Any, lines: Sequence[str]) -> None:
    """Prints the record of a command as JSON, or its lines for people."""
    if as_json:
        print_json(record)
    else:
        typer.echo("\n".join(lines))


def print_scores(
    rows: "Sequence[Result | Listener]",
    names: Sequence[str],
    label: str,
    no_rows: str,
    as_json: bool,
) -> None:
    """Prints a ranked list: rank, score, and a name under the label.

    The two components of the scores are shown unless preference adds nothing to any of them.
    """
    has_preference = any(row.preference for row in rows)
    components = f" = {'sem':>6} + {'pref':>6}" if has_preference else ""
    lines = [f"{'':>3}  {'score':>6}{components}   {label}"]
    for row, name in zip(rows, names, strict=True):
        if has_preference:
            components = _format_components(row.score, row.semantic)
        score = round(row.score, 2) + 0.0
        lines.append(f"{row.rank:>3}  {score:>6.2f}{components}   {strip_control_chars(name)}")
    print_outcome(as_json, [asdict(row) for row in rows], lines if rows else [no_rows])


def _format_components(score: float, semantic: float) -> str:
    """Returns ` = 1.25 + -0.31`, which adds up to the rounded score: preference is what is left."""
    shown_semantic = round(semantic, 2) + 0.0  # no -0.00
    shown_preference = round(round(score, 2) - shown_semantic, 2) + 0.0
    return f" = {shown_semantic:>6.2f} + {shown_preference:>6.2f}"


def print_results(results: "Sequence[Result]", as_json: bool) -> None:
    """Prints ranked tracks by title, artist and id."""
    names = []
    for result in results:
        artist = f", {result.artist}" if result.artist else ""
        names.append(f"{result.title or '(untitled)'}{artist} [{result.track_id}]")
    print_scores(results, names, "title, artist [track id]", "no tracks found", as_json)


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


def count_note(n: int, action: str) -> str:
    """Returns `, 3 moved`, or "" for none."""
    return f", {n:,} {action}" if n else ""


def skipped_note(n_skipped: int, folder: "LibraryPaths") -> str:
    """Returns `, 3 skipped (see .../skipped.csv)`, or `, none skipped`."""
    return f", {n_skipped:,} skipped (see {folder.skipped})" if n_skipped else ", none skipped"


def shard_note(command: str, job: tuple[int, int], done: str, library: Path) -> str:
    """Returns what one job of several did, and the command that follows them."""
    number, n = job
    return (
        f"shard {number} of {n}: {done}; when all shards have ended, run: "
        f"ponticello {command} --merge-shards {n} -L {library}"
    )
