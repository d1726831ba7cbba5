"""The recipe of the starter model that ships with the package: words learn to find what MusiCNN
hears.

Of any words at all two teachers that only read say which tracks fit, one by the likeness of the
words to each tag and what the taggers heard of it, one by their likeness to the track's machine
tags as a text. The text head learns to say the same over what MusiCNN hears, and so needs no tags
later. `starter.py` makes the model by it.

Dimensions: N tracks, F numbers a frame, U tag names, n texts, D numbers of a text, d joint
dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ponticello.config import Config
from ponticello.evaluate.baselines import unit
from ponticello.features.musicnn import N_TAGS, tag_names
from ponticello.features.musicnn_frontend import BLOCKS, FRAME_SIZE, TAGGER_SIZE, TAGGERS, rank_tags
from ponticello.features.store import FeatureStore
from ponticello.model.adapter import FeaturePooling, SemanticProjection, fit_feature_projection
from ponticello.model.htcl import HTCL, MLP
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import MACHINE_TAGS
from ponticello.tracks.text import track_text

SEED = 3407
SETTINGS = Config.from_preset("small")
N_WORDS, N_PAIRS, N_MIXED = (
    8_000,
    3_000,
    3_000,
)  # of the text encoder's vocabulary: what is asked is rarely a tag
N_OWN = 8  # texts of two or three of its own tags a track
TAG_TEXTS = ("{}", "{} music", "a {} track", "sounds like {}", "{} song", "music that is {}")
OWN_TEXTS = (
    (" ", "{}"),
    (", ", "{}"),
    (" and ", "{}"),
    (" ", "{} music"),
)  # how tags are joined, and what around them
LIKENESS = 0.02  # of cosines between a text and the tags' names: the closest two or three count
SHARPNESS = 2.0  # of the teachers' standard scores, as logits
STEPS, BATCH_SIZE, RATE, DECAY = 600, 256, 2e-3, 0.01
LEAST_SCORE = 1e-4  # of a tag, so that its log odds are finite


@dataclass(frozen=True)
class Heard:
    """Tracks as the recipe sees them. means: (N, F) mean frames. tags: N lists, as `ponticello tag`
    writes them.
    """

    means: np.ndarray
    tags: list[list[str]]

    def texts(self) -> list[str]:
        """Returns each track's machine tags as its text, for a text encoder without audio."""
        return [track_text({MACHINE_TAGS: tags}) for tags in self.tags]


def read_heard(folder: LibraryPaths, track_ids: Sequence[str]) -> Heard:
    """What the taggers heard of the tracks, in their order."""
    frames = [FeatureStore(folder.frames).read(track_id) for track_id in track_ids]
    means = np.array([frame.mean(axis=0, dtype=np.float64) for frame in frames])
    return Heard(means, [list(rank_tags(frame)) for frame in frames])


class Reader:
    """A pretrained text encoder that remembers what it has read: (n, D) states of n texts, not of
    unit length.
    """

    def __init__(self) -> None:
        self._model = HTCL.from_settings(SETTINGS)
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            self._known.update(zip(new, self._model.encode_text_states(new), strict=True))
        return np.stack([self._known[text] for text in texts])

    def vocabulary(self) -> list[str]:
        """The whole English-looking words it knows, sorted."""
        words = sorted(self._model.tokenizer.get_vocab())
        return [word for word in words if word.isascii() and word.isalpha() and len(word) > 2]


def known_tags() -> list[str]:
    """The U names that the taggers have, each once."""
    return list(dict.fromkeys(tag.lower() for tagger in TAGGERS for tag in tag_names(tagger)))


def tag_scores(means: np.ndarray) -> np.ndarray:
    """(N, U) standard scores of each tag's log odds over the tracks, the mean of both taggers where
    both know it.
    """
    columns: dict[str, list[np.ndarray]] = {tag: [] for tag in known_tags()}
    for number, tagger in enumerate(TAGGERS):
        end = (number + 1) * TAGGER_SIZE
        odds = np.clip(means[:, end - N_TAGS : end], LEAST_SCORE, 1 - LEAST_SCORE)
        for tag, scores in zip(
            tag_names(tagger), standard(np.log(odds / (1 - odds)).T), strict=True
        ):
            columns[tag.lower()].append(scores)
    return np.stack([np.mean(found, axis=0) for found in columns.values()], axis=1)


def standard(scores: np.ndarray) -> np.ndarray:
    """Rows with mean 0 and standard deviation 1; a row that hardly varies stays small."""
    spread = np.maximum(scores.std(axis=1, keepdims=True), 1e-3)
    standardised: np.ndarray = (scores - scores.mean(axis=1, keepdims=True)) / spread
    return standardised


def training_texts(
    heard: Heard, vocabulary: Sequence[str], generator: np.random.Generator
) -> list[list[str]]:
    """What is asked in training, in kinds that count alike: words, pairs of them, one beside a tag,
    tags, own tags.
    """
    tags, words = (
        known_tags(),
        [vocabulary[place] for place in generator.permutation(len(vocabulary))],
    )
    pairs = [
        " ".join(words[place] for place in pair)
        for pair in generator.integers(len(words), size=(N_PAIRS, 2))
    ]
    mixed = []
    for tag, word, swapped in generator.integers((len(tags), len(words), 2), size=(N_MIXED, 3)):
        mixed.append(" ".join([tags[tag], words[word]][:: -1 if swapped else 1]))
    own = []
    for track_tags in heard.tags:
        for _ in range(N_OWN if len(track_tags) > 2 else 0):
            chosen = generator.permutation(len(track_tags))[
                : generator.integers(2, 3, endpoint=True)
            ]
            mark, text = OWN_TEXTS[generator.integers(len(OWN_TEXTS))]
            own.append(text.format(mark.join(track_tags[place] for place in chosen)))
    return [
        words[:N_WORDS],
        pairs,
        mixed,
        [text.format(tag) for tag in tags for text in TAG_TEXTS],
        own,
    ]


def taught(read: Reader, heard: Heard, states: np.ndarray) -> np.ndarray:
    """(n, N) how well each track fits each text, in standard scores over the tracks: the mean of
    the two teachers.

    states: (n, D) of the texts.
    """
    texts = unit(states)
    likeness = texts @ unit(read([f"{tag} music" for tag in known_tags()])).T  # (n, U)
    weights = np.exp((likeness - likeness.max(axis=1, keepdims=True)) / LIKENESS)
    by_tag = (weights / weights.sum(axis=1, keepdims=True)) @ tag_scores(heard.means).T
    by_text = texts @ unit(read(heard.texts())).T
    return standard(standard(by_tag) + standard(by_text))


def learn_starter(read: Reader, heard: Heard, seed: int = SEED) -> dict[str, Tensor]:
    """The starter's part of an HTCL's state, learned from these tracks; the same for the same
    tracks and seed.

    Matrices are float16: what they would lose by it is below what any figure shows.
    """
    torch.manual_seed(seed)
    heads, generator = SETTINGS.heads, np.random.default_rng(seed)
    encoder, audio_head = (
        FeaturePooling(FRAME_SIZE),
        SemanticProjection(FRAME_SIZE, heads.embed_dim),
    )
    fit_feature_projection(encoder, audio_head, heard.means, BLOCKS)
    frames = torch.from_numpy(heard.means).float()[:, None]  # (N, 1, F)
    standardised, _ = encoder(frames, torch.zeros(frames.shape[:2], dtype=torch.bool))
    tracks = audio_head(standardised[:, 0]).detach()  # (N, d), of length 1
    kinds = training_texts(heard, read.vocabulary(), generator)
    states = read([text for kind in kinds for text in kind])
    targets = (SHARPNESS * torch.from_numpy(taught(read, heard, states)).float()).softmax(dim=1)
    ends = np.cumsum([len(kind) for kind in kinds])
    text_head = MLP((states.shape[1], *heads.hidden_sizes, heads.embed_dim), heads.dropout)
    scale = torch.nn.Parameter(torch.tensor(heads.logit_scale))
    optimiser = torch.optim.AdamW([*text_head.parameters(), scale], lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, RATE, total_steps=STEPS, pct_start=0.1
    )
    inputs = torch.from_numpy(states)
    for _ in range(STEPS):
        chosen = [
            generator.integers(end - len(kind), end, size=BATCH_SIZE // len(kinds))
            for kind, end in zip(kinds, ends, strict=True)
        ]
        rows = torch.from_numpy(np.concatenate(chosen))
        logits = scale.exp() * F.normalize(text_head(inputs[rows]), dim=-1) @ tracks.T
        loss = -(targets[rows] * logits.log_softmax(dim=1)).sum(dim=1).mean()
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        optimiser.step()
        schedule.step()
    parts = {"audio_encoder": encoder, "text_head": text_head}
    state = {
        f"{part}.{name}": value
        for part, module in parts.items()
        for name, value in module.state_dict().items()
    }
    state["audio_head.axes"] = audio_head.axes
    state["logit_scales.audio_text"] = scale.detach()
    return {
        name: value.half() if value.ndim > 1 else value.float() for name, value in state.items()
    }
