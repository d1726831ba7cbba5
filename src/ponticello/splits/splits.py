"""What is held out: tracks by role, and events by time. Written to disk once, and known by its
hash.

No code but this file looks at the moments: ask `window`, `before_test`, `before_validation` and
`in_test`, which know both ways to hold out events.

When the log is held out: one moment for all listeners, or the last sessions of each.
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
from ponticello.tracks.catalog import read_stored_table
from ponticello.tracks.names import artist_groups

_MICROSECONDS_A_MINUTE = 60_000_000
_LEAST_SESSIONS = 3  # one to train on, one to choose by, one to test on
_EVENTS_AT_ONCE = 10_000_000  # sorted in memory, by whole listeners
_DAY = "day"


@dataclass(frozen=True)
class Window:
    """Which events count: those before `until` (UTC), or each before the moment of its listener;
    with neither, all.

    A listener whom `listeners` does not name has no event that counts.
    """

    until: datetime | None = None
    listeners: Mapping[str, datetime] | None = None


def moment(events: pl.DataFrame | pl.LazyFrame, share: float) -> datetime | None:
    """The moment with `share` of the events before it, fewer if others fall on the same moment;
    None without events.

    events: played_at. Days are counted first, and then only the events of one day sorted.
    """
    at = events.lazy().select(PLAYED_AT)
    days = (
        at.group_by(pl.col(PLAYED_AT).dt.date().alias(_DAY))
        .agg(n=pl.len())
        .sort(_DAY)
        .collect(engine="streaming")
    )
    n = int(days["n"].sum())
    if not n:
        return None
    place = min(int(share * n + 1e-9), n - 1)
    before = (
        days.with_columns(before=pl.col("n").cum_sum() - pl.col("n"))
        .filter(pl.col("before") <= place)
        .row(-1)
    )
    times = at.filter(pl.col(PLAYED_AT).dt.date() == before[0]).collect(engine="streaming")[
        PLAYED_AT
    ]
    found: datetime = times.sort()[place - before[2]]
    return found


def last_sessions(
    events: pl.DataFrame | pl.LazyFrame, gap_min: float
) -> dict[str, tuple[datetime, datetime]]:
    """By listener, the moments (UTC) at which the last session but one and the last session begin.

    events: user_id and played_at. A session ends where the listener's next event of any kind comes
    more than `gap_min` minutes later; a session_id is not looked at, because one may last for
    months.
    A listener with fewer than three sessions gets, twice, the first moment after all of them:
    nothing is held out.
    """
    heard = events.lazy().select(USER_ID, PLAYED_AT)
    n_parts = ceil(int(heard.select(pl.len()).collect().item()) / _EVENTS_AT_ONCE) or 1
    found: dict[str, tuple[datetime, datetime]] = {}
    for part in range(n_parts):
        own = heard if n_parts == 1 else heard.filter(pl.col(USER_ID).hash() % n_parts == part)
        found |= _last_sessions(own.collect(engine="streaming"), gap_min)
    return dict(sorted(found.items()))


def _last_sessions(heard: pl.DataFrame, gap_min: float) -> dict[str, tuple[datetime, datetime]]:
    """`last_sessions` of events that hold all of their listeners'."""
    gap = pl.duration(microseconds=round(gap_min * _MICROSECONDS_A_MINUTE))
    heard = heard.sort(USER_ID, PLAYED_AT)
    begins = (pl.col(PLAYED_AT).diff().over(USER_ID) > gap).fill_null(True)
    sessions = heard.with_columns(begins=begins).group_by(USER_ID).agg(
        n=pl.col("begins").sum(),
        begins=pl.col(PLAYED_AT).filter("begins").tail(2),
        after=pl.col(PLAYED_AT).max() + pl.duration(microseconds=1),
    )  # fmt: skip
    enough = pl.col("n") >= _LEAST_SESSIONS
    moments = sessions.sort(USER_ID).select(
        USER_ID,
        pl.when(enough).then(pl.col("begins").list.first()).otherwise("after").alias("train_until"),
        pl.when(enough)
        .then(pl.col("begins").list.last())
        .otherwise("after")
        .alias("validation_until"),
    )
    return {
        user: (train_until, validation_until)
        for user, train_until, validation_until in moments.iter_rows()
    }


AGAIN = "make the splits again"
_SESSION_GAP_MIN = PairsConfig().session_gap_min
_N_NAMED = 3  # tracks an error names
_TIME = pl.Datetime("us", "UTC")
_LISTENERS = {USER_ID: pl.String(), "train_until": _TIME, "validation_until": _TIME}


@dataclass(frozen=True)
class Scheme:
    """How tracks and events are held out, as in `SplitsConfig`; `column` is empty unless the tracks
    go by one.
    """

    tracks: str = "artist"
    column: str = ""
    events: str = "time"

    def __str__(self) -> str:
        held = {
            "artist": "whole artists",
            "track": "single tracks",
            "column": f"the tracks of column {self.column!r}",
        }
        when = {"time": "events by time", "last-session": "each listener's last session"}
        return f"{held[self.tracks]} and {when[self.events]}"


@dataclass(frozen=True)
class Splits:
    """The role of every track, and the moments (UTC) before which an event is training or
    validation.
    """

    roles: dict[
        str, str
    ]  # track_id -> "train", "validation" or "test"; a track without one is not used
    train_until: (
        datetime | None
    )  # None: there was no listening history, or each listener has moments of their own
    validation_until: datetime | None
    listeners: dict[str, tuple[datetime, datetime]] | None = (
        None  # user_id -> the same two; None: one for all
    )
    scheme: Scheme = Scheme()
    n_without_role: int = 0  # tracks, all of a column that names no role for them


def make_splits(
    tracks: pl.DataFrame,
    interactions: pl.DataFrame | pl.LazyFrame | None,
    config: SplitsConfig,
    previous: Splits | None = None,
    *,
    duplicates: pl.DataFrame | None = None,
    session_gap_min: float = _SESSION_GAP_MIN,
) -> Splits:
    """Roles of tracks and moments of events, the same for the same rows in any order.

    Tracks, by `config.tracks`: `roles_by_group` of artists or of single tracks, or
    `roles_by_column`. Events, by `config.events`: the moments with the configured shares of events
    before them, or `last_sessions`.
    previous: a track keeps the role it had. duplicates: as `near_duplicates` gives them; tracks of
    one recording, by
        these or by a MusicBrainz id or an ISRC they share, get the same one if they have none yet.
        A column's roles are taken as they are.

    ConfigError: a share, moment or column that cannot be used. LibraryError: `previous` was made
    another way, or the column gives a track another role than it had.

        splits = make_splits(read_tracks(folder), None, SplitsConfig())
    """
    scheme = Scheme(
        config.tracks, config.column if config.tracks == "column" else "", config.events
    )
    if previous and previous.roles and previous.scheme != scheme:
        raise LibraryError(
            f"splits.parquet holds out {previous.scheme}; the settings say {scheme}: {_start_over()}, or set them back"
        )
    known = previous.roles if previous else {}
    if config.tracks == "column":
        roles = roles_by_column(tracks, config.column)
        _refuse_moved(known, roles, config.column)
    else:
        singles = [f"track:{track_id}" for track_id in tracks[TRACK_ID]]
        groups = artist_groups(tracks) if config.tracks == "artist" else singles
        roles = roles_by_group(tracks, groups, duplicates, known, config)
    n_without_role = tracks.height - len(roles)
    if config.events == "last-session":
        listeners = (
            None if interactions is None else last_sessions(interactions, session_gap_min) or None
        )
        return Splits(roles, None, None, listeners, scheme, n_without_role)
    if config.validation_time_quantile < config.train_time_quantile:
        raise ConfigError(
            "splits.validation_time_quantile must not be below splits.train_time_quantile; raise it"
        )
    events = pl.DataFrame(schema={PLAYED_AT: _TIME}) if interactions is None else interactions
    moments = (
        moment(events, config.train_time_quantile),
        moment(events, config.validation_time_quantile),
    )
    return Splits(roles, *moments, None, scheme, n_without_role)


_UNREADABLE = (pa.ArrowException, pl.exceptions.PolarsError, LibraryError)


def save_splits(folder: LibraryPaths, splits: Splits) -> None:
    """Writes splits.parquet: track_id and role, with the rest and a SHA-256 of it all beside them.

    Listeners' own moments go to splits-listeners.parquet, which the same SHA-256 covers.
    """
    rows = sorted(splits.roles.items())
    table = pa.table(
        {
            TRACK_ID: pa.array([row[0] for row in rows], pa.string()),
            "role": pa.array([row[1] for row in rows], pa.string()),
        }
    )
    notes = {
        "moments": json.dumps(_moments(splits)),
        "scheme": json.dumps(astuple(splits.scheme)),
        "n_without_role": str(splits.n_without_role),
        "sha256": splits_sha256(splits),
    }
    if splits.listeners is not None:
        with atomic_write(_listeners_file(folder)) as temporary:
            _listeners_table(splits.listeners).write_parquet(temporary, compression="zstd")
    with atomic_write(folder.splits) as temporary:
        pa.parquet.write_table(table.replace_schema_metadata(notes), temporary, compression="zstd")
    if splits.listeners is None:
        _listeners_file(folder).unlink(missing_ok=True)


def load_splits(folder: LibraryPaths) -> Splits | None:
    """What `save_splits` wrote, or None if it never did; DataError if a file was changed or damaged
    since.

    A file that names no scheme is of a version that had only the default one.
    """
    if not folder.splits.is_file():
        return None
    problem = DataError(f"{folder.splits.name} does not fit its own SHA-256; delete it and {AGAIN}")
    try:
        table = pa.parquet.read_table(folder.splits)
        notes = {
            key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()
        }
        first, second = (
            None if at is None else datetime.fromisoformat(at)
            for at in json.loads(notes["moments"])
        )
        scheme = Scheme(*json.loads(notes["scheme"])) if "scheme" in notes else Scheme()
        own = scheme.events == "last-session" and _listeners_file(folder).is_file()
        rows = table.to_pydict()
        splits = Splits(
            dict(zip(rows[TRACK_ID], rows["role"], strict=True)),
            first,
            second,
            _read_listeners(_listeners_file(folder)) if own else None,
            scheme,
            int(notes.get("n_without_role", 0)),
        )
        whole = notes.get("sha256") == splits_sha256(splits)
    except (*_UNREADABLE, OSError, KeyError, ValueError, TypeError, AttributeError):
        raise problem from None
    if not whole:
        raise problem
    return splits


def splits_sha256(splits: Splits) -> str:
    """The SHA-256, in hex, of everything in `splits`, whatever the order of tracks and listeners."""
    content: list[object] = [sorted(splits.roles.items()), _moments(splits)]
    if (splits.listeners, splits.scheme, splits.n_without_role) != (
        None,
        Scheme(),
        0,
    ):  # the default keeps its hash
        own = None if splits.listeners is None else sorted(splits.listeners.items())
        content += [astuple(splits.scheme), own, splits.n_without_role]
    return hashlib.sha256(json.dumps(content, default=datetime.isoformat).encode()).hexdigest()


def describe(splits: Splits) -> str:
    """One sentence for reports: what is held out, with counts and moments.

    >>> describe(Splits({"a": "train", "b": "test"}, None, None))
    'Held out: whole artists and events by time; 1 train, 0 validation and 1 test tracks; no listening history.'
    """
    counts = Counter(splits.roles.values())
    tracks = ", ".join(f"{counts[role]:,} {role}" for role in ("train", "validation"))
    unused = f" ({splits.n_without_role:,} more have no role)" if splits.n_without_role else ""
    if splits.listeners is not None:
        n_held = sum(
            train_until < test_from for train_until, test_from in splits.listeners.values()
        )
        moments = f"the last two sessions of {n_held:,} of {len(splits.listeners):,} listeners"
    elif splits.train_until is None or splits.validation_until is None:
        moments = "no listening history"
    else:
        moments = (
            f"training before {splits.train_until:%Y-%m-%d %H:%M} UTC, "
            f"test from {splits.validation_until:%Y-%m-%d %H:%M} UTC"
        )
    return f"Held out: {splits.scheme}; {tracks} and {counts['test']:,} test tracks{unused}; {moments}."


def window(splits: Splits, events: pl.DataFrame) -> pl.Series:
    """(events.height,) "train", "validation" or "test" for each event's time, whatever its track;
    null for nowhere.

    events: played_at, and user_id where listeners have moments of their own. A listener such splits
    do not know, whose
    events are newer than the splits, has none: null, so that no event is trained on that may be
    measured later.
    DataError: there are events, but the splits were made without a listening history.

        test = interactions.filter(window(splits, interactions) == "test")
    """
    if splits.train_until is None and splits.listeners is None:
        if events.height:
            raise DataError(
                f"the splits were made without a listening history, so no moment ends training; {AGAIN}"
            )
        return pl.Series("window", dtype=pl.String)
    at, known = pl.col(PLAYED_AT), pl.lit(True)
    train_until, validation_until = (
        pl.lit(splits.train_until, _TIME),
        pl.lit(splits.validation_until, _TIME),
    )
    if splits.listeners is not None:
        moments = _listeners_table(splits.listeners)
        events = events.select(USER_ID, PLAYED_AT).join(
            moments, on=USER_ID, how="left", maintain_order="left"
        )
        train_until, validation_until = pl.col("train_until"), pl.col("validation_until")
        known = train_until.is_not_null()
    when = (
        pl.when(at < train_until)
        .then(pl.lit("train"))
        .when(at < validation_until)
        .then(pl.lit("validation"))
    )
    return events.select(window=pl.when(known).then(when.otherwise(pl.lit("test")))).to_series()


def before_validation(splits: Splits, events: pl.DataFrame) -> pl.DataFrame:
    """The events of the training window, on any track; errors as `window`."""
    return events.filter(window(splits, events) == "train")


def before_test(splits: Splits, events: pl.DataFrame) -> pl.DataFrame:
    """The events of the training and the validation window, on any track; errors as `window`."""
    return events.filter(window(splits, events).is_in(["train", "validation"]))


def in_test(splits: Splits, events: pl.DataFrame) -> pl.DataFrame:
    """The events of the test window, on any track; errors as `window`."""
    return events.filter(window(splits, events) == "test")


def training_window(splits: Splits) -> Window:
    """What `before_validation` keeps, for logs that are not in memory."""
    own = splits.listeners
    return Window(
        splits.train_until,
        None if own is None else {user: first for user, (first, _) in own.items()},
    )


def window_before_test(splits: Splits) -> Window:
    """What `before_test` keeps, for logs that are not in memory."""
    own = splits.listeners
    return Window(
        splits.validation_until,
        None if own is None else {user: second for user, (_, second) in own.items()},
    )


def one_window_earlier(splits: Splits) -> Splits:
    """`splits` with the validation window in the place of the test window, to choose on as one
    tests later.

    To be asked only about events before the test window (`before_test`): it takes later ones for
    its test window too.
    """
    own = splits.listeners
    listeners = None if own is None else {user: (first, first) for user, (first, _) in own.items()}
    return replace(splits, validation_until=splits.train_until, listeners=listeners)


def with_role(splits: Splits, *roles: str) -> list[str]:
    """The ids of the tracks that have one of `roles`."""
    return [track_id for track_id, role in splits.roles.items() if role in roles]


def train_events(interactions: pl.DataFrame, splits: Splits) -> pl.DataFrame:
    """The events a model may learn from: on train tracks, in the training window; DataError if that
    is not known.
    """
    return before_validation(splits, interactions).filter(
        pl.col(TRACK_ID).is_in(with_role(splits, "train"))
    )


def _start_over() -> str:
    return "delete splits.parquet, run `ponticello mine-pairs` and train again"


def _refuse_moved(known: dict[str, str], roles: dict[str, str], column: str) -> None:
    """Refuses a column that came to give tracks another role than the one they had."""
    moved = [
        (track_id, role)
        for track_id, role in sorted(known.items())
        if roles.get(track_id, role) != role
    ]
    if moved:
        named = "; ".join(
            f"{track_id} was {role} and is {roles[track_id]}" for track_id, role in moved[:_N_NAMED]
        )
        raise LibraryError(f"column {column!r} moves {len(moved)} tracks: {named}; {_start_over()}")


def _moments(splits: Splits) -> list[str | None]:
    return [
        None if at is None else at.isoformat()
        for at in (splits.train_until, splits.validation_until)
    ]


def _listeners_file(folder: LibraryPaths) -> Path:
    return folder.splits.with_name("splits-listeners.parquet")


def _listeners_table(listeners: dict[str, tuple[datetime, datetime]]) -> pl.DataFrame:
    rows = [(user, *moments) for user, moments in sorted(listeners.items())]
    return pl.DataFrame(rows, schema=_LISTENERS, orient="row")


def _read_listeners(path: Path) -> dict[str, tuple[datetime, datetime]]:
    return {
        user: (first, second)
        for user, first, second in read_stored_table(path).select(*_LISTENERS).iter_rows()
    }
