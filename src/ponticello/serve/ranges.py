"""A file over HTTP in whole or in part: one Range, If-Range, If-None-Match, HEAD (RFC 9110, sections 13 and 14)."""

import os
import re
from collections.abc import AsyncIterator
from email.utils import formatdate
from typing import BinaryIO

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from ponticello.serve.failures import Failure

_BLOCK_BYTES = 1 << 17
_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)


def asked_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(first, end) of the bytes that a Range header asks for, end excluded; None = all of them.

    All of them also where the header asks for several ranges or cannot be read, as a server may. Failure 416 for a
    range that begins behind the end.
    """
    match = _RANGE.fullmatch(header.replace(" ", "")) if header else None
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:  # so many from the end
        start, end = max(0, size - int(last)), size
    else:
        start, end = int(first), min(size, int(last) + 1) if last else size
        if last and int(last) < start:
            return None  # not a range
    if start >= end:
        message = f"the file has {size:,} bytes, the range begins behind them"
        raise Failure(416, "range_not_satisfiable", message, {"Content-Range": f"bytes */{size}"})
    return start, end


def file_response(file: BinaryIO, media_type: str, headers: Headers, is_head: bool) -> Response:
    """The open `file`, or what `headers` ask of it; it is closed at the end. Failure 416 as `asked_range`."""
    response: Response | None = None
    try:
        response = _response(file, media_type, headers, is_head)
    finally:
        if not isinstance(response, _FromFile):
            file.close()
    return response


class _FromFile(StreamingResponse):
    """A part of a file, which is closed however this ends."""

    def __init__(self, file: BinaryIO, start: int, end: int, status: int, about: dict[str, str]) -> None:
        super().__init__(_blocks(file, start, end), status, about)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._file.close()


def _response(file: BinaryIO, media_type: str, headers: Headers, is_head: bool) -> Response:
    found = os.fstat(file.fileno())
    etag = f'"{found.st_mtime_ns:x}-{found.st_size:x}"'
    modified = formatdate(found.st_mtime, usegmt=True)
    about = {
        "Accept-Ranges": "bytes",
        "ETag": etag,
        "Last-Modified": modified,
        "Cache-Control": "private, no-cache",  # asked again each time, which costs a 304
        "Content-Type": media_type,
    }
    known = [tag.strip().removeprefix("W/") for tag in headers.get("if-none-match", "").split(",")]
    if etag in known or known == ["*"]:
        return Response(status_code=304, headers=about)
    is_same = headers.get("if-range", etag) in (etag, modified)
    part = asked_range(headers.get("range"), found.st_size) if is_same else None
    start, end = part or (0, found.st_size)
    about["Content-Length"] = str(end - start)
    if part:
        about["Content-Range"] = f"bytes {start}-{end - 1}/{found.st_size}"
    status = 206 if part else 200
    if is_head:
        return Response(status_code=status, headers=about)
    return _FromFile(file, start, end, status, about)


async def _blocks(file: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
    """The bytes from `start` to `end`; fewer if the file was cut meanwhile."""
    file.seek(start)
    while start < end:
        block = await run_in_threadpool(file.read, min(_BLOCK_BYTES, end - start))
        if not block:
            return
        start += len(block)
        yield block
