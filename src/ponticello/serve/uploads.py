"""POST /api/uploads: a sound that is not in the library becomes a term of a question.

The file is received within limits, decoded by a process that may be lost, heard by the index's models and deleted; its
vectors stay in memory for an hour, under a name that cannot be guessed.
"""

import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from ponticello.model.htcl import HTCL
from ponticello.search.index import Query
from ponticello.search.models import sound_query
from ponticello.serve.decoder import RETRY_S, Decoder
from ponticello.serve.failures import Failure
from ponticello.serve.live import Snapshot
from ponticello.serve.metrics import Metrics
from ponticello.serve.questions import Now
from ponticello.serve.receiving import FIELD, ReceivingLimits, receive_file

UPLOAD_SECONDS = 900.0  # s of sound; what lasts longer is a mix, an album or a bomb
AT_ONCE = 4  # uploads under way
KEPT = 256  # uploads whose vectors are kept, the latest used
KEPT_S = 3600.0  # s
_LEAD_IN_S = 5.0  # heard beyond `mel.max_seconds`, as a front end may leave out a silence before the music
router = APIRouter(tags=["uploads"])


class Uploaded(BaseModel):
    """An uploaded sound: `upload` is its name in a term."""

    upload: str
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
        self._hearing = threading.Lock()  # one at a time: it fills a core, and others are being answered
        self.n_under_way = 0

    def start(self) -> None:
        """Makes the folder and starts the processes, which the first upload would otherwise do."""
        with self._lock:
            self._folder()
        self.decoder.start()

    def _folder(self) -> Path:
        if self.folder is None:
            self.folder = Path(tempfile.mkdtemp(prefix="ponticello-uploads-"))  # for its owner alone
        return self.folder

    @contextmanager
    def place(self) -> Iterator[Path]:
        """A path for one upload's file, which is deleted at the end; Failure 503 while too many are under way."""
        with self._lock:
            if self.n_under_way >= AT_ONCE:
                again = {"Retry-After": str(RETRY_S)}
                raise Failure(503, "busy", f"{AT_ONCE} uploads are under way; try again", again)
            path = self._folder() / secrets.token_hex(16)
            self.n_under_way += 1
        try:
            yield path
        finally:
            path.unlink(missing_ok=True)
            with self._lock:
                self.n_under_way -= 1

    def hear(self, path: Path, models: Sequence[HTCL], spaces: Sequence[str]) -> Uploaded:
        """Decodes a file and keeps its vectors under the models. spaces: their ids. Failure as `Decoder.sound`."""
        mel = models[0].parts.mel
        sound = self.decoder.sound(path, mel.sample_rate, mel.max_seconds + _LEAD_IN_S, self.seconds)
        with self._hearing:
            query = sound_query(models, sound.values)
        return Uploaded(upload=self.keep(query, spaces), duration_s=sound.duration_s, expires_s=KEPT_S)

    def keep(self, query: Query, spaces: Sequence[str]) -> str:
        """Remembers a query; the name by which it is found."""
        upload = secrets.token_urlsafe(16)
        now = self._clock()
        with self._lock:
            for name in [name for name, heard in self._kept.items() if heard.until <= now]:
                del self._kept[name]
            self._kept[upload] = _Heard(query, tuple(spaces), now + KEPT_S)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return upload

    def query(self, upload: str, spaces: Sequence[str]) -> Query:
        """What was uploaded as a query; Failure 404 upload_expired if it is gone, or was heard by other models."""
        with self._lock:
            heard = self._kept.get(upload)
            if heard is not None and heard.until > self._clock() and heard.spaces == tuple(spaces):
                self._kept.move_to_end(upload)
                return heard.query
        raise Failure(404, "upload_expired", "this upload is not known any more; send the file again")

    def sounds(self, upload: str, snapshot: Snapshot) -> Query:
        """As `query`, under the models of a snapshot."""
        return self.query(upload, spaces_of(snapshot))

    def close(self) -> None:
        """Deletes the folder and ends the processes."""
        self.decoder.close()
        with self._lock:
            if self.folder is not None:
                shutil.rmtree(self.folder, ignore_errors=True)
                self.folder = None


def spaces_of(snapshot: Snapshot) -> list[str]:
    """The names of the spaces that vectors must be of."""
    return [space.space_id for space in snapshot.asked.spaces]


@contextmanager
def _counted(metrics: Metrics) -> Iterator[None]:
    """Notes an upload in the metrics, and why it was refused."""
    with metrics.uploads_under_way.track_inprogress():
        try:
            yield
        except Failure as failure:
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
async def upload(request: Request, now: Now) -> Uploaded:
    """The field `file`: mp3, flac, ogg, opus, wav or aiff. It is decoded, heard and deleted; nothing is kept but its
    vectors, in memory, for an hour. Use the id as `{"upload": id}` in the terms of a question.
    """
    uploads: Uploads = request.app.state.uploads
    spaces = spaces_of(now)
    models = await run_in_threadpool(lambda: now.models)  # before anything is received: without them it is in vain
    with _counted(request.app.state.metrics), uploads.place() as path:
        try:
            await receive_file(request, path, uploads.limits)
        except ClientDisconnect:
            raise Failure(400, "invalid", "the client went away") from None
        return await run_in_threadpool(uploads.hear, path, models, spaces)
