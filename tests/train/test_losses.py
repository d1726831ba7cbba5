"""The contrastive losses against plain ones written out, and what counts as a negative."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ponticello.errors import ShapeError
from ponticello.model.htcl import SCALES, Embeddings
from ponticello.train.dataset import NO_TEXT
from ponticello.train.losses import PreferenceLoss, SemanticLoss, contrastive_loss


def unit(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def numbers(*values: int) -> Tensor:
    return torch.tensor(values)


def embeddings(n_rows: int, seed: int = 0) -> Embeddings:
    """Rows of any length: the losses bring them to unit length."""
    audio, text, fused = (3.0 * unit(n_rows, 5, seed=seed + side) for side in range(3))
    return Embeddings(
        audio, text, fused, {name: torch.tensor(0.5 + place) for place, name in enumerate(SCALES)}
    )


def test_two_orthogonal_matches_give_the_hand_worked_loss() -> None:
    """Logits are e^0 = 1 on the diagonal and 0 off it: -log(e / (e + 1)) = ln(1 + 1/e) in both
    directions.
    """
    eye = torch.eye(2)
    loss = contrastive_loss(eye, eye, torch.tensor(0.0), numbers(0, 1), numbers(2, 3))
    assert loss.item() == pytest.approx(math.log(1 + math.exp(-1)), abs=1e-7)


def test_distinct_rows_give_plain_symmetric_cross_entropy() -> None:
    left, right = unit(6, 4), unit(6, 4, seed=1)
    logits = math.exp(1.3) * left @ right.T
    target = torch.arange(6)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    found = contrastive_loss(left, right, torch.tensor(1.3), torch.arange(6), torch.arange(6) + 6)
    assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def slow_loss(
    left: Tensor, right: Tensor, scale: float, left_n: list[int], right_n: list[int]
) -> float:
    """Row by row: a candidate is left out if it is the match again, the question itself, or a match
    of the same one.
    """

    def one_way(queries: Tensor, keys: Tensor, query_n: list[int], key_n: list[int]) -> float:
        total = 0.0
        for i in range(len(queries)):
            terms = {}
            for j in range(len(keys)):
                same = key_n[j] == key_n[i] or key_n[j] == query_n[i] or query_n[j] == query_n[i]
                if i == j or not same:
                    terms[j] = math.exp(scale * float(queries[i] @ keys[j]))
            total -= math.log(terms[i] / sum(terms.values()))
        return total / len(queries)

    return (one_way(left, right, left_n, right_n) + one_way(right, left, right_n, left_n)) / 2


@pytest.mark.parametrize("seed", range(20))
def test_repeats_are_left_out_as_a_slow_plain_version_leaves_them_out(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    left_n, right_n = (torch.randint(5, (7,), generator=generator).tolist() for _ in range(2))
    left, right = unit(7, 4, seed=seed), unit(7, 4, seed=seed + 100)
    found = contrastive_loss(
        left, right, torch.tensor(1.0), torch.tensor(left_n), torch.tensor(right_n)
    )
    assert found.item() == pytest.approx(slow_loss(left, right, math.e, left_n, right_n), abs=1e-5)


def test_rows_a_few_at_a_time_give_the_loss_and_gradient_of_all_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Seven rows by three, with repeats and a row without text."""
    left_n, right_n = numbers(0, 1, 0, 2, 3, 4, 5), numbers(6, 7, 8, 6, NO_TEXT, 2, 7)
    found = []
    for rows_at_once in (1024, 3):
        monkeypatch.setattr("ponticello.train.losses.ROWS_AT_ONCE", rows_at_once)
        left, right, scale = (
            one.requires_grad_() for one in (unit(7, 4), unit(7, 4, seed=1), torch.tensor(1.3))
        )
        loss = contrastive_loss(left, right, scale, left_n, right_n)
        loss.backward()  # type: ignore[no-untyped-call]
        found.append((loss, left.grad, right.grad, scale.grad))
    assert found[0][0].item() > 0.1
    for one, other in zip(*found, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


def test_repeated_row_does_not_change_the_others() -> None:
    """A track that stands twice in a batch is not its own negative: each row loses exactly what one
    copy loses.
    """
    left, right = unit(3, 4), unit(3, 4, seed=1)
    once = slow_loss(left, right, 1.0, [0, 1, 2], [0, 1, 2])
    twice = contrastive_loss(
        torch.cat([left, left]),
        torch.cat([right, right]),
        torch.tensor(0.0),
        torch.arange(3).repeat(2),
        torch.arange(3).repeat(2),
    )
    doubled = slow_loss(
        torch.cat([left, left]), torch.cat([right, right]), 1.0, [0, 1, 2] * 2, [0, 1, 2] * 2
    )
    assert twice.item() == pytest.approx(doubled, abs=1e-5)
    assert math.isfinite(once)


def test_batch_of_one_track_repeated_has_nothing_to_lose() -> None:
    vectors = unit(4, 3)
    loss = contrastive_loss(
        vectors, vectors, torch.tensor(1.0), numbers(7, 7, 7, 7), numbers(7, 7, 7, 7)
    )
    assert loss.item() == 0.0


def test_scale_is_clamped_at_ln_100() -> None:
    left, right = unit(4, 3), unit(4, 3, seed=1)
    at, above = (
        contrastive_loss(left, right, torch.tensor(scale), torch.arange(4), torch.arange(4))
        for scale in (math.log(100), 9.0)
    )
    assert at.item() == pytest.approx(above.item(), abs=1e-6)


@pytest.mark.parametrize(("left", "right"), [((1, 3), (1, 3)), ((3, 3), (4, 3)), ((3,), (3,))])
def test_wrong_shapes_are_named(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"left and right must both be \(B >= 2, d\); found"):
        contrastive_loss(
            torch.ones(left), torch.ones(right), torch.tensor(0.0), torch.arange(3), torch.arange(3)
        )


def test_semantic_loss_is_the_contrast_of_audio_and_text() -> None:
    rows = embeddings(5)
    found = SemanticLoss()(rows, torch.arange(5), torch.arange(5))
    expected = contrastive_loss(
        F.normalize(rows.audio, dim=-1),
        F.normalize(rows.text, dim=-1),
        torch.tensor(0.5),
        torch.arange(5),
        torch.arange(5),
    )
    assert list(found) == ["audio_text"]
    assert found["audio_text"].item() == pytest.approx(expected.item(), abs=1e-6)


def test_preference_loss_has_the_papers_three_parts() -> None:
    """Rows 0..2 are anchors, 3..5 their positives; each part has its own scale, the fusion part is
    a mean of two.
    """
    rows, tracks = embeddings(6), torch.arange(6)
    audio, text, fused = (F.normalize(side, dim=-1) for side in (rows.audio, rows.text, rows.fused))
    a, p, here, there = audio[:3], audio[3:], tracks[:3], tracks[3:]
    expected = {
        "audio_text": contrastive_loss(audio, text, torch.tensor(0.5), tracks, tracks),
        "audio_audio": contrastive_loss(a, p, torch.tensor(1.5), here, there),
        "audio_fusion": (
            contrastive_loss(a, fused[3:], torch.tensor(2.5), here, there)
            + contrastive_loss(p, fused[:3], torch.tensor(2.5), there, here)
        )
        / 2,
    }
    found = PreferenceLoss()(rows, tracks, tracks)
    assert {name: part.item() for name, part in found.items()} == pytest.approx(
        {name: part.item() for name, part in expected.items()}, abs=1e-6
    )


def test_rows_without_text_are_neither_asked_with_nor_found() -> None:
    """Rows 0, 1 and 3 have a text: the loss is that of a batch of these three alone, in value and
    gradient.
    """
    generator = torch.Generator().manual_seed(0)
    audio, text = (F.normalize(torch.randn(4, 5, generator=generator), dim=1) for _ in range(2))
    numbers, texts, told = torch.arange(4), torch.tensor([0, 1, NO_TEXT, 3]), [0, 1, 3]
    scale = torch.tensor(2.0)
    some = audio.clone().requires_grad_()
    contrastive_loss(some, text, scale, numbers, texts).backward()  # type: ignore[no-untyped-call]
    alone = audio[told].clone().requires_grad_()
    wanted = contrastive_loss(alone, text[told], scale, numbers[told], texts[told])
    wanted.backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(
        contrastive_loss(audio, text, scale, numbers, texts), wanted.detach()
    )
    assert some.grad is not None
    assert alone.grad is not None
    torch.testing.assert_close(some.grad[told], alone.grad)
    assert not some.grad[2].any()


def test_without_any_text_there_is_nothing_to_lose() -> None:
    audio = F.normalize(torch.randn(3, 4), dim=1).requires_grad_()
    loss = contrastive_loss(
        audio, audio.detach(), torch.tensor(2.0), torch.arange(3), torch.full((3,), NO_TEXT)
    )
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0.0
    assert audio.grad is not None
    assert torch.isfinite(audio.grad).all()
