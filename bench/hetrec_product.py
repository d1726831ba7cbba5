"""What Ponticello serves to real listeners, beside every baseline fitted on the same events.

    python bench/hetrec_product.py PATH/TO/hetrec2011-lastfm-2k --seeds 5 --json figures.json

The splits are those of `hetrec.py`. Each seed's training entries become a library of play counts,
made, trained, embedded and asked through the public API, with MiniLM vectors of the artists' tags
as content; the cold artists are in its catalogue and in no event. Two tasks:

    cold    a listener -> cold artists, by `Library.recommend`
    words   one of the 150 most given tags -> cold artists, by `Library.search`; an artist is as
            relevant as it has listeners of whose training artists 30 % carry the tag

The set is for non-commercial use and no part of this repository. Prints Markdown.

Dimensions: U listeners, I artists, W tags, d content size, f factors.
"""

import argparse
import csv
import json
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import nn

from hetrec import (
    COLD_SHARE,
    FITS,
    Listening,
    Split,
    Task,
    encode_texts,
    read_listening,
    split_listening,
    text_to_factors,
)
from ponticello.errors import ConfigError, PonticelloError
from ponticello.evaluate.baselines import GRIDS, Factors, Interactions, Scorer, choose, make_grid
from ponticello.library import Library
from ponticello.metrics.bootstrap import bootstrap_mean
from ponticello.search.user_profiles import fit_profiles, score_directions

N_WORDS = 150
CARRIER_SHARE = 0.3  # of a listener's training artists
VALIDATION_SHARE = 0.15  # of the warm artists, held out by the library for its own choices
BLENDS = (0.0, 0.25, 0.5, 0.75, 1.0)
SERVED = "as served"  # at the default blend
BOOTSTRAP_ROUNDS = 1000
GRID_PROFILE = make_grid(l2=(0.03, 0.1, 0.3, 1.0), hub_correction=(0.0, 0.5, 1.0))
GRID_FACTORS = make_grid(factors=(32.0, 128.0), l2=(0.1, 1.0, 10.0))
GRID_MLP = make_grid(factors=(32.0, 128.0), n_epochs=(30.0, 100.0, 300.0))
GRID_IALS = make_grid(factors=(32.0, 64.0), l2=(1.0, 10.0, 100.0))
IALS_ALPHA, IALS_ROUNDS = 10.0, 8
UNTIMED_SETTINGS = """
front_end = "features"
features = "vectors.npz"
splits.tracks = "column"
splits.column = "split"
splits.train_time_quantile = 0.95
splits.validation_time_quantile = 0.99
"""


def profile(
    train: Interactions, vectors: np.ndarray, l2: float, hub_correction: float
) -> np.ndarray:
    """Returns (U, I), the profile of each listener's training artists, as `recommend` asks."""
    profiles = fit_profiles(vectors, l2)
    items = profiles.levels(vectors, hub_correction)[:, None] * (vectors - profiles.mean)
    scores = np.zeros(train.shape)
    listeners = np.flatnonzero(np.diff(train.indptr))
    seeds = [train.indices[train.indptr[user] : train.indptr[user + 1]] for user in listeners]
    scores[listeners] = score_directions(profiles, vectors, seeds) @ items.T
    return scores


def linear_to_factors(
    train: Interactions, vectors: np.ndarray, als: dict[str, Any], factors: float, l2: float
) -> np.ndarray:
    """Returns (U, I), ALS of so many factors, each artist's read from its content by ridge."""
    model = FITS["als"](train, 0, **{**als, "factors": int(factors)})
    return text_to_factors(model, vectors, l2)(np.arange(train.shape[0]))


def mlp_to_factors(
    train: Interactions, vectors: np.ndarray, als: dict[str, Any], factors: float, n_epochs: float
) -> np.ndarray:
    """Returns (U, I), as `linear_to_factors` with an MLP of one hidden layer of 192."""
    model = FITS["als"](train, 0, **{**als, "factors": int(factors)})
    torch.manual_seed(0)
    has_factors = model.items.any(axis=1)
    inputs = torch.from_numpy(vectors[has_factors]).float()
    targets = torch.from_numpy(model.items[has_factors]).float()
    scale = targets.std()
    layers = (nn.Linear(vectors.shape[1], 192), nn.BatchNorm1d(192), nn.ReLU(), nn.Dropout(0.2))
    network = nn.Sequential(*layers, nn.Linear(192, int(factors)))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(int(n_epochs)):
        for rows in torch.split(torch.randperm(len(inputs)), 256):
            loss = (network(inputs[rows]) - targets[rows] / scale).square().mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    network.train(False)
    with torch.no_grad():
        items = network(torch.from_numpy(vectors).float()).numpy() * float(scale)
    return Factors(model.users, items)(np.arange(train.shape[0]))


def feature_ials(train: Interactions, vectors: np.ndarray, factors: float, l2: float) -> np.ndarray:
    """Returns (U, I), implicit ALS whose artists shrink toward a linear map of their content.

    Source: Hu, Koren and Volinsky 2008, with the prior mean of Agarwal and Chen 2009 on the items.
    """
    generator = np.random.default_rng(0)
    n_factors = int(factors)
    mapped = generator.standard_normal((vectors.shape[1], n_factors)) * 0.1
    items = vectors @ mapped
    is_warm = np.asarray(train.sum(axis=0)).ravel() > 0
    gram = vectors[is_warm].T @ vectors[is_warm] + np.eye(vectors.shape[1])
    by_item = train.T.tocsr()
    for _ in range(IALS_ROUNDS):
        users = _solve_rows(train, items[:, :], np.zeros((train.shape[0], n_factors)), l2)
        items[is_warm] = _solve_rows(by_item[is_warm], users, (vectors @ mapped)[is_warm], l2)
        mapped = np.linalg.solve(gram, vectors[is_warm].T @ items[is_warm])
    items[~is_warm] = vectors[~is_warm] @ mapped
    scores: np.ndarray = users @ items.T
    return scores


def _solve_rows(
    matrix: Interactions, others: np.ndarray, prior: np.ndarray, l2: float
) -> np.ndarray:
    """Returns (n, f), the least squares of each row's confidence, shrunk toward its prior."""
    gram = others.T @ others + l2 * np.eye(others.shape[1])
    solved = np.empty_like(prior)
    for row in range(matrix.shape[0]):
        liked = others[matrix.indices[matrix.indptr[row] : matrix.indptr[row + 1]]]
        left = gram + IALS_ALPHA * liked.T @ liked
        right = (1 + IALS_ALPHA) * liked.sum(axis=0) + l2 * prior[row]
        solved[row] = np.linalg.solve(left, right)
    return solved


def standardise(scores: np.ndarray) -> np.ndarray:
    """Returns scores (U, I) with mean 0 and deviation 1 for each listener."""
    deviation = np.maximum(scores.std(axis=1, keepdims=True), 1e-12)
    standardised: np.ndarray = (scores - scores.mean(axis=1, keepdims=True)) / deviation
    return standardised


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
    methods: dict[str, tuple[Any, list[dict[str, float]]]] = {
        "profile of the content": (partial(profile, vectors=vectors), GRID_PROFILE),
        "content to ALS": (partial(linear_to_factors, vectors=vectors, als=als), GRID_FACTORS),
        "MLP to ALS": (partial(mlp_to_factors, vectors=vectors, als=als), GRID_MLP),
        "iALS shrunk toward content": (partial(feature_ials, vectors=vectors), GRID_IALS),
    }
    scores = {}
    for name, (method, grid) in methods.items():
        points = {str(point): point for point in grid}
        fits: dict[str, Any] = {}
        for label, point in points.items():
            fits[label] = partial(_fitted, method, rest, point)
        best = points[choose(fits, task.ndcg)]
        scores[name] = method(train, **best)
        print(f"  {name}: {best}", flush=True)
    together = standardise(scores["profile of the content"][:, split.cold])
    together = together + standardise(scores["content to ALS"][:, split.cold])
    summed = np.zeros(train.shape)
    summed[:, split.cold] = together
    scores["profile + content to ALS"] = summed
    return scores


def _fitted(method: Any, train: Interactions, point: dict[str, float]) -> Scorer:
    scores: np.ndarray = method(train, **point)
    return lambda rows: scores[rows]


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
    scores = np.full(split.train.shape, -np.inf)
    for row in np.flatnonzero(np.diff(split.train.indptr)):
        results = product.library.recommend(
            product.user_ids[row], k=int(split.cold.sum()), blend=blend, where=["split=test"]
        )
        for result in results:
            scores[row, column_of[result.track_id]] = result.score
    return scores


class WordTask:
    """The tags as queries for cold artists, and what is relevant to them."""

    def __init__(self, listening: Listening, split: Split) -> None:
        tags = [text.split(", ") if text else [] for text in listening.texts]
        counts = Counter(tag for artist_tags in tags for tag in artist_tags)
        self.words = [word for word, _ in counts.most_common(N_WORDS)]
        carries = np.array([[word in artist_tags for word in self.words] for artist_tags in tags])
        liked = (split.train > 0).astype(np.float64)
        n_liked = np.maximum(np.asarray(liked.sum(axis=1)), 1)
        is_carrier = (liked @ carries) / n_liked >= CARRIER_SHARE  # (U, W)
        listened = (listening.matrix > 0).astype(np.float64).toarray()[:, split.cold]
        self.relevance = is_carrier.T.astype(np.float64) @ listened  # (W, cold)
        self.carries = carries[split.cold].T  # (W, cold)

    def measure(self, product: Product, split: Split, blend: float) -> dict[str, np.ndarray]:
        """Returns each word's NDCG@10, and its precision@10 by tag, nan below five artists."""
        cold_ids = np.array(product.track_ids)[split.cold].tolist()
        column_of = {track_id: column for column, track_id in enumerate(cold_ids)}
        discounts = 1 / np.log2(np.arange(10) + 2)
        ndcg = np.full(len(self.words), np.nan)
        precision = np.full(len(self.words), np.nan)
        for row, word in enumerate(self.words):
            results = product.library.search(word, k=10, blend=blend, where=["split=test"])
            columns = [column_of[result.track_id] for result in results]
            ideal = np.sort(self.relevance[row])[::-1][:10] @ discounts
            if ideal > 0:
                ndcg[row] = self.relevance[row, columns] @ discounts / ideal
            if self.carries[row].sum() >= 5:
                precision[row] = self.carries[row, columns].mean()
        return {"NDCG@10": ndcg, "precision@10": precision}


def run_seed(
    listening: Listening, vectors: np.ndarray, seed: int, als: dict[str, Any], settings: list[str]
) -> dict[str, dict[str, dict[str, np.ndarray]]]:
    """Returns {"cold" or "words": {method: {metric: a value per query}}} of one split."""
    split = split_listening(listening.matrix, seed)
    print(f"seed {seed}", flush=True)
    cold = {}
    for name, scores in baseline_scores(split, vectors, als).items():
        cold[name] = split.cold_test.measure(scores)
    with tempfile.TemporaryDirectory(prefix="ponticello-hetrec-") as folder:
        product = train_product(Path(folder) / "library", listening, split, vectors, seed, settings)
        names = {"semantic alone": 0.0, SERVED: None, "preference alone": 1.0}
        for name, blend in names.items():
            cold[name] = split.cold_test.measure(recommended_scores(product, split, blend))
        task = WordTask(listening, split)
        words = {f"blend {blend:g}": task.measure(product, split, blend) for blend in BLENDS}
    for name, metrics in cold.items():
        ndcg, auc = (np.nanmean(metrics[metric]) for metric in ("NDCG@10", "AUC"))
        print(f"  {name}: {ndcg:.4f} {auc:.4f}", flush=True)
    return {"cold": cold, "words": words}


def table(runs: list[dict[str, Any]], part: str, reference: str, metrics: list[str]) -> str:
    """Returns a Markdown table: means over seeds, and the paired interval of reference - method."""
    lines = [f"| method | {' | '.join(metrics)} |", "|---" * (len(metrics) + 1) + "|"]
    for name in runs[0][part]:
        cells = []
        for metric in metrics:
            values = np.concatenate([run[part][name][metric] for run in runs])
            gaps = np.concatenate([run[part][reference][metric] for run in runs]) - values
            means = [float(np.nanmean(run[part][name][metric])) for run in runs]
            cell = f"{np.mean(means):.3f}"
            if name != reference:
                queries = np.tile(np.arange(len(values) // len(runs)), len(runs))
                is_measured = ~np.isnan(gaps)
                _, low, high = bootstrap_mean(
                    gaps[is_measured], queries[is_measured], BOOTSTRAP_ROUNDS, 0
                )
                cell += f" [{low:+.3f}, {high:+.3f}]"
            cells.append(cell)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


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
    print(table(runs, "cold", SERVED, ["NDCG@10", "AUC"]))
    print("\nWords; in brackets: blend 0.5 minus the blend\n")
    print(table(runs, "words", "blend 0.5", ["NDCG@10", "precision@10"]))
    if given.json:
        figures = []
        for run in runs:
            means = {}
            for part, methods in run.items():
                for method, metrics in methods.items():
                    for metric, values in metrics.items():
                        means[f"{part}, {method}, {metric}"] = float(np.nanmean(values))
            figures.append(means)
        given.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except PonticelloError as error:
        sys.exit(f"error: {error}")
