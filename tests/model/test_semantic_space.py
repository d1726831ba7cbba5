"""The semantic space over a frozen front end: blocks of sound and text, and attention over tags."""

import numpy as np
import pytest
import torch

from ponticello.model.semantic_space import (
    SemanticSpace,
    Vocabulary,
    fit_semantic_space,
    ridge,
)

N_TRACKS = 400
AUDIO_DIM = 8
TEXT_DIM = 6
TEXT_SIZE = 12
N_TAGS = 5


def unit(rows: np.ndarray) -> np.ndarray:
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled.astype(np.float32)


class World:
    """Tracks with one tag each; sound and text show it, with noise. Half of the tracks are known.

    `space` is fitted to the known ones, all with text but for those of tag 0, of which only
    n_with_text have one (None = all).
    """

    def __init__(self, n_with_text: int | None = None) -> None:
        generator = np.random.default_rng(0)
        self.tag_states = unit(generator.standard_normal((N_TAGS, TEXT_SIZE)))
        sounds = generator.standard_normal((N_TAGS, AUDIO_DIM))
        self.tags = generator.integers(N_TAGS, size=N_TRACKS)
        noise = generator.standard_normal((N_TRACKS, AUDIO_DIM))
        self.audio = unit(sounds[self.tags] + 0.5 * noise)
        noise = generator.standard_normal((N_TRACKS, TEXT_SIZE))
        self.states = unit(self.tag_states[self.tags] + 0.1 * noise)
        known = slice(0, N_TRACKS // 2)
        states = self.states[known].copy()
        given = self.tags[known, None] == np.arange(N_TAGS)
        if n_with_text is not None:
            without_text = np.flatnonzero(given[:, 0])[n_with_text:]
            states[without_text] = 0
            given[without_text] = False
        names = [f"tag {number}" for number in range(N_TAGS)]
        nothing_heard = np.zeros((len(states), 0))
        self.space = SemanticSpace(AUDIO_DIM, TEXT_DIM, TEXT_SIZE, N_TAGS)
        vocabulary = Vocabulary(names, self.tag_states, given, nothing_heard)
        fit_semantic_space(self.space, self.audio[known], states, vocabulary)

    def vectors(self, with_text: bool) -> np.ndarray:
        states = torch.from_numpy(self.states) if with_text else None
        return self.space.track_vectors(torch.from_numpy(self.audio), states).numpy()

    def questions(self) -> np.ndarray:
        """Returns the vectors of the tags as questions, of a text head that knows nothing."""
        head = torch.zeros(N_TAGS, AUDIO_DIM)
        states = torch.from_numpy(self.tag_states)
        return self.space.question_vectors(head, states).numpy()

    def precision(self, vectors: np.ndarray) -> float:
        """Returns how many of each tag's ten best unknown tracks have it."""
        unknown = slice(N_TRACKS // 2, None)
        scores = self.questions() @ vectors[unknown].T
        best = np.argsort(-scores, axis=1)[:, :10]
        return float((self.tags[unknown][best] == np.arange(N_TAGS)[:, None]).mean())


def test_a_tag_finds_the_tracks_that_have_it_and_those_that_sound_like_it() -> None:
    world = World()
    assert world.precision(world.vectors(with_text=True)) == 1.0
    assert world.precision(world.vectors(with_text=False)) >= 0.9


def test_tracks_without_text_are_no_examples_against_a_tag() -> None:
    """Of the known tracks with tag 0 only three have a text; the others sound like it all the
    same.
    """
    world = World(n_with_text=3)
    assert world.precision(world.vectors(with_text=False)) >= 0.9
    known = np.arange(N_TRACKS // 2)
    is_first = world.tags[known] == 0
    with_text = np.concatenate([known[~is_first], known[is_first][:3]])
    alone = SemanticSpace(AUDIO_DIM, TEXT_DIM, TEXT_SIZE, N_TAGS)
    given = world.tags[with_text, None] == np.arange(N_TAGS)
    names = [f"tag {number}" for number in range(N_TAGS)]
    vocabulary = Vocabulary(names, world.tag_states, given, np.zeros((len(with_text), 0)))
    fit_semantic_space(alone, world.audio[with_text], world.states[with_text], vocabulary)
    torch.testing.assert_close(world.space.tag_audio, alone.tag_audio, rtol=1e-3, atol=1e-4)


def test_a_text_block_is_the_text_or_what_the_sound_predicts() -> None:
    world = World()
    audio = torch.from_numpy(world.audio[:2])
    states = torch.from_numpy(world.states[:2].copy())
    states[1] = 0
    vectors = world.space.track_vectors(audio, states)
    predicted = world.space.track_vectors(audio, None)
    torch.testing.assert_close(vectors[1], predicted[1])
    torch.testing.assert_close(vectors[:, :AUDIO_DIM], audio)
    torch.testing.assert_close(vectors[0, AUDIO_DIM:], world.space.project_text(states)[0])
    lengths = torch.linalg.vector_norm(vectors[:, AUDIO_DIM:], dim=1)
    torch.testing.assert_close(lengths, torch.ones(2))


def test_each_block_of_a_question_scores_training_tracks_with_deviation_one() -> None:
    world = World()
    known = world.vectors(with_text=True)[: N_TRACKS // 2]
    questions = world.questions()
    for block in (slice(0, AUDIO_DIM), slice(AUDIO_DIM, None)):
        deviation = (questions[:, block] @ known[:, block].T).std(axis=1)
        assert deviation == pytest.approx(np.ones(N_TAGS), abs=1e-3)


def test_without_any_text_or_tag_questions_ask_by_the_text_head_alone() -> None:
    space = SemanticSpace(AUDIO_DIM, TEXT_DIM, TEXT_SIZE, 0)
    audio = World().audio
    no_tags = np.zeros((len(audio), 0))
    nothing = Vocabulary([], np.zeros((0, TEXT_SIZE)), no_tags, no_tags)
    fit_semantic_space(space, audio, np.zeros((len(audio), TEXT_SIZE), dtype=np.float32), nothing)
    head = torch.from_numpy(audio[:3])
    vectors = space.question_vectors(head, torch.ones(3, TEXT_SIZE))
    cosines = torch.nn.functional.cosine_similarity(vectors[:, :AUDIO_DIM], head)
    torch.testing.assert_close(cosines, torch.ones(3))
    assert not vectors[:, AUDIO_DIM:].any()
    assert not space.track_vectors(head, None)[:, AUDIO_DIM:].any()


def test_ridge_is_least_squares_without_a_penalty() -> None:
    generator = np.random.default_rng(1)
    inputs = generator.standard_normal((50, 3))
    weight = generator.standard_normal((3, 2))
    found, bias = ridge(inputs, inputs @ weight + (4, 5), 1e-12)
    np.testing.assert_allclose(found, weight, atol=1e-8)
    np.testing.assert_allclose(bias, (4, 5), atol=1e-8)
