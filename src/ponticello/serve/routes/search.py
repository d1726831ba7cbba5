"""The routes that return ranked lists, explanations, paths and maps."""

import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from starlette.convertors import Convertor, register_url_convertor

from ponticello.errors import PonticelloError
from ponticello.search.results import Result
from ponticello.search.service import QueryTerm, ResolvedQuery
from ponticello.serve import schemas
from ponticello.serve.catalog import tracks_of
from ponticello.serve.errors import APIError, api_error_from
from ponticello.serve.snapshot import Snapshot


class _Id(Convertor[str]):
    """`{track_id:id}`: any id; Starlette's `path` takes an empty one, and no line end."""

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())
_SCORE_FIELDS = ("rank", "score", "semantic", "preference")
router = APIRouter(prefix="/api")


def snapshot_of(request: Request) -> Snapshot:
    """Returns the snapshot that this request is answered from, to its end."""
    snapshot: Snapshot = request.app.state.live.now()
    return snapshot


class SearchRoutes:
    """A snapshot with the uploads that the terms of a query may name."""

    def __init__(self, request: Request) -> None:
        self.snapshot = snapshot_of(request)
        self.service = self.snapshot.service
        self._uploads = request.app.state.uploads

    def answer(
        self, request: schemas.SearchRequest | schemas.RecommendRequest
    ) -> schemas.RankedList:
        """Returns the ranked list of terms, a user or recent tracks, all from one generation."""
        started = time.perf_counter()
        if isinstance(request, schemas.SearchRequest):
            query = self.resolve_terms(request)
        else:
            query = self.resolve_user(request.user_id, request.recent, request.exclude)
        fields = request.model_dump(include={"offset", "per_artist", "where"})
        results = self.service.rank(query, request.k, request.blend, **fields)
        return schemas.RankedList(
            results=self.results(query, results, results.blend),
            k=request.k,
            offset=request.offset,
            has_more=results.has_more,
            blend=results.blend,
            generation=self.snapshot.generation or "",
            duration_ms=round(1000 * (time.perf_counter() - started), 3),
        )

    def answers(
        self, batch: schemas.SearchBatchRequest | schemas.RecommendBatchRequest
    ) -> schemas.RankedLists:
        """Returns the answer of each question, or its error."""
        answers: list[schemas.RankedList | schemas.Error] = []
        for question in batch.questions:
            try:
                answers.append(self.answer(question))
            except (APIError, PonticelloError) as error:
                root = self.snapshot.library.folder.root
                answers.append(schemas.Error.model_validate(api_error_from(error, root)))
        return schemas.RankedLists(answers=answers)

    def resolve_terms(self, request: schemas.SearchRequest) -> ResolvedQuery:
        """Encodes the terms of a query."""
        terms = []
        for term in request.terms:
            sound = None
            if term.upload_id is not None:
                sound = self._uploads.query(term.upload_id, self.snapshot.space_ids)
            fields = term.model_dump(exclude={"upload_id"})
            terms.append(QueryTerm(**fields, sound=sound))
        return self.service.resolve_terms(terms, request.exclude)

    def resolve_user(
        self, user_id: str | None, recent: Sequence[str] | None, exclude: Sequence[str] = ()
    ) -> ResolvedQuery:
        """Returns the profile of a user of the log, or of the recent tracks."""
        if user_id is not None:
            return self.service.resolve_user(user_id, exclude)
        return self.service.resolve_recent(recent or (), exclude)

    def results(
        self, query: ResolvedQuery, results: Sequence[Result], blend: float
    ) -> list[schemas.Result]:
        """Returns results with all their fields and explanations."""
        track_ids = [result.track_id for result in results]
        tracks = tracks_of(self.snapshot, track_ids)
        explanations = self.service.explain(query, track_ids, blend)
        answers = []
        for result, track, explanation in zip(results, tracks, explanations, strict=True):
            scores = {name: getattr(result, name) for name in _SCORE_FIELDS}
            answers.append(schemas.Result(**track, **scores, why=explanation))
        return answers


Now = Annotated[Snapshot, Depends(snapshot_of)]
Searching = Annotated[SearchRoutes, Depends()]
IdInPath = Annotated[str, Path(max_length=500)]
KInQuery = Annotated[int, Query(ge=1, le=schemas.MAX_K)]
BlendInQuery = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]
WhereInQuery = Annotated[list[schemas.Filter], Query(max_length=16)]


def page_fields(
    k: KInQuery = 10,
    offset: Annotated[int, Query(ge=0, le=schemas.MAX_OFFSET)] = 0,
    blend: BlendInQuery = None,
    per_artist: Annotated[int | None, Query(ge=1, le=schemas.MAX_K)] = None,
    where: WhereInQuery = [],  # noqa: B006  # FastAPI copies it
) -> dict[str, Any]:
    """Returns the fields of a `Page` out of a query string."""
    return {"k": k, "offset": offset, "blend": blend, "per_artist": per_artist, "where": where}


PageInQuery = Annotated[dict[str, Any], Depends(page_fields)]


@router.get("/search", summary="Search by words")
def search(
    searching: Searching,
    page: PageInQuery,
    text: Annotated[str, Query(min_length=1, max_length=2_000)],
) -> schemas.RankedList:
    """The tracks that match these words best."""
    return searching.answer(schemas.SearchRequest(terms=[schemas.Term(text=text)], **page))


@router.post("/search", summary="Search by several terms")
def search_terms(searching: Searching, query: schemas.SearchRequest) -> schemas.RankedList:
    """Words, tracks, segments and uploads together; a negative weight means unwanted."""
    return searching.answer(query)


@router.post("/search/batch", summary="Several searches at once")
def search_batch(searching: Searching, batch: schemas.SearchBatchRequest) -> schemas.RankedLists:
    """One answer, or error, per query, all from the same generation."""
    return searching.answers(batch)


@router.get("/tracks/{track_id:id}/similar", summary="Tracks like this one")
def similar(searching: Searching, page: PageInQuery, track_id: IdInPath) -> schemas.RankedList:
    """The tracks nearest to a track, without itself and its copies."""
    terms = [schemas.Term(track_id=track_id)]
    return searching.answer(schemas.SearchRequest(terms=terms, **page))


@router.get("/recommend/{user_id:id}", summary="For a listener of the log")
def recommend(searching: Searching, page: PageInQuery, user_id: IdInPath) -> schemas.RankedList:
    """Tracks that a listener has not played and would like."""
    return searching.answer(schemas.RecommendRequest(user_id=user_id, **page))


@router.post("/recommend", summary="For a listener, or for some recent tracks")
def recommend_for(searching: Searching, query: schemas.RecommendRequest) -> schemas.RankedList:
    """As for a listener of the log; `recent` are the tracks that somebody played or likes."""
    return searching.answer(query)


@router.post("/recommend/batch", summary="Several listeners at once")
def recommend_batch(
    searching: Searching, batch: schemas.RecommendBatchRequest
) -> schemas.RankedLists:
    """One answer, or error, per listener, all from the same generation."""
    return searching.answers(batch)


@router.post("/explain", summary="Why a track has its score")
def explain(searching: Searching, body: schemas.ExplainRequest) -> schemas.ExplanationResponse:
    """The components of a track's score, and the ten seconds of the track that match best."""
    service = searching.service
    if body.query is not None:
        query = searching.resolve_terms(body.query)
        blend = service.resolve_blend(body.query.blend)
    else:
        query = searching.resolve_user(body.user_id, body.recent)
        blend = service.resolve_blend(body.blend)
    result = service.score_track(query, body.track_id, blend)
    segment = service.best_segment(query, body.track_id, blend)
    results = searching.results(query, [result], blend)
    return schemas.ExplanationResponse(result=results[0], segment=segment)


@router.get("/tracks/{track_id:id}/audience", summary="Who would like this track")
def audience(
    now: Now, track_id: IdInPath, k: KInQuery = 20, blend: BlendInQuery = None
) -> schemas.AudienceAnswer:
    """The listeners whose profile matches a track best, whether they have played it or not."""
    service = now.service
    service.require_track(track_id)
    return schemas.AudienceAnswer(
        listeners=service.audience(track_id, k, blend),
        n_listeners=len(service.audience_profiles[0]),
        simulated=service.history.is_simulated,
    )


@router.get("/path", summary="From one track to another")
def path(
    now: Now,
    start: Annotated[str, Query(alias="from", max_length=500)],
    end: Annotated[str, Query(alias="to", max_length=500)],
    n: Annotated[int, Query(ge=2, le=50)] = 8,
    blend: BlendInQuery = None,
) -> schemas.Path:
    """Tracks that lead from one to another, each near the one before."""
    steps = now.service.path(start, end, n, blend)
    fields = tracks_of(now, [track_id for track_id, _ in steps])
    tracks = [
        schemas.Step(**track, similarity=similarity)
        for track, (_, similarity) in zip(fields, steps, strict=True)
    ]
    return schemas.Path(tracks=tracks)


@router.get("/map", summary="Every track on two maps", response_model=schemas.Map)
def maps(request: Request, now: Now) -> Response:
    """Two plane maps, semantic and preference; `ready` is false while they are being drawn."""
    return Response(request.app.state.maps.map_of(now), media_type="application/json")
