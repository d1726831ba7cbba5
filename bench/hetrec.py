"""What recommenders find for real listeners: Last.fm (HetRec 2011), artists as items, the artists'
tags as their text.

    python bench/hetrec.py PATH/TO/hetrec2011-lastfm-2k --seeds 5 --json figures.json

Prints Markdown: the figures of `docs/benchmarks.md`. Nothing of our model is measured: the set has
no audio. It is for non-commercial use and no part of this repository; find it at
https://grouplens.org/datasets/hetrec-2011/

Dimensions: U listeners, I artists, d text vector size.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from scipy.sparse import csr_matrix

from ponticello.config import Config
from ponticello.errors import ConfigError, DataError, PonticelloError
from ponticello.evaluate.baselines import (
    CANNOT,
    GRIDS,
    Factors,
    Interactions,
    Scorer,
    choose,
    fit_als,
    fit_ease,
    fit_item_knn,
)
from ponticello.evaluate.content_baselines import content_to_factors
from ponticello.evaluate.report.tables import display_name
from ponticello.metrics.bootstrap import bootstrap_mean
from ponticello.metrics.ranking import all_metrics, hit_groups, metric_columns
from ponticello.model.text_encoder import load_text_encoder, text_vector, tokenize
from ponticello.search.user_profiles import fit_profiles, score_directions

MIN_LISTENERS = 5  # an artist with fewer is left out
N_TAGS = 10  # of an artist's text, the most given first
N_AGREEING = 3  # seeds whose mean closeness is a candidate's score
COLD_SHARE, TEST_SHARE, VALIDATION_SHARE = (
    0.15,
    0.2,
    0.1,
)  # of all artists; of the entries with the other artists
K = 10
BATCH_TEXTS = 64
BOOTSTRAP_ROUNDS = 1000
CONTENT_L2 = (0.01, 0.1, 1.0, 10.0, 100.0)  # of the regression from text to factors
METRICS = (f"NDCG@{K}", f"Recall@{K}", "MRR", "AUC")

FITS: dict[str, Callable[..., Any]] = {  # (matrix, seed, **one point of GRIDS) -> Scorer
    "item_knn": lambda matrix, _seed, **point: fit_item_knn(matrix, **point),
    "ease": lambda matrix, _seed, **point: fit_ease(matrix, **point),
    "als": lambda matrix, seed, **point: fit_als(matrix, seed=seed, **point),
}


@dataclass(frozen=True)
class Listening:
    """matrix: (U, I) float64, log(1 + listening count); texts: each artist's tags, "" where it has
    none.
    """

    matrix: Interactions
    texts: list[str]


@dataclass(frozen=True)
class Task:
    """What is ranked for whom. relevant, allowed: (U, I) bool; False in `allowed` = not in that
    listener's ranking.
    """

    relevant: np.ndarray
    allowed: np.ndarray

    def measure(self, scores: np.ndarray) -> dict[str, np.ndarray]:
        """Each listener's metrics, (U,); nan for a listener who is not asked about."""
        rows = []
        for user, allowed in enumerate(self.allowed):
            groups = hit_groups(scores[user][allowed], self.relevant[user][allowed])
            rows.append(all_metrics(groups, K))
        return metric_columns(rows)

    def ndcg(self, model: Scorer) -> float:
        """The mean NDCG@K of `model`: what settings are chosen by."""
        return float(np.nanmean(self.measure(model(np.arange(len(self.relevant))))[f"NDCG@{K}"]))


@dataclass(frozen=True)
class Split:
    """What models learn from, (U, I) as `ListeningHistory.matrix`, which artists are cold, (I,)
    bool, and what is asked.
    """

    train: Interactions
    cold: np.ndarray
    validation: Task
    warm_test: Task
    cold_test: Task


def read_listening(folder: Path) -> Listening:
    """The set in `folder`, artists of at least MIN_LISTENERS listeners; DataError if a file is
    missing or none is left.

    Tags given equally often follow in the order of their ids.
    """
    plays = _table(folder / "user_artists.dat", ["user", "artist", "weight"], "utf-8")
    given = _table(
        folder / "user_taggedartists.dat",
        ["user", "artist", "tag", "day", "month", "year"],
        "utf-8",
    )
    names = _table(folder / "tags.dat", ["tag", "name"], "iso-8859-1")
    plays = plays.filter(pl.col("user").n_unique().over("artist") >= MIN_LISTENERS)
    if plays.is_empty():
        raise DataError(
            f"{folder}: no artist has {MIN_LISTENERS} listeners or more; give the whole set"
        )
    users, artists = plays["user"].unique().sort(), plays["artist"].unique().sort()
    places = (
        users.search_sorted(plays["user"]).to_numpy(),
        artists.search_sorted(plays["artist"]).to_numpy(),
    )
    values = np.log1p(plays["weight"].to_numpy())
    counted = (
        given.group_by("artist", "tag")
        .len()
        .sort(["artist", "len", "tag"], descending=[False, True, False])
    )
    named = counted.join(names, on="tag", how="inner", maintain_order="left")
    joined = named.group_by("artist", maintain_order=True).agg(
        pl.col("name").head(N_TAGS).str.join(", ")
    )
    texts = dict(joined.iter_rows())
    return Listening(
        csr_matrix((values, places), shape=(len(users), len(artists))),
        [texts.get(artist, "") for artist in artists],
    )


def _table(path: Path, columns: list[str], encoding: str) -> pl.DataFrame:
    if not path.is_file():
        raise DataError(f"{path} is missing; give the folder of hetrec2011-lastfm-2k")
    text = path.read_text(encoding=encoding).encode()
    return pl.read_csv(
        text, separator="\t", quote_char=None, has_header=False, skip_rows=1, new_columns=columns
    )


def split_listening(matrix: Interactions, seed: int) -> Split:
    """Cold artists, then test and validation entries of the others, all drawn by numpy's generator
    from `seed`.

    Listeners are asked about only where they have both a training artist and something held out.
    The warm test ranks what is in neither training nor validation; validation ranks all that is not
    in training, the test entries too.
    """
    generator = np.random.default_rng(seed)
    n_users, n_artists = matrix.shape
    cold = np.zeros(n_artists, dtype=bool)
    cold[generator.permutation(n_artists)[: round(COLD_SHARE * n_artists)]] = True
    rows, columns = matrix.nonzero()
    warm_entries = generator.permutation(np.flatnonzero(~cold[columns]))
    ends = np.cumsum([round(share * len(warm_entries)) for share in (TEST_SHARE, VALIDATION_SHARE)])
    parts = [*np.split(warm_entries, ends), np.flatnonzero(cold[columns])]
    test, validation, train, cold_entries = (np.zeros(matrix.shape, dtype=bool) for _ in parts)
    for held, entries in zip((test, validation, train, cold_entries), parts, strict=True):
        held[rows[entries], columns[entries]] = True
    asked = train.any(axis=1, keepdims=True)  # (U, 1)
    all_cold = np.broadcast_to(cold, (n_users, n_artists))
    return Split(
        csr_matrix(matrix.toarray() * train),
        cold,
        Task(validation & asked, ~all_cold & ~train),
        Task(test & asked, ~all_cold & ~train & ~validation),
        Task(cold_entries & asked, all_cold),
    )


@torch.no_grad()
def encode_texts(texts: list[str]) -> np.ndarray:
    """(I, d) float64 unit vectors, the mean over MiniLM's tokens; each distinct text encoded once,
    "" as zeros.
    """
    encoder, tokenizer = load_text_encoder("minilm")
    encoder.eval()
    distinct = sorted(
        {text for text in texts if text}, key=lambda text: (len(text), text)
    )  # like sizes together
    vectors = {"": np.zeros(encoder.config.hidden_size)}
    for start in range(0, len(distinct), BATCH_TEXTS):
        batch = distinct[start : start + BATCH_TEXTS]
        tokens = tokenize(batch, tokenizer, Config().text.max_tokens)
        states = text_vector(encoder(**tokens), tokens["attention_mask"], "mean").double().numpy()
        vectors |= dict(
            zip(batch, states / np.linalg.norm(states, axis=1, keepdims=True), strict=True)
        )
    return np.stack([vectors[text] for text in texts])


def text_knn(train: Interactions, vectors: np.ndarray) -> np.ndarray:
    """(U, I): the mean cosine to the N_AGREEING closest of each listener's training artists; zeros
    where there is none.

    It does not read how often a listener played an artist.
    """
    scores = np.zeros(train.shape)
    for user in np.flatnonzero(np.diff(train.indptr)):
        seeds = train.indices[train.indptr[user] : train.indptr[user + 1]]
        cosines = np.sort(vectors[seeds] @ vectors.T, axis=0)
        scores[user] = cosines[-N_AGREEING:].mean(axis=0)
    return scores


def text_profile(train: Interactions, vectors: np.ndarray) -> np.ndarray:
    """(U, I): the profile of each listener's training artists, as `recommend` asks; zeros where
    there is none.
    """
    search = Config().search
    profiles = fit_profiles(vectors, search.profile_l2)
    items = profiles.levels(vectors, search.hub_correction)[:, None] * (vectors - profiles.mean)
    scores, listening = np.zeros(train.shape), np.flatnonzero(np.diff(train.indptr))
    seeds = [train.indices[train.indptr[user] : train.indptr[user + 1]] for user in listening]
    scores[listening] = score_directions(profiles, vectors, seeds) @ items.T
    return scores


def text_to_factors(als: Factors, vectors: np.ndarray, l2: float) -> Factors:
    """Returns `als` with every artist's factors predicted from its text."""
    return Factors(als.users, content_to_factors(als.items, vectors, vectors, l2))


def tune(split: Split, vectors: np.ndarray) -> dict[str, dict[str, Any]]:
    """The settings of each method with the best validation NDCG@K; for the cold regression, on
    pretended cold artists.

    Those are COLD_SHARE of the warm artists, taken out of the ALS training as well as out of the
    regression; what is relevant there are their training entries. Randomness: seed 0.
    """
    chosen: dict[str, dict[str, Any]] = {}
    for name, fit in FITS.items():
        points = {str(point): point for point in GRIDS[name]}
        fits = {label: partial(fit, split.train, 0, **point) for label, point in points.items()}
        chosen[name] = points[choose(fits, split.validation.ndcg)]
    train = split.train.toarray()
    warm = np.random.default_rng(0).permutation(np.flatnonzero(~split.cold))
    pretended = np.zeros(len(split.cold), dtype=bool)
    pretended[warm[: round(COLD_SHARE * len(warm))]] = True
    rest = csr_matrix(train * ~pretended)
    asked = np.diff(rest.indptr)[:, None] > 0
    task = Task((train > 0) & pretended & asked, np.broadcast_to(pretended, train.shape))
    als = FITS["als"](rest, 0, **chosen["als"])
    maps = {str(l2): partial(text_to_factors, als, vectors, l2) for l2 in CONTENT_L2}
    chosen["text→ALS"] = {"l2": float(choose(maps, task.ndcg))}
    return chosen


def run_seed(
    split: Split, vectors: np.ndarray, settings: dict[str, dict[str, Any]], seed: int
) -> dict[str, Any]:
    """{"warm" or "cold": {method: {metric: (U,)}}} of one split."""
    everyone = np.arange(split.train.shape[0])
    chance = np.random.default_rng(seed).random(split.train.shape)
    popularity = np.broadcast_to(
        np.diff(split.train.tocsc().indptr).astype(np.float64), split.train.shape
    )
    texts = {
        "text-kNN": text_knn(split.train, vectors),
        "text profile": text_profile(split.train, vectors),
    }
    models = {name: fit(split.train, seed, **settings[name]) for name, fit in FITS.items()}
    mapped = text_to_factors(models["als"], vectors, settings["text→ALS"]["l2"])
    warm = {"random": chance, "popularity": popularity}
    warm |= {name: model(everyone) for name, model in models.items()} | texts
    cold = {
        "random": chance,
        "popularity (all tied)": popularity,
        **texts,
        "text→ALS": mapped(everyone),
    }
    return {
        "warm": {name: split.warm_test.measure(scores) for name, scores in warm.items()},
        "cold": {name: split.cold_test.measure(scores) for name, scores in cold.items()},
    }


def summarise(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """{part: {method: {metric: its mean a seed, their mean and deviation, and seed 0's 95 %
    interval over users}}}.
    """

    def of(part: str, name: str, metric: str) -> dict[str, Any]:
        means = [float(np.nanmean(run[part][name][metric])) for run in runs]
        deviation = float(np.std(means, ddof=1)) if len(means) > 1 else None
        _, low, high = bootstrap_mean(runs[0][part][name][metric], None, BOOTSTRAP_ROUNDS, 0)
        return {
            "seeds": means,
            "mean": float(np.mean(means)),
            "sd": deviation,
            "seed_0_95": [low, high],
        }

    return {
        part: {
            name: {metric: of(part, name, metric) for metric in METRICS} for name in runs[0][part]
        }
        for part in runs[0]
    }


def as_markdown(figures: dict[str, dict[str, Any]]) -> str:
    """One part's table: mean ± standard deviation over seeds, and in brackets seed 0's interval."""
    lines = [f"| method | {' | '.join(METRICS)} |", "|---" * (len(METRICS) + 1) + "|"]
    for name, row in figures.items():
        cells = []
        for metric in METRICS:
            cell, (low, high) = row[metric], row[metric]["seed_0_95"]
            deviation = "" if cell["sd"] is None else f" ± {cell['sd']:.4f}"
            cells.append(f"{cell['mean']:.4f}{deviation} [{low:.4f}, {high:.4f}]")
        lines.append(f"| {display_name(name)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark; prints Markdown, and writes every figure as JSON where asked."""
    parser = argparse.ArgumentParser(
        description="Recommenders on Last.fm (HetRec 2011), artists as items."
    )
    parser.add_argument("folder", type=Path, help="hetrec2011-lastfm-2k, unpacked")
    parser.add_argument(
        "--seeds", type=int, default=5, help="how many splits: seeds 0 to SEEDS - 1"
    )
    parser.add_argument("--json", type=Path, help="file for every figure")
    given = parser.parse_args(arguments)
    if given.seeds < 1:
        raise ConfigError(f"--seeds must be at least 1; found {given.seeds}")
    began = time.perf_counter()
    listening = read_listening(given.folder)
    vectors = encode_texts(listening.texts)
    settings = tune(split_listening(listening.matrix, 0), vectors)
    splits = (split_listening(listening.matrix, seed) for seed in range(given.seeds))
    runs = [run_seed(split, vectors, settings, seed) for seed, split in enumerate(splits)]
    figures = summarise(runs)
    asked = {part: int((~np.isnan(runs[0][part]["random"]["MRR"])).sum()) for part in figures}
    n_users, n_artists = listening.matrix.shape
    counts = {"listeners": n_users, "artists": n_artists, "entries": listening.matrix.nnz}
    counts |= {"artists without tags": listening.texts.count("")}
    counts |= {f"listeners asked, {part}, seed 0": n for part, n in asked.items()}
    print("; ".join(f"{name}: {n:,}" for name, n in counts.items()) + ".")
    print(
        "There are no listening times: entries are held out at random, "
        "and nothing here is temporal."
    )
    chosen = json.dumps(settings, ensure_ascii=False)
    print(f"Chosen by validation NDCG@{K} on seed 0, then fixed for all: {chosen}")
    for part, rows in figures.items():
        print(
            f"\n{part}: mean ± standard deviation over {given.seeds} seeds "
            "[seed 0: 95 % over listeners]\n"
        )
        print(as_markdown(rows))
    print(
        "\nCannot answer:\n"
        + "\n".join(f"- {display_name(name)}: {what}" for name, what in CANNOT.items())
    )
    print(f"\nTime: {time.perf_counter() - began:.0f} s")
    if given.json:
        text = json.dumps(
            {"counts": counts, "settings": settings, "figures": figures, "cannot": CANNOT}, indent=1
        )
        given.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except PonticelloError as error:
        sys.exit(f"error: {error}")
