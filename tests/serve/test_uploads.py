"""POST /api/uploads: what is heard, and every way in which an upload can be too much."""

import io
import os
import signal
import subprocess
import sys
import zipfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from starlette.testclient import TestClient

from ponticello.audio.decode import DecodeTask
from ponticello.config import LimitsConfig
from ponticello.library import Library
from ponticello.serve.errors import APIError
from ponticello.serve.routes import uploads
from ponticello.serve.routes.audio import Decoder
from ponticello.serve.routes.uploads import KEPT, KEPT_S, ReceivingLimits, Uploads
from ponticello.tracks.catalog import audio_files
from tests.serve.asgi import Answered, chained, forever, pieces_of, send
from tests.serve.served import client_of, make_app

BOUNDARY = "a-boundary"
FORM = (b"content-type", f"multipart/form-data; boundary={BOUNDARY}".encode())
HEAD = (
    f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x.mp3"\r\n\r\n'
).encode()
TAIL = f"\r\n--{BOUNDARY}--\r\n".encode()
SMALL = ReceivingLimits(n_bytes=1 << 20, receive_s=5, idle_s=5)


@pytest.fixture(scope="module")
def open_client(trained_root: Path) -> Iterator[TestClient]:
    with client_of(make_app(trained_root)) as client:
        yield client


@pytest.fixture
def client(open_client: TestClient) -> Iterator[TestClient]:
    """A client whose service has no upload left in its folder after the test."""
    found: Uploads = open_client.app.state.uploads  # type: ignore[attr-defined]
    found.limits, found.seconds = ReceivingLimits(), uploads.UPLOAD_SECONDS
    yield open_client
    assert found.folder is not None
    assert list(found.folder.iterdir()) == []
    assert found.n_under_way == 0


@pytest.fixture
def sound(trained: Library) -> Path:
    """A file of the library."""
    return audio_files(trained.folder)["track-0007"]


def _upload(client: TestClient, content: bytes, name: str = "x.mp3") -> Any:
    return client.post("/api/uploads", files={"file": (name, content)})


def _pushed(
    client: TestClient, body: AsyncIterator[bytes], *headers: tuple[bytes, bytes]
) -> Answered:
    return send(client.app, "POST", "/api/uploads", headers=(FORM, *headers), body=body)  # type: ignore[arg-type]


def test_an_uploaded_file_is_found_as_its_path_is(
    client: TestClient, trained: Library, sound: Path
) -> None:
    answer = _upload(client, sound.read_bytes())
    assert answer.status_code == 200, answer.text
    assert answer.json()["duration_s"] == pytest.approx(4.0)
    assert answer.json()["expires_s"] == KEPT_S
    asked = {"terms": [{"upload_id": answer.json()["upload_id"]}], "k": 5, "blend": 0.4}
    found = client.post("/api/search", json=asked).json()["results"]
    expected = trained.similar(sound, k=5, blend=0.4)
    assert [each["track_id"] for each in found] == [each.track_id for each in expected]
    np.testing.assert_allclose(
        [each["score"] for each in found], [each.score for each in expected], atol=1e-4
    )


def test_an_upload_may_be_mixed_with_words_and_pushed_away(client: TestClient, sound: Path) -> None:
    upload = _upload(client, sound.read_bytes()).json()["upload_id"]
    away: dict[str, Any] = {"terms": [{"upload_id": upload, "weight": -1}], "k": 60, "blend": 0}
    assert (
        client.post("/api/search", json=away).json()["results"][-1]["track_id"] == "track-0007"
    ), "it comes last"
    away["terms"].append({"text": "slow"})
    best = client.post("/api/search", json=away).json()["results"][0]
    assert [part["term"] for part in best["why"]["components"]] == [0, 1]
    assert sum(part["semantic"] for part in best["why"]["components"]) == pytest.approx(
        best["semantic"], abs=1e-4
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"#EXTM3U\nhttp://example.org/a.mp3\n", "is text"),
        (b"<!DOCTYPE html><html><script>alert(1)</script></html>", "is text"),
        (b"", "is empty"),
        (b"%PDF-1.7 and so on", "is a document"),
        (b"ID3\x04\x00\x00\x00\x00\x00\x00" + b"\x00" * 500, "cannot be decoded"),
        (b"fLaC" + b"\x00" * 2000, "cannot be decoded"),
        (bytes(range(256)) * 40, "cannot be decoded"),
        (b"\x1a\x45\xdf\xa3" + b"\x00" * 200, "is not supported"),
    ],
    ids=["playlist", "page", "empty", "pdf", "tag-only", "header-only", "noise", "matroska"],
)
def test_what_is_no_sound_is_refused_whatever_its_name_says(
    client: TestClient, content: bytes, reason: str
) -> None:
    answer = _upload(client, content, "song.mp3")
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_audio")
    assert reason in answer.json()["message"]
    assert "ponticello-uploads" not in answer.text, "where it lay is nobody's business"


def test_an_archive_of_zeros_is_not_opened(client: TestClient) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("song.wav", bytes(50 << 20))
    answer = _upload(client, packed.getvalue())
    assert (answer.status_code, answer.json()["code"]) == (422, "unsupported_audio")


def test_a_declared_excess_is_refused_before_a_byte_of_it(client: TestClient) -> None:
    length = (b"content-length", str(10**12).encode())
    answer = _pushed(client, forever(b"x" * 65536), length)
    assert (answer.status, answer.code, answer.n_pieces) == (413, "too_large", 0)


@pytest.mark.parametrize(
    "declared", [(), ((b"content-length", b"1000"),)], ids=["undeclared", "declared less"]
)
def test_an_excess_is_refused_as_it_comes(
    client: TestClient, declared: tuple[tuple[bytes, bytes], ...]
) -> None:
    """The limit is 1 MiB and the pieces 64 KiB, so the seventeenth is one too many."""
    client.app.state.uploads.limits = SMALL  # type: ignore[attr-defined]
    answer = _pushed(client, chained(pieces_of([HEAD]), forever(b"x" * 65536)), *declared)
    assert (answer.status, answer.code) == (413, "too_large")
    assert answer.n_pieces <= 17


def test_ten_thousand_parts_are_given_up_after_a_few(client: TestClient) -> None:
    part = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"\r\n\r\nx\r\n'.encode()
    answer = _pushed(client, chained(pieces_of([part] * 10_001), pieces_of([TAIL])))
    assert (answer.status, answer.code) == (422, "invalid")
    assert answer.n_pieces < 12


def test_the_field_beside_the_file_may_not_hold_much(client: TestClient) -> None:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="note"\r\n\r\n'.encode()
    answer = _pushed(client, chained(pieces_of([head]), forever(b"x" * 1024)))
    assert (answer.status, answer.code) == (422, "invalid")
    assert answer.n_pieces < 8


def test_a_header_without_end_is_given_up(client: TestClient) -> None:
    head = f"--{BOUNDARY}\r\nContent-Disposition: ".encode()
    answer = _pushed(client, chained(pieces_of([head]), forever(b"x" * 1024)))
    assert (answer.status, answer.code) == (422, "invalid")
    assert answer.n_pieces < 10


@pytest.mark.parametrize(
    "body",
    [
        lambda: chained(pieces_of([HEAD]), forever()),
        lambda: chained(pieces_of([HEAD]), forever(b"x")),
    ],
    ids=["nothing more", "drop by drop"],
)
def test_a_slow_body_times_out(
    client: TestClient, body: Callable[[], AsyncIterator[bytes]]
) -> None:
    client.app.state.uploads.limits = ReceivingLimits(receive_s=0.3, idle_s=0.1)  # type: ignore[attr-defined]
    answer = _pushed(client, body())
    assert (answer.status, answer.code) == (408, "timeout")
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize(
    ("pieces", "content_type", "status", "code"),
    [
        ([b"RIFF"], b"audio/wav", 422, "invalid"),
        ([b"RIFF"], b"multipart/form-data", 422, "invalid"),
        ([b"RIFF"], b"multipart/form-data; boundary=" + b"b" * 71, 422, "invalid"),
        ([b"no form at all"], FORM[1], 422, "invalid"),
        ([HEAD, b"RIFF"], FORM[1], 422, "invalid"),
        ([HEAD.replace(b'"file"', b'"files"'), b"RIFF", TAIL], FORM[1], 422, "invalid"),
        ([HEAD, b"RIFF\r\n", HEAD, b"RIFF", TAIL], FORM[1], 422, "invalid"),
        ([], FORM[1], 422, "invalid"),
    ],
    ids=[
        "bare",
        "no boundary",
        "long boundary",
        "no form",
        "cut short",
        "other name",
        "two files",
        "nothing",
    ],
)
def test_a_form_must_be_one(
    client: TestClient, pieces: list[bytes], content_type: bytes, status: int, code: str
) -> None:
    kind = [(b"content-type", content_type)]
    answer = send(client.app, "POST", "/api/uploads", headers=kind, body=pieces_of(pieces))  # type: ignore[arg-type]
    assert (answer.status, answer.code) == (status, code)


@pytest.fixture(scope="module")
def half_a_day(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A FLAC of 1 MB that decodes to 12 h of silence."""
    path = tmp_path_factory.mktemp("bombs") / "song.flac"
    minute = np.zeros(60 * 6_000, dtype=np.int16)
    with soundfile.SoundFile(str(path), "w", 6_000, 1, format="FLAC") as file:
        for _ in range(12 * 60):
            file.write(minute)
    return path


def test_half_a_day_in_a_megabyte_is_refused(client: TestClient, half_a_day: Path) -> None:
    assert half_a_day.stat().st_size < 1 << 20
    assert soundfile.info(str(half_a_day)).duration == pytest.approx(12 * 3600)
    answer = _upload(client, half_a_day.read_bytes())
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert answer.json()["message"] == "the file lasts longer than 900 s"


def test_a_sound_may_last_as_long_as_is_told(client: TestClient, sound: Path) -> None:
    found: Uploads = client.app.state.uploads  # type: ignore[attr-defined]
    assert client.get("/api/library").json()["limits"] == {
        "upload_bytes": 64 << 20,
        "upload_seconds": 900.0,
    }
    found.seconds = 4.0
    assert _upload(client, sound.read_bytes()).status_code == 200
    found.seconds = 3.9
    assert _upload(client, sound.read_bytes()).status_code == 413


def test_too_many_at_once_are_told_to_wait(client: TestClient, sound: Path) -> None:
    found: Uploads = client.app.state.uploads  # type: ignore[attr-defined]
    with found.place(), found.place(), found.place(), found.place():
        answer = _upload(client, sound.read_bytes())
    assert (answer.status_code, answer.json()["code"]) == (503, "busy")
    assert int(answer.headers["retry-after"]) > 0
    assert _upload(client, sound.read_bytes()).status_code == 200


def test_outlines_cannot_take_every_thread_of_the_service(client: TestClient, sound: Path) -> None:
    """Eight may wait for a process that decodes; the ninth is told to come back at once."""
    decoder: Decoder = client.app.state.uploads.decoder  # type: ignore[attr-defined]
    for _ in range(8):
        assert decoder._waiting.acquire(blocking=False)
    answers = [
        client.get("/api/tracks/track-0007/waveform", params={"n": 17}),
        _upload(client, sound.read_bytes()),
    ]
    for _ in range(8):
        decoder._waiting.release()
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "busy")
        assert int(answer.headers["retry-after"]) > 0
    assert client.get("/api/tracks/track-0007/waveform", params={"n": 17}).status_code == 200


def test_a_process_that_is_lost_is_replaced(client: TestClient, sound: Path) -> None:
    decoder: Decoder = client.app.state.uploads.decoder  # type: ignore[attr-defined]
    for worker in decoder.pool._workers:
        assert worker.process.pid is not None
        os.kill(worker.process.pid, signal.SIGKILL)
        worker.process.join()
    assert _upload(client, sound.read_bytes()).status_code == 200


def test_a_file_that_takes_too_long_costs_only_itself(half_a_day: Path, sound: Path) -> None:
    decoder = Decoder(LimitsConfig(seconds=0.3), n_workers=1)
    try:
        with pytest.raises(APIError, match="takes too long to decode"):
            decoder.decode(DecodeTask(half_a_day, 16_000, 43_000.0, keep_s=10.0))
        assert decoder.decode(
            DecodeTask(sound, 16_000, 10.0, keep_s=10.0)
        ).duration_s == pytest.approx(4.0)
    finally:
        decoder.pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_file_that_takes_too_much_memory_is_too_large(half_a_day: Path) -> None:
    decoder = Decoder(LimitsConfig(memory_mb=64), n_workers=1)
    try:
        with pytest.raises(APIError) as caught:
            decoder.decode(DecodeTask(half_a_day, 16_000, 43_000.0, keep_s=10.0))
        assert (caught.value.status, caught.value.code) == (413, "too_large")
    finally:
        decoder.pool.close()


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_that_decodes_can_write_no_file(sound: Path) -> None:
    decoder = Decoder(LimitsConfig(), n_workers=1)
    try:
        decoder.decode(DecodeTask(sound, 16_000, 10.0, keep_s=1.0))
        (worker,) = decoder.pool._workers
        limits = Path(f"/proc/{worker.process.pid}/limits").read_text().splitlines()
        (line,) = [line for line in limits if line.startswith("Max file size")]
        assert line.split()[3:5] == ["0", "0"]
    finally:
        decoder.pool.close()


def _query() -> Any:
    return object()


def test_an_upload_is_forgotten_after_an_hour_and_for_other_models() -> None:
    now = [0.0]
    kept = Uploads(Decoder(LimitsConfig()), clock=lambda: now[0])
    query = _query()
    name = kept.keep(query, ["a", "b"])
    assert kept.query(name, ["a", "b"]) is query
    with pytest.raises(APIError, match="not known any more"):
        kept.query(name, ["a", "c"])
    now[0] = KEPT_S - 1
    assert kept.query(name, ["a", "b"]) is query
    now[0] = KEPT_S
    with pytest.raises(APIError) as caught:
        kept.query(name, ["a", "b"])
    assert (caught.value.status, caught.value.code) == (404, "upload_expired")
    kept.keep(query, ["a"])
    assert len(kept._kept) == 1, "what has expired takes no place"


def test_only_the_latest_used_uploads_are_kept() -> None:
    kept = Uploads(Decoder(LimitsConfig()))
    names = [kept.keep(_query(), ["a"]) for _ in range(KEPT)]
    kept.query(names[0], ["a"])
    kept.keep(_query(), ["a"])
    kept.query(names[0], ["a"])
    with pytest.raises(APIError, match="not known any more"):
        kept.query(names[1], ["a"])
    assert len(set(names)) == KEPT
    assert min(len(name) for name in names) >= 20, "nobody guesses one"


def test_the_folder_is_for_its_owner_alone_and_goes_with_the_service(trained_root: Path) -> None:
    app = make_app(trained_root)
    with client_of(app):
        folder: Path = app.state.uploads.folder
        assert folder.stat().st_mode & 0o777 == 0o700
    assert not folder.exists()


def test_importing_the_uploads_changes_no_log_level_of_the_parser() -> None:
    script = (
        "import logging, ponticello.serve.app\n"
        "assert logging.getLogger('python_multipart').level == logging.NOTSET"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
