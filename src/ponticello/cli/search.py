"""embed, search, similar, recommend, audience: vectors, and answers from them."""

from dataclasses import asdict
from pathlib import Path
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
    print_results,
    progress,
    read_shard,
    strip_control_chars,
)

if TYPE_CHECKING:
    from ponticello.library import EmbedResult, Library
    from ponticello.storage.layout import LibraryPaths

KOption = Annotated[int, typer.Option("-k", min=1, help="How many tracks.")]
BlendOption = Annotated[
    float | None,
    typer.Option(min=0, max=1, help="0 = meaning .. 1 = taste; else the library's setting."),
]
PerArtistOption = Annotated[
    int | None, typer.Option(min=1, help="At most so many tracks an artist.")
]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A filter such as genres=rock, duration_s<300, title~night; may be repeated."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds this file's commands."""
    app.command("embed")(embed)
    app.command("search")(search)
    app.command("similar")(similar)
    app.command("recommend")(recommend)
    app.command("audience")(audience)


def embed(
    library: LibraryOption = HERE,
    semantic: Annotated[
        str | None,
        typer.Option(
            help="The stage-one run; else 'semantic', or the starter before it is trained."
        ),
    ] = None,
    preference: Annotated[
        str | None, typer.Option(help="The stage-two run; else 'preference' if it is finished.")
    ] = None,
    shard: ShardOption = None,
    join: JoinOption = None,
    engine: EngineOption = "here",
    as_json: JsonOption = False,
) -> None:
    """Gives every track its vectors. Only what is missing is computed; then the library can be
    asked.

    \b
    Example:
    ponticello embed -L my-library

    \b
    Four jobs at once, and when all have ended the index:
    ponticello embed -L my-library --shard 1/4
    ponticello embed -L my-library --merge-shards 4
    """
    from ponticello.train.runs import STARTER

    if part := read_shard(shard, join, engine):
        _embed_part(open_folder(library), part, semantic, preference, as_json)
        return
    done, with_taste = embed_folder(open_folder(library), semantic, preference, join, engine)
    if as_json:
        print_json(
            {
                "n_tracks": done.n_tracks,
                "n_new": done.n_new,
                "index": done.generation.name,
                "semantic": done.semantic_run,
                "preference": with_taste,
            }
        )
        return
    spaces = "meaning and taste" if with_taste else "meaning only: train stage two for taste"
    if done.semantic_run == STARTER:
        spaces = "meaning by the starter model that comes with Ponticello: train semantic to fit it to this library"
    typer.echo(
        f"{done.n_tracks:,} tracks ready to ask ({spaces}), {done.n_new:,} vectors new; in {done.generation}"
    )


def _embed_part(
    folder: "LibraryPaths",
    part: tuple[int, int],
    semantic: str | None,
    preference: str | None,
    as_json: bool,
) -> None:
    from ponticello.library import Library

    preference = _finished_preference(folder, preference)
    with progress("embedding", "tracks") as report:
        n_vectors, n_new = Library(folder).embed_shard(
            part, semantic, preference, lambda _, n, total: report(n, total)
        )
    if as_json:
        print_json({"shard": list(part), "n_vectors": n_vectors, "n_new": n_new})
        return
    typer.echo(
        f"part {part[0]} of {part[1]}: {n_vectors:,} vectors, {n_new:,} new; "
        f"when all parts have ended, run: ponticello embed --merge-shards {part[1]}"
    )


def _finished_preference(folder: "LibraryPaths", named: str | None) -> str | None:
    from ponticello.train.runs import is_finished

    return "preference" if named is None and is_finished(folder.run("preference")) else named


def embed_folder(
    folder: "LibraryPaths",
    semantic: str | None,
    preference: str | None,
    join: int | None = None,
    engine: str = "here",
) -> tuple["EmbedResult", bool]:
    """Embeds with both runs where there are two, with bars on stderr; says whether there were."""
    from ponticello.library import Library

    preference = _finished_preference(folder, preference)
    with folder.lock(), progress("embedding", "tracks") as report:
        done = Library(folder).embed(
            semantic, preference, lambda _, n, total: report(n, total), n_shards=join, engine=engine
        )
    return done, preference is not None


def search(
    text: Annotated[str, typer.Argument(help="What the music should be like.")],
    library: LibraryOption = HERE,
    k: KOption = 10,
    blend: BlendOption = None,
    per_artist: PerArtistOption = None,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tracks that fit some words.

    \b
    Example:
    ponticello search "slow piano at night" -L my-library --blend 0.3 --per-artist 1
    """
    results = _open(library).search(text, k, blend, per_artist=per_artist, where=where or ())
    print_results(results, as_json)


def similar(
    track: Annotated[str, typer.Argument(help="A track id, or any audio file.")],
    library: LibraryOption = HERE,
    k: KOption = 10,
    blend: BlendOption = None,
    per_artist: PerArtistOption = None,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tracks like this one.

    \b
    Example:
    ponticello similar song.flac -L my-library -k 5
    """
    results = _open(library).similar(track, k, blend, per_artist=per_artist, where=where or ())
    print_results(results, as_json)


def recommend(
    user: Annotated[
        str, typer.Argument(help="A listener: an id of the log, or the name it was made of.")
    ],
    library: LibraryOption = HERE,
    k: KOption = 10,
    blend: BlendOption = None,
    per_artist: PerArtistOption = None,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tracks for this listener. None they have played, and those that fit best what they liked
    lately.

    \b
    Example:
    ponticello recommend alice -L my-library --per-artist 1
    """
    results = _open(library).recommend(user, k, blend, per_artist=per_artist, where=where or ())
    print_results(results, as_json)


def audience(
    track: Annotated[str, typer.Argument(help="A track id.")],
    library: LibraryOption = HERE,
    k: Annotated[int, typer.Option("-k", min=1, help="How many listeners.")] = 10,
    blend: BlendOption = None,
    as_json: JsonOption = False,
) -> None:
    """Who would like this track. The listeners of the log whose profile it fits best, new to them
    or not.

    \b
    Example:
    ponticello audience TRACK -L my-library -k 20
    """
    listeners = _open(library).audience(track, k, blend)
    if as_json:
        print_json([asdict(listener) for listener in listeners])
        return
    if not listeners:
        typer.echo("nobody in the log has liked a track of the index")
        return
    typer.echo(f"{'':>3}  {'score':>6} = {'sem':>6} + {'pref':>6}   listener")
    for each in listeners:
        met = ", has played it" if each.has_met else ""
        parts = f"{each.score:>6.2f} = {each.semantic:>6.2f} + {each.preference:>6.2f}"
        typer.echo(f"{each.rank:>3}  {parts}   {strip_control_chars(each.user_id)}{met}")


def _open(library: Path) -> "Library":
    from ponticello.library import Library

    return Library.open(library)
