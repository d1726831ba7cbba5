"""evaluate: semantic and preference quality in one report."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Option

from ponticello.cli import options, output

if TYPE_CHECKING:
    from ponticello.evaluate.results import Evaluation


def evaluate(
    library: options.LibraryPath = options.HERE,
    semantic: Annotated[str, Option(help="The stage-one run, if it is finished.")] = "semantic",
    preference: Annotated[str, Option(help="The stage-two run, if it is finished.")] = "preference",
    label: Annotated[
        list[str] | None,
        Option(
            help="A column of labels to read off the vectors; may be repeated.",
            show_default="genres, tags, machine_tags",
        ),
    ] = None,
    vectors: Annotated[
        list[str] | None,
        Option(
            help="Vectors of another encoder, NAME=FILE or FILE (.npz, .parquet); may be repeated."
        ),
    ] = None,
    seeds: Annotated[
        int, Option(min=1, help="How many seeds were trained, see: train --seeds.")
    ] = 1,
    settings: options.Settings = None,
    as_json: options.Json = False,
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

    evaluation = options.open_library(library, settings).evaluate(
        semantic,
        preference,
        labels=label or None,
        vectors=_named_files(vectors or ()),
        n_seeds=seeds,
        command=shlex.join(["ponticello", *sys.argv[1:]]),
        on_progress=print_step,
    )
    output.print_outcome(as_json, as_record(evaluation.summary), [evaluation_text(evaluation)])


def _named_files(vectors: Sequence[str]) -> dict[str, Path]:
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


def evaluation_text(evaluation: "Evaluation") -> str:
    """Returns the main claim and tables of an evaluation, and the path of its report."""
    from ponticello.evaluate.report.markdown import terminal_summary

    summary = evaluation.summary
    return (
        f"{terminal_summary(summary)}\n\n{len(summary.figures):,} figures and "
        f"{len(summary.claims):,} claims, with the data, in {evaluation.page}"
    )
