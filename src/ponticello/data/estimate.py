"""What mining would cost: the funnel as far as it can be counted without pairing anything up, and what follows."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ponticello.config import PairsConfig
from ponticello.data.columns import CONTEXT_TRACK_ID, EVENT, SESSION_ID, TRACK_ID, USER_ID
from ponticello.data.engine import EngineOptions, open_engine
from ponticello.data.evidence import LIKED_LIMIT, PLAYLIST_LIMIT, positive_events
from ponticello.data.interactions import scan_interactions
from ponticello.data.log import Log
from ponticello.data.mining import current_splits, library_log
from ponticello.data.parquet import has_rows
from ponticello.data.splits import training_window, with_role
from ponticello.errors import DataError
from ponticello.library import Folder

if TYPE_CHECKING:
    import ibis.expr.types as ir

# Both pairs.parquet and validation-pairs.parquet, on the two cores of docs/benchmarks.md, "Pairs at any size".
_SECONDS_A_CANDIDATE, _SECONDS_AT_LEAST = 2e-6, 3.0
_BYTES_A_CANDIDATE, _BYTES_AT_LEAST = 50, 400e6


@dataclass(frozen=True)
class Estimate:
    """What `mine_library` would begin with, and about what it would take.

    steps: counted; candidates by source are at most so many, as one listener may say the same twice. n_pairs_most: rows
    of pairs.parquet, by the rules alone. seconds, memory_gb: measured on other logs, good to a factor of two.
    """

    steps: tuple[tuple[str, int], ...]
    n_pairs_most: int
    seconds: float
    memory_gb: float

    def lines(self) -> list[str]:
        """One readable line a step, and what follows."""
        cost = f"about {_duration(self.seconds)} on two cores and {self.memory_gb:.1f} GB of memory, to a factor of two"
        return [
            *(f"{n:>13,}  {step}" for step, n in self.steps),
            f"at most {self.n_pairs_most:,} pairs; {cost}; with less memory it takes longer (--memory)",
        ]


def estimate_mining(folder: Folder, options: EngineOptions | None = None) -> Estimate:
    """What `mine_library` would do; nothing is written. Errors: as `mine_library`. Cost: a fifth of mining, or less."""
    scan_interactions(folder)  # says so if there is none, or it is damaged
    if not has_rows(folder.interactions):
        raise DataError("the log holds no event yet: see skipped.csv, then run: ponticello import-history")
    splits, config = current_splits(folder)[0], folder.config.pairs
    with open_engine(options) as engine:
        log = library_log(engine, folder, with_role(splits, "train"), training_window(splits))
        steps = _count(log, config)
    counts = dict(steps)
    places = len(log.tracks) * config.max_pairs_per_track * len(config.sources)  # a pair takes two
    n_most = min(counts["candidates"] // config.min_listeners, places // 2)
    seconds = _SECONDS_AT_LEAST + _SECONDS_A_CANDIDATE * counts["candidates"]
    return Estimate(tuple(steps), n_most, seconds, (_BYTES_AT_LEAST + _BYTES_A_CANDIDATE * counts["candidates"]) / 1e9)


def _count(log: Log, config: PairsConfig) -> list[tuple[str, int]]:
    totals = {"events": 0, "positive events": 0, **{f"{source} candidates": 0 for source in config.sources}}
    for part in log.parts():
        engine, positives = log.engine, positive_events(part, config.min_played_s)
        totals["events"] += engine.n_rows(part)
        totals["positive events"] += engine.n_rows(positives)
        found = {
            "feedback": positives.filter(positives[CONTEXT_TRACK_ID].notnull()),
            "session": positives.filter(positives[EVENT] != "playlist"),
        }
        for source in found:
            if source in config.sources:
                totals[f"{source} candidates"] += engine.n_rows(found[source])
        if "playlist" in config.sources:
            added = part.filter((part[EVENT] == "playlist") & part[SESSION_ID].notnull())
            lists = added.group_by([USER_ID, SESSION_ID]).agg(n=added[TRACK_ID].nunique())
            totals["playlist candidates"] += _n_pairs(log, lists.filter(lists["n"] <= PLAYLIST_LIMIT))
        if "cooccurrence" in config.sources:
            liked = positives.group_by(USER_ID).agg(n=positives[TRACK_ID].nunique())
            fewer = (liked["n"] > LIKED_LIMIT).ifelse(LIKED_LIMIT, liked["n"])
            totals["cooccurrence candidates"] += _n_pairs(log, liked.mutate(n=fewer))
    candidates = sum(n for step, n in totals.items() if step.endswith("candidates"))
    return [*totals.items(), ("candidates", candidates)]


def _n_pairs(log: Log, groups: "ir.Table") -> int:
    """How many pairs groups of `n` tracks make."""
    total = log.engine.row(groups.aggregate(n=(groups["n"] * (groups["n"] - 1)).sum()))["n"]
    return int(total or 0) // 2


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} minutes"
