"""The candidates of the log-mel bench do what they are said to do, and its table says what was measured."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from logmel_candidates import BAND_SHARE, N_MASKS, TIME_SHARE, SigmoidLoss, TokenDropping, UniformLoss, spec_augment
from logmel_tower import REFERENCE, ROWS, Figures, Row, settings_of, table
from ponticello.config import AudioEncoderConfig
from ponticello.model.audio_encoder import AudioEncoder, masked_mean
from ponticello.model.htcl import Embeddings


def test_spec_augment_hides_whole_frames_and_whole_bands_no_wider_than_said() -> None:
    torch.manual_seed(0)
    mel = torch.ones(200, 100, 80)
    hidden = spec_augment(mel) == 0
    frames, bands = hidden.all(dim=2), hidden.all(dim=1)  # (B, T), (B, F)
    assert torch.equal(hidden, frames[:, :, None] | bands[:, None, :])
    for found, share, size in ((frames, TIME_SHARE, 100), (bands, BAND_SHARE, 80)):
        counts = found.sum(dim=1)
        assert counts.max() <= N_MASKS * share * size
        assert counts.float().mean() == pytest.approx(N_MASKS * share * size / 2, rel=0.15)
    assert mel.min() == 1


def encoders() -> tuple[AudioEncoder, AudioEncoder]:
    """A tower without dropout, and the same with half of its tokens dropped in training."""
    sizes = AudioEncoderConfig(
        conv_channels=(8, 8, 8), hidden_size=16, n_layers=2, n_heads=2, ffn_size=16, dropout=0.0, position_groups=4
    )
    torch.manual_seed(1)
    plain, dropping = AudioEncoder(sizes, 8), AudioEncoder(sizes, 8)
    dropping.load_state_dict(plain.state_dict())
    dropping.layers = nn.ModuleList([TokenDropping(dropping.layers)])
    return plain, dropping


@torch.no_grad()
def test_dropped_tokens_are_those_of_training_alone() -> None:
    plain, dropping = encoders()
    mel, padding_mask = torch.randn(3, 120, 8), torch.arange(120)[None, :] >= torch.tensor([120, 90, 60])[:, None]
    expected = masked_mean(*plain(mel, padding_mask))
    assert not torch.allclose(masked_mean(*dropping(mel, padding_mask)), expected, atol=1e-3)
    dropping.train(False)
    torch.testing.assert_close(masked_mean(*dropping(mel, padding_mask)), expected)


@torch.no_grad()
def test_vector_with_dropped_tokens_is_the_mean_of_the_kept() -> None:
    """Layers that leave tokens alone: CLS and half of 8 tokens are kept, and padding never is."""
    dropping = TokenDropping(nn.ModuleList())
    tokens = torch.cat([torch.zeros(1, 1, 1), 2.0 ** torch.arange(10.0).reshape(1, 10, 1)], dim=1)
    mask = torch.tensor([[False] * 9 + [True] * 2])
    torch.manual_seed(0)
    for _ in range(20):
        (vector,) = masked_mean(dropping(tokens, mask), mask)
        kept = round(6 * float(vector))  # the sum over CLS and 5 others, as a binary number of which are there
        assert kept.bit_count() == 5
        assert kept < 2**8


def rows(audio: torch.Tensor, text: torch.Tensor) -> Embeddings:
    scales = {"audio_text": torch.tensor(0.0), "audio_audio": torch.tensor(-1.0)}
    return Embeddings(audio, text, audio, scales)


def test_sigmoid_loss_of_two_rows_by_hand() -> None:
    """Scale 1, bias -1, cosines the identity: own pairs have logit 0, others -1, so ln 2 + ln(1 + e^-1) a row."""
    numbers = torch.arange(2)
    (loss,) = SigmoidLoss()(rows(torch.eye(2), torch.eye(2)), numbers, numbers).values()
    assert loss.item() == pytest.approx(math.log(2) + math.log(1 + math.exp(-1)))
    (loss,) = SigmoidLoss()(rows(torch.eye(2), torch.eye(2)), numbers, torch.zeros(2)).values()
    assert loss.item() == pytest.approx(math.log(2))


def test_uniformity_is_lower_the_further_vectors_lie_apart() -> None:
    """Opposite vectors are 4 apart, squared: 0.25 * ln e^-8 = -2; equal ones 0."""
    numbers = torch.arange(2)
    for second, expected in ((-1.0, -2.0), (1.0, 0.0)):
        audio = torch.tensor([[1.0, 0.0], [second, 0.0]])
        parts = UniformLoss()(rows(audio, F.normalize(torch.randn(2, 2), dim=-1)), numbers, numbers)
        assert parts["uniformity"].item() == pytest.approx(expected, abs=1e-6)


def test_table_pairs_the_queries_of_all_seeds() -> None:
    """The rows of the reference lie 0.1 from their mean on every query, the third 0.3, whatever cluster is drawn."""

    def figures(values: list[float]) -> Figures:
        return Figures({"text to audio R@10": values}, {"text to audio R@10": ["a", "a", "b"]})

    one, two, other = (figures([0.1 + more, 0.2 + more, 0.6 + more]) for more in (0.0, 0.2, 0.4))
    seeds = {seed: {REFERENCE[0]: one, REFERENCE[1]: two, "+": other} for seed in (1, 2)}
    assert table(seeds, REFERENCE).splitlines()[2:] == [
        f"| {REFERENCE[0]} | 0.300 [-0.100, -0.100] |",
        f"| {REFERENCE[1]} | 0.500 [+0.100, +0.100] |",
        "| + | 0.700 [+0.300, +0.300] |",
    ]


def test_rows_differ_from_the_reference_in_what_they_say() -> None:
    assert ROWS[REFERENCE[0]] == Row()
    reference = settings_of(Row(), 3)
    assert (reference.mel.hop_length, reference.audio.crop_seconds, reference.semantic.seed) == (1536, 10.0, 3)
    assert settings_of(Row(20), 3).mel.hop_length == 320
    assert settings_of(Row(crops=False), 3).audio.crop_seconds == 0
    assert settings_of(Row(trained="other weights"), 3).semantic.seed != 3
