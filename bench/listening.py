"""Made-up listening of any size, straight into Parquet: few listeners and tracks make most of the
events.

Nobody's: every listener has a taste (some of 100 groups of tracks) and a busyness, every track a
popularity; both fall off as a power of their rank. Events come in sittings, in the order of time,
and each chunk depends on the seed alone.
"""

from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq

from ponticello.storage.layout import LibraryPaths, create_library

N_GROUPS = 100
TRACKS_AN_ARTIST = 10
EVENTS_A_LISTENER, EVENTS_A_TRACK = 100, 500  # on average, whatever the size
_CHUNK = 4_000_000  # events
_SITTING = 12  # events
_YEAR_S = 365 * 86_400
KINDS = {
    "play": 0.70,
    "skip": 0.12,
    "complete": 0.10,
    "like": 0.05,
    "playlist": 0.02,
    "collect": 0.01,
}


def make_library(root: Path, n_events: int, seed: int = 0) -> LibraryPaths:
    """A library with a catalogue and a log of `n_events` events of one year, at `root`, which must
    not be one yet.
    """
    folder = create_library(root, "tiny")
    n_listeners, n_tracks = (
        max(n_events // EVENTS_A_LISTENER, 100),
        max(n_events // EVENTS_A_TRACK, 1000),
    )
    track_ids = pl.Series("track_id", [f"t{number:07}" for number in range(n_tracks)])
    listener_ids = pl.Series("user_id", [f"listener-{number:08}" for number in range(n_listeners)])
    artists = [f"artist {number % (n_tracks // TRACKS_AN_ARTIST)}" for number in range(n_tracks)]
    pl.DataFrame({"track_id": track_ids, "artist": artists}).write_parquet(
        folder.tracks, compression="zstd"
    )
    busy, popular = _falling(n_listeners, 0.7, 50), _falling(n_tracks, 0.8, 30)
    n_chunks = -(-n_events // _CHUNK)
    writer = None
    for chunk in range(n_chunks):
        n = min(_CHUNK, n_events - chunk * _CHUNK)
        generator = np.random.default_rng([seed, chunk])
        events = _events(generator, n, busy, popular, (chunk / n_chunks, (chunk + 1) / n_chunks))
        rows = _rows(events, listener_ids, track_ids).to_arrow()
        writer = writer or pq.ParquetWriter(folder.interactions, rows.schema, compression="zstd")
        writer.write_table(rows, row_group_size=500_000)
    if writer is not None:
        writer.close()
    return folder


def _falling(n: int, power: float, flat: int) -> np.ndarray:
    """(n,) sums up to each rank of (rank + flat) ** -power, to 1 at the end."""
    weights = (np.arange(n) + flat) ** -power
    shares: np.ndarray = np.cumsum(weights) / weights.sum()
    return shares


def _events(
    generator: np.random.Generator,
    n: int,
    busy: np.ndarray,
    popular: np.ndarray,
    time: tuple[float, float],
) -> pl.DataFrame:
    """`n` events of one stretch of the year, with numbers for ids."""
    n_sittings = -(-n // _SITTING)
    listener = np.repeat(np.searchsorted(busy, generator.random(n_sittings)), _SITTING)[:n]
    begin = np.repeat(generator.uniform(*time, n_sittings) * _YEAR_S, _SITTING)[:n]
    place = np.arange(n) % _SITTING
    track = np.searchsorted(popular, generator.random(n))
    # Three of four events are within the listener's taste: the track of a like popularity in one of
    # their two groups.
    group = (listener * 7919 + generator.integers(2, size=n) * 31) % N_GROUPS
    within = np.minimum(track // N_GROUPS * N_GROUPS + group, len(popular) - 1)
    track = np.where(generator.random(n) < 0.75, within, track)
    before = np.where(place == 0, -1, np.roll(track, 1))
    is_set_off = generator.random(n) < 0.2
    return pl.DataFrame(
        {
            "listener": listener,
            "track": track,
            "at": (begin + place * 200 + generator.uniform(0, 60, n)).astype("int64") * 1_000_000,
            "kind": generator.choice(len(KINDS), size=n, p=list(KINDS.values())),
            "played_s": np.round(generator.gamma(4, 45, n), 1),
            "before": np.where(is_set_off, before, -1),
            "playlist": generator.integers(8, size=n),
        }
    ).sort("at", "listener", "track")


def _rows(events: pl.DataFrame, listener_ids: pl.Series, track_ids: pl.Series) -> pl.DataFrame:
    """`events` as a table of interactions."""
    kinds = pl.Series("event", list(KINDS)).gather(events["kind"])
    named = events.select(
        pl.Series("user_id", listener_ids.gather(events["listener"])),
        pl.Series("track_id", track_ids.gather(events["track"])),
        (pl.col("at") + 1_700_000_000_000_000).cast(pl.Datetime("us", "UTC")).alias("played_at"),
        kinds,
        pl.col("played_s"),
        pl.lit(None, pl.Float64).alias("weight"),
        pl.Series("context_track_id", track_ids.gather(events["before"].replace(-1, None))),
        pl.format("playlist {}", "playlist").alias("session_id"),
    )
    is_list = pl.col("event") == "playlist"
    return named.with_columns(pl.when(is_list).then("session_id").alias("session_id"))
