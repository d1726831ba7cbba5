"""Both ways to fit the preference encoder: factors by hand, and what each can and cannot learn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from ponticello.config import Config
from ponticello.errors import DataError, Stopped
from ponticello.model.preference import PreferenceEncoder
from ponticello.train import preference_encoder
from ponticello.train.listener_sets import TrackInputs
from ponticello.train.loop import TrainingLoop, TrainingObserver
from ponticello.train.preference_encoder import (
    fit_both,
    fit_by_contrast,
    fit_by_regression,
    listening_factors,
)

HEADS = {"embed_dim": 16, "preference_members": 1, "preference_hidden_size": 64}
CONFIG = Config.from_preset("tiny", {"heads": HEADS, "preference": {"batch_size": 64}})


def test_factors_by_hand() -> None:
    """Listener a likes 0 and 1, b likes 1: degrees 2, 1 and 1, 2, mean 1.5 each, 0.45 added.

    With s = 2.45 and t = 1.45 the matrix is [1 / sqrt(s t), 1 / s; 0, 1 / sqrt(s t)]; its squared
    singular values add up to 2 / (s t) + 1 / s^2 = 0.7296, and so do the squares of all factors.
    """
    factors = listening_factors(csr_matrix(np.array([[1, 1], [0, 1]], dtype=bool)), 3, 0.3)
    assert (factors**2).sum() == pytest.approx(2 / (2.45 * 1.45) + 1 / 2.45**2, rel=1e-5)
    assert not factors[:, 2].any(), "more factors than tracks are zeros"
    shared = 1 / (2.45 * (2.45 * 1.45) ** 0.5)
    gram = [[1 / (2.45 * 1.45), shared], [shared, 1 / 2.45**2 + 1 / (2.45 * 1.45)]]
    np.testing.assert_allclose(factors @ factors.T, gram, rtol=1e-5)


def test_a_large_matrix_gives_the_factors_of_a_small_one(monkeypatch: pytest.MonkeyPatch) -> None:
    likes = csr_matrix(np.random.default_rng(0).random((30, 20)) < 0.3)
    dense = listening_factors(likes, 4, 0.3)
    monkeypatch.setattr(preference_encoder, "MAX_DENSE_CELLS", 0)
    sparse = listening_factors(likes, 4, 0.3)
    np.testing.assert_allclose(sparse @ sparse.T, dense @ dense.T, rtol=1e-4, atol=1e-6)


def test_tracks_that_nobody_likes_have_no_factors() -> None:
    likes = csr_matrix(np.array([[1, 1, 0], [0, 1, 0]], dtype=bool))
    assert not listening_factors(likes, 2, 0.3)[2].any()
    assert not listening_factors(csr_matrix((4, 3), dtype=bool), 2, 0.3).any()


def _world(is_linear: bool, n: int = 400) -> tuple[TrackInputs, csr_matrix, np.ndarray]:
    """Tracks with two audible numbers, and listeners of one of two crowds.

    Linear: the crowd of a track is the sign of the first number. Otherwise it is whether both signs
    are equal, which no linear map of the numbers can show.
    """
    generator = np.random.default_rng(0)
    audio = generator.standard_normal((n, 6)).astype(np.float32)
    crowd = audio[:, 0] > 0
    if not is_linear:
        crowd = (audio[:, 0] > 0) == (audio[:, 1] > 0)
    likes = np.zeros((600, n), dtype=bool)
    for listener in range(600):
        liked = np.flatnonzero(crowd == (listener % 2 == 0))
        likes[listener, generator.choice(liked, 12, replace=False)] = True
    inputs = TrackInputs(
        torch.from_numpy(audio),
        torch.zeros(n, 4),
        csr_matrix((n, 1), dtype=bool),
        torch.zeros(1, 4),
    )
    return inputs, csr_matrix(likes), crowd


def _cold_auc(encoder: PreferenceEncoder, inputs: TrackInputs, crowd: np.ndarray) -> float:
    """Returns how often a cold track of a crowd is nearer to the mean of its training tracks than a
    cold track of the other; the last 100 tracks are cold.
    """
    with torch.no_grad():
        vectors = encoder.encode(inputs.audio, None).numpy()
    query = vectors[:300][crowd[:300]].mean(axis=0) - vectors[:300][~crowd[:300]].mean(axis=0)
    scores = vectors[300:] @ query
    liked = scores[crowd[300:]]
    others = scores[~crowd[300:]]
    return float((liked[:, None] > others).mean())


def _without_cold(inputs: TrackInputs, likes: csr_matrix) -> tuple[TrackInputs, csr_matrix]:
    return inputs.rows(np.arange(300)), likes[:, :300].tocsr()


def test_contrast_learns_what_no_linear_map_can(tmp_path: Path) -> None:
    inputs, likes, crowd = _world(is_linear=False)
    training = _without_cold(inputs, likes)
    contrast = fit_by_contrast(CONFIG, *training, 60, tmp_path)
    regression = fit_by_regression(CONFIG, *training, 1.0)
    contrast_auc = _cold_auc(contrast, inputs, crowd)
    assert contrast_auc > 0.85
    assert contrast_auc > _cold_auc(regression, inputs, crowd) + 0.15


def test_regression_finds_crowds_that_are_a_sign() -> None:
    inputs, likes, crowd = _world(is_linear=True)
    regression = fit_by_regression(CONFIG, *_without_cold(inputs, likes), 1.0)
    assert _cold_auc(regression, inputs, crowd) > 0.9


def test_both_are_each_fit_with_half_of_the_dimensions(tmp_path: Path) -> None:
    inputs, likes, _ = _world(is_linear=True)
    both = fit_both(CONFIG, inputs, likes, 2, 1.0, tmp_path / "both")
    contrast = fit_by_contrast(CONFIG, inputs, likes, 2, tmp_path / "contrast", embed_dim=8)
    regression = fit_by_regression(CONFIG, inputs, likes, 1.0, embed_dim=8)
    with torch.no_grad():
        vectors = both.encode(inputs.audio, None)
        halves = [encoder.encode(inputs.audio, None) for encoder in (contrast, regression)]
    torch.testing.assert_close(vectors, torch.cat(halves, dim=1) / 2**0.5)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    inputs, likes, _ = _world(is_linear=True)
    first = fit_by_contrast(CONFIG, inputs, likes, 2, tmp_path / "first")
    torch.rand(3)
    second = fit_by_contrast(CONFIG, inputs, likes, 2, tmp_path / "second")
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name


def test_a_stopped_fit_goes_on_to_the_weights_of_one_that_was_not(tmp_path: Path) -> None:
    inputs, likes, _ = _world(is_linear=True)
    whole = fit_by_contrast(CONFIG, inputs, likes, 2, tmp_path / "whole")

    class _StopAfterSeven(TrainingObserver):
        def on_step(self, loop: TrainingLoop[Any]) -> None:
            if loop.step == 7:
                loop.request_stop()

    with pytest.raises(Stopped, match="stopped after step 7"):
        fit_by_contrast(CONFIG, inputs, likes, 2, tmp_path / "part", [_StopAfterSeven()])
    resumed = fit_by_contrast(CONFIG, inputs, likes, 2, tmp_path / "part")
    for name, weight in whole.state_dict().items():
        assert torch.equal(weight, resumed.state_dict()[name]), name


def test_a_loss_that_is_not_finite_ends_the_training(tmp_path: Path) -> None:
    inputs, likes, _ = _world(is_linear=True)
    inputs.audio[0, 0] = float("nan")
    with pytest.raises(DataError, match="the listeners loss is nan in step 1"):
        fit_by_contrast(CONFIG, inputs, likes, 2, tmp_path)


def test_the_log_shows_that_logits_are_spread(tmp_path: Path) -> None:
    inputs, likes, _ = _world(is_linear=True)
    fit_by_contrast(CONFIG, inputs, likes, 10, tmp_path)
    last = json.loads((tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert last["step"] == 90, "600 listeners in 9 steps of about 64, ten times"
    assert last["eval_logit_std"] > 1.5
