"""Mines a library's pairs: from a listening log to tracks that several users confirm as related.

    events -> feedback, session, playlist and cooccurrence pairs (`pairs/rules.py`)
           -> one row per user and pair -> cap per user -> count users -> minimum of users
           -> lift of cooccurrence pairs -> cap per track -> pairs

The rules are ibis expressions without functions of a single engine, so DuckDB and Spark run the
same ones. Equal logs give equal pairs whatever the order of rows, the number of threads and the
engine: every window has a complete order, and weights are added as integers, because sums of
floats depend on the order.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import polars as pl

from ponticello.config import PairsConfig
from ponticello.errors import ConfigError, DataError
from ponticello.features.fingerprint import near_duplicates
from ponticello.features.store import MANIFEST, FeatureStore
from ponticello.listening.log import scan_interactions
from ponticello.pairs.count import cap_tracks, count_pairs, filter_by_lift
from ponticello.pairs.engine import Engine, EngineOptions, open_engine
from ponticello.pairs.events import (
    AT,
    USER_NUMBER,
    WEIGHT_UNIT,
    EncodedLog,
    encode_log,
    fill_columns,
)
from ponticello.pairs.rules import SOURCES
from ponticello.splits.leakage import check_no_leak
from ponticello.splits.splits import (
    Splits,
    Until,
    end_of_training,
    end_of_validation,
    load_splits,
    make_splits,
    save_splits,
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
from ponticello.storage.tables import count_rows, read_parquet, wrap_read_errors, write_parquet
from ponticello.tracks.catalog import read_tracks

PAIRS_SCHEMA = {
    ANCHOR_ID: pl.String(),
    POSITIVE_ID: pl.String(),
    N_USERS: pl.Int64(),
    WEIGHT: pl.Float64(),
    SOURCE: pl.String(),
}
_FUNNEL_SOURCES = ("feedback", "session", "playlist", "cooccurrence")


@dataclass(frozen=True)
class MiningFunnel:
    """Rows after each step of mining, in order, and the settings of the steps."""

    steps: tuple[tuple[str, int], ...]
    config: PairsConfig

    def lines(self) -> list[str]:
        """Returns a line per step: the rows left, and the rows dropped with the reason."""
        config = self.config
        reasons = {
            "positive events": f"skips, dislikes and plays under {config.min_played_s:g} s",
            "within the cap per user": f"over {config.max_pairs_per_user:,} per user and source",
            "with enough users": f"fewer than {config.min_users} users",
            "above chance": "liked together no more often than by chance",
            "within the cap per track": f"over {config.max_pairs_per_track:,} per track",
        }
        lines = []
        n_before = 0
        for step, n in self.steps:
            dropped = f"  ({n_before - n:,} dropped: {reasons[step]})" if step in reasons else ""
            lines.append(f"{n:>13,}  {step}{dropped}")
            n_before = n
        if config.min_users < 3:
            lines.append(
                f"Careful: with min_users at {config.min_users} a pair may rest on, and reveal, "
                "one person; set it to 3 or more before you share the pairs, or a model trained "
                "on them."
            )
        return lines


@dataclass(frozen=True)
class MiningResult:
    """What `mine_library` did. notes: sentences on what official splits let through."""

    n_pairs: int
    n_validation_pairs: int
    funnel: MiningFunnel
    splits: Splits
    notes: tuple[str, ...] = ()


def mine_library(folder: LibraryPaths, options: EngineOptions | None = None) -> MiningResult:
    """Writes pairs.parquet from the training window, and validation-pairs.parquet for stage two.

    Validation pairs come from the log before the test window and connect a training with a
    validation track. The caller holds the library's lock. DataError if the log is empty, or if
    held-out data could reach training (`check_no_leak`).
    """
    scan_interactions(folder)  # raises if the log is missing or damaged
    splits, duplicates = current_splits(folder)
    save_splits(folder, splits)
    if not count_rows(folder.interactions):
        raise DataError(
            "the log holds no event yet (see skipped.csv)",
            code="no_log",
            remedy="ponticello import-history FILE",
            library=folder.root,
        )
    tracks = read_tracks(folder)
    validation_ids = with_role(splits, "validation")
    config = folder.config.pairs
    with open_engine(options) as engine:
        train_ids = with_role(splits, "train")
        log = encode_library_log(engine, folder, train_ids, end_of_training(splits))
        pairs, funnel = mine_log(log, config)
        notes = check_no_leak(splits, tracks, pairs, _last_events(log), duplicates)
    with open_engine(options) as engine:
        seen_ids = with_role(splits, "train", "validation")
        log = encode_library_log(engine, folder, seen_ids, end_of_validation(splits))
        validation_pairs, _ = mine_log(log, config)
    is_validation_anchor = pl.col(ANCHOR_ID).is_in(validation_ids)
    is_validation_positive = pl.col(POSITIVE_ID).is_in(validation_ids)
    validation_pairs = validation_pairs.filter(is_validation_anchor != is_validation_positive)
    write_pairs(folder, pairs)
    write_parquet(folder.validation_pairs, validation_pairs)
    return MiningResult(len(pairs), len(validation_pairs), funnel, splits, tuple(notes))


def mine_test_pairs(folder: LibraryPaths) -> pl.DataFrame:
    """Returns pairs of a training track (anchor) and a test track (positive), for evaluation only.

    They are mined from the whole log without the validation tracks, with the settings of the
    training pairs: (anchor_id, positive_id, n_users, weight, source), sorted by the ids. A pair of
    several sources or both directions is one row: the highest n_users, the sum of the weights, and
    the names of the sources joined by "+". Writes no file.

    Raises LibraryError without a log or splits.
    """
    splits = load_splits(folder)
    if splits is None:
        raise folder.lacks("splits yet", "no_splits", "ponticello mine-pairs")
    test_ids = with_role(splits, "test")
    with open_engine() as engine:
        log = encode_library_log(engine, folder, with_role(splits, "train", "test"), None)
        pairs, _ = mine_log(log, folder.config.pairs)
    is_test_anchor = pl.col(ANCHOR_ID).is_in(test_ids)
    pairs = pairs.filter(is_test_anchor != pl.col(POSITIVE_ID).is_in(test_ids))
    pairs = pairs.with_columns(
        pl.when(is_test_anchor).then(POSITIVE_ID).otherwise(ANCHOR_ID).alias(ANCHOR_ID),
        pl.when(is_test_anchor).then(ANCHOR_ID).otherwise(POSITIVE_ID).alias(POSITIVE_ID),
    )
    merged = pairs.group_by(ANCHOR_ID, POSITIVE_ID).agg(
        pl.col(N_USERS).max(),
        pl.col(WEIGHT).sort().sum(),
        pl.col(SOURCE).unique().sort().str.join("+"),
    )
    return merged.select(pairs.columns).sort(ANCHOR_ID, POSITIVE_ID)


def mine_log(log: EncodedLog, config: PairsConfig) -> tuple[pl.DataFrame, MiningFunnel]:
    """Returns the pairs of a log: (anchor_id, positive_id, n_users, weight, source).

    n_users: distinct users behind the pair, at least `min_users`. weight: sum over their events of
        the later event's weight (1 if null), rounded to millionths.
    Rows are sorted by anchor_id, positive_id, source, with a row for each source of a pair.

    Raises ConfigError without sources. Cost: seconds for a million events; docs/benchmarks.md,
    "Pairs at any size".
    """
    if not config.sources:
        raise ConfigError(
            "pairs.sources is empty; name at least one of feedback, session, playlist, cooccurrence"
        )
    engine = log.engine
    pairs, likes, counts = count_pairs(log, config)
    steps = _counted_steps(counts, config)
    steps.append(("with enough users", engine.count_rows(pairs)))
    if "cooccurrence" in config.sources:
        likely = filter_by_lift(pairs, likes, counts["users"], config.min_lift)
        pairs = engine.materialize(likely, "likely")
    steps.append(("above chance", engine.count_rows(pairs)))
    capped = engine.to_polars(cap_tracks(pairs, config.max_pairs_per_track))
    steps.append(("within the cap per track", len(capped)))
    return _decode_pairs(capped, log.tracks), MiningFunnel(tuple(steps), config)


def _counted_steps(counts: Counter[str], config: PairsConfig) -> list[tuple[str, int]]:
    steps = [("events", counts["events"]), ("positive events", counts["positive"])]
    for source in _FUNNEL_SOURCES:
        if source in config.sources:
            steps.append((f"{source} candidates", counts[source]))
    if "playlist" in config.sources:
        too_long = f"playlists left out, over {config.max_playlist_tracks} tracks"
        steps.append((too_long, counts["too long"]))
    steps.append(("candidates", sum(counts[source] for source in SOURCES)))
    steps.append(("within the cap per user", counts["within cap"]))
    steps.append(("pairs", counts["pairs"]))
    return steps


def _decode_pairs(encoded: pl.DataFrame, tracks: pl.Series) -> pl.DataFrame:
    encoded = encoded.sort(ANCHOR_ID, POSITIVE_ID, SOURCE)
    return pl.DataFrame(
        {
            ANCHOR_ID: tracks.gather(encoded[ANCHOR_ID]),
            POSITIVE_ID: tracks.gather(encoded[POSITIVE_ID]),
            N_USERS: encoded[N_USERS],
            WEIGHT: encoded[WEIGHT] / WEIGHT_UNIT,
            SOURCE: pl.Series(SOURCES, dtype=pl.String).gather(encoded[SOURCE]),
        },
        schema=PAIRS_SCHEMA,
    )


def write_pairs(folder: LibraryPaths, pairs: pl.DataFrame) -> None:
    """Writes pairs.parquet atomically; equal rows in equal order give equal bytes."""
    table = pairs.cast(pl.Schema(PAIRS_SCHEMA)).select(list(PAIRS_SCHEMA)).rechunk()
    with atomic_write(folder.pairs) as temporary:
        table.write_parquet(temporary, compression="zstd", row_group_size=2**17)


def read_pairs(folder: LibraryPaths) -> pl.DataFrame:
    """Reads pairs.parquet, with the columns of `PAIRS_SCHEMA`.

    LibraryError if pairs were never mined, DataError if the file is damaged.
    """
    if not folder.pairs.is_file():
        raise folder.lacks("pairs yet", "no_pairs", "ponticello mine-pairs")
    try:
        table = read_parquet(folder.pairs, "it")
        return table.select(pl.col(name).cast(kind) for name, kind in PAIRS_SCHEMA.items())
    except (DataError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{folder.pairs.name} cannot be read ({error}); mine the pairs again"
        ) from None


def refresh_splits(folder: LibraryPaths) -> Splits:
    """Brings the library's splits up to date, saves and returns them.

    Tracks keep their role, new ones get one, and the moments follow the log. A new track with a
    log-mel gets the role of the same recording. The caller holds the library's lock.
    Errors as `make_splits`; cost as `near_duplicates`.
    """
    splits, _ = current_splits(folder)
    save_splits(folder, splits)
    return splits


def current_splits(folder: LibraryPaths) -> tuple[Splits, pl.DataFrame | None]:
    """Returns the library's splits up to date, not saved, and the result of `find_duplicates`."""
    interactions = scan_interactions(folder) if folder.interactions.is_file() else None
    previous = load_splits(folder)
    duplicates = find_duplicates(folder, previous)
    tracks = read_tracks(folder)
    with wrap_read_errors(folder.interactions):
        splits = make_splits(
            tracks,
            interactions,
            folder.config.splits,
            previous,
            duplicates=duplicates,
            session_gap_min=folder.config.pairs.session_gap_min,
        )
    return splits, duplicates


def find_duplicates(folder: LibraryPaths, splits: Splits | None) -> pl.DataFrame | None:
    """Returns `near_duplicates` of all tracks without the role train; None if none is prepared.

    Duplicates among training tracks do no harm. Raises LibraryError if the log-mels were prepared
    with other settings, since the length of their frames is unknown.
    """
    if not (folder.mels / MANIFEST).exists():
        return None
    store = FeatureStore(folder.mels)
    if store.track_ids:
        from ponticello.audio.mel import mel_key  # imports the decoders

        store.require(mel_key(folder.config.mel))
    train_ids = set(with_role(splits, "train")) if splits else set()
    searched = [track_id for track_id in store.track_ids if track_id not in train_ids]
    return near_duplicates(store, searched, hop_s=folder.config.mel.hop_s)


def encode_library_log(
    engine: Engine, folder: LibraryPaths, tracks: Collection[str], until: Until
) -> EncodedLog:
    """Encodes the library's events of `tracks` before `until`, as `encode_log`."""
    scan_interactions(folder)  # raises if the log is missing or damaged
    track_ids = pl.Series(TRACK_ID, sorted(tracks), dtype=pl.String)
    with wrap_read_errors(folder.interactions):
        events = fill_columns(engine.read([folder.interactions]))
        return encode_log(engine, events, track_ids, until)


def _last_events(log: EncodedLog) -> pl.DataFrame:
    """Returns the last event of every user and track: one is held out if any is."""
    events = log.events()
    last_at = events[AT].max()
    last_track = events[TRACK_ID].argmax(events[AT])
    last_user = events[USER_ID].argmax(events[AT])
    of_users = events.group_by(USER_ID).agg({TRACK_ID: last_track, AT: last_at})
    of_tracks = events.group_by(TRACK_ID).agg({USER_ID: last_user, AT: last_at})
    both = of_users.select(USER_ID, TRACK_ID, AT).union(of_tracks.select(USER_ID, TRACK_ID, AT))
    joined = both.join(log.users, both[USER_ID] == log.users[USER_NUMBER])
    rows = log.engine.to_polars(joined)
    return rows.select(
        pl.col(f"{USER_ID}_right").alias(USER_ID),
        pl.Series(TRACK_ID, log.tracks.gather(rows[TRACK_ID])),
        pl.col(AT).cast(pl.Datetime("us", "UTC")).alias(PLAYED_AT),
    ).sort(PLAYED_AT, USER_ID, TRACK_ID)
