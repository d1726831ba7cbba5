"""What an artist's known tracks say of a new one, for `asking.py`: worlds held out track by track.

Dimensions: n tracks, d vector size.
"""

import numpy as np

from asking_freemusic import AS_NOW, METRICS, Measured, mean_ndcg, validation_task
from asking_options import with_artist
from asking_worlds import STAGES, Trained
from ponticello.evaluate.metrics import retrieval_ranks
from ponticello.evaluate.ranking import Scorer, Task, rank_task
from ponticello.evaluate.tasks import next_tracks
from ponticello.search.profile import fit_profiles

SHARES = (0.1, 0.25, 0.5, 0.75)  # of the artist in a new track's vector, tried on validation
ARTIST_PRIOR = "artist prior"


def new_track_questions(one: Trained) -> tuple[Measured, str]:
    """Cold tracks of listeners, by an artist with training tracks and by a new one.

    Blended towards the artist are only the held-out tracks of artists with training tracks. Also says what share of the
    artist validation chose; where that is none, the row shows the smallest share.
    """
    found: Measured = {AS_NOW: {}, ARTIST_PRIOR: {}}
    chosen = [f"listeners, {kind}: {_listeners(one, kind, found):g}" for kind in ("audio", "fused")]
    return found, "; ".join(chosen)


def artist_text_questions(one: Trained) -> tuple[Measured, str]:
    """Each test track's own text, which names its artist, to the audio of the whole catalogue, training tracks too.

    A row a test track, nan in the columns of the other kind of artist. The share as in `new_track_questions`.
    """
    found: Measured = {AS_NOW: {}, ARTIST_PRIOR: {}}
    chosen = [f"text, {stage}: {_texts(one, stage, found):g}" for stage in STAGES]
    return found, "; ".join(chosen)


def _blended(one: Trained, vectors: np.ndarray, share: float) -> np.ndarray:
    """(n, d): held-out tracks of artists with training tracks moved by `share` to those tracks' mean."""
    known = np.zeros(len(one.ids), dtype=bool)
    known[one.rows_of("train")] = True
    return with_artist(vectors, [one.artists.get(track_id) for track_id in one.ids], known, ~known, share)


def _heard(one: Trained) -> set[str]:
    return {one.artists[one.ids[row]] for row in one.rows_of("train").tolist() if one.ids[row] in one.artists}


def _listeners(one: Trained, kind: str, found: Measured) -> float:
    """Fills in the listeners' numbers under stage two; the share that was best on validation."""
    heard, validation = _heard(one), validation_task(one)[0]
    _, cold = next_tracks(one.log, one.splits, set(one.ids), one.folder.config)
    is_known = np.array([one.artists.get(track_id) in heard for track_id in cold.candidates])
    strata = {"known artist": is_known, "new artist": ~is_known}
    served = (one.audio if kind == "audio" else one.fused)[STAGES[1]]

    def scorer(task: Task, share: float) -> Scorer:
        offered = _blended(one, served, share)
        return _profile_scorer(task, one.ids, served, offered, one.folder.config.search.profile_ridge)

    worth = {share: mean_ndcg(rank_task(validation, scorer(validation, share), 10).metrics) for share in (0.0, *SHARES)}
    share = max(worth, key=lambda share: worth[share])
    for option, used in ((AS_NOW, 0.0), (ARTIST_PRIOR, max(share, SHARES[0]))):
        for stratum, metrics in rank_task(cold, scorer(cold, used), 10, strata).by_stratum.items():
            found[option] |= {f"{kind}, {stratum} {name}": metrics[name] for name in METRICS}
    return share


def _texts(one: Trained, stage: str, found: Measured) -> float:
    """Fills in the ranks of the test tracks among all tracks, asked by their text; the share that validation chose."""
    heard, vectors = _heard(one), one.audio[stage]

    def ranks(role: str, share: float) -> np.ndarray:
        rows = one.rows_of(role)
        return retrieval_ranks(one.texts[stage][rows], _blended(one, vectors, share), rows)

    worth = {share: float((1 / ranks("validation", share)).mean()) for share in (0.0, *SHARES)}
    share = max(worth, key=lambda share: worth[share])
    is_known = np.array([one.artists.get(one.ids[row]) in heard for row in one.rows_of("test").tolist()])
    for option, used in ((AS_NOW, 0.0), (ARTIST_PRIOR, max(share, SHARES[0]))):
        own = ranks("test", used)
        for stratum, members in (("known artist", is_known), ("new artist", ~is_known)):
            found[option] |= {
                f"{stage}, {stratum} R@10": np.where(members, own <= 10, np.nan),
                f"{stage}, {stratum} MRR": np.where(members, 1 / own, np.nan),
            }
    return share


def _profile_scorer(task: Task, ids: list[str], served: np.ndarray, offered: np.ndarray, ridge: float) -> Scorer:
    """Profiles of the `served` vectors, asked of the `offered` ones."""
    place = {track_id: row for row, track_id in enumerate(ids)}
    profiles = fit_profiles(served, ridge)
    asking = np.stack([profiles.direction(served[[place[seed] for seed in seeds]]) for seeds in task.seeds])
    items = offered[[place[track_id] for track_id in task.candidates]] - profiles.mean
    return lambda rows: asking[rows] @ items.T
