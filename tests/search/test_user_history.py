"""The log by listener against the plain way of reading it."""

import pytest

from ponticello.errors import DataError, LibraryError
from ponticello.library import Library
from ponticello.listening.log import read_interactions
from ponticello.search.ranking import user_seeds
from ponticello.storage.schema import USER_ID


def test_seeds_and_met_tracks_are_those_recommend_uses(trained: Library) -> None:
    listening, log = trained.listening, read_interactions(trained.folder)
    ids = trained.index.track_ids
    assert listening.users == sorted(set(log[USER_ID]))
    assert listening.is_simulated
    for number in (0, 7, len(listening.users) - 1):
        seeds, met = user_seeds(log, listening.users[number], trained.index.rows, 5, 30.0)
        assert [ids[row] for row in listening.seeds(number, 5)] == seeds
        assert {ids[row] for row in listening.met(number)} == met & set(ids)


def test_listeners_are_counted_once_a_track(trained: Library) -> None:
    listening, log = trained.listening, read_interactions(trained.folder)
    rows = trained.index.rows
    liked: dict[int, set[str]] = {}
    for user in listening.users:
        for track in user_seeds(log, user, rows, 10_000, 30.0)[0]:
            liked.setdefault(rows[track], set()).add(user)
    assert listening.n_listeners.tolist() == [len(liked.get(row, ())) for row in range(len(rows))]
    assert listening.n_liked.sum() == sum(len(users) for users in liked.values())


def test_audience_holds_the_listeners_recommend_would_give_the_track_to(trained: Library) -> None:
    """Each listener's score of a track is the one `recommend` ranks it by."""
    track = trained.index.track_ids[11]
    listeners = trained.audience(track, k=3, blend=0.5)
    assert [each.rank for each in listeners] == [1, 2, 3]
    assert listeners[0].score >= listeners[1].score >= listeners[2].score
    log = read_interactions(trained.folder)
    config = trained.folder.config.search
    for each in listeners:
        seeds, met = user_seeds(log, each.user_id, trained.index.rows, config.n_seed_tracks, 30.0)
        query = trained.index.profile_query(seeds, config.profile_l2, config.hub_correction)
        expected = trained.index.scores(query, 0.5)[0, trained.index.rows[track]]
        assert abs(each.score - expected) < 1e-3
        assert each.has_met == (track in met)
        assert abs(each.semantic + each.preference - each.score) < 1e-9


def test_an_audience_by_taste_needs_taste(trained_copy: Library) -> None:
    trained_copy.embed("semantic")
    track = trained_copy.index.track_ids[0]
    assert trained_copy.audience(track, k=1, blend=0.0)
    with pytest.raises(LibraryError, match="no preference space yet"):
        trained_copy.audience(track, k=1, blend=0.5)
    with pytest.raises(DataError, match="between 0"):
        trained_copy.audience(track, k=1, blend=1.5)
