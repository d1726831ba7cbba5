"""Questions that stage one learns beside the tracks' texts: words and tags, as people ask.

A text describes one track, but a question fits many. The questions of training are the tags of the
vocabulary in several wordings, pairs of tags of one track, words of the text encoder's vocabulary,
and words beside a tag. Two teachers, of which none is trained, say which tracks fit: attention over
the tags' directions in the sound, and the likeness of a question to the tracks' own texts.

Dimensions: q questions, n tracks, B questions of a step, D text state size, V tags, a size of the
audio block.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ponticello.metrics.ranking import auc, hit_groups
from ponticello.model.htcl import HTCL
from ponticello.train.losses import MAX_LOGIT_SCALE

TAG_WORDINGS = ("{}", "{} music", "a {} track", "sounds like {}", "{} song", "music that is {}")
PAIR_WORDINGS = ("{} {}", "{}, {}", "{} and {}", "{} {} music")
PAIRS_PER_TRACK = 6
MAX_PAIRS = 10_000
MAX_TRACKS = 4096  # that a step's questions are asked of
BATCH_PER_KIND = 64
TEXT_WEIGHT = 0.5  # of the likeness to the tracks' texts, beside the attention
ENCODED_AT_ONCE = 256  # short texts
SHARPNESS = 2.0  # of the teachers' standard scores, as logits
MIN_SPREAD = 1e-3  # of a question's scores over the tracks
NO_TAG = -1
MIN_RELEVANT = 5  # validation tracks that answer a question
MAX_PAIRED_TAGS = 100  # the most frequent, of which pairs are held out
MAX_HELD_OUT = 200  # questions of a validation, evenly drawn


@dataclass(frozen=True)
class QuestionTexts:
    """The questions of one kind, and the tags each is made of: (q, 2) numbers, `NO_TAG` = none."""

    texts: list[str]
    tags: np.ndarray


@dataclass(frozen=True)
class TrainingQuestions:
    """Questions with their teachers, over fixed text states.

    states: (q, D). tags: (q, 2), as of `QuestionTexts`. ends: the end of each kind among the
    questions. audio: (n, a) unit vectors. tag_scores: (n, V), standard scores over the tracks.
    track_texts: (n, D) unit states, zeros for a track without text.
    """

    states: Tensor
    tags: Tensor
    ends: tuple[int, ...]
    audio: Tensor
    tag_scores: Tensor
    track_texts: Tensor

    def loss(self, model: HTCL, seed: int) -> Tensor:
        """Returns the cross entropy of a step's questions, a scalar: the model's softmax over the
        tracks against the teachers'.
        """
        generator = np.random.default_rng(seed)
        chosen = []
        start = 0
        for end in self.ends:
            if end > start:
                chosen.append(generator.integers(start, end, size=BATCH_PER_KIND))
            start = end
        rows = torch.from_numpy(np.concatenate(chosen))
        device = model.device
        states = self.states[rows].to(device)
        scale = model.logit_scales["audio_text"].clamp(max=MAX_LOGIT_SCALE).exp()
        logits = scale * F.normalize(model.project_text(states), dim=-1) @ self.audio.to(device).T
        targets = (SHARPNESS * self.teach(model, rows)).softmax(dim=1).to(device)
        loss: Tensor = -(targets * logits.log_softmax(dim=1)).sum(dim=1).mean()
        return loss

    @torch.no_grad()
    def teach(self, model: HTCL, rows: Tensor) -> Tensor:
        """Returns (B, n), how well each track fits each question, in standard scores."""
        states = self.states[rows]
        attention = model.semantic_space.attend(states.to(model.device)).cpu()
        has_tag = self.tags[rows, 0] >= 0
        tags = self.tags[rows][has_tag]
        weights = (tags >= 0).float()
        exact = torch.zeros(len(tags), attention.shape[1])
        exact.scatter_add_(1, tags.clamp(min=0), weights / weights.sum(dim=1, keepdim=True))
        attention[has_tag] = exact
        by_tag = _standard_scores(attention @ self.tag_scores.T)
        by_text = _standard_scores(F.normalize(states, dim=-1) @ self.track_texts.T)
        return _standard_scores(by_tag + TEXT_WEIGHT * by_text)


def _standard_scores(scores: Tensor) -> Tensor:
    deviation = scores.std(dim=1, keepdim=True, correction=0).clamp(min=MIN_SPREAD)
    return (scores - scores.mean(dim=1, keepdim=True)) / deviation


def build_questions(
    model: HTCL,
    audio: np.ndarray,
    text_states: np.ndarray,
    given: np.ndarray,
    n_words: int,
    seed: int,
) -> TrainingQuestions | None:
    """Returns the questions over training tracks; None for a model without a vocabulary.

    model: with its semantic space fitted and its text encoder frozen. audio: (n, a) unit vectors.
    text_states: (n, D), zeros for a track without text. given: (n, G) bool, the tracks' own tags,
    the first of the vocabulary. n_words: of the text encoder's vocabulary, at most.
    """
    names = model.config.vocabulary
    if not names:
        return None
    generator = np.random.default_rng(seed)
    words = _known_words(model, n_words, generator)
    kinds = [
        QuestionTexts(words, np.full((len(words), 2), NO_TAG)),
        _mixed_questions(names, words, generator),
        _tag_questions(names),
        _pair_questions(names, given, generator),
    ]
    texts = [text for kind in kinds for text in kind.texts]
    rows = np.arange(len(audio))
    if len(rows) > MAX_TRACKS:
        rows = np.linspace(0, len(audio) - 1, MAX_TRACKS).astype(int)
    space = model.semantic_space
    chosen_audio = torch.from_numpy(audio[rows]).float()
    tag_scores = chosen_audio @ space.tag_audio.cpu().T
    return TrainingQuestions(
        states=torch.from_numpy(model.encode_text_states(texts, ENCODED_AT_ONCE)),
        tags=torch.from_numpy(np.concatenate([kind.tags for kind in kinds])),
        ends=tuple(np.cumsum([len(kind.texts) for kind in kinds]).tolist()),
        audio=chosen_audio,
        tag_scores=_standard_scores(tag_scores.T).T,
        track_texts=F.normalize(torch.from_numpy(text_states[rows]), dim=-1),
    )


def _known_words(model: HTCL, n: int, generator: np.random.Generator) -> list[str]:
    """Returns n whole words of letters that the text encoder's tokenizer has."""
    vocabulary = sorted(model.tokenizer.get_vocab())
    words = [word for word in vocabulary if word.isascii() and word.isalpha() and len(word) > 2]
    return [words[position] for position in generator.permutation(len(words))[:n]]


def _mixed_questions(
    names: Sequence[str], words: list[str], generator: np.random.Generator
) -> QuestionTexts:
    """Returns a tag beside each second word, in either order."""
    texts = []
    for word in words[::2]:
        pair = [names[int(generator.integers(len(names)))], word]
        texts.append(" ".join(generator.permutation(pair)))
    return QuestionTexts(texts, np.full((len(texts), 2), NO_TAG))


def _tag_questions(names: Sequence[str]) -> QuestionTexts:
    texts = []
    tags = []
    for number, name in enumerate(names):
        for wording in TAG_WORDINGS:
            texts.append(wording.format(name))
            tags.append((number, NO_TAG))
    return QuestionTexts(texts, np.array(tags))


def _pair_questions(
    names: Sequence[str], given: np.ndarray, generator: np.random.Generator
) -> QuestionTexts:
    """Returns pairs of tags that one track has."""
    texts: list[str] = []
    tags = []
    for row in generator.permutation(len(given)):
        numbers = np.flatnonzero(given[row])
        if len(numbers) < 2:
            continue
        if len(texts) >= MAX_PAIRS:
            break
        for _ in range(PAIRS_PER_TRACK):
            pair = generator.choice(numbers, size=2, replace=False)
            wording = PAIR_WORDINGS[generator.integers(len(PAIR_WORDINGS))]
            first, second = pair.tolist()
            texts.append(wording.format(names[first], names[second]))
            tags.append(pair)
    return QuestionTexts(texts, np.array(tags, dtype=np.int64).reshape(-1, 2))


@dataclass(frozen=True)
class HeldOutQuestions:
    """Single tags and pairs of tags, asked of validation tracks by their sound alone.

    states: (q, D). relevance: (q, m) bool, whether a track has all tags of a question; at least
    `MIN_RELEVANT` have, and not all. audio: (m, a) unit vectors.
    """

    states: Tensor
    relevance: np.ndarray
    audio: Tensor

    @torch.no_grad()
    def measure(self, model: HTCL) -> float:
        """Returns the mean AUC, by the audio block of the questions' vectors as they are served."""
        questions = model.embed_texts(self.states.to(model.device))[:, : self.audio.shape[1]]
        scores = (questions.cpu() @ self.audio.T).numpy().astype(np.float64)
        areas = []
        for question_scores, relevant in zip(scores, self.relevance, strict=True):
            areas.append(auc(hit_groups(question_scores, relevant)))
        return float(np.mean(areas))


def hold_out_questions(
    model: HTCL, audio: np.ndarray, given: np.ndarray
) -> HeldOutQuestions | None:
    """Returns the questions that validation tracks can answer; None if there are none.

    audio: (m, a) unit vectors. given: (m, G) bool, the tracks' tags of the vocabulary.
    """
    names = model.config.vocabulary
    texts: list[str] = []
    relevance: list[np.ndarray] = []
    n_tags = min(given.shape[1], MAX_PAIRED_TAGS)
    for first in range(n_tags):
        for second in range(first, n_tags):
            has_both = given[:, first] & given[:, second]
            if MIN_RELEVANT <= has_both.sum() < len(given):
                pair = PAIR_WORDINGS[0].format(names[first], names[second])
                texts.append(names[first] if first == second else pair)
                relevance.append(has_both)
    if not texts:
        return None
    chosen = range(0, len(texts), -(-len(texts) // MAX_HELD_OUT))
    return HeldOutQuestions(
        torch.from_numpy(model.encode_text_states([texts[row] for row in chosen])),
        np.array([relevance[row] for row in chosen]),
        torch.from_numpy(audio).float(),
    )
