"""What Ponticello serves to real listeners, beside every baseline fitted on the same events.

    python bench/hetrec_product.py PATH/TO/hetrec2011-lastfm-2k --seeds 5 --json figures.json

The splits are those of `hetrec.py`. Each seed's training entries become a library of play counts,
made, trained, embedded and asked through the public API, with MiniLM vectors of the artists' tags
as content; the cold artists are in its catalogue and in no event. Two tasks:

    cold    a listener -> cold artists, by `Library.recommend`
    words   one of the 150 most given tags -> cold artists, by `Library.search`; an artist is as
            relevant as it has listeners of whose training artists 30 % carry the tag

Baselines and the words task are those of `ponticello evaluate`. Intervals draw listeners, or words,
each with all of its splits, and the cold artists.

The set is for non-commercial use and no part of this repository. Prints Markdown.

Dimensions: U listeners, I artists, W tags, d content size, f factors.
"""

import argparse
import csv
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from hetrec import (
    COLD_SHARE,
    FITS,
    Listening,
    Split,
    Task,
    encode_texts,
    read_listening,
    split_listening,
)
from ponticello.errors import ConfigError, PonticelloError
from ponticello.evaluate.baselines import GRIDS, Factors, Interactions, Scorer, choose
from ponticello.evaluate.content_baselines import (
    CONTENT_GRIDS,
    PROFILE_AND_ALS,
    SUMMED,
    TrainingLikes,
    add_standardised,
    fit_content_model,
)
from ponticello.evaluate.report.tables import display_name
from ponticello.evaluate.results import pick
from ponticello.evaluate.tasks import Task as RankingTask
from ponticello.evaluate.tasks import rank_task
from ponticello.evaluate.words import WordTask, make_word_task
from ponticello.library import Library
from ponticello.metrics.bootstrap import bootstrap_means, bootstrap_ratios

VALIDATION_SHARE = 0.15  # of the warm artists, held out by the library for its own choices
BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
SERVED = "as served"  # at the default blend
BOOTSTRAP_ROUNDS = 1000
LAST = -1e9  # the score of an artist that is not recommended
UNTIMED_SETTINGS = """
front_end = "features"
features = "vectors.npz"
splits.tracks = "column"
splits.column = "split"
splits.train_time_quantile = 0.95
splits.validation_time_quantile = 0.99
"""


def baseline_scores(
    split: Split, vectors: np.ndarray, als: dict[str, Any]
) -> dict[str, np.ndarray]:
    """Returns (U, I) scores by baseline, each tuned on pretended cold artists of the training."""
    train = split.train
    warm = np.random.default_rng(0).permutation(np.flatnonzero(~split.cold))
    pretended = np.zeros(len(split.cold), dtype=bool)
    pretended[warm[: round(COLD_SHARE * len(warm))]] = True
    rest = csr_matrix(train.multiply(~pretended))
    rest.eliminate_zeros()
    asked = np.diff(rest.indptr)[:, None] > 0
    task = Task((train.toarray() > 0) & pretended & asked, np.broadcast_to(pretended, train.shape))
    tuning = _training_likes(rest, ~split.cold & ~pretended, vectors, als)
    likes = _training_likes(train, ~split.cold, vectors, als)
    factors = {}
    for name, grid in CONTENT_GRIDS.items():
        points = {str(point): point for point in grid}
        fits: dict[str, Any] = {}
        for label, point in points.items():
            fits[label] = partial(_fitted, name, tuning, point)
        best = points[choose(fits, task.ndcg)]
        factors[name] = fit_content_model(name, likes, best).factors(vectors[split.cold])
        print(f"  {display_name(name)}: {best}", flush=True)
    factors[PROFILE_AND_ALS] = add_standardised([factors[name] for name in SUMMED])
    listeners = np.arange(train.shape[0])
    by_name = {}
    for name, model in factors.items():
        scores = np.zeros(train.shape)
        scores[:, split.cold] = model(listeners)
        by_name[display_name(name)] = scores
    return by_name


def _training_likes(
    train: Interactions, is_known: np.ndarray, vectors: np.ndarray, als: dict[str, Any]
) -> TrainingLikes:
    """Returns the entries of the known artists; als: the settings of ALS but for the factors."""
    matrix = train[:, is_known]

    @cache
    def fit(factors: int) -> Factors:
        model: Factors = FITS["als"](matrix, 0, **{**als, "factors": factors})
        return model

    return TrainingLikes(matrix, vectors[is_known], vectors, fit, seed=0)


def _fitted(name: str, likes: TrainingLikes, point: dict[str, Any]) -> Scorer:
    return fit_content_model(name, likes, point).factors(likes.catalog)


@dataclass(frozen=True)
class Product:
    """A trained library, with the ids of the listeners (U) and the artists (I)."""

    library: Library
    user_ids: list[str]
    track_ids: list[str]


def train_product(
    root: Path,
    listening: Listening,
    split: Split,
    vectors: np.ndarray,
    seed: int,
    settings: list[str],
) -> Product:
    """Returns a library of the split's training entries, with both stages trained and embedded."""
    track_ids = [f"artist-{number}" for number in range(len(listening.texts))]
    user_ids = [f"user-{number}" for number in range(listening.matrix.shape[0])]
    Library.create(root, "small")
    seeds = [f"{section}.seed = {seed}" for section in ("splits", "semantic", "preference")]
    with (root / "ponticello.toml").open("a", encoding="utf-8") as file:
        file.write(UNTIMED_SETTINGS + "\n".join(seeds + settings) + "\n")
    np.savez(root / "vectors.npz", ids=np.array(track_ids), vectors=vectors.astype(np.float32))
    warm = np.random.default_rng(seed).permutation(np.flatnonzero(~split.cold))
    roles = np.where(split.cold, "test", "train").astype("<U10")
    roles[warm[: round(VALIDATION_SHARE * len(warm))]] = "validation"
    with (root / "tracks.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["track_id", "title", "artist", "tags", "split"])
        for track_id, text, role in zip(track_ids, listening.texts, roles, strict=True):
            writer.writerow([track_id, track_id, track_id, text.replace(", ", ";"), role])
    with (root / "plays.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["user_id", "track_id", "plays"])
        entries = split.train.tocoo()
        for user, artist, value in zip(entries.row, entries.col, entries.data, strict=True):
            writer.writerow([user_ids[user], track_ids[artist], round(np.expm1(value))])
    library = Library.open(root)
    library.import_tracks(root / "tracks.csv")
    library.import_history(root / "plays.csv", pseudonyms=False)
    library.prepare()
    library.train_semantic()
    run = library.train_preference()
    assert run.selection is not None
    print(f"  {run.selection['sentence']}", flush=True)
    library.embed()
    return Product(library, user_ids, track_ids)


def recommended_scores(product: Product, split: Split, blend: float | None) -> np.ndarray:
    """Returns (U, I), the scores of all cold artists in each listener's recommendations."""
    column_of = {track_id: column for column, track_id in enumerate(product.track_ids)}
    scores = np.full(split.train.shape, LAST)
    for row in np.flatnonzero(np.diff(split.train.indptr)):
        results = product.library.recommend(
            product.user_ids[row], k=int(split.cold.sum()), blend=blend, where=["split=test"]
        )
        for result in results:
            scores[row, column_of[result.track_id]] = result.score
    return scores


def word_task(listening: Listening, split: Split) -> WordTask:
    """Returns the tags as queries for cold artists, and what is relevant to them."""
    tags = [set(text.split(", ")) if text else set[str]() for text in listening.texts]
    warm = np.flatnonzero(~split.cold)
    cold = np.flatnonzero(split.cold)
    likes = split.train[:, warm]
    return make_word_task(pick(tags, warm), pick(tags, cold), likes, listening.matrix[:, cold])


def word_scores(product: Product, split: Split, words: list[str], blend: float) -> np.ndarray:
    """Returns (W, cold), 10 to 1 for the artists that `Library.search` finds, and 0 for others."""
    cold_ids = np.array(product.track_ids)[split.cold].tolist()
    column_of = {track_id: column for column, track_id in enumerate(cold_ids)}
    scores = np.zeros((len(words), len(cold_ids)))
    for row, word in enumerate(words):
        results = product.library.search(word, k=10, blend=blend, where=["split=test"])
        for result in results:
            scores[row, column_of[result.track_id]] = 11 - result.rank
    return scores


@dataclass(frozen=True)
class Results:
    """What one split measured of one task. queries: listeners or words.

    metrics: (q,) by method and metric; sums: (2, I) by the same, as in `CandidateGroups`, with each
    artist as a group; empty for words.
    """

    queries: list[str]
    metrics: dict[str, dict[str, np.ndarray]]
    sums: dict[str, dict[str, np.ndarray]]


def rank_cold(split: Split, scores_by_method: dict[str, np.ndarray]) -> Results:
    """Returns the ranking of the cold artists for all listeners who are asked about, by (U, I)."""
    cold = np.flatnonzero(split.cold)
    relevant = split.cold_test.relevant[:, cold]
    asked = np.flatnonzero(relevant.any(axis=1))
    queries = list(map(str, asked))
    hits = [np.flatnonzero(relevant[user]) for user in asked]
    nothing = [np.zeros(0, dtype=np.int64) for _ in asked]
    no_seeds: list[list[str]] = [[] for _ in asked]
    task = RankingTask("cold", queries, None, list(map(str, cold)), hits, nothing, no_seeds)
    metrics = {}
    sums: dict[str, dict[str, np.ndarray]] = {}
    for name, scores in scores_by_method.items():
        asked_scores = scores[np.ix_(asked, cold)]
        result = rank_task(task.with_groups({}), asked_scores.__getitem__, 10)
        metrics[name] = result.metrics
        artists = list(map(int, result.group_names))
        sums[name] = {}
        for metric, by_group in result.measured.sums.items():
            sums[name][metric] = np.zeros((2, len(split.cold)))
            sums[name][metric][:, artists] = by_group
        ndcg, auc = (result.metrics[metric].mean() for metric in ("NDCG@10", "AUC"))
        print(f"  {name}: {ndcg:.4f} {auc:.4f}", flush=True)
    return Results(queries, metrics, sums)


def run_seed(
    listening: Listening, vectors: np.ndarray, seed: int, als: dict[str, Any], settings: list[str]
) -> dict[str, Results]:
    """Returns {"cold" or "words": results} of one split."""
    split = split_listening(listening.matrix, seed)
    print(f"seed {seed}", flush=True)
    scores = baseline_scores(split, vectors, als)
    with tempfile.TemporaryDirectory(prefix="ponticello-hetrec-") as folder:
        product = train_product(Path(folder) / "library", listening, split, vectors, seed, settings)
        names = {"semantic alone": 0.0, SERVED: None, "preference alone": 1.0}
        for name, blend in names.items():
            scores[name] = recommended_scores(product, split, blend)
        task = word_task(listening, split)
        words = {}
        for blend in BLENDS:
            by_word = word_scores(product, split, task.words, blend)
            words[f"blend {blend:g}"] = task.measure(by_word, 10)
    return {"cold": rank_cold(split, scores), "words": Results(task.words, words, {})}


def table(runs: list[Results], reference: str, metrics: list[str]) -> str:
    """Returns a Markdown table: means over seeds, and the paired interval of reference - method.

    The intervals draw queries, each with its values under all seeds, and cold artists.
    """
    queries = np.unique(np.concatenate([run.queries for run in runs]), return_inverse=True)[1]
    lines = [f"| method | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for name in runs[0].metrics:
        cells = []
        for metric in metrics:
            means = [float(np.nanmean(run.metrics[name][metric])) for run in runs]
            cell = f"{np.mean(means):.3f}"
            if name != reference:
                gaps = [run.metrics[reference][metric] - run.metrics[name][metric] for run in runs]
                column = np.concatenate(gaps)[:, None]
                deviations = gap_deviations(runs, reference, name, metric)
                interval = bootstrap_means(column, queries, BOOTSTRAP_ROUNDS, 0, deviations)[0]
                cell += f" [{interval[1]:+.3f}, {interval[2]:+.3f}]"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def gap_deviations(
    runs: list[Results], reference: str, name: str, metric: str
) -> np.ndarray | None:
    """Returns (1, rounds), what drawing artists adds to reference - method; None for words."""
    if not runs[0].sums:
        return None
    both = []
    for method in (reference, name):
        both.append(np.sum([run.sums[method][metric] for run in runs], axis=0))
    sums = np.stack(both)  # (2 methods, 2, I)
    of_reference, of_method = bootstrap_ratios(sums[:, 0], sums[:, 1], BOOTSTRAP_ROUNDS, 0)
    return np.asarray(of_reference - of_method)[None]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark; prints Markdown, and writes the means of every seed as JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("folder", type=Path, help="hetrec2011-lastfm-2k, unpacked")
    parser.add_argument("--seeds", type=int, default=5, help="how many splits")
    parser.add_argument("--set", action="append", default=[], help="section.key = value")
    parser.add_argument("--json", type=Path, help="file for every figure")
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1; found {given.seeds}")
    listening = read_listening(given.folder)
    vectors = encode_texts(listening.texts)
    first = split_listening(listening.matrix, 0)
    points = {str(point): point for point in GRIDS["als"]}
    fits = {label: partial(FITS["als"], first.train, 0, **point) for label, point in points.items()}
    als = points[choose(fits, first.validation.ndcg)]
    runs = []
    for seed in range(given.seeds):
        runs.append(run_seed(listening, vectors, seed, als, given.set))
    print(f"\nCold artists, mean of {given.seeds} splits; in brackets: {SERVED} minus the method\n")
    print(table([run["cold"] for run in runs], SERVED, ["NDCG@10", "AUC"]))
    print("\nWords; in brackets: blend 0.5 minus the blend\n")
    print(table([run["words"] for run in runs], "blend 0.5", ["NDCG@10", "precision@10 by tag"]))
    if given.json:
        figures = []
        for run in runs:
            means = {}
            for part, results in run.items():
                for method, metrics in results.metrics.items():
                    for metric, values in metrics.items():
                        means[f"{part}, {method}, {metric}"] = float(np.nanmean(values))
            figures.append(means)
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except PonticelloError as error:
        sys.exit(f"error: {error}")
