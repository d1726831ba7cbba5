"""The taste side: full ranking of what listeners play next, over warm tracks and over tracks nobody has played yet.

Dimensions: U listeners, n candidates, d vector size.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl

from ponticello.config import Config
from ponticello.data.columns import PLAYED_AT, TRACK_ID, USER_ID
from ponticello.data.interactions import is_positive
from ponticello.data.splits import Splits
from ponticello.errors import DataError
from ponticello.search.recommend import agreement


@dataclass(frozen=True)
class Task:
    """What is ranked for whom.

    seeds: each listener's latest liked training tracks before the test window, newest first.
    relevant: (U, n), liked in the test window. allowed: (U, n), False = a warm track played before, so not ranked; cold
    tracks count as released only now, and are all ranked.
    """

    name: str
    users: list[str]
    seeds: list[list[str]]
    candidates: list[str]
    relevant: np.ndarray
    allowed: np.ndarray


def make_tasks(
    interactions: pl.DataFrame, splits: Splits, usable: set[str], config: Config, cold_role: str = "test"
) -> list[Task]:
    """`warm`: training tracks a listener has not played; `cold`: test tracks, in no training event and in no pair.

    Listeners with a seed and something relevant take part. usable: tracks that have vectors. cold_role: whose tracks
    are the cold ones; "validation" where something is to be tuned. DataError if the log is too short for a test window.
    """
    if splits.validation_until is None:
        raise DataError("nothing is held out in time: import listening first, then run: ponticello pairs")
    log = interactions.filter(pl.col(TRACK_ID).is_in(list(usable)))
    past, future = (
        log.filter(pl.col(PLAYED_AT) < splits.validation_until),
        log.filter(pl.col(PLAYED_AT) >= splits.validation_until),
    )
    by_role = {
        role: sorted(track_id for track_id in usable if splits.roles.get(track_id) == role)
        for role in ("train", cold_role)
    }
    liked = is_positive(config.pairs.min_played_s)
    seeds = _recent(past.filter(liked & pl.col(TRACK_ID).is_in(by_role["train"])), config.search.recent_seeds)
    played = past.group_by(USER_ID).agg(pl.col(TRACK_ID).unique())
    wanted = future.filter(liked).group_by(USER_ID).agg(pl.col(TRACK_ID).unique())
    history, targets = dict(played.iter_rows()), dict(wanted.iter_rows())
    return [
        _task(name, by_role[role], seeds, history if name == "warm" else {}, targets)
        for name, role in (("warm", "train"), ("cold", cold_role))
    ]


def _recent(liked: pl.DataFrame, n_recent: int) -> dict[str, list[str]]:
    newest = liked.sort(PLAYED_AT, TRACK_ID, descending=[True, False])
    distinct = newest.unique([USER_ID, TRACK_ID], keep="first", maintain_order=True)
    return dict(distinct.group_by(USER_ID, maintain_order=True).agg(pl.col(TRACK_ID).head(n_recent)).iter_rows())


def _task(
    name: str,
    candidates: list[str],
    seeds: dict[str, list[str]],
    history: dict[str, list[str]],
    targets: dict[str, list[str]],
) -> Task:
    place = {track_id: column for column, track_id in enumerate(candidates)}
    users, relevant, allowed = [], [], []
    for user in sorted(seeds):
        open_to = np.ones(len(candidates), dtype=bool)
        open_to[[place[track_id] for track_id in history.get(user, []) if track_id in place]] = False
        liked = np.zeros(len(candidates), dtype=bool)
        liked[[place[track_id] for track_id in targets.get(user, []) if track_id in place]] = True
        if (liked & open_to).any():
            users.append(user)
            relevant.append(liked & open_to)
            allowed.append(open_to)
    shape = (len(users), len(candidates))
    return Task(
        name,
        users,
        [seeds[user] for user in users],
        candidates,
        np.array(relevant, dtype=bool).reshape(shape),
        np.array(allowed, dtype=bool).reshape(shape),
    )


def scores_by_vectors(task: Task, vectors: Mapping[str, np.ndarray], n_agreeing: int) -> np.ndarray:
    """(U, n): how close each candidate is to the listener's seeds that are closest to it; `vectors` are unit length."""
    matrix = np.stack([vectors[track_id] for track_id in task.candidates])
    rows = [np.stack([vectors[track_id] for track_id in seeds]) @ matrix.T for seeds in task.seeds]
    return np.array([agreement(cosines, n_agreeing)[0] for cosines in rows]).reshape(task.relevant.shape)


def scores_at_random(task: Task, seed: int) -> np.ndarray:
    """(U, n) scores that know nothing."""
    return np.random.default_rng(seed).random(task.relevant.shape)
