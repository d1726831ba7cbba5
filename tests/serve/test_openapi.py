"""The OpenAPI description: it says what is true, shows examples, and whatever is asked by it is
answered in shape.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from ponticello.library import Library
from ponticello.tracks.catalog import audio_files
from tests.serve.served import client_of, make_app

N_REQUESTS = 300  # `make bench-fuzz` sends 10,000
WITH_BODY = (
    "search",
    "search/batch",
    "recommend",
    "recommend/batch",
    "explain",
    "export/m3u8",
    "export/jspf",
    "export/csv",
)


@pytest.fixture(scope="module")
def app(trained_root: Path) -> FastAPI:
    return make_app(trained_root)


@pytest.fixture(scope="module")
def client(app: FastAPI) -> Iterator[TestClient]:
    with client_of(app) as client:
        yield client


@pytest.fixture(scope="module")
def described(client: TestClient) -> Any:
    """The description."""
    return client.get("/openapi.json").json()


@pytest.mark.slow
def test_generated_questions_are_answered_as_described(
    app: FastAPI, client: TestClient, trained: Library
) -> None:
    """No 5xx, no undocumented status, and every answer and error has its documented shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that generate
        from tests.serve.fuzz_api import fuzz

        tally = fuzz(app, N_REQUESTS, sound=audio_files(trained.folder)["track-0007"].read_bytes())
    assert tally.n_requests >= N_REQUESTS
    assert tally.of_status(5) == 0
    assert tally.faults == {}
    assert tally.of_status(2) > N_REQUESTS / 5, "many of them reach what lies behind the checks"
    assert client.app.state.uploads.n_under_way == 0  # type: ignore[attr-defined]


def test_every_operation_says_what_it_does(described: Any) -> None:
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            assert operation.get("summary"), (method, path)
            assert operation.get("description"), (method, path)
            assert "422" in operation["responses"] or path in ("/healthz",), (method, path)


def test_operations_have_names_of_their_own(described: Any) -> None:
    names = [
        each["operationId"]
        for operations in described["paths"].values()
        for each in operations.values()
    ]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("place", WITH_BODY)
def test_bodies_come_with_examples(described: Any, place: str) -> None:
    schema = described["paths"][f"/api/{place}"]["post"]["requestBody"]["content"][
        "application/json"
    ]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    assert described["components"]["schemas"][name].get("examples"), f"{name} has no example"


def test_every_error_that_is_described_has_the_one_shape(described: Any) -> None:
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    schema = response["content"]["application/json"]["schema"]
                    assert schema == {"$ref": "#/components/schemas/Error"}, (method, path, status)
    assert set(described["components"]["schemas"]["Error"]["properties"]) == {"code", "message"}
