"""train semantic, train preference: the two stages of training."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    JsonOption,
    LibraryOption,
    SetOption,
    open_library,
    print_json,
    progress,
)

if TYPE_CHECKING:
    from ponticello.library import Library
    from ponticello.train.estimate import TrainingEstimate
    from ponticello.train.readiness import DataStats
    from ponticello.train.runs import TrainedRun

SeedsOption = Annotated[
    int, typer.Option(min=1, help="Trains NAME, NAME-2, ..., each with the next seed.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run",
        help="Take a few steps and estimate time, memory and disk; the library is not changed.",
    ),
]
DownloadOption = Annotated[
    bool,
    typer.Option("--allow-download", help="Fetch the text encoder if it is not installed."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    group = typer.Typer(
        help="Trains one of the two stages.", no_args_is_help=True, rich_markup_mode=None
    )
    group.command("semantic")(semantic)
    group.command("preference")(preference)
    app.add_typer(group, name="train")


def semantic(
    library: LibraryOption = HERE,
    name: Annotated[str, typer.Option(help="The run's name.")] = "semantic",
    seeds: SeedsOption = 1,
    settings: SetOption = None,
    allow_download: DownloadOption = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Trains stage one: audio with its text. An interrupted run resumes.

    \b
    Example:
    ponticello train semantic -L my-library --set semantic.epochs=40

    \b
    Several processes:
    torchrun --nproc-per-node 2 -m ponticello train semantic -L my-library
    """
    opened = open_library(library, settings)
    if dry_run:
        estimate = opened.estimate_training("semantic", name, allow_download=allow_download)
        _print_estimate(estimate, seeds, as_json)
        return
    data = _report_data(opened, name, seeds)
    runs = []
    for number in range(1, seeds + 1):
        with progress("steps") as report:
            runs.append(
                opened.train_semantic(
                    name, seed_number=number, allow_download=allow_download, on_progress=report
                )
            )
    _print_runs(runs, data, as_json)


def preference(
    library: LibraryOption = HERE,
    name: Annotated[str, typer.Option(help="The run's name.")] = "preference",
    start: Annotated[
        str, typer.Option("--from", help="The stage-one run to start from.")
    ] = "semantic",
    seeds: SeedsOption = 1,
    settings: SetOption = None,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Trains stage two: mined pairs adapt the vectors to preference. Starts from a stage-one run.

    \b
    Example:
    ponticello train preference -L my-library --from semantic

    \b
    Five seeds, each from the stage one of the same seed:
    ponticello train preference -L my-library --seeds 5
    """
    opened = open_library(library, settings)
    if dry_run:
        _print_estimate(opened.estimate_training("preference", name, start), seeds, as_json)
        return
    data = _report_data(opened, name, seeds)
    runs = []
    for number in range(1, seeds + 1):
        with progress("steps") as report:
            runs.append(
                opened.train_preference(name, start, seed_number=number, on_progress=report)
            )
    _print_runs(runs, data, as_json)


def _report_data(library: "Library", name: str, seeds: int) -> "DataStats":
    """Counts the training data; the first process prints it on stderr unless all runs are done."""
    from ponticello.train.distributed import launch_info
    from ponticello.train.readiness import describe_readiness
    from ponticello.train.runs import is_finished, seed_run

    data = library.training_data()
    runs = [library.folder.run(seed_run(name, number)) for number in range(1, seeds + 1)]
    if launch_info()[0] == 0 and not all(is_finished(run) for run in runs):
        for line in (data.line(), *describe_readiness(data)):
            typer.echo(line, err=True)
    return data


def _print_estimate(estimate: "TrainingEstimate", seeds: int, as_json: bool) -> None:
    if as_json:
        print_json({**asdict(estimate), "n_runs": seeds})
        return
    for line in estimate.lines():
        typer.echo(line)
    runs = f"{seeds} such runs; " if seeds > 1 else ""
    typer.echo(f"{runs}the library was not changed")


def _print_runs(runs: "list[TrainedRun]", data: "DataStats", as_json: bool) -> None:
    from ponticello.train.distributed import rank
    from ponticello.train.readiness import describe_readiness

    if rank() != 0:
        return
    if not as_json:
        for run in runs:
            _print_run(run)
        return
    records = []
    for run in runs:
        records.append(
            {
                "run": run.folder.name,
                "stage": run.stage,
                "n_rows": run.n_rows,
                "n_steps": run.n_steps,
                "best": run.best,
                "selection": run.selection,
                "supply": {**asdict(data), "supports": describe_readiness(data)},
            }
        )
    print_json(records if len(records) > 1 else records[0])


def _print_run(run: "TrainedRun") -> None:
    rows = "tracks" if run.stage == "semantic" else "pairs"
    left_out = ""
    if run.n_left_out:
        left_out = f" ({run.n_left_out:,} left out: no audio or no text)"
    names = [name for name in run.best if "recall" in name or name == "mrr"]
    figures = ", ".join(f"{name} {run.best[name]:.3f}" for name in names)
    typer.echo(
        f"stage {run.stage}: {run.n_steps:,} steps on {run.n_rows:,} {rows}{left_out}; "
        f"best validation {figures}; in {run.folder}"
    )
    if run.selection:
        typer.echo(run.selection["sentence"])
