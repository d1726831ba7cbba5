"""prepare, tag: from files to what training reads."""

from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from ponticello.features.prepare import ExtractionJob, PrepareResult
    from ponticello.storage.layout import LibraryPaths


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
    folder, part = open_folder(library), read_shard(shard, join, engine)
    done = prepare_library(folder, workers, allow_download, part, join, engine)
    if as_json:
        print_json(
            {
                "n_new": done.n_new,
                "n_kept": done.n_kept,
                "n_removed": done.n_removed,
                "n_skipped": len(done.skipped),
            }
        )
        return
    if part:
        typer.echo(
            f"part {part[0]} of {part[1]}: {done.n_new:,} tracks prepared, {done.n_kept:,} were already, "
            f"{len(done.skipped):,} skipped; when all parts have ended, run: ponticello prepare --merge-shards {part[1]}"
        )
        return
    is_given = folder.config.front_end == "features"
    removed = f", {done.n_removed:,} removed" if done.n_removed else ""
    typer.echo(
        f"{done.n_new:,} tracks prepared, {done.n_kept:,} were already{removed}"
        f"{skipped_note(len(done.skipped), folder)}; in {folder.frames_of('features') if is_given else folder.mels}"
    )


def prepare_library(
    folder: "LibraryPaths",
    workers: int | None,
    allow_download: bool = False,
    part: tuple[int, int] | None = None,
    join: int | None = None,
    engine: str = "here",
) -> "PrepareResult":
    """Prepares every track that has a path, holds some out, and then does what the settings' front
    end needs.

    Gives what was done to log-mels; with front end `features`, to the vectors, and what was skipped
    of both.
    part: (i, n) does the i-th of n parts only, without the library's lock; a call without it takes
    the parts in.
    join: n, LibraryError before anything is done unless all n parts are there. engine: "here" or
    "ray".
    """
    from dataclasses import replace

    from ponticello.features.frontend import feature_extractor
    from ponticello.features.prepare import mel_front_end, require_shards_done
    from ponticello.features.ray_tasks import uses_ray
    from ponticello.pairs.mine import refresh_splits
    from ponticello.tracks.catalog import audio_files

    by_ray = uses_ray(engine)
    front_end = feature_extractor(folder.config, allow_download=allow_download)
    preparation = (
        front_end.preparation(folder) if front_end else None
    )  # what it lacks is said before hours of decoding
    if front_end and front_end.notice:
        typer.echo(front_end.notice, err=True)
    if join is not None:
        require_shards_done(audio_files(folder), mel_front_end(folder), join)
        if preparation:
            require_shards_done(preparation[1], preparation[0], join)
    done = _make_frames(
        folder, mel_front_end(folder), audio_files(folder), workers, part, by_ray, "preparing"
    )
    if part is None:
        with folder.lock():
            refresh_splits(folder)
    if preparation and folder.config.front_end == "features":
        given = _make_frames(folder, *preparation, workers, part)
        return replace(given, skipped=[*done.skipped, *given.skipped])
    if preparation:
        silent = {line.value for line in done.skipped}
        files = {
            track_id: path for track_id, path in preparation[1].items() if track_id not in silent
        }
        _make_frames(folder, preparation[0], files, workers, part, by_ray)
    return done


def _make_frames(
    folder: "LibraryPaths",
    front_end: "ExtractionJob",
    files: "Mapping[str, Path]",
    workers: int | None,
    part: tuple[int, int] | None = None,
    by_ray: bool = False,
    title: str = "listening",
) -> "PrepareResult":
    """Brings a front end's frames up to date, with what jobs made of them; or does one part of
    that.
    """
    import os
    from dataclasses import replace

    from ponticello.features.prepare import (
        merge_shards,
        prepare_frames,
        prepare_on_ray,
        prepare_shard,
    )

    n_workers = workers or os.cpu_count() or 1
    if part:
        with progress(title, "tracks") as report:
            return prepare_shard(
                folder, files, part, front_end, workers=n_workers, on_progress=report
            )
    with folder.lock(), progress(title, "tracks") as report:
        if by_ray:
            n_adopted = prepare_on_ray(folder, files, front_end, report)
        else:
            n_adopted = merge_shards(front_end.place, front_end.key)
        done = prepare_frames(folder, files, front_end, workers=n_workers, on_progress=report)
    return (
        replace(done, n_new=done.n_new + n_adopted, n_kept=done.n_kept - n_adopted)
        if n_adopted
        else done
    )


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
    from ponticello.features.musicnn_frontend import musicnn_front_end, tag_tracks
    from ponticello.tracks.catalog import audio_files

    folder = open_folder(library)
    done = _make_frames(folder, musicnn_front_end(folder), audio_files(folder), workers)
    with folder.lock():
        tagged = tag_tracks(folder)
    if as_json:
        print_json(
            {
                "n_tagged": tagged.n_tagged,
                "n_new": done.n_new,
                "n_skipped": len(done.skipped),
                "tags": tagged.tags,
            }
        )
        return
    commonest = ", ".join(f"{name} {count:,}" for name, count in list(tagged.tags.items())[:8])
    typer.echo(
        f"{tagged.n_tagged:,} tracks tagged by a machine, {done.n_new:,} of them heard now"
        f"{skipped_note(len(done.skipped), folder)}; in column machine_tags of {folder.tracks}"
    )
    if commonest:
        typer.echo(f"commonest: {commonest}")
