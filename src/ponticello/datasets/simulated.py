"""Simulated listeners: a log with planted tastes, for catalogues that have no real one.

Every listener likes a direction in the space of traits one can hear, plus a direction in hidden
traits that no audio or text explains. Popularity follows a power law, sessions have moods, and what
is disliked gets skipped. Whoever shows
figures from such a log says so: they prove that planted taste is found, not that real taste would
be.
"""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl

from ponticello.config import SimulationConfig
from ponticello.errors import ShapeError
from ponticello.features.store import FeatureStore
from ponticello.storage.schema import (
    CONTEXT_TRACK_ID,
    EVENT,
    MACHINE_TAGS,
    PLAYED_AT,
    PLAYED_S,
    SESSION_ID,
    TRACK_ID,
    USER_ID,
)

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
LISTENED_S = 30.0  # s, how long a track that is heard to the end lasts
USER_PREFIX = "simulated-"
N_TRAITS = 6  # at most; each listener likes a direction among them
TAG_SHARES = (0.08, 0.6)  # a tag that fewer or more tracks carry tells little about taste


def simulate_listeners(
    track_ids: list[str], traits: np.ndarray, config: SimulationConfig
) -> pl.DataFrame:
    """A log with the interactions table's columns, in order of time; every user id starts with
    "simulated-".

    traits: (n, t), one row a track, any scale; ShapeError if it does not fit `track_ids`. All
    randomness comes from `config.seed`.
    """
    if traits.ndim != 2 or len(traits) != len(track_ids):
        raise ShapeError(
            f"traits must be ({len(track_ids)}, t), one row a track; found {traits.shape}"
        )
    generator = np.random.default_rng(config.seed)
    audible = _standardised(traits)
    hidden = _standardised(generator.standard_normal((len(track_ids), config.n_hidden_traits)))
    popularity = -config.popularity_exponent * np.log(1 + generator.permutation(len(track_ids)))
    rows: list[dict[str, object]] = []
    for number in range(config.n_listeners):
        user = f"{USER_PREFIX}{number:04d}"
        taste = _direction(generator, audible.shape[1]), _direction(generator, hidden.shape[1])
        for session in range(_n_sessions(config, generator)):
            liking = _liking(audible, hidden, taste, config, generator)
            chance = (
                config.inverse_temperature * liking
                + popularity
                + generator.gumbel(size=len(track_ids))
            )
            chosen = np.argsort(-chance)[: config.tracks_per_session]
            rows += _session(
                user, f"{user}/{session}", chosen, liking, track_ids, config, generator
            )
        favourites = np.argsort(-_liking(audible, hidden, taste, config, None))[:8]
        rows += _playlist(user, favourites, track_ids, config, generator)
    return pl.DataFrame(rows, schema=_SCHEMA).sort(PLAYED_AT, USER_ID, TRACK_ID)


_SCHEMA: dict[str, pl.DataType | type[pl.DataType]] = {
    USER_ID: pl.String,
    TRACK_ID: pl.String,
    PLAYED_AT: pl.Datetime("us", "UTC"),
    EVENT: pl.String,
    PLAYED_S: pl.Float64,
    CONTEXT_TRACK_ID: pl.String,
    SESSION_ID: pl.String,
}


def audible_traits(tracks: pl.DataFrame, store: FeatureStore) -> dict[str, np.ndarray]:
    """What one can hear of each prepared track, as (t,) uncorrelated traits of equal spread, by
    track id.

    Drawn from brightness, bass, dynamics and attacks, measured on the mel, and from the machine
    tags that neither nearly all tracks nor next to none carry.
    """
    table = tracks.filter(pl.col(TRACK_ID).is_in(store.track_ids)).sort(TRACK_ID)
    heard = np.array([_describe(store.read(track_id)) for track_id in table[TRACK_ID]])
    tags = [set(entry or ()) for entry in table[MACHINE_TAGS].to_list()]
    known = sorted(set().union(*tags))
    carried = np.array(
        [[tag in entry for tag in known] for entry in tags], dtype=np.float64
    ).reshape(len(tags), -1)
    useful = (carried.mean(axis=0) > TAG_SHARES[0]) & (carried.mean(axis=0) < TAG_SHARES[1])
    balance = np.sqrt(
        max(int(useful.sum()), 1) / heard.shape[1]
    )  # so that sound and tags weigh the same
    both = np.concatenate(
        [balance * _standardised(heard), _standardised(carried[:, useful])], axis=1
    )
    left, spread, _ = np.linalg.svd(both, full_matrices=False)
    n_traits = min(N_TRAITS, int((spread > 1e-6 * spread[0]).sum()))
    return dict(zip(table[TRACK_ID], left[:, :n_traits] * np.sqrt(len(left)), strict=True))


def _describe(mel: np.ndarray) -> np.ndarray:
    """(4,): brightness (centre of the spectrum, in bands), bass share, dynamics and attacks (both
    dB).
    """
    frames = np.asarray(mel, dtype=np.float64)  # (T, F), dB
    power = 10.0 ** ((frames - frames.max()) / 10.0)
    level = 10.0 * np.log10(power.sum(axis=1) + 1e-9)
    spectrum = power.mean(axis=0) / power.mean(axis=0).sum()
    rises = np.maximum(np.diff(frames, axis=0), 0.0).mean() if len(frames) > 1 else 0.0
    return np.array(
        [
            spectrum @ np.arange(len(spectrum)),
            spectrum[: len(spectrum) // 8].sum(),
            level.std(),
            rises,
        ]
    )


def _n_sessions(config: SimulationConfig, generator: np.random.Generator) -> int:
    """Pareto distributed around the configured mean, cut at ten times as many."""
    mean = config.sessions_per_listener
    return min(1 + int(mean / 2 * (1 + generator.pareto(2.0))), 10 * mean)


def _liking(
    audible: np.ndarray,
    hidden: np.ndarray,
    taste: tuple[np.ndarray, np.ndarray],
    config: SimulationConfig,
    generator: np.random.Generator | None,
) -> np.ndarray:
    """(n,) how much a listener likes each track, about standard normal; with a generator, in one
    session's mood.
    """
    towards = (
        taste[0]
        if generator is None
        else taste[0] + config.session_noise * _direction(generator, len(taste[0]))
    )
    heard, unheard = audible @ towards / np.linalg.norm(towards), hidden @ taste[1]
    liking: np.ndarray = (
        np.sqrt(config.observable_share) * heard + np.sqrt(1 - config.observable_share) * unheard
    )
    return liking


def _session(
    user: str,
    session: str,
    chosen: np.ndarray,
    liking: np.ndarray,
    track_ids: list[str],
    config: SimulationConfig,
    generator: np.random.Generator,
) -> list[dict[str, object]]:
    """One sitting: the first track is chosen, in every second sitting the others are recommended
    because of it.
    """
    moment = FIRST_DAY + timedelta(days=float(generator.uniform(0, config.days)))
    recommended = generator.random() < 0.5
    rows = []
    for place, track in enumerate(chosen):
        is_skipped = generator.random() < 1 / (1 + np.exp(1.5 + 1.5 * liking[track]))
        is_loved = not is_skipped and generator.random() < 0.3 / (
            1 + np.exp(1.0 - 1.5 * liking[track])
        )
        played_s = float(generator.uniform(2, 15)) if is_skipped else LISTENED_S
        rows.append(
            {
                USER_ID: user,
                TRACK_ID: track_ids[track],
                PLAYED_AT: moment,
                EVENT: "skip" if is_skipped else "like" if is_loved else "complete",
                PLAYED_S: played_s,
                CONTEXT_TRACK_ID: track_ids[chosen[0]] if recommended and place > 0 else None,
                SESSION_ID: session,
            }
        )
        moment += timedelta(seconds=played_s + float(generator.uniform(1, 5)))
    return rows


def _playlist(
    user: str,
    chosen: np.ndarray,
    track_ids: list[str],
    config: SimulationConfig,
    generator: np.random.Generator,
) -> list[dict[str, object]]:
    """The listener's favourites, put into one playlist on some day of the first half."""
    moment = FIRST_DAY + timedelta(days=float(generator.uniform(0, config.days / 2)))
    return [
        {
            USER_ID: user,
            TRACK_ID: track_ids[track],
            PLAYED_AT: moment,
            EVENT: "playlist",
            SESSION_ID: f"{user}/favourites",
        }
        for track in chosen
    ]


def _standardised(traits: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 a column; constant columns become 0."""
    centred = traits - traits.mean(axis=0)
    scaled: np.ndarray = centred / np.maximum(centred.std(axis=0), 1e-9)
    return scaled


def _direction(generator: np.random.Generator, d: int) -> np.ndarray:
    """A random unit vector (d,)."""
    vector = generator.standard_normal(d)
    unit: np.ndarray = vector / np.linalg.norm(vector)
    return unit
