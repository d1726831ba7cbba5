"""What listeners turned away from after what, on logs small enough to read."""

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plain_mining import Event, any_events, event, plain_negatives, plain_pairs
from ponticello.config import PairsConfig
from ponticello.data.engine import open_engine
from ponticello.data.evidence import PLAYLIST_LIMIT
from ponticello.data.log import EVENTS_SCHEMA, ids_of, number_log
from ponticello.data.negatives import mine_negatives, write_negatives
from ponticello.data.pairs import mine
from ponticello.data.windows import Window
from ponticello.library import create_library

ALONE = PairsConfig(min_listeners=1, sources=("feedback", "session"))


def _negatives(config: PairsConfig, *events: Event) -> list[tuple[str, str, int, float]]:
    log = pl.DataFrame(events, schema=EVENTS_SCHEMA)
    with open_engine() as engine:
        numbered = number_log(engine, engine.table(log, "events"), ids_of(log), Window())
        return mine_negatives(numbered, mine(numbered, config)[0], config).rows()


def test_a_skip_speaks_against_the_track_just_before_it_if_that_was_liked() -> None:
    """b was skipped after a; c after b, which was skipped itself; d in another sitting; e disliked after a."""
    events = [event("u", "a", 0), event("u", "b", 1, "skip"), event("u", "c", 2, "skip")]
    events += [
        event("u", "a", 500),
        event("u", "d", 600, "skip"),
        event("v", "a", 0),
        event("v", "e", 1, "dislike"),
    ]
    assert _negatives(ALONE, *events) == [("a", "b", 1, 1.0), ("a", "e", 1, 1.0)]


def test_a_known_trigger_is_what_a_skip_speaks_against() -> None:
    events = [event("u", "a", 0), event("u", "b", 1, "skip", context_track_id="z"), event("u", "z", 2, "skip")]
    assert _negatives(ALONE, *events) == [("z", "b", 1, 1.0)]


@pytest.mark.parametrize(("played_s", "found"), [(29.9, 1), (30.0, 0), (100.0, 0), (None, 0)])
def test_a_short_play_is_a_skip(played_s: float | None, found: int) -> None:
    events = [event("u", "a", 0), event("u", "b", 1, "play", played_s=played_s)]
    assert len(_negatives(ALONE, *events)) == found


def test_a_long_play_is_no_skip_even_where_its_pair_was_cut() -> None:
    """a-c has two listeners and a-b one: one pair a track leaves a-b out, and b was not turned away from for that."""
    said = [event(user, track, minute) for user in "uv" for track, minute in (("a", 0), ("c", 1))]
    said += [event("w", "a", 0), event("w", "b", 1, "play", played_s=100.0)]
    assert _negatives(ALONE.model_copy(update={"max_pairs_per_track": 1}), *said) == []


def test_negatives_need_as_many_listeners_as_pairs() -> None:
    events = [row for user in "uvw" for row in (event(user, "a", 0), event(user, "b", 1, "skip"))]
    assert _negatives(PairsConfig(), *events) == [("a", "b", 3, 3.0)]
    assert _negatives(PairsConfig(), *events[:4]) == []


def test_what_is_a_pair_is_no_negative_in_either_order() -> None:
    events = [event("u", "a", 0), event("u", "b", 1), event("v", "b", 0), event("v", "a", 1, "skip")]
    assert _negatives(ALONE, *events) == []


@settings(max_examples=20)
@given(any_events, st.sampled_from([1, 2]), st.sampled_from([1, 3, 50]), st.sampled_from([1, 2, 50]))
def test_any_log_gives_what_plain_loops_give(events: list[Event], listeners: int, a_user: int, a_track: int) -> None:
    config = PairsConfig(
        min_listeners=listeners,
        sources=("feedback", "session"),
        max_pairs_per_user=a_user,
        max_pairs_per_track=a_track,
    )
    pairs = plain_pairs(events, config, {}, PLAYLIST_LIMIT)
    assert _negatives(config, *events) == plain_negatives(events, config, pairs)


def test_negatives_are_written_where_asked_for_and_taken_away_where_not(tmp_path: Path) -> None:
    folder = create_library(tmp_path / "library")
    table = pl.DataFrame({"anchor_id": ["a"], "negative_id": ["b"], "n_users": [3], "weight": [1.0]})
    write_negatives(folder, table)
    assert pl.read_parquet(folder.negatives).equals(table)
    write_negatives(folder, None)
    assert not folder.negatives.exists()
