"""embed, search, similar, recommend, audience: vectors, and queries over them."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import (
    HERE,
    EngineOption,
    JsonOption,
    LibraryOption,
    MergeShardsOption,
    ShardOption,
    open_library,
    print_json,
    print_results,
    progress,
    read_shard,
    strip_control_chars,
)

if TYPE_CHECKING:
    from ponticello.library import EmbedResult

KOption = Annotated[int, typer.Option("-k", min=1, help="The number of tracks.")]
BlendOption = Annotated[
    float | None,
    typer.Option(
        min=0, max=1, help="0 = semantic .. 1 = preference.", show_default="the library's setting"
    ),
]
PerArtistOption = Annotated[int | None, typer.Option(min=1, help="The most tracks per artist.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option(
        help="A filter such as genres=rock, duration_s<300, title~night; may be repeated."
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands of this file."""
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
    merge_shards: MergeShardsOption = None,
    engine: EngineOption = "here",
    as_json: JsonOption = False,
) -> None:
    """Computes the vectors of every track, and the index. Only missing vectors are computed.

    \b
    Example:
    ponticello embed -L my-library

    \b
    Four jobs at once; when all have ended, their vectors become the index:
    ponticello embed -L my-library --shard 1/4
    ponticello embed -L my-library --merge-shards 4
    """
    opened = open_library(library)
    job = read_shard(shard, merge_shards, engine)
    with progress("tracks") as report:
        if job is not None:
            n_vectors, n_new = opened.embed_shard(job, semantic, preference, on_progress=report)
        else:
            result = opened.embed(
                semantic, preference, n_shards=merge_shards, engine=engine, on_progress=report
            )
    if job is None:
        _print_embedding(result, as_json)
    elif as_json:
        print_json({"shard": list(job), "n_vectors": n_vectors, "n_new": n_new})
    else:
        typer.echo(
            f"shard {job[0]} of {job[1]}: {n_vectors:,} vectors, {n_new:,} new; "
            "when all shards have ended, run: "
            f"ponticello embed --merge-shards {job[1]} -L {library}"
        )


def _print_embedding(result: "EmbedResult", as_json: bool) -> None:
    from ponticello.train.runs import STARTER

    has_preference = result.preference_run is not None
    if as_json:
        print_json(
            {
                "n_tracks": result.n_tracks,
                "n_new": result.n_new,
                "index": result.generation.name,
                "semantic": result.semantic_run,
                "preference": has_preference,
            }
        )
        return
    if result.semantic_run == STARTER:
        spaces = "semantic, by the starter model; `train semantic` fits it to this library"
    elif has_preference:
        spaces = "semantic and preference"
    else:
        spaces = "semantic only; `train preference` adds preference"
    typer.echo(
        f"{result.n_tracks:,} tracks embedded ({spaces}), {result.n_new:,} vectors new; "
        f"in {result.generation}"
    )


def search(
    text: Annotated[str, typer.Argument(help="A description of the music.")],
    library: LibraryOption = HERE,
    k: KOption = 10,
    blend: BlendOption = None,
    per_artist: PerArtistOption = None,
    where: WhereOption = None,
    as_json: JsonOption = False,
) -> None:
    """Finds tracks by a description.

    \b
    Example:
    ponticello search "slow piano at night" -L my-library --blend 0.3 --per-artist 1
    """
    opened = open_library(library)
    results = opened.search(text, k, blend, per_artist=per_artist, where=where or ())
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
    """Finds tracks that are similar to a track.

    \b
    Example:
    ponticello similar song.flac -L my-library -k 5
    """
    opened = open_library(library)
    results = opened.similar(track, k, blend, per_artist=per_artist, where=where or ())
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
    """Recommends tracks that a listener has not played, by the tracks they liked lately.

    \b
    Example:
    ponticello recommend alice -L my-library --per-artist 1
    """
    opened = open_library(library)
    results = opened.recommend(user, k, blend, per_artist=per_artist, where=where or ())
    print_results(results, as_json)


def audience(
    track: Annotated[str, typer.Argument(help="A track id.")],
    library: LibraryOption = HERE,
    k: Annotated[int, typer.Option("-k", min=1, help="The number of listeners.")] = 10,
    blend: BlendOption = None,
    as_json: JsonOption = False,
) -> None:
    """Finds listeners whose profile matches a track, whether they have played it or not.

    \b
    Example:
    ponticello audience TRACK -L my-library -k 20
    """
    listeners = open_library(library).audience(track, k, blend)
    if as_json:
        print_json([asdict(listener) for listener in listeners])
        return
    if not listeners:
        typer.echo("no listener of the log has liked a track of the index")
        return
    typer.echo(f"{'':>3}  {'score':>6} = {'sem':>6} + {'pref':>6}   listener")
    for listener in listeners:
        played = ", has played it" if listener.already_played else ""
        typer.echo(
            f"{listener.rank:>3}  {listener.score:>6.2f} = {listener.semantic:>6.2f} + "
            f"{listener.preference:>6.2f}   {strip_control_chars(listener.user_id)}{played}"
        )
