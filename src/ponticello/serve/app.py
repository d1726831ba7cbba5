"""The service: one application over one library with the explorer's files, run by uvicorn."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from fastapi.responses import FileResponse
from fastapi.staticfiles import StaticFiles

from ponticello.serve import metrics
from ponticello.serve.errors import add_error_handlers
from ponticello.serve.metrics import Measured, Metrics
from ponticello.serve.projection import ProjectionCache
from ponticello.serve.routes import audio, library, playlists, search, subsonic, uploads
from ponticello.serve.routes.audio import Decoder, Waveforms
from ponticello.serve.routes.uploads import Uploads
from ponticello.serve.schemas import Error
from ponticello.serve.security import SecurityMiddleware, SecurityPolicy, security_policy_for
from ponticello.serve.snapshot import LibraryWatcher, Snapshot

logger = logging.getLogger(__name__)
EXPLORER = Path(__file__).parent / "explorer"
_DESCRIPTION = (
    "Search a music library by words, tracks and sounds; recommend; and say why. "
    "Errors are {code, message}."
)
_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Error} for status in (400, 401, 403, 404, 409, 413, 421, 422, 500, 503)
}


def run_service(
    root: Path,
    host: str = "127.0.0.1",
    port: int = 8321,
    *,
    token: str | None = None,
    allowed_hosts: Sequence[str] = (),
    settings: Sequence[str] = (),
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serves the library at `root` until Ctrl-C or SIGTERM.

    port: 0 = any free one. on_start: called with the URL once the server listens.
    ConfigError for a public address without a token, LibraryError if there is no library.
    """
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of malformed bodies
    torch.set_num_threads(1)  # concurrent queries: more threads would wait for each other
    app = create_app(root, security_policy_for(host, token, allowed_hosts), settings)
    snapshot = app.state.live.now()
    if snapshot.index is not None and snapshot.service.one_space:
        logger.warning(snapshot.service.one_space)
    config = uvicorn.Config(
        app,
        host=host.strip("[]"),
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=30,
        limit_concurrency=1_000,
    )
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(uvicorn.Server(config), on_start))


async def _run(server: uvicorn.Server, on_start: Callable[[str], None] | None) -> None:
    running = asyncio.create_task(server.serve())
    while not server.started and not running.done():
        await asyncio.sleep(0.02)
    if server.started and server.servers and on_start is not None:
        address, port = server.servers[0].sockets[0].getsockname()[:2]
        host = f"[{address}]" if ":" in address else address
        on_start(f"http://{host}:{port}/")
    await running


def create_app(root: Path, policy: SecurityPolicy, settings: Sequence[str] = ()) -> FastAPI:
    """Returns the application that serves the library at `root`; LibraryError if there is none.

    settings: as `Library.open`. From start-up on, the folder is watched and a new index is taken
    up without an error.
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
    decoder = Decoder(live.now().library.folder.config.limits)
    app.state.live = live
    app.state.maps = ProjectionCache()
    app.state.metrics = Metrics()
    app.state.uploads = Uploads(decoder)
    app.state.waveforms = Waveforms(decoder)
    _count_swaps(live, app.state.metrics)
    add_error_handlers(app, root)
    # `library` comes last: an id may hold slashes, and its /api/tracks/{id} would take .../audio
    # for the end of one.
    for module in (search, audio, uploads, playlists, subsonic, metrics, library):
        app.include_router(module.router)

    @app.get("/", include_in_schema=False)
    def explorer() -> FileResponse:
        return FileResponse(EXPLORER / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/static", StaticFiles(directory=EXPLORER, check_dir=False))
    app.add_middleware(SecurityMiddleware, policy=policy)
    app.add_middleware(Measured, metrics=app.state.metrics)
    return app


def _count_swaps(live: LibraryWatcher, numbers: Metrics) -> None:

    def note(snapshot: Snapshot) -> None:
        numbers.index.clear()
        if snapshot.generation is not None:
            numbers.index.labels(snapshot.generation).set(1)
        numbers.n_tracks.set(snapshot.tracks.height)
        numbers.n_indexed.set(0 if snapshot.index is None else len(snapshot.index.track_ids))

    note(live.now())
    live.on_swap += [note, lambda _: numbers.swaps.inc()]
    live.on_failure.append(lambda _: numbers.swap_failures.inc())
