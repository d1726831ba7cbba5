"""prepare, tag, pairs: from files and logs to what training reads."""

from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.console import (
    HERE,
    JsonOption,
    LibraryOption,
    SetOption,
    open_folder,
    print_json,
    progress,
    skipped_note,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from ponticello.data.mining import Mined
    from ponticello.data.prepare import Prepared
    from ponticello.library import Folder


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("prepare")(prepare)
    app.command("tag")(tag)
    app.command("pairs")(pairs)


def prepare(
    library: LibraryOption = HERE,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that decode; else one a core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Decodes every track into a log-mel. A second run does only what is missing or changed.

    \b
    Example:
    ponticello prepare -L my-library
    """
    folder = open_folder(library)
    done = prepare_library(folder, workers)
    if as_json:
        print_json(
            {"n_new": done.n_new, "n_kept": done.n_kept, "n_removed": done.n_removed, "n_skipped": len(done.skipped)}
        )
        return
    removed = f", {done.n_removed:,} removed" if done.n_removed else ""
    typer.echo(
        f"{done.n_new:,} tracks prepared, {done.n_kept:,} were already{removed}"
        f"{skipped_note(len(done.skipped), folder)}; in {folder.mels}"
    )


def prepare_library(folder: "Folder", workers: int | None) -> "Prepared":
    """Prepares every track that has a path, and holds some out."""
    import os

    from ponticello.data.catalog import audio_files
    from ponticello.data.mining import refresh_splits
    from ponticello.data.prepare import prepare_frames

    n_workers = workers or os.cpu_count() or 1
    with folder.lock(), progress("preparing", "tracks") as report:
        done = prepare_frames(folder, audio_files(folder), workers=n_workers, on_progress=report)
        refresh_splits(folder)
    if folder.config.front_end == "musicnn":
        _listen(folder, n_workers, unreadable={line.value for line in done.skipped})
    return done


def _listen(folder: "Folder", workers: int, unreadable: "Collection[str]" = ()) -> "Prepared":
    """Brings the library's MusiCNN frames up to date. unreadable: ids of tracks known to have no sound."""
    from ponticello.data.catalog import audio_files
    from ponticello.data.prepare import prepare_frames
    from ponticello.model.front_end import musicnn_front_end

    files = {track_id: path for track_id, path in audio_files(folder).items() if track_id not in unreadable}
    with folder.lock(), progress("listening", "tracks") as report:
        return prepare_frames(folder, files, musicnn_front_end(folder), workers=workers, on_progress=report)


def tag(
    library: LibraryOption = HERE,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that listen; else one a core.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Tags every track by listening to it. Machine-made, in a column of their own.

    Two pretrained taggers (MusiCNN) that come with the package say what a track sounds like: genres, instruments,
    voices, moods. What they heard is kept in frames/, so that a second run listens to new tracks only.

    
    Example:
    ponticello tag -L my-library
    """
    import os

    from ponticello.model.tags import tag_tracks

    folder = open_folder(library)
    done = _listen(folder, workers or os.cpu_count() or 1)
    with folder.lock():
        tagged = tag_tracks(folder)
    if as_json:
        print_json(
            {"n_tagged": tagged.n_tagged, "n_new": done.n_new, "n_skipped": len(done.skipped), "tags": tagged.tags}
        )
        return
    commonest = ", ".join(f"{name} {count:,}" for name, count in list(tagged.tags.items())[:8])
    typer.echo(
        f"{tagged.n_tagged:,} tracks tagged by a machine, {done.n_new:,} of them heard now"
        f"{skipped_note(len(done.skipped), folder)}; in column machine_tags of {folder.tracks}"
    )
    if commonest:
        typer.echo(f"commonest: {commonest}")


def pairs(library: LibraryOption = HERE, settings: SetOption = None, as_json: JsonOption = False) -> None:
    """Mines pairs of tracks liked together. Only the training window and training tracks are looked at.

    \b
    Example:
    ponticello pairs -L my-library --set pairs.min_listeners=3
    """
    from ponticello.data.mining import mine_library

    folder = open_folder(library, settings)
    with folder.lock():
        mined = mine_library(folder)
    if as_json:
        print_json(
            {
                "n_pairs": mined.n_pairs,
                "n_validation_pairs": mined.n_validation_pairs,
                "funnel": dict(mined.funnel.steps),
            }
        )
        return
    print_mined(mined, folder)


def print_mined(mined: "Mined", folder: "Folder") -> None:
    """The funnel and what came of it."""
    for line in mined.funnel.lines():
        typer.echo(line)
    roles = list(mined.splits.roles.values())
    held_out = ", ".join(f"{roles.count(role):,} {role}" for role in ("train", "validation", "test"))
    unused = f", {mined.splits.n_without_role:,} without a role" if mined.splits.n_without_role else ""
    until = mined.splits.train_until
    limit = f"{until:%Y-%m-%d %H:%M}" if until else "each listener's last two sessions"
    for note in mined.notes:
        typer.echo(note)
    typer.echo(f"tracks: {held_out}{unused}; events count for training before {limit}")
    typer.echo(f"{mined.n_pairs:,} pairs in {folder.pairs}, {mined.n_validation_pairs:,} held out for validation")
