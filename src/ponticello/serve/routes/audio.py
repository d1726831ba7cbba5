"""A track's audio by its id: the file, in whole or in part, and its outline."""

import os
import threading
from collections.abc import Hashable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cachetools import LRUCache, cachedmethod
from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import FileResponse, Response
from starlette.staticfiles import NotModifiedResponse, StaticFiles
from starlette.types import Message, Receive, Scope, Send

from ponticello.audio import formats
from ponticello.audio.decode import DecodeTask, decode_reply
from ponticello.audio.worker_pool import TaskFailure, WorkerPool
from ponticello.config import LimitsConfig
from ponticello.errors import AudioError
from ponticello.serve.errors import APIError
from ponticello.serve.routes.search import IdInPath, Now
from ponticello.serve.snapshot import Snapshot
from ponticello.storage.schema import PATH
from ponticello.tracks.catalog import audio_path

WAVEFORM_SECONDS = 3600.0  # s; a longer track is not drawn
_MAX_WAVEFORMS = 512
_MEDIA: dict[formats.Kind, str] = {
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "vorbis": "audio/ogg",
    "ogg": "audio/ogg",
    "wav": "audio/wav",
    "aiff": "audio/aiff",
    "mp4": "audio/mp4",
    "asf": "audio/x-ms-wma",
    "aac": "audio/aac",
}
router = APIRouter(tags=["tracks"])
PEAKS_HZ = 8_000  # sample rate from which peaks are computed: finer than any screen
RETRY_AFTER_S = 5  # the wait that a refused client is asked for
_IDLE_WORKER_S = 20.0  # the wait for an idle worker
_MAX_WAITING = 8  # requests for a worker: each holds one of the server's 40 threads
_DECODE_FAILURES = {
    "error": (422, "unsupported_audio", "cannot be decoded"),
    "exit": (422, "unsupported_audio", "ends the process that decodes it"),
    "time": (422, "unsupported_audio", "takes too long to decode"),
    "memory": (413, "too_large", "needs more memory to decode than one file may take"),
}


@dataclass(frozen=True)
class DecodedSound:
    """values: (n,) float32, samples or peaks. duration_s: of the whole file."""

    values: np.ndarray
    duration_s: float


class Decoder:
    """Decodes files in worker processes. limits: per file."""

    def __init__(self, limits: LimitsConfig, n_workers: int = 2) -> None:
        self.pool = WorkerPool(decode_reply, n_workers, limits)
        self._waiting = threading.BoundedSemaphore(_MAX_WAITING)

    def decode(self, task: DecodeTask) -> DecodedSound:
        """Returns the start of a file, mono, or its peaks, 0 to 1.

        APIError: 422 unsupported_audio, 413 too_large in time or memory, 503 busy.
        """
        if not self._waiting.acquire(blocking=False):
            raise _busy()
        try:
            result = self.pool.run(task, _IDLE_WORKER_S)
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting.release()
        if isinstance(result, TaskFailure):
            refusal = result.reason.removeprefix(f"{formats.printable_path(task.path)}: ")
            status, code, reason = _DECODE_FAILURES.get(
                result.kind, (422, "unsupported_audio", refusal)
            )
            raise APIError(status, code, f"the file {reason}")
        duration_s = float(result.facts["duration_s"])
        if duration_s > task.max_duration_s:
            limit = f"{task.max_duration_s:g} s"
            raise APIError(413, "too_large", f"the file lasts longer than {limit}")
        return DecodedSound(result.array, duration_s)


def _busy() -> APIError:
    headers = {"Retry-After": str(RETRY_AFTER_S)}
    return APIError(503, "busy", "too many sounds at once; try again", headers)


class Waveform(BaseModel):
    """How loud each n-th of a track gets, 0 to 1."""

    peaks: list[float]
    duration_s: float


class Waveforms:
    """Outlines of tracks, with a cache of those used last."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._waveforms: LRUCache[Hashable, Waveform] = LRUCache(_MAX_WAVEFORMS)
        self._lock = threading.Lock()

    def of(self, path: Path, n: int) -> Waveform:
        """Returns the outline of a file in `n` peaks; APIError as `Decoder.decode`."""
        status = path.stat()
        return self._draw(path, n, status.st_mtime_ns, status.st_size)

    @cachedmethod(lambda self: self._waveforms, lock=lambda self: self._lock)
    def _draw(self, path: Path, n: int, *_: int) -> Waveform:
        sound = self._decoder.decode(DecodeTask(path, PEAKS_HZ, WAVEFORM_SECONDS, n_peaks=n))
        peaks = [round(float(peak), 3) for peak in sound.values]
        return Waveform(peaks=peaks, duration_s=sound.duration_s)


def sound_path(snapshot: Snapshot, track_id: str) -> Path:
    """Returns the path of a track's audio; APIError 404 for an unknown track or no audio."""
    path = snapshot.tracks[PATH][snapshot.row(track_id)]
    if path is None:
        raise APIError(404, "file_missing", "this track has no audio")
    return audio_path(snapshot.library.folder, path)


def check_sound(path: Path) -> tuple[os.stat_result, str]:
    """Returns the status and the media type of an audio file, by its bytes; APIError 404 or 422."""
    try:
        with formats.open_audio_file(path) as file:
            kind = formats.detect_format(path, file)
            if kind not in _MEDIA:
                raise formats.audio_error(path, "is not audio that a browser could play")
            return os.fstat(file.fileno()), _MEDIA[kind]
    except AudioError as error:
        if not _is_file(path):
            message = "the file is not where it was; run: ponticello scan"
            raise APIError(404, "file_missing", message) from None
        reason = str(error).removeprefix(f"{formats.printable_path(path)}: ")
        raise APIError(422, "unsupported_audio", f"the track's file {reason}") from None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False


_BYTES: dict[str, Any] = {
    "content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}
}
_AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", **_BYTES},
    206: {"description": "The bytes asked for", **_BYTES},
    304: {"description": "The client has it"},
}


@router.head("/api/tracks/{track_id:id}/audio", include_in_schema=False)
@router.get(
    "/api/tracks/{track_id:id}/audio", response_class=Response, responses=_AUDIO, summary="Play"
)
async def audio(track_id: IdInPath, now: Now, request: Request) -> Response:
    """Returns the track's file. Supports Range (206, 416), ETag, Last-Modified and HEAD."""
    path = sound_path(now, track_id)
    status, media_type = await run_in_threadpool(check_sound, path)
    caching = {"Cache-Control": "private, no-cache"}  # clients ask each time, which costs a 304
    response = _SoundResponse(path, headers=caching, media_type=media_type, stat_result=status)
    if StaticFiles().is_not_modified(response.headers, request.headers):
        return NotModifiedResponse(response.headers)
    return response


class _SoundResponse(FileResponse):
    """A FileResponse that ignores foreign range units and refuses a bad range with a code."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the file or its ranges; APIError 416 beyond the end, 400 for malformed ranges."""

        async def send_checked(message: Message) -> None:
            status = message.get("status")
            if status == 416:
                content_range = Headers(scope=message)["content-range"]
                size = content_range.removeprefix("bytes */")
                text = f"the file has {size} bytes, the range begins behind them"
                headers = {"Content-Range": content_range}
                raise APIError(416, "range_not_satisfiable", text, headers)
            if status == 400:
                text = "the Range header is malformed; an example: bytes=0-99"
                raise APIError(400, "invalid", text)
            await send(message)

        unit = Headers(scope=scope).get("range", "").partition("=")[0]
        if unit.strip().lower() != "bytes":  # RFC 9110, 14.2: ignored; Starlette refuses it
            scope = {**scope, "headers": [pair for pair in scope["headers"] if pair[0] != b"range"]}
        await super().__call__(scope, receive, send_checked)


@router.get("/api/tracks/{track_id:id}/waveform", summary="Draw")
def waveform(
    track_id: IdInPath, now: Now, request: Request, n: Annotated[int, Query(ge=16, le=4000)] = 400
) -> Waveform:
    """The outline of the track's sound in `n` peaks."""
    path = sound_path(now, track_id)
    check_sound(path)
    outline: Waveform = request.app.state.waveforms.of(path, n)
    return outline
