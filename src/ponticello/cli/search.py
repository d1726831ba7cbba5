"""embed, search, similar, recommend, audience: vectors, and queries over them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from ponticello.cli import options, output

if TYPE_CHECKING:
    from ponticello.library import EmbedResult

KOption = Annotated[int, Option("-k", min=1, help="The number of results.")]
BlendOption = Annotated[
    float | None,
    Option(
        min=0, max=1, help="0 = semantic .. 1 = preference.", show_default="the library's setting"
    ),
]
PerArtistOption = Annotated[int | None, Option(min=1, help="The most tracks per artist.")]
WhereOption = Annotated[
    list[str] | None,
    Option(help="A filter such as genres=rock, duration_s<300, title~night; may be repeated."),
]
# (command and method of `Library`, its argument, its help)
QUERY_COMMANDS: tuple[tuple[str, Any, str], ...] = (
    (
        "search",
        Argument(metavar="text", help="A description of the music."),
        """Finds tracks by a description.

        \b
        Example:
        ponticello search "slow piano at night" -L my-library --blend 0.3 --per-artist 1
        """,
    ),
    (
        "similar",
        Argument(metavar="track", help="A track id, or any audio file."),
        """Finds tracks that are similar to a track.

        \b
        Example:
        ponticello similar song.flac -L my-library -k 5
        """,
    ),
    (
        "recommend",
        Argument(metavar="user", help="A listener: an id of the log, or the name it was made of."),
        """Recommends tracks that a listener has not played, by the tracks they liked lately.

        \b
        Example:
        ponticello recommend alice -L my-library --per-artist 1
        """,
    ),
)


def embed(
    library: options.LibraryPath = options.HERE,
    semantic: Annotated[
        str | None,
        Option(help="The stage-one run; else 'semantic', or the starter before it is trained."),
    ] = None,
    preference: Annotated[
        str | None, Option(help="The stage-two run; else 'preference' if it is served.")
    ] = None,
    shard: options.Shard = None,
    merge_shards: options.MergeShards = None,
    engine: options.Engine = "here",
    as_json: options.Json = False,
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
    opened = options.open_library(library)
    job = options.read_shard(shard, merge_shards, engine)
    with output.progress("tracks") as report:
        if job is None:
            result = opened.embed(
                semantic, preference, n_shards=merge_shards, engine=engine, on_progress=report
            )
        else:
            n_vectors, n_new = opened.embed_shard(job, semantic, preference, on_progress=report)
    if job is None:
        _print_embedding(result, as_json)
        return
    record = {"shard": list(job), "n_vectors": n_vectors, "n_new": n_new}
    done = f"{n_vectors:,} vectors, {n_new:,} new"
    output.print_outcome(as_json, record, [output.shard_note("embed", job, done, library)])


def _print_embedding(result: "EmbedResult", as_json: bool) -> None:
    from ponticello.train.runs import STARTER

    has_preference = result.preference_run is not None
    spaces = "semantic and preference" if has_preference else "semantic only"
    if result.semantic_run == STARTER:
        spaces = "semantic, by the starter model; `train semantic` fits it to this library"
    record = {
        "n_tracks": result.n_tracks,
        "n_new": result.n_new,
        "index": result.generation.name,
        "semantic": result.semantic_run,
        "preference": has_preference,
        "one_space": result.one_space,
    }
    line = (
        f"{result.n_tracks:,} tracks embedded ({spaces}), {result.n_new:,} vectors new; "
        f"in {result.generation}"
    )
    output.print_outcome(as_json, record, list(filter(None, [line, result.one_space])))


def query_command(method: str, argument: Any) -> Callable[..., None]:
    """Returns the command that prints the ranked list of a method of `Library`."""

    def command(
        query: Annotated[str, argument],
        library: options.LibraryPath = options.HERE,
        k: KOption = 10,
        blend: BlendOption = None,
        per_artist: PerArtistOption = None,
        where: WhereOption = None,
        as_json: options.Json = False,
    ) -> None:
        rank = getattr(options.open_library(library), method)
        output.print_results(
            rank(query, k, blend, per_artist=per_artist, where=where or ()), as_json
        )

    return command


def audience(
    track: Annotated[str, Argument(help="A track id.")],
    library: options.LibraryPath = options.HERE,
    k: KOption = 10,
    blend: BlendOption = None,
    as_json: options.Json = False,
) -> None:
    """Finds listeners whose profile matches a track, whether they have played it or not.

    \b
    Example:
    ponticello audience TRACK -L my-library -k 20
    """
    listeners = options.open_library(library).audience(track, k, blend)
    names = []
    for listener in listeners:
        played = ", has played it" if listener.already_played else ""
        names.append(f"{listener.user_id}{played}")
    no_rows = "no listener of the log has liked a track of the index"
    output.print_scores(listeners, names, "listener", no_rows, as_json)
