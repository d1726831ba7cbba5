"""A service to ask in a test: in this process, or listening on a free port of 127.0.0.1."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient

from ponticello.features.store import read_manifest, write_manifest
from ponticello.library import Library
from ponticello.serve.app import create_app
from ponticello.serve.security import security_policy_for
from ponticello.storage.schema import TRACK_ID

TOKEN = "a-token-of-the-tests-0123456789"
NAME = "http://127.0.0.1"


def make_app(root: Path, token: str | None = None) -> FastAPI:
    """The application over the library at `root`, for this machine only."""
    return create_app(root, security_policy_for("127.0.0.1", token))


@contextmanager
def client_of(app: FastAPI, **options: Any) -> Iterator[TestClient]:
    """A client in this process; the app is started and stopped around it."""
    with TestClient(app, base_url=NAME, **options) as client:
        yield client


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The address of the app on a free port, served by a thread of this process."""
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", access_log=False)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started and thread.is_alive():
        thread.join(0.02)
    assert server.started, "the server did not start"
    try:
        yield f"{NAME}:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(30)


def rename(library: Library, column: str, old_id: str, new_id: str) -> None:
    """Renames a track (`TRACK_ID`) or a listener (`USER_ID`) throughout the library, and embeds."""
    folder = library.folder
    new_column = pl.col(column).replace({old_id: new_id})
    tables = [folder.interactions]
    if column == TRACK_ID:
        tables.append(folder.tracks)
        write_manifest(folder.mels, read_manifest(folder.mels).with_columns(new_column))
    for table in tables:
        pl.read_parquet(table).with_columns(new_column).write_parquet(table)
    library.embed("semantic", "preference")
