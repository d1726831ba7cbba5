"""Routes about the library itself: its facts, tracks and listeners, and whether it is ready."""

from importlib.metadata import version
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request

from ponticello.serve import schemas
from ponticello.serve.catalog import browse, columns_of, common_values, track_details
from ponticello.serve.errors import APIError
from ponticello.serve.routes.search import IdInPath, Now, WhereInQuery
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
    """Numbers, settings, the columns that filters may name, and problems."""
    uploads: Uploads = request.app.state.uploads
    problems = [*now.problems, *_notices(now)]
    if request.app.state.live.trouble:
        problems.insert(0, request.app.state.live.trouble)
    has_models = not any(problem.code.startswith("model") for problem in now.problems)
    can_search_text = now.index is not None and has_models
    return schemas.About(
        name=now.library.folder.root.name,
        version=version("ponticello"),
        **library_info(now),
        one_space="" if now.index is None else now.service.one_space,
        problems=problems,
        can_search_text=can_search_text,
        can_hear=can_search_text and now.service.supports_segments,
        limits=schemas.Limits(upload_bytes=uploads.limits.n_bytes, upload_seconds=uploads.seconds),
    )


def library_info(now: Snapshot) -> dict[str, Any]:
    """Returns the fields of `About` that do not change within a snapshot."""
    if now.library_info:
        return now.library_info
    index = now.index
    config = now.library.folder.config
    history = None if index is None else now.service.history
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
    notices = {}
    if now.index is not None and not now.service.history.users:
        notices["no_listeners"] = (
            "nobody's listening is known: import a history for recommendations"
        )
    if now.tracks.height > 1 and now.tracks[ARTIST].drop_nulls().n_unique() == 1:
        notices["one_artist"] = "all tracks are by one artist: a limit per artist hides most"
    paths = now.tracks[PATH].drop_nulls()
    sample = paths.gather_every(max(1, len(paths) // _LOOKED_FOR)).head(_LOOKED_FOR).to_list()
    missing = [path for path in sample if not audio_path(now.library.folder, path).is_file()]
    if missing:
        notices["files_moved"] = (
            f"{len(missing)} of the {len(sample)} audio files checked are not where they were; "
            "scan again"
        )
    return [schemas.Error(code=code, message=message) for code, message in notices.items()]


@router.get("/api/tracks", summary="The catalogue, page by page")
def tracks(
    now: Now,
    where: WhereInQuery = [],  # noqa: B006  # FastAPI copies it
    text: Annotated[str, Query(max_length=500)] = "",
    offset: Annotated[int, Query(ge=0, le=100_000_000)] = 0,
    k: Annotated[int, Query(ge=1, le=schemas.MAX_K)] = 50,
) -> schemas.Tracks:
    """Tracks that pass the filters and hold `text` in a name, in the catalogue's order."""
    return browse(now, where, text, offset, k)


@router.get("/api/tracks/{track_id:id}", summary="All that is known of a track")
def track(now: Now, track_id: IdInPath) -> schemas.TrackDetails:
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
    n_events = np.diff(history.starts)
    page = []
    for number in np.argsort(-history.n_liked, kind="stable")[offset : offset + k]:
        page.append(
            schemas.Listener(
                user_id=history.users[number],
                n_liked=int(history.n_liked[number]),
                n_events=int(n_events[number]),
            )
        )
    return schemas.Listeners(
        listeners=page, n_total=len(history.users), simulated=history.is_simulated
    )
