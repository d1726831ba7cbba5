"""Simulates listeners with known preferences, for catalogues without a listening log.

A listener likes one direction in the space of audible traits and one in hidden traits that no audio
or text explains. Popularity follows a power law, each session deviates from the listener's
preference, and disliked tracks are skipped. Figures from such a log must say so: they show that a
planted preference is recovered, not that a real one would be.
"""

from datetime import UTC, datetime, timedelta
from itertools import chain

import numpy as np
import polars as pl

from ponticello.config import SimulationConfig
from ponticello.errors import ShapeError
from ponticello.features.store import FeatureStore
from ponticello.storage import schema
from ponticello.storage.validation import DTYPES

FIRST_DAY = datetime(2024, 1, 1, tzinfo=UTC)
LISTENED_S = 30.0  # s, of a track that is played to the end
USER_PREFIX = "simulated-"
N_TRAITS = 6  # at most
TAG_SHARES = (0.08, 0.6)  # shares of the tracks that carry a tag, outside which it is ignored
_Event = tuple[object, ...]  # values of _SCHEMA
_SCHEMA = {name: DTYPES[kind] for name, kind in schema.INTERACTIONS.kinds.items()}
del _SCHEMA[schema.WEIGHT]


def simulate_listeners(
    track_ids: list[str], traits: np.ndarray, config: SimulationConfig
) -> pl.DataFrame:
    """Returns a log with the interactions table's columns, sorted by time.

    Every user id starts with "simulated-". traits: (n, t), one row per track, at any scale;
    ShapeError if it does not fit `track_ids`. All randomness comes from `config.seed`.
    """
    if traits.ndim != 2 or len(traits) != len(track_ids):
        raise ShapeError(
            f"traits must be ({len(track_ids)}, t), one row a track; found {traits.shape}"
        )
    generator = np.random.default_rng(config.seed)
    simulation = _Simulation(track_ids, traits, config, generator)
    popularity = -config.popularity_exponent * np.log(1 + generator.permutation(len(track_ids)))
    rows: list[_Event] = []
    for number in range(config.n_listeners):
        user = f"{USER_PREFIX}{number:04d}"
        preference = simulation.draw_preference()
        for session in range(_n_sessions(config.sessions_per_listener, generator)):
            liking = simulation.liking(preference, with_noise=True)
            score = config.inverse_temperature * liking + popularity
            score += generator.gumbel(size=len(track_ids))
            chosen = np.argsort(-score)[: config.tracks_per_session]
            rows += simulation.session(user, f"{user}/{session}", chosen, liking)
        favourites = np.argsort(-simulation.liking(preference, with_noise=False))[:8]
        rows += simulation.playlist(user, favourites)
    return pl.DataFrame(rows, schema=_SCHEMA, orient="row").sort(
        schema.PLAYED_AT, schema.USER_ID, schema.TRACK_ID
    )


def audible_traits(tracks: pl.DataFrame, store: FeatureStore) -> dict[str, np.ndarray]:
    """Returns the audible traits of each prepared track, (t,), uncorrelated and of equal spread.

    They are the principal components of brightness, bass, dynamics and attacks, measured on the
    mel, and of the machine tags that are neither too common nor too rare (`TAG_SHARES`).
    """
    table = tracks.filter(pl.col(schema.TRACK_ID).is_in(store.track_ids)).sort(schema.TRACK_ID)
    sound = np.array([_describe(store.read(track_id)) for track_id in table[schema.TRACK_ID]])
    tags_of_track = [set(tags or ()) for tags in table[schema.MACHINE_TAGS].to_list()]
    vocabulary = sorted(set(chain.from_iterable(tags_of_track)))
    has_tag = np.zeros((len(tags_of_track), len(vocabulary)))
    for row, tags in enumerate(tags_of_track):
        has_tag[row] = [tag in tags for tag in vocabulary]
    share = has_tag.mean(axis=0)
    is_useful = (share > TAG_SHARES[0]) & (share < TAG_SHARES[1])
    n_useful = max(int(is_useful.sum()), 1)
    sound_weight = np.sqrt(n_useful / sound.shape[1])  # sound and tags then weigh the same
    columns = [sound_weight * _standardise(sound), _standardise(has_tag[:, is_useful])]
    left, spread, _ = np.linalg.svd(np.concatenate(columns, axis=1), full_matrices=False)
    n_traits = min(N_TRAITS, int((spread > 1e-6 * spread[0]).sum()))
    traits = left[:, :n_traits] * np.sqrt(len(left))
    return dict(zip(table[schema.TRACK_ID], traits, strict=True))


def _describe(mel: np.ndarray) -> np.ndarray:
    """Returns (4,): brightness (in bands), bass share, dynamics and attacks (both dB)."""
    frames = np.asarray(mel, dtype=np.float64)  # (T, F), dB
    power = 10.0 ** ((frames - frames.max()) / 10.0)
    level = 10.0 * np.log10(power.sum(axis=1) + 1e-9)
    spectrum = power.mean(axis=0) / power.mean(axis=0).sum()
    brightness = spectrum @ np.arange(len(spectrum))
    bass = spectrum[: len(spectrum) // 8].sum()
    attacks = 0.0
    if len(frames) > 1:
        attacks = np.maximum(np.diff(frames, axis=0), 0.0).mean()
    return np.array([brightness, bass, level.std(), attacks])


def _n_sessions(mean: int, generator: np.random.Generator) -> int:
    """Draws from a Pareto distribution around the mean, cut at ten times the mean."""
    return min(1 + int(mean / 2 * (1 + generator.pareto(2.0))), 10 * mean)


class _Simulation:
    def __init__(
        self,
        track_ids: list[str],
        traits: np.ndarray,
        config: SimulationConfig,
        generator: np.random.Generator,
    ) -> None:
        self._track_ids = track_ids
        self._config = config
        self._generator = generator
        self._audible = _standardise(traits)
        shape = (len(track_ids), config.n_hidden_traits)
        self._hidden = _standardise(generator.standard_normal(shape))

    def draw_preference(self) -> tuple[np.ndarray, np.ndarray]:
        """Draws the directions that a listener likes among audible and hidden traits."""
        audible = self._direction(self._audible.shape[1])
        return audible, self._direction(self._hidden.shape[1])

    def liking(self, preference: tuple[np.ndarray, np.ndarray], with_noise: bool) -> np.ndarray:
        """Returns (n,) how much a listener likes each track, about standard normal.

        with_noise: with the random deviation of one session.
        """
        audible, hidden = preference
        if with_noise:
            audible = audible + self._config.session_noise * self._direction(len(audible))
        share = self._config.observable_share
        from_audible = self._audible @ audible / np.linalg.norm(audible)
        liking: np.ndarray = np.sqrt(share) * from_audible
        liking += np.sqrt(1 - share) * (self._hidden @ hidden)
        return liking

    def session(
        self, user: str, session: str, chosen: np.ndarray, liking: np.ndarray
    ) -> list[_Event]:
        """Returns the events of one session, a row of `chosen` each.

        In every second session the tracks after the first are recommended because of it.
        """
        generator = self._generator
        moment = FIRST_DAY + timedelta(days=float(generator.uniform(0, self._config.days)))
        is_recommended = generator.random() < 0.5
        events: list[_Event] = []
        for row in chosen:
            p_skip = 1 / (1 + np.exp(1.5 + 1.5 * liking[row]))
            p_like = 0.3 / (1 + np.exp(1.0 - 1.5 * liking[row]))
            event = "complete"
            if generator.random() < p_skip:
                event = "skip"
            elif generator.random() < p_like:
                event = "like"
            played_s = float(generator.uniform(2, 15)) if event == "skip" else LISTENED_S
            context = self._track_ids[chosen[0]] if is_recommended and events else None
            track_id = self._track_ids[row]
            events.append((user, track_id, moment, event, played_s, context, session))
            moment += timedelta(seconds=played_s + float(generator.uniform(1, 5)))
        return events

    def playlist(self, user: str, chosen: np.ndarray) -> list[_Event]:
        """Returns the events of one playlist, made on a day of the first half."""
        days = float(self._generator.uniform(0, self._config.days / 2))
        moment = FIRST_DAY + timedelta(days=days)
        session = f"{user}/favourites"
        events: list[_Event] = []
        for row in chosen:
            track_id = self._track_ids[row]
            events.append((user, track_id, moment, "playlist", None, None, session))
        return events

    def _direction(self, d: int) -> np.ndarray:
        vector = self._generator.standard_normal(d)
        unit: np.ndarray = vector / np.linalg.norm(vector)
        return unit


def _standardise(traits: np.ndarray) -> np.ndarray:
    centred = traits - traits.mean(axis=0)
    scaled: np.ndarray = centred / np.maximum(centred.std(axis=0), 1e-9)
    return scaled
