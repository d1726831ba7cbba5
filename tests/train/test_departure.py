"""Where the departure begins: factors of the pair graph, and what is heard and told regressed onto them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ponticello.config import Config
from ponticello.data.columns import ANCHOR_ID, N_USERS, POSITIVE_ID
from ponticello.data.dataset import TrackTuples
from ponticello.model.htcl import HTCL
from ponticello.train.departure import LENGTH, SMALL, begin_at_random, begin_departure, pair_factors

N_TRACKS, FRAME_SIZE = 60, 8


class _Heard:
    """A store of one frame a track: the first number tells which of two crowds likes it, the others are noise."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self.frames = generator.standard_normal((N_TRACKS, 1, FRAME_SIZE)).astype(np.float32)
        self.crowd = np.arange(N_TRACKS) % 2
        self.frames[:, 0, 0] = 4.0 * self.crowd - 2.0

    def read(self, track_id: str) -> np.ndarray:
        return np.asarray(self.frames[int(track_id)])

    def __contains__(self, track_id: object) -> bool:
        return True


def _dataset(store: _Heard) -> tuple[TrackTuples, pl.DataFrame]:
    """Pairs within each crowd only; the last track stands in none."""
    ids = [f"{number:02}" for number in range(N_TRACKS)]
    rows = [
        (ids[one], ids[other])
        for one in range(N_TRACKS - 1)
        for other in range(one + 1, min(one + 9, N_TRACKS - 1))
        if store.crowd[one] == store.crowd[other]
    ]
    rows.append((ids[0], ids[1]))  # one pair that joins the crowds
    texts = {track_id: "" if number % 5 == 0 else f"{number}" for number, track_id in enumerate(ids)}
    table = pl.DataFrame(rows, schema=[ANCHOR_ID, POSITIVE_ID], orient="row").with_columns(pl.lit(3).alias(N_USERS))
    return TrackTuples(store, texts, rows), table  # type: ignore[arg-type]


def test_the_first_factor_tells_the_crowds_apart() -> None:
    """A graph of two crowds that one pair joins: the first factor after the trivial one has a sign for each."""
    store = _Heard()
    dataset, table = _dataset(store)
    factors = pair_factors(dataset, table, 4)
    assert factors.shape == (N_TRACKS, 4)
    signs = torch.sign(factors[:-1, 0]).numpy()
    assert abs((signs * np.where(store.crowd[:-1] == 1, 1, -1)).sum()) == N_TRACKS - 1
    assert not factors[-1].any(), "no pair, no factors"


def test_factors_do_not_depend_on_the_order_of_the_pairs() -> None:
    dataset, table = _dataset(_Heard())
    again = TrackTuples(dataset.store, dataset.texts, list(reversed(dataset.rows)))
    torch.testing.assert_close(pair_factors(again, table.reverse(), 4), pair_factors(dataset, table, 4))


def test_more_factors_than_tracks_are_zeros() -> None:
    dataset, table = _dataset(_Heard())
    few = TrackTuples(dataset.store, dataset.texts, dataset.rows[:1])
    assert not pair_factors(few, table, 5)[:, 1:].any()


@pytest.fixture
def model(text_encoder_folder: Path) -> HTCL:
    torch.manual_seed(0)
    changes = {"text": {"name": str(text_encoder_folder)}, "heads": {"embed_dim": 8 + 4 + 1, "taste_dim": 4}}
    return HTCL.from_settings(Config.from_preset("tiny", changes), frame_size=FRAME_SIZE)


def test_the_departure_begins_where_crowds_come_apart(model: HTCL) -> None:
    """A track without pairs lands with its crowd, by sound alone and with a text that says nothing."""
    store = _Heard()
    dataset, table = _dataset(store)
    states = torch.randn(N_TRACKS + 1, 32, generator=torch.Generator().manual_seed(1))
    states[-1] = 0.0
    begin_departure(model, dataset, pair_factors(dataset, table, 4), states)
    frames = [store.read(f"{number:02}") for number in range(N_TRACKS)]
    audio = model.encode_mels(frames)
    taste = audio[:, 8:12] * float(model.audio_head.radius)
    centre = taste[:-1].mean(axis=0)
    same, other = (taste[:-1][store.crowd[:-1] == crowd].mean(axis=0) - centre for crowd in (1, 0))
    assert (taste[-1] - centre) @ (same - other) * (1 if store.crowd[-1] else -1) > 0
    assert np.sqrt((taste[:-1] ** 2).sum(axis=1).mean()) == pytest.approx(LENGTH, rel=0.05)
    numbers = [dataset.text_numbers[f"{number:02}"] for number in range(N_TRACKS)]
    fused = model.encode_fused(frames, states[numbers].numpy())
    np.testing.assert_allclose(fused[::5], audio[::5], atol=1e-6)  # those without text
    assert np.abs(fused[1::5] - audio[1::5]).max() > 0.01
    np.testing.assert_allclose(fused[:, :8], audio[:, :8], atol=1e-5)


def test_without_pairs_nothing_begins(model: HTCL) -> None:
    dataset, _ = _dataset(_Heard())
    begin_departure(model, dataset, torch.zeros(N_TRACKS, 4), torch.zeros(N_TRACKS + 1, 32))
    assert not model.audio_head.departure.weight.any()
    assert float(model.audio_head.radius) == 1.0


def test_a_beginning_at_random_is_small_has_a_slope_and_is_the_same_with_text(model: HTCL) -> None:
    store = _Heard()
    frames = [store.read(f"{number:02}") for number in range(N_TRACKS)]
    begin_at_random(model)
    audio = model.encode_mels(frames)
    taste = audio[:, 8:12] * float(model.audio_head.radius)
    assert np.sqrt((taste**2).sum(axis=1).mean()) == pytest.approx(SMALL, rel=0.5)
    fused = model.encode_fused(frames, np.ones((N_TRACKS, 32), dtype=np.float32))
    np.testing.assert_allclose(fused, audio, atol=1e-6)
    mel = torch.from_numpy(np.stack(frames[:4]))
    vectors = torch.nn.functional.normalize(model.project_audio(mel, torch.zeros(4, 1, dtype=torch.bool)), dim=1)
    torch.autograd.backward((vectors[0] * vectors[1]).sum())
    slope = model.audio_head.departure.weight.grad
    assert slope is not None
    assert slope.abs().max() > 1e-4
