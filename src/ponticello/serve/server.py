"""Runs the service: a uvicorn server over one library."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch
import uvicorn

from ponticello.serve.app import create_app
from ponticello.serve.security import security_policy_for


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
