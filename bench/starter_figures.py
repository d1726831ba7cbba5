"""What the starter's recipe is worth on games it never heard: every question belongs to a held-out track that asks it.

Three that answer beside it: words matched with the machine tags `ponticello tag` writes, MiniLM reading those tags as a
text, and chance. Rows of a table are kinds of questions; a game's tracks are drawn together for the intervals.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from freemusic import roles, together
from ponticello.evaluate.baselines import unit
from ponticello.evaluate.intervals import bootstrap_mean, paired_difference
from ponticello.evaluate.metrics import auc, ndcg_at_k
from questions import QUESTIONS
from starter_recipe import SEED, Heard, Reader, learn_starter

ROUNDS = 1000
STARTER, MATCHING, READING, CHANCE = "starter", "tag matching", "MiniLM reads the tags", "chance"
METHODS = (STARTER, MATCHING, READING, CHANCE)
NO_SOUND = {"game", "game music", "game soundtrack", "music", "other", "soundtrack", "vgm", "widelands"}  # as genres
N_CHOSEN = 1  # questions of each tag that the recipe was chosen with, on validation games; not reported


class Question(NamedTuple):
    """A text, the tracks that fit it, and the track that asks. relevant, asker: places among the held-out tracks."""

    kind: str
    text: str
    relevant: frozenset[int]
    asker: int


class Values(NamedTuple):
    """What a method got for a question, by metric."""

    auc: float
    ndcg: float


Scorer = Callable[[str], np.ndarray]
"""A text -> (n,) scores of the held-out tracks."""


def questions_of(rows: Sequence[Mapping[str, str]], seed: int) -> Iterator[Question]:
    """Every question that the held-out tracks `rows` ask of each other, kind by kind."""
    generator = np.random.default_rng(seed)
    tags = [sorted(filter(None, row["machine_tags"].split(";"))) for row in rows]

    def all_with(*wanted: str) -> frozenset[int]:
        return frozenset(place for place, own in enumerate(tags) if set(wanted) <= set(own))

    for asker, row in enumerate(rows):
        for tag in tags[asker]:
            yield Question("a tag", tag, all_with(tag), asker)
            for text in QUESTIONS.get(tag, ())[N_CHOSEN:]:
                yield Question("in other words", text, all_with(tag), asker)
        if len(tags[asker]) > 1:
            pair = [tags[asker][place] for place in generator.permutation(len(tags[asker]))[:2]]
            yield Question("two tags", " ".join(pair), all_with(*pair), asker)
        genre = row["genres"].strip().lower()
        if genre and genre not in NO_SOUND:
            same = frozenset(place for place, other in enumerate(rows) if other["genres"].strip().lower() == genre)
            yield Question("a genre, by people", genre, same, asker)
        if row["title"]:
            yield Question("its title", row["title"], frozenset([asker]), asker)
        if row["about"]:
            same = frozenset(place for place, other in enumerate(rows) if other["game"] == row["game"])
            yield Question("what its game is", row["about"], same, asker)


def words(text: str) -> set[str]:
    """Its words, in lower case."""
    return set(text.lower().replace(",", " ").split())


def scorers(read: Reader, starter: Mapping[str, np.ndarray], held_out: Heard) -> dict[str, Scorer]:
    """How each method scores the held-out tracks."""
    own_words = [words(" ".join(tags)) for tags in held_out.tags]
    standardised = (held_out.means - starter["audio_encoder.mean"]) / starter["audio_encoder.deviation"]
    tracks, own_texts = unit(standardised @ starter["audio_head.axes"]), unit(read(held_out.texts()))

    def head(state: np.ndarray) -> np.ndarray:
        first, second = (starter[f"text_head.linears.{n}.weight"] for n in (0, 1))
        hidden = np.maximum(state @ first.T + starter["text_head.linears.0.bias"], 0)
        vector: np.ndarray = hidden @ second.T + starter["text_head.linears.1.bias"]
        return vector

    return {
        STARTER: lambda text: unit(head(read([text])))[0] @ tracks.T,
        MATCHING: lambda text: np.array([float(len(words(text) & own)) for own in own_words]),
        READING: lambda text: unit(read([text]))[0] @ own_texts.T,
        CHANCE: lambda _: np.zeros(len(tracks)),
    }


def valued(scores: np.ndarray, relevant: frozenset[int]) -> Values:
    """Each metric of one answer; ties count as their mean."""
    wanted = np.zeros(len(scores), dtype=bool)
    wanted[list(relevant)] = True
    return Values(auc(scores, wanted), ndcg_at_k(scores, wanted, 10))


def report(read: Reader, heard: Heard, rows: Sequence[Mapping[str, str]], n_seeds: int) -> list[str]:
    """The table: a line a kind of question and metric, the four methods and the starter's lead, with intervals."""
    games = together([dict(row) for row in rows])
    number = {game: place for place, game in enumerate(sorted(set(games)))}
    found: dict[tuple[str, str], list[tuple[Values, int, str]]] = {}
    for seed in range(n_seeds):
        role = roles(games, seed)
        training, test = ([place for place, own in enumerate(role) if own == name] for name in ("train", "test"))
        learned = learn_starter(read, heard.part(training), SEED)
        methods = scorers(read, {name: value.double().numpy() for name, value in learned.items()}, heard.part(test))
        known: dict[tuple[str, str, frozenset[int]], Values] = {}
        for question in questions_of([rows[place] for place in test], seed):
            for method, score in methods.items():
                key = (method, question.text, question.relevant)
                if key not in known:
                    known[key] = valued(score(question.text), question.relevant)
                found.setdefault((question.kind, method), []).append(
                    (known[key], number[games[test[question.asker]]], question.text)
                )
    return _table(found, n_seeds)


def _table(found: Mapping[tuple[str, str], Sequence[tuple[Values, int, str]]], n_seeds: int) -> list[str]:
    lead = f"| {STARTER} - {MATCHING} | {STARTER} - {READING} |"
    lines = [
        f"{n_seeds} splits by games, seeds 0 to {n_seeds - 1}; mean and 95 % bootstrap interval by games",
        "",
        f"| question | asked, different | metric | {' | '.join(METHODS)} {lead}",
        "|---" * (3 + len(METHODS) + 2) + "|",
    ]
    for kind in dict.fromkeys(kind for kind, _ in found):
        clusters = np.array([game for _, game, _ in found[kind, STARTER]])
        texts = {text for _, _, text in found[kind, STARTER]}
        for metric, name in (("auc", "AUC"), ("ndcg", "NDCG@10")):
            columns = [np.array([getattr(value, metric) for value, _, _ in found[kind, method]]) for method in METHODS]
            means = [bootstrap_mean(column, clusters, ROUNDS, 0) for column in columns]
            leads = [paired_difference(columns[0], column, clusters, ROUNDS, 0) for column in columns[1:3]]
            cells = [f"{mean:.3f} [{low:.3f}, {high:.3f}]" for mean, low, high in means]
            cells += [f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]" for mean, low, high in leads]
            lines.append(f"| {kind} | {len(clusters):,}, {len(texts):,} | {name} | {' | '.join(cells)} |")
    return lines
