"""The encoder of the preference space: missing modalities, members, and the maps by modality."""

import pytest
import torch
from torch import Tensor

from ponticello.model.preference import EncoderKind, PreferenceEncoder, Standardize

AUDIO_DIM, TEXT_SIZE, EMBED_DIM = 3, 5, 8


def _encoder(kind: EncoderKind = "contrast") -> PreferenceEncoder:
    torch.manual_seed(0)
    encoder = PreferenceEncoder(
        kind, AUDIO_DIM, TEXT_SIZE, 6, EMBED_DIM, n_members=2, dropout=0.5, logit_scale=2.0
    )
    encoder.train(False)
    return encoder


def _rows(n: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    audio = torch.randn(n, AUDIO_DIM, generator=generator)
    return audio, torch.randn(n, TEXT_SIZE, generator=generator)


@pytest.mark.parametrize("kind", ["contrast", "regression", "both"])
def test_vectors_have_unit_length_whatever_is_missing(kind: EncoderKind) -> None:
    encoder = _encoder(kind)
    audio, text = _rows()
    for vectors in (encoder.encode(audio, None), encoder.encode(None, text)):
        assert vectors.shape == (4, EMBED_DIM)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))


@pytest.mark.parametrize("kind", ["contrast", "regression", "both"])
def test_a_missing_modality_is_not_read(kind: EncoderKind) -> None:
    encoder = _encoder(kind)
    audio, text = _rows()
    yes = torch.ones(4, dtype=torch.bool)
    torch.testing.assert_close(encoder(audio, 9 * text, yes, ~yes), encoder.encode(audio, None))
    torch.testing.assert_close(encoder(9 * audio, text, ~yes, yes), encoder.encode(None, text))


def test_a_track_with_a_text_of_zeros_gets_its_audio_vector() -> None:
    encoder = _encoder()
    audio, text = _rows()
    text[1] = 0.0
    vectors = encoder.encode(audio, text)
    alone = encoder.encode(audio, None)
    torch.testing.assert_close(vectors[1], alone[1])
    assert (vectors[0] - alone[0]).abs().max() > 1e-3


def test_a_cosine_is_the_mean_of_the_members_cosines() -> None:
    encoder = _encoder()
    vectors = encoder.encode(*_rows()).detach()
    cosine = float(vectors[0] @ vectors[1])
    by_member = []
    for first in (0, 4):
        rows = torch.nn.functional.normalize(vectors[:, first : first + 4], dim=1)
        by_member.append(float(rows[0] @ rows[1]))
    assert by_member[0] != pytest.approx(by_member[1], abs=1e-3)
    assert cosine == pytest.approx(sum(by_member) / 2, abs=1e-6)


def test_a_linear_encoder_has_a_map_for_each_set_of_modalities() -> None:
    encoder = _encoder("regression")
    audio, text = _rows()
    before = [encoder.encode(audio, None), encoder.encode(None, text), encoder.encode(audio, text)]
    with torch.no_grad():
        encoder.get_parameter("linear.both.weight").mul_(-1.0)
    torch.testing.assert_close(encoder.encode(audio, None), before[0])
    torch.testing.assert_close(encoder.encode(None, text), before[1])
    assert (encoder.encode(audio, text) - before[2]).abs().max() > 0.1


def test_both_kinds_count_alike_in_a_cosine() -> None:
    vectors = _encoder("both").encode(*_rows()).detach()
    cosine = float(vectors[0] @ vectors[1])
    halves = []
    for columns in (slice(0, 4), slice(4, 8)):
        rows = torch.nn.functional.normalize(vectors[:, columns], dim=1)
        halves.append(float(rows[0] @ rows[1]))
    assert cosine == pytest.approx(sum(halves) / 2, abs=1e-6)


def test_standardised_rows_have_length_one_on_average() -> None:
    rows = torch.tensor([[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]])
    layer = Standardize(2)
    layer.fit(rows)
    standardised = layer(rows)
    torch.testing.assert_close(standardised.mean(dim=0), torch.zeros(2))
    # Both columns become (-1, 0, 1) * sqrt(3 / 2) / sqrt(2).
    torch.testing.assert_close(standardised[2], torch.full((2,), 0.75**0.5))
    assert float(standardised.square().sum(dim=1).mean()) == pytest.approx(1.0)
