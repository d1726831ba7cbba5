"""evaluate: meaning and taste in one report."""

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
    open_folder,
    print_json,
)

if TYPE_CHECKING:
    from ponticello.evaluate.results import Evaluation, Summary
    from ponticello.evaluate.run import MethodsToCompare
    from ponticello.storage.layout import LibraryPaths


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
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
            help="A column of labels to read off the vectors; several may be given.",
            show_default="all there are",
        ),
    ] = None,
    vectors: Annotated[
        list[str] | None,
        typer.Option(
            help="Vectors of another encoder, NAME=FILE or FILE (.npz, .parquet); several may be given."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(min=1, help="How many seeds were trained, see: train --seeds.")
    ] = 1,
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measures meaning and taste. Both stages beside the baselines, on held-out tracks and days, as
    a report.

    \b
    Example:
    ponticello evaluate -L my-library --label genres

    \b
    Any encoder's vectors in the same table:
    ponticello evaluate -L my-library --vectors mert=mert.npz
    """
    from ponticello.evaluate.report.data import as_record
    from ponticello.evaluate.report.write import write_report

    folder = open_folder(library, settings)
    by_seed = compare(folder, semantic, preference, label, vectors or (), seeds)
    summary, evaluations = measure(folder, by_seed, shlex.join(["ponticello", *sys.argv[1:]]))
    page = write_report(folder.report, summary, evaluations)[0]
    if as_json:
        print_json(as_record(summary))
    else:
        print_summary(summary, page)


def compare(
    folder: "LibraryPaths",
    semantic: str,
    preference: str,
    labels: Sequence[str] | None,
    vectors: Sequence[str],
    seeds: int,
) -> "list[MethodsToCompare]":
    """What is measured with each seed; LibraryError names the run that one seed lacks."""
    from ponticello.errors import LibraryError
    from ponticello.evaluate.report.tables import display_name
    from ponticello.evaluate.results import STAGE_ONE, STAGE_TWO
    from ponticello.evaluate.run import MethodsToCompare
    from ponticello.train.runs import is_finished, seed_run

    named = {STAGE_ONE: semantic, STAGE_TWO: preference}
    there = {method: run for method, run in named.items() if is_finished(folder.run(run))}
    for method in [method for method in named if method not in there]:
        print(
            f"{display_name(method)} is left out: run {named[method]!r} is not finished",
            file=sys.stderr,
        )
    by_seed = []
    for number in range(1, seeds + 1):
        runs = {method: seed_run(run, number) for method, run in there.items()}
        for method, run in runs.items():
            if not is_finished(folder.run(run)):
                stage = "semantic" if method == STAGE_ONE else "preference"
                raise LibraryError(
                    f"run {run!r} is not finished; run: ponticello train {stage} --seeds {seeds}"
                )
        by_seed.append(MethodsToCompare(runs, _named_files(vectors), labels or None))
    return by_seed


def _named_files(vectors: Sequence[str]) -> dict[str, Path]:
    """`["mert=a.npz", "b.parquet"]` as {"mert": a.npz, "b": b.parquet}; ConfigError for two of one
    name.
    """
    from ponticello.errors import ConfigError

    files: dict[str, Path] = {}
    for given in vectors:
        name, equals, path = given.partition("=")
        name, file = (name, Path(path)) if equals else (Path(given).stem, Path(given))
        if name in files:
            raise ConfigError(
                f"--vectors: {files[name]} and {file} are both named {name!r}; name one of them: NAME=FILE"
            )
        files[name] = file
    return files


def measure(
    folder: "LibraryPaths", by_seed: "Sequence[MethodsToCompare]", command: str
) -> "tuple[Summary, list[Evaluation]]":
    """Measures, saying on stderr what is being done."""
    from ponticello.evaluate.run import evaluate_seeds

    return evaluate_seeds(
        folder, by_seed, command, lambda step: print(f"measuring {step}", file=sys.stderr)
    )


def print_summary(summary: "Summary", page: Path) -> None:
    """What a report says in short, and where it is."""
    from ponticello.evaluate.report.markdown import terminal_summary

    typer.echo(terminal_summary(summary))
    typer.echo(
        f"\n{len(summary.figures):,} figures and {len(summary.claims):,} claims, with the data, in {page}"
    )
