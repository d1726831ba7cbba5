"""Assigns roles to tracks: by groups that share an artist or a recording, or from a column."""

import hashlib
import re
from collections import Counter, defaultdict

import polars as pl

from ponticello.config import SplitsConfig
from ponticello.errors import ConfigError
from ponticello.features.fingerprint import OTHER_ID, merge_recordings
from ponticello.listening.importers.records import parse_isrc, parse_mbid
from ponticello.storage.schema import ISRC, MBID, TRACK_ID
from ponticello.tracks.names import normalize_name

ROLES = ("test", "validation", "train")  # in the order they are filled
_ROLE_OF_VALUE = {  # of official lists, in lower case
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}\d{7}")  # country, registrant, year and number; ISO 3901
_N_NAMED = 10  # values that an error names


def roles_by_group(
    tracks: pl.DataFrame,
    groups: list[str],
    duplicates: pl.DataFrame | None,
    previous: dict[str, str],
    config: SplitsConfig,
) -> dict[str, str]:
    """Returns a role for each of `tracks`, one role per group.

    groups: (tracks.height,) names; groups that share one of `same_recordings` become one.
    previous: roles to keep; a new track joins the role of most of its group.
    Groups without a role are ordered by the SHA-256 of seed and name: to test while they fit its
    share of tracks, then to validation, then to train. A share above 0 gets the smallest group even
    if that is too large, as long as another is left to train on.

    ConfigError: the shares of test and validation sum to 1 or more.
    """
    if config.validation_share + config.test_share >= 1:
        raise ConfigError(
            "splits.validation_share and splits.test_share must sum to less than 1; lower one"
        )
    track_ids = tracks[TRACK_ID].to_list()
    members: dict[str, list[str]] = defaultdict(list)
    merged_groups = _merge_groups(track_ids, groups, same_recordings(tracks, duplicates))
    for track_id, group in zip(track_ids, merged_groups, strict=True):
        members[group].append(track_id)
    roles = {track_id: previous[track_id] for track_id in track_ids if track_id in previous}
    new_groups = {}
    for group, ids in members.items():
        counts = Counter(roles[track_id] for track_id in ids if track_id in roles)
        if not counts:
            new_groups[group] = len(ids)
            continue
        role = max(ROLES, key=lambda name: counts[name])
        for track_id in ids:
            roles.setdefault(track_id, role)
    assigned = _assign(new_groups, Counter(roles.values()), tracks.height, config)
    for group, role in assigned.items():
        roles.update(dict.fromkeys(members[group], role))
    return roles


def same_recordings(tracks: pl.DataFrame, duplicates: pl.DataFrame | None) -> pl.DataFrame:
    """Returns pairs (track_id, other_id) of one recording: by sound, MusicBrainz id or ISRC.

    duplicates: as from `near_duplicates`; None if no sound was compared.
    """
    pairs = [] if duplicates is None else list(duplicates.select(TRACK_ID, OTHER_ID).iter_rows())
    for column, read_id in ((MBID, parse_mbid), (ISRC, _complete_isrc)):
        if column not in tracks.columns:
            continue
        first_of: dict[str, str] = {}
        for track_id, value in tracks.select(TRACK_ID, column).iter_rows():
            recording = read_id(value)
            if recording and first_of.setdefault(recording, track_id) != track_id:
                pairs.append((first_of[recording], track_id))
    return pl.DataFrame(pairs, schema={TRACK_ID: pl.String, OTHER_ID: pl.String}, orient="row")


def roles_by_column(tracks: pl.DataFrame, column: str) -> dict[str, str]:
    """Returns the roles of an official list, read from a column of the tracks table.

    Values are train or training, validation, valid or val, and test, in any case; a track with
    another value has no role. ConfigError: there is no such column, or no training or test track.
    """
    if column not in tracks.columns:
        raise ConfigError(
            f"splits.column: the tracks have no column {column!r}; "
            f"choose one of {', '.join(tracks.columns)}"
        )
    values = tracks[column]
    if values.dtype.is_nested():
        values = values.clear(len(values))  # nulls: a list names no role
    values = values.cast(pl.String, strict=False)
    roles = {}
    for track_id, value in zip(tracks[TRACK_ID], values, strict=True):
        role = _ROLE_OF_VALUE.get(normalize_name(value))
        if role:
            roles[track_id] = role
    for role, meaning in (("train", "training"), ("test", "test")):
        if role not in roles.values():
            raise ConfigError(
                f"splits.column: column {column!r} names no {meaning} track; "
                f"wanted train, validation and test, found {_name_values(values)}"
            )
    return roles


def _name_values(values: pl.Series) -> str:
    distinct = sorted(values.drop_nulls().unique())
    names = ", ".join(map(repr, distinct[:_N_NAMED]))
    return f"{names}, ..." if len(distinct) > _N_NAMED else names or "no text"


def _complete_isrc(value: str | None) -> str | None:
    """Returns an ISRC in one spelling; None for other text, such as the "N/A" of a shop."""
    isrc = parse_isrc(value) or ""
    return isrc if _ISRC.fullmatch(isrc) else None


def _merge_groups(track_ids: list[str], groups: list[str], recordings: pl.DataFrame) -> list[str]:
    """Returns `groups`, with those that share a recording under the first of their sorted names."""
    schema = {TRACK_ID: pl.String, "group": pl.String}
    table = pl.DataFrame({TRACK_ID: track_ids, "group": groups}, schema)
    are_tracks = pl.col(TRACK_ID, OTHER_ID).is_in(track_ids)
    pairs = recordings.filter(pl.all_horizontal(are_tracks))
    merged = merge_recordings(table[TRACK_ID], table["group"], pairs)
    table = table.with_columns(merged=pl.Series(merged, dtype=pl.String))
    return table.select(pl.col("group").min().over("merged")).to_series().to_list()


def _assign(
    sizes: dict[str, int], n_assigned: Counter[str], n_tracks: int, config: SplitsConfig
) -> dict[str, str]:
    shares = {"test": config.test_share, "validation": config.validation_share}
    ordered = sorted(
        sizes, key=lambda group: hashlib.sha256(f"{config.seed}:{group}".encode()).digest()
    )
    counts = n_assigned.copy()
    roles = dict.fromkeys(ordered, "train")
    for group in ordered:
        for role, share in shares.items():
            if counts[role] + sizes[group] <= share * n_tracks + 1e-9:
                roles[group] = role
                break
        counts[roles[group]] += sizes[group]
    for role, share in shares.items():
        train_groups = [group for group in ordered if roles[group] == "train"]
        if share == 0 or counts[role] or not train_groups:
            continue
        smallest = min(train_groups, key=lambda group: sizes[group])
        if counts["train"] > sizes[smallest]:
            roles[smallest] = role
            counts["train"] -= sizes[smallest]
            counts[role] += sizes[smallest]
    return roles
