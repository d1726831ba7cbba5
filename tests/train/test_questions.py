"""The questions of stage one: what the teachers say of them, and what a text head learns."""

from pathlib import Path

import numpy as np
import torch

from ponticello.config import Config
from ponticello.model.htcl import HTCL
from ponticello.model.semantic_space import Vocabulary, fit_semantic_space
from ponticello.train.questions import (
    NO_TAG,
    TAG_WORDINGS,
    TrainingQuestions,
    build_questions,
    hold_out_questions,
)

TAGS = ["dark", "bright", "slow", "fast"]
N_TRACKS = 60
N_WORDS = 10


def world(text_encoder_folder: Path) -> tuple[HTCL, np.ndarray, np.ndarray]:
    """Returns a model over tracks with two tags each, one of dark and bright and one of the speeds;
    the tracks' sound (n, a), in which the tags can be heard; and their tags (n, 4).
    """
    torch.manual_seed(0)
    changed = {
        "front_end": "features",
        "features": "none.npz",
        "text": {"name": text_encoder_folder.as_posix(), "trainable": False},
        "heads": {"embed_dim": 16},
    }
    config = Config.from_preset("tiny", changed)
    model = HTCL.from_settings(config, frame_size=8, vocabulary=TAGS)
    generator = np.random.default_rng(0)
    given = np.zeros((N_TRACKS, len(TAGS)), dtype=bool)
    given[np.arange(N_TRACKS), generator.integers(2, size=N_TRACKS)] = True
    given[np.arange(N_TRACKS), 2 + generator.integers(2, size=N_TRACKS)] = True
    audio = generator.standard_normal((N_TRACKS, 8)) * 0.3
    audio[:, : len(TAGS)] += 2.0 * given
    audio /= np.linalg.norm(audio, axis=1, keepdims=True)
    states = model.encode_text_states([" ".join(np.array(TAGS)[row]) for row in given])
    tag_states = model.encode_text_states(TAGS)
    vocabulary = Vocabulary(TAGS, tag_states, given, np.zeros((N_TRACKS, 0)))
    fit_semantic_space(model.semantic_space, audio, states, vocabulary)
    return model, audio.astype(np.float32), given


def questions_of(model: HTCL, audio: np.ndarray, given: np.ndarray) -> TrainingQuestions:
    states = np.zeros((len(audio), model.text_encoder.config.hidden_size), dtype=np.float32)
    questions = build_questions(model, audio, states, given, N_WORDS, seed=1)
    assert questions is not None
    return questions


def test_questions_are_words_words_beside_tags_tags_and_pairs_of_a_tracks_tags(
    text_encoder_folder: Path,
) -> None:
    model, audio, given = world(text_encoder_folder)
    questions = questions_of(model, audio, given)
    n_words, n_mixed, n_tags, n_all = questions.ends
    assert n_words <= N_WORDS
    assert n_tags - n_mixed == len(TAGS) * len(TAG_WORDINGS)
    pairs = questions.tags[n_tags:n_all]
    assert (questions.tags[:n_mixed] == NO_TAG).all()
    assert all((given[:, first] & given[:, second]).any() for first, second in pairs.tolist())
    again = questions_of(model, audio, given)
    assert torch.equal(again.states, questions.states)


def test_a_tag_is_taught_by_its_direction_and_a_pair_by_both(text_encoder_folder: Path) -> None:
    """Without texts a teacher's scores are the standard scores of the tags' directions."""
    model, audio, given = world(text_encoder_folder)
    questions = questions_of(model, audio, given)
    _, first_tag, first_pair, _ = questions.ends
    scores = audio @ model.semantic_space.tag_audio.numpy().T
    scores = (scores - scores.mean(axis=0)) / scores.std(axis=0)
    taught = questions.teach(model, torch.tensor([first_tag, first_pair])).numpy()
    np.testing.assert_allclose(taught[0], scores[:, 0], atol=1e-3)
    pair = scores[:, questions.tags[first_pair].numpy()].mean(axis=1)
    np.testing.assert_allclose(taught[1], (pair - pair.mean()) / pair.std(), atol=1e-3)


def test_a_text_head_learns_to_answer_questions(text_encoder_folder: Path) -> None:
    """The held-out questions are of other tracks; the loss is that of the head alone."""
    model, audio, given = world(text_encoder_folder)
    questions = questions_of(model, audio[:40], given[:40])
    held_out = hold_out_questions(model, audio[40:], given[40:])
    assert held_out is not None
    parameters = [*model.text_head.parameters(), model.logit_scales["audio_text"]]
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for step in range(60):
        loss = questions.loss(model, step)
        losses.append(loss.item())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    assert np.mean(losses[-5:]) < np.mean(losses[:5]) - 0.1
    model.train(False)
    assert held_out.measure(model) > 0.85


def test_held_out_questions_have_answers_and_other_tracks(text_encoder_folder: Path) -> None:
    model, audio, given = world(text_encoder_folder)
    held_out = hold_out_questions(model, audio, given)
    assert held_out is not None
    counts = held_out.relevance.sum(axis=1)
    assert (counts >= 5).all()
    assert (counts < N_TRACKS).all()
    assert hold_out_questions(model, audio[:3], given[:3]) is None


def test_without_a_vocabulary_there_are_no_questions(text_encoder_folder: Path) -> None:
    model, audio, given = world(text_encoder_folder)
    model.config.vocabulary = []
    states = np.zeros((len(audio), 4), dtype=np.float32)
    assert build_questions(model, audio, states, given, N_WORDS, seed=1) is None
