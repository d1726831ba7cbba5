"""A track's own sound over HTTP: in whole, in part, as an outline; and what is not given away."""

import os
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import soundfile
from starlette.testclient import TestClient

from ponticello.audio.decode import DecodeTask, decode_reply, load_audio, peaks
from ponticello.library import Library
from ponticello.serve.routes.audio import Waveforms
from ponticello.tracks.catalog import audio_files
from tests.serve.served import client_of, make_app, running
from tests.synthetic import make_catalogue

TRACK = "track-0007"
AUDIO = f"/api/tracks/{TRACK}/audio"


@pytest.fixture(scope="module")
def client(trained_root: Path) -> Iterator[TestClient]:
    with client_of(make_app(trained_root)) as client:
        yield client


@pytest.fixture
def content(trained: Library) -> bytes:
    """The bytes of the track's file."""
    return audio_files(trained.folder)[TRACK].read_bytes()


@pytest.fixture
def own(trained_copy: Library) -> Iterator[tuple[TestClient, Path]]:
    """A service whose library may be spoilt, and the track's file as a copy within it."""
    sounds = trained_copy.folder.root / "sounds"
    sounds.mkdir()
    path = sounds / "song.wav"
    shutil.copy(audio_files(trained_copy.folder)[TRACK], path)
    table = trained_copy.folder.tracks
    tracks = pl.read_parquet(table)
    tracks = tracks.with_columns(
        pl.when(pl.col("track_id") == TRACK)
        .then(pl.lit("sounds/song.wav"))
        .otherwise(pl.col("path"))
        .alias("path")
    )
    tracks.write_parquet(table)
    with client_of(make_app(trained_copy.folder.root)) as client:
        yield client, path


def test_the_whole_file_is_given_by_its_id(client: TestClient, content: bytes) -> None:
    found = client.get(AUDIO)
    assert found.status_code == 200
    assert found.content == content
    assert found.headers["content-type"] == "audio/wav"
    assert found.headers["accept-ranges"] == "bytes"
    assert found.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "first", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-99", 0, 100),
        ("bytes=100-", 100, None),
        ("bytes=-100", -100, None),
        ("bytes=1000-99999999", 1000, None),
        ("bytes=-99999999", 0, None),
        ("Bytes=5-5", 5, 6),
    ],
)
def test_a_part_is_given_as_it_lies_in_the_file(
    client: TestClient, content: bytes, asked: str, first: int, end: int | None
) -> None:
    found = client.get(AUDIO, headers={"Range": asked})
    assert found.status_code == 206
    assert found.content == content[first:end]
    start = first % len(content)
    last = start + len(found.content) - 1
    assert found.headers["content-range"] == f"bytes {start}-{last}/{len(content)}"
    assert found.headers["content-length"] == str(len(found.content))


def test_several_ranges_come_as_a_body_of_parts(client: TestClient, content: bytes) -> None:
    response = client.get(AUDIO, headers={"Range": "bytes=0-1,5-6,-3"})
    assert response.status_code == 206
    kind, boundary = response.headers["content-type"].split("; boundary=")
    assert kind == "multipart/byteranges"
    size = len(content)
    expected = b""
    for first, end in ((0, 2), (5, 7), (size - 3, size)):
        expected += f"--{boundary}\r\nContent-Type: audio/wav\r\n".encode()
        expected += f"Content-Range: bytes {first}-{end - 1}/{size}\r\n\r\n".encode()
        expected += content[first:end] + b"\r\n"
    assert response.content == expected + f"--{boundary}--".encode()
    assert response.headers["content-length"] == str(len(response.content))


@pytest.mark.parametrize("header", ["seconds=0-1", "0-1"])
def test_ranges_of_another_unit_are_ignored(
    client: TestClient, content: bytes, header: str
) -> None:
    response = client.get(AUDIO, headers={"Range": header})
    assert (response.status_code, response.content) == (200, content)


@pytest.mark.parametrize("header", ["bytes=", "bytes=-", "bytes=5-2", "bytes=a-b", "bytes=\u0661-"])
def test_malformed_ranges_are_refused(client: TestClient, header: str) -> None:
    response = client.get(AUDIO, headers=[(b"range", header.encode())])
    assert (response.status_code, response.json()["code"]) == (400, "invalid")


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=99999999-999999999", "bytes=-0"])
def test_a_range_behind_the_end_is_416(client: TestClient, content: bytes, asked: str) -> None:
    found = client.get(AUDIO, headers={"Range": asked})
    assert (found.status_code, found.json()["code"]) == (416, "range_not_satisfiable")
    assert found.headers["content-range"] == f"bytes */{len(content)}"


def test_head_tells_the_same_and_sends_nothing(client: TestClient, content: bytes) -> None:
    whole, part = client.head(AUDIO), client.head(AUDIO, headers={"Range": "bytes=0-9"})
    assert (whole.status_code, whole.headers["content-length"], whole.content) == (
        200,
        str(len(content)),
        b"",
    )
    assert (part.status_code, part.headers["content-length"], part.content) == (206, "10", b"")


def test_a_client_that_has_the_file_is_told_so(client: TestClient, content: bytes) -> None:
    first = client.get(AUDIO)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for tag in (etag, f'W/{etag}, "another"', "*"):
        found = client.get(AUDIO, headers={"If-None-Match": tag})
        assert (found.status_code, found.content) == (304, b"")
    assert client.get(AUDIO, headers={"If-None-Match": '"another"'}).status_code == 200
    for same in (etag, modified):
        assert (
            client.get(AUDIO, headers={"Range": "bytes=0-9", "If-Range": same}).content
            == content[:10]
        )
    for other in ('"another"', f"W/{etag}", "Thu, 01 Jan 1970 00:00:00 GMT"):
        assert (
            client.get(AUDIO, headers={"Range": "bytes=0-9", "If-Range": other}).status_code == 200
        )


def test_a_file_that_moved_is_missing(own: tuple[TestClient, Path]) -> None:
    client, path = own
    assert client.get(AUDIO).status_code == 200
    path.rename(path.with_name("elsewhere.wav"))
    for place in (AUDIO, f"/api/tracks/{TRACK}/waveform"):
        found = client.get(place)
        assert (found.status_code, found.json()["code"]) == (404, "file_missing")
        assert str(path.parent) not in found.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"root:x:0:0:root:/root:/bin/bash\n", "is text"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXk\n", "is text"),
        (b"SQLite format 3\x00" + bytes(200), "is not audio"),
        (b"\x7fELF" + bytes(200), "is not audio"),
        (b"\x89PNG\r\n\x1a\n" + bytes(200), "is an image"),
        (b"", "is empty"),
    ],
)
def test_nothing_but_audio_is_given(
    own: tuple[TestClient, Path], content: bytes, reason: str
) -> None:
    client, path = own
    path.write_bytes(content)
    for place in (AUDIO, f"/api/tracks/{TRACK}/waveform"):
        found = client.get(place)
        assert (found.status_code, found.json()["code"]) == (422, "unsupported_audio")
        assert reason in found.json()["message"]
        assert str(path.parent) not in found.text


def test_links_folders_and_pipes_are_not_followed_to_what_is_no_audio(
    own: tuple[TestClient, Path],
) -> None:
    client, path = own
    secret = path.with_name("secret.txt")
    secret.write_text("a secret\n")
    path.unlink()
    path.symlink_to(secret)
    found = client.get(AUDIO)
    assert (found.status_code, found.json()["code"]) == (422, "unsupported_audio")
    assert "a secret" not in found.text
    path.unlink()
    path.mkdir()
    assert client.get(AUDIO).json()["code"] == "file_missing"
    path.rmdir()
    os.mkfifo(path)
    assert client.get(AUDIO).json()["code"] == "file_missing"


def test_a_track_that_is_not_there_or_has_no_audio_is_404(client: TestClient) -> None:
    assert client.get("/api/tracks/nobody/audio").json() == {
        "code": "not_found",
        "message": "there is no track 'nobody'",
    }


def test_parts_come_over_a_real_connection(trained_root: Path, content: bytes) -> None:
    with running(make_app(trained_root)) as address:
        request = urllib.request.Request(address + AUDIO, headers={"Range": "bytes=1000-200999"})
        with urllib.request.urlopen(request, timeout=30) as found:
            assert found.status == 206
            assert found.read() == content[1000:201000]


def test_an_outline_is_how_loud_each_part_gets(client: TestClient, trained: Library) -> None:
    found = client.get(f"/api/tracks/{TRACK}/waveform", params={"n": 40}).json()
    sound = load_audio(audio_files(trained.folder)[TRACK], 8_000)
    parts = [np.abs(part).max() for part in np.array_split(sound, 40)]
    np.testing.assert_allclose(found["peaks"], parts / np.max(parts), atol=6e-4)
    assert max(found["peaks"]) == 1.0
    assert found["duration_s"] == pytest.approx(4.0)
    assert len(client.get(f"/api/tracks/{TRACK}/waveform").json()["peaks"]) == 400


def test_an_outline_is_made_once(own: tuple[TestClient, Path]) -> None:
    client, path = own
    waveforms: Waveforms = client.app.state.waveforms  # type: ignore[attr-defined]
    place = f"/api/tracks/{TRACK}/waveform"
    first = client.get(place).json()
    waveforms._decoder = None  # type: ignore[assignment]  # whoever asks it now fails
    assert client.get(place).json() == first
    soundfile.write(path, np.zeros(8_000), 8_000)
    assert client.get(place).status_code == 500, "another file has another outline"


def test_peaks_of_silence_and_of_next_to_nothing_are_numbers() -> None:
    assert peaks(np.zeros(100, dtype=np.float32), 4).tolist() == [0, 0, 0, 0]
    assert peaks(np.array([0.5, -1.0], dtype=np.float32), 4).tolist() == [0.5, 0.5, 1, 1]


def test_nothing_past_the_limit_is_decoded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[float | None] = []

    def load(_: Path, sample_rate: int, max_seconds: float | None) -> np.ndarray:
        asked.append(max_seconds)
        return np.zeros(11 * sample_rate, dtype=np.float32)

    monkeypatch.setattr("ponticello.audio.decode.load_audio", load)
    reply = decode_reply(DecodeTask(tmp_path, 8_000, max_duration_s=10.0, n_peaks=16))
    assert reply.facts == {"duration_s": 11.0}
    assert reply.array.size == 0
    assert asked == [11.0]


def test_media_types_are_told_by_the_bytes(own: tuple[TestClient, Path]) -> None:
    client, path = own
    sound = make_catalogue(n_tracks=1, n_artists=1, seconds=1.0, seed=0).waveforms[0]
    for format_, subtype, media_type in (
        ("FLAC", "PCM_16", "audio/flac"),
        ("OGG", "VORBIS", "audio/ogg"),
        ("OGG", "OPUS", "audio/ogg"),
        ("MP3", "MPEG_LAYER_III", "audio/mpeg"),
        ("AIFF", "PCM_16", "audio/aiff"),
    ):
        soundfile.write(path, sound, 16_000, format=format_, subtype=subtype)
        assert client.get(AUDIO).headers["content-type"] == media_type
