"""From a listening log to pairs of tracks that several listeners confirmed belong together.

    events -> feedback  the track that set off another and the one then liked; directed
           -> session   neighbours in one sitting                            ; anchor_id < positive_id
           -> playlist  members of one playlist                              ; anchor_id < positive_id
           -> cooccurrence  liked by one listener, more than chance has it   ; anchor_id < positive_id
           -> one row a listener and pair -> cap a listener -> count listeners -> cap a track -> pairs

The rules are ibis expressions and use nothing that only DuckDB has, so that a cluster can run the same ones. Equal logs
give equal pairs whatever the order of the rows and the number of threads: every window orders its rows completely, ids
breaking ties, and weights are added as whole millionths, because sums of floats depend on the order of adding.
"""

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from ponticello.config import PairsConfig
from ponticello.data.columns import (
    ANCHOR_ID,
    CONTEXT_TRACK_ID,
    EVENT,
    N_USERS,
    PLAYED_AT,
    PLAYED_S,
    POSITIVE_ID,
    SESSION_ID,
    SOURCE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)
from ponticello.data.evidence import (
    AT,
    PLAYLIST_LIMIT,
    cooccurrence_events,
    feedback_events,
    liked_tracks,
    playlist_events,
    playlist_members,
    positive_events,
    session_events,
)
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.library import Folder, replacing

if TYPE_CHECKING:
    import ibis.expr.types as ir

WEIGHT_UNIT = 1_000_000  # weights count in whole millionths
WEIGHT_LIMIT = 1_000_000  # of one event, so that millions of them still add up within 64 bits

_EVENTS_SCHEMA = {
    USER_ID: pl.String(),
    TRACK_ID: pl.String(),
    PLAYED_AT: pl.Datetime("us", "UTC"),
    EVENT: pl.String(),
    PLAYED_S: pl.Float64(),
    WEIGHT: pl.Float64(),
    CONTEXT_TRACK_ID: pl.String(),
    SESSION_ID: pl.String(),
}
PAIRS_SCHEMA = {
    ANCHOR_ID: pl.String(),
    POSITIVE_ID: pl.String(),
    N_USERS: pl.Int64(),
    WEIGHT: pl.Float64(),
    SOURCE: pl.String(),
}
_PAIR = [ANCHOR_ID, POSITIVE_ID, SOURCE]


@dataclass(frozen=True)
class Funnel:
    """How many were left after each step of mining, in order, and the settings that decided it."""

    steps: tuple[tuple[str, int], ...]
    config: PairsConfig

    def lines(self) -> list[str]:
        """One readable line a step: what is left, and what was dropped there and why."""
        counts, config = dict(self.steps), self.config
        per_listener = f"over {config.max_pairs_per_user:,} of one listener and source"
        reasons = {
            "positive events": ("events", f"skips, dislikes and plays under {config.min_played_s:g} s"),
            "after the cap a listener": ("candidates", per_listener),
            "with enough listeners": ("pairs", f"fewer than {config.min_listeners} listeners"),
            "likelier than chance": ("with enough listeners", "liked together no more than chance has it"),
            "after the cap a track": ("likelier than chance", f"over {config.max_pairs_per_track:,} of one track"),
        }
        lines = []
        for step, n in self.steps:
            before, reason = reasons.get(step, (step, ""))
            dropped = f"  ({counts[before] - n:,} dropped: {reason})" if reason else ""
            lines.append(f"{n:>13,}  {step}{dropped}")
        if config.min_listeners < 3:
            lines.append(
                f"Careful: with min_listeners at {config.min_listeners} a pair may rest on, and reveal, one person; "
                "set it to 3 or more before you share the pairs, or a model trained on them."
            )
        return lines


def mine_pairs(events: pl.DataFrame, config: PairsConfig) -> tuple[pl.DataFrame, Funnel]:
    """The pairs of `events` as (anchor_id, positive_id, n_users, weight, source), and how many each rule left.

    events: the interactions columns, limited by the caller to the moments and tracks that may be learned from;
        DataError if a column is missing, a user, track, moment or event is null, or a weight is NaN or beyond a
        million. config: ConfigError if it names no source.
    n_users: distinct listeners behind the pair, at least `min_listeners`. weight: the sum, over their events, of the
        later event's weight (1 where it has none), rounded to millionths.
    Rows are sorted by anchor_id, positive_id, source; a pair found by two sources has a row for each.
    Cost: the table of candidates is held in memory; seconds for a million events.
    """
    import ibis

    if not config.sources:
        raise ConfigError("pairs.sources is empty; name at least one of feedback, session, playlist")
    log = _as_log(events)
    with tempfile.TemporaryDirectory() as spill:
        connection = ibis.duckdb.connect(
            temp_directory=spill, autoinstall_known_extensions=False, autoload_known_extensions=False
        )
        try:
            return _mine(connection, ibis.memtable(log.to_arrow()), config)
        finally:
            connection.disconnect()


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
        table = pl.read_parquet(folder.pairs)
        return table.select(pl.col(name).cast(kind) for name, kind in PAIRS_SCHEMA.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{folder.pairs.name} cannot be read ({error}); mine the pairs again") from None


def _one_row_a_listener(pair_events: "ir.Table") -> "ir.Table":
    """Each listener's distinct pairs, with the weight they gave it in all and the moment they last did."""
    return pair_events.group_by([USER_ID, *_PAIR]).agg(
        **{AT: pair_events[AT].max(), WEIGHT: pair_events[WEIGHT].sum().cast("int64")}
    )


def _cap_listeners(candidates: "ir.Table", limit: int) -> "ir.Table":
    """The latest `limit` pairs of each listener and source."""
    import ibis

    latest = ibis.window(group_by=[USER_ID, SOURCE], order_by=[candidates[AT].desc(), *_PAIR])
    ranked = candidates.mutate(rank=ibis.row_number().over(latest))
    return ranked.filter(ranked["rank"] < limit).drop("rank")


def _count_listeners(candidates: "ir.Table") -> "ir.Table":
    """Each pair with the listeners behind it, each of whom has one row a pair, and their weight in all."""
    return candidates.group_by(_PAIR).agg(
        **{N_USERS: candidates.count(), WEIGHT: candidates[WEIGHT].sum().cast("int64")}
    )


def _cap_tracks(pairs: "ir.Table", limit: int) -> "ir.Table":
    """The pairs that rank within `limit` for both their tracks, among all of a track's pairs of that source.

    A track's pairs are those it stands in, on either side, strongest first, then by n_users, weight and ids; so no
    track keeps more than `limit` a source. Strength is n_users squared over the listeners of all the partner's pairs:
    a hit shares listeners with everybody, which says little.
    """
    import ibis

    left = pairs.mutate(end=pairs[ANCHOR_ID], other=pairs[POSITIVE_ID])
    ends = left.union(pairs.mutate(end=pairs[POSITIVE_ID], other=pairs[ANCHOR_ID]))
    totals = ends.group_by(["end", SOURCE]).agg(total=ends[N_USERS].sum()).rename(other="end")
    ends = ends.join(totals, ["other", SOURCE])
    strength = ends[N_USERS] * ends[N_USERS] / ends["total"]
    order = [strength.desc(), ends[N_USERS].desc(), ends[WEIGHT].desc(), ANCHOR_ID, POSITIVE_ID]
    ranked = ends.mutate(rank=ibis.row_number().over(ibis.window(group_by=["end", SOURCE], order_by=order)))
    kept = ranked.filter(ranked["rank"] < limit)
    kept = kept.group_by([*_PAIR, N_USERS, WEIGHT]).agg(n_ends=kept.count())
    return kept.filter(kept["n_ends"] == 2).drop("n_ends")


def _mine(connection: Any, log: "ir.Table", config: PairsConfig) -> tuple[pl.DataFrame, Funnel]:
    """Runs the rules; what two steps need is computed once and handed on as Arrow."""
    import ibis

    positives, members = positive_events(log, config.min_played_s), playlist_members(log)
    liked = liked_tracks(positives)
    mined = {
        "feedback": feedback_events(positives),
        "session": session_events(log, config.min_played_s, config.session_gap_min),
        "playlist": playlist_events(members),
        "cooccurrence": cooccurrence_events(liked),
    }
    mined = {source: found for source, found in mined.items() if source in config.sources}
    candidates = ibis.union(*[_one_row_a_listener(found) for found in mined.values()])
    candidates = ibis.memtable(connection.to_pyarrow(candidates))
    by_source = connection.to_polars(candidates.group_by(SOURCE).agg(n=candidates.count()))
    n_found = dict(by_source.select(SOURCE, "n").iter_rows())

    counted = connection.to_polars(_count_listeners(_cap_listeners(candidates, config.max_pairs_per_user)))
    confirmed = counted.filter(pl.col(N_USERS) >= config.min_listeners)
    likely = _above_chance(confirmed, connection.to_polars(liked)) if "cooccurrence" in mined else confirmed
    kept = connection.to_polars(_cap_tracks(ibis.memtable(likely.to_arrow()), config.max_pairs_per_track))
    pairs = kept.with_columns(pl.col(WEIGHT) / WEIGHT_UNIT)
    pairs = pairs.select(pl.col(name).cast(kind) for name, kind in PAIRS_SCHEMA.items())

    steps = [("events", _count(connection, log)), ("positive events", _count(connection, positives))]
    steps += [(f"{source} candidates", n_found.get(source, 0)) for source in mined]
    if "playlist" in mined:
        too_long = members.filter(members["n_tracks"] > PLAYLIST_LIMIT).select(USER_ID, SESSION_ID).distinct()
        steps.append((f"playlists left out, over {PLAYLIST_LIMIT} tracks", _count(connection, too_long)))
    steps += [
        ("candidates", sum(n_found.values())),
        ("after the cap a listener", int(counted[N_USERS].sum())),  # a candidate is one listener of one pair
        ("pairs", len(counted)),
        ("with enough listeners", len(confirmed)),
        ("likelier than chance", len(likely)),
        ("after the cap a track", len(pairs)),
    ]
    return pairs.sort(ANCHOR_ID, POSITIVE_ID, SOURCE), Funnel(tuple(steps), config)


def _above_chance(pairs: pl.DataFrame, liked: pl.DataFrame) -> pl.DataFrame:
    """Leaves out co-liked pairs with a lift of 1 or less: no more listeners than two independent tracks would share."""
    listeners = liked.group_by(TRACK_ID).len()
    n_listeners = liked[USER_ID].n_unique()
    for end in (ANCHOR_ID, POSITIVE_ID):
        pairs = pairs.join(listeners.rename({TRACK_ID: end, "len": f"n_{end}"}), on=end, how="left")
    expected = pl.col(f"n_{ANCHOR_ID}") * pl.col(f"n_{POSITIVE_ID}")
    is_likely = (pl.col(SOURCE) != "cooccurrence") | (pl.col(N_USERS) * n_listeners > expected)
    return pairs.filter(is_likely).drop(f"n_{ANCHOR_ID}", f"n_{POSITIVE_ID}")


def _count(connection: Any, table: "ir.Table") -> int:
    return int(connection.to_pyarrow(table.count()).as_py())


def _as_log(events: pl.DataFrame) -> pl.DataFrame:
    """`events` checked, of one type a column, with its moment and its weight as whole numbers."""
    missing = [name for name in _EVENTS_SCHEMA if name not in events.columns]
    if missing:
        raise DataError(f"interactions: column {missing[0]!r} is missing; found {', '.join(events.columns)}")
    events = events.select(pl.col(name).cast(kind) for name, kind in _EVENTS_SCHEMA.items())
    for name in (USER_ID, TRACK_ID, PLAYED_AT, EVENT):
        if events[name].null_count():
            raise DataError(f"interactions: {events[name].null_count()} rows lack {name!r}; import the history again")
    if not (events[WEIGHT].abs() <= WEIGHT_LIMIT).all():  # NaN is not; null is passed over
        raise DataError(f"interactions: column 'weight' must lie within ±{WEIGHT_LIMIT:,}; correct the history")
    weight = (pl.col(WEIGHT).fill_null(1.0) * WEIGHT_UNIT).round().cast(pl.Int64)
    return events.with_columns(weight, pl.col(PLAYED_AT).to_physical().alias(AT)).drop(PLAYED_AT)
