"""The sonicSimilarity extension of OpenSubsonic, so that players that know it can ask this service.

Their songs' ids must be this library's track ids. Similarity is of meaning, what sounds alike: the
cosine in stage one's space, from [-1, 1] to [0, 1]. Source:
https://opensubsonic.netlify.app/docs/extensions/sonicsimilarity/
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from ponticello.errors import PonticelloError
from ponticello.search.service import QueryTerm
from ponticello.serve.catalog import tracks_of
from ponticello.serve.errors import APIError
from ponticello.serve.routes.search import Now
from ponticello.serve.snapshot import Snapshot

VERSION, API_VERSION = version("ponticello"), "1.16.1"
GENERIC, MISSING, NOT_FOUND = 0, 10, 70  # error codes of the Subsonic API
MOST_SIMILAR, MOST_STEPS = 500, 50
router = APIRouter(prefix="/rest", tags=["OpenSubsonic"])


class Genre(BaseModel):
    """A genre by its name."""

    name: str


class Child(BaseModel):
    """A song, as far as the catalogue knows it."""

    id: str
    isDir: bool = False
    isVideo: bool = False
    type: str = "music"
    mediaType: str = "song"
    title: str
    artist: str | None = None
    album: str | None = None
    genre: str | None = None
    genres: list[Genre] = []
    duration: int | None = None


class SonicMatch(BaseModel):
    """A song, and how alike it sounds: 1 = the same, 0.5 = nothing in common, 0 = the opposite."""

    entry: Child
    similarity: float


class SubsonicError(BaseModel):
    """What went wrong: 10 a parameter is missing, 70 there is no such song, 0 anything else."""

    code: int
    message: str


class Extension(BaseModel):
    """An extension of the API, and the versions of it that are spoken."""

    name: str
    versions: list[int]


class Body(BaseModel):
    """Every answer; which of the last three there is depends on the question."""

    status: str = "ok"
    version: str = API_VERSION
    type: str = "ponticello"
    serverVersion: str = VERSION
    openSubsonic: bool = True
    error: SubsonicError | None = None
    sonicMatch: list[SonicMatch] | None = None
    openSubsonicExtensions: list[Extension] | None = None


class Envelope(BaseModel):
    """A `subsonic-response`."""

    model_config = ConfigDict(populate_by_name=True)
    body: Body = Field(alias="subsonic-response")


def child(track: Mapping[str, Any]) -> Child:
    """A track as a song of Subsonic's."""
    return Child(
        id=track["track_id"],
        title=track["title"] or track["track_id"],
        artist=track["artist"],
        album=track["album"],
        genre=track["genres"][0] if track["genres"] else None,
        genres=[Genre(name=genre) for genre in track["genres"]],
        duration=None if track["duration_s"] is None else round(track["duration_s"]),
    )


def matches(snapshot: Snapshot, track_ids: Sequence[str], of: str) -> list[SonicMatch]:
    """Returns these tracks, and how alike each is to the track `of`."""
    similar = []
    for track in tracks_of(snapshot, track_ids):
        similarity = snapshot.service.similarity(of, track["track_id"], 0.0)
        similar.append(SonicMatch(entry=child(track), similarity=round(similarity, 6)))
    return similar


class _Refused(Exception):
    """An error, which Subsonic sends with status 200."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.error = SubsonicError(code=code, message=message)


def _song(snapshot: Snapshot, name: str, track_id: str | None) -> str:
    """The id that the parameter `name` must be; `_Refused` if it is missing or unknown."""
    if not track_id:
        raise _Refused(MISSING, f"the parameter {name} is missing")
    if track_id not in snapshot.service.index.rows:
        raise _Refused(NOT_FOUND, "there is no such song, or it is not in the index")
    return track_id


def _count(text: str | None, default: int, least: int, most: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        raise _Refused(GENERIC, f"count must be a whole number from {least}")
    return min(int(text), most)


def _similar(snapshot: Snapshot, track_id: str | None, count: str | None) -> list[SonicMatch]:
    track_id = _song(snapshot, "id", track_id)
    k = _count(count, 10, 1, MOST_SIMILAR)
    results = snapshot.service.search([QueryTerm(track_id=track_id)], k, 0.0)
    return matches(snapshot, [result.track_id for result in results], track_id)


def _path(
    snapshot: Snapshot, start: str | None, end: str | None, count: str | None
) -> list[SonicMatch]:
    start = _song(snapshot, "startSongId", start)
    end = _song(snapshot, "endSongId", end)
    n = _count(count, 25, 2, MOST_STEPS)
    if start == end:
        return matches(snapshot, [start], start)
    steps = snapshot.service.path(start, end, n, 0.0)
    return matches(snapshot, [track_id for track_id, _ in steps], start)


def _respond(find_matches: Callable[[], list[SonicMatch]]) -> Envelope:
    try:
        return Envelope(body=Body(sonicMatch=find_matches()))
    except _Refused as refused:
        error = refused.error
    except (APIError, PonticelloError) as failure:
        error = SubsonicError(code=GENERIC, message=failure.message)
    return Envelope(body=Body(status="failed", error=error))


_JSON: dict[str, Any] = {"response_model": Envelope, "response_model_exclude_none": True}


@router.get("/getSonicSimilarTracks", summary="Songs that sound alike", **_JSON)
@router.get("/getSonicSimilarTracks.view", include_in_schema=False, **_JSON)
def similar(now: Now, id: str | None = None, count: str | None = None) -> Envelope:
    """Up to `count` songs (10; 500 at most) most like the song `id`, most alike first."""
    return _respond(lambda: _similar(now, id, count))


@router.get("/findSonicPath", summary="Songs from one to another", **_JSON)
@router.get("/findSonicPath.view", include_in_schema=False, **_JSON)
def path(
    now: Now, startSongId: str | None = None, endSongId: str | None = None, count: str | None = None
) -> Envelope:
    """Up to `count` songs (25; 50 at most) from one to another, both included; similarity is to the
    first.
    """
    return _respond(lambda: _path(now, startSongId, endSongId, count))


@router.get("/getOpenSubsonicExtensions", summary="What is spoken here", **_JSON)
@router.get("/getOpenSubsonicExtensions.view", include_in_schema=False, **_JSON)
def extensions() -> Envelope:
    """The extensions of OpenSubsonic that this service has."""
    return Envelope(
        body=Body(openSubsonicExtensions=[Extension(name="sonicSimilarity", versions=[1])])
    )
