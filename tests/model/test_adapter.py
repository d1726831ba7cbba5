"""The tower over a frozen front end: standardised, on principal axes, and unmoved until something
is learned.
"""

import numpy as np
import pytest
import torch

from ponticello.errors import ConfigError, DataError, ShapeError
from ponticello.model.adapter import (
    AdapterFusion,
    AdapterHead,
    FeaturePooling,
    fit_feature_projection,
)
from ponticello.model.audio_encoder import masked_mean

TRACKS = np.random.default_rng(0).standard_normal((40, 6)) * [5.0, 1.0, 1.0, 1.0, 0.1, 0.0] + 3.0
ONE_BLOCK, TASTE_DIM = ((6, 1.0),), 2


def _fitted(n_axes: int = 4) -> tuple[FeaturePooling, AdapterHead]:
    encoder, head = FeaturePooling(6), AdapterHead(6, n_axes + TASTE_DIM + 1, TASTE_DIM, 0.0)
    fit_feature_projection(encoder, head, TRACKS, ONE_BLOCK)
    return encoder, head


def _vectors(encoder: FeaturePooling, head: AdapterHead, tracks: np.ndarray) -> np.ndarray:
    frames = torch.from_numpy(tracks.astype(np.float32))[:, None]
    with torch.no_grad():
        found: np.ndarray = head(
            masked_mean(*encoder(frames, torch.zeros(len(tracks), 1, dtype=torch.bool)))
        ).numpy()
    return found


def test_the_tower_begins_as_the_principal_components_of_standardised_tracks() -> None:
    """With as many axes as directions, cosines are those of the standardised tracks."""
    found = _vectors(*_fitted(6), TRACKS)
    standardised = (TRACKS - TRACKS.mean(axis=0)) / np.maximum(TRACKS.std(axis=0), 1e-4)

    def cosines(rows: np.ndarray) -> np.ndarray:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(unit @ unit.T)

    np.testing.assert_allclose(cosines(found), cosines(standardised), atol=1e-4)
    np.testing.assert_allclose((found**2).sum(axis=1), 1.0, atol=1e-5)
    assert not found[:, 6:8].any(), "no taste before stage two"


def test_axes_come_by_the_spread_they_explain() -> None:
    encoder, head = _fitted()
    frames = torch.from_numpy(TRACKS.astype(np.float32))[:, None]
    standardised, _ = encoder(frames, torch.zeros(len(TRACKS), 1, dtype=torch.bool))
    spread = (standardised[:, 0] @ head.axes).std(dim=0)
    assert (spread.diff() <= 1e-6).all()
    assert (standardised[:, 0] @ head.axes).square().sum(dim=1).mean().item() == pytest.approx(
        1.0, abs=1e-5
    )


def test_padding_changes_nothing() -> None:
    encoder, head = _fitted()
    frames = torch.from_numpy(TRACKS[:2].astype(np.float32))[None]  # one track of two frames
    padded = torch.cat([frames, torch.full((1, 3, 6), 99.0)], dim=1)
    mask = torch.tensor([[False, False, True, True, True]])
    with torch.no_grad():
        short = head(masked_mean(*encoder(frames, mask[:, :2])))
        long = head(masked_mean(*encoder(padded, mask)))
    torch.testing.assert_close(short, long, rtol=0, atol=1e-6)


def test_the_departure_begins_at_nothing_and_stands_beside_what_is_heard() -> None:
    """Learned or not, the first coordinates stay; a radius of 3 makes every vector 3 long."""
    encoder, head = _fitted()
    before = _vectors(encoder, head, TRACKS)
    head.radius.fill_(3.0)
    loss = head(torch.randn(8, 6))[:, 4:6].square().sum() + head(torch.randn(8, 6))[:, 4:6].sum()
    loss.backward()
    assert head.residual.weight.grad is not None
    assert head.residual.weight.grad.any()
    with torch.no_grad():
        head.residual.weight += 0.5
    moved = _vectors(encoder, head, TRACKS)
    np.testing.assert_allclose(moved[:, :4], before[:, :4], atol=1e-6)
    assert np.abs(moved[:, 4:6]).max() > 0.1
    np.testing.assert_allclose(np.linalg.norm(moved, axis=1), 3.0, atol=1e-5)
    head.residual.reset_parameters()
    head.radius.fill_(1.0)
    np.testing.assert_allclose(_vectors(encoder, head, TRACKS), before, atol=1e-6)


def test_a_text_ranks_tracks_whatever_listening_added() -> None:
    """A text has no taste coordinates and all tracks are equally long, so its order of them cannot
    change.
    """
    encoder, head = _fitted()
    text = torch.nn.functional.normalize(head.of_text(torch.randn(3, 4)), dim=1).detach().numpy()
    before = np.argsort(text @ _vectors(encoder, head, TRACKS).T, axis=1)
    head.radius.fill_(5.0)
    with torch.no_grad():
        head.residual.weight.normal_()
    np.testing.assert_array_equal(
        np.argsort(text @ _vectors(encoder, head, TRACKS).T, axis=1), before
    )


def test_a_taste_longer_than_the_radius_lengthens_the_vector_and_stays_finite() -> None:
    _, head = _fitted()
    long = head.concat(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), torch.tensor([[30.0, 0.0]]))
    assert long[0, :6].tolist() == [1.0, 0.0, 0.0, 0.0, 30.0, 0.0]
    assert 0 <= long[0, 6] < 1e-5


def test_a_block_counts_by_its_weight_however_many_numbers_it_has() -> None:
    """Blocks of 4 and 2 numbers, the second with weight 0.5, has 0.25 / 1.25 of all the spread."""
    tracks = np.random.default_rng(1).standard_normal((400, 6))
    encoder, head = FeaturePooling(6), AdapterHead(6, 9, TASTE_DIM, 0.0)
    fit_feature_projection(encoder, head, tracks, ((4, 1.0), (2, 0.5)))
    frames = torch.from_numpy(tracks.astype(np.float32))[:, None]
    scaled, _ = encoder(frames, torch.zeros(400, 1, dtype=torch.bool))
    spread = scaled[:, 0].var(dim=0, correction=0)
    assert (spread[4:].sum() / spread.sum()).item() == pytest.approx(0.2, abs=1e-5)


def test_a_fusion_begins_as_the_audio_vector() -> None:
    _, head = _fitted()
    fusion = AdapterFusion(4, 5, TASTE_DIM, 0.0)
    audio, states = head(torch.randn(3, 6)), torch.randn(3, 5)
    torch.testing.assert_close(fusion(head, audio, states), audio, rtol=0, atol=1e-6)
    with torch.no_grad():
        fusion.residual.weight.normal_()
        head.radius.fill_(9.0)
    fused = fusion(head, audio, states)
    torch.testing.assert_close(fused[:, :4], audio[:, :4], rtol=0, atol=0)
    torch.testing.assert_close(fused.norm(dim=1), torch.full((3,), 9.0), rtol=1e-5, atol=0)
    assert fused[:, 4:6].abs().min() > 0


def test_few_tracks_leave_the_rest_at_zero() -> None:
    encoder, head = FeaturePooling(6), AdapterHead(6, 8, TASTE_DIM, 0.0)
    fit_feature_projection(encoder, head, TRACKS[:5], ONE_BLOCK)  # two axes at most
    assert head.axes[:, :2].any(dim=0).all()
    assert not head.axes[:, 2:].any()
    assert torch.isfinite(head.axes).all()


def test_too_few_tracks_and_other_shapes_are_refused() -> None:
    encoder, head = _fitted()
    with pytest.raises(
        ConfigError, match=r"heads\.embed_dim 3 must be above heads\.preference_dim 2 plus 1"
    ):
        AdapterHead(6, 3, 2, 0.0)
    with pytest.raises(DataError, match="1 training tracks have frames; at least 2"):
        fit_feature_projection(encoder, head, TRACKS[:1], ONE_BLOCK)
    with pytest.raises(ShapeError, match=r"frames must be \(B, T, 6\)"):
        encoder(torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.bool))
