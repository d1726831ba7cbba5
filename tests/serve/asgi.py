"""One raw request to an application, as a hostile client would send it: any path and header, a body
without end.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from starlette.types import Message


@dataclass(frozen=True)
class Answered:
    """What came back, and how many pieces of the body were taken for it."""

    status: int
    headers: dict[str, str]
    body: bytes
    n_pieces: int

    @property
    def code(self) -> str:
        """The code of an error."""
        return str(json.loads(self.body)["code"])


async def forever(piece: bytes = b"") -> AsyncIterator[bytes]:
    """A body that goes on and on; without a piece it sends nothing more."""
    while True:
        if not piece:
            await asyncio.Event().wait()
        await asyncio.sleep(0)
        yield piece


async def pieces_of(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A body in these pieces."""
    for piece in pieces:
        yield piece


async def chained(*bodies: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """One body after the other."""
    for body in bodies:
        async for piece in body:
            yield piece


def send(
    app: FastAPI,
    method: str,
    path: str,
    query: str = "",
    headers: Sequence[tuple[bytes, bytes]] = (),
    body: AsyncIterator[bytes] | None = None,
    host: bytes | None = b"127.0.0.1",
) -> Answered:
    """Asks the app in a loop of its own. path: as a server hands it on, percent signs decoded,
    nothing tidied up.
    """
    named = [] if host is None else [(b"host", host)]
    return asyncio.run(_sent(app, method, path, query, (*named, *headers), body or pieces_of(())))


async def _sent(
    app: FastAPI,
    method: str,
    path: str,
    query: str,
    headers: Sequence[tuple[bytes, bytes]],
    body: AsyncIterator[bytes],
) -> Answered:
    scope: dict[str, Any] = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": quote(path).encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    n_pieces = 0
    is_over = False

    async def receive() -> Message:
        nonlocal n_pieces, is_over
        if is_over:
            await asyncio.Event().wait()  # the client waits for its answer
        piece = await anext(body, None)
        is_over = piece is None
        n_pieces += piece is not None
        return {"type": "http.request", "body": piece or b"", "more_body": not is_over}

    sent: list[Message] = []

    async def send_on(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send_on)
    start = sent[0]
    answered = {name.decode().lower(): value.decode("latin-1") for name, value in start["headers"]}
    return Answered(
        start["status"], answered, b"".join(each.get("body", b"") for each in sent[1:]), n_pieces
    )
