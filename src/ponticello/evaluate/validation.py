"""Scores a model on validation data: semantic and preference quality, for `train/selection.py`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain

import numpy as np

from ponticello.config import Config
from ponticello.evaluate.labels import LABEL_COLUMNS, known_labels
from ponticello.evaluate.results import pick
from ponticello.evaluate.retrieval import music_to_music_scores, retrieval_figures
from ponticello.evaluate.tasks import (
    Task,
    next_tracks,
    rank_task,
    role_tracks,
    score_by_profile,
)
from ponticello.features.frontend import open_features
from ponticello.features.store import FeatureStore
from ponticello.listening.log import read_interactions
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import before_test, one_window_earlier
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts, track_texts
from ponticello.train.dataset import require_splits
from ponticello.train.selection import Scorer, ValidationScores

MAX_USERS = 500  # more are sampled


def score_on_validation(folder: LibraryPaths) -> Scorer:
    """Returns a function that scores a model on the validation tracks and window, never on test.

    semantic: text to audio among the validation tracks (R@10 and MRR), and same-label neighbours
    for each of `LABEL_COLUMNS`; of audio and of fused vectors. preference: NDCG@k of validation
    tracks, which have no plays, by each user's profile. The library is read when the first model
    is scored; LibraryError then if no track is held out or prepared.
    """
    load = cache(partial(_load, folder))
    return lambda model: load().score(model)


@dataclass
class _ValidationData:
    """The validation tracks, their labels and the cold task; row i of all belongs to `ids[i]`.

    rows: those of the validation tracks. label_sets: those tracks' labels by column. states: what
    the frozen text encoder makes of `texts` and `fused_texts`, once computed.
    """

    config: Config
    store: FeatureStore
    ids: list[str]
    texts: list[str]
    fused_texts: list[str]
    rows: list[int]
    label_sets: Mapping[str, list[set[str]]]
    cold: Task
    states: tuple[np.ndarray, np.ndarray] | None = None

    def score(self, model: HTCL) -> ValidationScores:
        """Returns the model's scores, of audio and of fused vectors."""
        if self.states is None or model.settings.text.trainable:
            text_states = model.encode_text_states(self.texts)
            self.states = (text_states, model.encode_text_states(self.fused_texts))
        text_states, fused_states = self.states
        frames = [self.store.read(track_id) for track_id in self.ids]
        audio = model.encode_features(frames)
        fused = model.encode_fused(frames, fused_states)
        # Retrieval uses audio vectors for both kinds: a fused vector holds the text itself.
        retrieval = {}
        rows = [row for row in self.rows if self.texts[row]]
        if len(rows) > 1:
            texts = model.encode_text_from_states(text_states[rows])
            figures = retrieval_figures(texts, audio[rows], np.arange(len(rows)))
            retrieval["text to audio R@10"] = figures["recall@10"]
            retrieval["text to audio MRR"] = figures["mrr"]
        scores = ValidationScores({}, {}, {})
        for kind, vectors in (("audio", audio), ("fused", fused)):
            scores.semantic[kind] = retrieval | self._score_neighbours(vectors)
            if self.cold.queries:
                space = dict(zip(self.ids, vectors, strict=True))
                scorer = score_by_profile(self.cold, [(1.0, space)], self.config.search)
                k = self.config.evaluate.k
                ndcg = rank_task(self.cold, scorer, k).metrics[f"NDCG@{k}"]
                scores.by_user[kind] = ndcg
                scores.preference[kind] = float(np.nanmean(ndcg))
        return scores

    def _score_neighbours(self, vectors: np.ndarray) -> dict[str, float]:
        track_ids = pick(self.ids, self.rows)
        by_method = {"model": vectors[self.rows]}
        figures = {}
        for column, label_sets in self.label_sets.items():
            if sum(map(bool, label_sets)) < 2:
                continue
            scores = music_to_music_scores(by_method, label_sets, track_ids, track_ids, column)
            if scores:  # empty if no two tracks share a label
                figures[f"same {column}"] = float(np.nanmean(scores[0].by_method["model"]))
        return figures


def _load(folder: LibraryPaths) -> _ValidationData:
    splits = require_splits(folder)
    config = folder.config
    store = open_features(folder, config)
    tracks = read_tracks(folder).sort(TRACK_ID)
    texts = dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True))
    usable = {track_id for track_id in texts if track_id in store}
    past = before_test(splits, read_interactions(folder))
    _, cold = next_tracks(past, one_window_earlier(splits), usable, config, cold_role="validation")
    if len(cold.queries) > MAX_USERS:
        sample = np.random.default_rng(0).choice(len(cold.queries), MAX_USERS, replace=False)
        cold = cold.rows(np.sort(sample))
    validation = role_tracks(splits, "validation", usable)
    ids = sorted(set(validation).union(cold.candidates, chain.from_iterable(cold.seeds)))
    row_of = {track_id: row for row, track_id in enumerate(ids)}
    fused = fused_texts(tracks, config.front_end)
    validation_tracks = tracks.filter(tracks[TRACK_ID].is_in(validation))
    label_sets = {}
    for column in LABEL_COLUMNS:
        if column in validation_tracks.columns:
            label_sets[column], _ = known_labels(validation_tracks[column].to_list())
    return _ValidationData(
        config=config,
        store=store,
        ids=ids,
        texts=pick(texts, ids),
        fused_texts=pick(fused, ids),
        rows=pick(row_of, validation),
        label_sets=label_sets,
        cold=cold,
    )
