"""SASRec on planted orders: what it learns, what a state may see, and what it leaves alone."""

from datetime import datetime, timedelta
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from ponticello.errors import ConfigError, DataError
from ponticello.evaluate import sasrec as sequence
from ponticello.evaluate.sasrec import (
    CANNOT_SASREC,
    GRID_SASREC,
    PATIENCE,
    WINDOW,
    SasRec,
    as_sequences,
    fit_sasrec,
)

N_TRACKS = 40
FIT: Any = partial(
    fit_sasrec, n_tracks=N_TRACKS, dim=16, dropout=0.1, learning_rate=0.005, seed=0, content=None
)
START = datetime(2026, 1, 1)


def planted(n_listeners: int = 60, length: int = 20) -> tuple[list[np.ndarray], np.ndarray]:
    """Sequences in which track t is followed by the second array's t-th, and one step in ten by a
    random track.
    """
    generator = np.random.default_rng(0)
    follower = generator.permutation(N_TRACKS)
    sequences = []
    for _ in range(n_listeners):
        tracks = [int(generator.integers(N_TRACKS))]
        while len(tracks) < length:
            is_random = generator.random() < 0.1
            tracks.append(
                int(generator.integers(N_TRACKS)) if is_random else int(follower[tracks[-1]])
            )
        sequences.append(np.array(tracks))
    return sequences, follower


def directions(n: int, d: int) -> np.ndarray:
    """(n, d) random unit vectors."""
    vectors = np.random.default_rng(1).standard_normal((n, d))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


@pytest.fixture(scope="module")
def model() -> SasRec:
    return fit_sasrec(
        planted()[0], N_TRACKS, dim=16, dropout=0.1, learning_rate=0.005, seed=0, content=None
    )


@pytest.fixture
def one_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "N_EPOCHS", 1)


def log(*rows: tuple[str, str, int, str, float | None]) -> pl.DataFrame:
    """Events of (listener, track, hours after START, kind, seconds played)."""
    timed = [
        (user, track, START + timedelta(hours=hour), event, played)
        for user, track, hour, event, played in rows
    ]
    schema = {
        "user_id": pl.String,
        "track_id": pl.String,
        "played_at": pl.Datetime,
        "event": pl.String,
        "played_s": pl.Float64,
    }
    return pl.DataFrame(timed, schema=schema, orient="row")


def test_sequences_hold_liked_tracks_in_order_of_time_then_of_track_id() -> None:
    """ann: b at 1, then at 2 both a and c, b skipped and played 5 s; bob: unnamed z, then a; eve is
    not asked about.
    """
    events = log(
        ("ann", "c", 2, "like", None),
        ("ann", "a", 2, "play", 40.0),
        ("ann", "b", 3, "skip", 40.0),
        ("ann", "b", 4, "play", 5.0),
        ("ann", "b", 1, "play", None),
        ("bob", "z", 1, "play", 40.0),
        ("bob", "a", 2, "complete", 3.0),
        ("eve", "a", 1, "play", 40.0),
    )
    found = as_sequences(events, ["bob", "cid", "ann"], ["c", "b", "a"], 30.0, 10)
    assert [tracks.tolist() for tracks in found] == [[2], [], [1, 2, 0]]
    assert {tracks.dtype for tracks in found} == {np.dtype(np.int64)}
    assert as_sequences(events, [], [], 30.0, 10) == []


def test_repeats_in_a_row_count_once_and_the_latest_are_kept() -> None:
    """a a b b a is a b a; a skip or an unnamed track between two plays of b does not split them."""
    plays = [("ann", track, hour, "play", 40.0) for hour, track in enumerate("aabzba")]
    events = log(*plays, ("ann", "a", 3, "skip", 40.0), ("bob", "a", 9, "play", 40.0))
    for max_length, wanted in ((10, [0, 1, 0]), (2, [1, 0]), (1, [0])):
        found = as_sequences(events, ["ann", "bob"], ["a", "b"], 30.0, max_length)
        assert [tracks.tolist() for tracks in found] == [wanted, [0]]


def test_planted_next_track_is_found_far_above_popularity(model: SasRec) -> None:
    """Each track follows one other and all are about as popular, so popularity cannot help."""
    sequences, follower = planted()
    wanted = np.array([follower[tracks[-1]] for tracks in sequences])
    counts = np.bincount(np.concatenate(sequences), minlength=N_TRACKS)
    assert (model(np.arange(len(sequences))).argmax(axis=1) == wanted).mean() > 0.9
    assert max((wanted == track).mean() for track in np.argsort(-counts)[:3]) < 0.15


def test_scores_are_states_times_track_vectors_for_the_rows_asked_for(model: SasRec) -> None:
    scores = model(np.array([6, 1]))
    assert scores.shape == (2, N_TRACKS)
    assert scores.dtype == model.users.dtype == model.tracks.dtype == np.float64
    assert np.allclose(scores, (model.users @ model.tracks.T)[[6, 1]], atol=1e-12)


def test_a_later_track_leaves_earlier_states_unchanged(model: SasRec) -> None:
    before, items = torch.arange(12)[None], model.network.items()
    after = before.clone()
    after[0, 7] = 30
    with torch.no_grad():
        states, changed = model.network(before, items)[0], model.network(after, items)[0]
    assert torch.allclose(states[:7], changed[:7], atol=1e-6)
    assert ((states[7:] - changed[7:]).abs().amax(dim=1) > 1e-3).all()


def test_a_listeners_state_is_the_last_state_of_the_sequence_alone(model: SasRec) -> None:
    """Slow and plain, without padding or batch: the states after fitting came from batches of
    sixty.
    """
    for row, tracks in enumerate(planted()[0][:5]):
        with torch.no_grad():
            alone = model.network(torch.tensor(tracks)[None], model.network.items())[0, -1]
        assert np.allclose(model.users[row], alone.numpy(), atol=1e-5)


@pytest.mark.usefixtures("one_epoch")
def test_padding_and_batching_leave_states_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = [1, 20, 3, WINDOW, WINDOW + 30, 7]
    sequences = [np.random.default_rng(length).integers(0, N_TRACKS, length) for length in lengths]
    together = FIT(sequences).users
    monkeypatch.setattr(sequence, "BATCH_STATES", 1)
    assert np.allclose(FIT(sequences).users, together, atol=1e-5)


@pytest.mark.usefixtures("one_epoch")
def test_only_the_latest_window_is_read() -> None:
    latest = np.random.default_rng(0).integers(0, N_TRACKS, WINDOW)
    found = FIT([latest, np.concatenate([[3, 1, 4, 1, 5], latest]), latest[1:]]).users
    assert np.allclose(found[0], found[1], atol=1e-5)
    assert np.abs(found[0] - found[2]).max() > 1e-3


@pytest.mark.parametrize("length", [0, 1, 2, WINDOW, WINDOW + 1, WINDOW + 2, 3 * WINDOW + 7])
def test_windows_hold_every_step_of_a_history_once(length: int) -> None:
    windows = sequence._windows([np.arange(length)])
    steps = sorted(pair for window in windows for pair in pairwise(window.tolist()))
    assert steps == list(pairwise(range(length)))
    assert all(2 <= len(window) <= WINDOW + 1 for window in windows)


def test_listener_without_events_scores_zero() -> None:
    nobody = np.array([], dtype=np.int64)
    found = FIT([nobody, *planted(10, 5)[0], nobody])
    scores = found(np.arange(12))
    assert not scores[[0, 11]].any()
    assert np.abs(scores[1:11]).min(axis=1).all()


def test_same_seed_gives_the_same_scores_and_another_seed_others() -> None:
    sequences, _ = planted(20, 8)
    one, same, other = (FIT(sequences, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(one.users, same.users)
    assert np.array_equal(one.tracks, same.tracks)
    assert one.losses == same.losses
    assert not np.allclose(one.tracks, other.tracks, atol=1e-3)


@pytest.mark.usefixtures("one_epoch")
def test_training_leaves_torch_and_its_input_as_they_were() -> None:
    sequences, _ = planted(20, 8)
    for tracks in sequences:
        tracks.flags.writeable = False
    content = directions(N_TRACKS, 8)
    content.flags.writeable = False
    torch.manual_seed(7)
    before, n_threads = torch.get_rng_state(), torch.get_num_threads()
    FIT(sequences, content=content).items(content)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == n_threads
    assert torch.is_grad_enabled()


def test_training_stops_after_patience_and_keeps_the_best_epoch(model: SasRec) -> None:
    """Nobody expects less than 0.68 nats: -0.9025 ln 0.9025 - 39 x 0.0025 ln 0.0025, a random step
    hitting too.
    """
    best = int(np.argmin(model.losses))
    assert len(model.losses) == min(best + 1 + PATIENCE, sequence.N_EPOCHS)
    assert 0.3 < model.losses[best] < 1.5 < np.log(N_TRACKS) < model.losses[0] + 0.5


def test_kept_weights_are_those_of_the_best_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut off right after its best epoch, the same training has the same weights; random tracks
    stop it early.
    """
    sequences = list(np.random.default_rng(0).integers(0, N_TRACKS, (40, 10)))
    whole = FIT(sequences)
    best = int(np.argmin(whole.losses))
    assert len(whole.losses) == best + 1 + PATIENCE
    monkeypatch.setattr(sequence, "N_EPOCHS", best + 1)
    assert np.array_equal(FIT(sequences).tracks, whole.tracks)


def test_content_reaches_a_track_nobody_played_like_the_one_that_follows() -> None:
    """Each new track is the twin in content of a played one; the best new one is the twin of the
    listener's next.
    """
    sequences, follower = planted()
    content = directions(N_TRACKS, 24)
    found = FIT(sequences, content=content)
    wanted = np.array([follower[tracks[-1]] for tracks in sequences])
    noise = 0.02 * np.random.default_rng(2).standard_normal(content.shape)
    scores = found.users @ found.items(content + noise).T
    assert (scores.argmax(axis=1) == wanted).mean() > 0.8
    assert (found(np.arange(len(sequences))).argmax(axis=1) == wanted).mean() > 0.8
    assert np.allclose(found.items(content), found.tracks, atol=1e-6)


@pytest.mark.usefixtures("one_epoch")
def test_content_may_be_shifted_and_scaled_as_a_whole() -> None:
    sequences, content = planted(20, 8)[0], directions(N_TRACKS, 8)
    plain, moved = FIT(sequences, content=content), FIT(sequences, content=5 * content + 3)
    assert np.allclose(moved.tracks, plain.tracks, atol=1e-4)


def test_training_that_diverges_names_the_setting_to_change() -> None:
    message = r"SASRec diverged with learning_rate 1e\+30; take a smaller one"
    with pytest.raises(ConfigError, match=message):
        FIT(planted(20, 8)[0], learning_rate=1e30)


def test_content_that_is_not_finite_is_refused() -> None:
    content = directions(N_TRACKS, 8)
    content[3, 1] = np.nan
    with pytest.raises(DataError, match="content holds NaN or infinity; embed it again"):
        FIT(planted(20, 8)[0], content=content)


def test_listeners_with_no_or_one_track_are_fitted_beside_others() -> None:
    nobody, alone, two = (np.arange(n) for n in (0, 1, 2))
    assert np.isfinite(FIT([nobody, alone, two, np.array([1, 0])])(np.arange(4))).all()


@pytest.mark.usefixtures("one_epoch")
@pytest.mark.parametrize("content", [None, directions(N_TRACKS, 8)])
def test_every_point_of_the_grid_fits(content: np.ndarray | None) -> None:
    for point in GRID_SASREC:
        assert np.isfinite(FIT(planted(20, 8)[0], **point, content=content)(np.arange(20))).all()
    assert "a track nobody has played" in CANNOT_SASREC["sasrec"]
    assert "a track without content" in CANNOT_SASREC["sasrec_content"]
