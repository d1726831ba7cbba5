"""The listeners' and the neighbours' questions of `asking.py` to real listeners: Last.fm (HetRec 2011).

Artists are the items and their tags the text, as in `hetrec.py`; so an artist prior has nothing to say here, and there
are no listening times for recency. Dimensions: U listeners, I artists, d text vector size.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from asking_options import CORRECTIONS, agreement, csls, plain, weighted_direction
from hetrec import Listening, Split, Task, split_listening
from ponticello.config import Config
from ponticello.search.profile import Profiles, fit_profiles

SHARPNESS = (1.0, 2.0, 5.0, 10.0)  # of agreement, tried on validation
HUB_CORRECTIONS = (0.25, 0.5, 0.75, 1.0)
MOST_PLAYED = 20  # as search.recent_seeds
METRICS = ("NDCG@10", "AUC")
AS_NOW = "nothing on"
Weigh = Callable[[np.ndarray, np.ndarray], np.ndarray]  # (s, d) seeds, (s,) log plays -> (s,) weights


def listener_questions(listening: Listening, vectors: np.ndarray, seed: int) -> dict[str, dict[str, Any]]:
    """{option: {question: a number a listener}} of one split: seeds' weights, and hubs among profiles' answers."""
    split = split_listening(listening.matrix, seed)
    profiles = fit_profiles(vectors, Config().search.profile_ridge)
    items = vectors - profiles.mean

    def answers(weigh: Weigh) -> np.ndarray:
        scores = np.zeros(split.train.shape)
        for user, rows, plays in _listeners(split):
            seeds = vectors[rows]
            scores[user] = weighted_direction(profiles, seeds, weigh(seeds, plays)) @ items.T
        return scores

    by_sharpness = {sharpness: answers(partial(_agreeing, profiles, sharpness)) for sharpness in SHARPNESS}
    best = max(by_sharpness, key=lambda sharpness: _mean(split.validation, by_sharpness[sharpness]))
    now = answers(lambda _, plays: np.ones(len(plays)))
    found = {
        AS_NOW: now,
        "seeds by log(1 + plays)": answers(lambda _, plays: plays),
        f"the {MOST_PLAYED} most played seeds": answers(lambda _, plays: _most_played(plays)),
        "seeds by agreement": by_sharpness[best],
        "seeds by plays and agreement": answers(lambda seeds, plays: plays * _agreeing(profiles, best, seeds, plays)),
        "CSLS for profiles": now - _profile_nearness(profiles, items, seed) / 2,
    }
    levels = {power: now * profiles.levels(vectors, power) for power in HUB_CORRECTIONS}
    found |= {f"hub_correction {power:g}": scores for power, scores in levels.items()}
    tasks = {"cold": split.cold_test, "warm": split.warm_test}
    power = max(levels, key=lambda power: _mean(split.validation, levels[power]))
    print(f"HetRec, seed {seed}: validation takes agreement {best:g}, hub_correction {power:g}", flush=True)
    return {option: _measured(tasks, scores) for option, scores in found.items()}


def neighbour_questions(listening: Listening, vectors: np.ndarray, seed: int) -> dict[str, dict[str, Any]]:
    """{option: {question: a number a listener}}: near the one artist they played most, hubs corrected or not."""
    split = split_listening(listening.matrix, seed)
    bank = vectors[~split.cold]
    first = np.zeros((split.train.shape[0], vectors.shape[1]))
    for user, rows, plays in _listeners(split):
        first[user] = vectors[rows[np.argmax(plays)]]
    tasks = {"cold": split.cold_test, "warm": split.warm_test}
    found = {}
    for option, scores in {AS_NOW: plain, **CORRECTIONS}.items():
        found[option] = _measured(tasks, scores(first, vectors, bank))
    return found


def _listeners(split: Split) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Each listener with training artists: row, those artists, log(1 + plays) of each."""
    starts = split.train.indptr
    for user in np.flatnonzero(np.diff(starts)):
        own = slice(starts[user], starts[user + 1])
        yield int(user), split.train.indices[own], split.train.data[own]


def _agreeing(profiles: Profiles, sharpness: float, seeds: np.ndarray, plays: np.ndarray) -> np.ndarray:
    del plays
    return agreement(profiles, seeds, sharpness)


def _most_played(plays: np.ndarray) -> np.ndarray:
    weights = np.zeros(len(plays))
    weights[np.argsort(-plays, kind="stable")[:MOST_PLAYED]] = 1
    return weights


def _profile_nearness(profiles: Profiles, items: np.ndarray, seed: int) -> np.ndarray:
    """(I,) how high each item stands among the profiles of single items, 1,000 of them at most."""
    chosen = np.random.default_rng(seed).permutation(len(items))[:1000]
    bank = np.stack([profiles.direction(items[row : row + 1] + profiles.mean) for row in chosen])
    corrected = csls(np.zeros((1, items.shape[1])), items, bank)[0]
    nearness: np.ndarray = -2 * corrected
    return nearness


def _mean(task: Task, scores: np.ndarray) -> float:
    return float(np.nanmean(task.measure(scores)["NDCG@10"]))


def _measured(tasks: dict[str, Task], scores: np.ndarray) -> dict[str, np.ndarray]:
    return {
        f"{name} {metric}": values
        for name, task in tasks.items()
        for metric, values in task.measure(scores).items()
        if metric in METRICS
    }
