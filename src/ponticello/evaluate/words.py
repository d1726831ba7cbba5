"""The task "words, preference": a tag word -> held-out tracks that listeners of such tracks like.

Each word ranks the held-out tracks as `search` does, over the vectors that are served. A track is
as relevant to a word as there are listeners who like it in the test window and of whose liked
training tracks at least `CARRIER_SHARE` carry the word as a tag.

Dimensions: W words, U listeners, I training tracks, m held-out tracks.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from ponticello.evaluate.baselines import Interactions, as_matrix
from ponticello.evaluate.labels import CATEGORY_END, LABEL_COLUMNS, known_labels
from ponticello.evaluate.recommendation import EvaluationListening
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import (
    RANDOM,
    SERVED,
    STAGE_ONE,
    STAGE_TWO,
    Measurements,
    Scores,
    pick,
)
from ponticello.evaluate.tasks import role_tracks
from ponticello.evaluate.vectors import EvaluationVectors
from ponticello.metrics.beyond_accuracy import graded_ndcg_at_k
from ponticello.metrics.ranking import hit_groups, recall
from ponticello.search.index import Query
from ponticello.splits.splits import before_test, in_test
from ponticello.storage.schema import TRACK_ID, USER_ID

WORDS = "words_preference"
MAX_WORDS = 150  # those that most training tracks carry
MIN_TRACKS = 5  # training tracks of a word, and held-out tracks of one whose precision counts
CARRIER_SHARE = 0.3  # of a listener's liked training tracks


@dataclass(frozen=True)
class WordTask:
    """Words, and what they should find.

    relevance: (W, m), the number of listeners; has_tag: (W, m) bool, whether a track carries the
    word.
    """

    words: list[str]
    relevance: np.ndarray
    has_tag: np.ndarray

    def measure(self, scores: np.ndarray, k: int) -> dict[str, np.ndarray]:
        """Returns each word's graded NDCG@k, and its precision@k by tag; ties as in `metrics`.

        scores: (W, m). The NDCG is nan for a word without relevant tracks, the precision for one
        that fewer than `MIN_TRACKS` of the tracks carry.
        """
        ndcg = np.full(len(self.words), np.nan)
        precision = np.full(len(self.words), np.nan)
        for row, word_scores in enumerate(scores):
            ndcg[row] = graded_ndcg_at_k(word_scores, self.relevance[row], k)
            has_tag = self.has_tag[row]
            n_tagged = int(has_tag.sum())
            if n_tagged >= MIN_TRACKS:
                hits = recall(hit_groups(word_scores, has_tag), k) * min(k, n_tagged)
                precision[row] = hits / min(k, len(has_tag))
        return {f"NDCG@{k}": ndcg, f"precision@{k} by tag": precision}


def make_word_task(
    tags: Sequence[set[str]],
    new_tags: Sequence[set[str]],
    likes: Interactions,
    new_likes: Interactions,
) -> WordTask:
    """Returns the task of the words that at least `MIN_TRACKS` training tracks carry.

    tags: of the I training tracks; new_tags: of the m held-out ones. likes: (U, I) before the test
    window; new_likes: (U, m) in it; every value above 0 is a like.
    """
    counts = Counter(word for track_tags in tags for word in track_tags)
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    words = [word for word in ranked[:MAX_WORDS] if counts[word] >= MIN_TRACKS]
    carries = _has_tag(tags, words)
    is_liked = (likes > 0).astype(np.float64)
    n_liked = np.maximum(np.asarray(is_liked.sum(axis=1)), 1)  # (U, 1)
    is_listener = (is_liked @ carries.T) / n_liked >= CARRIER_SHARE  # (U, W)
    is_new_like = (new_likes > 0).astype(np.float64)
    relevance = np.asarray((is_new_like.T @ is_listener.astype(np.float64)).T)
    return WordTask(words, relevance, _has_tag(new_tags, words))


def _has_tag(tags: Sequence[set[str]], words: list[str]) -> np.ndarray:
    """Returns (W, tracks) bool."""
    rows = [[word in track_tags for track_tags in tags] for word in words]
    return np.array(rows, dtype=bool).reshape(len(words), len(tags))


def measure_words(
    measured: Measurements,
    listening: EvaluationListening,
    vectors: EvaluationVectors,
    on_step: Callable[[str], None],
) -> None:
    """Adds the task at blend 0 (stage one), the default (as served) and 1 (stage two).

    Without a model of stage one there is nothing to search with, and nothing is added.
    """
    if STAGE_ONE not in vectors.models:
        return
    title = display_name(WORDS)
    task, track_ids = _library_task(listening, vectors)
    has_relevant = np.flatnonzero(task.relevance.any(axis=1))
    if not len(has_relevant):
        measured.notes.append(f"Taste, {title}: not measured, no word has a relevant track.")
        return
    on_step(f"taste: {title}, {len(has_relevant)} words")
    task = WordTask(
        pick(task.words, has_relevant), task.relevance[has_relevant], task.has_tag[has_relevant]
    )
    k = vectors.config.evaluate.k
    results = {RANDOM: task.measure(np.zeros(task.relevance.shape), k)}
    for method, scores in _search_scores(task.words, track_ids, vectors).items():
        results[method] = task.measure(scores, k)
    for metric in results[RANDOM]:
        by_method = {method: result[metric] for method, result in results.items()}
        scores_of_metric = Scores("preference", WORDS, metric, task.words, None, by_method)
        of_record = metric == f"NDCG@{k}"
        measured.scores.append(
            replace(scores_of_metric, of_record=of_record, is_simulated=listening.is_simulated)
        )
    measured.notes.append(
        f"Taste, {title}: {len(task.words)} words that at least {MIN_TRACKS} training tracks carry "
        "rank all held-out tracks as search does: stage one at blend 0, stage two at blend 1, as "
        f"served at blend {vectors.config.search.blend:g}. A track is as relevant as there are "
        f"listeners who like it and of whose liked tracks {CARRIER_SHARE:.0%} carry the word."
    )


def _library_task(
    listening: EvaluationListening, vectors: EvaluationVectors
) -> tuple[WordTask, list[list[str]]]:
    """Returns the task over recordings, and the track ids of each recording (m lists)."""
    splits = listening.splits
    min_played_s = vectors.config.pairs.min_played_s
    usable = set(vectors.ids)
    training = role_tracks(splits, "train", usable)
    copies: dict[str, list[str]] = {}
    recording_of = {}
    for track_id in role_tracks(splits, "test", usable):
        recording = listening.recordings.get(track_id, track_id)
        recording_of[track_id] = recording
        copies.setdefault(recording, []).append(track_id)
    tags = _tags_by_id(vectors.tracks)
    new_tags = [set().union(*pick(tags, track_ids)) for track_ids in copies.values()]
    past = before_test(splits, listening.interactions)
    users = sorted(past[USER_ID].unique())
    likes = as_matrix(past, users, training, min_played_s)
    held_out = in_test(splits, listening.interactions).filter(
        pl.col(TRACK_ID).is_in(list(recording_of))
    )
    held_out = held_out.with_columns(pl.col(TRACK_ID).replace(recording_of))
    new_likes = as_matrix(held_out, users, list(copies), min_played_s)
    return make_word_task(pick(tags, training), new_tags, likes, new_likes), list(copies.values())


def _tags_by_id(tracks: pl.DataFrame) -> dict[str, set[str]]:
    """Returns the words of each track's genres, tags and machine tags, in lower case."""
    tags: dict[str, set[str]] = {track_id: set() for track_id in tracks[TRACK_ID]}
    for column in LABEL_COLUMNS:
        if column not in tracks.columns:
            continue
        label_sets, _ = known_labels(tracks[column].to_list())
        for track_id, labels in zip(tracks[TRACK_ID], label_sets, strict=True):
            for label in labels:
                name = label.split(CATEGORY_END)[-1].replace("_", " ")
                tags[track_id].add(" ".join(name.casefold().split()))
    for words in tags.values():
        words.discard("")
    return tags


def _search_scores(
    words: list[str], track_ids: list[list[str]], vectors: EvaluationVectors
) -> dict[str, np.ndarray]:
    """Returns (W, m) by method; a recording has the score of its best copy."""
    index = vectors.index()
    query = Query(tuple(model.encode_text(words) for model in vectors.stages), "text")
    blends = {STAGE_ONE: 0.0}
    if index.has_preference:
        blends[STAGE_TWO] = 1.0
    if vectors.served is not None:
        blends[SERVED] = vectors.config.search.blend
    scores = {}
    for method, blend in blends.items():
        of_tracks = index.scores(query, blend)
        columns = [of_tracks[:, pick(index.rows, copies)].max(axis=1) for copies in track_ids]
        scores[method] = np.stack(columns, axis=1)
    return scores
