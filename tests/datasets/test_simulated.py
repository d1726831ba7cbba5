"""Simulated listeners: seeded, marked as such, and with the taste that was planted."""

from datetime import timedelta
from itertools import combinations

import numpy as np
import polars as pl
import pytest

from ponticello.config import SimulationConfig
from ponticello.datasets.simulated import (
    FIRST_DAY,
    LISTENED_S,
    USER_PREFIX,
    audible_traits,
    simulate_listeners,
)
from ponticello.errors import ShapeError
from ponticello.features.store import FeatureStore
from ponticello.library import Library
from ponticello.storage.schema import EVENTS, POSITIVE_EVENTS
from tests.synthetic import TRAITS as TRAITS_PLANTED
from tests.synthetic import SyntheticCatalogue

IDS = [f"t{number:03d}" for number in range(80)]
TRAITS = np.random.default_rng(7).standard_normal(
    (80, 2)
)  # not the draw of the hidden traits, whose seed is 0
FEW = SimulationConfig(n_listeners=30)
PLANTED = SimulationConfig(
    n_listeners=30,
    observable_share=1.0,
    session_noise=0.0,
    inverse_temperature=6.0,
    popularity_exponent=0.0,
    tracks_per_session=6,
)


def _closeness(log: pl.DataFrame) -> float:
    """Returns the mean distance of two tracks of one listener, over that of any two tracks."""
    place = {track_id: row for row, track_id in enumerate(IDS)}
    scaled = (TRAITS - TRAITS.mean(axis=0)) / TRAITS.std(axis=0)
    distance = np.linalg.norm(scaled[:, None] - scaled[None], axis=2)
    own = [
        np.mean([distance[place[a], place[b]] for a, b in combinations(sorted(set(tracks)), 2)])
        for _, tracks in log.group_by("user_id", maintain_order=True).agg("track_id").iter_rows()
    ]
    return float(np.mean(own) / distance[np.triu_indices(80, 1)].mean())


def test_one_seed_gives_one_log_and_another_another() -> None:
    first = simulate_listeners(IDS, TRAITS, FEW)
    assert first.equals(simulate_listeners(IDS, TRAITS, FEW))
    assert not first.equals(simulate_listeners(IDS, TRAITS, FEW.model_copy(update={"seed": 1})))


def test_scale_of_the_traits_changes_nothing() -> None:
    scaled = TRAITS * np.array([100.0, 0.01]) + 7
    assert simulate_listeners(IDS, scaled, FEW).equals(simulate_listeners(IDS, TRAITS, FEW))


def test_every_listener_is_marked_as_simulated_and_there_are_as_many_as_asked() -> None:
    users = simulate_listeners(IDS, TRAITS, FEW)["user_id"].unique().sort()
    assert users.to_list() == [f"{USER_PREFIX}{number:04d}" for number in range(30)]
    assert users[0].startswith("simulated-")


def test_log_is_in_order_of_time_and_within_its_days() -> None:
    log = simulate_listeners(IDS, TRAITS, FEW)
    assert log.equals(log.sort("played_at", "user_id", "track_id"))
    assert log["played_at"].min() >= FIRST_DAY  # type: ignore[operator]
    assert log["played_at"].max() < FIRST_DAY + timedelta(days=366)  # type: ignore[operator]
    assert set(log["event"]) <= set(EVENTS)
    assert set(log["track_id"]) <= set(IDS)


def test_skips_are_short_and_the_rest_is_heard_to_the_end() -> None:
    log = simulate_listeners(IDS, TRAITS, FEW)
    skips = log.filter(pl.col("event") == "skip")["played_s"]
    heard = log.filter(pl.col("event").is_in(["complete", "like"]))["played_s"]
    assert 2 <= float(skips.min()) <= float(skips.max()) <= 15  # type: ignore[arg-type]
    assert set(heard) == {LISTENED_S}
    assert len(heard) > len(skips) > 0


def test_each_session_has_its_tracks_and_triggers_come_from_its_first() -> None:
    log = simulate_listeners(IDS, TRAITS, FEW).filter(pl.col("event") != "playlist")
    n_triggered = 0
    for _, session in log.group_by("session_id"):
        ordered = session.sort("played_at")
        assert ordered.height == FEW.tracks_per_session
        assert ordered["track_id"].n_unique() == FEW.tracks_per_session
        triggers = set(ordered["context_track_id"][1:])
        assert triggers in ({None}, {ordered["track_id"][0]})
        assert ordered["context_track_id"][0] is None
        n_triggered += triggers != {None}
    assert 0.35 < n_triggered / log["session_id"].n_unique() < 0.65  # every second one


def test_each_listener_has_one_playlist_of_eight() -> None:
    lists = (
        simulate_listeners(IDS, TRAITS, FEW)
        .filter(pl.col("event") == "playlist")
        .group_by("user_id")
    )
    assert set(lists.len()["len"]) == {8}
    assert set(lists.agg(pl.col("track_id").n_unique())["track_id"]) == {8}


def test_planted_taste_brings_a_listeners_tracks_together() -> None:
    """With taste alone deciding, own tracks lie far closer than any two; with none of it, they lie
    like any two.
    """
    played = pl.col("event") != "playlist"
    assert _closeness(simulate_listeners(IDS, TRAITS, PLANTED).filter(played)) < 0.85
    without = PLANTED.model_copy(update={"inverse_temperature": 0.0})
    assert _closeness(simulate_listeners(IDS, TRAITS, without).filter(played)) == pytest.approx(
        1.0, abs=0.03
    )


def test_hidden_taste_cannot_be_heard() -> None:
    hidden = PLANTED.model_copy(update={"observable_share": 0.0})
    assert _closeness(simulate_listeners(IDS, TRAITS, hidden)) == pytest.approx(1.0, abs=0.06)


def test_listeners_differ_in_what_they_like() -> None:
    """Two listeners of sharp taste share fewer tracks than 80 tracks in one common order would
    give.
    """
    log = simulate_listeners(IDS, TRAITS, PLANTED).filter(pl.col("event") == "playlist")
    lists = [set(tracks) for _, tracks in log.group_by("user_id").agg("track_id").iter_rows()]
    overlap = np.mean([len(a & b) for a, b in combinations(lists, 2)])
    assert overlap < 3  # of 8


def test_popularity_is_skewed_by_its_exponent_alone() -> None:
    """Share of all plays that the ten most played of 80 tracks get."""

    def share(exponent: float) -> float:
        config = SimulationConfig(
            n_listeners=60, inverse_temperature=0.0, popularity_exponent=exponent
        )
        log = simulate_listeners(IDS, TRAITS, config).filter(pl.col("event") != "playlist")
        counts = log["track_id"].value_counts(sort=True)["count"].to_numpy()
        return float(counts[:10].sum() / counts.sum())

    flat, usual, steep = share(0.0), share(0.6), share(1.2)
    assert flat < 0.2
    assert flat < usual < steep
    assert steep > 0.5


def test_what_is_liked_is_skipped_less() -> None:
    """In a session of taste alone, tracks of the listener's own playlist are skipped less often
    than the others.
    """
    log = simulate_listeners(
        IDS,
        TRAITS,
        SimulationConfig(
            n_listeners=100, inverse_temperature=0.5, observable_share=1.0, session_noise=0.0
        ),
    )
    favourites = set(
        log.filter(pl.col("event") == "playlist").select("user_id", "track_id").iter_rows()
    )
    skipped: dict[bool, list[bool]] = {True: [], False: []}
    for user, track_id, event in log.select("user_id", "track_id", "event").iter_rows():
        if event != "playlist":
            skipped[(user, track_id) in favourites].append(event not in POSITIVE_EVENTS)
    assert np.mean(skipped[True]) < 0.5 * np.mean(skipped[False])


def test_constant_trait_is_no_trait() -> None:
    log = simulate_listeners(IDS[:3], np.ones((3, 2)), SimulationConfig(n_listeners=2))
    assert set(log["track_id"]) == set(IDS[:3])


def test_audible_traits_are_uncorrelated_and_of_equal_spread(trained: Library) -> None:
    """Four measurements of the mel and no machine tags: at most four traits, each with mean 0 and
    deviation 1.
    """
    store = FeatureStore(trained.folder.mels)
    traits = audible_traits(trained.tracks, store)
    assert list(traits) == store.track_ids
    table = np.stack(list(traits.values()))
    assert table.shape == (60, 4)
    assert np.allclose(table.mean(axis=0), 0, atol=1e-6)
    assert np.allclose(table.T @ table / 60, np.eye(4), atol=1e-6)


def test_audible_traits_tell_what_was_planted(
    trained: Library, catalogue: SyntheticCatalogue
) -> None:
    """A straight line from the traits explains most of the pitch and of the noise that the sounds
    were made with.
    """
    traits = audible_traits(trained.tracks, FeatureStore(trained.folder.mels))
    table = np.stack([traits[track_id] for track_id in catalogue.tracks["track_id"]])
    for name in ("pitch", "noise"):
        planted = catalogue.traits[:, TRAITS_PLANTED.index(name)]
        planted = planted - planted.mean()
        line, *_ = np.linalg.lstsq(table, planted, rcond=None)
        assert 1 - ((planted - table @ line) ** 2).sum() / (planted**2).sum() > 0.5, name


def test_tags_of_nearly_all_or_next_to_no_tracks_tell_nothing(trained: Library) -> None:
    store = FeatureStore(trained.folder.mels)
    without = audible_traits(trained.tracks, store)
    rows = range(trained.tracks.height)
    useless = [["all", *(["rare"] if row == 3 else [])] for row in rows]
    useful = [["half"] if row % 2 else [] for row in rows]
    same = audible_traits(trained.tracks.with_columns(machine_tags=pl.Series(useless)), store)
    other = audible_traits(trained.tracks.with_columns(machine_tags=pl.Series(useful)), store)
    assert all(np.array_equal(same[track_id], without[track_id]) for track_id in store.track_ids)
    assert len(other["track-0000"]) == len(without["track-0000"]) + 1


@pytest.mark.parametrize("shape", [(79, 4), (80,), (80, 4, 1)])
def test_traits_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        simulate_listeners(IDS, np.zeros(shape), FEW)
    assert str(caught.value) == f"traits must be (80, t), one row a track; found {shape}"
