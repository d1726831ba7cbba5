"""A track's own sound, by its id: the file as it is, and its outline."""

import os
import stat
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from ponticello.data.catalog import audio_path
from ponticello.data.columns import PATH
from ponticello.data.sniff import Kind, one_line, opened, sniff
from ponticello.errors import AudioError
from ponticello.serve.decoder import Decoder
from ponticello.serve.failures import Failure
from ponticello.serve.latest import Latest
from ponticello.serve.live import Snapshot
from ponticello.serve.questions import Now, TrackInPath
from ponticello.serve.ranges import file_response

WAVEFORM_SECONDS = 3600.0  # s; a longer track is not drawn
_KEPT_WAVEFORMS = 512
_MEDIA: dict[Kind, str] = {
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


class Waveform(BaseModel):
    """How loud each n-th of a track gets, 0 to 1."""

    peaks: list[float]
    duration_s: float


class Waveforms:
    """Outlines of tracks, the latest asked for kept."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._kept: Latest[tuple[object, ...], Waveform] = Latest(_KEPT_WAVEFORMS)

    def of(self, path: Path, n: int) -> Waveform:
        """The outline of a file in `n` peaks; Failure as `Decoder.peaks`."""
        found = path.stat()
        return self._kept.get((str(path), found.st_mtime_ns, found.st_size, n), lambda: self._outline(path, n))

    def _outline(self, path: Path, n: int) -> Waveform:
        sound = self._decoder.peaks(path, n, WAVEFORM_SECONDS)
        return Waveform(peaks=[round(float(peak), 3) for peak in sound.values], duration_s=sound.duration_s)


def sound_path(snapshot: Snapshot, track_id: str) -> Path:
    """Where a track's audio should lie; Failure 404 if there is no such track, or it has none."""
    if track_id not in snapshot.rows:
        raise Failure(404, "not_found", f"there is no track {track_id[:200]!r}")
    path = snapshot.tracks[PATH][snapshot.rows[track_id]]
    if path is None:
        raise Failure(404, "file_missing", "this track has no audio")
    return audio_path(snapshot.library.folder, path)


def open_sound(path: Path) -> tuple[BinaryIO, str]:
    """The open file and its media type, told by its bytes: whatever the catalogue says, nothing but audio is given.

    Failure 404 file_missing if it is not there, 422 unsupported_audio if it is anything else.
    """
    try:
        with opened(path) as file:
            kind = sniff(path, file)
            if kind not in _MEDIA:
                raise AudioError(f"{one_line(path)}: is not audio that a browser could play")
            return os.fdopen(os.dup(file.fileno()), "rb", buffering=0), _MEDIA[kind]
    except AudioError as error:
        if not _is_file(path):
            raise Failure(404, "file_missing", "the file is not where it was; run: ponticello scan") from None
        reason = str(error).removeprefix(f"{one_line(path)}: ")
        raise Failure(422, "unsupported_audio", f"the track's file {reason}") from None


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (OSError, ValueError):
        return False


_BYTES: dict[str, Any] = {"content": {"audio/*": {"schema": {"type": "string", "format": "binary"}}}}
_AUDIO: dict[int | str, dict[str, Any]] = {
    200: {"description": "The file", **_BYTES},
    206: {"description": "The bytes asked for", **_BYTES},
    304: {"description": "The client has it"},
}


@router.head("/api/tracks/{track_id:id}/audio", include_in_schema=False)
@router.get("/api/tracks/{track_id:id}/audio", response_class=Response, responses=_AUDIO, summary="Play")
async def audio(track_id: TrackInPath, now: Now, request: Request) -> Response:
    """The track's file as it is. One Range is served (206, or 416 behind the end); ETag, If-Range and HEAD work."""
    path = sound_path(now, track_id)
    file, media_type = await run_in_threadpool(open_sound, path)
    return file_response(file, media_type, request.headers, request.method == "HEAD")


@router.get("/api/tracks/{track_id:id}/waveform", summary="Draw")
def waveform(
    track_id: TrackInPath, now: Now, request: Request, n: Annotated[int, Query(ge=16, le=4000)] = 400
) -> Waveform:
    """The outline of the track's sound in `n` peaks."""
    path = sound_path(now, track_id)
    open_sound(path)[0].close()
    waveforms: Waveforms = request.app.state.waveforms
    return waveforms.of(path, n)
