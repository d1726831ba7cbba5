"""train semantic, train preference: the two stages of training."""

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from ponticello.cli import options, output

if TYPE_CHECKING:
    from ponticello.library import Library
    from ponticello.train.estimate import TrainingEstimate
    from ponticello.train.runs import TrainedRun

_JSON_FIELDS = ("stage", "n_rows", "n_steps", "best", "selection")
SeedsOption = Annotated[
    int, Option(min=1, help="Trains NAME, NAME-2, ..., each with the next seed.")
]
DryRunOption = Annotated[
    bool,
    Option(
        "--dry-run",
        help="Take a few steps and estimate time, memory and disk; the library is not changed.",
    ),
]
DownloadOption = Annotated[
    bool, Option("--allow-download", help="Fetch the text encoder if it is not installed.")
]


train = typer.Typer(
    help="Trains one of the two stages.", no_args_is_help=True, rich_markup_mode=None
)


@train.command()
def semantic(
    library: options.LibraryPath = options.HERE,
    name: Annotated[str, Option(help="The run's name.")] = "semantic",
    seeds: SeedsOption = 1,
    settings: options.Settings = None,
    allow_download: DownloadOption = False,
    dry_run: DryRunOption = False,
    as_json: options.Json = False,
) -> None:
    """Trains stage one: audio with its text. An interrupted run resumes.

    \b
    Example:
    ponticello train semantic -L my-library --set semantic.epochs=40

    \b
    Several processes:
    torchrun --nproc-per-node 2 -m ponticello train semantic -L my-library
    """
    opened = options.open_library(library, settings)
    if dry_run:
        estimate = opened.estimate_training("semantic", name, allow_download=allow_download)
        _print_estimate(estimate, seeds, as_json)
        return
    train_seed = partial(opened.train_semantic, name, allow_download=allow_download)
    _train_seeds(opened, name, seeds, train_seed, as_json)


@train.command()
def preference(
    library: options.LibraryPath = options.HERE,
    name: Annotated[str, Option(help="The run's name.")] = "preference",
    start: Annotated[str, Option("--from", help="The stage-one run to start from.")] = "semantic",
    seeds: SeedsOption = 1,
    settings: options.Settings = None,
    dry_run: DryRunOption = False,
    as_json: options.Json = False,
) -> None:
    """Trains stage two: mined pairs adapt the vectors to preference. Starts from a stage-one run.

    \b
    Example:
    ponticello train preference -L my-library --from semantic

    \b
    Five seeds, each from the stage one of the same seed:
    ponticello train preference -L my-library --seeds 5
    """
    opened = options.open_library(library, settings)
    if dry_run:
        _print_estimate(opened.estimate_training("preference", name, start), seeds, as_json)
        return
    _train_seeds(opened, name, seeds, partial(opened.train_preference, name, start), as_json)


def _train_seeds(
    library: "Library",
    name: str,
    seeds: int,
    train_seed: "Callable[..., TrainedRun]",
    as_json: bool,
) -> None:
    """Trains each seed; the first process prints the data before, and the results."""
    from ponticello.train.distributed import launch_info, rank
    from ponticello.train.readiness import describe_readiness
    from ponticello.train.runs import is_finished, seed_run

    data = library.training_data()
    readiness = describe_readiness(data)
    folders = [library.folder.run(seed_run(name, number)) for number in range(1, seeds + 1)]
    if launch_info()[0] == 0 and not all(map(is_finished, folders)):
        typer.echo("\n".join([data.line(), *readiness]), err=True)
    runs = []
    for number in range(1, seeds + 1):
        with output.progress("steps") as report:
            runs.append(train_seed(seed_number=number, on_progress=report))
    if rank() != 0:
        return
    records = []
    lines: list[str] = []
    for run in runs:
        record = {field: getattr(run, field) for field in _JSON_FIELDS}
        supply = {**asdict(data), "supports": readiness}
        records.append({"run": run.folder.name, **record, "supply": supply})
        lines += _run_lines(run)
    output.print_outcome(as_json, records if seeds > 1 else records[0], lines)


def _run_lines(run: "TrainedRun") -> list[str]:
    from ponticello.train.runs import is_served, why_one_space

    rows = "tracks" if run.stage == "semantic" else "pairs"
    left_out = f" ({run.n_left_out:,} left out: no audio or no text)" if run.n_left_out else ""
    names = [name for name in run.best if "recall" in name or name == "mrr"]
    figures = ", ".join(f"{name} {run.best[name]:.3f}" for name in names)
    lines = [
        f"stage {run.stage}: {run.n_steps:,} steps on {run.n_rows:,} {rows}{left_out}; "
        f"best validation {figures}; in {run.folder}"
    ]
    if not run.best:  # a preference space, whose figures are in the selection
        lines = [f"stage {run.stage}: fitted to {run.n_rows:,} likes; in {run.folder}"]
    if run.selection:
        lines.append(run.selection["sentence"])
    if not is_served(run.folder):
        lines.append(why_one_space(run.folder))
    return lines


def _print_estimate(estimate: "TrainingEstimate", seeds: int, as_json: bool) -> None:
    runs = f"{seeds} such runs; " if seeds > 1 else ""
    lines = [*estimate.lines(), f"{runs}the library was not changed"]
    output.print_outcome(as_json, {**asdict(estimate), "n_runs": seeds}, lines)
