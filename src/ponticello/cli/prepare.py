"""prepare, tag: computes what training reads from the files of a library."""

from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    EngineOption,
    JsonOption,
    LibraryOption,
    MergeShardsOption,
    ShardOption,
    WorkersOption,
    open_library,
    print_json,
    progress,
    read_shard,
    skipped_note,
)

if TYPE_CHECKING:
    from ponticello.features.prepare import PrepareResult
    from ponticello.storage.layout import LibraryPaths

_SHOWN_TAGS = 8


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("prepare")(prepare)
    app.command("tag")(tag)


def prepare(
    library: LibraryOption = HERE,
    workers: WorkersOption = None,
    allow_download: Annotated[
        bool,
        typer.Option(
            "--allow-download",
            help="Fetch the audio encoder of front_end hf:NAME if it is not installed.",
        ),
    ] = False,
    shard: ShardOption = None,
    merge_shards: MergeShardsOption = None,
    engine: EngineOption = "here",
    as_json: JsonOption = False,
) -> None:
    """Computes what training reads from every track. Only new and changed tracks are computed.

    These are log-mels, and the features of the library's front end. With front_end "features" your
    own vectors are imported instead, and tracks need no audio.

    \b
    Example:
    ponticello prepare -L my-library

    \b
    Four jobs at once; when all have ended, their shards are merged:
    ponticello prepare -L my-library --shard 1/4
    ponticello prepare -L my-library --merge-shards 4
    """
    opened = open_library(library)
    job = read_shard(shard, merge_shards, engine)
    with progress("tracks") as report:
        result = opened.prepare(
            n_workers=workers,
            allow_download=allow_download,
            shard=job,
            n_shards=merge_shards,
            engine=engine,
            on_progress=report,
        )
    if as_json:
        print_json(
            {
                "n_new": result.n_new,
                "n_kept": result.n_kept,
                "n_removed": result.n_removed,
                "n_skipped": len(result.skipped),
            }
        )
    elif job is not None:
        typer.echo(
            f"shard {job[0]} of {job[1]}: {result.n_new:,} tracks prepared, {result.n_kept:,} "
            f"unchanged, {len(result.skipped):,} skipped; when all shards have ended, run: "
            f"ponticello prepare --merge-shards {job[1]} -L {library}"
        )
    else:
        _print_preparation(result, opened.folder)


def _print_preparation(result: "PrepareResult", folder: "LibraryPaths") -> None:
    removed = f", {result.n_removed:,} removed" if result.n_removed else ""
    typer.echo(
        f"{result.n_new:,} tracks prepared, {result.n_kept:,} unchanged{removed}"
        f"{skipped_note(len(result.skipped), folder)}; in {result.folder}"
    )


def tag(
    library: LibraryOption = HERE,
    workers: WorkersOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tags every track by its sound: genres, instruments, voices, moods.

    The tags come from two pretrained taggers (MusiCNN) in the package, and fill a column of their
    own, machine_tags. Tracks that were analysed before are read from frames/.

    \b
    Example:
    ponticello tag -L my-library
    """
    opened = open_library(library)
    with progress("tracks") as report:
        result = opened.tag(n_workers=workers, on_progress=report)
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
    source = f"{result.n_new:,} analysed now" if result.n_new else "all from cache"
    typer.echo(
        f"{result.n_tagged:,} tracks tagged ({source})"
        f"{skipped_note(len(result.skipped), opened.folder)}; "
        f"in column machine_tags of {opened.folder.tracks}"
    )
    counts = list(result.tags.items())[:_SHOWN_TAGS]
    if counts:
        typer.echo(f"most frequent: {', '.join(f'{name} {count:,}' for name, count in counts)}")
