"""The audio tower: which frames a token sees, and that padding is never one of them."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ponticello.config import AudioEncoderConfig
from ponticello.errors import ConfigError, ShapeError
from ponticello.model.audio_encoder import (
    AudioEncoder,
    ConvLayer,
    ConvPositionEmbedding,
    masked_mean,
)

N_MELS = 6
MIN_FRAMES = 17  # 1 token <- 3 frames <- (3 - 1) * 2 + 3 = 7 <- (7 - 1) * 2 + 5 = 17
TOLERANCE = 1e-5
SMALL = AudioEncoderConfig(
    conv_channels=(16, 16, 16),
    hidden_size=32,
    n_layers=2,
    n_heads=4,
    ffn_size=48,
    position_kernel=31,
)


@pytest.fixture(scope="module")
def encoder() -> AudioEncoder:
    torch.manual_seed(0)
    return AudioEncoder(SMALL, N_MELS).train(False)


def batch(*n_frames: int, n_padded: int | None = None, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Noise of the given lengths, zero where padded, and its mask; `n_padded` frames long."""
    generator = torch.Generator().manual_seed(seed)
    mel = torch.zeros(len(n_frames), n_padded or max(n_frames), N_MELS)
    for row, n in zip(mel, n_frames, strict=True):
        row[:n] = torch.randn(n, N_MELS, generator=generator)
    return mel, torch.arange(mel.shape[1])[None, :] >= torch.tensor(n_frames)[:, None]


def frames_seen(
    kernels: tuple[int, ...], strides: tuple[int, ...], n_frames: int
) -> list[set[int]]:
    """For each token, the input frames it is made of; plain loops over an unpadded convolution."""
    seen = [{frame} for frame in range(n_frames)]
    for kernel, stride in zip(kernels, strides, strict=True):
        starts = range(0, len(seen) - kernel + 1, stride)
        seen = [set().union(*seen[start : start + kernel]) for start in starts]
    return seen


# Lengths


def test_min_frames_is_the_shortest_input_with_one_token(encoder: AudioEncoder) -> None:
    assert encoder.min_frames == MIN_FRAMES
    assert len(frames_seen((5, 3, 3), (2, 2, 2), MIN_FRAMES)) == 1
    assert len(frames_seen((5, 3, 3), (2, 2, 2), MIN_FRAMES - 1)) == 0


@settings(max_examples=40)
@given(
    layers=st.lists(st.tuples(st.integers(1, 7), st.integers(1, 4)), min_size=1, max_size=3),
    n_padded=st.integers(1, 90),
)
def test_n_tokens_counts_the_tokens_made_of_real_frames_only(
    layers: list[tuple[int, int]], n_padded: int
) -> None:
    kernels, strides = tuple(kernel for kernel, _ in layers), tuple(stride for _, stride in layers)
    config = AudioEncoderConfig(
        conv_channels=(4,) * len(layers),
        conv_kernels=kernels,
        conv_strides=strides,
        hidden_size=16,
        n_layers=0,
        n_heads=2,
        position_kernel=1,
    )
    encoder = AudioEncoder(config, N_MELS)
    lengths = range(encoder.min_frames, encoder.min_frames + n_padded)
    seen = frames_seen(kernels, strides, lengths[-1])
    expected = [sum(max(frames) < n_frames for frames in seen) for n_frames in lengths]
    assert encoder.n_tokens(torch.tensor(lengths)).tolist() == expected
    assert expected[0] == 1


def test_two_minutes_leave_155_tokens(encoder: AudioEncoder) -> None:
    """(1251 - 5) // 2 + 1 = 624, (624 - 3) // 2 + 1 = 311, (311 - 3) // 2 + 1 = 155."""
    assert encoder.n_tokens(torch.tensor([1251])).tolist() == [155]


@torch.no_grad()
def test_every_length_leaves_its_tokens_and_cls(encoder: AudioEncoder) -> None:
    for n_frames in range(MIN_FRAMES, MIN_FRAMES + 9):
        tokens, mask = encoder(*batch(n_frames))
        n_tokens = len(frames_seen((5, 3, 3), (2, 2, 2), n_frames))
        assert tokens.shape == (1, 1 + n_tokens, 32)
        assert mask.tolist() == [[False] * (1 + n_tokens)]


@torch.no_grad()
def test_mask_keeps_cls_and_the_tokens_of_real_frames(encoder: AudioEncoder) -> None:
    """17 frames give 1 token, 24 too, 25 give 2: (25 - 5) // 2 + 1 = 11, then 5, then 2."""
    _, mask = encoder(*batch(17, 24, 25, 33))
    assert (~mask).sum(1).tolist() == [2, 2, 3, 4]
    assert mask.tolist() == [[False] * n + [True] * (4 - n) for n in (2, 2, 3, 4)]


# Padding


@torch.no_grad()
def test_longer_padding_leaves_token_states_unchanged(encoder: AudioEncoder) -> None:
    lengths = (17, 40, 61, 100)
    expected, mask = encoder(*batch(*lengths))
    for n_padded in (101, 130, 300):
        tokens, longer_mask = encoder(*batch(*lengths, n_padded=n_padded))
        torch.testing.assert_close(tokens[~longer_mask], expected[~mask], rtol=0, atol=TOLERANCE)


@torch.no_grad()
def test_row_alone_and_in_a_batch_agree(encoder: AudioEncoder) -> None:
    lengths = [17, 90, 33, 64, 18, 100, 47]
    mel, mask = batch(*lengths)
    together = masked_mean(*encoder(mel, mask))
    for row, n in enumerate(lengths):
        alone = masked_mean(*encoder(mel[row : row + 1, :n], mask[row : row + 1, :n]))
        torch.testing.assert_close(alone[0], together[row], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("garbage", [1.0, -1e4, 1e30, float("inf"), float("nan")])
@torch.no_grad()
def test_garbage_in_masked_frames_changes_nothing(encoder: AudioEncoder, garbage: float) -> None:
    mel, mask = batch(17, 50, 75, n_padded=100)
    expected = masked_mean(*encoder(mel, mask))
    found = masked_mean(*encoder(mel.masked_fill(mask[..., None], garbage), mask))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_masked_frames_get_no_gradient(encoder: AudioEncoder) -> None:
    mel, mask = batch(17, 50, 75, n_padded=100)
    mel.requires_grad_()
    (gradient,) = torch.autograd.grad(masked_mean(*encoder(mel, mask)).square().sum(), mel)
    assert (gradient[mask] == 0).all()
    for row, n in enumerate((17, 50, 75)):
        n_used = max(frames_seen((5, 3, 3), (2, 2, 2), n)[-1]) + 1
        assert (gradient[row, :n_used].abs().sum(-1) > 0).all()


@torch.no_grad()
def test_last_real_frame_of_a_full_token_is_seen(encoder: AudioEncoder) -> None:
    """25 frames leave 2 tokens, the second made of frames 8 to 24."""
    mel, mask = batch(25, n_padded=60)
    changed = mel.clone()
    changed[0, 24] += 1.0
    difference = masked_mean(*encoder(changed, mask)) - masked_mean(*encoder(mel, mask))
    assert difference.abs().max() > 1e-3


def test_grad_mode_changes_no_value(encoder: AudioEncoder) -> None:
    """Without gradients PyTorch takes a fused path through the layers; it must say the same."""
    mel, mask = batch(17, 50, 75)
    with_gradients = masked_mean(*encoder(mel, mask))
    with torch.no_grad():
        without = masked_mean(*encoder(mel, mask))
    torch.testing.assert_close(with_gradients.detach(), without, rtol=0, atol=TOLERANCE)


# Values


def test_conv_layer_is_a_convolution_then_layer_norm_then_gelu() -> None:
    torch.manual_seed(2)
    layer = ConvLayer(3, 4, kernel=3, stride=2)
    frames = torch.randn(1, 8, 3)
    rows = []
    for start in (0, 2, 4):  # the last of 8 frames has no window of its own
        window = frames[0, start : start + 3]  # (3, 3): frames, bands
        sums = torch.stack([(window.T * kernel).sum() for kernel in layer.conv.weight])
        normed = (sums - sums.mean()) / torch.sqrt(sums.var(unbiased=False) + 1e-5)
        rows.append(0.5 * normed * (1 + torch.erf(normed / 2**0.5)))
    torch.testing.assert_close(layer(frames)[0], torch.stack(rows), rtol=0, atol=1e-6)


def test_position_embedding_is_a_centred_grouped_convolution() -> None:
    torch.manual_seed(3)
    positions = ConvPositionEmbedding(4, kernel=3, groups=2)
    tokens = torch.randn(1, 5, 4)
    padded = F.pad(tokens[0], (0, 0, 1, 1))  # (7, 4): one empty neighbour on either side
    weight, bias = positions.conv.weight, positions.conv.bias  # (4, 2, 3), (4,)
    assert bias is not None
    rows = []
    for start, channel in itertools.product(range(5), range(4)):
        group = padded[start : start + 3, 2 * (channel // 2) : 2 * (channel // 2) + 2]  # (3, 2)
        rows.append((group.T * weight[channel]).sum() + bias[channel])
    sums = torch.stack(rows).reshape(5, 4)
    expected = F.gelu(F.layer_norm(sums, (4,)))
    torch.testing.assert_close(positions(tokens)[0], expected, rtol=0, atol=1e-6)


def test_position_weights_are_normalised_at_each_place_of_the_kernel() -> None:
    """Weight norm over dim 2: at every place k, weight[:, :, k] has the length `original0` says."""
    torch.manual_seed(4)
    positions = ConvPositionEmbedding(8, kernel=5, groups=4)
    lengths = positions.conv.weight.square().sum((0, 1)).sqrt()
    scales = dict(positions.conv.named_parameters())["parametrizations.weight.original0"]
    assert scales.shape == (1, 1, 5)
    torch.testing.assert_close(lengths, scales.flatten(), rtol=0, atol=1e-6)


def test_tokens_know_their_order(encoder: AudioEncoder) -> None:
    mel, mask = batch(100)
    with torch.no_grad():
        forwards, backwards = (
            masked_mean(*encoder(mel, mask)),
            masked_mean(*encoder(mel.flip(1), mask)),
        )
    assert (forwards - backwards).abs().max() > 1e-2


def test_layers_have_different_initial_weights() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(
        AudioEncoderConfig(conv_channels=(8, 8, 8), hidden_size=32, n_layers=4, n_heads=4), N_MELS
    )
    matrices = (
        "self_attn.in_proj_weight",
        "self_attn.out_proj.weight",
        "linear1.weight",
        "linear2.weight",
    )
    for name in matrices:
        for left, right in itertools.combinations(encoder.layers, 2):
            assert not torch.equal(left.get_parameter(name), right.get_parameter(name)), name


def test_cls_token_comes_first() -> None:
    """Without layers, what comes out first is the CLS parameter itself."""
    torch.manual_seed(0)
    plain = AudioEncoder(SMALL.model_copy(update={"n_layers": 0}), N_MELS).train(False)
    nn.init.constant_(plain.cls_token, 7.0)
    tokens, _ = plain(*batch(40, 60))
    assert (tokens[:, 0] == 7.0).all()
    assert not (tokens[:, 1:] == 7.0).any()


def test_masked_mean_leaves_padding_out() -> None:
    """((1 + 3) / 2, (2 + 4) / 2) = (2, 3); the row without padding: (1 + 3 + 5) / 3 = 3, (2 + 4 +
    6) / 3 = 4.
    """
    tokens = torch.tensor(
        [[[1.0, 2.0], [3.0, 4.0], [90.0, 90.0]], [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]]
    )
    mask = torch.tensor([[False, False, True], [False, False, False]])
    assert masked_mean(tokens, mask).tolist() == [[2.0, 3.0], [3.0, 4.0]]


def test_dropout_acts_in_training_only() -> None:
    torch.manual_seed(0)
    encoder = AudioEncoder(SMALL, N_MELS)
    mel, mask = batch(40)
    first, second = encoder(mel, mask)[0], encoder(mel, mask)[0]
    assert not torch.equal(first, second)
    encoder.train(False)
    assert torch.equal(encoder(mel, mask)[0], encoder(mel, mask)[0])


# Errors


@pytest.mark.parametrize(
    ("mel", "mask"),
    [
        ((2, MIN_FRAMES - 1, N_MELS), (2, MIN_FRAMES - 1)),
        ((2, N_MELS), (2, N_MELS)),
        ((2, 20, N_MELS), (2, 19)),
    ],
    ids=["too short", "no batch", "mask of another length"],
)
def test_wrong_shapes_are_refused(
    encoder: AudioEncoder, mel: tuple[int, ...], mask: tuple[int, ...]
) -> None:
    with pytest.raises(ShapeError) as caught:
        encoder(torch.zeros(mel), torch.zeros(mask, dtype=torch.bool))
    assert (
        str(caught.value)
        == f"mel must be (B, T >= 17, F) with a mask (B, T); found {mel} and {mask}"
    )


def test_settings_that_make_no_encoder_are_refused() -> None:
    def build(**changes: object) -> None:
        AudioEncoder(SMALL.model_copy(update=changes), N_MELS)

    with pytest.raises(
        ConfigError, match="conv_channels, conv_kernels and conv_strides must be of one length"
    ):
        build(conv_kernels=(5, 3))
    with pytest.raises(ConfigError, match="position_kernel 30 must be odd"):
        build(position_kernel=30)
    with pytest.raises(ConfigError, match="position_groups 5 divide 32"):
        build(position_groups=5)


def test_heads_that_do_not_divide_the_hidden_size_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_heads 5"):
        AudioEncoder(SMALL.model_copy(update={"n_heads": 5}), N_MELS)
