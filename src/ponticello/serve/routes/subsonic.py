"""The sonicSimilarity extension of OpenSubsonic, for players that support it.

Their songs' ids must be this library's track ids. Similarity is semantic: the cosine in the space
of stage one, moved from [-1, 1] to [0, 1]. Source:
https://opensubsonic.netlify.app/docs/extensions/sonicsimilarity/
"""

from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from ponticello.errors import PonticelloError
from ponticello.search.service import QueryTerm
from ponticello.serve.catalog import tracks_of
from ponticello.serve.errors import APIError, api_error_from
from ponticello.serve.routes.search import Now
from ponticello.serve.snapshot import Snapshot

VERSION = version("ponticello")
API_VERSION = "1.16.1"
# Error codes of the Subsonic API by HTTP status: a parameter is missing, there is no such song.
_CODES = {400: 10, 404: 70}
_GENERIC = 0  # any other error
MAX_SIMILAR = 500
MAX_STEPS = 50
router = APIRouter(prefix="/rest", tags=["OpenSubsonic"])


class Genre(BaseModel):
    """A genre by its name."""

    name: str


class Child(BaseModel):
    """A song, with the fields that the catalogue has."""

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
    """A song, and its similarity: 1 = the same, 0.5 = unrelated, 0 = the opposite."""

    entry: Child
    similarity: float


class SubsonicError(BaseModel):
    """An error. code: 10 a parameter is missing, 70 there is no such song, 0 anything else."""

    code: int
    message: str


class Extension(BaseModel):
    """An extension of the API, and its versions that the service supports."""

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


def _matches(snapshot: Snapshot, track_ids: Sequence[str], of: str) -> list[SonicMatch]:
    matches = []
    for track in tracks_of(snapshot, track_ids):
        duration_s = track["duration_s"]
        song = Child(
            id=track["track_id"],
            title=track["title"] or track["track_id"],
            artist=track["artist"],
            album=track["album"],
            genre=next(iter(track["genres"]), None),
            genres=[Genre(name=genre) for genre in track["genres"]],
            duration=None if duration_s is None else round(duration_s),
        )
        similarity = snapshot.service.similarity(of, track["track_id"], 0.0)
        matches.append(SonicMatch(entry=song, similarity=round(similarity, 6)))
    return matches


def _song(snapshot: Snapshot, name: str, track_id: str | None) -> str:
    if not track_id:
        raise APIError(400, "invalid", f"the parameter {name} is missing")
    if track_id not in snapshot.service.index.rows:
        raise APIError(404, "not_found", "there is no such song, or it is not in the index")
    return track_id


def _count(text: str | None, default: int, least: int, most: int) -> int:
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and int(text) >= least):
        raise APIError(422, "invalid", f"count must be a whole number from {least}")
    return min(int(text), most)


def _respond(now: Snapshot, find_matches: Callable[[], list[SonicMatch]]) -> Envelope:
    """Returns the songs, or an error, which Subsonic sends with status 200."""
    try:
        return Envelope(body=Body(sonicMatch=find_matches()))
    except (APIError, PonticelloError) as error:
        failure = api_error_from(error, now.library.folder.root)
    code = _CODES.get(failure.status, _GENERIC)
    refusal = SubsonicError(code=code, message=failure.message)
    return Envelope(body=Body(status="failed", error=refusal))


_JSON: dict[str, Any] = {"response_model": Envelope, "response_model_exclude_none": True}


@router.get("/getSonicSimilarTracks", summary="Songs that sound alike", **_JSON)
@router.get("/getSonicSimilarTracks.view", include_in_schema=False, **_JSON)
def similar(now: Now, id: str | None = None, count: str | None = None) -> Envelope:
    """Up to `count` songs (10; 500 at most) most like the song `id`, most alike first."""

    def find() -> list[SonicMatch]:
        track_id = _song(now, "id", id)
        k = _count(count, 10, 1, MAX_SIMILAR)
        results = now.service.search([QueryTerm(track_id=track_id)], k, 0.0)
        return _matches(now, [result.track_id for result in results], track_id)

    return _respond(now, find)


@router.get("/findSonicPath", summary="Songs from one to another", **_JSON)
@router.get("/findSonicPath.view", include_in_schema=False, **_JSON)
def path(
    now: Now, startSongId: str | None = None, endSongId: str | None = None, count: str | None = None
) -> Envelope:
    """Up to `count` songs (25; 50 at most), both ends included; similarity is to the first."""

    def find() -> list[SonicMatch]:
        start = _song(now, "startSongId", startSongId)
        end = _song(now, "endSongId", endSongId)
        n = _count(count, 25, 2, MAX_STEPS)
        if start == end:
            return _matches(now, [start], start)
        steps = now.service.path(start, end, n, 0.0)
        return _matches(now, [track_id for track_id, _ in steps], start)

    return _respond(now, find)


@router.get("/getOpenSubsonicExtensions", summary="Supported extensions", **_JSON)
@router.get("/getOpenSubsonicExtensions.view", include_in_schema=False, **_JSON)
def extensions() -> Envelope:
    """The extensions of OpenSubsonic that this service has."""
    return Envelope(
        body=Body(openSubsonicExtensions=[Extension(name="sonicSimilarity", versions=[1])])
    )
