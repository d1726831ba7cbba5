"""Log-mels as tensors: normalised over real frames, padded, masked, cut."""

from typing import Any

import numpy as np
import pytest
import torch

from ponticello.config import MelConfig
from ponticello.errors import ShapeError
from ponticello.model.batching import all_crops, pad_features, pad_frames, random_crop

SMALL = MelConfig(n_mels=2, max_seconds=0.96)  # at most 1 + 15360 // 1536 = 11 frames
RELEASED = SMALL.model_copy(update={"released_padding": True})


def noise(*n_frames: int, n_mels: int = 2, seed: int = 0) -> list[np.ndarray]:
    """Log-mels of these lengths, float16 as the store keeps them, about -40 dB."""
    rng = np.random.default_rng(seed)
    return [rng.normal(-40, 12, (n, n_mels)).astype(np.float16) for n in n_frames]


def assert_close(found: Any, expected: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=0, atol=1e-5)


def test_track_is_brought_to_mean_zero_and_deviation_one() -> None:
    """(-10, -30), (-30, -50): mean -30, squared distances 400, 0, 0, 400, so deviation sqrt(200) =
    14.1421.

    The ends become 20 / 14.1421 = +-1.414214, the others 0.
    """
    mel = np.array([[-10.0, -30.0], [-30.0, -50.0]], dtype=np.float32)
    batch, mask = pad_features([mel], SMALL, min_frames=1)
    assert batch.dtype == torch.float32
    assert_close(batch[0], [[1.414214, 0.0], [0.0, -1.414214]])
    assert mask.dtype == torch.bool
    assert mask.tolist() == [[False, False]]


def test_each_track_is_normalised_over_its_own_real_frames() -> None:
    batch, mask = pad_features(noise(3, 11, 7), SMALL, min_frames=1)
    for row, padded in zip(batch, mask, strict=True):
        assert row[~padded].mean().item() == pytest.approx(0.0, abs=1e-6)
        assert row[~padded].std(unbiased=False).item() == pytest.approx(1.0, abs=1e-5)
        assert (row[padded] == 0).all()
    assert (~mask).sum(1).tolist() == [3, 11, 7]
    assert mask.tolist() == [[False] * n + [True] * (11 - n) for n in (3, 11, 7)]


def test_longer_neighbours_change_no_value() -> None:
    mels = noise(4, 11, 6)
    together, _ = pad_features(mels, SMALL, min_frames=1)
    for row, mel in zip(together, mels, strict=True):
        alone, _ = pad_features([mel], SMALL, min_frames=1)
        assert torch.equal(alone[0], row[: len(mel)])


def test_batch_is_as_long_as_its_longest_track() -> None:
    assert pad_features(noise(4, 6), SMALL, min_frames=1)[0].shape == (2, 6, 2)


def test_constant_track_becomes_zeros() -> None:
    mel = np.full((5, 2), -100.0, dtype=np.float16)
    for config in (SMALL, SMALL.model_copy(update={"top_db": 1e-9})):
        batch, mask = pad_features([mel], config, min_frames=1)
        assert torch.equal(batch, torch.zeros(1, 5, 2))
        assert not mask.any()


def test_level_and_contrast_of_a_track_do_not_matter() -> None:
    mel = noise(8)[0].astype(np.float32)
    batch, _ = pad_features([mel, mel + 15, 0.5 * mel], SMALL, min_frames=1)
    assert_close(batch[1], batch[0])
    assert_close(batch[2], batch[0])


def test_track_is_cut_to_max_frames_before_it_is_normalised() -> None:
    mel = noise(30)[0]
    assert SMALL.max_frames == 11
    batch, mask = pad_features([mel], SMALL, min_frames=1)
    assert batch.shape == (1, 11, 2)
    assert not mask.any()
    assert torch.equal(batch, pad_features([mel[:11]], SMALL, min_frames=1)[0])


def test_track_of_min_frames_is_left_alone() -> None:
    mel = noise(5)[0]
    assert torch.equal(
        pad_features([mel], SMALL, min_frames=5)[0], pad_features([mel], SMALL, min_frames=1)[0]
    )


def test_shorter_track_is_filled_with_its_floor_which_counts_as_real() -> None:
    """Loudest -10 dB, so the floor is -90. Values -10, -50, -90, -90: mean -60, squares 2500, 100,
    900, 900, mean 1100, deviation 33.1662; (-10 + 60) / 33.1662 = 1.507557, 10 / 33.1662 =
    0.301511, -30 / ... = -0.904534.
    """
    mel = np.array([[-10.0, -50.0]], dtype=np.float16)
    batch, mask = pad_features([mel], SMALL, min_frames=2)
    assert_close(batch[0], [[1.507557, 0.301511], [-0.904534, -0.904534]])
    assert mask.tolist() == [[False, False]]


def test_released_padding_is_the_released_recipe() -> None:
    """Written anew: fill with (loudest - 80 dB) to `max_frames`, normalise over the whole matrix,
    mask nothing.
    """
    mels = noise(3, 11, 7, 20)
    batch, mask = pad_features(mels, RELEASED, min_frames=1)
    assert batch.shape == (4, 11, 2)
    assert not mask.any()
    for row, mel in zip(batch, mels, strict=True):
        matrix = [[float(value) for value in frame] for frame in mel[:11]]
        floor = max(max(frame) for frame in matrix) - 80.0
        matrix += [[floor, floor]] * (11 - len(matrix))
        values = [value for frame in matrix for value in frame]
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / len(values)) ** 0.5
        assert_close(row, [[(value - mean) / deviation for value in frame] for frame in matrix])


def test_released_padding_pads_one_short_track_to_max_frames() -> None:
    batch, mask = pad_features(noise(3), RELEASED, min_frames=1)
    assert batch.shape == (1, 11, 2)
    assert not mask.any()
    assert batch[0, 3:].max() == batch[0, 3:].min() < batch[0, :3].min()


def test_mels_are_not_written_to() -> None:
    mels = noise(3, 5)
    before = [mel.copy() for mel in mels]
    for mel in mels:
        mel.flags.writeable = False
    for config in (SMALL, RELEASED):
        pad_features(mels, config, min_frames=4)
    for mel, same in zip(mels, before, strict=True):
        np.testing.assert_array_equal(mel, same)


@pytest.mark.parametrize("shape", [(5, 3), (5,), (0, 2), (1, 5, 2)])
def test_log_mels_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError) as caught:
        pad_features([*noise(4), np.zeros(shape, dtype=np.float16)], SMALL, min_frames=1)
    assert (
        str(caught.value) == f"a log-mel must be (frames, 2) with at least one frame; found {shape}"
    )


def test_random_crop_takes_a_run_of_real_frames() -> None:
    """Frame t holds the value t: a crop of 5 counts up by one from some start, and never reaches
    into the padding.
    """
    mel = torch.arange(20.0)[None, :, None].expand(512, 20, 3)
    padding_mask = torch.zeros(512, 20, dtype=torch.bool)
    padding_mask[256:, 12:] = True
    torch.manual_seed(0)
    cropped, mask = random_crop(mel, padding_mask, 5)
    assert cropped.shape == (512, 5, 3)
    assert not mask.any()
    assert torch.equal(cropped[:, :, 0] - cropped[:, :1, 0], torch.arange(5.0).expand(512, 5))
    assert set(cropped[:256, 0, 0].tolist()) == set(range(16))
    assert set(cropped[256:, 0, 0].tolist()) == set(range(8))


def test_random_crop_leaves_a_shorter_track_whole() -> None:
    mel = torch.arange(8.0)[None, :, None].expand(2, 8, 1)
    padding_mask = torch.tensor([[False] * 8, [False] * 3 + [True] * 5])
    cropped, mask = random_crop(mel, padding_mask, 6)
    assert cropped[1, :3, 0].tolist() == [0.0, 1.0, 2.0]
    assert mask.tolist() == [[False] * 6, [False] * 3 + [True] * 3]
    whole, mask = random_crop(mel, padding_mask, 50)
    assert torch.equal(whole, mel)
    assert torch.equal(mask, padding_mask)


def test_every_crop_covers_each_track_and_the_last_ends_with_it() -> None:
    """Frame t of row r holds 100 r + t. Of 5 frames each: 12 take 0-4, 5-9 and 7-11; 10 two; 5 one;
    3 one, padded.
    """
    mel = (100 * torch.arange(4.0)[:, None] + torch.arange(12.0))[..., None]
    padding_mask = torch.arange(12)[None, :] >= torch.tensor([12, 10, 5, 3])[:, None]
    crops, mask, row = all_crops(mel, padding_mask, 5)
    assert row.tolist() == [0, 0, 0, 1, 1, 2, 3]
    assert crops[:6, 0, 0].tolist() == [0.0, 5.0, 7.0, 100.0, 105.0, 200.0]
    assert torch.equal(crops[:6, :, 0] - crops[:6, :1, 0], torch.arange(5.0).expand(6, 5))
    assert crops[6, :3, 0].tolist() == [300.0, 301.0, 302.0]
    assert mask.tolist() == [*[[False] * 5] * 6, [False] * 3 + [True] * 2]


def test_crop_as_long_as_the_longest_track_is_the_batch_itself() -> None:
    mel = torch.randn(2, 8, 3)
    padding_mask = torch.tensor([[False] * 8, [False] * 3 + [True] * 5])
    for n_frames in (8, 50):
        crops, mask, row = all_crops(mel, padding_mask, n_frames)
        assert torch.equal(crops, mel)
        assert torch.equal(mask, padding_mask)
        assert row.tolist() == [0, 1]


def test_frames_of_a_front_end_are_padded_as_they_are() -> None:
    batch, mask = pad_frames(
        [np.ones((2, 3), dtype=np.float16), np.full((1, 3), 5.0, dtype=np.float16)]
    )
    assert batch.tolist() == [[[1.0] * 3] * 2, [[5.0] * 3, [0.0] * 3]]
    assert mask.tolist() == [[False, False], [False, True]]


@pytest.mark.parametrize("shapes", [[(2, 3), (2, 4)], [(0, 3)], [(3,)]])
def test_frames_of_other_shapes_are_refused(shapes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ShapeError, match="frames must be"):
        pad_frames([np.zeros(shape, dtype=np.float16) for shape in shapes])
