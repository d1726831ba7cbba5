"""The tower over a frozen front end: standardised features on their principal axes."""

import numpy as np
import pytest
import torch

from ponticello.errors import DataError, ShapeError
from ponticello.model.adapter import FeaturePooling, SemanticProjection, fit_feature_projection
from ponticello.model.audio_encoder import masked_mean

TRACKS = np.random.default_rng(0).standard_normal((40, 6)) * [5.0, 1.0, 1.0, 1.0, 0.1, 0.0] + 3.0
ONE_BLOCK = ((6, 1.0),)


def _fitted(n_axes: int = 4) -> tuple[FeaturePooling, SemanticProjection]:
    encoder = FeaturePooling(6)
    head = SemanticProjection(6, n_axes)
    fit_feature_projection(encoder, head, TRACKS, ONE_BLOCK)
    return encoder, head


def _vectors(encoder: FeaturePooling, head: SemanticProjection, tracks: np.ndarray) -> np.ndarray:
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


def test_a_block_counts_by_its_weight_however_many_numbers_it_has() -> None:
    """Blocks of 4 and 2 numbers, the second with weight 0.5, has 0.25 / 1.25 of all the spread."""
    tracks = np.random.default_rng(1).standard_normal((400, 6))
    encoder = FeaturePooling(6)
    head = SemanticProjection(6, 6)
    fit_feature_projection(encoder, head, tracks, ((4, 1.0), (2, 0.5)))
    frames = torch.from_numpy(tracks.astype(np.float32))[:, None]
    scaled, _ = encoder(frames, torch.zeros(400, 1, dtype=torch.bool))
    spread = scaled[:, 0].var(dim=0, correction=0)
    assert (spread[4:].sum() / spread.sum()).item() == pytest.approx(0.2, abs=1e-5)


def test_few_tracks_leave_the_rest_at_zero() -> None:
    encoder = FeaturePooling(6)
    head = SemanticProjection(6, 5)
    fit_feature_projection(encoder, head, TRACKS[:5], ONE_BLOCK)  # two axes at most
    assert head.axes[:, :2].any(dim=0).all()
    assert not head.axes[:, 2:].any()
    assert torch.isfinite(head.axes).all()


def test_too_few_tracks_and_other_shapes_are_refused() -> None:
    encoder, head = _fitted()
    with pytest.raises(DataError, match="1 training tracks have frames; at least 2"):
        fit_feature_projection(encoder, head, TRACKS[:1], ONE_BLOCK)
    with pytest.raises(ShapeError, match=r"frames must be \(B, T, 6\)"):
        encoder(torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.bool))
