"""prepare, tag: computes what training reads from the files of a library."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Annotated

import typer

from ponticello.cli.options import (
    HERE,
    EngineOption,
    JoinOption,
    JsonOption,
    LibraryOption,
    ShardOption,
    open_folder,
    print_json,
    progress,
    read_shard,
    skipped_note,
)


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("prepare")(prepare)
    app.command("tag")(tag)


def prepare(
    library: LibraryOption = HERE,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that decode; else one a core.")
    ] = None,
    allow_download: Annotated[
        bool,
        typer.Option(
            "--allow-download",
            help="Fetch the audio encoder of front_end hf:NAME if it is not here.",
        ),
    ] = False,
    shard: ShardOption = None,
    join: JoinOption = None,
    engine: EngineOption = "here",
    as_json: JsonOption = False,
) -> None:
    """Turns every track into what training reads. A second run does only what is missing or
    changed.

    Log-mels, and what the front end of the settings makes of the sound. With front_end "features"
    the vectors that you have are taken over instead, and no track needs audio.

    \b
    Example:
    ponticello prepare -L my-library

    \b
    Four jobs at once, and when all have ended what brings their parts together:
    ponticello prepare -L my-library --shard 1/4
    ponticello prepare -L my-library --merge-shards 4
    """
    from ponticello.features.prepare import prepare_library
    from ponticello.pairs.mine import refresh_splits

    folder = open_folder(library)
    job = read_shard(shard, join, engine)
    with step_progress() as report:
        result = prepare_library(
            folder,
            workers=workers,
            allow_download=allow_download,
            shard=job,
            n_shards=join,
            engine=engine,
            on_progress=report,
        )
    if job is None:
        with folder.lock():
            refresh_splits(folder)
    n_skipped = len(result.skipped)
    if as_json:
        print_json(
            {
                "n_new": result.n_new,
                "n_kept": result.n_kept,
                "n_removed": result.n_removed,
                "n_skipped": n_skipped,
            }
        )
        return
    if job is not None:
        typer.echo(
            f"part {job[0]} of {job[1]}: {result.n_new:,} tracks prepared, {result.n_kept:,} were "
            f"already, {n_skipped:,} skipped; when all parts have ended, run: "
            f"ponticello prepare --merge-shards {job[1]}"
        )
        return
    removed = f", {result.n_removed:,} removed" if result.n_removed else ""
    typer.echo(
        f"{result.n_new:,} tracks prepared, {result.n_kept:,} were already{removed}"
        f"{skipped_note(n_skipped, folder)}; in {result.folder}"
    )


@contextmanager
def step_progress() -> Iterator[Callable[[str, int, int], None]]:
    """Shows a bar per step of a preparation; yields the function for `on_progress`."""
    reports: dict[str, Callable[[int, int], None]] = {}
    with ExitStack() as bars:

        def report(step: str, n_done: int, n_total: int) -> None:
            if step not in reports:
                bars.close()
                reports[step] = bars.enter_context(progress(f"preparing {step}", "tracks"))
            reports[step](n_done, n_total)

        yield report


def tag(
    library: LibraryOption = HERE,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that listen; else one a core.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tags every track by listening to it. Machine-made, in a column of their own.

    Two pretrained taggers (MusiCNN) that come with the package say what a track sounds like:
    genres, instruments, voices, moods. What they heard is kept in frames/, so that a second run
    listens to new tracks only.

    \b
    Example:
    ponticello tag -L my-library
    """
    from ponticello.features.prepare import tag_library

    folder = open_folder(library)
    with progress("listening", "tracks") as report:
        result = tag_library(
            folder,
            workers=workers,
            on_progress=lambda _, n_done, n_total: report(n_done, n_total),
        )
    if as_json:
        print_json(
            {
                "n_tagged": result.n_tagged,
                "n_new": result.n_new,
                "n_skipped": len(result.skipped),
                "tags": result.tags,
            }
        )
        return
    typer.echo(
        f"{result.n_tagged:,} tracks tagged by a machine, {result.n_new:,} of them heard now"
        f"{skipped_note(len(result.skipped), folder)}; in column machine_tags of {folder.tracks}"
    )
    commonest = ", ".join(f"{name} {count:,}" for name, count in list(result.tags.items())[:8])
    if commonest:
        typer.echo(f"commonest: {commonest}")
