"""The routes that answer with ranked lists, and what explains them."""

from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response
from starlette.convertors import Convertor, register_url_convertor

from ponticello.errors import PonticelloError
from ponticello.search.user_history import best_listeners
from ponticello.serve import schemas as asks
from ponticello.serve import schemas as shapes
from ponticello.serve.catalog import tracks_of
from ponticello.serve.errors import APIError, api_error_from
from ponticello.serve.routes.paths import path_between
from ponticello.serve.service import (
    ResolvedQuery,
    SearchService,
    best_segment,
    one_result,
    require_blend,
    require_track,
)
from ponticello.serve.snapshot import Snapshot


class _Id(Convertor[str]):
    """`{track_id:id}`: any id, also with slashes or line ends; Starlette's `path` takes an empty
    one, no line end.
    """

    regex = "(?s:.+)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", _Id())
router = APIRouter(prefix="/api")


def snapshot_of(request: Request) -> Snapshot:
    """What this request is answered from, to its end."""
    snapshot: Snapshot = request.app.state.live.now()
    return snapshot


def search_service_of(request: Request) -> SearchService:
    """Where questions are answered."""
    desk: SearchService = request.app.state.desk
    return desk


Now = Annotated[Snapshot, Depends(snapshot_of)]
AtDesk = Annotated[SearchService, Depends(search_service_of)]
TrackInPath = Annotated[str, Path(max_length=500)]
UserInPath = Annotated[str, Path(max_length=500)]
KInQuery = Annotated[int, Query(ge=1, le=asks.MAX_K)]
OffsetInQuery = Annotated[int, Query(ge=0, le=asks.MAX_OFFSET)]
BlendInQuery = Annotated[float | None, Query(ge=0, le=1, allow_inf_nan=False)]
PerArtistInQuery = Annotated[int | None, Query(ge=1, le=asks.MAX_K)]
WhereInQuery = Annotated[list[asks.Filter], Query(max_length=16)]


class PageOf:
    """A `Page` out of a query string."""

    def __init__(
        self,
        k: KInQuery = 10,
        offset: OffsetInQuery = 0,
        blend: BlendInQuery = None,
        per_artist: PerArtistInQuery = None,
        where: WhereInQuery = [],  # noqa: B006  # FastAPI copies it
    ) -> None:
        self.fields = {
            "k": k,
            "offset": offset,
            "blend": blend,
            "per_artist": per_artist,
            "where": where,
        }


InQuery = Annotated[PageOf, Depends()]


@router.get("/search", summary="Search by words")
def search(
    now: Now,
    desk: AtDesk,
    page: InQuery,
    text: Annotated[str, Query(min_length=1, max_length=2_000)],
) -> shapes.RankedList:
    """The tracks that fit these words best."""
    return desk.ask(now, asks.SearchRequest(terms=[asks.Term(text=text)], **page.fields))


@router.post("/search", summary="Search by several terms")
def compose(now: Now, desk: AtDesk, ask: asks.SearchRequest) -> shapes.RankedList:
    """Words, tracks, parts of tracks and uploads together, each wanted or, with a negative weight,
    not.
    """
    return desk.ask(now, ask)


@router.post("/search/batch", summary="Several searches at once")
def search_batch(now: Now, desk: AtDesk, batch: asks.SearchBatchRequest) -> shapes.RankedLists:
    """One answer, or error, a question, all from the same generation."""
    return shapes.RankedLists(
        answers=[_or_error(partial(desk.ask, now, ask)) for ask in batch.questions]
    )


@router.get("/tracks/{track_id:id}/similar", summary="Tracks like this one")
def similar(now: Now, desk: AtDesk, page: InQuery, track_id: TrackInPath) -> shapes.RankedList:
    """The tracks nearest to a track, itself and its copies left out."""
    return desk.ask(now, asks.SearchRequest(terms=[asks.Term(track_id=track_id)], **page.fields))


@router.get("/recommend/{user_id:id}", summary="For a listener of the log")
def recommend(now: Now, desk: AtDesk, page: InQuery, user_id: UserInPath) -> shapes.RankedList:
    """Tracks a listener has not met and would like."""
    return desk.recommend(now, asks.RecommendRequest(user_id=user_id, **page.fields))


@router.post("/recommend", summary="For a listener, or for whoever played these")
def recommend_for(now: Now, desk: AtDesk, ask: asks.RecommendRequest) -> shapes.RankedList:
    """As for a listener of the log; `recent` are the tracks somebody played or likes."""
    return desk.recommend(now, ask)


@router.post("/recommend/batch", summary="Several listeners at once")
def recommend_batch(
    now: Now, desk: AtDesk, batch: asks.RecommendBatchRequest
) -> shapes.RankedLists:
    """One answer, or error, a listener, all from the same generation."""
    return shapes.RankedLists(
        answers=[_or_error(partial(desk.recommend, now, ask)) for ask in batch.questions]
    )


@router.post("/explain", summary="Why a track scores as it does")
def explain(now: Now, desk: AtDesk, body: asks.ExplainRequest) -> shapes.ExplanationResponse:
    """The two parts of a track's score, what adds to them, and the ten seconds of it that fit best."""
    asked: ResolvedQuery
    if body.ask is not None:
        asked, blend = desk.asked(now, body.ask), require_blend(now, body.ask.blend)
    else:
        asked, blend = desk.taste(now, body.user_id, body.recent), require_blend(now, body.blend)
    result = one_result(now, asked, blend, body.track_id)
    return shapes.ExplanationResponse(
        result=result, segment=best_segment(now, asked.question, blend, body.track_id)
    )


@router.get("/tracks/{track_id:id}/audience", summary="Who would like this track")
def audience(
    now: Now, track_id: TrackInPath, k: KInQuery = 20, blend: BlendInQuery = None
) -> shapes.AudienceAnswer:
    """The listeners of the log whose profile fits a track best, new to them or not."""
    require_track(now, track_id)
    numbers, profiles = now.gathered
    best = best_listeners(
        now.asked, now.listening, numbers, profiles, track_id, k, require_blend(now, blend)
    )
    listeners = [
        shapes.FitListener(
            user_id=each.user_id,
            score=each.score,
            semantic=each.semantic,
            preference=each.preference,
            has_met=each.has_met,
        )
        for each in best
    ]
    return shapes.AudienceAnswer(
        listeners=listeners, n_listeners=len(numbers), simulated=now.listening.is_simulated
    )


@router.get("/path", summary="From one track to another")
def path(
    now: Now,
    start: Annotated[str, Query(alias="from", max_length=500)],
    end: Annotated[str, Query(alias="to", max_length=500)],
    n: Annotated[int, Query(ge=2, le=50)] = 8,
    blend: BlendInQuery = None,
) -> shapes.Path:
    """Tracks that lead from one to another, each near the one before."""
    found = path_between(now, start, end, n, require_blend(now, blend))
    fields = tracks_of(now, [track_id for track_id, _ in found])
    return shapes.Path(
        tracks=[
            shapes.Step(**each, similarity=near)
            for each, (_, near) in zip(fields, found, strict=True)
        ]
    )


@router.get("/map", summary="Every track on two maps", response_model=shapes.Map)
def maps(request: Request, now: Now) -> Response:
    """Where every track lies by meaning and by taste; `ready` is false while the maps are being
    drawn.
    """
    return Response(request.app.state.maps.map_of(now), media_type="application/json")


def _or_error(answer: Callable[[], shapes.RankedList]) -> shapes.RankedList | shapes.Error:
    try:
        return answer()
    except APIError as failure:
        return shapes.Error(code=failure.code, message=failure.message)
    except PonticelloError as error:
        told = api_error_from(error)
        return shapes.Error(code=told.code, message=told.message)
