"""Who made a track, for whatever must not tell two spellings of one artist apart: splits, caps, clusters of queries."""

from collections.abc import Iterable

import polars as pl

from ponticello.data.columns import ALBUM, ARTIST, TRACK_ID
from ponticello.data.history.titles import NO_ARTIST, artist_of


def lead_artist(name: str | None) -> str:
    """The artist whom a track goes by, in small letters; "" for nobody, such as "Various Artists".

    Guests ("feat. ..."), a leading "The", case and punctuation make no other artist. Names joined otherwise stay whole:
    they may be one band's.

    >>> lead_artist("The Owls feat. Ada"), lead_artist("Ada & Bo"), lead_artist("Unknown Artist")
    ('owls', 'ada and bo', '')
    """
    lead = artist_of(name or "").name
    return "" if lead in NO_ARTIST else lead


def normalised(name: str | None) -> str:
    """A name by its letters alone: case and white space apart."""
    return " ".join((name or "").casefold().split())


def artists_of(tracks: pl.DataFrame) -> dict[str, str]:
    """{track_id: lead artist} of the tracks whose artist is known."""
    leads = zip(tracks[TRACK_ID], _leads(tracks), strict=True)
    return {track_id: lead for track_id, lead in leads if lead}


def artist_groups(tracks: pl.DataFrame) -> list[str]:
    """Each track's group: its lead artist, else its album, else itself, as `artist:...`, `album:...` or `track:...`.

    The groups of one lead artist are called by the first of its spellings in order, by case and white space alike.
    """
    leads = _leads(tracks)
    names: dict[str, str] = {}
    for lead, artist in zip(leads, _column(tracks, ARTIST), strict=True):
        names[lead] = min(names.get(lead, normalised(artist)), normalised(artist))
    groups = []
    for track_id, lead, album in zip(tracks[TRACK_ID], leads, _column(tracks, ALBUM), strict=True):
        if lead:
            groups.append(f"artist:{names[lead]}")
        elif name := normalised(album):
            groups.append(f"album:{name}")
        else:
            groups.append(f"track:{track_id}")
    return groups


def _leads(tracks: pl.DataFrame) -> list[str]:
    return [lead_artist(name) for name in _column(tracks, ARTIST)]


def _column(tracks: pl.DataFrame, name: str) -> Iterable[str | None]:
    return tracks[name] if name in tracks.columns else [None] * tracks.height
