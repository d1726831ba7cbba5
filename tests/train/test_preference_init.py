"""Where the departure begins: factors of who likes what, and what is heard and told regressed onto
them.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from ponticello.config import Config, PreferenceConfig
from ponticello.model.htcl import HTCL
from ponticello.storage.schema import TRACK_ID, USER_ID
from ponticello.train import preference_init
from ponticello.train.dataset import TrackTuples
from ponticello.train.preference_init import (
    init_preference_head,
    init_preference_head_randomly,
    listening_factors,
)

N_TRACKS, FRAME_SIZE = 60, 8
SETTINGS = PreferenceConfig()


class _Heard:
    """A store of one frame a track: the first number tells which of two crowds likes it, the others
    are noise.
    """

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
    """Listeners who like tracks of one crowd alone, ten each; nobody knows the last track, two the
    one before it.
    """
    ids = [f"{number:02}" for number in range(N_TRACKS)]
    generator = np.random.default_rng(1)
    likes = []
    for listener in range(80):
        own = [
            track_id
            for track_id, crowd in zip(ids[:-2], store.crowd, strict=False)
            if crowd == listener % 2
        ]
        likes += [
            (f"u{listener:02}", track_id) for track_id in generator.choice(own, 10, replace=False)
        ]
    likes += [("u00", ids[-2]), ("u02", ids[-2])]
    texts = {
        track_id: "" if number % 5 == 0 else f"{number}" for number, track_id in enumerate(ids)
    }
    table = pl.DataFrame(likes, schema=[USER_ID, TRACK_ID], orient="row")
    return TrackTuples(store, texts, [(ids[0], ids[2])]), table  # type: ignore[arg-type]


def test_factors_tell_the_crowds_apart_and_leave_out_what_few_know() -> None:
    """Two crowds that share nothing: the first two factors are one of each, whatever the order of
    the table.
    """
    store = _Heard()
    dataset, likes = _dataset(store)
    factors = listening_factors(dataset, likes, 4, min_users=3, shrinkage=0.3)
    assert factors.shape == (N_TRACKS, 4)
    assert not factors[-2:].any(), "two listeners and none are below three"
    sizes = factors[:-2, :2].abs().numpy()
    assert (
        len({int(sizes[store.crowd[:-2] == crowd].sum(axis=0).argmax()) for crowd in (0, 1)}) == 2
    )
    assert (sizes.min(axis=1) < 1e-6).all()
    again = listening_factors(dataset, likes.reverse(), 4, min_users=3, shrinkage=0.3)
    torch.testing.assert_close(again, factors)


def test_factors_by_hand() -> None:
    """Listener a likes 0 and 1, b likes 1: degrees 2, 1 and 1, 2, mean 1.5 each, 0.45 added.

    With s = 2.45 and t = 1.45 the matrix is [1 / sqrt(s t), 1 / s; 0, 1 / sqrt(s t)]; its squared
    singular values add up to 2 / (s t) + 1 / s^2 = 0.7296, and so do the squares of all factors.
    """
    likes = pl.DataFrame({USER_ID: ["a", "a", "b"], TRACK_ID: ["0", "1", "1"]})
    dataset = TrackTuples(_Heard(), {"0": "", "1": ""}, [("0", "1")])  # type: ignore[arg-type]
    factors = listening_factors(dataset, likes, 3, min_users=1, shrinkage=0.3)
    assert float(factors.square().sum()) == pytest.approx(2 / (2.45 * 1.45) + 1 / 2.45**2, rel=1e-5)
    assert not factors[:, 2].any(), "more factors than tracks are zeros"
    gram = np.array(
        [
            [1 / (2.45 * 1.45), 1 / (2.45 * (2.45 * 1.45) ** 0.5)],
            [0, 1 / 2.45**2 + 1 / (2.45 * 1.45)],
        ]
    )
    np.testing.assert_allclose(np.triu((factors @ factors.T).numpy()), gram, rtol=1e-5)


def test_a_large_matrix_gives_the_factors_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    dataset, likes = _dataset(_Heard())
    dense = listening_factors(dataset, likes, 4, min_users=3, shrinkage=0.3)
    monkeypatch.setattr(preference_init, "MAX_DENSE_CELLS", 0)
    sparse = listening_factors(dataset, likes, 4, min_users=3, shrinkage=0.3)
    torch.testing.assert_close(sparse @ sparse.T, dense @ dense.T, rtol=1e-4, atol=1e-5)


@pytest.fixture
def model(text_encoder_folder: Path) -> HTCL:
    torch.manual_seed(0)
    changes = {
        "text": {"name": str(text_encoder_folder)},
        "heads": {"embed_dim": 8 + 4 + 1, "preference_dim": 4},
    }
    return HTCL.from_settings(Config.from_preset("tiny", changes), frame_size=FRAME_SIZE)


def test_the_departure_begins_where_crowds_come_apart(model: HTCL) -> None:
    """A track nobody knows lands with its crowd, by sound alone and with a neutral text."""
    store = _Heard()
    dataset, table = _dataset(store)
    states = torch.randn(N_TRACKS + 1, 32, generator=torch.Generator().manual_seed(1))
    states[-1] = 0.0
    init_preference_head(
        model,
        dataset,
        listening_factors(dataset, table, 4, min_users=3, shrinkage=0.3),
        states,
        SETTINGS,
    )
    frames = [store.read(f"{number:02}") for number in range(N_TRACKS)]
    audio = model.encode_features(frames)
    taste = audio[:, 8:12] * float(model.audio_head.radius)
    centre = taste[:-1].mean(axis=0)
    same, other = (taste[:-1][store.crowd[:-1] == crowd].mean(axis=0) - centre for crowd in (1, 0))
    assert (taste[-1] - centre) @ (same - other) * (1 if store.crowd[-1] else -1) > 0
    assert np.sqrt((taste[:-1] ** 2).sum(axis=1).mean()) == pytest.approx(
        SETTINGS.residual_length, rel=0.05
    )
    numbers = [dataset.text_numbers[f"{number:02}"] for number in range(N_TRACKS)]
    fused = model.encode_fused(frames, states[numbers].numpy())
    np.testing.assert_allclose(fused[::5], audio[::5], atol=1e-6)  # those without text
    assert np.abs(fused[1::5] - audio[1::5]).max() > 0.01
    np.testing.assert_allclose(fused[:, :8], audio[:, :8], atol=1e-5)


def test_without_listening_nothing_begins(model: HTCL) -> None:
    dataset, _ = _dataset(_Heard())
    init_preference_head(
        model, dataset, torch.zeros(N_TRACKS, 4), torch.zeros(N_TRACKS + 1, 32), SETTINGS
    )
    assert not model.audio_head.residual.weight.any()
    assert float(model.audio_head.radius) == 1.0


def test_a_beginning_at_random_is_small_has_a_slope_and_is_the_same_with_text(model: HTCL) -> None:
    store = _Heard()
    frames = [store.read(f"{number:02}") for number in range(N_TRACKS)]
    init_preference_head_randomly(model, SETTINGS)
    audio = model.encode_features(frames)
    taste = audio[:, 8:12] * float(model.audio_head.radius)
    assert np.sqrt((taste**2).sum(axis=1).mean()) == pytest.approx(
        SETTINGS.random_residual_length, rel=0.5
    )
    fused = model.encode_fused(frames, np.ones((N_TRACKS, 32), dtype=np.float32))
    np.testing.assert_allclose(fused, audio, atol=1e-6)
    mel = torch.from_numpy(np.stack(frames[:4]))
    vectors = torch.nn.functional.normalize(
        model.project_audio(mel, torch.zeros(4, 1, dtype=torch.bool)), dim=1
    )
    torch.autograd.backward((vectors[0] * vectors[1]).sum())
    slope = model.audio_head.residual.weight.grad
    assert slope is not None
    assert slope.abs().max() > 1e-4
