"""A form's one file onto the disk as it comes in, given up as soon as it passes a limit."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from ponticello.serve.failures import Failure

logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each body that is no form
FIELD = "file"


@dataclass(frozen=True)
class ReceivingLimits:
    """What one form may be."""

    n_bytes: int = 64 << 20  # of the whole body: half an hour of mp3, a quarter of FLAC
    n_parts: int = 8  # the file and what a browser's form may hold beside it
    field_bytes: int = 4096  # of everything that is not the file
    receive_s: float = 300.0  # s for all of it
    idle_s: float = 15.0  # s without a byte


class _Form:
    """The parser's callbacks: the bytes of the file go to `sink`, all else is counted and dropped."""

    def __init__(self, sink: BinaryIO, limits: ReceivingLimits) -> None:
        self._sink, self._limits = sink, limits
        self._n_parts = self._n_field_bytes = 0
        self._is_file = self.has_file = self.is_complete = False
        self._header, self._value, self._disposition = b"", b"", b""

    def begin_part(self) -> None:
        """Counts it."""
        self._n_parts += 1
        if self._n_parts > self._limits.n_parts:
            raise Failure(413, "too_many_parts", f"a form has at most {self._limits.n_parts} parts")
        self._is_file, self._disposition = False, b""

    def begin_header(self) -> None:
        """Forgets the one before."""
        self._header, self._value = b"", b""

    def header_field(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's name."""
        self._header += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        """A piece of a header's value."""
        self._value += data[start:end]

    def end_header(self) -> None:
        """Keeps what says which part this is."""
        if self._header.lower() == b"content-disposition":
            self._disposition = self._value

    def end_headers(self) -> None:
        """Decides whether this part is the file. The name a client gives it is not looked at."""
        _, options = parse_options_header(self._disposition)
        if options.get(b"name") != FIELD.encode():
            return
        if self.has_file:
            raise Failure(413, "too_many_parts", f"one {FIELD!r} at a time")
        self._is_file = self.has_file = True

    def data(self, data: bytes, start: int, end: int) -> None:
        """A piece of a part."""
        if self._is_file:
            self._sink.write(data[start:end])
            return
        self._n_field_bytes += end - start
        if self._n_field_bytes > self._limits.field_bytes:
            raise Failure(413, "too_large", f"only the field {FIELD!r} may hold much")

    def end(self) -> None:
        """The closing boundary."""
        self.is_complete = True

    def parser(self, boundary: bytes) -> MultipartParser:
        """What calls all of this."""
        return MultipartParser(
            boundary,
            {
                "on_part_begin": self.begin_part,
                "on_part_data": self.data,
                "on_header_begin": self.begin_header,
                "on_header_field": self.header_field,
                "on_header_value": self.header_value,
                "on_header_end": self.end_header,
                "on_headers_finished": self.end_headers,
                "on_end": self.end,
            },
        )


async def receive_file(
    body: AsyncIterator[bytes], content_type: str, declared: str | None, target: Path, limits: ReceivingLimits
) -> None:
    """Writes the field `file` of a multipart body to `target`.

    body: the chunks as they come. declared: the Content-Length, if there is one; what comes is counted all the same.
    Failure: 413 too_large and too_many_parts, 408 timeout, 422 invalid; `target` may then hold a part of it.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise Failure(422, "invalid", f"send multipart/form-data with the field {FIELD!r}")
    too_large = Failure(413, "too_large", f"an upload has at most {limits.n_bytes:,} bytes")
    if declared is not None and declared.isdecimal() and int(declared) > limits.n_bytes:
        raise too_large
    n_bytes = 0
    with target.open("xb") as sink:
        form = _Form(sink, limits)
        parser = form.parser(boundary)
        async with aclosing(_in_time(body, limits)) as chunks:
            async for chunk in chunks:
                n_bytes += len(chunk)
                if n_bytes > limits.n_bytes:
                    raise too_large
                try:
                    parser.write(chunk)
                except FormParserError:
                    raise Failure(422, "invalid", "the body is not the form its Content-Type announces") from None
    if not form.is_complete:
        raise Failure(422, "invalid", "the form ends before its last boundary")
    if not form.has_file:
        raise Failure(422, "invalid", f"the form has no field {FIELD!r}")


async def _in_time(body: AsyncIterator[bytes], limits: ReceivingLimits) -> AsyncGenerator[bytes]:
    """The chunks of `body`; Failure 408 once it takes too long, or nothing comes."""
    loop = asyncio.get_running_loop()
    until = loop.time() + limits.receive_s
    try:
        while True:
            async with asyncio.timeout_at(min(until, loop.time() + limits.idle_s)):
                chunk = await anext(body, None)
            if chunk is None:
                return
            yield chunk
    except TimeoutError:
        raise Failure(408, "timeout", "the upload came too slowly", {"Connection": "close"}) from None
