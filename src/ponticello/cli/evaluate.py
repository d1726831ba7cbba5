"""evaluate: semantic and preference quality in one report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    JsonOption,
    LibraryOption,
    SetOption,
    open_library,
    print_json,
)

if TYPE_CHECKING:
    from ponticello.evaluate.results import Evaluation


def register(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("evaluate")(evaluate)


def evaluate(
    library: LibraryOption = HERE,
    semantic: Annotated[
        str, typer.Option(help="The stage-one run, if it is finished.")
    ] = "semantic",
    preference: Annotated[
        str, typer.Option(help="The stage-two run, if it is finished.")
    ] = "preference",
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="A column of labels to read off the vectors; may be repeated.",
            show_default="genres, tags, machine_tags",
        ),
    ] = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            help="Vectors of another encoder, NAME=FILE or FILE (.npz, .parquet); may be repeated."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="How many seeds were trained, see: train --seeds.")
    ] = 1,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compares both stages with the baselines, on held-out tracks and days, in a report.

    \b
    Example:
    ponticello evaluate -L my-library --label genres

    \b
    Any encoder's vectors in the same table:
    ponticello evaluate -L my-library --vectors mert=mert.npz
    """
    from ponticello.evaluate.report.data import as_record

    evaluation = open_library(library, settings).evaluate(
        semantic,
        preference,
        labels=label or None,
        vectors=_named_files(vectors or ()),
        n_seeds=seeds,
        command=shlex.join(["ponticello", *sys.argv[1:]]),
        on_progress=print_step,
    )
    if as_json:
        print_json(as_record(evaluation.summary))
    else:
        print_evaluation(evaluation)


def _named_files(vectors: Sequence[str]) -> dict[str, Path]:
    """Returns `["mert=a.npz", "b.parquet"]` as {"mert": a.npz, "b": b.parquet}."""
    from ponticello.errors import ConfigError

    files: dict[str, Path] = {}
    for option in vectors:
        name, equals, file = option.partition("=")
        path = Path(file if equals else option)
        if not equals:
            name = path.stem
        if name in files:
            raise ConfigError(
                f"--vectors: {files[name]} and {path} are both named {name!r}; "
                "name one of them: NAME=FILE"
            )
        files[name] = path
    return files


def print_step(step: str, *_: int) -> None:
    """Prints the step of an evaluation to standard error."""
    print(step, file=sys.stderr)


def print_evaluation(evaluation: "Evaluation") -> None:
    """Prints the main claim and tables of an evaluation, and the path of its report."""
    from ponticello.evaluate.report.markdown import terminal_summary

    summary = evaluation.summary
    typer.echo(terminal_summary(summary))
    typer.echo(
        f"\n{len(summary.figures):,} figures and {len(summary.claims):,} claims, "
        f"with the data, in {evaluation.page}"
    )
