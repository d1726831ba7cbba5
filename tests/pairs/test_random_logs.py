"""What must hold for any log, on ten thousand of them: each has listeners and tracks of its own,
and all lie in one.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.config import Config, PairsConfig
from ponticello.pairs.mine import mine_library
from ponticello.storage.layout import create_library
from tests.frame_mining import mine_pairs

N_LOGS, N_EVENTS, N_TRACKS = 10_000, 20, 5
CAPS = {"max_pairs_per_user": 2, "max_pairs_per_track": 2}
Key = tuple[str, str, str]


def _logs(seed: int) -> pl.DataFrame:
    """Three to six listeners and five tracks a log; what a track set off another is of the same log
    too.
    """
    generator = np.random.default_rng(seed)
    log = np.repeat(np.arange(N_LOGS), N_EVENTS)
    begin = pl.datetime(2025, 1, 1, time_unit="us", time_zone="UTC")
    size = len(log)
    listener = generator.integers(3 + log % 4)
    track, trigger = (log * N_TRACKS + generator.integers(N_TRACKS, size=size) for _ in range(2))
    events = pl.DataFrame(
        {
            "user_id": [f"{one}-{two}" for one, two in zip(log, listener, strict=True)],
            "track_id": track,
            "context_track_id": np.where(generator.random(size) < 0.5, trigger, -1),
            "minute": generator.integers(300, size=size),
            "event": generator.choice(["play", "like", "skip", "complete"], size=size),
            "played_s": generator.choice([10.0, 60.0], size=size),
        }
    )
    named = {
        name: pl.format("t{}", pl.col(name).cast(pl.String).str.zfill(6))
        for name in ("track_id", "context_track_id")
    }
    named["context_track_id"] = pl.when(pl.col("context_track_id") >= 0).then(
        named["context_track_id"]
    )
    return events.with_columns(
        **named,
        played_at=begin + pl.duration(minutes="minute"),
        weight=pl.lit(None, pl.Float64),
        session_id=pl.lit(None, pl.String),
    ).drop("minute")


def _log_of(column: str) -> pl.Expr:
    return pl.col(column).str.slice(1).cast(pl.Int64) // N_TRACKS


def _listeners(events: pl.DataFrame) -> dict[Key, set[str]]:
    """{(anchor, positive, source): who says so} for feedback and co-occurrence, in plain loops."""
    liked: dict[str, set[str]] = defaultdict(set)
    found: dict[Key, set[str]] = defaultdict(set)
    for user, track, trigger, event, played_s in events.select(
        "user_id", "track_id", "context_track_id", "event", "played_s"
    ).iter_rows():
        if event == "skip" or (event == "play" and played_s < 30):
            continue
        liked[user].add(track)
        if trigger is not None and trigger != track:
            found[trigger, track, "feedback"].add(user)
    for user, tracks in liked.items():
        for one in tracks:
            for other in (other for other in tracks if one < other):
                found[one, other, "cooccurrence"].add(user)
    return found


@pytest.fixture(scope="module")
def logs() -> pl.DataFrame:
    return _logs(11)


@pytest.mark.parametrize("k", [1, 3])
def test_a_pair_has_exactly_the_listeners_who_say_so_and_enough_of_them(
    logs: pl.DataFrame, k: int
) -> None:
    pairs, _ = mine_pairs(logs, PairsConfig(min_users=k, sources=("feedback", "cooccurrence")))
    said = {key: len(users) for key, users in _listeners(logs).items() if len(users) >= k}
    mined = {(anchor, positive, source): n for anchor, positive, n, _, source in pairs.iter_rows()}
    assert (
        mined == said
    )  # ten thousand logs beside each other make every co-occurrence likelier than chance
    assert len(mined) > 1000


@pytest.mark.parametrize("sources", [("feedback",), ("session",), ("cooccurrence",)])
def test_no_listener_and_no_track_gives_more_than_its_cap(
    logs: pl.DataFrame, sources: tuple[str, ...]
) -> None:
    config = PairsConfig.model_validate({"min_users": 1, "sources": sources, **CAPS})
    pairs, funnel = mine_pairs(logs, config)
    ends = pl.concat([pairs["anchor_id"], pairs["positive_id"].rename("anchor_id")])
    assert ends.value_counts()["count"].max() == CAPS["max_pairs_per_track"]
    given = pairs.group_by(log=_log_of("anchor_id")).agg(pl.sum("n_users"))
    listeners = logs.group_by(log=_log_of("track_id")).agg(n=pl.col("user_id").n_unique())
    over = given.join(listeners, on="log").filter(
        pl.col("n_users") > CAPS["max_pairs_per_user"] * pl.col("n")
    )
    assert over.is_empty()
    steps = dict(funnel.steps)
    assert steps["within the cap per user"] < steps["candidates"]  # the cap is at work
    assert pairs.filter(_log_of("anchor_id") != _log_of("positive_id")).is_empty()


def _shuffled(events: pl.DataFrame, generator: np.random.Generator) -> pl.DataFrame:
    return events.with_columns(
        track_id=pl.Series(generator.permutation(events["track_id"].to_numpy()))
    )


def _as_skips(events: pl.DataFrame, _: np.random.Generator) -> pl.DataFrame:
    return events.with_columns(event=pl.lit("skip"), context_track_id=pl.lit(None, pl.String))


@pytest.mark.parametrize("change", [_shuffled, _as_skips])
def test_nothing_that_happens_after_training_ends_changes_a_pair(
    tmp_path: Path,
    logs: pl.DataFrame,
    change: Callable[[pl.DataFrame, np.random.Generator], pl.DataFrame],
) -> None:
    """The moments stay, as they depend on the times alone; what is heard after the first of them is
    another thing.
    """
    folder = create_library(tmp_path / "library", "tiny")
    ids = [f"t{track:06}" for track in range(N_LOGS * N_TRACKS)]
    pl.DataFrame({"track_id": ids, "artist": ids}).write_parquet(folder.tracks)
    settings = {"pairs": {"min_users": 2, "sources": ["feedback", "session", "cooccurrence"]}}
    folder = replace(folder, config=Config.from_preset("tiny", settings))
    logs.write_parquet(folder.interactions)
    mined = mine_library(folder)
    until, before = mined.splits.train_until, folder.pairs.read_bytes()
    assert mined.n_pairs > 100
    late = pl.col("played_at") >= until
    changed = change(logs.filter(late), np.random.default_rng(0)).select(logs.columns)
    pl.concat([logs.filter(~late), changed]).write_parquet(folder.interactions)
    again = mine_library(folder)
    assert again.splits == mined.splits
    assert folder.pairs.read_bytes() == before
