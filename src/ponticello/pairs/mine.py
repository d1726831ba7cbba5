"""From a library's catalogue and log to who is held out, and to the pairs stage two learns and is
checked on.

What each rule of mining left, in words.

From a listening log to pairs of tracks that several listeners confirmed belong together.

    events -> feedback  the track that set off another and the one then liked; directed
           -> session   neighbours in one sitting                            ; anchor_id <
           positive_id -> playlist  members of one playlist                              ; anchor_id
           < positive_id -> cooccurrence  liked by one listener, more than chance has it   ;
           anchor_id < positive_id -> one row a listener and pair -> cap a listener -> count
           listeners -> cap a track -> pairs

The rules are ibis expressions and use nothing that only one engine has, so that DuckDB and Spark
run the same ones.
Equal logs give equal pairs whatever the order of the rows, the number of threads and the engine:
every window orders its rows completely, ids breaking ties, and weights are added as whole
millionths, because sums of floats depend on the order of adding.
"""

from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from ponticello.config import PairsConfig
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.features.fingerprint import near_duplicates
from ponticello.features.store import MANIFEST, FeatureStore
from ponticello.listening.log import scan_interactions
from ponticello.pairs.count import MiningCounts, cap_tracks, confirmed_pairs, filter_by_lift
from ponticello.pairs.engine import Engine, EngineOptions, open_engine
from ponticello.pairs.events import (
    AT,
    EVENTS_SCHEMA,
    NUMBER,
    WEIGHT_UNIT,
    Log,
    complete_events,
    ids_of,
    number_log,
)
from ponticello.pairs.rules import PLAYLIST_LIMIT, SOURCES
from ponticello.splits.leakage import check_no_leak
from ponticello.splits.splits import (
    Splits,
    Window,
    load_splits,
    make_splits,
    save_splits,
    training_window,
    window_before_test,
    with_role,
)
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import (
    ANCHOR_ID,
    N_USERS,
    PLAYED_AT,
    POSITIVE_ID,
    SOURCE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)
from ponticello.storage.tables import has_rows, read_parquet, wrap_read_errors
from ponticello.tracks.catalog import read_tracks


@dataclass(frozen=True)
class MiningFunnel:
    """How many were left after each step of mining, in order, and the settings that decided it."""

    steps: tuple[tuple[str, int], ...]
    config: PairsConfig

    def lines(self) -> list[str]:
        """One readable line a step: what is left, and what was dropped there and why."""
        config = self.config
        reasons = {
            "positive events": f"skips, dislikes and plays under {config.min_played_s:g} s",
            "after the cap a listener": f"over {config.max_pairs_per_user:,} of one listener and source",
            "with enough listeners": f"fewer than {config.min_users} listeners",
            "likelier than chance": "liked together no more than chance has it",
            "after the cap a track": f"over {config.max_pairs_per_track:,} of one track",
        }
        lines = []
        for (_, before), (step, n) in zip([("", 0), *self.steps], self.steps, strict=False):
            dropped = f"  ({before - n:,} dropped: {reasons[step]})" if step in reasons else ""
            lines.append(f"{n:>13,}  {step}{dropped}")
        if config.min_users < 3:
            lines.append(
                f"Careful: with min_users at {config.min_users} a pair may rest on, and reveal, one person; "
                "set it to 3 or more before you share the pairs, or a model trained on them."
            )
        return lines


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
) -> tuple[pl.DataFrame, MiningFunnel]:
    """The pairs of `events` as (anchor_id, positive_id, n_users, weight, source), and how many each
    rule left.

    events: the interactions columns, limited by the caller to the moments and tracks that may be
    learned from;
        DataError if a column is missing, a user, track, moment or event is null, or a weight is NaN
        or beyond a million. config: ConfigError if it names no source. options: where it runs.
    n_users: distinct listeners behind the pair, at least `min_users`. weight: the sum, over
    their events, of the
        later event's weight (1 where it has none), rounded to millionths.
    Rows are sorted by anchor_id, positive_id, source; a pair found by two sources has a row for
    each.
    Cost: seconds for a million events; docs/benchmarks.md, "Pairs at any size". A log on disk need
    not be read: `mine_sources`.
    """
    missing = [name for name in EVENTS_SCHEMA if name not in events.columns]
    if missing:
        raise DataError(
            f"interactions: column {missing[0]!r} is missing; found {', '.join(events.columns)}"
        )
    events = events.select(pl.col(name).cast(kind) for name, kind in EVENTS_SCHEMA.items())
    with open_engine(options) as engine:
        log = number_log(engine, engine.table(events, "events"), ids_of(events), Window())
        return mine_sources(log, config)


def mine_sources(log: Log, config: PairsConfig) -> tuple[pl.DataFrame, MiningFunnel]:
    """As `mine_pairs`, from a log that need not fit into memory."""
    if not config.sources:
        raise ConfigError(
            "pairs.sources is empty; name at least one of feedback, session, playlist, cooccurrence"
        )
    engine = log.engine
    pairs, tally = confirmed_pairs(log, config)
    steps = [*_steps(tally, config), ("with enough listeners", engine.n_rows(pairs))]
    if "cooccurrence" in config.sources:
        likely = filter_by_lift(pairs, tally.liked, tally.n_listeners, config.min_lift)
        pairs = engine.keep(likely, "likely")
    steps.append(("likelier than chance", engine.n_rows(pairs)))
    kept = engine.frame(cap_tracks(pairs, config.max_pairs_per_track))
    steps.append(("after the cap a track", len(kept)))
    return _with_ids(kept, log.tracks), MiningFunnel(tuple(steps), config)


def write_pairs(folder: LibraryPaths, pairs: pl.DataFrame) -> None:
    """Puts `pairs` in the library, whole or not at all; equal rows in equal order give equal bytes."""
    table = pairs.select(pl.col(name).cast(kind) for name, kind in PAIRS_SCHEMA.items()).rechunk()
    with atomic_write(folder.pairs) as temporary:
        table.write_parquet(temporary, compression="zstd", row_group_size=2**17)


def read_pairs(folder: LibraryPaths) -> pl.DataFrame:
    """The library's pairs, columns as `mine_pairs` gives them.

    LibraryError if they were never mined, DataError if the file is damaged or lacks a column.
    """
    if not folder.pairs.is_file():
        raise LibraryError(
            f"{folder.root} has no pairs yet",
            code="no_pairs",
            remedy="ponticello mine-pairs",
            library=folder.root,
        )
    try:
        table = read_parquet(folder.pairs, "it")
        return table.select(pl.col(name).cast(kind) for name, kind in PAIRS_SCHEMA.items())
    except (DataError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{folder.pairs.name} cannot be read ({error}); mine the pairs again"
        ) from None


def _steps(tally: MiningCounts, config: PairsConfig) -> list[tuple[str, int]]:
    """The funnel up to the distinct pairs."""
    sources = [
        source
        for source in ("feedback", "session", "playlist", "cooccurrence")
        if source in config.sources
    ]
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
    """`pairs` of numbers as pairs of ids, sorted by them and by the source: numbers sort as what
    they stand for.
    """
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


@dataclass(frozen=True)
class MiningResult:
    """What mining found, what was dropped where, and what official splits let through (`notes`,
    sentences).
    """

    n_pairs: int
    n_validation_pairs: int
    funnel: MiningFunnel
    splits: Splits
    notes: tuple[str, ...] = ()


def refresh_splits(folder: LibraryPaths) -> Splits:
    """The library's splits, made or brought up to date.

    A track keeps its role, new tracks get one, and the times follow the log. A new track that has a
    mel joins the tracks of the same recording. The caller holds the library's lock.
    Errors: see `make_splits`. Cost: see `near_duplicates`.
    """
    splits, _ = current_splits(folder)
    save_splits(folder, splits)
    return splits


def mine_library(folder: LibraryPaths, options: EngineOptions | None = None) -> MiningResult:
    """Writes pairs.parquet from the training window alone, and validation-pairs.parquet for
    watching stage two.

    Validation pairs come from the log before the test window, each of a training and a validation
    track; neither table holds a test track. options: where it runs.
    DataError if the log is empty, or if something held out could reach training: see
    `check_no_leak`. The caller holds the library's lock.
    """
    scan_interactions(folder)  # says so if there is none, or it is damaged
    splits, duplicates = current_splits(folder)
    save_splits(folder, splits)
    if not has_rows(folder.interactions):
        raise DataError(
            "the log holds no event yet (see skipped.csv)",
            code="no_log",
            remedy="ponticello import-history FILE",
            library=folder.root,
        )
    tracks = read_tracks(folder)
    seen, unseen = with_role(splits, "train", "validation"), with_role(splits, "validation")
    config = folder.config.pairs
    with open_engine(options) as engine:
        log = library_log(engine, folder, with_role(splits, "train"), training_window(splits))
        pairs, funnel = mine_sources(log, config)
        notes = check_no_leak(splits, tracks, pairs, _last_events(log), duplicates)
    with open_engine(options) as engine:
        log = library_log(engine, folder, seen, window_before_test(splits))
        validation, _ = mine_sources(log, config)
    validation = validation.filter(
        pl.col(ANCHOR_ID).is_in(unseen) != pl.col(POSITIVE_ID).is_in(unseen)
    )
    write_pairs(folder, pairs)
    with atomic_write(folder.validation_pairs) as temporary:
        validation.write_parquet(temporary, compression="zstd")
    return MiningResult(len(pairs), len(validation), funnel, splits, tuple(notes))


def mine_test_pairs(folder: LibraryPaths, options: EngineOptions | None = None) -> pl.DataFrame:
    """Pairs of a training track (the anchor) and a test track (the positive), for measuring only;
    nothing is written.

    Mined from the whole log without the validation tracks, under the same settings as the training
    pairs, and as those in (anchor_id, positive_id, n_users, weight, source), sorted by the ids. A
    pair that several sources or both
    directions found is one row: the most listeners any of them counted, the sum of the weights, and
    the sources' names joined by "+".

    LibraryError: there is no log, or there are no splits yet.
    """
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError(
            f"{folder.root} has no splits yet",
            code="no_splits",
            remedy="ponticello mine-pairs",
            library=folder.root,
        )
    heard, test = with_role(splits, "train", "test"), with_role(splits, "test")
    with open_engine(options) as engine:
        log = library_log(engine, folder, heard, Window())
        pairs, _ = mine_sources(log, folder.config.pairs)
    anchored, reached = pl.col(ANCHOR_ID).is_in(test), pl.col(POSITIVE_ID).is_in(test)
    pairs = pairs.filter(anchored != reached).with_columns(
        pl.when(anchored).then(POSITIVE_ID).otherwise(ANCHOR_ID).alias(ANCHOR_ID),
        pl.when(anchored).then(ANCHOR_ID).otherwise(POSITIVE_ID).alias(POSITIVE_ID),
    )
    merged = pairs.group_by(ANCHOR_ID, POSITIVE_ID).agg(
        pl.col(N_USERS).max(),
        pl.col(WEIGHT).sort().sum(),
        pl.col(SOURCE).unique().sort().str.join("+"),
    )
    return merged.select(pairs.columns).sort(ANCHOR_ID, POSITIVE_ID)


def find_duplicates(folder: LibraryPaths, splits: Splits | None) -> pl.DataFrame | None:
    """`near_duplicates` of all tracks that are held out or have no role yet; None before anything
    is prepared.

    Two training tracks of one recording are not looked for: they do no harm. LibraryError: the mels
    were prepared with other settings, so that the length of their frames is not known.
    """
    if not (folder.mels / MANIFEST).exists():
        return None
    store, settled = FeatureStore(folder.mels), set(with_role(splits, "train")) if splits else set()
    if store.track_ids:
        from ponticello.audio.mel import (
            mel_key,  # which loads scipy.signal, for a second that other steps need not wait
        )

        store.require(mel_key(folder.config.mel))
    asked = [track_id for track_id in store.track_ids if track_id not in settled]
    return near_duplicates(store, asked, hop_s=folder.config.mel.hop_s)


def current_splits(folder: LibraryPaths) -> tuple[Splits, pl.DataFrame | None]:
    """The library's splits up to date, not saved, and what is known of tracks of one recording."""
    interactions = scan_interactions(folder) if folder.interactions.is_file() else None
    previous, config = load_splits(folder), folder.config
    duplicates, tracks = find_duplicates(folder, previous), read_tracks(folder)
    with wrap_read_errors(folder.interactions):
        splits = make_splits(
            tracks,
            interactions,
            config.splits,
            previous,
            duplicates=duplicates,
            session_gap_min=config.pairs.session_gap_min,
        )
    return splits, duplicates


def library_log(
    engine: Engine, folder: LibraryPaths, tracks: Collection[str], window: Window
) -> Log:
    """The library's log on `tracks` within `window`, numbered; a trigger that is none of `tracks`
    is forgotten.
    """
    scan_interactions(folder)  # says so if there is none, or it is damaged
    ids = pl.Series(TRACK_ID, sorted(tracks), dtype=pl.String)
    with wrap_read_errors(folder.interactions):
        events = complete_events(engine.read(folder.interactions))
        return number_log(engine, events, ids, window)


def _last_events(log: Log) -> pl.DataFrame:
    """(user_id, track_id, played_at): the last event of every listener and of every track.

    If anything held out is in the log, one of these shows it.
    """
    events = log.whole()
    last = events[AT].max()
    of_listeners = events.group_by(USER_ID).agg(
        **{TRACK_ID: events[TRACK_ID].argmax(events[AT]), AT: last}
    )
    of_tracks = events.group_by(TRACK_ID).agg(
        **{USER_ID: events[USER_ID].argmax(events[AT]), AT: last}
    )
    both = of_listeners.select(USER_ID, TRACK_ID, AT).union(of_tracks.select(USER_ID, TRACK_ID, AT))
    rows = log.engine.frame(both.join(log.listeners, both[USER_ID] == log.listeners[NUMBER]))
    return rows.select(
        pl.col(f"{USER_ID}_right").alias(USER_ID),
        pl.Series(TRACK_ID, log.tracks.gather(rows[TRACK_ID])),
        pl.col(AT).cast(pl.Datetime("us", "UTC")).alias(PLAYED_AT),
    ).sort(PLAYED_AT, USER_ID, TRACK_ID)
