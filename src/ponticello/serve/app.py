"""The service: one application over one library, the explorer's files beside it."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from ponticello.serve import metrics
from ponticello.serve.errors import add_error_handlers
from ponticello.serve.metrics import Measured, Metrics
from ponticello.serve.projection import ProjectionCache
from ponticello.serve.routes import audio as sound
from ponticello.serve.routes import library as overview
from ponticello.serve.routes import playlists, subsonic, uploads
from ponticello.serve.routes import search as questions
from ponticello.serve.routes.audio import Decoder, Waveforms
from ponticello.serve.routes.uploads import Uploads
from ponticello.serve.schemas import Error
from ponticello.serve.security import SecurityMiddleware, SecurityPolicy
from ponticello.serve.snapshot import LibraryWatcher, Snapshot

EXPLORER = files("ponticello") / "serve" / "explorer"
_DESCRIPTION = (
    "Search a music library by words, tracks and sounds; recommend; and say why. "
    "Errors are {code, message}."
)
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error} for status in (400, 401, 403, 404, 409, 413, 421, 422, 500, 503)
}


def create_app(root: Path, guard: SecurityPolicy, settings: Sequence[str] = ()) -> FastAPI:
    """The application that serves the library at `root`; LibraryError if there is none.

    settings: as `Library.open`. The folder is watched from start-up on, and a new index taken up
    without an error.
    """
    live = LibraryWatcher(root, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.start()
        app.state.uploads.start()
        yield
        live.stop()
        app.state.uploads.close()

    app = FastAPI(
        title="Ponticello",
        version=version("ponticello"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # their pages fetch scripts from elsewhere
        redoc_url=None,
        responses=_ERRORS,
    )
    app.state.live, app.state.maps = live, ProjectionCache()
    decoder, app.state.metrics = Decoder(live.now().library.folder.config.limits), Metrics()
    app.state.uploads, app.state.waveforms = Uploads(decoder), Waveforms(decoder)
    _count_swaps(live, app.state.metrics)
    add_error_handlers(app, root)
    # The overview comes last: an id may hold slashes, and its /api/tracks/{id} would take .../audio
    # for the end of one.
    for part in (questions, sound, uploads, playlists, subsonic, metrics, overview):
        app.include_router(part.router)
    app.include_router(_pages())
    app.add_middleware(SecurityMiddleware, guard=guard)
    app.add_middleware(Measured, metrics=app.state.metrics)
    return app


def _count_swaps(live: LibraryWatcher, numbers: Metrics) -> None:
    """Notes the snapshot in use, and each that takes its place."""

    def noted(snapshot: Snapshot) -> None:
        n_indexed = 0 if snapshot.index is None else len(snapshot.index.track_ids)
        numbers.in_use(snapshot.generation, snapshot.tracks.height, n_indexed)

    def swapped(snapshot: Snapshot) -> None:
        numbers.swaps.inc()
        noted(snapshot)

    noted(live.now())
    live.on_swap.append(swapped)
    live.on_failure.append(lambda _: numbers.swap_failures.inc())


def _pages() -> APIRouter:
    """The explorer: one page and its files."""
    router = APIRouter(include_in_schema=False)
    folder = Path(str(EXPLORER))

    @router.get("/")
    def page() -> FileResponse:
        return FileResponse(folder / "index.html", headers={"Cache-Control": "no-cache"})

    router.mount("/static", StaticFiles(directory=folder, check_dir=False))
    return router
