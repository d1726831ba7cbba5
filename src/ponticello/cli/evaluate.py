"""evaluate: meaning and taste in one table."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, open_folder, print_json

if TYPE_CHECKING:
    from ponticello.evaluate.figures import Evaluation
    from ponticello.library import Folder


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("evaluate")(evaluate)


def evaluate(
    library: LibraryOption = HERE,
    semantic: Annotated[str, typer.Option(help="The stage-one run.")] = "semantic",
    preference: Annotated[str, typer.Option(help="The stage-two run, if it is finished.")] = "preference",
    label: Annotated[str | None, typer.Option(help="The column a linear probe reads; else no probe.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measures meaning and taste. Both stages beside random, popularity and mel statistics, on held-out tracks.

    \b
    Example:
    ponticello evaluate -L my-library --label genres
    """
    from ponticello.evaluate.report import as_markdown, as_record, write_report

    folder = open_folder(library)
    evaluation = evaluate_folder(folder, semantic, preference, label)
    paths = write_report(folder.report, evaluation)
    if as_json:
        print_json(as_record(evaluation))
        return
    typer.echo(as_markdown(evaluation))
    typer.echo(f"{len(evaluation.figures):,} figures in {paths[0].parent}")


def evaluate_folder(folder: "Folder", semantic: str, preference: str, label: str | None) -> "Evaluation":
    """Evaluates the runs that are finished, saying on stderr what is being done."""
    from ponticello.evaluate.figures import STAGE_ONE, STAGE_TWO
    from ponticello.evaluate.joint import evaluate_library
    from ponticello.train.run import is_finished

    named = {STAGE_ONE: semantic, STAGE_TWO: preference}
    runs = {method: run for method, run in named.items() if is_finished(folder.run(run))}
    for method in [method for method in named if method not in runs]:
        print(f"{method} is left out: run {named[method]!r} is not finished", file=sys.stderr)
    return evaluate_library(folder, runs, label, lambda step: print(f"measuring {step}", file=sys.stderr))
