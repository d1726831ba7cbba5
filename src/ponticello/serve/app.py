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

from ponticello.search.index import Query
from ponticello.serve import overview, questions
from ponticello.serve.answers import Desk
from ponticello.serve.failures import Failure, add_failures
from ponticello.serve.guard import Guard, Guarded
from ponticello.serve.live import Live, Snapshot
from ponticello.serve.maps import MapRoom
from ponticello.serve.shapes import Error

EXPLORER = files("ponticello") / "serve" / "explorer"
_DESCRIPTION = "Search a music library by words, tracks and sounds; recommend; and say why. Errors are {code, message}."
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error} for status in (401, 404, 409, 413, 421, 422, 500, 503)
}


def create_app(root: Path, guard: Guard, settings: Sequence[str] = ()) -> FastAPI:
    """The application that serves the library at `root`; LibraryError if there is none.

    settings: as `Library.open`. The folder is watched from start-up on, and a new index taken up without an error.
    """
    live = Live(root, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        live.start()
        yield
        live.stop()

    app = FastAPI(
        title="Ponticello",
        version=version("ponticello"),
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,  # their pages fetch scripts from elsewhere
        redoc_url=None,
        responses=_ERRORS,
    )
    app.state.live, app.state.maps = live, MapRoom()
    app.state.desk = Desk(sounds=_no_upload)
    add_failures(app)
    for router in (questions.router, overview.router, _pages()):
        app.include_router(router)
    app.add_middleware(Guarded, guard=guard)
    return app


def _no_upload(_: str, __: Snapshot) -> Query:
    raise Failure(404, "upload_expired", "there is no such upload any more; send the file again")


def _pages() -> APIRouter:
    """The explorer: one page and its files."""
    router = APIRouter(include_in_schema=False)
    place = Path(str(EXPLORER))

    @router.get("/")
    def page() -> FileResponse:
        return FileResponse(place / "index.html", headers={"Cache-Control": "no-cache"})

    router.mount("/static", StaticFiles(directory=place, check_dir=False))
    return router
