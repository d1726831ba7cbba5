"""docs/api.md: every route is on it, its curl and its Python run, and what it says of codes and
numbers is so.
"""

import json
import os
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

import ponticello.serve as serve
from ponticello.library import Library
from ponticello.serve.errors import _BY_CODE, _BY_STATUS
from ponticello.tracks.catalog import audio_files
from tests.pages import Block, blocks_of
from tests.serve.served import TOKEN, make_app, running

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")
HERE = "http://127.0.0.1:8321"
ROUTE = re.compile(r"^### `([A-Z]+) (\S+)`$", re.M)


def _sections() -> dict[tuple[str, str], str]:
    """The text under each route's heading."""
    parts = ROUTE.split(PAGE)[1:]
    return {
        (parts[at], parts[at + 1]): parts[at + 2].partition("\n## ")[0]
        for at in range(0, len(parts), 3)
    }


def _blocks(language: str) -> list[Block]:
    return [block for block in blocks_of(PAGE) if block.language == language]


@pytest.fixture(scope="module")
def app(trained_root: Path) -> FastAPI:
    return make_app(trained_root)


@pytest.fixture(scope="module")
def address(app: FastAPI) -> Iterator[str]:
    with running(app) as address:
        yield address


@pytest.fixture
def desk(trained: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder a reader works in, with a sound file."""
    shutil.copy(audio_files(trained.folder)["track-0007"], tmp_path / "song.flac")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PONTICELLO_TOKEN", TOKEN)


def test_every_route_is_on_the_page(app: FastAPI) -> None:
    described = {
        (method.upper(), path) for path, each in app.openapi()["paths"].items() for method in each
    }
    assert set(_sections()) == described


@pytest.mark.parametrize("route", list(_sections()), ids=" ".join)
def test_every_route_has_curl_and_python_that_ask_it(route: tuple[str, str]) -> None:
    method, path = route
    blocks = blocks_of(_sections()[route])
    assert [block.language for block in blocks] == ["bash", "python"]
    pattern = re.sub(r"\\\{\w+\\\}", "[^/?\"' ]+", re.escape(path)) + r"[\"'? \n,]"
    assert re.search(pattern, blocks[0].text)
    assert re.search(pattern, blocks[1].text)
    assert f"service.{method.lower()}(" in blocks[1].text


def _curled(command: str, address: str) -> httpx.Response:
    """What a curl command would ask, asked."""
    words = shlex.split(os.path.expandvars(command))
    assert words.pop(0) == "curl"
    url, headers, asked = "", {}, dict[str, Any]()
    while words:
        word = words.pop(0)
        if word == "-H":
            name, _, value = words.pop(0).partition(": ")
            headers[name] = value
        elif word == "-d":
            asked["content"] = words.pop(0)
        elif word == "-F":
            name, _, value = words.pop(0).partition("=@")
            asked["files"] = {name: (value, Path(value).read_bytes())}
        elif word == "-o":
            words.pop(0)
        else:
            assert not word.startswith("-"), f"{word} is not read here"
            assert not url
            url = word
    assert url.startswith(HERE)
    method = "POST" if asked else "GET"
    return httpx.request(method, url.replace(HERE, address), headers=headers, timeout=60, **asked)


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(
    "block", [pytest.param(block, id=str(block.line)) for block in _blocks("bash")]
)
def test_every_curl_is_answered(block: Block, address: str) -> None:
    answer = _curled(block.text, address)
    assert answer.status_code in (200, 206), answer.text


@pytest.mark.usefixtures("desk")
def test_all_python_runs_from_top_to_bottom(address: str) -> None:
    names: dict[str, Any] = {"os": os}
    asked: list[httpx.Response] = []
    for block in _blocks("python"):
        exec(compile(block.text.replace(HERE, address), f"line {block.line}", "exec"), names)
        if "service" in names and not names["service"].event_hooks["response"]:
            names["service"].event_hooks = {"response": [asked.append]}
    names["service"].close()
    assert len(asked) >= len(_sections())
    assert [answer.url for answer in asked if answer.status_code not in (200, 206)] == []


def test_the_answer_shown_has_the_fields_of_one(address: str) -> None:
    (shown,) = [json.loads(block.text) for block in _blocks("json")]
    found = httpx.get(f"{address}/api/search", params={"text": "low dark", "k": 10}).json()
    assert shown["score" if "score" in shown else "k"] == 10
    for path in ((), ("results", 0), ("results", 0, "why"), ("results", 0, "why", "components", 0)):
        here, there = shown, found
        for key in path:
            here, there = here[key], there[key]
        assert list(here) == list(there), path
    result = shown["results"][0]
    assert result["semantic"] + result["preference"] == pytest.approx(result["score"])


def test_every_code_is_in_the_table_and_the_other_way_round() -> None:
    table = PAGE.partition("## Errors")[2].partition("\n## ")[0]
    shown = {
        code
        for line in re.findall(r"^\| (`.+?`) \|", table, re.M)
        for code in re.findall(r"`(\w+)`", line)
    }
    source = "\n".join(
        path.read_text(encoding="utf-8") for path in Path(serve.__path__[0]).rglob("*.py")
    )
    raised = set(re.findall(r'APIError\(\s*\d{3},\s*"(\w+)"', source))
    raised.update(_BY_STATUS.values(), (code for _, code in _BY_CODE.values()))
    assert shown == raised


def test_the_metrics_named_are_there(address: str) -> None:
    told = httpx.get(f"{address}/metrics").text
    there = {
        name.removesuffix("_total") for name in re.findall(r"^# TYPE (ponticello_\w+)", told, re.M)
    }
    named = {name.removesuffix("_total") for name in re.findall(r"`(ponticello_\w+)`", PAGE)}
    assert named == {name for name in there if not name.endswith("_created")}
