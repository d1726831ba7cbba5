"""Held-out tracks and events: roles of tracks, and the moments that end training and validation.

`splits.parquet` keeps both with a hash. Only this module compares events with the moments, which
are the same for all users or each user's own: use `window`, `before_test`, `before_validation` and
`in_test`, or `end_of_training` and `end_of_validation` for logs that are not in memory.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from math import ceil
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet

from ponticello.config import PairsConfig, SplitsConfig
from ponticello.errors import ConfigError, DataError, LibraryError
from ponticello.splits.assign import roles_by_column, roles_by_group
from ponticello.storage.files import atomic_write
from ponticello.storage.layout import LibraryPaths
from ponticello.storage.schema import PLAYED_AT, TRACK_ID, USER_ID
from ponticello.storage.tables import write_parquet
from ponticello.tracks.catalog import read_stored_table
from ponticello.tracks.names import artist_groups

AGAIN = "make the splits again"
_START_OVER = "delete splits.parquet, run `ponticello mine-pairs` and train again"
_SESSION_GAP_MIN = PairsConfig().session_gap_min
_MICROSECONDS_PER_MINUTE = 60_000_000
_MIN_SESSIONS = 3  # one to train on, one to choose by, one to test on
_MAX_SORTED_EVENTS = 10_000_000  # in memory at once, by whole users
_N_NAMED = 3  # tracks that an error names
_DAY = "day"
_TIME = pl.Datetime("us", "UTC")
_USER_MOMENTS = {USER_ID: pl.String(), "train_until": _TIME, "validation_until": _TIME}


@dataclass(frozen=True)
class Scheme:
    """How tracks and events are held out, as in `SplitsConfig`.

    column: empty unless tracks are held out by one.
    """

    tracks: str = "artist"
    column: str = ""
    events: str = "time"

    def __str__(self) -> str:
        tracks = {
            "artist": "whole artists",
            "track": "single tracks",
            "column": f"the tracks of column {self.column!r}",
        }
        events = {
            "time": "events by time",
            "last-session": "each listener's last session",
            "random": "listeners' likes at random, as the log has no times",
        }
        return f"{tracks[self.tracks]} and {events[self.events]}"


@dataclass(frozen=True)
class Splits:
    """The role of every track, and the moments (UTC) that end training and validation.

    roles: track_id -> "train", "validation" or "test"; tracks without a role are not used.
    train_until, validation_until: None without a listening history, or if users have their own.
    listeners: user_id -> the same two moments; None if all users share them.
    shares: of likes held out at random, where the log has no times: the shares of a listener's
    tracks that end training and validation, and the seed; None otherwise.
    n_without_role: tracks to which the scheme's column gives no role.
    """

    roles: dict[str, str]
    train_until: datetime | None
    validation_until: datetime | None
    listeners: dict[str, tuple[datetime, datetime]] | None = None
    scheme: Scheme = Scheme()
    n_without_role: int = 0
    shares: tuple[float, float, int] | None = None


@dataclass(frozen=True)
class RandomWindow:
    """The events of random splits that `window` puts in one of `names`."""

    splits: Splits
    names: tuple[str, ...]


Until = datetime | Mapping[str, datetime] | RandomWindow | None
"""Where a window of events ends (UTC, exclusive): a moment, or each user's own; None = nowhere.

Events of users without a moment of their own do not count.
"""


def moment(events: pl.DataFrame | pl.LazyFrame, share: float) -> datetime | None:
    """Returns the moment with `share` of the events before it; None without events.

    events: played_at. Days are counted first, so that only the events of one day are sorted.
    """
    times = events.lazy().select(PLAYED_AT)
    by_day = times.group_by(pl.col(PLAYED_AT).dt.date().alias(_DAY)).agg(n=pl.len()).sort(_DAY)
    days = by_day.collect(engine="streaming")
    n_events = int(days["n"].sum())
    if not n_events:
        return None
    position = min(int(share * n_events + 1e-9), n_events - 1)
    days = days.with_columns(n_before=pl.col("n").cum_sum() - pl.col("n"))
    day, _, n_before = days.filter(pl.col("n_before") <= position).row(-1)
    times_of_day = times.filter(pl.col(PLAYED_AT).dt.date() == day).collect(engine="streaming")
    result: datetime = times_of_day[PLAYED_AT].sort()[position - n_before]
    return result


def last_sessions(
    events: pl.DataFrame | pl.LazyFrame, gap_min: float
) -> dict[str, tuple[datetime, datetime]]:
    """Returns the moments (UTC) at which each user's last two sessions begin, by user_id.

    events: user_id and played_at. A session ends where the user's next event of any kind comes more
    than `gap_min` minutes later; a session_id is ignored, as one may last for months. A user with
    fewer than three sessions gets, twice, the first moment after them all: no session is held out.
    """
    columns = events.lazy().select(USER_ID, PLAYED_AT)
    n_events = int(columns.select(pl.len()).collect().item())
    n_partitions = ceil(n_events / _MAX_SORTED_EVENTS) or 1
    moments: dict[str, tuple[datetime, datetime]] = {}
    for number in range(n_partitions):
        partition = columns
        if n_partitions > 1:
            partition = columns.filter(pl.col(USER_ID).hash() % n_partitions == number)
        moments |= _last_sessions(partition.collect(engine="streaming"), gap_min)
    return dict(sorted(moments.items()))


def _last_sessions(events: pl.DataFrame, gap_min: float) -> dict[str, tuple[datetime, datetime]]:
    gap = pl.duration(microseconds=round(gap_min * _MICROSECONDS_PER_MINUTE))
    begins = (pl.col(PLAYED_AT).diff().over(USER_ID) > gap).fill_null(True)
    sessions = (
        events.sort(USER_ID, PLAYED_AT)
        .with_columns(begins=begins)
        .group_by(USER_ID)
        .agg(
            n=pl.col("begins").sum(),
            begins=pl.col(PLAYED_AT).filter("begins").tail(2),
            after=pl.col(PLAYED_AT).max() + pl.duration(microseconds=1),
        )
    )
    has_enough = pl.when(pl.col("n") >= _MIN_SESSIONS)
    moments = sessions.sort(USER_ID).select(
        USER_ID,
        train_until=has_enough.then(pl.col("begins").list.first()).otherwise("after"),
        validation_until=has_enough.then(pl.col("begins").list.last()).otherwise("after"),
    )
    return moments.rows_by_key(USER_ID, unique=True)


def make_splits(
    tracks: pl.DataFrame,
    interactions: pl.DataFrame | pl.LazyFrame | None,
    config: SplitsConfig,
    previous: Splits | None = None,
    *,
    duplicates: pl.DataFrame | None = None,
    session_gap_min: float = _SESSION_GAP_MIN,
) -> Splits:
    """Returns roles of tracks and moments of events, the same for the same rows in any order.

    Tracks, by `config.tracks`: `roles_by_group` of artists or of single tracks, or
    `roles_by_column`. Events, by `config.events`: the moments of the configured quantiles,
    `last_sessions`, or shares drawn at random.

    previous: tracks keep these roles. duplicates: as from `near_duplicates`; unless roles come from
    a column, tracks of one recording get one role if they have none yet.

    ConfigError: a share, quantile or column that cannot be used. LibraryError: `previous` was made
    another way, or the column gives a track another role than before.
    """
    column = config.column if config.tracks == "column" else ""
    events_scheme = _events_scheme(interactions, config, previous)
    scheme = Scheme(config.tracks, column, events_scheme)
    _refuse_another_scheme(previous, scheme)
    roles = _make_roles(tracks, config, previous.roles if previous else {}, duplicates)
    n_without_role = tracks.height - len(roles)
    if scheme.events == "last-session":
        listeners = None
        if interactions is not None:
            listeners = last_sessions(interactions, session_gap_min) or None
        return Splits(roles, None, None, listeners, scheme, n_without_role)
    if config.validation_time_quantile < config.train_time_quantile:
        raise ConfigError(
            "splits.validation_time_quantile must not be below splits.train_time_quantile; raise it"
        )
    if scheme.events == "random":
        shares = (config.train_time_quantile, config.validation_time_quantile, config.seed)
        return Splits(roles, None, None, None, scheme, n_without_role, shares)
    events = pl.DataFrame(schema={PLAYED_AT: _TIME}) if interactions is None else interactions
    train_until = moment(events, config.train_time_quantile)
    validation_until = moment(events, config.validation_time_quantile)
    return Splits(roles, train_until, validation_until, None, scheme, n_without_role)


def _refuse_another_scheme(previous: Splits | None, scheme: Scheme) -> None:
    """Raises LibraryError where tracks, or events that there were, were held out another way."""
    if previous is None or not previous.roles:
        return
    held_out = previous.scheme
    had_log = previous.train_until or previous.listeners or previous.shares
    if scheme.events == "random" and not had_log:
        held_out = replace(held_out, events="random")  # the first log turned out to have no times
    if held_out != scheme:
        raise LibraryError(
            f"splits.parquet holds out {previous.scheme}; the settings say {scheme}: "
            f"{_START_OVER}, or set them back"
        )


def _events_scheme(
    interactions: pl.DataFrame | pl.LazyFrame | None, config: SplitsConfig, previous: Splits | None
) -> str:
    """Returns how events are held out; "auto" is by time if the log's quantiles divide it."""
    if config.events != "auto":
        return config.events
    if previous and previous.roles and (previous.shares or previous.train_until):
        return previous.scheme.events
    if interactions is None:
        return "time"
    train_until = moment(interactions, config.train_time_quantile)
    if train_until is None:
        return "time"
    is_before = pl.col(PLAYED_AT) < train_until
    share = interactions.lazy().select(is_before.mean()).collect(engine="streaming").item()
    return "time" if share >= config.train_time_quantile / 2 else "random"


def _make_roles(
    tracks: pl.DataFrame,
    config: SplitsConfig,
    previous: dict[str, str],
    duplicates: pl.DataFrame | None,
) -> dict[str, str]:
    if config.tracks == "column":
        roles = roles_by_column(tracks, config.column)
        _refuse_changed_roles(previous, roles, config.column)
        return roles
    if config.tracks == "artist":
        groups = artist_groups(tracks)
    else:
        groups = [f"track:{track_id}" for track_id in tracks[TRACK_ID]]
    return roles_by_group(tracks, groups, duplicates, previous, config)


def _refuse_changed_roles(previous: dict[str, str], roles: dict[str, str], column: str) -> None:
    changed = []
    for track_id, role in sorted(previous.items()):
        if roles.get(track_id, role) != role:
            changed.append(f"{track_id} was {role} and is {roles[track_id]}")
    if changed:
        raise LibraryError(
            f"column {column!r} moves {len(changed)} tracks: {'; '.join(changed[:_N_NAMED])}; "
            f"{_START_OVER}"
        )


def save_splits(folder: LibraryPaths, splits: Splits) -> None:
    """Writes splits.parquet: track_id and role, with the rest and a SHA-256 of all in its metadata.

    Users' own moments go to splits-listeners.parquet, which the same SHA-256 covers.
    """
    roles = dict(sorted(splits.roles.items()))
    table = pa.table(
        {
            TRACK_ID: pa.array(list(roles), pa.string()),
            "role": pa.array(list(roles.values()), pa.string()),
        }
    )
    metadata = {
        "moments": json.dumps(_moments(splits)),
        "scheme": json.dumps(astuple(splits.scheme)),
        "n_without_role": str(splits.n_without_role),
        "shares": json.dumps(splits.shares),
        "sha256": splits_sha256(splits),
    }
    if splits.listeners is not None:
        write_parquet(_listeners_file(folder), _user_moments(splits.listeners))
    with atomic_write(folder.splits) as temporary:
        table = table.replace_schema_metadata(metadata)
        pa.parquet.write_table(table, temporary, compression="zstd")
    if splits.listeners is None:
        _listeners_file(folder).unlink(missing_ok=True)


def load_splits(folder: LibraryPaths) -> Splits | None:
    """Returns the saved splits, or None; DataError if a file was changed or damaged since."""
    if not folder.splits.is_file():
        return None
    try:
        splits, sha256 = _read_splits(folder)
        is_unchanged = sha256 == splits_sha256(splits)
    except (
        pa.ArrowException,
        pl.exceptions.PolarsError,
        LibraryError,
        OSError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
    ):
        is_unchanged = False
    if not is_unchanged:
        raise DataError(f"{folder.splits.name} does not fit its own SHA-256; delete it and {AGAIN}")
    return splits


def _read_splits(folder: LibraryPaths) -> tuple[Splits, str | None]:
    table = pa.parquet.read_table(folder.splits)
    metadata = {}
    for key, value in (table.schema.metadata or {}).items():
        metadata[key.decode()] = value.decode()
    train_until, validation_until = json.loads(metadata["moments"])
    tracks_scheme, column, events_scheme = json.loads(metadata["scheme"])
    scheme = Scheme(tracks_scheme, column, events_scheme)
    listeners = None
    if scheme.events == "last-session" and _listeners_file(folder).is_file():
        moments = read_stored_table(_listeners_file(folder))
        listeners = moments.select(list(_USER_MOMENTS)).rows_by_key(USER_ID, unique=True)
    rows = table.to_pydict()
    shares = json.loads(metadata["shares"])
    splits = Splits(
        roles=dict(zip(rows[TRACK_ID], rows["role"], strict=True)),
        train_until=_parse_time(train_until),
        validation_until=_parse_time(validation_until),
        listeners=listeners,
        scheme=scheme,
        n_without_role=int(metadata["n_without_role"]),
        shares=None if shares is None else tuple(shares),
    )
    return splits, metadata.get("sha256")


def _parse_time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def splits_sha256(splits: Splits) -> str:
    """Returns the SHA-256 of all of `splits` in hex, whatever the order of tracks and users."""
    content: list[object] = [sorted(splits.roles.items()), _moments(splits)]
    is_default = splits.listeners is None and splits.scheme == Scheme()
    if not is_default or splits.n_without_role:
        listeners = None if splits.listeners is None else sorted(splits.listeners.items())
        content += [astuple(splits.scheme), listeners, splits.n_without_role]
    if splits.shares is not None:
        content.append(splits.shares)
    return hashlib.sha256(json.dumps(content, default=datetime.isoformat).encode()).hexdigest()


def describe(splits: Splits) -> str:
    """Returns a sentence for reports: the scheme, with counts and moments."""
    counts = Counter(splits.roles.values())
    tracks = (
        f"{counts['train']:,} train, {counts['validation']:,} validation "
        f"and {counts['test']:,} test tracks"
    )
    unused = f" ({splits.n_without_role:,} more have no role)" if splits.n_without_role else ""
    if splits.listeners is not None:
        n_held = sum(first < second for first, second in splits.listeners.values())
        moments = f"the last two sessions of {n_held:,} of {len(splits.listeners):,} listeners"
    elif splits.shares is not None:
        first, second, seed = splits.shares
        moments = (
            f"of each listener's tracks {first:.0%} to train on and {1 - second:.0%} to test on, "
            f"seed {seed}"
        )
    elif splits.train_until is None or splits.validation_until is None:
        moments = "no listening history"
    else:
        moments = (
            f"training before {splits.train_until:%Y-%m-%d %H:%M} UTC, "
            f"test from {splits.validation_until:%Y-%m-%d %H:%M} UTC"
        )
    return f"Held out: {splits.scheme}; {tracks}{unused}; {moments}."


def window(splits: Splits, events: pl.DataFrame) -> pl.Series:
    """Returns "train", "validation" or "test" for the time of each event, whatever its track.

    events: played_at, and user_id where users have their own moments. A user that such splits do
    not know is newer than them and gets null, so that no event is trained on that may be measured
    later. DataError if there are events, but the splits were made without a listening history.

    Where likes are held out at random, an event on a validation or test track belongs to that
    window, and all events of one listener on one track belong to the same one.
    """
    if splits.shares is not None:
        return _random_window(splits, events)
    if splits.train_until is None and splits.listeners is None:
        if events.height:
            raise DataError(
                "the splits were made without a listening history, so no moment ends training; "
                f"{AGAIN}"
            )
        return pl.Series("window", dtype=pl.String)
    if splits.listeners is None:
        moments = events.select(
            PLAYED_AT,
            train_until=pl.lit(splits.train_until, _TIME),
            validation_until=pl.lit(splits.validation_until, _TIME),
        )
    else:
        moments = events.select(USER_ID, PLAYED_AT).join(
            _user_moments(splits.listeners), on=USER_ID, how="left", maintain_order="left"
        )
    name = (
        pl.when(pl.col("train_until").is_null())
        .then(None)
        .when(pl.col(PLAYED_AT) < pl.col("train_until"))
        .then(pl.lit("train"))
        .when(pl.col(PLAYED_AT) < pl.col("validation_until"))
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
    )
    return moments.select(window=name).to_series()


def _random_window(splits: Splits, events: pl.DataFrame) -> pl.Series:
    assert splits.shares is not None
    first, second, seed = splits.shares
    likes = events.select(USER_ID, TRACK_ID).unique()
    draws = []
    for user_id, track_id in likes.iter_rows():
        digest = hashlib.sha256(f"{seed}\0{user_id}\0{track_id}".encode()).digest()
        draws.append(int.from_bytes(digest[:8], "big") / 2**64)
    likes = likes.with_columns(draw=pl.Series(draws, dtype=pl.Float64))
    roles = pl.DataFrame(
        {TRACK_ID: list(splits.roles), "role": list(splits.roles.values())},
        schema={TRACK_ID: pl.String, "role": pl.String},
    )
    likes = likes.join(roles, on=TRACK_ID, how="left")
    # Without a validation window, validation tracks are tested on.
    validation = "validation" if first < second else "test"
    name = (
        pl.when(pl.col("role") == "test")
        .then(pl.lit("test"))
        .when(pl.col("role") == "validation")
        .then(pl.lit(validation))
        .when(pl.col("draw") < first)
        .then(pl.lit("train"))
        .when(pl.col("draw") < second)
        .then(pl.lit("validation"))
        .otherwise(pl.lit("test"))
    )
    named = likes.select(USER_ID, TRACK_ID, window=name)
    joined = events.select(USER_ID, TRACK_ID).join(
        named, on=[USER_ID, TRACK_ID], how="left", maintain_order="left"
    )
    return joined["window"]


def before_validation(splits: Splits, events: pl.DataFrame) -> pl.DataFrame:
    """Returns the events of the training window, on any track; errors as `window`."""
    return events.filter(window(splits, events) == "train")


def before_test(splits: Splits, events: pl.DataFrame) -> pl.DataFrame:
    """Returns the events before the test window, on any track; errors as `window`."""
    return events.filter(window(splits, events).is_in(["train", "validation"]))


def in_test(splits: Splits, events: pl.DataFrame) -> pl.DataFrame:
    """Returns the events of the test window, on any track; errors as `window`."""
    return events.filter(window(splits, events) == "test")


def end_of_training(splits: Splits) -> Until:
    """Returns the end of the window of `before_validation`, for logs that are not in memory."""
    return _end_of(splits, ("train",))


def end_of_validation(splits: Splits) -> Until:
    """Returns the end of the window of `before_test`, for logs that are not in memory."""
    return _end_of(splits, ("train", "validation"))


def _end_of(splits: Splits, names: tuple[str, ...]) -> Until:
    if splits.shares is not None:
        return RandomWindow(splits, names)
    last = len(names) - 1
    if splits.listeners is None:
        return (splits.train_until, splits.validation_until)[last]
    return {user_id: moments[last] for user_id, moments in splits.listeners.items()}


def one_window_earlier(splits: Splits) -> Splits:
    """Returns `splits` with the validation window as the test window, to tune settings on.

    Use it on events before the test window only: later ones fall into its test window too.
    """
    listeners = None
    if splits.listeners is not None:
        listeners = {user_id: (first, first) for user_id, (first, _) in splits.listeners.items()}
    shares = splits.shares
    if shares is not None:
        shares = (shares[0], shares[0], shares[2])
    return replace(splits, validation_until=splits.train_until, listeners=listeners, shares=shares)


def with_role(splits: Splits, *roles: str) -> list[str]:
    """Returns the ids of the tracks that have one of `roles`."""
    return [track_id for track_id, role in splits.roles.items() if role in roles]


def _moments(splits: Splits) -> list[str | None]:
    moments = (splits.train_until, splits.validation_until)
    return [None if at is None else at.isoformat() for at in moments]


def _listeners_file(folder: LibraryPaths) -> Path:
    return folder.splits.with_name("splits-listeners.parquet")


def _user_moments(listeners: dict[str, tuple[datetime, datetime]]) -> pl.DataFrame:
    rows = [(user_id, first, second) for user_id, (first, second) in sorted(listeners.items())]
    return pl.DataFrame(rows, schema=_USER_MOMENTS, orient="row")
