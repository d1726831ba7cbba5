"""The names and types of every table's columns, in one place.

Types are those a value must have once read: text, text list, number, time (UTC).
"""

from dataclasses import dataclass
from typing import Literal

# tracks
TRACK_ID = "track_id"
PATH = "path"
TITLE = "title"
ARTIST = "artist"
ALBUM = "album"
GENRES = "genres"
TAGS = "tags"
MACHINE_TAGS = "machine_tags"  # written by a tagger, never by a person
LANGUAGE = "language"
LYRICS = "lyrics"
DESCRIPTION = "description"
RELEASE_DATE = "release_date"
DURATION_S = "duration_s"
MBID = "mbid"
ISRC = "isrc"

# interactions
USER_ID = "user_id"
PLAYED_AT = "played_at"
EVENT = "event"
PLAYED_S = "played_s"
WEIGHT = "weight"
CONTEXT_TRACK_ID = "context_track_id"
SESSION_ID = "session_id"
N_TIMES = "n_times"  # the number of plays that one event counts; null for a single play

# pairs
ANCHOR_ID = "anchor_id"
POSITIVE_ID = "positive_id"
N_USERS = "n_users"
SOURCE = "source"

EVENTS = ("play", "complete", "like", "collect", "skip", "dislike", "playlist")
POSITIVE_EVENTS = ("complete", "like", "collect", "playlist")  # `play` counts too, if it lasted

WEIGHT_LIMIT = 1_000_000  # of one event, so that millions of them still add up within 64 bits

Kind = Literal["text", "texts", "number", "time"]


@dataclass(frozen=True)
class Table:
    """What one table holds: its known columns and their kinds, and those a row cannot lack."""

    name: str
    kinds: dict[str, Kind]
    required: tuple[str, ...]


TRACKS = Table(
    "tracks",
    {
        TRACK_ID: "text",
        PATH: "text",
        TITLE: "text",
        ARTIST: "text",
        ALBUM: "text",
        GENRES: "texts",
        TAGS: "texts",
        MACHINE_TAGS: "texts",
        LANGUAGE: "text",
        LYRICS: "text",
        DESCRIPTION: "text",
        RELEASE_DATE: "text",
        DURATION_S: "number",
        MBID: "text",
        ISRC: "text",
    },
    required=(TRACK_ID,),
)

INTERACTIONS = Table(
    "interactions",
    {
        USER_ID: "text",
        TRACK_ID: "text",
        PLAYED_AT: "time",
        EVENT: "text",
        PLAYED_S: "number",
        WEIGHT: "number",
        CONTEXT_TRACK_ID: "text",
        SESSION_ID: "text",
    },
    required=(USER_ID, TRACK_ID, PLAYED_AT),
)
