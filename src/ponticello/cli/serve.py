"""serve: the library and its explorer over HTTP."""

import os
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from typer import Option

from ponticello.cli import options

TOKEN_VARIABLE = "PONTICELLO_TOKEN"


def serve(
    library: options.LibraryPath = options.HERE,
    host: Annotated[
        str, Option(help="The address to listen on; a public one needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(min=0, max=65535, help="0 = any free port.")] = 8321,
    token_file: Annotated[
        Path | None,
        Option(help=f"A file with the token; else the variable {TOKEN_VARIABLE}; else none."),
    ] = None,
    allow_host: Annotated[
        list[str] | None, Option(help="A further name the service is reached by; may be repeated.")
    ] = None,
    open_browser: Annotated[
        bool, Option("--open", help="Open the explorer in the browser.")
    ] = False,
    settings: options.Settings = None,
) -> None:
    """Serves the library and its explorer; without options, to this machine only.

    \b
    Example:
    ponticello serve -L my-library --open
    """
    opened = options.open_library(library, settings)
    token = read_token(token_file)

    def report_start(url: str) -> None:
        print(url, flush=True)
        if open_browser:
            webbrowser.open(url)

    typer.echo(f"serving {opened.folder.root.name}; stop with Ctrl-C", err=True)
    opened.serve(host, port, token=token, allowed_hosts=allow_host or (), on_start=report_start)


def read_token(token_file: Path | None) -> str | None:
    """Returns the token of a file, else of the environment; ConfigError for an empty file."""
    from ponticello.errors import ConfigError

    if token_file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    token = token_file.read_text(encoding="utf-8").strip()
    if not token:
        raise ConfigError(f"{token_file} is empty; it must hold the token")
    return token
