"""POST /api/uploads: a sound that is not in the library becomes a term of a question.

The file is received within limits of size, parts and time, decoded by a worker process, encoded by
the index's models and deleted. Its vectors stay in memory for an hour, under a random name.
"""

import asyncio
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from cachetools import TTLCache
from fastapi import APIRouter, Request
from pydantic import BaseModel
from python_multipart.multipart import parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from ponticello.audio.decode import DecodeTask
from ponticello.model.htcl import HTCL
from ponticello.search.index import Query
from ponticello.search.service import sound_query
from ponticello.serve.errors import APIError
from ponticello.serve.metrics import Metrics
from ponticello.serve.routes.audio import RETRY_AFTER_S, Decoder
from ponticello.serve.routes.search import Now
from ponticello.serve.security import limited_body

UPLOAD_SECONDS = 900.0  # s of sound; a longer file is a mix, an album or an attack
AT_ONCE = 4  # uploads under way
KEPT = 256  # uploads with vectors in memory, the latest used
KEPT_S = 3600.0  # s
# s decoded beyond `mel.max_seconds`: a front end may leave out a silence before the music
_LEAD_IN_S = 5.0
router = APIRouter(tags=["uploads"])
FIELD = "file"
MAX_FIELDS = 7  # which a browser's form may hold beside the file
MAX_FIELD_BYTES = 4096  # of each field


@dataclass(frozen=True)
class ReceivingLimits:
    """Limits of one upload."""

    n_bytes: int = 64 << 20  # of the whole body: half an hour of mp3, a quarter of FLAC
    receive_s: float = 300.0  # s for all of it
    idle_s: float = 15.0  # s without a byte


class _FormParser(MultiPartParser):
    """Starlette's parser, which leaves temporary files open for a body that ends early."""

    def __init__(self, headers: Headers, body: AsyncGenerator[bytes]) -> None:
        limits = {"max_files": 1, "max_fields": MAX_FIELDS, "max_part_size": MAX_FIELD_BYTES}
        super().__init__(headers, self._checked(body), **limits)
        self._is_complete = False

    async def _checked(self, body: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        async for chunk in body:
            yield chunk
        if not self._is_complete:
            raise MultiPartException("it ends before its last boundary")

    def on_end(self) -> None:
        """Notes the last boundary."""
        self._is_complete = True


async def receive_file(request: Request, target: Path, limits: ReceivingLimits) -> None:
    """Writes the field `file` of a multipart request to `target`, a new file.

    The body is parsed into temporary files without a name, which are closed and so deleted in any
    case. APIError: 413 too_large, 408 timeout, 422 invalid. ClientDisconnect as `Request.stream`.
    """
    _check_headers(request, limits)
    receive = limited_body(_in_time(request.receive, limits), limits.n_bytes, _too_large(limits))
    async with aclosing(Request(request.scope, receive).stream()) as body:
        try:
            form = await _FormParser(request.headers, body).parse()
        except MultiPartException as error:
            message = f"the body is not a form with one file in {FIELD!r}: {error.message}"
            raise APIError(422, "invalid", message) from None
    try:
        file = form.get(FIELD)
        if not isinstance(file, UploadFile):
            raise APIError(422, "invalid", f"the form has no file in the field {FIELD!r}")
        await run_in_threadpool(_write, file.file, target)
    finally:
        await form.close()


def _too_large(limits: ReceivingLimits) -> APIError:
    return APIError(413, "too_large", f"an upload has at most {limits.n_bytes:,} bytes")


def _check_headers(request: Request, limits: ReceivingLimits) -> None:
    """Raises APIError for a body that is not a form, or is declared too large."""
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 1 <= len(boundary) <= 70:
        raise APIError(422, "invalid", f"send multipart/form-data with the field {FIELD!r}")
    n_declared = request.headers.get("content-length", "0")
    if n_declared.isdecimal() and int(n_declared) > limits.n_bytes:
        raise _too_large(limits)


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


class UploadedSound(BaseModel):
    """An uploaded sound: `upload_id` is its name in a term."""

    upload_id: str
    duration_s: float
    expires_s: float


class Uploads:
    """Receives, decodes and remembers sounds until closed. decoder: kept warm. clock: in s."""

    def __init__(self, decoder: Decoder, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = ReceivingLimits()
        self.seconds = UPLOAD_SECONDS
        self.decoder = decoder
        self.folder: Path | None = None
        self._kept: TTLCache[tuple[str, tuple[str, ...]], Query] = TTLCache(KEPT, KEPT_S, clock)
        self._lock = threading.Lock()
        self._encoding = threading.Lock()  # one at a time: it fills a core
        self.n_under_way = 0

    def start(self) -> None:
        """Makes the folder and starts the processes, which the first upload would otherwise do."""
        with self._lock:
            self._make_folder()
        self.decoder.pool.start()

    def _make_folder(self) -> Path:
        if self.folder is None:
            # for its owner alone
            self.folder = Path(tempfile.mkdtemp(prefix="ponticello-uploads-"))
        return self.folder

    @contextmanager
    def place(self) -> Iterator[Path]:
        """Yields a path for a file that is deleted at the end; APIError 503 with too many."""
        with self._lock:
            if self.n_under_way >= AT_ONCE:
                again = {"Retry-After": str(RETRY_AFTER_S)}
                raise APIError(503, "busy", f"{AT_ONCE} uploads are under way; try again", again)
            path = self._make_folder() / secrets.token_hex(16)
            self.n_under_way += 1
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            with self._lock:
                self.n_under_way -= 1

    def hear(self, path: Path, models: Sequence[HTCL], spaces: Sequence[str]) -> UploadedSound:
        """Decodes a file and keeps its vectors under `spaces`; APIError as `Decoder.decode`."""
        mel = models[0].settings.mel
        keep_s = mel.max_seconds + _LEAD_IN_S
        task = DecodeTask(path, mel.sample_rate, self.seconds, keep_s=keep_s)
        sound = self.decoder.decode(task)
        with self._encoding:
            query = sound_query(models, sound.values)
        upload_id = self.keep(query, spaces)
        return UploadedSound(upload_id=upload_id, duration_s=sound.duration_s, expires_s=KEPT_S)

    def keep(self, query: Query, spaces: Sequence[str]) -> str:
        """Remembers a query; returns its id."""
        upload_id = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[upload_id, tuple(spaces)] = query
        return upload_id

    def query(self, upload_id: str, spaces: Sequence[str]) -> Query:
        """Returns the query of an upload; APIError 404 if it is gone, or of other models."""
        with self._lock:
            query = self._kept.get((upload_id, tuple(spaces)))
        if query is None:
            message = "this upload is not known any more; send the file again"
            raise APIError(404, "upload_expired", message)
        return query

    def close(self) -> None:
        """Deletes the folder and ends the processes."""
        self.decoder.pool.close()
        with self._lock:
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None


@contextmanager
def _counted(metrics: Metrics) -> Iterator[None]:
    with metrics.uploads_under_way.track_inprogress():
        try:
            yield
        except APIError as failure:
            metrics.uploads_refused.labels(failure.code).inc()
            raise


_FORM_SCHEMA = {
    "type": "object",
    "properties": {FIELD: {"type": "string", "format": "binary"}},
    "required": [FIELD],
}
_FORM: dict[str, Any] = {
    "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _FORM_SCHEMA}}}
}


@router.post("/api/uploads", openapi_extra=_FORM, summary="Hear a sound that is not in the library")
async def upload(request: Request, now: Now) -> UploadedSound:
    """The field `file`: mp3, flac, ogg, opus, wav or aiff. Only its vectors are kept, for an hour.
    Use the id as `{"upload_id": id}` in the terms of a question.
    """
    uploads: Uploads = request.app.state.uploads
    # Before the file is received, which is in vain without models.
    models = await run_in_threadpool(lambda: now.service.encoder.models)
    with _counted(request.app.state.metrics), uploads.place() as path:
        try:
            await receive_file(request, path, uploads.limits)
        except ClientDisconnect:
            raise APIError(400, "invalid", "the client went away") from None
        return await run_in_threadpool(uploads.hear, path, models, now.space_ids)
