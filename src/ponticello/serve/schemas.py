"""Requests and responses of the service; docs/api.md shows each."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from ponticello.search.service import Explanation, SegmentScore

MAX_K = 500
MAX_OFFSET = 10_000  # pages further down are not answers any more
MAX_TERMS = 32
MAX_IDS = 1_000
MAX_BATCH = 64
MAX_SECONDS = 1e6  # s; no recording is eleven days long
# of all questions of a batch, which come in turn: a text that is not cached costs 10 ms
MAX_BATCH_TERMS = 256

Blend = Annotated[
    FiniteFloat,
    Field(ge=0, le=1, description="0 = semantic .. 1 = preference; null: the library's setting"),
]
TrackId = Annotated[str, Field(min_length=1, max_length=500)]
UserId = Annotated[str, Field(min_length=1, max_length=500)]
RecentIds = Annotated[list[TrackId], Field(min_length=1, max_length=200)]
Words = Annotated[str, Field(min_length=1, max_length=2_000)]
Filter = Annotated[
    str, Field(min_length=1, max_length=500, examples=["genres=jazz", "duration_s<300"])
]
Weight = Annotated[FiniteFloat, Field(ge=-10, le=10, description="not 0; below 0 = away from it")]


def with_examples(*examples: dict[str, Any]) -> ConfigDict:
    """Returns the settings of a model that OpenAPI shows with these examples."""
    return ConfigDict(json_schema_extra={"examples": list(examples)})


def _count(*values: object) -> int:
    return sum(value is not None for value in values)


class RequestModel(BaseModel):
    """A body that a client sends; unknown fields, such as misspelt ones, are refused."""

    model_config = ConfigDict(extra="forbid")


class ResponseModel(BaseModel):
    """A body that the service sends, read from the attributes of an object of the library."""

    model_config = ConfigDict(from_attributes=True)


class Term(RequestModel):
    """Words, a track, a segment of it or an uploaded sound; unwanted with a negative weight."""

    text: Words | None = None
    track_id: TrackId | None = None
    start_s: Annotated[FiniteFloat, Field(ge=0, le=MAX_SECONDS)] | None = None
    end_s: Annotated[FiniteFloat, Field(gt=0, le=MAX_SECONDS)] | None = None
    upload_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        if _count(self.text, self.track_id, self.upload_id) != 1:
            raise ValueError("a term is exactly one of text, track_id and upload_id")
        if _count(self.start_s, self.end_s) == 1 or (
            self.start_s is not None and self.track_id is None
        ):
            raise ValueError("start_s and end_s go together, and with track_id")
        if self.start_s is not None and self.end_s is not None and not self.start_s < self.end_s:
            raise ValueError("start_s must lie before end_s")
        if self.weight == 0:
            raise ValueError("a weight of 0 asks for nothing")
        return self


class Page(RequestModel):
    """The length and the filters of a ranked list."""

    k: Annotated[int, Field(ge=1, le=MAX_K)] = 10
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)] = 0
    blend: Blend | None = None
    per_artist: Annotated[int, Field(ge=1, le=MAX_K)] | None = None
    where: Annotated[list[Filter], Field(max_length=16)] = []
    exclude: Annotated[list[TrackId], Field(max_length=MAX_IDS)] = []


class SearchRequest(Page):
    """A question of one or more terms."""

    model_config = with_examples(
        {"terms": [{"text": "slow piano at night"}], "k": 5, "blend": 0.3, "per_artist": 1},
        {"terms": [{"text": "jazz"}, {"text": "singing", "weight": -0.5}], "where": ["tags=slow"]},
    )
    terms: Annotated[list[Term], Field(min_length=1, max_length=MAX_TERMS)]


class RecommendRequest(Page):
    """A question for a listener of the log, or for the tracks that somebody played or likes."""

    model_config = with_examples(
        {"user_id": "alice", "k": 5}, {"recent": ["track-0001", "track-0007"], "blend": 0.7}
    )
    user_id: UserId | None = None
    recent: RecentIds | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if _count(self.user_id, self.recent) != 1:
            raise ValueError("give user_id or recent, one of them")
        return self


class SearchBatchRequest(RequestModel):
    """Several questions in one request."""

    model_config = with_examples(
        {
            "questions": [
                {"terms": [{"text": "slow piano"}]},
                {"terms": [{"track_id": "track-0001"}]},
            ]
        }
    )
    questions: Annotated[list[SearchRequest], Field(min_length=1, max_length=MAX_BATCH)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        n_terms = sum(len(question.terms) for question in self.questions)
        if n_terms > MAX_BATCH_TERMS:
            raise ValueError(f"a batch has at most {MAX_BATCH_TERMS} terms in all; found {n_terms}")
        return self


class RecommendBatchRequest(RequestModel):
    """Several listeners in one request."""

    model_config = with_examples(
        {"questions": [{"user_id": "alice"}, {"recent": ["track-0001"], "k": 3}]}
    )
    questions: Annotated[list[RecommendRequest], Field(min_length=1, max_length=MAX_BATCH)]


class ExplainRequest(RequestModel):
    """Why a track has its score for a query, which has its own blend, or for a listener."""

    model_config = with_examples(
        {"query": {"terms": [{"text": "slow piano at night"}]}, "track_id": "track-0007"}
    )
    track_id: TrackId
    query: SearchRequest | None = None
    user_id: UserId | None = None
    recent: RecentIds | None = None
    blend: Blend | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if _count(self.query, self.user_id, self.recent) != 1:
            raise ValueError("give exactly one of query, user_id and recent")
        if self.query is not None and self.blend is not None:
            raise ValueError("blend goes with user_id or recent; a query has its own blend")
        return self


class Error(ResponseModel):
    """Every error: a code for programs, which never changes, and a line for people."""

    code: str
    message: str


class Track(ResponseModel):
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


class TrackDetails(Track):
    """A track with every other column of the catalogue."""

    more: dict[str, Any]


class Result(Track):
    """One track of an answer; score = semantic + preference."""

    rank: int
    score: float
    semantic: float
    preference: float
    why: Explanation


class RankedList(ResponseModel):
    """A ranked list. blend: what was used; generation: of the index that answered."""

    results: list[Result]
    k: int
    offset: int
    has_more: bool
    blend: float
    generation: str
    duration_ms: float


class RankedLists(ResponseModel):
    """One answer, or error, a question."""

    answers: list[RankedList | Error]


class ExplanationResponse(ResponseModel):
    """A track as a result of a question, whatever its rank, which is 0 here."""

    result: Result
    segment: SegmentScore | None


class Tracks(ResponseModel):
    """A page of the catalogue."""

    tracks: list[Track]
    n_total: int


class Listener(ResponseModel):
    """One listener of the log."""

    user_id: str
    n_liked: int
    n_events: int


class Listeners(ResponseModel):
    """Listeners of the log, those who like most tracks first. simulated: some are made up."""

    listeners: list[Listener]
    n_total: int
    simulated: bool


class FitListener(ResponseModel):
    """A listener whom a track would suit; already_played: they played it before."""

    user_id: str
    score: float
    semantic: float
    preference: float
    already_played: bool


class AudienceAnswer(ResponseModel):
    """The listeners who would like a track, best first, out of n_listeners."""

    listeners: list[FitListener]
    n_listeners: int
    simulated: bool


class Step(Track):
    """A track of a path. similarity: to the next one, 0 to 1; null for the last."""

    similarity: float | None


class Path(ResponseModel):
    """From one track to another in steps."""

    tracks: list[Step]


class Map(ResponseModel):
    """Every track on two maps: x and y in turn, 0 to 65535, and the rows that moved most first.
    While the maps are being drawn, ready is false and the lists are empty.
    """

    generation: str
    ready: bool
    kind: str = "t-SNE"
    n: int
    track_ids: list[str] = []
    titles: list[str | None] = []
    artists: list[str | None] = []
    semantic: list[int] = []
    preference: list[int] | None = None
    largest_shifts: list[int] = []


class Column(ResponseModel):
    """A column that filters may name."""

    name: str
    kind: str


class Limits(ResponseModel):
    """Limits of an upload."""

    upload_bytes: int
    upload_seconds: float


class About(ResponseModel):
    """The library in numbers, the columns for filters, and its problems.

    one_space: why there is no preference space; empty if there is one.
    """

    name: str
    version: str
    n_tracks: int
    n_indexed: int
    n_listeners: int
    n_events: int
    listeners_are_simulated: bool
    has_preference: bool
    one_space: str
    blend: float
    generation: str | None
    min_users: int
    columns: list[Column]
    filter_values: dict[str, list[str]]
    problems: list[Error]
    can_search_text: bool
    can_hear: bool
    limits: Limits
