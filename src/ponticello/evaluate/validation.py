"""What a model is worth on validation, meaning and taste: decides how far stage two may go
(`train/selection.py`).
"""

import numpy as np

from ponticello.errors import LibraryError
from ponticello.evaluate.labels import LABEL_COLUMNS, known_labels
from ponticello.evaluate.retrieval import music_to_music_scores, retrieval_figures
from ponticello.evaluate.tasks import next_tracks, rank_task, score_by_profile
from ponticello.features.frontend import open_features
from ponticello.listening.log import read_interactions
from ponticello.model.htcl import HTCL
from ponticello.splits.splits import before_test, load_splits, one_window_earlier
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import TRACK_ID
from ponticello.tracks.catalog import read_tracks
from ponticello.tracks.text import fused_texts, track_texts
from ponticello.train.selection import Scorer, ValidationScores

MOST_LISTENERS = 500  # asked, drawn where there are more


def score_on_validation(folder: LibraryPaths) -> Scorer:
    """Measures a model on the validation tracks and the validation window of the log, never on
    test.

    meaning: a text's track among the validation tracks (R@10 and MRR); same-label neighbours for
    each of `LABEL_COLUMNS` that two tracks share; of audio and of fused vectors. taste: NDCG@k of
    validation tracks nobody has played, each listener asking with a profile. The library is read
    when a model is first judged; LibraryError then if nothing is held out or prepared.
    """
    found: list[Scorer] = []

    def judge(model: HTCL) -> ValidationScores:
        if not found:
            found.append(_judge(folder))
        return found[0](model)

    return judge


def _judge(folder: LibraryPaths) -> Scorer:
    splits = load_splits(folder)
    if splits is None:
        raise LibraryError(
            "nothing is held out yet",
            code="no_splits",
            remedy="ponticello mine-pairs",
            library=folder.root,
        )
    store, config = open_features(folder, folder.config), folder.config
    tracks = read_tracks(folder).sort(TRACK_ID)
    known = dict(zip(tracks[TRACK_ID], track_texts(tracks), strict=True))
    usable = {track_id for track_id in known if track_id in store}
    past = before_test(splits, read_interactions(folder))
    _, cold = next_tracks(past, one_window_earlier(splits), usable, config, cold_role="validation")
    if len(cold.queries) > MOST_LISTENERS:
        cold = cold.rows(
            np.sort(
                np.random.default_rng(0).choice(len(cold.queries), MOST_LISTENERS, replace=False)
            )
        )
    validation = [
        track_id for track_id in sorted(usable) if splits.roles.get(track_id) == "validation"
    ]
    ids = sorted(
        {*validation, *cold.candidates, *(track_id for seeds in cold.seeds for track_id in seeds)}
    )
    place = {track_id: row for row, track_id in enumerate(ids)}
    fused = fused_texts(tracks, config.front_end)
    texts, beside = [known[track_id] for track_id in ids], [fused[track_id] for track_id in ids]
    rows = [place[track_id] for track_id in validation]
    told = [row for row in rows if texts[row]]
    own = tracks.filter(tracks[TRACK_ID].is_in(validation))
    labels = {
        column: known_labels(own[column].to_list())[0]
        for column in LABEL_COLUMNS
        if column in own.columns
    }
    states: list[tuple[np.ndarray, np.ndarray]] = []

    def judge(model: HTCL) -> ValidationScores:
        if model.settings.text.trainable or not states:
            states[:] = [(model.encode_text_states(texts), model.encode_text_states(beside))]
        asked, fused_with = states[0]
        frames = [store.read(track_id) for track_id in ids]
        kinds = {
            "audio": model.encode_features(frames),
            "fused": model.encode_fused(frames, fused_with),
        }
        said: dict[str, float] = {}
        if len(told) > 1:  # of the audio for both: a fused vector holds the text itself
            found = retrieval_figures(
                model.encode_text_from_states(asked[told]),
                kinds["audio"][told],
                np.arange(len(told)),
            )
            said = {"text to audio R@10": found["recall@10"], "text to audio MRR": found["mrr"]}
        meaning: dict[str, dict[str, float]] = {kind: dict(said) for kind in kinds}
        taste, by_listener = {}, {}
        for kind, vectors in kinds.items():
            for column, sets in labels.items():
                if sum(bool(found) for found in sets) > 1:
                    scores = music_to_music_scores(
                        {"model": vectors[rows]}, sets, validation, validation, column
                    )
                    if scores:  # no two share one, else
                        meaning[kind][f"same {column}"] = float(
                            np.nanmean(scores[0].by_method["model"])
                        )
            if cold.queries:
                scorer = score_by_profile(
                    cold, [(1.0, dict(zip(ids, vectors, strict=True)))], config.search
                )
                metrics = rank_task(cold, scorer, config.evaluate.k).metrics
                by_listener[kind] = metrics[f"NDCG@{config.evaluate.k}"]
                taste[kind] = float(np.nanmean(by_listener[kind]))
        return ValidationScores(meaning, taste, by_listener)

    return judge
