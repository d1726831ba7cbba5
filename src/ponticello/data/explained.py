"""Why two tracks are a pair, or are none: the evidence of each source, what chance has, and which rule decided."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import polars as pl

from ponticello.config import PairsConfig
from ponticello.data.candidates import listeners_pairs, with_listener_cap
from ponticello.data.caps import IS_WITHIN, PAIR
from ponticello.data.catalog import read_tracks
from ponticello.data.columns import (
    ANCHOR_ID,
    CONTEXT_TRACK_ID,
    N_USERS,
    POSITIVE_ID,
    SOURCE,
    TRACK_ID,
    USER_ID,
    WEIGHT,
)
from ponticello.data.engine import EngineOptions, open_engine
from ponticello.data.evidence import SOURCES, liked_tracks, positive_events
from ponticello.data.log import WEIGHT_UNIT, Log
from ponticello.data.mining import library_log
from ponticello.data.pairs import read_pairs
from ponticello.data.splits import load_splits, training_window, with_role
from ponticello.errors import DataError, LibraryError
from ponticello.library import Folder

if TYPE_CHECKING:
    import ibis.expr.types as ir

_N_WITHIN = "n_within"
STALE = "pairs.parquet says otherwise: it was mined from another log or with other settings; run: ponticello pairs"


@dataclass(frozen=True)
class Evidence:
    """What one source says of a pair in one direction.

    n_listeners: who say so; n_within: for how many of them the pair is within the cap a listener. weight: of those.
    verdict: "kept", or "cut: ..." with the rule.
    """

    source: str
    anchor_id: str
    positive_id: str
    n_listeners: int
    n_within: int
    weight: float
    verdict: str


@dataclass(frozen=True)
class Explanation:
    """Everything the training window says of two tracks.

    n_one, n_other: listeners who like either track, of `n_all` who like any; expected: who would like both by chance.
    """

    evidence: tuple[Evidence, ...]
    n_one: int
    n_other: int
    n_all: int

    @property
    def expected(self) -> float:
        """Listeners that two independent tracks would share."""
        return self.n_one * self.n_other / self.n_all if self.n_all else 0.0


def explain_pair(folder: Folder, one: str, other: str, options: EngineOptions | None = None) -> Explanation:
    """Why `one` and `other` are in pairs.parquet or not, by the settings of `folder`; nothing is written.

    DataError: a track that is not in the catalogue, or is held out and so in no training pair. LibraryError: there are
    no splits, pairs or log yet. Cost: a pass over the log and the windows of its likes, less than half of mining.
    """
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError(f"{folder.root} has no splits yet; make them with: ponticello pairs -L {folder.root}")
    known = set(read_tracks(folder)[TRACK_ID])
    if one == other:
        raise DataError(f"{one!r} is named twice; name two tracks")
    for track_id in (one, other):
        if track_id not in known:
            raise DataError(f"track {track_id!r} is not in the catalogue; check the id in {folder.tracks}")
        if splits.roles.get(track_id) != "train":
            role = splits.roles.get(track_id, "without a role")
            raise DataError(f"track {track_id!r} is held out ({role}), so it is in no training pair")
    mined, config = read_pairs(folder), folder.config.pairs
    with open_engine(options) as engine:
        log = library_log(engine, folder, with_role(splits, "train"), training_window(splits))
        numbers = [int(log.tracks.search_sorted(track_id)) for track_id in (one, other)]
        said, liked, n_all = _said(log, numbers, config)
    n_one, n_other = (liked.get(number, 0) for number in numbers)
    facts = Explanation((), n_one, n_other, n_all)
    evidence = []
    for source, anchor, positive, n_listeners, n_within, weight in said.iter_rows():
        row = (log.tracks[anchor], log.tracks[positive], n_within, weight / WEIGHT_UNIT, SOURCES[source])
        verdict = _verdict(row, facts, mined, config)
        evidence.append(Evidence(row[4], row[0], row[1], n_listeners, n_within, row[3], verdict))
    return replace(facts, evidence=tuple(evidence))


def _said(log: Log, numbers: list[int], config: PairsConfig) -> tuple[pl.DataFrame, dict[int, int], int]:
    """The rows of `Evidence` with numbers and without verdicts; who likes which of the two; who likes any."""
    engine, n_all = log.engine, 0
    rows = [pl.DataFrame(schema=dict.fromkeys(PAIR, pl.Int64) | dict.fromkeys((N_USERS, _N_WITHIN, WEIGHT), pl.Int64))]
    likers = [pl.DataFrame(schema={TRACK_ID: pl.Int64, N_USERS: pl.Int64})]
    for number, part in enumerate(log.parts()):
        liked = engine.keep(liked_tracks(positive_events(part, config.min_played_s)), f"likes-{number}")
        n_all += int(engine.row(liked.aggregate(n=liked[USER_ID].nunique()))["n"])
        of_two = liked.filter(liked[TRACK_ID].isin(numbers))
        likers.append(engine.frame(of_two.group_by(TRACK_ID).agg(**{N_USERS: of_two.count()})))
        events = engine.keep(_of_listeners_of_both(part, numbers), f"both-{number}")
        for source, found in listeners_pairs(engine, events, config, f"both-{number}")[0].items():
            capped = with_listener_cap(found, source, config.max_pairs_per_user)
            two = capped.filter(capped[ANCHOR_ID].isin(numbers) & capped[POSITIVE_ID].isin(numbers))
            is_within = two[IS_WITHIN].cast("int64")
            sums = {N_USERS: two.count(), _N_WITHIN: is_within.sum(), WEIGHT: (two[WEIGHT] * is_within).sum()}
            rows.append(engine.frame(two.group_by(PAIR).agg(**sums)))
    wide = [table.select(pl.all().cast(pl.Int64)) for table in rows]
    said = pl.concat(wide).group_by(PAIR).agg(pl.sum(N_USERS, _N_WITHIN, WEIGHT)).sort(SOURCE, ANCHOR_ID, POSITIVE_ID)
    counts = pl.concat([table.select(pl.col(TRACK_ID, N_USERS).cast(pl.Int64)) for table in likers])
    known = counts.group_by(TRACK_ID).agg(pl.sum(N_USERS))
    order = [*PAIR[2:], *PAIR[:2], N_USERS, _N_WITHIN, WEIGHT]
    return said.select(order), dict(known.iter_rows()), n_all


def _of_listeners_of_both(events: "ir.Table", numbers: list[int]) -> "ir.Table":
    """All events of the listeners who met both tracks: nobody else can stand behind the pair."""
    for number in numbers:
        met = events.filter((events[TRACK_ID] == number) | (events[CONTEXT_TRACK_ID] == number).fill_null(False))
        events = events.semi_join(met.select(USER_ID).distinct(), USER_ID)
    return events


def _verdict(
    row: tuple[str, str, int, float, str], facts: Explanation, mined: pl.DataFrame, config: PairsConfig
) -> str:
    """The first rule that cuts the pair, in the order of mining; else what pairs.parquet says."""
    anchor_id, positive_id, n_listeners, weight, source = row
    same = (pl.col(ANCHOR_ID) == anchor_id) & (pl.col(POSITIVE_ID) == positive_id) & (pl.col(SOURCE) == source)
    stored = mined.filter(same).select(N_USERS, WEIGHT).rows()
    expected = facts.n_one * facts.n_other * config.min_lift
    cut = ""
    if n_listeners < config.min_listeners:
        cut = f"cut: fewer than {config.min_listeners} listeners"
    elif source == "cooccurrence" and n_listeners * facts.n_all <= expected:
        more = "" if config.min_lift == 1 else f" by {config.min_lift:g}"
        cut = f"cut: no likelier than chance has it{more}"
    elif config.max_listener_share < 1 and max(facts.n_one, facts.n_other) > config.max_listener_share * facts.n_all:
        cut = f"cut: more than {config.max_listener_share:.0%} of all listeners like one of the two"
    if stored:
        return STALE if cut or stored != [(n_listeners, weight)] else "kept"
    by_artist = f", or over {config.max_partners_per_artist:,} of one artist" if config.max_partners_per_artist else ""
    return cut or f"cut: stronger ones fill the {config.max_pairs_per_track:,} of one of the two{by_artist}"
