"""What the service gives back. docs/api.md shows each."""

from typing import Any

from pydantic import BaseModel


class Error(BaseModel):
    """Every error: a code for programs, which never changes, and a line for people."""

    code: str
    message: str


class Track(BaseModel):
    """One track of the catalogue. row: of the index; null = not in it."""

    track_id: str
    title: str | None
    artist: str | None
    album: str | None
    genres: list[str]
    tags: list[str]
    machine_tags: list[str]
    duration_s: float | None
    has_audio: bool
    row: int | None


class WholeTrack(Track):
    """A track with every other column of the catalogue."""

    more: dict[str, Any]


class Part(BaseModel):
    """What one term of the question, or one track of a listener, adds to a score."""

    term: int | None = None
    track_id: str | None = None
    title: str | None = None
    text: str | None = None
    weight: float = 1.0
    semantic: float
    preference: float


class Why(BaseModel):
    """The parts add up to the result's; n_listeners: who like the track, null where too few to tell."""

    parts: list[Part]
    shared_tags: list[str]
    n_listeners: int | None


class Result(Track):
    """One track of an answer; score = semantic + preference."""

    rank: int
    score: float
    semantic: float
    preference: float
    why: Why


class Answer(BaseModel):
    """A ranked list. blend: what was used; generation: of the index that answered."""

    results: list[Result]
    k: int
    offset: int
    has_more: bool
    blend: float
    generation: str
    took_ms: float


class Answers(BaseModel):
    """One answer, or error, a question."""

    answers: list[Answer | Error]


class Segment(BaseModel):
    """The part of a track that fits the question best."""

    start_s: float
    end_s: float
    semantic: float
    preference: float


class Explained(BaseModel):
    """A result as it would stand in an answer, whatever its rank, which is 0 here."""

    result: Result
    segment: Segment | None


class Tracks(BaseModel):
    """A page of the catalogue."""

    tracks: list[Track]
    n_total: int


class Listener(BaseModel):
    """One listener of the log."""

    user_id: str
    n_liked: int
    n_events: int


class Listeners(BaseModel):
    """Listeners of the log, those who like most tracks first. simulated: some are made up."""

    listeners: list[Listener]
    n_total: int
    simulated: bool


class FitListener(BaseModel):
    """A listener whom a track would suit; has_met: they played it before."""

    user_id: str
    score: float
    semantic: float
    preference: float
    has_met: bool


class AudienceAnswer(BaseModel):
    """Who would like a track, of n_listeners asked."""

    listeners: list[FitListener]
    n_listeners: int
    simulated: bool


class Step(Track):
    """A track of a path. similarity: to the next one, 0 to 1; null for the last."""

    similarity: float | None


class Path(BaseModel):
    """From one track to another in steps."""

    tracks: list[Step]


class Map(BaseModel):
    """Every track of the index on two plane maps, x and y in turn, 0 to 65535. movers: rows, those that moved most
    from one map to the other first. While the maps are being drawn, ready is false and the rest is empty.
    """

    generation: str
    ready: bool
    kind: str
    n: int
    track_ids: list[str]
    titles: list[str | None]
    artists: list[str | None]
    semantic: list[int]
    preference: list[int] | None
    movers: list[int]


class Column(BaseModel):
    """A column that filters may name."""

    name: str
    kind: str


class Limits(BaseModel):
    """What an upload may be."""

    upload_bytes: int
    upload_seconds: float


class About(BaseModel):
    """What there is to ask, and what is wrong with it."""

    name: str
    version: str
    n_tracks: int
    n_indexed: int
    n_listeners: int
    n_events: int
    listeners_are_simulated: bool
    has_preference: bool
    blend: float
    generation: str | None
    min_listeners: int
    columns: list[Column]
    filter_values: dict[str, list[str]]
    problems: list[Error]
    can_search_text: bool
    can_hear: bool
    limits: Limits
