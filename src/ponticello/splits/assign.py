"""Which tracks are held out: by whole groups that share an artist or a recording, or as an official
list says.
"""

import hashlib
import re
from collections import Counter, defaultdict

import polars as pl

from ponticello.config import SplitsConfig
from ponticello.errors import ConfigError
from ponticello.features.fingerprint import OTHER_ID
from ponticello.listening.importers.records import parse_isrc, parse_mbid
from ponticello.storage.schema import ISRC, MBID, TRACK_ID
from ponticello.tracks.names import normalize_name

ROLES = ("test", "validation", "train")  # in the order they are filled
_WORDS = {  # of official lists, in lower case
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "test": "test",
}
_ISRC = re.compile(r"[A-Z]{2}[A-Z0-9]{3}\d{7}")  # country, registrant, year and number; ISO 3901
_N_SHOWN = 10  # values an error names


def roles_by_group(
    tracks: pl.DataFrame,
    groups: list[str],
    duplicates: pl.DataFrame | None,
    known: dict[str, str],
    config: SplitsConfig,
) -> dict[str, str]:
    """A role for each of `tracks`, one role a group.

    groups: (tracks.height,) names; those of `same_recordings` become one.
    known: roles to keep; a new track of a group that has one joins the larger part of it.
    Other groups go by the SHA-256 of seed and name: to test while they fit its share of tracks,
    then to validation, then to train. A share above 0 gets the smallest group even if that is too
    large, as long as another is left to train on.

    ConfigError: test and validation leave nothing to train on.
    """
    if config.validation_share + config.test_share >= 1:
        raise ConfigError(
            "splits.validation_share and splits.test_share must sum to less than 1; lower one"
        )
    members: dict[str, list[str]] = defaultdict(list)
    joined = _merge_groups(tracks[TRACK_ID].to_list(), groups, same_recordings(tracks, duplicates))
    for track_id, group in zip(tracks[TRACK_ID], joined, strict=True):
        members[group].append(track_id)
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
    return roles | {
        track_id: role for group, role in assigned.items() for track_id in members[group]
    }


def same_recordings(tracks: pl.DataFrame, duplicates: pl.DataFrame | None) -> pl.DataFrame:
    """(track_id, other_id) of one recording: by sound, and by a MusicBrainz id or an ISRC that both
    have.

    duplicates: as `near_duplicates` gives them; None = nothing was listened to. Of many tracks with
    one id each stands beside the first.
    """
    pairs = [] if duplicates is None else list(duplicates.select(TRACK_ID, OTHER_ID).iter_rows())
    for column, read in ((MBID, parse_mbid), (ISRC, _whole_isrc)):
        first_of: dict[str, str] = {}
        for track_id, value in (
            tracks.select(TRACK_ID, column).iter_rows() if column in tracks.columns else ()
        ):
            if (found := read(value)) and first_of.setdefault(found, track_id) != track_id:
                pairs.append((first_of[found], track_id))
    return pl.DataFrame(pairs, schema={TRACK_ID: pl.String, OTHER_ID: pl.String}, orient="row")


def roles_by_column(tracks: pl.DataFrame, column: str) -> dict[str, str]:
    """The roles an official list gives, read from a column of the tracks table.

    Values are train or training, validation, valid or val, and test, in any case. A track with
    another value or none has no role.

    ConfigError: there is no such column, or it names no training or no test track.
    """
    if column not in tracks.columns:
        there = ", ".join(tracks.columns)
        raise ConfigError(
            f"splits.column: the tracks have no column {column!r}; choose one of {there}"
        )
    values = (
        tracks[column].cast(pl.String, strict=False)
        if not tracks[column].dtype.is_nested()
        else None
    )
    words = [] if values is None else [_WORDS.get(normalize_name(value)) for value in values]
    roles = {
        track_id: role for track_id, role in zip(tracks[TRACK_ID], words, strict=False) if role
    }
    for role, meaning in (("train", "training"), ("test", "test")):
        if role not in roles.values():
            kinds = [] if values is None else sorted(values.drop_nulls().unique())
            found = ", ".join(map(repr, kinds[:_N_SHOWN])) + (
                ", ..." if len(kinds) > _N_SHOWN else ""
            )
            raise ConfigError(
                f"splits.column: column {column!r} names no {meaning} track; wanted train, validation and test, "
                f"found {found or 'no text'}"
            )
    return roles


def _whole_isrc(value: str | None) -> str | None:
    """An ISRC in one spelling; None for what is none, such as the "N/A" that a shop gives to all it
    sells.
    """
    found = parse_isrc(value) or ""
    return found if _ISRC.fullmatch(found) else None


def _merge_groups(track_ids: list[str], groups: list[str], recordings: pl.DataFrame) -> list[str]:
    """`groups`, those that share a recording made one, which takes the first of their names in
    order.
    """
    group_of = dict(zip(track_ids, groups, strict=True))
    first_of: dict[str, str] = {}

    def first(group: str) -> str:
        while group in first_of:
            group = first_of[group]
        return group

    for pair in recordings.iter_rows():
        if pair[0] in group_of and pair[1] in group_of:
            one, two = sorted(first(group_of[track_id]) for track_id in pair)
            if one != two:
                first_of[two] = one
    return [first(group) for group in groups]


def _assign(
    sizes: dict[str, int], n_held: Counter[str], n_tracks: int, config: SplitsConfig
) -> dict[str, str]:
    """A role for every group (name -> tracks), on top of the tracks that roles hold already."""
    shares = {"test": config.test_share, "validation": config.validation_share}
    ordered = sorted(
        sizes, key=lambda group: hashlib.sha256(f"{config.seed}:{group}".encode()).digest()
    )
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
        if (
            share > 0
            and not counts[role]
            and spare
            and counts["train"] > sizes[min(spare, key=sizes.__getitem__)]
        ):
            group = min(spare, key=sizes.__getitem__)
            roles[group] = role
            counts["train"] -= sizes[group]
            counts[role] += sizes[group]
    return roles
