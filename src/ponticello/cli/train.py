"""train semantic, train preference: the two stages, and what there is to train them on."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Literal

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
    from ponticello.storage.layout import LibraryPaths
    from ponticello.train.estimate import Train
    from ponticello.train.readiness import DataStats
    from ponticello.train.runs import TrainedRun

SeedsOption = Annotated[
    int, typer.Option(min=1, help="Trains NAME, NAME-2, ..., each with the next seed.")
]
DryRunOption = Annotated[
    bool,
    typer.Option(
        "--dry-run", help="Take a few steps and estimate time, memory and disk; nothing is written."
    ),
]
DownloadOption = Annotated[
    bool, typer.Option("--allow-download", help="Fetch the text encoder if it is not here.")
]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
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
    """Stage one: audio meets its text. An interrupted run goes on where it stopped.

    \b
    Example:
    ponticello train semantic -L my-library --set semantic.epochs=40

    \b
    Several processes:
    torchrun --nproc-per-node 2 -m ponticello train semantic -L my-library
    """
    from ponticello.evaluate.retrieval import retrieval_figures
    from ponticello.train.semantic import train_semantic

    folder = open_folder(library, settings)
    if dry_run:
        _estimate(
            folder,
            lambda stand_in, callbacks: train_semantic(
                stand_in,
                name,
                retrieval_figures,
                allow_download=allow_download,
                callbacks=callbacks,
            ),
            None,
            seeds,
            as_json,
        )
        return
    supply = _say_supply(folder, [seed_run(name, number) for number in range(1, seeds + 1)])
    runs = [
        train_semantic(
            with_seed(folder, "semantic", number),
            seed_run(name, number),
            retrieval_figures,
            allow_download=allow_download,
        )
        for number in range(1, seeds + 1)
    ]
    _print(runs, supply, as_json)


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
    """Stage two: pairs bend the space toward taste. Starts from stage one with its heads.

    \b
    Example:
    ponticello train preference -L my-library --from semantic

    \b
    Five seeds, each from the stage one of the same seed:
    ponticello train preference -L my-library --seeds 5
    """
    from ponticello.evaluate.retrieval import retrieval_figures
    from ponticello.evaluate.validation import score_on_validation
    from ponticello.train.preference import train_preference

    folder = open_folder(library, settings)
    if dry_run:
        _estimate(
            folder,
            lambda stand_in, callbacks: train_preference(
                stand_in,
                name,
                start,
                retrieval_figures,
                scorer=score_on_validation(stand_in),
                callbacks=callbacks,
            ),
            start,
            seeds,
            as_json,
        )
        return
    supply = _say_supply(folder, [seed_run(name, number) for number in range(1, seeds + 1)])
    judge = score_on_validation(folder)
    runs = [
        train_preference(
            with_seed(folder, "preference", number),
            seed_run(name, number),
            seed_run(start, number),
            retrieval_figures,
            scorer=judge,
        )
        for number in range(1, seeds + 1)
    ]
    _print(runs, supply, as_json)


def seed_run(name: str, number: int) -> str:
    """Returns the run of the `number`-th seed, from 1: `semantic`, `semantic-2`, ..."""
    return name if number == 1 else f"{name}-{number}"


def with_seed(
    folder: "LibraryPaths", stage: Literal["semantic", "preference"], number: int
) -> "LibraryPaths":
    """Returns `folder` with the stage's configured seed plus `number` - 1."""
    settings = getattr(folder.config, stage)
    seeded = settings.model_copy(update={"seed": settings.seed + number - 1})
    return replace(folder, config=folder.config.model_copy(update={stage: seeded}))


def _estimate(
    folder: "LibraryPaths", train: "Train", start: str | None, seeds: int, as_json: bool
) -> None:
    """Prints what one run would take, and how many of them there are."""
    from ponticello.train.estimate import estimate_training

    found = estimate_training(folder, train, start)
    if as_json:
        print_json(asdict(found) | {"n_runs": seeds})
        return
    for line in found.lines():
        typer.echo(line)
    typer.echo(f"{seeds} such runs; nothing was written" if seeds > 1 else "nothing was written")


def _say_supply(folder: "LibraryPaths", names: Sequence[str]) -> "DataStats":
    """What the library has to train on; the first process says it on stderr unless all runs `names`
    are finished.
    """
    from ponticello.train.distributed import launch_info
    from ponticello.train.readiness import count_data, describe_readiness
    from ponticello.train.runs import is_finished

    supply = count_data(folder)
    if launch_info()[0] == 0 and not all(is_finished(folder.run(name)) for name in names):
        for line in (supply.line(), *describe_readiness(supply)):
            typer.echo(line, err=True)
    return supply


def _print(runs: "list[TrainedRun]", supply: "DataStats", as_json: bool) -> None:
    from ponticello.train.distributed import rank
    from ponticello.train.readiness import describe_readiness

    if rank() != 0:
        return
    if as_json:
        records = [
            {
                "run": run.folder.name,
                "stage": run.stage,
                "n_rows": run.n_rows,
                "n_steps": run.n_steps,
                "best": run.best,
                "selection": run.selection,
                "supply": {**asdict(supply), "supports": describe_readiness(supply)},
            }
            for run in runs
        ]
        print_json(records if len(records) > 1 else records[0])
        return
    for run in runs:
        what = "tracks" if run.stage == "semantic" else "pairs"
        left_out = f" ({run.n_left_out:,} left out: no audio or no text)" if run.n_left_out else ""
        shown = [name for name in run.best if "recall" in name or name == "mrr"]
        figures = ", ".join(f"{name} {run.best[name]:.3f}" for name in shown)
        typer.echo(
            f"stage {run.stage}: {run.n_steps:,} steps on {run.n_rows:,} {what}{left_out}; "
            f"best validation {figures}; in {run.folder}"
        )
        if run.selection:
            typer.echo(run.selection["sentence"])
