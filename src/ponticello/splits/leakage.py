"""Checks that no held-out track or event reaches training."""

import polars as pl

from ponticello.errors import DataError
from ponticello.features.fingerprint import OTHER_ID
from ponticello.splits.assign import same_recordings
from ponticello.splits.splits import AGAIN, Splits, window, with_role
from ponticello.storage.schema import ANCHOR_ID, POSITIVE_ID, TRACK_ID
from ponticello.tracks.names import artist_groups

_N_NAMED = 3  # rows that an error names
_ROLE = "role"
_OTHER_ROLE = "other_role"


def check_no_leak(
    splits: Splits,
    tracks: pl.DataFrame,
    pairs: pl.DataFrame | None,
    events: pl.DataFrame | None,
    duplicates: pl.DataFrame | None = None,
) -> list[str]:
    """Raises DataError, with the first rows, if a held-out track or event can reach training.

    pairs: anchor_id, positive_id, as mined for training. events: as meant for training; None skips
    either check. duplicates: as from `near_duplicates`, beside MusicBrainz ids and ISRCs.

    Refused: a pair or an event of a track that is not for training; an event not before the moment
    that ends training, which may be the user's own; one recording in two roles; and, where whole
    artists are held out, an artist or album in two roles. Official splits (of a column) may tear
    artists and recordings: they are not refused but returned, one sentence each.
    """
    notes = _check_roles(splits, tracks, duplicates)
    train_ids = with_role(splits, "train")
    if pairs is not None:
        are_train = pl.col(ANCHOR_ID).is_in(train_ids) & pl.col(POSITIVE_ID).is_in(train_ids)
        outside = pairs.filter(~are_train).select(ANCHOR_ID, POSITIVE_ID)
        _refuse(outside, "a training pair holds a track that is not for training")
    if events is not None:
        outside = events.filter(~pl.col(TRACK_ID).is_in(train_ids))
        _refuse(outside, "a training event is on a track that is not for training")
        late = events.filter(window(splits, events).ne_missing("train"))
        limit = f"{splits.train_until}"
        if splits.listeners is not None:
            limit = "the last sessions of its listener"
        if splits.shares is not None:
            limit = "among the likes that are drawn for training"
        _refuse(late, f"a training event is not before {limit}")
    return notes


def _check_roles(
    splits: Splits, tracks: pl.DataFrame, duplicates: pl.DataFrame | None
) -> list[str]:
    is_official = splits.scheme.tracks == "column"
    roles = pl.DataFrame(
        list(splits.roles.items()), schema={TRACK_ID: pl.String, _ROLE: pl.String}, orient="row"
    )
    notes = []
    if splits.scheme.tracks != "track":
        groups = tracks.select(TRACK_ID, group=pl.Series(artist_groups(tracks), dtype=pl.String))
        groups = groups.join(roles, on=TRACK_ID)
        torn = groups.filter(pl.col(_ROLE).n_unique().over("group") > 1).sort("group", TRACK_ID)
        if not is_official:
            _refuse(torn, "an artist or album is in two roles")
        elif torn.height:
            n_groups = torn["group"].n_unique()
            notes.append(f"{n_groups:,} artists or albums are in two roles of the official split.")
    copies = _copies_in_two_roles(same_recordings(tracks, duplicates), roles)
    if not is_official:
        _refuse(copies, "one recording is in two roles")
    elif copies.height:
        notes.append(
            f"{copies.height:,} pairs of tracks of one recording are in two roles of the official "
            "split."
        )
    return notes


def _copies_in_two_roles(duplicates: pl.DataFrame, roles: pl.DataFrame) -> pl.DataFrame:
    other_roles = roles.rename({TRACK_ID: OTHER_ID, _ROLE: _OTHER_ROLE})
    pairs = duplicates.join(roles, on=TRACK_ID).join(other_roles, on=OTHER_ID)
    apart = pairs.filter(pl.col(_ROLE) != pl.col(_OTHER_ROLE))
    return apart.select(TRACK_ID, _ROLE, OTHER_ID, _OTHER_ROLE).sort(TRACK_ID, OTHER_ID)


def _refuse(rows: pl.DataFrame, what: str) -> None:
    if rows.height:
        named = []
        for row in rows.head(_N_NAMED).to_dicts():
            named.append(", ".join(f"{column}={value}" for column, value in row.items()))
        raise DataError(f"{what} ({rows.height} rows): {'; '.join(named)}; {AGAIN}")
