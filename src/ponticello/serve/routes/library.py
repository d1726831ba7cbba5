"""Routes about the library itself: its facts, tracks and listeners, and whether it is ready."""

from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request

from ponticello.serve import schemas
from ponticello.serve.catalog import browse, columns_of, common_values, track_details
from ponticello.serve.errors import APIError
from ponticello.serve.routes.search import Now, TrackInPath, WhereInQuery
from ponticello.serve.routes.uploads import Uploads
from ponticello.serve.snapshot import Snapshot
from ponticello.storage.schema import ARTIST, PATH
from ponticello.tracks.catalog import audio_path

router = APIRouter()
_LOOKED_FOR = 20  # files checked for music that has moved


@router.get("/healthz", summary="Is the process alive?")
def health() -> dict[str, str]:
    """Always ok while the process answers."""
    return {"status": "ok"}


@router.get(
    "/readyz", summary="Can the library be asked?", responses={503: {"model": schemas.Error}}
)
def ready(request: Request) -> dict[str, str]:
    """503 while there is no index to ask."""
    snapshot: Snapshot = request.app.state.live.now()
    if snapshot.index is None:
        # No details: this route needs no token.
        raise APIError(503, "not_ready", "there is no index to ask yet")
    return {"status": "ready"}


@router.get("/api/library", summary="What there is to ask")
def library(request: Request, now: Now) -> schemas.About:
    """Numbers, settings, what filters may name, and what is wrong."""
    folder = now.library.folder
    uploads: Uploads = request.app.state.uploads
    facts = library_info(now)
    trouble = request.app.state.live.trouble
    problems = list(now.problems)
    if trouble:
        problems.insert(0, trouble)
    has_models = not any(problem.code.startswith("model") for problem in now.problems)
    return schemas.About(
        name=folder.root.name,
        version=version("ponticello"),
        **facts,
        problems=[schemas.Error(code=problem.code, message=problem.message) for problem in problems]
        + _notices(now),
        can_search_text=now.index is not None and has_models,
        can_hear=now.index is not None and has_models and now.service.supports_segments,
        limits=schemas.Limits(upload_bytes=uploads.limits.n_bytes, upload_seconds=uploads.seconds),
    )


def library_info(now: Snapshot) -> dict[str, Any]:
    """The part of `EvaluationInfo` that does not change within a snapshot."""
    if now.library_info:
        return now.library_info
    index, config = now.index, now.library.folder.config
    history = now.service.history if index is not None else None
    has_preference = index is not None and index.has_preference
    now.library_info = {
        "n_tracks": now.tracks.height,
        "n_indexed": 0 if index is None else len(index.track_ids),
        "n_listeners": 0 if history is None else len(history.users),
        "n_events": 0 if history is None else len(history.rows),
        "listeners_are_simulated": history is not None and history.is_simulated,
        "has_preference": has_preference,
        "blend": config.search.blend if has_preference else 0.0,
        "generation": now.generation,
        "min_users": config.pairs.min_users,
        "columns": columns_of(now),
        "filter_values": common_values(now),
    }
    return now.library_info


def _notices(now: Snapshot) -> list[schemas.Error]:
    """Returns notices about the library that are no errors."""
    notices = []
    if now.index is not None and not now.service.history.users:
        message = "nobody's listening is known: import a history for recommendations"
        notices.append(schemas.Error(code="no_listeners", message=message))
    artists = now.tracks[ARTIST].drop_nulls().n_unique()
    if artists == 1 and now.tracks.height > 1:
        notices.append(
            schemas.Error(
                code="one_artist",
                message="all tracks are by one artist: a limit per artist hides most",
            )
        )
    paths = now.tracks[PATH].drop_nulls()
    looked = paths.gather_every(max(1, len(paths) // _LOOKED_FOR)).head(_LOOKED_FOR).to_list()
    missing = [path for path in looked if not audio_path(now.library.folder, path).is_file()]
    if missing:
        message = (
            f"{len(missing)} of {len(looked)} audio files looked for are not where they were; "
            "scan again"
        )
        notices.append(schemas.Error(code="files_moved", message=message))
    return notices


@router.get("/api/tracks", summary="The catalogue, page by page")
def tracks(
    now: Now,
    where: WhereInQuery = [],  # noqa: B006  # FastAPI copies it
    text: Annotated[str, Query(max_length=500)] = "",
    offset: Annotated[int, Query(ge=0, le=100_000_000)] = 0,
    k: Annotated[int, Query(ge=1, le=schemas.MAX_K)] = 50,
) -> schemas.Tracks:
    """Tracks that pass the filters and hold `text` in their title, artist or album, in the
    catalogue's order.
    """
    return browse(now, where, text, offset, k)


@router.get("/api/tracks/{track_id:id}", summary="All that is known of a track")
def track(now: Now, track_id: TrackInPath) -> schemas.TrackDetails:
    """A track with every column but where its file lies, and its lyrics."""
    return track_details(now, track_id)


@router.get("/api/listeners", summary="Who is in the log")
def listeners(
    now: Now,
    offset: Annotated[int, Query(ge=0, le=100_000_000)] = 0,
    k: Annotated[int, Query(ge=1, le=schemas.MAX_K)] = 100,
) -> schemas.Listeners:
    """Listeners, those who like most tracks first."""
    history = now.service.history
    order = np.argsort(-history.n_liked, kind="stable")[offset : offset + k]
    n_events = np.diff(history.starts)
    return schemas.Listeners(
        listeners=[
            schemas.Listener(
                user_id=history.users[number],
                n_liked=int(history.n_liked[number]),
                n_events=int(n_events[number]),
            )
            for number in order
        ],
        n_total=len(history.users),
        simulated=history.is_simulated,
    )
