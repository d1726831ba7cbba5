"""Listener sets: which tracks a step draws, and the loss by hand."""

from itertools import islice

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from ponticello.config import PreferenceConfig
from ponticello.model.preference import PreferenceEncoder
from ponticello.train.listener_sets import (
    ListenerBatch,
    ListenerSets,
    TrackInputs,
    listener_loss_terms,
)

LIKES = csr_matrix(
    np.array([[1, 1, 1, 1, 0, 0], [0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]], dtype=bool)
)
TAGS = csr_matrix(np.eye(6, 3, dtype=bool))  # track i has tag i, tracks 3 to 5 have none


def _sets(max_keys: int = 100, batch_size: int = 2) -> ListenerSets:
    return ListenerSets(LIKES, TAGS, batch_size, max_keys, seed=5)


def test_a_listener_is_split_in_two_halves_of_the_likes() -> None:
    batch = next(_sets().batches(0))
    assert batch.halves.shape == batch.positives.shape == (2, 6)
    assert not (batch.halves & batch.positives).any()
    liked = {tuple(row) for row in (batch.halves | batch.positives).int().tolist()}
    assert liked == {(1, 1, 1, 1, 0, 0), (0, 0, 1, 1, 1, 0)}, "one like is too few for a listener"
    assert batch.halves.sum(dim=1).tolist() in ([2, 1], [1, 2])


def test_batches_are_the_same_from_any_start() -> None:
    whole = list(islice(_sets(batch_size=1).batches(0), 7))
    resumed = list(islice(_sets(batch_size=1).batches(4), 3))
    for left, right in zip(whole[4:], resumed, strict=True):
        assert torch.equal(left.halves, right.halves)
        assert torch.equal(left.positives, right.positives)
        assert left.words.tolist() == right.words.tolist()
        assert left.seed == right.seed


def test_every_epoch_has_every_listener_once() -> None:
    sets = _sets(batch_size=1)
    assert sets.steps_per_epoch == 2
    first_epoch = list(islice(sets.batches(0), 2))
    counts = sum((batch.halves | batch.positives).int().sum(dim=0) for batch in first_epoch)
    assert torch.as_tensor(counts).tolist() == [1, 1, 2, 2, 1, 0]


def test_a_word_is_a_tag_of_a_liked_track() -> None:
    for batch in islice(_sets().batches(0), 10):
        liked = (batch.halves | batch.positives).numpy()
        for row, word in enumerate(batch.words):
            assert word == -1 or liked[row, word], "tag i is carried by track i"


def test_a_large_catalogue_is_sampled_and_keeps_the_positives() -> None:
    likes = csr_matrix((np.ones(4, dtype=bool), ([0, 0, 1, 1], [3, 900, 40, 7])), (2, 1000))
    sets = ListenerSets(likes, csr_matrix((1000, 1), dtype=bool), 2, max_keys=20, seed=0)
    batch = next(sets.batches(0))
    assert len(batch.keys) <= 20
    assert {3, 900, 40, 7} <= set(batch.keys.tolist())
    assert batch.keys[batch.positives[0].numpy()][0] in {3, 900, 40, 7}


def _inputs() -> TrackInputs:
    generator = torch.Generator().manual_seed(0)
    text = torch.randn(6, 4, generator=generator)
    text[5] = 0.0
    tag_states = torch.randn(3, 4, generator=generator)
    return TrackInputs(torch.randn(6, 3, generator=generator), text, TAGS, tag_states)


def test_the_loss_by_hand() -> None:
    """Without dropout of modalities: a softmax over the keys outside the half, at the scale."""
    torch.manual_seed(0)
    encoder = PreferenceEncoder("contrast", 3, 4, 5, 4, 1, dropout=0.0, logit_scale=0.7)
    encoder.train(False)
    inputs = _inputs()
    half = torch.tensor([[True, True, False, False, False, False]])
    positives = torch.tensor([[False, False, True, True, False, False]])
    batch = ListenerBatch(np.arange(6), half, positives, np.array([2]), (0, 0))
    settings = PreferenceConfig(modality_dropout=0.0, words_loss_weight=0.5)
    terms = listener_loss_terms(encoder, batch, inputs, settings)
    vectors = encoder.encode(inputs.audio, inputs.text)
    query = torch.nn.functional.normalize(vectors[:2].mean(dim=0), dim=0)
    logits = np.exp(0.7) * (vectors @ query).detach().numpy()
    allowed = np.exp(logits[2:])
    expected = -np.log(allowed[:2] / allowed.sum()).mean()
    assert float(terms["listeners"].detach()) == pytest.approx(expected, abs=1e-5)
    word = encoder.encode(None, inputs.tag_states[2:3])[0]
    logits = np.exp(0.7) * (vectors @ word).detach().numpy()
    expected = -np.log(np.exp(logits[:4]) / np.exp(logits).sum()).mean()
    assert float(terms["words"].detach()) == pytest.approx(0.5 * expected, abs=1e-5)


def test_listeners_without_tags_have_no_loss_of_words() -> None:
    encoder = PreferenceEncoder("contrast", 3, 4, 5, 4, 1, dropout=0.0, logit_scale=0.7)
    batch = next(_sets().batches(0))
    untagged = ListenerBatch(batch.keys, batch.halves, batch.positives, np.array([-1, -1]), (0, 0))
    assert set(listener_loss_terms(encoder, untagged, _inputs(), PreferenceConfig())) == {
        "listeners"
    }


def test_modality_dropout_draws_the_same_views_for_a_step() -> None:
    encoder = PreferenceEncoder("contrast", 3, 4, 5, 4, 1, dropout=0.0, logit_scale=0.7)
    encoder.train(False)
    batch = next(_sets().batches(0))
    settings = PreferenceConfig(modality_dropout=0.9)
    losses = []
    for seed in ((1, 1), (1, 1), (1, 2)):
        drawn = ListenerBatch(batch.keys, batch.halves, batch.positives, batch.words, seed)
        terms = listener_loss_terms(encoder, drawn, _inputs(), settings)
        losses.append(terms["listeners"].item())
    assert losses[0] == losses[1] != losses[2]
