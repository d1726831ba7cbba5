"""SASRec, the sequential baseline, which predicts the next track a user likes.

Dimensions: U users, I known tracks, m other tracks, B windows, T positions, D model width, d
content vector size.
"""

from copy import deepcopy
from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import backward
from torch.nn.utils.rnn import pad_sequence

from ponticello.errors import ConfigError, DataError
from ponticello.evaluate.baselines import make_grid, numbered_likes
from ponticello.evaluate.results import pick
from ponticello.storage.schema import PLAYED_AT, TRACK_ID

LARGEST_SASREC = 20_000  # tracks; the loss holds a score for every track at every position
WINDOW = 50  # latest tracks that a state reads
N_LAYERS = 2
N_EPOCHS = 100  # at most
PATIENCE = 5  # epochs without a better held-out loss before training stops
HELD_OUT_SHARE = 0.1  # of the users: their last track decides when to stop
HELD_OUT_BOUNDS = 50, 1000  # users, at most half of all; the loss of fewer is noise
BATCH_WINDOWS = 16
BATCH_STATES = 256  # users per batch when scoring

GRID_SASREC = make_grid(dim=(64,), dropout=(0.2, 0.5), learning_rate=(1e-3,))
CANNOT_SASREC = {
    "sasrec": "a track nobody has played; a listener without events; "
    f"more than {LARGEST_SASREC:,} tracks",
    "sasrec_content": "a track without content; a listener without events; "
    f"more than {LARGEST_SASREC:,} tracks",
}


def as_sequences(
    events: pl.DataFrame,
    users: list[str],
    track_ids: list[str],
    min_played_s: float,
    max_length: int,
) -> list[np.ndarray]:
    """Returns each user's `numbered_likes`, (n,) int64 positions in `track_ids`.

    Entry u is users[u], in order of time, then of track id. A track repeated in a row counts once;
    then the latest max_length >= 1 are kept.
    """
    likes = numbered_likes(events, users, track_ids, min_played_s)
    ordered = likes.sort("row", PLAYED_AT, TRACK_ID)
    is_new = (pl.col("column") != pl.col("column").shift().over("row")).fill_null(True)
    latest = ordered.filter(is_new).group_by("row").agg(pl.col("column").tail(max_length))
    sequences = [np.empty(0, dtype=np.int64) for _ in users]
    for row, liked_columns in latest.iter_rows():
        sequences[row] = np.array(liked_columns, dtype=np.int64)
    return sequences


class Network(nn.Module):
    """A causal pre-norm Transformer with the same track vectors as inputs and outputs; float32.

    content: (I, d) behind each track, or None: the vectors are then learned track by track.
    """

    def __init__(self, n_tracks: int, dim: int, dropout: float, content: Tensor | None) -> None:
        super().__init__()
        self.tracks = (
            nn.Parameter(torch.randn(n_tracks, dim) / dim**0.5) if content is None else None
        )
        self.projection = None if content is None else Projection(content, dim)
        self.positions = nn.Parameter(torch.randn(WINDOW, dim) / dim**0.5)
        self.blocks = nn.ModuleList(Block(dim, dropout) for _ in range(N_LAYERS))
        self.norm = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(dropout)

    def items(self) -> Tensor:
        """Returns (I, D), the track vectors, used as inputs and as outputs."""
        if self.tracks is not None:
            return self.tracks
        assert self.projection is not None
        return cast(Tensor, self.projection(self.projection.content))

    def forward(self, windows: Tensor, items: Tensor) -> Tensor:
        """Returns (B, T, D), the state after each track.

        windows: (B, T) rows of `items`, T <= WINDOW.

        Attention is causal, so padding at the end needs no mask.
        """
        states = self.dropout(F.embedding(windows, items) + self.positions[: windows.shape[1]])
        for block in self.blocks:
            states = block(states)
        return cast(Tensor, self.norm(states))


class Projection(nn.Module):
    """A learned linear map from standardised content, (I, d), to track vectors."""

    content: Tensor
    mean: Tensor
    scale: Tensor

    def __init__(self, content: Tensor, dim: int) -> None:
        super().__init__()
        mean = content.mean(dim=0)
        scale = (content - mean).square().sum(dim=1).mean().sqrt().clamp_min(1e-6)
        self.register_buffer("content", content, persistent=False)
        self.register_buffer("mean", mean)
        self.register_buffer("scale", scale)
        self.linear = nn.Linear(content.shape[1], dim)
        nn.init.normal_(self.linear.weight, std=dim**-0.5)

    def forward(self, content: Tensor) -> Tensor:
        """(n, d) -> (n, D)."""
        return cast(Tensor, self.linear((content - self.mean) / self.scale))


class Block(nn.Module):
    """A pre-norm Transformer layer with one attention head."""

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.attention = nn.Linear(dim, 3 * dim)
        self.mix = nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        query, key, value = self.attention(self.attention_norm(states)).chunk(3, dim=-1)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.dropout(self.mix(attended))
        return states + cast(Tensor, self.dropout(self.feed(self.feed_norm(states))))


@dataclass(frozen=True)
class SasRec:
    """Scores by dot products of states and track vectors; a Scorer.

    users: (U, D) float64, the state after each user's sequence, zeros if it is empty; tracks:
    (I, D) float64; losses: the held-out loss after each epoch, of which the lowest was kept.
    """

    network: Network
    users: np.ndarray
    tracks: np.ndarray
    losses: list[float]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Returns (b, I) float64; zeros for a user without events."""
        return np.asarray(self.users[rows] @ self.tracks.T)

    def items(self, content: np.ndarray) -> np.ndarray:
        """Returns (m, D) float64 vectors of tracks that may have no plays, from their content.

        content: (m, d), d as in training, which must have been with content.
        """
        assert self.network.projection is not None
        with torch.no_grad():
            vectors = self.network.projection(torch.tensor(content).float())
        return np.asarray(vectors.double())


def fit_sasrec(
    sequences: list[np.ndarray],
    n_tracks: int,
    *,
    dim: int,
    dropout: float,
    learning_rate: float,
    seed: int,
    content: np.ndarray | None,
) -> SasRec:
    """Fits a causal Transformer that predicts the next liked track at every position.

    sequences: of `as_sequences`; at least two users must have two tracks. Longer ones are cut from
    the end into windows of WINDOW steps.
    n_tracks <= LARGEST_SASREC. content: None learns a vector per track; (n_tracks, d) learns a
    linear map from it, so that `SasRec.items` gives vectors of tracks without plays. DataError if
    it is not finite. ConfigError if training diverges.
    Stopping: the last track of a tenth of the users (HELD_OUT_BOUNDS) is held out, and its mean
    loss measured after every epoch. PATIENCE epochs without a lower one, or N_EPOCHS, end the
    training; the weights of the best epoch are kept.
    Randomness: weights, order and dropout from `seed`; torch's own generators are unchanged.
    float32 on the CPU.

    Cost, dim 64, one core: 10 s for 20,000 events of 300 users with 500 tracks; 10 minutes, 12
    epochs and 1 GB for 500,000 of 5,000 users with 10,000 tracks; an epoch of LARGEST_SASREC
    tracks would take 2.4 minutes.

    Source: Kang and McAuley 2018, with one head; deviations: layer norm comes before each part,
    histories are not truncated, and the loss is the cross entropy over all tracks, with which
    Klenitskiy and Vasilev 2023 found SASRec strong.
    """
    if content is not None and not np.isfinite(content).all():
        raise DataError("content holds NaN or infinity; embed it again")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Network(
            n_tracks, dim, dropout, None if content is None else torch.tensor(content).float()
        )
        losses = _train(network, sequences, learning_rate)
    with torch.no_grad():
        tracks = network.items()
        users = _states_after(network, tracks, sequences)
        return SasRec(network, users.double().numpy(), tracks.double().numpy(), losses)


def _train(network: Network, sequences: list[np.ndarray], learning_rate: float) -> list[float]:
    """Trains the network, leaving the best epoch's weights in it; returns the held-out losses."""
    with_next = [row for row, tracks in enumerate(sequences) if len(tracks) >= 2]
    n_held_out = round(HELD_OUT_SHARE * len(with_next))
    n_held_out = int(np.clip(n_held_out, HELD_OUT_BOUNDS[0], HELD_OUT_BOUNDS[1]))
    n_held_out = min(n_held_out, -(-len(with_next) // 2))
    sample = torch.randperm(len(with_next))[:n_held_out].tolist()
    held_out = sorted(pick(with_next, sample))
    training = list(sequences)
    last_tracks = []
    for row in held_out:
        training[row] = sequences[row][:-1]
        last_tracks.append(int(sequences[row][-1]))
    windows = _windows(training)
    betas = (0.9, 0.98)  # as the paper's code
    optimiser = torch.optim.Adam(network.parameters(), lr=learning_rate, betas=betas)
    losses: list[float] = []
    best: dict[str, Tensor] = {}
    for _ in range(N_EPOCHS):
        network.train()
        for batch in torch.split(torch.randperm(len(windows)), BATCH_WINDOWS):
            optimiser.zero_grad()
            backward(_next_track_loss(network, pick(windows, batch)))
            optimiser.step()
        network.eval()
        with torch.no_grad():
            items = network.items()
            scores = _states_after(network, items, pick(training, held_out)) @ items.T
            losses.append(float(F.cross_entropy(scores, torch.tensor(last_tracks))))
        if not np.isfinite(losses[-1]):
            raise ConfigError(
                f"SASRec diverged with learning_rate {learning_rate}; take a smaller one"
            )
        best_epoch = int(np.argmin(losses))
        if best_epoch == len(losses) - 1:
            best = deepcopy(network.state_dict())
        elif best_epoch < len(losses) - PATIENCE:
            break
    network.load_state_dict(best)
    network.eval()
    return losses


def _windows(sequences: list[np.ndarray]) -> list[np.ndarray]:
    """Returns pieces of 2 to WINDOW + 1 tracks, cut from the end; each step is in one of them."""
    windows = []
    for tracks in sequences:
        for end in range(len(tracks), 1, -WINDOW):
            windows.append(tracks[max(0, end - WINDOW - 1) : end])
    return windows


def _next_track_loss(network: Network, windows: list[np.ndarray]) -> Tensor:
    """Returns the mean cross entropy, in nats, of each track after a window's first."""
    padded, lengths = _padded(windows)
    items = network.items()
    states = network(padded[:, :-1], items)  # (B, T, D)
    is_real = torch.arange(states.shape[1]) < lengths[:, None] - 1
    return F.cross_entropy(states[is_real] @ items.T, padded[:, 1:][is_real])


@torch.no_grad()
def _states_after(network: Network, items: Tensor, sequences: list[np.ndarray]) -> Tensor:
    """Returns (n, D), the states after each sequence's last track; zeros if it is empty."""
    states = torch.zeros(len(sequences), items.shape[1])
    filled = torch.tensor(
        [row for row, tracks in enumerate(sequences) if len(tracks)], dtype=torch.long
    )
    for rows in torch.split(filled, BATCH_STATES):
        padded, lengths = _padded([sequences[row][-WINDOW:] for row in rows])
        states[rows] = network(padded, items)[torch.arange(len(rows)), lengths - 1]
    return states


def _padded(windows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """Returns (B, T) int64, padded with zeros to the longest window, and (B,) lengths."""
    lengths = torch.tensor(list(map(len, windows)))
    return pad_sequence(list(map(torch.tensor, windows)), batch_first=True), lengths
