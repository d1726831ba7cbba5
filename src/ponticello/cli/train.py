"""train semantic, train preference: the two stages."""

from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.console import HERE, JsonOption, LibraryOption, SetOption, open_folder, print_json

if TYPE_CHECKING:
    from ponticello.train.run import TrainedRun

DownloadOption = Annotated[bool, typer.Option("--allow-download", help="Fetch the text encoder if it is not here.")]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    group = typer.Typer(help="Trains one of the two stages.", no_args_is_help=True, rich_markup_mode=None)
    group.command("semantic")(semantic)
    group.command("preference")(preference)
    app.add_typer(group, name="train")


def semantic(
    library: LibraryOption = HERE,
    name: Annotated[str, typer.Option(help="The run's name.")] = "semantic",
    settings: SetOption = None,
    allow_download: DownloadOption = False,
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
    from ponticello.evaluate.semantic import retrieval_figures
    from ponticello.train.run import train_semantic

    folder = open_folder(library, settings)
    _print(train_semantic(folder, name, retrieval_figures, allow_download=allow_download), as_json)


def preference(
    library: LibraryOption = HERE,
    name: Annotated[str, typer.Option(help="The run's name.")] = "preference",
    start: Annotated[str, typer.Option("--from", help="The stage-one run to start from.")] = "semantic",
    settings: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Stage two: pairs bend the space toward taste. Starts from stage one with its heads.

    \b
    Example:
    ponticello train preference -L my-library --from semantic
    """
    from ponticello.evaluate.semantic import retrieval_figures
    from ponticello.train.run import train_preference

    folder = open_folder(library, settings)
    _print(train_preference(folder, name, start, retrieval_figures), as_json)


def _print(run: "TrainedRun", as_json: bool) -> None:
    from ponticello.train.distributed import rank

    if rank() != 0:
        return
    if as_json:
        print_json(
            {"run": run.folder.name, "stage": run.stage, "n_rows": run.n_rows, "n_steps": run.n_steps, "best": run.best}
        )
        return
    what = "tracks" if run.stage == "semantic" else "pairs"
    left_out = f" ({run.n_left_out:,} left out: no audio or no text)" if run.n_left_out else ""
    figures = ", ".join(f"{name} {value:.3f}" for name, value in run.best.items() if "recall" in name or name == "mrr")
    typer.echo(
        f"stage {run.stage}: {run.n_steps:,} steps on {run.n_rows:,} {what}{left_out}; "
        f"best validation {figures}; in {run.folder}"
    )
