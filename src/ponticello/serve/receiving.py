"""Receives the one file of an upload's form, within limits of size, parts and time."""

import asyncio
import logging
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.types import Message, Receive

from ponticello.serve.failures import Failure
from ponticello.serve.guard import limited_body

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each body that is no form
FIELD = "file"
MAX_PARTS = 8  # the file and what a browser's form may hold beside it
MAX_FIELD_BYTES = 4096  # of each part that is not a file


@dataclass(frozen=True)
class ReceivingLimits:
    """Limits of one upload."""

    n_bytes: int = 64 << 20  # of the whole body: half an hour of mp3, a quarter of FLAC
    receive_s: float = 300.0  # s for all of it
    idle_s: float = 15.0  # s without a byte


class _FormParser(MultiPartParser):
    """Starlette's parser with the service's error codes.

    Starlette raises one exception without a code for all of its limits, and leaves its temporary
    files open for a body that ends early.
    """

    def __init__(self, headers: Headers, body: AsyncGenerator[bytes]) -> None:
        super().__init__(headers, self._checked(body), max_part_size=MAX_FIELD_BYTES)
        self._is_complete = False

    async def _checked(self, body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        async for chunk in body:
            yield chunk
        if not self._is_complete:
            raise Failure(422, "invalid", "the form ends before its last boundary")

    def on_end(self) -> None:
        """Notes the closing boundary."""
        self._is_complete = True

    def on_part_begin(self) -> None:
        """Refuses a part beyond the limit."""
        if len(self.items) >= MAX_PARTS:
            raise Failure(413, "too_many_parts", f"a form has at most {MAX_PARTS} parts")
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Refuses a field that is too long; the parser has no other limit here."""
        try:
            super().on_part_data(data, start, end)
        except MultiPartException:
            message = f"a field beside {FIELD!r} has at most {MAX_FIELD_BYTES:,} bytes"
            raise Failure(413, "too_large", message) from None


async def receive_file(request: Request, target: Path, limits: ReceivingLimits) -> None:
    """Writes the field `file` of a multipart request to `target`, a new file.

    The body is parsed into temporary files without a name, which are closed and so deleted in any case.
    Failure: 413 too_large and too_many_parts, 408 timeout, 422 invalid. ClientDisconnect as `Request.stream`.
    """
    _check_headers(request, limits)
    receive = limited_body(_in_time(request.receive, limits), limits.n_bytes, _too_large(limits))
    async with aclosing(Request(request.scope, receive).stream()) as body:
        try:
            form = await _FormParser(request.headers, body).parse()
        except MultiPartException as error:
            message = f"the body is not the form its Content-Type announces: {error.message}"
            raise Failure(422, "invalid", message) from None
    try:
        await run_in_threadpool(_write, _file_of(form).file, target)
    finally:
        await form.close()


def _too_large(limits: ReceivingLimits) -> Failure:
    return Failure(413, "too_large", f"an upload has at most {limits.n_bytes:,} bytes")


def _check_headers(request: Request, limits: ReceivingLimits) -> None:
    """Raises a Failure for a body that is not a form, or is declared too large."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise Failure(422, "invalid", f"send multipart/form-data with the field {FIELD!r}")
    n_declared = request.headers.get("content-length", "0")
    if n_declared.isdecimal() and int(n_declared) > limits.n_bytes:
        raise _too_large(limits)


def _file_of(form: FormData) -> UploadFile:
    """Returns the one file of the form; Failure where there is none, or more."""
    files = form.getlist(FIELD)
    if len(files) > 1:
        raise Failure(413, "too_many_parts", f"one {FIELD!r} at a time")
    if not files or not isinstance(files[0], UploadFile):
        raise Failure(422, "invalid", f"the form has no file in the field {FIELD!r}")
    return files[0]


def _write(file: BinaryIO, target: Path) -> None:
    with target.open("xb") as sink:
        shutil.copyfileobj(file, sink)


def _in_time(receive: Receive, limits: ReceivingLimits) -> Receive:
    """Returns a `receive` that raises Failure 408 once the body takes too long or pauses too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.receive_s

    async def timed() -> Message:
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + limits.idle_s)):
                return await receive()
        except TimeoutError:
            headers = {"Connection": "close"}
            raise Failure(408, "timeout", "the upload came too slowly", headers) from None

    return timed
