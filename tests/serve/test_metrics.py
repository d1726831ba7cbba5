"""/metrics against what was done; and that nothing a client sends gets into it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from ponticello.library import Library
from tests.serve.asgi import send
from tests.serve.served import client_of, make_app


@pytest.fixture
def client(trained_root: Path) -> Iterator[TestClient]:
    with client_of(make_app(trained_root)) as client:
        yield client


def _numbers(client: TestClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in families
        for s in family.samples
    }


def _requests(client: TestClient, route: str, status: int, method: str = "GET") -> float:
    labels = (("method", method), ("route", route), ("status", str(status)))
    return _numbers(client).get(("ponticello_requests_total", labels), 0.0)


def test_requests_are_counted_by_their_route(client: TestClient) -> None:
    for track_id in ("track-0001", "track-0002", "nobody"):
        client.get(f"/api/tracks/{track_id}")
    assert _requests(client, "/api/tracks/{track_id}", 200) == 2
    assert _requests(client, "/api/tracks/{track_id}", 404) == 1
    seconds = (("method", "GET"), ("route", "/api/tracks/{track_id}"))
    found = _numbers(client)
    assert found["ponticello_request_seconds_count", seconds] == 3
    assert 0 < found["ponticello_request_seconds_sum", seconds] < 60
    assert found["ponticello_requests_under_way", ()] == 1, "this very one"


def test_what_is_refused_at_the_door_is_counted_too(client: TestClient) -> None:
    client.get("/api/library", headers={"Host": "evil.example"})
    assert _requests(client, "(none)", 421) == 1


def test_the_index_in_use_is_told_and_a_swap_is_counted(trained_copy: Library) -> None:
    app = make_app(trained_copy.folder.root)
    with client_of(app) as client:
        before = _numbers(client)
        generation = client.get("/api/library").json()["generation"]
        assert before["ponticello_index_info", (("generation", generation),)] == 1
        assert before["ponticello_tracks", ()] == before["ponticello_tracks_indexed", ()] == 60
        assert before["ponticello_swaps_total", ()] == 0
        trained_copy.embed("semantic", with_preference=False)
        app.state.live.refresh()  # what the watching thread does each second
        after = _numbers(client)
        assert after["ponticello_swaps_total", ()] == 1
        infos = [labels for name, labels in after if name == "ponticello_index_info"]
        assert infos == [(("generation", client.get("/api/library").json()["generation"]),)]
        assert infos != [(("generation", generation),)]


def test_uploads_that_are_refused_are_counted_by_why(client: TestClient) -> None:
    client.post("/api/uploads", files={"file": ("a.mp3", b"#EXTM3U\n")})
    client.post("/api/uploads", content=b"x")
    found = _numbers(client)
    assert found["ponticello_uploads_refused_total", (("code", "unsupported_audio"),)] == 1
    assert found["ponticello_uploads_refused_total", (("code", "invalid"),)] == 1
    assert found["ponticello_uploads_under_way", ()] == 0


def test_nothing_that_clients_send_becomes_a_label(client: TestClient) -> None:
    app = client.app
    for method in ("GET", "POST", "BREW", "SECRETMETHOD"):
        for path in (
            "/secretpath",
            "/api/tracks/secretid",
            "/static/secretfile",
            "/api/recommend/secretuser",
        ):
            send(app, method, path, "text=secrettext&where=secret=1")  # type: ignore[arg-type]
    client.get("/api/search", params={"text": "secrettext"})
    text = client.get("/metrics").text
    assert "secret" not in text.lower()
    methods = {
        dict(labels)["method"]
        for name, labels in _numbers(client)
        if name == "ponticello_requests_total"
    }
    assert methods == {"GET", "POST", "other"}


def test_two_services_count_for_themselves(trained_root: Path, client: TestClient) -> None:
    with client_of(make_app(trained_root)) as other:
        other.get("/api/tracks/track-0001")
        assert _requests(other, "/api/tracks/{track_id}", 200) == 1
    assert _requests(client, "/api/tracks/{track_id}", 200) == 0
