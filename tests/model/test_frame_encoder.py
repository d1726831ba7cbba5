"""The tower over a frozen front end: standardised, on principal axes, and unmoved until something is learned."""

import numpy as np
import pytest
import torch

from ponticello.errors import DataError, ShapeError
from ponticello.model.audio_encoder import masked_mean
from ponticello.model.frame_encoder import AnchoredFusion, AnchoredHead, FrameEncoder, fit_front_end

TRACKS = np.random.default_rng(0).standard_normal((40, 6)) * [5.0, 1.0, 1.0, 1.0, 0.1, 0.0] + 3.0
ONE_BLOCK = ((6, 1.0),)


def _fitted(embed_dim: int = 4) -> tuple[FrameEncoder, AnchoredHead]:
    encoder, head = FrameEncoder(6), AnchoredHead(6, embed_dim, 0.0)
    fit_front_end(encoder, head, TRACKS, ONE_BLOCK)
    return encoder, head


def _vectors(encoder: FrameEncoder, head: AnchoredHead, tracks: np.ndarray) -> np.ndarray:
    frames = torch.from_numpy(tracks.astype(np.float32))[:, None]
    with torch.no_grad():
        found: np.ndarray = head(masked_mean(*encoder(frames, torch.zeros(len(tracks), 1, dtype=torch.bool)))).numpy()
    return found


def test_the_tower_begins_as_the_principal_components_of_standardised_tracks() -> None:
    """With as many axes as directions, all cosines are those of the standardised tracks themselves."""
    found = _vectors(*_fitted(6), TRACKS)
    standardised = (TRACKS - TRACKS.mean(axis=0)) / np.maximum(TRACKS.std(axis=0), 1e-4)

    def cosines(rows: np.ndarray) -> np.ndarray:
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return np.asarray(unit @ unit.T)

    np.testing.assert_allclose(cosines(found), cosines(standardised), atol=1e-4)
    assert np.sqrt((found**2).sum(axis=1).mean()) == pytest.approx(1.0, abs=1e-5)


def test_axes_come_by_the_spread_they_explain() -> None:
    spread = _vectors(*_fitted(), TRACKS).std(axis=0)
    assert (np.diff(spread) <= 1e-6).all()


def test_padding_changes_nothing() -> None:
    encoder, head = _fitted()
    frames = torch.from_numpy(TRACKS[:2].astype(np.float32))[None]  # one track of two frames
    padded = torch.cat([frames, torch.full((1, 3, 6), 99.0)], dim=1)
    mask = torch.tensor([[False, False, True, True, True]])
    with torch.no_grad():
        short = head(masked_mean(*encoder(frames, mask[:, :2])))
        long = head(masked_mean(*encoder(padded, mask)))
    torch.testing.assert_close(short, long, rtol=0, atol=1e-6)


def test_the_departure_begins_at_nothing_and_is_learned() -> None:
    encoder, head = _fitted()
    before = _vectors(encoder, head, TRACKS)
    loss = head(torch.randn(8, 6)).square().sum()
    loss.backward()
    assert head.departure.weight.grad is not None
    with torch.no_grad():
        head.departure.weight += 0.1
    assert np.abs(_vectors(encoder, head, TRACKS) - before).max() > 1e-3
    head.departure.reset_parameters()
    np.testing.assert_allclose(_vectors(encoder, head, TRACKS), before, atol=1e-6)


def test_a_block_counts_by_its_weight_however_many_numbers_it_has() -> None:
    """Blocks of 4 and 2 numbers, the second weighing a half: it has 0.25 / 1.25 of all the spread."""
    tracks = np.random.default_rng(1).standard_normal((400, 6))
    encoder, head = FrameEncoder(6), AnchoredHead(6, 6, 0.0)
    fit_front_end(encoder, head, tracks, ((4, 1.0), (2, 0.5)))
    frames = torch.from_numpy(tracks.astype(np.float32))[:, None]
    scaled, _ = encoder(frames, torch.zeros(400, 1, dtype=torch.bool))
    spread = scaled[:, 0].var(dim=0, correction=0)
    assert (spread[4:].sum() / spread.sum()).item() == pytest.approx(0.2, abs=1e-5)


def test_a_fusion_begins_as_the_audio_vector() -> None:
    fusion = AnchoredFusion((5,), 4, 0.0)
    audio, text = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(fusion(torch.cat([audio, text], dim=1)), audio, rtol=0, atol=0)
    fusion(torch.cat([audio, text], dim=1)).square().sum().backward()
    last = fusion.departure.linears[-1]
    assert isinstance(last, torch.nn.Linear)
    assert last.weight.grad is not None
    assert last.weight.grad.any()


def test_few_tracks_leave_the_rest_at_zero() -> None:
    encoder, head = FrameEncoder(6), AnchoredHead(6, 5, 0.0)
    fit_front_end(encoder, head, TRACKS[:5], ONE_BLOCK)  # two axes at most
    assert head.axes[:, :2].any(dim=0).all()
    assert not head.axes[:, 2:].any()
    assert torch.isfinite(head.axes).all()


def test_too_few_tracks_and_other_shapes_are_refused() -> None:
    encoder, head = _fitted()
    with pytest.raises(DataError, match="1 training tracks have frames; at least 2"):
        fit_front_end(encoder, head, TRACKS[:1], ONE_BLOCK)
    with pytest.raises(ShapeError, match=r"frames must be \(B, T, 6\)"):
        encoder(torch.zeros(2, 3, 5), torch.zeros(2, 3, dtype=torch.bool))
