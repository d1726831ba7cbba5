"""The check that nothing held out can reach training, run on what training is about to read."""

import polars as pl

from ponticello.errors import DataError
from ponticello.features.fingerprint import OTHER_ID
from ponticello.splits.assign import same_recordings
from ponticello.splits.splits import AGAIN, Splits, window, with_role
from ponticello.storage.schema import ANCHOR_ID, POSITIVE_ID, TRACK_ID
from ponticello.tracks.names import artist_groups

_N_NAMED = 3  # rows an error names
_ROLE = "role"
_OTHER_ROLE = "other_role"


def check_no_leak(
    splits: Splits,
    tracks: pl.DataFrame,
    pairs: pl.DataFrame | None,
    events: pl.DataFrame | None,
    duplicates: pl.DataFrame | None = None,
) -> list[str]:
    """Passes if nothing held out can reach training; DataError names the first rows that leak.

    pairs: anchor_id, positive_id, as mined for training. events: as meant for training. duplicates:
    as
        `near_duplicates` gives them, beside which tracks of one MusicBrainz id or ISRC are one
        recording. What is None is not looked at.
    Refused: a pair with a track that is not for training; an event on one, or not before its
    moment, which is the listener's own where the splits have those; one recording in two roles;
    and, where whole artists are held out, an artist or album in two roles. Official splits (a
    column's) are what they are: their torn artists and recordings are not refused but given back,
    one sentence each.
    """
    official = splits.scheme.tracks == "column"
    roles = pl.DataFrame(
        list(splits.roles.items()), schema={TRACK_ID: pl.String, _ROLE: pl.String}, orient="row"
    )
    notes = []
    if splits.scheme.tracks != "track":
        groups = tracks.select(TRACK_ID, group=pl.Series(artist_groups(tracks), dtype=pl.String))
        groups = groups.join(roles, on=TRACK_ID)
        torn = groups.filter(pl.col(_ROLE).n_unique().over("group") > 1).sort("group", TRACK_ID)
        if official and torn.height:
            notes.append(
                f"{torn['group'].n_unique():,} artists or albums are in two roles of the official split."
            )
        elif not official:
            _refuse(torn, "an artist or album is in two roles")
    apart = _in_two_roles(same_recordings(tracks, duplicates), roles)
    if official and apart.height:
        notes.append(
            f"{apart.height:,} pairs of tracks of one recording are in two roles of the official split."
        )
    elif not official:
        _refuse(apart, "one recording is in two roles")
    in_train = with_role(splits, "train")
    if pairs is not None:
        outside = pairs.filter(
            ~(pl.col(ANCHOR_ID).is_in(in_train) & pl.col(POSITIVE_ID).is_in(in_train))
        )
        _refuse(
            outside.select(ANCHOR_ID, POSITIVE_ID),
            "a training pair holds a track that is not for training",
        )
    if events is not None:
        outside = events.filter(~pl.col(TRACK_ID).is_in(in_train))
        _refuse(outside, "a training event is on a track that is not for training")
        late = events.filter(window(splits, events).ne_missing("train"))
        own = splits.listeners is not None
        limit = "the last sessions of its listener" if own else f"{splits.train_until}"
        _refuse(late, f"a training event is not before {limit}")
    return notes


def _in_two_roles(duplicates: pl.DataFrame, roles: pl.DataFrame) -> pl.DataFrame:
    """The pairs of one recording whose tracks have different roles, with both."""
    others = roles.rename({TRACK_ID: OTHER_ID, _ROLE: _OTHER_ROLE})
    known = duplicates.join(roles, on=TRACK_ID).join(others, on=OTHER_ID)
    apart = known.filter(pl.col(_ROLE) != pl.col(_OTHER_ROLE))
    return apart.select(TRACK_ID, _ROLE, OTHER_ID, _OTHER_ROLE).sort(TRACK_ID, OTHER_ID)


def _refuse(rows: pl.DataFrame, what: str) -> None:
    if rows.height:
        named = "; ".join(
            ", ".join(f"{k}={v}" for k, v in row.items()) for row in rows.head(_N_NAMED).to_dicts()
        )
        raise DataError(f"{what} ({rows.height} rows): {named}; {AGAIN}")
