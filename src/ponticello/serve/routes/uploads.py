"""POST /api/uploads: a sound that is not in the library becomes a term of a question.

The file is received within limits, decoded by a process that may be lost, heard by the index's
models and deleted; its vectors stay in memory for an hour, under a name that cannot be guessed.

Receives the one file of an upload's form, within limits of size, parts and time.
"""

import asyncio
import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from fastapi import APIRouter, Request
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from ponticello.model.htcl import HTCL
from ponticello.search.index import Query
from ponticello.search.service import sound_query
from ponticello.serve.errors import APIError
from ponticello.serve.metrics import Metrics
from ponticello.serve.routes.audio import RETRY_AFTER_S, Decoder
from ponticello.serve.routes.search import Now
from ponticello.serve.security import limited_body
from ponticello.serve.snapshot import Snapshot

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
            raise APIError(422, "invalid", "the form ends before its last boundary")

    def on_end(self) -> None:
        """Notes the closing boundary."""
        self._is_complete = True

    def on_part_begin(self) -> None:
        """Refuses a part beyond the limit."""
        if len(self.items) >= MAX_PARTS:
            raise APIError(413, "too_many_parts", f"a form has at most {MAX_PARTS} parts")
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Refuses a field that is too long; the parser has no other limit here."""
        try:
            super().on_part_data(data, start, end)
        except MultiPartException:
            message = f"a field beside {FIELD!r} has at most {MAX_FIELD_BYTES:,} bytes"
            raise APIError(413, "too_large", message) from None


async def receive_file(request: Request, target: Path, limits: ReceivingLimits) -> None:
    """Writes the field `file` of a multipart request to `target`, a new file.

    The body is parsed into temporary files without a name, which are closed and so deleted in any
    case.
    Failure: 413 too_large and too_many_parts, 408 timeout, 422 invalid. ClientDisconnect as
    `Request.stream`.
    """
    _check_headers(request, limits)
    receive = limited_body(_in_time(request.receive, limits), limits.n_bytes, _too_large(limits))
    async with aclosing(Request(request.scope, receive).stream()) as body:
        try:
            form = await _FormParser(request.headers, body).parse()
        except MultiPartException as error:
            message = f"the body is not the form its Content-Type announces: {error.message}"
            raise APIError(422, "invalid", message) from None
    try:
        await run_in_threadpool(_write, _file_of(form).file, target)
    finally:
        await form.close()


def _too_large(limits: ReceivingLimits) -> APIError:
    return APIError(413, "too_large", f"an upload has at most {limits.n_bytes:,} bytes")


def _check_headers(request: Request, limits: ReceivingLimits) -> None:
    """Raises a Failure for a body that is not a form, or is declared too large."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise APIError(422, "invalid", f"send multipart/form-data with the field {FIELD!r}")
    n_declared = request.headers.get("content-length", "0")
    if n_declared.isdecimal() and int(n_declared) > limits.n_bytes:
        raise _too_large(limits)


def _file_of(form: FormData) -> UploadFile:
    """Returns the one file of the form; Failure where there is none, or more."""
    files = form.getlist(FIELD)
    if len(files) > 1:
        raise APIError(413, "too_many_parts", f"one {FIELD!r} at a time")
    if not files or not isinstance(files[0], UploadFile):
        raise APIError(422, "invalid", f"the form has no file in the field {FIELD!r}")
    return files[0]


def _write(file: BinaryIO, target: Path) -> None:
    with target.open("xb") as sink:
        shutil.copyfileobj(file, sink)


def _in_time(receive: Receive, limits: ReceivingLimits) -> Receive:
    """Returns a `receive` that raises APIError 408 once the body or a pause takes too long."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + limits.receive_s

    async def timed() -> Message:
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + limits.idle_s)):
                return await receive()
        except TimeoutError:
            headers = {"Connection": "close"}
            raise APIError(408, "timeout", "the upload came too slowly", headers) from None

    return timed


UPLOAD_SECONDS = 900.0  # s of sound; what lasts longer is a mix, an album or a bomb
AT_ONCE = 4  # uploads under way
KEPT = 256  # uploads with vectors in memory, the latest used
KEPT_S = 3600.0  # s
_LEAD_IN_S = (
    5.0  # heard beyond `mel.max_seconds`, as a front end may leave out a silence before the music
)
router = APIRouter(tags=["uploads"])


class UploadedSound(BaseModel):
    """An uploaded sound: `upload_id` is its name in a term."""

    upload_id: str
    duration_s: float
    expires_s: float


@dataclass(frozen=True)
class _Heard:
    query: Query
    spaces: tuple[str, ...]
    until: float


class Uploads:
    """Receives, decodes and remembers sounds. Close it to delete its folder and end its processes.

    decoder: kept warm. clock: in s.
    """

    def __init__(
        self,
        decoder: Decoder,
        limits: ReceivingLimits | None = None,
        seconds: float = UPLOAD_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.limits = limits or ReceivingLimits()
        self.seconds, self.decoder, self._clock = seconds, decoder, clock
        self.folder: Path | None = None
        self._kept: OrderedDict[str, _Heard] = OrderedDict()
        self._lock = threading.Lock()
        self._hearing = (
            threading.Lock()
        )  # one at a time: it fills a core, and others are being answered
        self.n_under_way = 0

    def start(self) -> None:
        """Makes the folder and starts the processes, which the first upload would otherwise do."""
        with self._lock:
            self._folder()
        self.decoder.pool.start()

    def _folder(self) -> Path:
        if self.folder is None:
            self.folder = Path(
                tempfile.mkdtemp(prefix="ponticello-uploads-")
            )  # for its owner alone
        return self.folder

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A path for one upload's file, which is deleted at the end; Failure 503 while too many are
        under way.
        """
        with self._lock:
            if self.n_under_way >= AT_ONCE:
                again = {"Retry-After": str(RETRY_AFTER_S)}
                raise APIError(503, "busy", f"{AT_ONCE} uploads are under way; try again", again)
            path = self._folder() / secrets.token_hex(16)
            self.n_under_way += 1
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            with self._lock:
                self.n_under_way -= 1

    def hear(self, path: Path, models: Sequence[HTCL], spaces: Sequence[str]) -> UploadedSound:
        """Decodes a file and keeps its vectors under the models. spaces: their ids. Failure as
        `Decoder.sound`.
        """
        mel = models[0].settings.mel
        sound = self.decoder.sound(
            path, mel.sample_rate, mel.max_seconds + _LEAD_IN_S, self.seconds
        )
        with self._hearing:
            query = sound_query(models, sound.values)
        return UploadedSound(
            upload_id=self.keep(query, spaces), duration_s=sound.duration_s, expires_s=KEPT_S
        )

    def keep(self, query: Query, spaces: Sequence[str]) -> str:
        """Remembers a query; returns its id."""
        upload_id = secrets.token_urlsafe(16)
        now = self._clock()
        with self._lock:
            expired = [name for name, entry in self._kept.items() if entry.until <= now]
            for name in expired:
                del self._kept[name]
            self._kept[upload_id] = _Heard(query, tuple(spaces), now + KEPT_S)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return upload_id

    def query(self, upload_id: str, spaces: Sequence[str]) -> Query:
        """Returns the query of an upload; APIError 404 upload_expired if it is gone, or was encoded
        by other models.
        """
        with self._lock:
            entry = self._kept.get(upload_id)
            if entry is not None and entry.until > self._clock() and entry.spaces == tuple(spaces):
                self._kept.move_to_end(upload_id)
                return entry.query
        raise APIError(
            404, "upload_expired", "this upload is not known any more; send the file again"
        )

    def snapshot_query(self, upload_id: str, snapshot: Snapshot) -> Query:
        """As `query`, under the models of a snapshot."""
        return self.query(upload_id, spaces_of(snapshot))

    def close(self) -> None:
        """Deletes the folder and ends the processes."""
        self.decoder.pool.close()
        with self._lock:
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None


def spaces_of(snapshot: Snapshot) -> list[str]:
    """The names of the spaces that vectors must be of."""
    return [space.space_id for space in snapshot.service.index.spaces]


@contextmanager
def _counted(metrics: Metrics) -> Iterator[None]:
    """Notes an upload in the metrics, and why it was refused."""
    with metrics.uploads_under_way.track_inprogress():
        try:
            yield
        except APIError as failure:
            metrics.uploads_refused.labels(failure.code).inc()
            raise


_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {FIELD: {"type": "string", "format": "binary"}},
                    "required": [FIELD],
                }
            }
        },
    }
}


@router.post("/api/uploads", openapi_extra=_FORM, summary="Hear a sound that is not in the library")
async def upload(request: Request, now: Now) -> UploadedSound:
    """The field `file`: mp3, flac, ogg, opus, wav or aiff. It is decoded, heard and deleted;
    nothing is kept but its vectors, in memory, for an hour. Use the id as `{"upload_id": id}` in the
    terms of a question.
    """
    uploads: Uploads = request.app.state.uploads
    spaces = spaces_of(now)
    models = await run_in_threadpool(
        lambda: now.service.encoder.models
    )  # before anything is received: without them it is in vain
    with _counted(request.app.state.metrics), uploads.place() as path:
        try:
            await receive_file(request, path, uploads.limits)
        except ClientDisconnect:
            raise APIError(400, "invalid", "the client went away") from None
        return await run_in_threadpool(uploads.hear, path, models, spaces)
