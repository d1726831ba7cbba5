"""Markup, formulas, terminal codes and null characters in every field of a file's tags: shown as
text, run nowhere.
"""

import csv
import io
import json
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import polars as pl
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from ponticello.cli.main import app as command
from ponticello.cli.main import main
from ponticello.library import Library
from ponticello.storage.schema import TRACK_ID
from tests.serve.served import client_of, make_app

MARKUP = "<script>alert(1)</script><img src=x onerror=alert(2)>"
FORMULA = '=HYPERLINK("http://evil.example","x")'
TERMINAL = "\x1b[31m\x1b]0;owned\x07\x9b2J\x08\x08"
NULL = "before\x00after"
MIXED = f"{FORMULA}{MARKUP}{TERMINAL}{NULL}\u202e\u2028\r\nX: 1"
HOSTILE = (MARKUP, FORMULA, TERMINAL, NULL, MIXED)
TEXTS = (
    "title",
    "artist",
    "album",
    "language",
    "description",
    "lyrics",
    "release_date",
    "mbid",
    "isrc",
    "my mood",
)
LISTS = ("genres", "tags", "machine_tags")


@pytest.fixture(scope="module")
def spoilt(make_copy: Callable[[], Library]) -> Library:
    """A library in which every field of every track is hostile, each payload in every field of some
    tracks.
    """
    library = make_copy()
    tracks = pl.read_parquet(library.folder.tracks)
    one = [HOSTILE[row % len(HOSTILE)] for row in range(tracks.height)]
    many = [[text, FORMULA, MARKUP] for text in one]
    # Also before a semicolon, which ends an artist's name: these are held out as they were, each
    # alone.
    named = [f"{text.replace(';', f'{row};', 1)}{row}" for row, text in enumerate(one)]
    spoilt = tracks.with_columns(
        *(pl.Series(name, named, pl.String) for name in TEXTS),
        *(pl.Series(name, many) for name in LISTS),
    )
    spoilt.write_parquet(library.folder.tracks)
    return Library.open(library.folder.root)


@pytest.fixture(scope="module")
def make_copy(
    trained_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[], Library]:
    """A function that copies the trained library."""

    def copy() -> Library:
        root = tmp_path_factory.mktemp("hostile") / "library"
        shutil.copytree(trained_root, root)
        return Library.open(root)

    return copy


@pytest.fixture(scope="module")
def client(spoilt: Library) -> Iterator[TestClient]:
    with client_of(make_app(spoilt.folder.root)) as client:
        yield client


def _ids(library: Library) -> list[str]:
    found: list[str] = library.tracks[TRACK_ID].to_list()
    return found


def _is_quiet(text: str) -> bool:
    """Whether a terminal would show it and do nothing: lines of printable characters."""
    return all(each.isprintable() for line in text.split("\n") for each in line)


def test_json_holds_the_tags_as_they_are_and_says_that_it_is_json(
    client: TestClient, spoilt: Library
) -> None:
    """The very text comes back, in a type that no browser renders."""
    for row in spoilt.tracks.head(10).iter_rows(named=True):
        answer = client.get(f"/api/tracks/{row[TRACK_ID]}")
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["x-content-type-options"] == "nosniff"
        found = answer.json()
        for name in ("title", "artist", "album", *LISTS):
            assert found[name] == row[name]
        assert found["more"]["my mood"] == row["my mood"]
        assert "lyrics" not in found["more"]
        assert b"\x00" not in answer.content
        assert b"\x1b" not in answer.content


@pytest.mark.parametrize(
    "place",
    [
        "/api/library",
        "/api/tracks?k=60",
        "/api/search?text=low&k=60",
        "/rest/getSonicSimilarTracks?id=track-0001",
    ],
)
def test_answers_parse_and_hold_no_bare_control_characters(client: TestClient, place: str) -> None:
    answer = client.get(place)
    assert answer.status_code == 200
    json.loads(answer.text)
    assert not [each for each in answer.text if ord(each) < 32]


def test_a_hostile_question_is_only_looked_for(client: TestClient) -> None:
    for text in HOSTILE:
        answer = client.post("/api/search", json={"terms": [{"text": text}], "k": 1})
        assert answer.status_code == 200
        assert answer.json()["results"][0]["why"]["components"][0]["text"] == text
        for where in (f"title={text}", text, f"tags~{text}", f"{text}=1"):
            answer = client.get("/api/tracks", params={"where": where, "text": text})
            assert answer.status_code in (200, 422)
            if answer.status_code == 422:
                assert _is_quiet(answer.json()["message"]), where


def test_a_playlist_is_a_list_of_lines_still(client: TestClient, spoilt: Library) -> None:
    ids = _ids(spoilt)
    for title in HOSTILE:
        answer = client.post("/api/export/m3u8", json={"title": title, "track_ids": ids})
        lines = answer.text.splitlines()
        assert len(lines) == 2 + 2 * len(ids)
        assert [line.startswith("#") for line in lines[2:]] == [True, False] * len(ids)
        assert _is_quiet(answer.text)
        assert "\r" not in answer.headers["content-disposition"]


def test_jspf_is_json_of_quiet_text(client: TestClient, spoilt: Library) -> None:
    answer = client.post("/api/export/jspf", json={"title": MIXED, "track_ids": _ids(spoilt)})
    for track in answer.json()["playlist"]["track"]:
        assert _is_quiet(track["title"])
        assert _is_quiet(track["creator"])
        assert "identifier" not in track, "a hostile mbid is no address"
    assert "attachment" in answer.headers["content-disposition"]


def test_csv_holds_no_formula(client: TestClient, spoilt: Library) -> None:
    ids = _ids(spoilt)
    answer = client.post("/api/export/csv", json={"title": FORMULA, "track_ids": ids})
    rows = list(csv.reader(io.StringIO(answer.text)))
    assert len(rows) == len(ids) + 1
    cells = [cell for row in rows for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [cell for cell in cells if cell.startswith("'=HYPERLINK")]
    assert not [
        each for each in answer.text if unicodedata.category(each) == "Cc" and each not in "\r\n"
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["search", "low", "-k", "60"],
        ["similar", "track-0001", "-k", "60"],
        ["audience", "track-0001"],
        ["search", "low", "-k", "60", "--json"],
        ["similar", "track-0001", "-k", "60", "--json"],
    ],
    ids=" ".join,
)
def test_a_terminal_is_shown_text_and_nothing_else(spoilt: Library, arguments: list[str]) -> None:
    ended = CliRunner().invoke(command, [*arguments, "-L", str(spoilt.folder.root)])
    assert ended.exit_code == 0, ended.output
    assert _is_quiet(ended.stdout)
    if "--json" in arguments:
        assert {each["title"] for each in json.loads(ended.stdout)} <= set(spoilt.tracks["title"])


@pytest.mark.parametrize("text", HOSTILE)
def test_an_error_is_one_quiet_line(
    spoilt: Library, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the command prints it; an argument cannot hold a null character."""
    monkeypatch.setattr(
        "sys.argv",
        ["ponticello", "similar", text.replace("\x00", ""), "-L", str(spoilt.folder.root)],
    )
    with pytest.raises(SystemExit) as ended:
        main()
    told = capsys.readouterr()
    assert ended.value.code == 1
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert len(told.err.strip().splitlines()) == 1
    assert _is_quiet(told.err)


class _Page(HTMLParser):
    """The tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs


@pytest.fixture(scope="module")
def report(spoilt: Library) -> Path:
    """The report of an evaluation that reads hostile labels off the vectors."""
    ended = CliRunner().invoke(
        command,
        [
            "evaluate",
            "-L",
            str(spoilt.folder.root),
            "--label",
            "tags",
            "--set",
            'evaluate.baselines=["item_knn"]',
        ],
    )
    assert ended.exit_code == 0, ended.output
    assert _is_quiet(ended.stdout)
    return spoilt.folder.report


@pytest.mark.slow
def test_the_report_runs_nothing(report: Path) -> None:
    text = (report / "index.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert page.tags.isdisjoint(
        {"script", "img", "iframe", "object", "embed", "form", "base", "link"}
    )
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert not [
        value
        for name, value in page.attributes
        if name in ("href", "src") and "javascript:" in (value or "")
    ]
    assert "\x1b" not in text
    assert "\x00" not in text


@pytest.mark.slow
def test_the_reports_tables_hold_no_formula(report: Path) -> None:
    tables = sorted(report.glob("*.csv"))
    assert [path.name for path in tables] == ["figures.csv"]
    for path in tables:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
        assert len(rows) > 1
        for cell in (cell for row in rows for cell in row):
            assert not cell.startswith(("=", "+", "@", "\t", "\r")), (path.name, cell)
            assert not cell.startswith("-") or _is_number(cell), (path.name, cell)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell == "-"
    return True
