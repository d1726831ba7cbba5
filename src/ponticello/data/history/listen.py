"""What every reader gives: one `Listen` for each event a source tells of, or a `Fault` where it cannot be read.

A reader keeps what a `Listen` has room for. Addresses, countries, devices, agents and account names have none.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple

from ponticello.data.intake import FIRST_YEAR, LAST_YEAR, MILLISECONDS_FROM

MICROSECONDS = 1_000_000
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
NO_DATE = f"is not a date between {FIRST_YEAR} and {LAST_YEAR}"
NOT_NAMED = "names neither a title nor an id"
_FIRST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_LAST = datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp()
_SPELLED = re.compile(r"(\d{1,2}) ([A-Za-z]{3})[a-z]* (\d{4}),? (\d\d):(\d\d)(?::(\d\d))?$")  # 31 Dec 2019, 23:59
_MBID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_SPOTIFY = re.compile(r"(?:spotify:track:|https?://open\.spotify\.com/(?:intl-\w+/)?track/)([0-9A-Za-z]+)")


class Heard(NamedTuple):
    """What a source says of the track that was heard; None where it says nothing.

    msid: ListenBrainz's own id of a spelling, by which its feedback names a listen.
    """

    track_id: str | None = None
    mbid: str | None = None
    isrc: str | None = None
    uri: str | None = None
    path: str | None = None
    artist: str | None = None
    title: str | None = None
    album: str | None = None
    duration_s: float | None = None
    msid: str | None = None


@dataclass(frozen=True, slots=True)
class Listen:
    """One event. at_us: microseconds since 1970, UTC. user: None = the person whose export it is.

    n_times: an event that stands for so many, of which only the last has a date; else None.
    """

    heard: Heard
    at_us: int
    event: str = "play"
    played_s: float | None = None
    user: str | None = None
    session: str | None = None
    n_times: int | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """One record that cannot be used. line: from 1; in JSON arrays and databases the row."""

    line: int | None
    field: str
    value: Any
    reason: str


@dataclass(frozen=True, slots=True)
class NotMusic:
    """One record that is no listen to a track and need not be one: a podcast, a track that is still playing."""


Record = Listen | Fault | NotMusic
Records = Iterator[Record]


def moment(value: Any, zone: tzinfo = UTC) -> int | None:
    """Microseconds since 1970 of Unix seconds or milliseconds, ISO 8601 or `31 Dec 2019, 23:59`; None if it is no date.

    zone: where a text without a zone of its own was written. Dates before 1990 and after 2100 are clocks gone wrong.
    """
    seconds = number(value)
    if seconds is not None:
        seconds = seconds / 1000 if seconds >= MILLISECONDS_FROM else seconds
    elif isinstance(value, str):
        seconds = _written(value.strip(), zone)
    if seconds is None or not _FIRST <= seconds < _LAST:
        return None
    return round(seconds * MICROSECONDS)


def number(value: Any) -> float | None:
    """A finite number from a number or its text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def length(value: Any, unit: float = 1.0) -> float | None:
    """Seconds from a positive number of `unit` seconds each; None where nothing sensible is said."""
    found = number(value)
    return found * unit if found is not None and found > 0 else None


def text(value: Any) -> str | None:
    """Text, stripped; None for an empty one and for anything that is no text."""
    if not isinstance(value, str):
        return None
    return value.strip() or None


def mbid_in(value: Any) -> str | None:
    """The MusicBrainz id in a text such as an id or a musicbrainz.org address, lower-cased; None without one."""
    found = _MBID.search(value) if isinstance(value, str) else None
    return found[0].lower() if found else None


def uri_of(value: Any) -> str | None:
    """A platform's name of a track in one spelling: `spotify:track:ID` for each of Spotify's, others as they are."""
    found = text(value)
    if found is None:
        return None
    spotify = _SPOTIFY.match(found)
    return f"spotify:track:{spotify[1]}" if spotify else found.rstrip("/")


def isrc_of(value: Any) -> str | None:
    """An ISRC without hyphens, upper-cased; of several the first."""
    if isinstance(value, list):
        value = value[0] if value else None
    found = text(value)
    return re.split(r"[;,\s]", found)[0].replace("-", "").upper() if found else None


def _written(value: str, zone: tzinfo) -> float | None:
    spelled = _SPELLED.match(value)
    try:
        if spelled:
            day, month, year, hour, minute, second = spelled.groups()
            number_of = MONTHS.index(month.lower()) + 1
            date = datetime(int(year), number_of, int(day), int(hour), int(minute), int(second or 0))
        else:
            date = datetime.fromisoformat(value)
        return (date if date.tzinfo else date.replace(tzinfo=zone)).timestamp()
    except (ValueError, OverflowError):
        return None
