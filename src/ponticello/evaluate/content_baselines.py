"""Recommenders that rank cold tracks by their content.

Each is fitted on the likes of the known tracks, and reads the factors of a new track off its
content, so a score is a dot product of a user's and a track's factors:

    profile          the direction that separates the liked tracks from the catalogue
    content_to_als   factors of ALS, read by ridge regression
    mlp_to_als       factors of ALS, read by a network with one hidden layer
    feature_ials     implicit ALS whose track factors shrink toward a linear map of the content
    profile_and_als  the sum of the first two, each standardised per user (`add_standardised`)

Dimensions: U users, I known tracks, m new tracks, n tracks of the catalogue, d content size,
f factors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ponticello.errors import DataError
from ponticello.evaluate.baselines import Factors, Interactions, make_grid, unit
from ponticello.search.user_profiles import fit_profiles, score_directions

PROFILE, CONTENT_TO_ALS, MLP_TO_ALS = "profile", "content_to_als", "mlp_to_als"
FEATURE_IALS, PROFILE_AND_ALS = "feature_ials", "profile_and_als"
SUMMED = (PROFILE, CONTENT_TO_ALS)  # the terms of PROFILE_AND_ALS
ON_ALS = (CONTENT_TO_ALS, MLP_TO_ALS)  # regress the factors of ALS

# Settings that are tried on validation: l2 of a profile as a share of the content's variance, of
# the others in squared values.
CONTENT_GRIDS: dict[str, list[dict[str, Any]]] = {
    PROFILE: make_grid(l2=(0.01, 0.03, 0.1, 0.3, 1.0), hub_correction=(0.0, 0.5, 1.0)),
    CONTENT_TO_ALS: make_grid(factors=(32, 128), l2=(0.1, 1.0, 10.0)),
    MLP_TO_ALS: make_grid(factors=(32, 128), n_epochs=(30, 100, 300)),
    FEATURE_IALS: make_grid(factors=(32, 64), l2=(1.0, 10.0, 100.0)),
}

HIDDEN_SIZE, DROPOUT, LEARNING_RATE, BATCH_TRACKS = 192, 0.2, 1e-3, 256  # of mlp_to_als
IALS_ALPHA = 10.0  # the confidence of a like is 1 + IALS_ALPHA
IALS_ROUNDS = 8
MAP_L2 = 1.0  # of the map from content to the factors of feature_ials
LEAST_SPREAD = 1e-12  # a score with a smaller deviation is constant


@dataclass(frozen=True)
class ContentModel:
    """A fitted recommender. users: (U, f) float64; items: content (m, d) -> factors (m, f)."""

    users: np.ndarray
    items: Callable[[np.ndarray], np.ndarray]

    def factors(self, content: np.ndarray) -> Factors:
        """Returns the factors of the users and of tracks with this content (m, d)."""
        return Factors(self.users, self.items(content))


@dataclass(frozen=True)
class TrainingLikes:
    """What content models are fitted on.

    matrix: (U, I) likes; content: (I, d), unit length, of its columns; catalog: (n, d), of all
    tracks, new ones too. als: returns ALS of `matrix` with this many factors. seed: of all random
    numbers.
    """

    matrix: Interactions
    content: np.ndarray
    catalog: np.ndarray
    als: Callable[[int], Factors]
    seed: int


def fit_content_model(name: str, likes: TrainingLikes, settings: dict[str, Any]) -> ContentModel:
    """Returns the recommender of this name, one of `CONTENT_GRIDS`, with a point of its grid."""
    match name:
        case "profile":
            return fit_profile(likes.matrix, likes.content, likes.catalog, **settings)
        case "content_to_als":
            als = likes.als(settings["factors"])
            return _fit_linear(als, likes.content, settings["l2"])
        case "mlp_to_als":
            als = likes.als(settings["factors"])
            return fit_mlp(als, likes.content, settings["n_epochs"], likes.seed)
        case "feature_ials":
            return fit_feature_ials(likes.matrix, likes.content, **settings, seed=likes.seed)
    raise KeyError(name)


def fit_profile(
    matrix: Interactions,
    content: np.ndarray,
    catalog: np.ndarray,
    l2: float,
    hub_correction: float,
) -> ContentModel:
    """Returns the profiles of all liked tracks, as `recommend` asks by the latest of them.

    l2, hub_correction: as in `fit_profiles` and `UserProfiles.levels`, on `catalog`.
    """
    profiles = fit_profiles(catalog, l2)
    seeds = np.split(matrix.indices, matrix.indptr[1:-1])
    users = score_directions(profiles, content, seeds)

    def items(new_content: np.ndarray) -> np.ndarray:
        levels = profiles.levels(new_content, hub_correction)[:, None]
        return np.asarray(levels * (new_content - profiles.mean))

    return ContentModel(users, items)


def _fit_linear(als: Factors, content: np.ndarray, l2: float) -> ContentModel:
    return ContentModel(als.users, lambda new: content_to_factors(als.items, content, new, l2))


def content_to_factors(
    item_factors: np.ndarray, content: np.ndarray, new_content: np.ndarray, l2: float
) -> np.ndarray:
    """Returns (m, f) factors of tracks without plays, by ridge regression from their content.

    item_factors: (I, f) of `fit_als`; content: (I, d) and new_content: (m, d), unit length. l2 > 0;
    the intercept is not penalised. Tracks with zero factors are left out; DataError if none is
    left.

    Source: Gantner et al. 2010, the linear map, fitted in least squares instead of to the ranking.
    """
    has_factors = _require_factors(item_factors, 1)
    vectors = content[has_factors].astype(np.float64)
    targets = item_factors[has_factors].astype(np.float64)
    mean = vectors.mean(axis=0)
    intercept = targets.mean(axis=0)
    centred = vectors - mean
    gram = centred.T @ centred + l2 * np.eye(centred.shape[1])  # (d, d)
    slope = np.linalg.solve(gram, centred.T @ (targets - intercept))  # (d, f)
    return np.asarray((new_content - mean) @ slope + intercept)


def _require_factors(item_factors: np.ndarray, n_least: int) -> np.ndarray:
    """Returns (I,) bool, the tracks with factors; DataError if they are fewer than n_least."""
    has_factors: np.ndarray = (item_factors != 0).any(axis=1)
    n_tracks = int(has_factors.sum())
    if n_tracks < n_least:
        count = f"{n_tracks} of the" if n_tracks else "none of the"
        raise DataError(
            f"{count} {len(item_factors)} tracks has factors to learn from; "
            f"fit_als needs tracks with listeners, at least {n_least}"
        )
    return has_factors


def fit_mlp(als: Factors, content: np.ndarray, n_epochs: int, seed: int) -> ContentModel:
    """Fits a network from content to the track factors of ALS, by least squares.

    als: of the known tracks; content: (I, d), unit length. Linear, batch norm, ReLU, dropout,
    linear; AdamW. DataError if fewer than two tracks have factors.
    Randomness: weights, order and dropout from `seed`; torch's own generators are unchanged.
    Cost: 0.04 s for 1,000 tracks and an epoch.
    """
    has_factors = _require_factors(als.items, 2)
    inputs = torch.from_numpy(content[has_factors]).float()
    targets = torch.from_numpy(als.items[has_factors]).float()
    scale = max(float(targets.std()), LEAST_SPREAD)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = nn.Sequential(
            nn.Linear(inputs.shape[1], HIDDEN_SIZE),
            nn.BatchNorm1d(HIDDEN_SIZE),
            nn.ReLU(),
            nn.Dropout(DROPOUT),
            nn.Linear(HIDDEN_SIZE, targets.shape[1]),
        )
        _train_mlp(network, inputs, targets / scale, n_epochs)

    def items(new_content: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            predicted: Tensor = network(torch.from_numpy(new_content).float())
        return np.asarray(scale * predicted.double())

    return ContentModel(als.users, items)


def _train_mlp(network: nn.Module, inputs: Tensor, targets: Tensor, n_epochs: int) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    for _ in range(n_epochs):
        for rows in torch.split(torch.randperm(len(inputs)), BATCH_TRACKS):
            if len(rows) == 1:  # batch norm has no spread of one row
                continue
            loss = (network(inputs[rows]) - targets[rows]).square().mean()
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
    network.eval()


def fit_feature_ials(
    matrix: Interactions, content: np.ndarray, factors: int, l2: float, seed: int
) -> ContentModel:
    """Fits implicit ALS whose track factors shrink toward B x content.

    content: (I, d), unit length, of the columns of `matrix`. Every like has the same confidence,
    1 + IALS_ALPHA, and every other pair 1. l2 > 0 is how strongly users shrink toward 0 and tracks
    toward their prior; B (d, f) is the ridge regression of the track factors. A new track has its
    prior, as has one that nobody likes. DataError if the matrix is empty.
    Randomness: the first B, from `seed`.
    Cost: IALS_ROUNDS solutions of f x f for every user and track, 0.04 ms each at f = 32.

    Source: Hu, Koren and Volinsky 2008, with the prior mean of Agarwal and Chen 2009 on the tracks.
    """
    has_likes = np.diff(matrix.tocsc().indptr) > 0
    if not has_likes.any():
        raise DataError("feature_ials needs a liked track; the matrix holds none")
    likes = matrix[:, has_likes].tocsr()
    likes_of_tracks = likes.T.tocsr()
    vectors = content[has_likes].astype(np.float64)
    gram = vectors.T @ vectors + MAP_L2 * np.eye(vectors.shape[1])
    generator = np.random.default_rng(seed)
    content_map = generator.standard_normal((vectors.shape[1], factors)) * 0.1  # B
    items = vectors @ content_map
    no_prior = np.zeros((likes.shape[0], factors))
    for _ in range(IALS_ROUNDS):
        users = _solve_rows(likes, items, no_prior, l2)
        items = _solve_rows(likes_of_tracks, users, vectors @ content_map, l2)
        content_map = np.linalg.solve(gram, vectors.T @ items)
    return ContentModel(users, lambda new: np.asarray(new @ content_map))


def _solve_rows(likes: Interactions, fixed: np.ndarray, prior: np.ndarray, l2: float) -> np.ndarray:
    """Returns (rows, f), the least squares of each row's likes, shrunk toward its prior.

    fixed: (columns, f), the factors of the other side. prior: (rows, f).
    """
    gram = fixed.T @ fixed + l2 * np.eye(fixed.shape[1])
    solved = np.empty_like(prior)
    for row in range(likes.shape[0]):
        liked = fixed[likes.indices[likes.indptr[row] : likes.indptr[row + 1]]]
        right = (1 + IALS_ALPHA) * liked.sum(axis=0) + l2 * prior[row]
        solved[row] = np.linalg.solve(gram + IALS_ALPHA * liked.T @ liked, right)
    return solved


def add_standardised(models: Sequence[Factors]) -> Factors:
    """Returns factors whose scores are the sum of the models' scores, standardised per user.

    models: of the same users and tracks. Each user's scores of the tracks get mean 0 and deviation
    1 under each model; constant scores become 0.
    """
    users = []
    items = []
    for model in models:
        centred = model.items - model.items.mean(axis=0)
        covariance = centred.T @ centred / len(centred)
        variances = np.einsum("uf,uf->u", model.users @ covariance, model.users)
        deviations = np.sqrt(np.maximum(variances, 0.0))
        is_spread = deviations > LEAST_SPREAD
        scales = np.where(is_spread, 1 / np.where(is_spread, deviations, 1.0), 0.0)
        users.append(scales[:, None] * model.users)
        items.append(centred)
    return Factors(np.concatenate(users, axis=1), np.concatenate(items, axis=1))


def beside_text(content: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """Returns (n, d + D) float32: content and text side by side, each scaled to equal length.

    A model of them reads as much as a fused vector. content: (n, d); texts: (n, D), a row of zeros
    for a track without text.
    """
    joined = np.concatenate([unit(content), unit(texts)], axis=1) / np.sqrt(2.0)
    return np.asarray(joined, dtype=np.float32)
