"""prepare, tag: computes what training reads from the files of a library."""

from typing import Annotated

from typer import Option

from ponticello.cli import options, output

_SHOWN_TAGS = 8


def prepare(
    library: options.LibraryPath = options.HERE,
    workers: options.Workers = None,
    allow_download: Annotated[
        bool,
        Option(
            "--allow-download",
            help="Fetch the audio encoder of front_end hf:NAME if it is not installed.",
        ),
    ] = False,
    shard: options.Shard = None,
    merge_shards: options.MergeShards = None,
    engine: options.Engine = "here",
    as_json: options.Json = False,
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
    opened = options.open_library(library)
    job = options.read_shard(shard, merge_shards, engine)
    with output.progress("tracks") as report:
        result = opened.prepare(
            n_workers=workers,
            allow_download=allow_download,
            shard=job,
            n_shards=merge_shards,
            engine=engine,
            on_progress=report,
        )
    n_skipped = len(result.skipped)
    record = {
        "n_new": result.n_new,
        "n_kept": result.n_kept,
        "n_removed": result.n_removed,
        "n_skipped": n_skipped,
    }
    line = f"{result.n_new:,} tracks prepared, {result.n_kept:,} unchanged"
    if job is not None:
        line = output.shard_note("prepare", job, f"{line}, {n_skipped:,} skipped", library)
    else:
        removed = output.count_note(result.n_removed, "removed")
        line += f"{removed}{output.skipped_note(n_skipped, opened.folder)}; in {result.folder}"
    output.print_outcome(as_json, record, [line])


def tag(
    library: options.LibraryPath = options.HERE,
    workers: options.Workers = None,
    as_json: options.Json = False,
) -> None:
    """Tags every track by its sound: genres, instruments, voices, moods.

    The tags come from two pretrained taggers (MusiCNN) in the package, and fill a column of their
    own, machine_tags. Tracks that were analysed before are read from frames/.

    \b
    Example:
    ponticello tag -L my-library
    """
    opened = options.open_library(library)
    with output.progress("tracks") as report:
        result = opened.tag(n_workers=workers, on_progress=report)
    n_skipped = len(result.skipped)
    record = {
        "n_tagged": result.n_tagged,
        "n_new": result.n_new,
        "n_skipped": n_skipped,
        "tags": result.tags,
    }
    source = f"{result.n_new:,} analysed now" if result.n_new else "all from cache"
    skipped = output.skipped_note(n_skipped, opened.folder)
    lines = [
        f"{result.n_tagged:,} tracks tagged ({source}){skipped}; "
        f"in column machine_tags of {opened.folder.tracks}"
    ]
    counts = [f"{name} {count:,}" for name, count in list(result.tags.items())[:_SHOWN_TAGS]]
    if counts:
        lines.append(f"most frequent: {', '.join(counts)}")
    output.print_outcome(as_json, record, lines)
