"""From a listening log to pairs of tracks that several listeners confirmed belong together.

    events -> feedback  the track that set off another and the one then liked; directed
           -> session   neighbours in one sitting                            ; anchor_id < positive_id
           -> playlist  members of one playlist                              ; anchor_id < positive_id
           -> cooccurrence  liked by one listener, more than chance has it   ; anchor_id < positive_id
           -> one row a listener and pair -> cap a listener -> count listeners -> cap a track -> pairs

The rules are ibis expressions and use nothing that only one engine has, so that DuckDB and Spark run the same ones.
Equal logs give equal pairs whatever the order of the rows, the number of threads and the engine: every window orders
its rows completely, ids breaking ties, and weights are added as whole millionths, because sums of floats depend on the
order of adding.
"""

import polars as pl

from ponticello.config import PairsConfig
from ponticello.data.candidates import Tally, confirmed_pairs
from ponticello.data.caps import above_chance, cap_tracks
from ponticello.data.columns import ANCHOR_ID, N_USERS, POSITIVE_ID, SOURCE, WEIGHT
from ponticello.data.engine import EngineOptions, open_engine
from ponticello.data.evidence import PLAYLIST_LIMIT, SOURCES
from ponticello.data.funnel import Funnel
from ponticello.data.log import EVENTS_SCHEMA, WEIGHT_UNIT, Log, ids_of, number_log
from ponticello.data.parquet import read_parquet
from ponticello.data.windows import Window
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.library import Folder, replacing

PAIRS_SCHEMA = {
    ANCHOR_ID: pl.String(),
    POSITIVE_ID: pl.String(),
    N_USERS: pl.Int64(),
    WEIGHT: pl.Float64(),
    SOURCE: pl.String(),
}


def mine_pairs(
    events: pl.DataFrame,
    config: PairsConfig,
    options: EngineOptions | None = None,
) -> tuple[pl.DataFrame, Funnel]:
    """The pairs of `events` as (anchor_id, positive_id, n_users, weight, source), and how many each rule left.

    events: the interactions columns, limited by the caller to the moments and tracks that may be learned from;
        DataError if a column is missing, a user, track, moment or event is null, or a weight is NaN or beyond a
        million. config: ConfigError if it names no source. options: where it runs.
    n_users: distinct listeners behind the pair, at least `min_listeners`. weight: the sum, over their events, of the
        later event's weight (1 where it has none), rounded to millionths.
    Rows are sorted by anchor_id, positive_id, source; a pair found by two sources has a row for each.
    Cost: seconds for a million events; docs/benchmarks.md, "Pairs at any size". A log on disk need not be read: `mine`.
    """
    missing = [name for name in EVENTS_SCHEMA if name not in events.columns]
    if missing:
        raise DataError(f"interactions: column {missing[0]!r} is missing; found {', '.join(events.columns)}")
    events = events.select(pl.col(name).cast(kind) for name, kind in EVENTS_SCHEMA.items())
    with open_engine(options) as engine:
        log = number_log(engine, engine.table(events, "events"), ids_of(events), Window())
        return mine(log, config)


def mine(log: Log, config: PairsConfig) -> tuple[pl.DataFrame, Funnel]:
    """As `mine_pairs`, from a log that need not fit into memory."""
    if not config.sources:
        raise ConfigError("pairs.sources is empty; name at least one of feedback, session, playlist, cooccurrence")
    engine = log.engine
    pairs, tally = confirmed_pairs(log, config)
    steps = [*_steps(tally, config), ("with enough listeners", engine.n_rows(pairs))]
    if "cooccurrence" in config.sources:
        likely = above_chance(pairs, tally.liked, tally.n_listeners, config.min_lift)
        pairs = engine.keep(likely, "likely")
    steps.append(("likelier than chance", engine.n_rows(pairs)))
    kept = engine.frame(cap_tracks(pairs, config.max_pairs_per_track))
    steps.append(("after the cap a track", len(kept)))
    return _with_ids(kept, log.tracks), Funnel(tuple(steps), config)


def write_pairs(folder: Folder, pairs: pl.DataFrame) -> None:
    """Puts `pairs` in the library, whole or not at all; equal rows in equal order give equal bytes."""
    table = pairs.select(pl.col(name).cast(kind) for name, kind in PAIRS_SCHEMA.items()).rechunk()
    with replacing(folder.pairs) as temporary:
        table.write_parquet(temporary, compression="zstd", row_group_size=2**17)


def read_pairs(folder: Folder) -> pl.DataFrame:
    """The library's pairs, columns as `mine_pairs` gives them.

    LibraryError if they were never mined, DataError if the file is damaged or lacks a column.
    """
    if not folder.pairs.is_file():
        raise LibraryError(f"{folder.root} has no pairs yet; mine them with: ponticello pairs -L {folder.root}")
    try:
        table = read_parquet(folder.pairs, "it")
        return table.select(pl.col(name).cast(kind) for name, kind in PAIRS_SCHEMA.items())
    except (DataError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{folder.pairs.name} cannot be read ({error}); mine the pairs again") from None


def _steps(tally: Tally, config: PairsConfig) -> list[tuple[str, int]]:
    """The funnel up to the distinct pairs."""
    sources = [source for source in ("feedback", "session", "playlist", "cooccurrence") if source in config.sources]
    steps = [("events", tally.n_events), ("positive events", tally.n_positive)]
    steps += [(f"{source} candidates", tally.by_source[source]) for source in sources]
    if "playlist" in sources:
        steps.append((f"playlists left out, over {PLAYLIST_LIMIT} tracks", tally.n_too_long))
    return [
        *steps,
        ("candidates", tally.by_source.total()),
        ("after the cap a listener", tally.n_within),
        ("pairs", tally.n_pairs),
    ]


def _with_ids(pairs: pl.DataFrame, tracks: pl.Series) -> pl.DataFrame:
    """`pairs` of numbers as pairs of ids, sorted by them and by the source: numbers sort as what they stand for."""
    pairs = pairs.sort(ANCHOR_ID, POSITIVE_ID, SOURCE)
    return pl.DataFrame(
        {
            ANCHOR_ID: tracks.gather(pairs[ANCHOR_ID]),
            POSITIVE_ID: tracks.gather(pairs[POSITIVE_ID]),
            N_USERS: pairs[N_USERS],
            WEIGHT: pairs[WEIGHT] / WEIGHT_UNIT,
            SOURCE: pl.Series(SOURCES, dtype=pl.String).gather(pairs[SOURCE]),
        },
        schema=PAIRS_SCHEMA,
    )
