"""serve: the library as a service, and the explorer over it."""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ponticello.cli.options import HERE, LibraryOption, SetOption

if TYPE_CHECKING:
    import uvicorn

TOKEN_VARIABLE = "PONTICELLO_TOKEN"


def register(app: typer.Typer) -> None:
    """Adds this file's command."""
    app.command("serve")(serve)


def serve(
    library: LibraryOption = HERE,
    host: Annotated[
        str, typer.Option(help="The address to listen on; a public one needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 = any that is free.")] = 8321,
    token_file: Annotated[
        Path | None,
        typer.Option(help=f"A file with the token; else the variable {TOKEN_VARIABLE}; else none."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name the service is reached by; may be repeated."),
    ] = None,
    open_browser: Annotated[
        bool, typer.Option("--open", help="Open the explorer in the browser.")
    ] = False,
    settings: SetOption = None,
) -> None:
    """Serves the library and its explorer. For this machine only, unless told otherwise.

    \b
    Example:
    ponticello serve -L my-library --open
    """
    server = build_server(
        library, host, port, read_token(token_file), allow_host or (), settings or ()
    )
    typer.echo(f"serving {library.resolve().name}; Ctrl-C ends it", err=True)
    run_server(server, open_browser=open_browser)


def read_token(token_file: Path | None) -> str | None:
    """The token of a file, else of the environment, else none; ConfigError for an empty file."""
    from ponticello.errors import ConfigError

    if token_file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    token = token_file.read_text(encoding="utf-8").strip()
    if not token:
        raise ConfigError(f"{token_file} is empty; it must hold the token")
    return token


def build_server(
    library: Path,
    host: str,
    port: int,
    token: str | None,
    hosts: "list[str] | tuple[str, ...]" = (),
    settings: "list[str] | tuple[str, ...]" = (),
) -> "uvicorn.Server":
    """A server that is ready to run; ConfigError for a public address without a token, LibraryError
    for no library.
    """
    import torch
    import uvicorn

    from ponticello.serve.app import create_app
    from ponticello.serve.security import security_policy_for

    torch.set_num_threads(
        1
    )  # many questions at once: threads that wait for each other cost more than they do
    app = create_app(library, security_policy_for(host, token, hosts), settings)
    return uvicorn.Server(
        uvicorn.Config(
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
    )


def run_server(server: "uvicorn.Server", *, open_browser: bool = False) -> None:
    """Runs until Ctrl-C or SIGTERM; says where, once it listens."""
    import asyncio
    import webbrowser

    async def run() -> None:
        running = asyncio.create_task(server.serve())
        while not server.started and not running.done():
            await asyncio.sleep(0.02)
        if server.started and server.servers:
            address = server.servers[0].sockets[0].getsockname()
            name = f"[{address[0]}]" if ":" in address[0] else address[0]
            print(f"http://{name}:{address[1]}/", flush=True)
            if open_browser:
                webbrowser.open(f"http://{name}:{address[1]}/")
        await running

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        sys.exit(0)
