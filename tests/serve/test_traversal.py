"""A hundred ways to ask for a file that is nobody's business, on every route: none reads anything
outside.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi import FastAPI

from tests.serve.asgi import Answered, pieces_of, send
from tests.serve.served import make_app
from tests.serve.walk import routes

SECRET = b"the canary sings of what it should not know"
_SCHEMES = (
    "",
    "/",
    "//",
    "./",
    "file://",
    "file:///",
    "http://127.0.0.1/",
    "\\\\?\\",
    "track-0001/",
    "\x00",
)
_WAYS = (
    "../",
    "..\\",
    "..%2f",
    "%2e%2e/",
    "%2e%2e%2f",
    "..%252f",
    "....//",
    "..;/",
    "..%c0%af",
    "\u2025/",
    ".%00./",
)
_ENDS = ("\x00", "\x00.wav", "%00.wav", "#", "?", "/.", "/..", " ", ".wav", "::$DATA")
_JSON = (b"content-type", b"application/json")


def payloads(canary: Path) -> list[str]:
    """A hundred paths and half-paths to the canary, as they come out of percent decoding or before
    it.
    """
    whole, name = str(canary), canary.name
    found = [f"{start}{whole}" for start in _SCHEMES]
    found += [f"{way * depth}{name}" for way in _WAYS for depth in (1, 2, 4, 8, 16)]
    found += [f"{way * 12}{whole.lstrip('/')}" for way in _WAYS]
    found += [f"{whole}{end}" for end in _ENDS]
    found += [quote(whole, safe=""), quote(quote(whole, safe=""), safe="")]
    found += [
        f"~/{name}",
        f"$PWD/{name}",
        f"`cat {whole}`",
        f"|cat {whole}",
        f"<!ENTITY x SYSTEM '{whole}'>",
    ]
    found += [
        f"/proc/self/root{whole}",
        "/proc/self/environ",
        "/etc/passwd",
        f"{'../' * 16}etc/passwd",
    ]
    found += [
        f"path={whole}",
        f"path~{whole}",
        f"{{{{{whole}}}}}",
        f"${{{whole}}}",
        f"index/../../{name}",
    ]
    found += [
        f"runs/../../{name}",
        f"static/../../../{name}",
        "tracks.parquet",
        "../library/user-salt.txt",
    ]
    return found


@pytest.fixture(scope="module")
def canary(trained_root: Path) -> Iterator[Path]:
    """A file beside the library, which nothing in it names."""
    path = trained_root.parent / "canary.txt"
    path.write_bytes(SECRET)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def app(trained_root: Path) -> Iterator[FastAPI]:
    app = make_app(trained_root)
    yield app
    app.state.uploads.close()


def _is_quiet(answer: Answered) -> bool:
    """Whether it gives nothing away and is no accident either."""
    told = (SECRET, b"root:x:", os.environ["PATH"].encode())
    return answer.status < 500 and not [each for each in told if each in answer.body]


def test_there_are_a_hundred_of_them(canary: Path) -> None:
    assert len(set(payloads(canary))) >= 100


@pytest.mark.slow
def test_paths_lead_nowhere(app: FastAPI, canary: Path) -> None:
    """In the place of each parameter, and behind each route that has none, as the server hands them
    on: decoded.
    """
    n_asked = 0
    for method, path in routes(app):
        for payload in payloads(canary):
            start, brace, rest = path.partition("{")
            place = (
                start + payload + rest.partition("}")[2]
                if brace
                else f"{path.removesuffix('index.html')}{payload}"
            )
            answer = send(app, method, place)
            assert _is_quiet(answer), (method, place, answer)
            n_asked += 1
    assert n_asked > 3000


@pytest.mark.slow
def test_parameters_lead_nowhere(app: FastAPI, canary: Path) -> None:
    described = app.openapi()["paths"]
    for path, operations in described.items():
        for parameter in operations.get("get", {}).get("parameters", []):
            if parameter["in"] != "query":
                continue
            for payload in payloads(canary):
                query = f"{parameter['name']}={quote(payload, safe='')}"
                if path == "/api/search" and parameter["name"] != "text":
                    query += "&text=low"
                if path == "/api/path":
                    query += "&from=track-0001&to=track-0002"
                answer = send(
                    app,
                    "GET",
                    path.replace("{track_id}", "track-0001").replace("{user_id}", "x"),
                    query,
                )
                assert _is_quiet(answer), (path, query, answer)


def _bodies(payload: str) -> list[tuple[str, Any]]:
    term = {"track_id": "track-0001"}
    return [
        ("search", {"terms": [{"track_id": payload}]}),
        ("search", {"terms": [{"upload_id": payload}]}),
        ("search", {"terms": [{"text": payload}]}),
        ("search", {"terms": [term], "where": [payload]}),
        ("search", {"terms": [term], "exclude": [payload]}),
        ("search/batch", {"questions": [{"terms": [{"track_id": payload}]}]}),
        ("recommend", {"user_id": payload}),
        ("recommend", {"recent": [payload]}),
        ("recommend/batch", {"questions": [{"user_id": payload}]}),
        ("explain", {"query": {"terms": [term]}, "track_id": payload}),
        *(
            (f"export/{kind}", {"title": payload, "track_ids": ["track-0001"]})
            for kind in ("m3u8", "jspf", "csv")
        ),
        *(
            (f"export/{kind}", {"title": "a", "track_ids": [payload]})
            for kind in ("m3u8", "jspf", "csv")
        ),
    ]


@pytest.mark.slow
def test_bodies_lead_nowhere(app: FastAPI, canary: Path) -> None:
    for payload in payloads(canary):
        for place, body in _bodies(payload):
            answer = send(
                app,
                "POST",
                f"/api/{place}",
                headers=[_JSON],
                body=pieces_of([json.dumps(body).encode()]),
            )
            assert _is_quiet(answer), (place, body, answer)


def test_a_file_is_not_written_where_its_name_points(app: FastAPI, canary: Path) -> None:
    before = sorted(canary.parent.iterdir())
    for payload in payloads(canary):
        name = payload.replace('"', "").replace("\n", "").replace("\x00", "")
        head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        part = f"{head}RIFF\r\n--b--\r\n"
        form = (b"content-type", b"multipart/form-data; boundary=b")
        answer = send(app, "POST", "/api/uploads", headers=[form], body=pieces_of([part.encode()]))
        assert answer.status == 422
        assert _is_quiet(answer)
    assert canary.read_bytes() == SECRET
    assert sorted(canary.parent.iterdir()) == before
    assert list(app.state.uploads.folder.iterdir()) == []


def test_what_a_player_sends_leads_nowhere(app: FastAPI, canary: Path) -> None:
    for payload in payloads(canary):
        for place, names in (
            ("getSonicSimilarTracks", ["id"]),
            ("findSonicPath", ["startSongId", "endSongId"]),
        ):
            query = "&".join(f"{name}={quote(payload, safe='')}" for name in names)
            answer = send(app, "GET", f"/rest/{place}", query)
            assert answer.status == 200
            assert json.loads(answer.body)["subsonic-response"]["error"]["code"] == 70
            assert _is_quiet(answer)


def test_hidden_columns_cannot_be_asked_about(app: FastAPI, trained_root: Path) -> None:
    """Else a filter would tell, letter by letter, where the files lie."""
    for column in ("path", "lyrics"):
        for place, extra in (("/api/tracks", ""), ("/api/search", "&text=low")):
            answer = send(
                app, "GET", place, f"where={column}~{quote(str(trained_root.parent))}{extra}"
            )
            assert (answer.status, answer.code) == (422, "invalid")
            assert column not in json.loads(answer.body)["message"].partition("found")[2]
    assert b'"path"' not in send(app, "GET", "/api/tracks/track-0001").body
    assert str(trained_root).encode() not in send(app, "GET", "/api/library").body
