"""What is held out: whole artists, so that no test track has a sibling in training, and the last part of the log."""

import hashlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass
from datetime import datetime

import polars as pl
import pyarrow as pa
import pyarrow.parquet

from ponticello.config import SplitsConfig
from ponticello.data.columns import ALBUM, ANCHOR_ID, ARTIST, PLAYED_AT, POSITIVE_ID, TRACK_ID
from ponticello.errors import ConfigError, DataError
from ponticello.library import Folder, replacing

ROLES = ("test", "validation", "train")  # in the order they are filled
_N_NAMED = 3  # rows an error names
_AGAIN = "make the splits again"


@dataclass(frozen=True)
class Splits:
    """The role of every track, and the moments (UTC) before which an event is training or validation."""

    roles: dict[str, str]  # track_id -> "train", "validation" or "test"
    train_until: datetime | None  # None: there was no listening history
    validation_until: datetime | None


def make_splits(
    tracks: pl.DataFrame, interactions: pl.DataFrame | None, config: SplitsConfig, previous: Splits | None = None
) -> Splits:
    """Roles by artist and moments by time, the same for the same tracks in any order.

    A track's group is its artist, else its album, else itself. Groups go by the SHA-256 of seed and name: to test
    while they fit its share of tracks, then to validation, then to train. A share above 0 gets the smallest group
    even if that is too large, as long as another is left to train on.
    previous: a track keeps the role it had, and a new track of a known group joins it.
    train_until, validation_until: the moments with the configured shares of events before them.

    ConfigError: test and validation leave nothing to train on, or end before training does.

        splits = make_splits(read_tracks(folder), None, SplitsConfig())
    """
    if config.validation_share + config.test_share >= 1:
        raise ConfigError("splits.validation_share and splits.test_share must sum to less than 1; lower one")
    if config.validation_until < config.train_until:
        raise ConfigError("splits.validation_until must not be below splits.train_until; raise it")
    members: dict[str, list[str]] = defaultdict(list)
    for track_id, group in zip(tracks[TRACK_ID], _groups(tracks), strict=True):
        members[group].append(track_id)
    known = previous.roles if previous else {}
    roles = {track_id: known[track_id] for track_id in tracks[TRACK_ID] if track_id in known}
    new_groups = {}
    for group, ids in members.items():
        had = Counter(roles[track_id] for track_id in ids if track_id in roles)
        if had:
            role = max(ROLES, key=lambda role: had[role])
            roles |= {track_id: roles.get(track_id, role) for track_id in ids}
        else:
            new_groups[group] = len(ids)
    assigned = _assign(new_groups, Counter(roles.values()), tracks.height, config)
    roles |= {track_id: role for group, role in assigned.items() for track_id in members[group]}
    times = pl.Series(dtype=pl.Datetime("us", "UTC")) if interactions is None else interactions[PLAYED_AT]
    return Splits(roles, _moment(times, config.train_until), _moment(times, config.validation_until))


def save_splits(folder: Folder, splits: Splits) -> None:
    """Writes splits.parquet: track_id and role, with the two moments and a SHA-256 of it all beside them."""
    rows = sorted(splits.roles.items())
    table = pa.table(
        {
            TRACK_ID: pa.array([row[0] for row in rows], pa.string()),
            "role": pa.array([row[1] for row in rows], pa.string()),
        }
    )
    notes = {"moments": json.dumps(_moments(splits)), "sha256": _fingerprint(splits)}
    with replacing(folder.splits) as temporary:
        pa.parquet.write_table(table.replace_schema_metadata(notes), temporary, compression="zstd")


def load_splits(folder: Folder) -> Splits | None:
    """What `save_splits` wrote, or None if it never did; DataError if the file was changed or damaged since."""
    if not folder.splits.is_file():
        return None
    problem = DataError(f"{folder.splits.name} does not fit its own SHA-256; delete it and {_AGAIN}")
    try:
        table = pa.parquet.read_table(folder.splits)
        notes = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
        moments = [None if text is None else datetime.fromisoformat(text) for text in json.loads(notes["moments"])]
        rows = table.to_pydict()
        splits = Splits(dict(zip(rows[TRACK_ID], rows["role"], strict=True)), *moments)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError):
        raise problem from None
    if notes.get("sha256") != _fingerprint(splits):
        raise problem
    return splits


def train_events(interactions: pl.DataFrame, splits: Splits) -> pl.DataFrame:
    """The events a model may learn from: on train tracks, before `train_until`; DataError if that is not known."""
    return interactions.filter(_in_train(TRACK_ID, splits) & _is_early(splits, interactions))


def check_no_leak(
    splits: Splits, tracks: pl.DataFrame, pairs: pl.DataFrame | None, events: pl.DataFrame | None
) -> None:
    """Passes if nothing held out can reach training; DataError names the first rows that leak.

    pairs: anchor_id, positive_id, as mined for training. events: as meant for training. Neither is looked at if None.
    """
    roles = pl.DataFrame({TRACK_ID: list(splits.roles), "role": list(splits.roles.values())}, schema=_ROLE_SCHEMA)
    groups = tracks.select(TRACK_ID, group=pl.Series(_groups(tracks), dtype=pl.String)).join(roles, on=TRACK_ID)
    torn = groups.filter(pl.col("role").n_unique().over("group") > 1).sort("group", TRACK_ID)
    _refuse(torn, "an artist or album is in two roles")
    if pairs is not None:
        outside = pairs.filter(~(_in_train(ANCHOR_ID, splits) & _in_train(POSITIVE_ID, splits)))
        _refuse(outside.select(ANCHOR_ID, POSITIVE_ID), "a training pair holds a track that is not for training")
    if events is not None:
        _refuse(events.filter(~_in_train(TRACK_ID, splits)), "a training event is on a track that is not for training")
        late = events.filter(~_is_early(splits, events))
        _refuse(late, f"a training event is not before {splits.train_until}")


_ROLE_SCHEMA = {TRACK_ID: pl.String, "role": pl.String}


def _groups(tracks: pl.DataFrame) -> list[str]:
    """The group of every track, as `artist:...`, `album:...` or `track:...`."""
    nothing = [None] * tracks.height
    artists = tracks[ARTIST] if ARTIST in tracks.columns else nothing
    albums = tracks[ALBUM] if ALBUM in tracks.columns else nothing
    groups = []
    for track_id, artist, album in zip(tracks[TRACK_ID], artists, albums, strict=True):
        if name := _normalised(artist):
            groups.append(f"artist:{name}")
        elif name := _normalised(album):
            groups.append(f"album:{name}")
        else:
            groups.append(f"track:{track_id}")
    return groups


def _normalised(name: str | None) -> str:
    return " ".join((name or "").casefold().split())


def _assign(sizes: dict[str, int], n_held: Counter[str], n_tracks: int, config: SplitsConfig) -> dict[str, str]:
    """A role for every group (name -> tracks), on top of the tracks that roles hold already."""
    shares = {"test": config.test_share, "validation": config.validation_share}
    ordered = sorted(sizes, key=lambda group: hashlib.sha256(f"{config.seed}:{group}".encode()).digest())
    counts = n_held.copy()
    roles = dict.fromkeys(ordered, "train")
    for group in ordered:
        for role, share in shares.items():
            if counts[role] + sizes[group] <= share * n_tracks + 1e-9:
                roles[group] = role
                break
        counts[roles[group]] += sizes[group]
    for role, share in shares.items():
        spare = [group for group in ordered if roles[group] == "train"]
        if share > 0 and not counts[role] and spare and counts["train"] > sizes[min(spare, key=sizes.__getitem__)]:
            group = min(spare, key=sizes.__getitem__)
            roles[group] = role
            counts["train"] -= sizes[group]
            counts[role] += sizes[group]
    return roles


def _moment(times: pl.Series, share: float) -> datetime | None:
    """The moment with `share` of the events before it, fewer if others fall on the same moment."""
    if not len(times):
        return None
    moment: datetime = times.sort()[min(int(share * len(times) + 1e-9), len(times) - 1)]
    return moment


def _moments(splits: Splits) -> list[str | None]:
    return [None if at is None else at.isoformat() for at in (splits.train_until, splits.validation_until)]


def _fingerprint(splits: Splits) -> str:
    content = json.dumps([sorted(splits.roles.items()), _moments(splits)])
    return hashlib.sha256(content.encode()).hexdigest()


def _in_train(column: str, splits: Splits) -> pl.Expr:
    return pl.col(column).is_in([track_id for track_id, role in splits.roles.items() if role == "train"])


def _is_early(splits: Splits, events: pl.DataFrame) -> pl.Expr:
    if splits.train_until is not None:
        return pl.col(PLAYED_AT) < splits.train_until
    if events.height:
        raise DataError(f"the splits were made without a listening history, so no moment ends training; {_AGAIN}")
    return pl.lit(False)


def _refuse(rows: pl.DataFrame, what: str) -> None:
    if rows.height:
        named = "; ".join(", ".join(f"{k}={v}" for k, v in row.items()) for row in rows.head(_N_NAMED).to_dicts())
        raise DataError(f"{what} ({rows.height} rows): {named}; {_AGAIN}")
