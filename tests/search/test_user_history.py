"""The log by listener against the plain way of reading it."""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from ponticello.errors import DataError, LibraryError
from ponticello.library import Library
from ponticello.listening.log import is_positive, read_interactions
from ponticello.search import service as service_module
from ponticello.search.index import Calibration, EmbeddingIndex, VectorSpace
from ponticello.search.service import QueryTerm, SearchService
from ponticello.search.user_history import ListeningHistory, load_listening_history
from ponticello.storage.layout import LibraryPaths, create_library
from ponticello.storage.schema import INTERACTIONS, PLAYED_AT, TRACK_ID, TRACKS, USER_ID
from ponticello.tracks.catalog import fill_columns


def user_seeds(
    log: pl.DataFrame, user: str, track_ids: Collection[str], n_recent: int, min_played_s: float
) -> tuple[list[str], set[str]]:
    """The latest distinct liked tracks of a user, newest first, and all played ones, from the log
    itself.
    """
    events = log.filter(pl.col(USER_ID) == user)
    liked = events.filter(is_positive(min_played_s)).sort(
        PLAYED_AT, TRACK_ID, descending=[True, False]
    )
    seeds: list[str] = []
    for track_id in liked[TRACK_ID]:
        if track_id in track_ids and track_id not in seeds:
            seeds.append(track_id)
    return seeds[:n_recent], set(events[TRACK_ID])


def test_seeds_and_met_tracks_are_those_recommend_uses(trained: Library) -> None:
    listening, log = trained.listening, read_interactions(trained.folder)
    ids = trained.index.track_ids
    assert listening.users == sorted(set(log[USER_ID]))
    assert listening.is_simulated
    for number in (0, 7, len(listening.users) - 1):
        seeds, met = user_seeds(log, listening.users[number], trained.index.rows, 5, 30.0)
        assert [ids[row] for row in listening.seeds(number, 5)] == seeds
        assert {ids[row] for row in listening.played_rows(number)} == met & set(ids)


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
        query, _ = trained.index.profile_query(seeds, config.profile_l2, config.hub_correction)
        expected = trained.index.scores(query, 0.5)[0, trained.index.rows[track]]
        assert abs(each.score - expected) < 1e-3
        assert each.already_played == (track in met)
        assert abs(each.semantic + each.preference - each.score) < 1e-9


def test_an_audience_by_taste_needs_taste(trained_copy: Library) -> None:
    trained_copy.embed("semantic", with_preference=False)
    track = trained_copy.index.track_ids[0]
    assert trained_copy.audience(track, k=1, blend=0.0)
    with pytest.raises(LibraryError, match="blend must be 0: there is one space and no blend"):
        trained_copy.audience(track, k=1, blend=0.5)
    with pytest.raises(DataError, match="between 0"):
        trained_copy.audience(track, k=1, blend=1.5)


START = datetime(2024, 1, 1, tzinfo=UTC)
EVENTS = [  # user, track, hour, event, played_s
    ("u", "old", 0, "like", None),
    ("u", "twice", 1, "complete", 40.0),
    ("u", "skipped", 2, "skip", 3.0),
    ("u", "short", 3, "play", 29.9),
    ("u", "long", 4, "play", 30.0),
    ("u", "unknown", 5, "like", None),
    ("u", "twice", 6, "play", None),
    ("u", "tie b", 7, "collect", None),
    ("u", "tie a", 7, "playlist", None),
    ("v", "other", 8, "like", None),
    ("w", "skipped", 9, "skip", 1.0),
]
TRACK_IDS = ["long", "old", "other", "short", "skipped", "tie a", "tie b", "twice"]


def _service(
    root: Path, events: Sequence[tuple[str, str, int, str, float | None]]
) -> SearchService:
    """A service over `TRACK_IDS` with a log of these events."""
    folder = create_library(root, "tiny")
    rows = [(user, track, START + timedelta(hours=h), e, s) for user, track, h, e, s in events]
    log = pl.DataFrame(
        rows, schema=["user_id", "track_id", "played_at", "event", "played_s"], orient="row"
    )
    fill_columns(log, INTERACTIONS).write_parquet(folder.interactions)
    plain = Calibration(0.0, 1.0)
    vectors = np.eye(len(TRACK_IDS), dtype=np.float32)
    index = EmbeddingIndex(TRACK_IDS, vectors, [VectorSpace("one", "aaaa", plain, plain)])
    tracks = fill_columns(pl.DataFrame({"track_id": TRACK_IDS}), TRACKS)
    return SearchService(folder, index, tracks)


@pytest.mark.parametrize("events", [EVENTS, EVENTS[::-1]], ids=["in order", "reversed"])
def test_seeds_are_the_latest_distinct_liked_tracks_newest_first(
    tmp_path: Path, events: list[tuple[str, str, int, str, float | None]]
) -> None:
    service = _service(tmp_path, events)
    query = service.resolve_user("u")
    seeds = [source.track_id for source in query.sources]
    assert seeds == ["tie a", "tie b", "twice", "long", "old"]
    assert query.excluded == {"old", "twice", "skipped", "short", "long", "tie a", "tie b"}
    history = service.history
    rows = history.seeds(history.numbers["u"], 3)
    assert [TRACK_IDS[row] for row in rows] == ["tie a", "tie b", "twice"]


def test_user_without_a_profile_is_named(tmp_path: Path) -> None:
    service = _service(tmp_path, EVENTS)
    with pytest.raises(DataError, match="listener 'x' is not in the log; check the id, or run"):
        service.resolve_user("x")
    with pytest.raises(DataError, match="listener 'w' has liked no track of the index; search"):
        service.resolve_user("w")


def test_the_log_is_read_once_and_again_after_it_changed(
    trained_copy: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    load = load_listening_history

    def counted(folder: LibraryPaths, index: EmbeddingIndex) -> ListeningHistory:
        reads.append(folder)
        return load(folder, index)

    monkeypatch.setattr(service_module, "load_listening_history", counted)
    user = trained_copy.listening.users[0]
    played = trained_copy.recommend(user, k=1)[0].track_id
    assert trained_copy.recommend(user, k=1)[0].track_id == played
    assert len(reads) == 1
    log = read_interactions(trained_copy.folder)
    play = log.filter(pl.col(USER_ID) == user).head(1).with_columns(pl.lit(played).alias(TRACK_ID))
    pl.concat([log, play]).write_parquet(trained_copy.folder.interactions)
    assert played not in [result.track_id for result in trained_copy.recommend(user, k=60)]
    assert len(reads) == 2


def test_one_excluded_id_alone_is_not_taken_for_its_letters(tmp_path: Path) -> None:
    service = _service(tmp_path, EVENTS)
    with pytest.raises(
        DataError, match=r"exclude must be a list, such as \['ab'\]; found one str alone"
    ):
        service.search([QueryTerm(track_id="old")], exclude="ab")
