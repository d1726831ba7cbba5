"""SASRec, the sequential baseline: what comes next, read off the order in which a listener liked
tracks.

Dimensions: U listeners, I warm tracks, m other tracks, B windows, T positions, D model width, d
content vector size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import backward

from ponticello.errors import ConfigError, DataError, ShapeError
from ponticello.evaluate.baselines import _grid, _require
from ponticello.listening.log import is_positive
from ponticello.storage.schema import PLAYED_AT, TRACK_ID, USER_ID

LARGEST_SASREC = 20_000  # tracks; the loss holds a score for every track at every position
WINDOW = 50  # latest tracks that a state reads
N_LAYERS = 2
N_EPOCHS = 100  # at most
PATIENCE = 5  # epochs without a better held-out loss before training stops
HELD_OUT_SHARE = 0.1  # of the listeners, whose last track decides when to stop
HELD_OUT_BOUNDS = 50, 1000  # listeners, but never more than half: the loss of a few says little
BATCH_WINDOWS = 16
BATCH_STATES = 256  # listeners read at once when nothing is learned

GRID_SASREC: list[dict[str, Any]] = _grid(
    dim=(64,), dropout=(0.2, 0.5), learning_rate=(1e-3,)
)  # as GRIDS
CANNOT_SASREC = {
    "sasrec": f"a track nobody has played; a listener without events; more than {LARGEST_SASREC:,} tracks",
    "sasrec_content": f"a track without content; a listener without events; more than {LARGEST_SASREC:,} tracks",
}


def as_sequences(
    events: pl.DataFrame,
    users: list[str],
    track_ids: list[str],
    min_played_s: float,
    max_length: int,
) -> list[np.ndarray]:
    """The places in `track_ids` of what each listener liked (see `is_positive`), earliest first;
    entry u is users[u].

    events: columns of `INTERACTIONS`, already cut to the training window; other listeners and
    tracks are left out. In order of time, then of track id. A track repeated in a row counts once;
    then the latest max_length >= 1 (ConfigError) are kept, as (n,) int64. DataError if a name
    stands twice in `users` or `track_ids`.
    """
    _require("max_length", max_length, max_length >= 1, "at least 1")
    for kind, names in ((USER_ID, users), (TRACK_ID, track_ids)):
        if len(set(names)) < len(names):
            raise DataError(f"a {kind} is listed twice among {len(names)}; each needs one place")
    rows = pl.DataFrame({USER_ID: users}, schema={USER_ID: pl.String}).with_row_index("row")
    places = pl.DataFrame({TRACK_ID: track_ids}, schema={TRACK_ID: pl.String}).with_row_index(
        "place"
    )
    liked = (
        events.filter(is_positive(min_played_s)).join(rows, on=USER_ID).join(places, on=TRACK_ID)
    )
    ordered = liked.sort("row", PLAYED_AT, TRACK_ID)
    is_new = (pl.col("place") != pl.col("place").shift().over("row")).fill_null(True)
    latest = ordered.filter(is_new).group_by("row").agg(pl.col("place").tail(max_length))
    sequences = [np.empty(0, dtype=np.int64) for _ in users]
    for row, tracks in latest.iter_rows():
        sequences[row] = np.array(tracks, dtype=np.int64)
    return sequences


class Network(nn.Module):
    """A causal pre-norm Transformer whose inputs and outputs are the same track vectors; float32.

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
        """(I, D): each track as input, and as what a state is compared with."""
        if self.tracks is not None:
            return self.tracks
        assert self.projection is not None
        found: Tensor = self.projection(self.projection.content)
        return found

    def forward(self, windows: Tensor, items: Tensor) -> Tensor:
        """(B, T, D) states, each of the tracks up to its own; windows: (B, T) places in `items`, T
        <= WINDOW.

        No state sees a later position, so padding at the end needs no mask: any place will do.
        """
        states = self.dropout(F.embedding(windows, items) + self.positions[: windows.shape[1]])
        for block in self.blocks:
            states = block(states)
        normed: Tensor = self.norm(states)
        return normed


class Projection(nn.Module):
    """Content to track vectors: a learned linear map of what `content`, (I, d), has beyond its
    mean, at scale 1.
    """

    content: Tensor
    middle: Tensor
    scale: Tensor

    def __init__(self, content: Tensor, dim: int) -> None:
        super().__init__()
        middle = content.mean(dim=0)
        scale = (content - middle).square().sum(dim=1).mean().sqrt().clamp_min(1e-6)
        self.register_buffer("content", content, persistent=False)
        self.register_buffer("middle", middle)
        self.register_buffer("scale", scale)
        self.linear = nn.Linear(content.shape[1], dim)
        nn.init.normal_(self.linear.weight, std=dim**-0.5)

    def forward(self, content: Tensor) -> Tensor:
        """(n, d) -> (n, D)."""
        vectors: Tensor = self.linear((content - self.middle) / self.scale)
        return vectors


class Block(nn.Module):
    """One layer: causal attention with one head, then a position-wise network of the same width,
    each added to x.
    """

    def __init__(self, dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.feed_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attention, self.mix = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.feed = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor) -> Tensor:
        """(B, T, D) -> (B, T, D)."""
        query, key, value = self.attention(self.attention_norm(states)).chunk(3, dim=-1)
        read = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        states = states + self.dropout(self.mix(read))
        fed: Tensor = states + self.dropout(self.feed(self.feed_norm(states)))
        return fed


@dataclass(frozen=True)
class SasRec:
    """Scores as dot products of states and track vectors; a Scorer.

    users: (U, D) float64, the state after each listener's whole sequence, zeros where it is empty;
    known: (I, D) float64, the track vectors; losses: the held-out loss after each epoch, of which
    the lowest was kept.
    """

    network: Network
    users: np.ndarray
    known: np.ndarray
    losses: list[float]

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """(b, I) float64; zeros for a listener without events. Cost: b x I x D."""
        scores: np.ndarray = self.users[rows] @ self.known.T
        return scores

    def items(self, content: np.ndarray) -> np.ndarray:
        """(m, D) float64 vectors of tracks that need not have been played: `users[rows] @ these.T`
        are their scores.

        content: (m, d), like that of training, or ShapeError; ConfigError if it was trained
        without.
        """
        if self.network.projection is None:
            raise ConfigError(
                "this SASRec knows tracks by their number only; fit it with content to reach new ones"
            )
        wanted = self.network.projection.linear.in_features
        if content.ndim != 2 or content.shape[1] != wanted:
            raise ShapeError(
                f"content must be (m, {wanted}), as in training; found {content.shape}"
            )
        with torch.no_grad():
            vectors: np.ndarray = (
                self.network.projection(torch.tensor(content).float()).double().numpy()
            )
        return vectors


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
    """A causal Transformer over what each listener liked, trained to name the next track at every
    position.

    sequences: of `as_sequences`, ids in [0, n_tracks), or DataError, also where nobody has two
    tracks. Longer ones are
        cut from the end into windows of WINDOW steps. 1 <= n_tracks <= LARGEST_SASREC.
    content: None learns a vector a track; (n_tracks, d) learns one linear map from it instead, so
    that `SasRec.items`
        reaches tracks nobody has played. ShapeError if of other shape, DataError if not finite.
    dim >= 1, 0 <= dropout < 1, learning_rate > 0; ConfigError outside, or where training diverges.
    Stopping: a tenth of the listeners (HELD_OUT_BOUNDS) give up their last track. Its mean loss is
    measured after every
        epoch; PATIENCE epochs without a better one, or N_EPOCHS, end it. The best epoch's weights
        are kept as they are.
    Randomness: weights, order and dropout from `seed`; torch's own generators stay as they were.
    float32 on the CPU.

    Cost, dim 64, one core: 10 s for 20,000 events of 300 listeners with 500 tracks; 10 minutes, 12
    epochs and 1 GB for 500,000 of 5,000 listeners with 10,000 tracks, where an epoch of
    LARGEST_SASREC tracks would take 2.4 minutes.

    Source: Kang and McAuley 2018, one head; but layer norm comes before each part, histories are
    not cut to their end, and the loss is the cross entropy over all tracks with which Klenitskiy
    and Vasilev 2023 found SASRec strong.
    """
    _require("n_tracks", n_tracks, 1 <= n_tracks <= LARGEST_SASREC, f"1 to {LARGEST_SASREC}")
    _require("dim", dim, dim >= 1, "at least 1")
    _require("dropout", dropout, 0 <= dropout < 1, "at least 0 and below 1")
    _require("learning_rate", learning_rate, learning_rate > 0, "above 0")
    _check_inputs(sequences, n_tracks, content)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        network = Network(
            n_tracks, dim, dropout, None if content is None else torch.tensor(content).float()
        )
        losses = _train(network, sequences, learning_rate)
    with torch.no_grad():
        known = network.items()
        users = _states_after(network, known, sequences)
        return SasRec(network, users.double().numpy(), known.double().numpy(), losses)


def _train(network: Network, sequences: list[np.ndarray], learning_rate: float) -> list[float]:
    """Leaves the best epoch's weights in `network`; gives the held-out loss after each epoch."""
    able = [row for row, tracks in enumerate(sequences) if len(tracks) >= 2]
    n_held = min(
        int(np.clip(round(HELD_OUT_SHARE * len(able)), *HELD_OUT_BOUNDS)), -(-len(able) // 2)
    )
    held = {able[place] for place in torch.randperm(len(able))[:n_held].tolist()}
    windows = _windows(
        [tracks[:-1] if row in held else tracks for row, tracks in enumerate(sequences)]
    )
    asked = [sequences[row][:-1] for row in sorted(held)]
    wanted = torch.tensor([int(sequences[row][-1]) for row in sorted(held)])
    optimiser = torch.optim.Adam(
        network.parameters(), lr=learning_rate, betas=(0.9, 0.98)
    )  # as the paper's code
    if not windows:
        raise DataError(
            "nothing to learn from: no listener but one has two liked tracks; bring a longer log"
        )
    losses: list[float] = []
    best: dict[str, Tensor] = {}
    for _ in range(N_EPOCHS):
        network.train()
        for batch in torch.split(torch.randperm(len(windows)), BATCH_WINDOWS):
            optimiser.zero_grad()
            backward(_next_track_loss(network, [windows[place] for place in batch]))
            optimiser.step()
        losses.append(_held_out_loss(network, asked, wanted))
        if not np.isfinite(losses[-1]):
            raise ConfigError(
                f"SASRec diverged with learning_rate {learning_rate}; take a smaller one"
            )
        best_epoch = int(np.argmin(losses))
        if best_epoch == len(losses) - 1:
            best = {name: value.clone() for name, value in network.state_dict().items()}
        elif best_epoch < len(losses) - PATIENCE:
            break
    network.load_state_dict(best)
    network.eval()
    return losses


def _windows(sequences: list[np.ndarray]) -> list[np.ndarray]:
    """Pieces of 2 to WINDOW + 1 tracks, cut from the end: every step from one track to the next is
    in one of them.
    """
    return [
        tracks[max(0, end - WINDOW - 1) : end]
        for tracks in sequences
        for end in range(len(tracks), 1, -WINDOW)
    ]


def _next_track_loss(network: Network, windows: list[np.ndarray]) -> Tensor:
    """Mean cross entropy, in nats, of each track after a window's first, among all tracks."""
    padded, lengths = _padded(windows)
    items = network.items()
    states = network(padded[:, :-1], items)  # (B, T, D)
    is_real = torch.arange(states.shape[1]) < lengths[:, None] - 1
    return F.cross_entropy(states[is_real] @ items.T, padded[:, 1:][is_real])


@torch.no_grad()
def _held_out_loss(network: Network, asked: list[np.ndarray], wanted: Tensor) -> float:
    network.eval()
    items = network.items()
    return float(F.cross_entropy(_states_after(network, items, asked) @ items.T, wanted))


@torch.no_grad()
def _states_after(network: Network, items: Tensor, sequences: list[np.ndarray]) -> Tensor:
    """(n, D) states after each sequence's last track; zeros where it is empty."""
    states = torch.zeros(len(sequences), items.shape[1])
    filled = torch.tensor(
        [row for row, tracks in enumerate(sequences) if len(tracks)], dtype=torch.long
    )
    for rows in torch.split(filled, BATCH_STATES):
        padded, lengths = _padded([sequences[row][-WINDOW:] for row in rows])
        states[rows] = network(padded, items)[torch.arange(len(rows)), lengths - 1]
    return states


def _padded(windows: list[np.ndarray]) -> tuple[Tensor, Tensor]:
    """(B, T) int64, T the longest, zeros after each window's end, and (B,) lengths."""
    lengths = np.array([len(window) for window in windows])
    padded = np.zeros((len(windows), lengths.max()), dtype=np.int64)
    for row, window in enumerate(windows):
        padded[row, : len(window)] = window
    return torch.from_numpy(padded), torch.from_numpy(lengths)


def _check_inputs(sequences: list[np.ndarray], n_tracks: int, content: np.ndarray | None) -> None:
    for row, tracks in enumerate(sequences):
        if len(tracks) and not 0 <= tracks.min() <= tracks.max() < n_tracks:
            raise DataError(
                f"sequence {row} holds tracks outside the {n_tracks} known, counted from 0"
            )
    if max(map(len, sequences), default=0) < 2:
        raise DataError(
            f"none of {len(sequences)} listeners has two liked tracks; there is no next one to learn"
        )
    if content is None:
        return
    if content.ndim != 2 or len(content) != n_tracks:
        raise ShapeError(
            f"content must be ({n_tracks}, d), a row for each track; found {content.shape}"
        )
    if not np.isfinite(content).all():
        raise DataError("content holds NaN or infinity; embed it again")
