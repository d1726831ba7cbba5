"""The questions of `asking.py` to a trained freemusic world: from words, from a track, from a listener.

Every answer is a number a query, by option; hubness is one number a world. Test tracks are ranked, and nothing is tuned
on them. Dimensions: q queries, n tracks, d vector size, s seeds.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import polars as pl

from asking_options import CORRECTIONS, agreement, nearness, plain, recency, weighted_direction
from asking_worlds import STAGES, Trained
from ponticello.data.columns import TRACK_ID, USER_ID
from ponticello.data.interactions import is_positive
from ponticello.data.splits import before_test, one_window_earlier
from ponticello.evaluate.lists import graded_ndcg_at_k, hubness, top_k
from ponticello.evaluate.ranking import Scorer, Task, rank_task
from ponticello.evaluate.tasks import next_tracks
from ponticello.search.profile import Profiles, fit_profiles

AS_NOW = "nothing on"
LABELS = ("genres", "machine_tags")
SHARPNESS = (1.0, 2.0, 5.0, 10.0)  # of agreement, tried on validation
HALF_LIVES = (5.0, 10.0, 20.0)  # seeds, of recency, tried on validation
HUB_CORRECTIONS = (0.25, 0.5, 0.75, 1.0)
METRICS = ("NDCG@10", "AUC")
Measured = dict[str, dict[str, np.ndarray]]  # {option: {question: a number a query}}
Weigh = Callable[[list[str], np.ndarray, Mapping[str, int]], np.ndarray]  # seeds, their (s, d) vectors, plays -> (s,)


def text_questions(one: Trained) -> Measured:
    """A test track's text to the test tracks, under either stage; the bank is the training tracks' texts."""
    found: Measured = {}
    test, train = one.rows_of("test"), one.rows_of("train")
    for option, score in {AS_NOW: plain, **CORRECTIONS}.items():
        found[option] = {}
        for stage in STAGES:
            scores = score(one.texts[stage][test], one.audio[stage][test], one.texts[stage][train])
            own = np.diag(scores)[:, None]
            ranks = 1 + (scores > own).sum(axis=1) + ((scores == own).sum(axis=1) - 1) / 2  # a tie counts half
            found[option] |= {
                f"{stage} R@10": (ranks <= 10).astype(np.float64),
                f"{stage} MRR": 1 / ranks,
                f"{stage} hubness": np.array([hubness(top_k(scores, 10), len(test))]),
            }
    return found


def neighbour_questions(one: Trained) -> Measured:
    """A test track to test tracks by other artists: NDCG@10, gains the overlap of labels; the bank is training tracks.

    As `music_to_music_scores`, for any scores.
    """
    test, train = one.rows_of("test"), one.rows_of("train")
    artists = np.array(one.clusters)[test]
    found: Measured = {}
    for option, score in {AS_NOW: plain, **CORRECTIONS}.items():
        found[option] = {}
        for stage in STAGES:
            vectors = one.audio[stage][test]
            scores = score(vectors, vectors, one.audio[stage][train])
            for column in LABELS:
                labels = one.tracks[column].to_list()
                sets = [set(labels[row] or ()) for row in test]
                found[option][f"{stage}, same {column}"] = _label_ndcg(scores, sets, artists)
            np.fill_diagonal(scores, -np.inf)
            found[option][f"{stage} hubness"] = np.array([hubness(top_k(scores, 10), len(test))])
    return found


def _label_ndcg(scores: np.ndarray, labels: Sequence[set[str]], artists: np.ndarray) -> np.ndarray:
    labelled = np.array([bool(own) for own in labels])
    found = np.full(len(scores), np.nan)
    for query, own in enumerate(labels):
        others = np.flatnonzero(labelled & (artists != artists[query]))
        gains = np.array([len(own & labels[row]) / len(own | labels[row]) for row in others.tolist()])
        found[query] = graded_ndcg_at_k(scores[query, others], gains, 10)
    return found


def listener_questions(one: Trained) -> Measured:
    """Listeners' new tracks (cold) and the known ones (warm), by seeds' weights and with hubs corrected, stage two.

    Vectors are the fused ones, as stage two serves here. What is tuned is tuned on validation tracks and its window.
    """
    vectors, place = one.fused[STAGES[1]], {track_id: row for row, track_id in enumerate(one.ids)}
    profiles = fit_profiles(vectors, one.folder.config.search.profile_ridge)
    validation, _ = validation_task(one)
    plays = _plays(one)

    def scorer(task: Task, weigh: Weigh) -> Scorer:
        users = plays if task is not validation else _plays(one, earlier=True)
        asking = np.stack(
            [
                weighted_direction(profiles, own, weigh(seeds, own, users[user]))
                for user, seeds in zip(task.queries, task.seeds, strict=True)
                for own in [vectors[[place[seed] for seed in seeds]]]
            ]
        )
        items = vectors[[place[track_id] for track_id in task.candidates]] - profiles.mean
        return lambda rows: asking[rows] @ items.T

    agreeing = _best(validation, scorer, {value: _agreeing(profiles, value) for value in SHARPNESS})
    recent = _best(validation, scorer, {value: _recent(value) for value in HALF_LIVES})
    weighings: dict[str, Weigh] = {
        AS_NOW: _alike,
        "seeds by log(1 + plays)": _played,
        "seeds by agreement": agreeing,
        "seeds by recency": recent,
        "seeds by plays and agreement": lambda *given: _played(*given) * agreeing(*given),
    }
    tasks = next_tracks(one.log, one.splits, set(one.ids), one.folder.config)
    found = {option: _measured(tasks, [scorer(task, weigh) for task in tasks]) for option, weigh in weighings.items()}
    bank = np.stack([profiles.direction(vectors[row : row + 1]) for row in one.rows_of("train")])
    off, alone = nearness(vectors - profiles.mean, bank) / 2, np.ones(len(vectors))
    changes = {"CSLS for profiles": (alone, off)}
    changes |= {f"hub_correction {power:g}": (profiles.levels(vectors, power), 0 * off) for power in HUB_CORRECTIONS}
    for option, (levels, less) in changes.items():
        changed = []
        for task in tasks:
            columns = [place[track_id] for track_id in task.candidates]
            changed.append(_changed(scorer(task, weighings[AS_NOW]), levels[columns], less[columns]))
        found[option] = _measured(tasks, changed)
    return found


def _changed(scorer: Scorer, factors: np.ndarray, less: np.ndarray) -> Scorer:
    return lambda rows: factors * scorer(rows) - less


def validation_task(one: Trained) -> tuple[Task, pl.DataFrame]:
    """Validation tracks nobody has played, asked for by listeners of the window before test; and the log until then."""
    past, earlier = before_test(one.splits, one.log), one_window_earlier(one.splits)
    _, task = next_tracks(past, earlier, set(one.ids), one.folder.config, cold_role="validation")
    return task, before_test(earlier, past)


def _plays(one: Trained, *, earlier: bool = False) -> dict[str, Counter[str]]:
    """{listener: {track: events that speak for it}}, before the test window or the one before that."""
    log = validation_task(one)[1] if earlier else before_test(one.splits, one.log)
    liked = log.filter(is_positive(one.folder.config.pairs.min_played_s))
    found: dict[str, Counter[str]] = {}
    for user, track_id in liked.select(USER_ID, TRACK_ID).iter_rows():
        found.setdefault(user, Counter())[track_id] += 1
    return found


def _alike(seeds: list[str], own: np.ndarray, plays: Mapping[str, int]) -> np.ndarray:
    del own, plays
    return np.ones(len(seeds))


def _played(seeds: list[str], own: np.ndarray, plays: Mapping[str, int]) -> np.ndarray:
    del own
    weights: np.ndarray = np.log1p([plays[seed] for seed in seeds])
    return weights


def _agreeing(profiles: Profiles, sharpness: float) -> Weigh:
    return lambda _seeds, own, _plays: agreement(profiles, own, sharpness)


def _recent(half_life: float) -> Weigh:
    return lambda seeds, _own, _plays: recency(len(seeds), half_life)


def _best(task: Task, scorer: Callable[[Task, Weigh], Scorer], tried: Mapping[float, Weigh]) -> Weigh:
    """The one with the highest NDCG@10 on `task`."""
    worth = {value: mean_ndcg(rank_task(task, scorer(task, weigh), 10).metrics) for value, weigh in tried.items()}
    return tried[max(worth, key=lambda value: worth[value])]


def mean_ndcg(metrics: Mapping[str, np.ndarray]) -> float:
    return float(np.nanmean(metrics["NDCG@10"]))


def _measured(tasks: Sequence[Task], scorers: Sequence[Scorer]) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for task, scorer in zip(tasks, scorers, strict=True):
        metrics = rank_task(task, scorer, 10).metrics
        found |= {f"{task.name.removeprefix('next tracks, ')} {name}": metrics[name] for name in METRICS}
    return found
