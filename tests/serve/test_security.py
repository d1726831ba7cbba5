"""Who may ask, and what every answer carries."""

import hmac
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ponticello.cli.main import app as command
from ponticello.errors import ConfigError
from ponticello.serve import security
from ponticello.serve.app import create_app
from ponticello.serve.security import BODY_BYTES, COOKIE, HEADERS, OPEN, security_policy_for
from tests.serve.asgi import forever, send
from tests.serve.served import NAME, TOKEN, client_of, make_app
from tests.serve.walk import routes

RIGHT = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def app(trained_root: Path) -> FastAPI:
    return make_app(trained_root, TOKEN)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


@pytest.fixture(scope="module")
def unlocked(trained_root: Path) -> Iterator[TestClient]:
    with client_of(make_app(trained_root)) as client:
        yield client


def _ask(client: TestClient, method: str, path: str, **options: Any) -> Any:
    return client.request(
        method, re.sub(r"\{[^}]*\}", "track-0001", path), follow_redirects=False, **options
    )


def test_the_walk_meets_every_route(app: FastAPI) -> None:
    found = routes(app)
    described = {
        (method.upper(), path) for path, each in app.openapi()["paths"].items() for method in each
    }
    assert described <= set(found)
    assert {("GET", "/"), ("GET", "/openapi.json"), ("GET", "/static/index.html")} <= set(found)
    assert ("GET", "/rest/findSonicPath.view") in found
    assert ("HEAD", "/api/tracks/{track_id}/audio") in found


def test_every_route_but_health_needs_the_token(client: TestClient) -> None:
    app: Any = client.app
    assert len(routes(app)) > 25
    for method, path in routes(app):
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Cookie": f"{COOKIE}=wrong"}):
            answer = _ask(client, method, path, headers=headers)
            if path in OPEN:
                assert answer.status_code == 200, (method, path)
                continue
            assert answer.status_code == 401, (method, path)
            assert answer.headers["www-authenticate"] == "Bearer"
            if method != "HEAD":
                assert answer.json()["code"] == "unauthorized"
        assert _ask(client, method, path, headers=RIGHT).status_code != 401, (method, path)


@pytest.mark.parametrize(
    "path", ["/nothing", "/api/nothing", "/healthz/", "/api/../healthz", "//healthz", "/HEALTHZ"]
)
def test_what_does_not_exist_is_not_told_without_the_token(app: FastAPI, path: str) -> None:
    assert send(app, "GET", path).status == 401


def test_a_token_is_compared_in_constant_time(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[bytes] = []

    def compare(offered: bytes, right: bytes) -> bool:
        compared.append(offered)
        return hmac.compare_digest(offered, right)

    class Recorded:
        compare_digest = staticmethod(compare)

    monkeypatch.setattr(security, "hmac", Recorded)
    client.get("/api/library", headers={"Authorization": "Bearer nearly"})
    assert b"nearly" in compared
    source = Path(security.__file__).read_text(encoding="utf-8")
    assert not re.search(r"token\s*[!=]=|[!=]=\s*(self\.policy\.)?token", source), (
        "nothing else compares it"
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer "},
        {"Cookie": f"other={TOKEN}"},
        {"X-Token": TOKEN},
    ],
)
def test_what_is_nearly_the_token_is_not(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/api/library", headers=headers).status_code == 401


def test_the_token_in_an_address_becomes_a_cookie_scripts_cannot_read(trained_root: Path) -> None:
    with client_of(make_app(trained_root, TOKEN)) as client:
        assert client.get("/", params={"token": "wrong"}, follow_redirects=False).status_code == 401
        answer = client.get("/", params={"token": TOKEN}, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/api/library").status_code == 200, "the client kept it"
    assert (
        send(make_app(trained_root, TOKEN), "GET", "/api/library", f"token={TOKEN}").status == 401
    )


@pytest.mark.parametrize(
    "other", ["a[b]=c", 'x="', "last search=[1, 2]", "{}", "a,b=c:d", "=", "caf\xe9=1"]
)
def test_a_cookie_of_somebody_else_locks_nobody_out(app: FastAPI, other: str) -> None:
    """Cookies know no ports: whatever else runs on this machine sends its own along."""
    for header in (f"{other}; {COOKIE}={TOKEN}", f"{COOKIE}={TOKEN}; {other}"):
        assert (
            send(app, "GET", "/api/library", headers=[(b"cookie", header.encode("latin-1"))]).status
            == 200
        )
    quoted = f'{COOKIE}="{TOKEN}"'
    assert send(app, "GET", "/api/library", headers=[(b"cookie", quoted.encode())]).status == 200


def test_players_may_give_it_as_their_key(client: TestClient) -> None:
    assert (
        client.get("/rest/getOpenSubsonicExtensions", params={"apiKey": TOKEN}).status_code == 200
    )
    assert (
        client.get("/rest/getOpenSubsonicExtensions", params={"apiKey": "wrong"}).status_code == 401
    )
    assert client.get("/api/library", params={"apiKey": TOKEN}).status_code == 401, (
        "elsewhere it stays out of logs"
    )


@pytest.mark.parametrize(
    "name", ["127.0.0.1", "127.0.0.1:8321", "localhost", "LOCALHOST:1", "[::1]", "[::1]:8321"]
)
def test_a_name_of_this_machine_is_answered(unlocked: TestClient, name: str) -> None:
    assert unlocked.get("/healthz", headers={"Host": name}).status_code == 200


@pytest.mark.parametrize(
    "name",
    [
        "evil.example",
        "evil.example:8321",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "",
        "[::2]",
        "localhost.",
    ],
)
def test_another_name_is_refused_so_that_no_page_can_rebind_it(
    unlocked: TestClient, name: str
) -> None:
    for path in ("/", "/healthz", "/api/library", "/static/index.html"):
        answer = unlocked.get(path, headers={"Host": name})
        assert (answer.status_code, answer.json()["code"]) == (421, "wrong_host")


def test_a_request_without_a_name_is_refused(unlocked: TestClient) -> None:
    app: Any = unlocked.app
    assert send(app, "GET", "/api/library", host=None).status == 421


def test_a_further_name_can_be_allowed(trained_root: Path) -> None:
    app = create_app(trained_root, security_policy_for("127.0.0.1", None, ["music.home"]))
    with client_of(app) as client:
        assert client.get("/healthz", headers={"Host": "music.home:8321"}).status_code == 200
        assert client.get("/healthz", headers={"Host": "other.home"}).status_code == 421


@pytest.mark.parametrize(
    ("bind", "further", "name"),
    [
        ("127.0.0.2", [], "127.0.0.2:8321"),
        ("127.0.0.1", ["Music.Home"], "music.home"),
        ("127.0.0.1", ["music.home:8321"], "MUSIC.home:80"),
        ("127.0.0.1", ["fd00::5"], "[fd00::5]:8321"),
        ("127.0.0.1", ["[fd00::5]:8321"], "[FD00::5]"),
        ("0:0:0:0:0:0:0:1", [], "[::1]:8321"),
        ("fd00::5", ["music.home"], "[fd00::5]:8321"),
        ("[fd00::5]", ["music.home"], "[fd00::5]"),
        ("Music.Home", ["other.home"], "music.home"),
    ],
)
def test_a_name_counts_however_it_was_written(
    trained_root: Path, bind: str, further: list[str], name: str
) -> None:
    app = create_app(trained_root, security_policy_for(bind, TOKEN, further))
    assert send(app, "GET", "/healthz", host=name.encode()).status == 200
    assert send(app, "GET", "/healthz", host=b"evil.example").status == 421


def test_pages_of_other_sites_cannot_ask(unlocked: TestClient) -> None:
    """A form of another site needs no leave to be sent (CORS), so it is refused for where it comes
    from.
    """
    asked = {"json": {"terms": [{"text": "low"}]}}
    assert unlocked.post("/api/search", headers={"Origin": NAME}, **asked).status_code == 200  # type: ignore[arg-type]
    for origin in (
        "http://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "https://127.0.0.1.evil.example",
        "http://[",
    ):
        answer = unlocked.post("/api/search", headers={"Origin": origin}, **asked)  # type: ignore[arg-type]
        assert (answer.status_code, answer.json()["code"]) == (403, "wrong_origin")
        answer = unlocked.post("/api/uploads", headers={"Origin": origin}, files={"file": b"x"})
        assert answer.status_code == 403


def test_cross_origin_sharing_is_off(unlocked: TestClient) -> None:
    asking = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    for answer in (
        unlocked.options("/api/search", headers=asking),
        unlocked.get("/api/library", headers={"Origin": "http://evil.example"}),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_every_answer_carries_the_headers(client: TestClient, unlocked: TestClient) -> None:
    app: Any = client.app
    answers = [_ask(client, method, path) for method, path in routes(app)]
    answers += [_ask(unlocked, method, path) for method, path in routes(app)]
    answers += [
        unlocked.get("/nothing"),
        unlocked.put("/api/search"),
        unlocked.get("/", headers={"Host": "evil.example"}),
    ]
    answers += [
        unlocked.post("/api/search", content=b"{"),
        client.get("/", headers={"Accept": "text/html"}),
    ]
    statuses = {answer.status_code for answer in answers}
    assert {200, 401, 404, 405, 421, 422} <= statuses
    for answer in answers:
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (answer.request.url, name)
    assert "default-src 'none'" in HEADERS["Content-Security-Policy"]
    assert "unsafe" not in HEADERS["Content-Security-Policy"]
    assert HEADERS["X-Content-Type-Options"] == "nosniff"


def test_an_error_of_ours_has_the_headers_and_tells_nothing(
    unlocked: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app: Any = unlocked.app
    monkeypatch.setitem(app.state._state, "live", None)
    with caplog.at_level(logging.ERROR):
        answer = unlocked.get("/api/tracks/track-0001/similar")
    assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert "NoneType" not in answer.text
    assert "NoneType" in caplog.text, "the log says what it was"
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "ponticello_failures_total 1.0" in unlocked.get("/metrics").text


def test_a_path_cannot_write_lines_into_the_log(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(app.state._state, "live", None)
    with caplog.at_level(logging.ERROR):
        token = (b"authorization", f"Bearer {TOKEN}".encode())
        answer = send(
            app, "GET", "/api/recommend/a\r\x85ERROR all is lost\x1b[31m", headers=[token]
        )
    assert answer.status == 500
    assert [len(record.getMessage().splitlines()) for record in caplog.records] == [1]
    assert "\x1b" not in caplog.records[0].getMessage()


def test_a_large_question_is_refused_declared_or_not(unlocked: TestClient) -> None:
    app: Any = unlocked.app
    kind = (b"content-type", b"application/json")
    declared = send(app, "POST", "/api/search", headers=[kind, (b"content-length", b"9999999")])
    assert (declared.status, declared.code, declared.n_pieces) == (413, "too_large", 0)
    pushed = send(app, "POST", "/api/search", headers=[kind], body=forever(b" " * 65_536))
    assert (pushed.status, pushed.code) == (413, "too_large")
    assert pushed.n_pieces <= BODY_BYTES // 65_536 + 1


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 500_000,
        b'{"terms":' * 100_000,
        b'{"k": ' + b"9" * 900_000 + b"}",
        b'{"terms": [{"text": "a", "weight": 1e99999}]}',
        b'{"terms": [' + b'{"text": "a"},' * 60_000 + b'{"text": "a"}]}',
        b'{"terms": [{"text": "' + b"a" * 900_000 + b'"}]}',
        b'{"terms": [{"text": "\\ud800"}]}',
        b"\xff\xfe" * 1000,
    ],
    ids=["brackets", "objects", "digits", "exponent", "terms", "text", "surrogate", "no text"],
)
def test_a_question_that_is_a_bomb_is_refused_in_shape(unlocked: TestClient, body: bytes) -> None:
    answer = unlocked.post(
        "/api/search", content=body, headers={"Content-Type": "application/json"}
    )
    assert answer.status_code in (400, 422)
    assert answer.json()["code"] == "invalid"
    assert len(answer.json()["message"]) < 400


def test_a_batch_cannot_keep_a_thread_for_minutes(unlocked: TestClient) -> None:
    """64 questions of 32 new texts each would."""
    few = [{"terms": [{"track_id": "track-0001"}] * 4}] * 64
    assert unlocked.post("/api/search/batch", json={"questions": few}).status_code == 200
    few[0] = {"terms": [{"track_id": "track-0001"}] * 5}
    answer = unlocked.post("/api/search/batch", json={"questions": few})
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid")
    assert answer.json()["message"] == "a batch has at most 256 terms in all; found 257"


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.1.5", "::", "music.home"])
def test_a_public_address_without_a_token_does_not_start(trained_root: Path, address: str) -> None:
    ended = CliRunner().invoke(
        command, ["serve", "-L", str(trained_root), "--host", address, "--port", "0"]
    )
    assert ended.exit_code == 1
    assert isinstance(ended.exception, ConfigError)
    assert "give a token" in str(ended.exception)
    with pytest.raises(ConfigError, match="give a token"):
        security_policy_for(address, None)
    assert security_policy_for(address, TOKEN).token == TOKEN


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost", "::1", "[::1]", "127.5.5.5"])
def test_this_machine_needs_no_token(address: str) -> None:
    assert security_policy_for(address, None).token is None


@pytest.mark.parametrize(
    "token",
    [
        "short",
        "fifteen-letters",
        "has a space in it 123",
        "zwölf-und-noch-mehr",
        "line\nbreak-0123456789",
    ],
)
def test_a_token_that_cannot_be_sent_or_is_short_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="at least 16 characters"):
        security_policy_for("127.0.0.1", token)


def test_the_token_is_in_no_answer(client: TestClient) -> None:
    app: Any = client.app
    for method, path in routes(app):
        answer = _ask(client, method, path, headers=RIGHT)
        assert TOKEN not in answer.text, path
    assert TOKEN not in json.dumps(dict(client.get("/metrics", headers=RIGHT).headers))
