"""A library whose stage two is not served has one space and no blend, and says so in the same words
everywhere: in `train`, `embed`, `doctor`, `serve`, a refused search and the explorer.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from typer.testing import CliRunner, Result

from ponticello.cli.main import app
from ponticello.errors import LibraryError
from ponticello.evaluate.results import SERVED, STAGE_ONE, STAGE_TWO
from ponticello.evaluate.vectors import load_vectors
from ponticello.library import Library
from ponticello.serve import app as service
from ponticello.serve.static_export import export_explorer
from ponticello.train.dataset import require_splits
from ponticello.train.runs import RUN_FILE, read_record, why_one_space, write_record
from tests.serve.browser import Seen, chromium, open_explorer, page_of
from tests.serve.served import client_of, make_app, running

SENTENCE = (
    "there is one space and no blend: stage two is not served, as validation shows no gain over "
    "stage one"
)
SHOWN = f"{SENTENCE[0].upper()}{SENTENCE[1:]}."


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def trained_by_command(
    trained_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Result]:
    """A library whose stage two learns nothing, as its rates are 0; and what that printed."""
    root = tmp_path_factory.mktemp("one-space") / "library"
    shutil.copytree(trained_root, root)
    shutil.rmtree(root / "runs" / "preference")
    rates = [f"preference.{tower}_lr=0" for tower in ("audio", "text", "heads")]
    settings = [*rates, "preference.max_steps=2", "preference.gain_confidence=0.999"]
    with_settings = [argument for setting in settings for argument in ("--set", setting)]
    trained = run("train", "preference", "-L", root, *with_settings)
    assert trained.exit_code == 0, trained.output
    assert run("embed", "-L", root).exit_code == 0
    return root, trained


@pytest.fixture
def root(trained_by_command: tuple[Path, Result]) -> Path:
    return trained_by_command[0]


def test_training_says_that_stage_two_is_not_served(
    trained_by_command: tuple[Path, Result],
) -> None:
    root, trained = trained_by_command
    *_, selection, last = trained.stdout.splitlines()
    assert selection.startswith("not served: no gain in preference ")
    assert last == SENTENCE
    assert read_record(root / "runs" / "preference" / RUN_FILE)["selection"]["is_served"] is False


@pytest.mark.parametrize("arguments", [[], ["--preference", "preference"]])
def test_embedding_makes_one_space_also_if_the_run_is_named(
    root: Path, arguments: list[str]
) -> None:
    """Named, its vectors are those of stage one to the last bit."""
    embedded = run("embed", "-L", root, *arguments)
    first, second = embedded.stdout.splitlines()
    assert first.startswith("60 tracks embedded (semantic only), ")
    assert second == SENTENCE
    record = json.loads(run("embed", "-L", root, *arguments, "--json").stdout)
    assert (record["preference"], record["one_space"]) == (False, SENTENCE)
    assert len(Library.open(root).index.spaces) == 1


def test_doctor_notes_it(root: Path) -> None:
    findings = json.loads(run("doctor", "-L", root, "--json").stdout)["findings"]
    notes = [finding["what"] for finding in findings if finding["where"] == "index/"]
    assert notes[-1] == SENTENCE


def test_service_logs_it_at_its_start(
    root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class _NoServer:
        started = True
        servers = ()

        def __init__(self, _: object) -> None:
            pass

        async def serve(self) -> None:
            pass

    monkeypatch.setattr("uvicorn.Server", _NoServer)
    service.run_service(root)
    assert caplog.messages == [SENTENCE]


@pytest.mark.parametrize("command", ["search", "recommend"])
def test_search_with_a_blend_is_refused_with_the_reason(root: Path, command: str) -> None:
    query = "low" if command == "search" else "simulated-0001"
    refused = run(command, query, "-L", root, "--blend", "0.5")
    assert isinstance(refused.exception, LibraryError)
    assert str(refused.exception) == f"blend must be 0: {SENTENCE}"
    shown = run(command, query, "-L", root).stdout.splitlines()
    assert shown[0] == "      score   title, artist [track id]"


def test_http_refuses_a_blend_and_describes_the_library(root: Path) -> None:
    with client_of(make_app(root)) as client:
        about = client.get("/api/library").json()
        assert (about["has_preference"], about["one_space"], about["blend"]) == (False, SENTENCE, 0)
        refused = client.get("/api/search", params={"text": "low", "blend": 0.5})
        assert refused.status_code == 409
        wanted = {"code": "no_preference", "message": f"blend must be 0: {SENTENCE}"}
        assert refused.json() == wanted
        assert client.get("/api/search", params={"text": "low"}).json()["blend"] == 0


def test_evaluation_has_no_row_as_served(root: Path) -> None:
    folder = Library.open(root).folder
    notes: list[str] = []
    runs = {STAGE_ONE: "semantic", STAGE_TWO: "preference"}
    vectors = load_vectors(folder, runs, {}, require_splits(folder), notes, lambda _: None)
    assert notes[-1] == f"No row as served: {SENTENCE}."
    assert {STAGE_ONE, STAGE_TWO} <= vectors.vectors.keys()
    assert SERVED not in vectors.vectors
    assert SERVED not in vectors.towers


def test_reasons_follow_the_run(root: Path, tmp_path: Path) -> None:
    assert "stage two is not trained; run: ponticello train " in why_one_space(tmp_path / "none")
    copy = tmp_path / "preference"
    copy.mkdir()
    record = read_record(root / "runs" / "preference" / RUN_FILE)
    record["selection"]["is_served"] = True
    write_record(copy / RUN_FILE, record)
    assert why_one_space(copy).endswith("but not in the index; run: ponticello embed")
    (copy / RUN_FILE).write_text("{", encoding="utf-8")
    assert why_one_space(copy).endswith("is damaged; run: ponticello doctor")


def test_library_with_two_spaces_says_none_of_it(trained: Library, trained_root: Path) -> None:
    assert trained.service.one_space == ""
    with client_of(make_app(trained_root)) as client:
        assert client.get("/api/library").json()["one_space"] == ""


@pytest.fixture(scope="module")
def address(trained_by_command: tuple[Path, Result]) -> Iterator[str]:
    with running(make_app(trained_by_command[0])) as address:
        yield address


def test_explorer_has_no_blend_and_no_taste(root: Path, address: str) -> None:
    """A link of before, with a blend, is answered without one."""
    track = Library.open(root).index.track_ids[7]
    with chromium() as browser, page_of(browser) as (page, seen):
        open_explorer(page, address, f"ask=1~track~{track}&blend=0.5")
        expect(page.locator("#list .song")).to_have_count(30)
        expect(page.locator("#blend")).to_be_hidden()
        expect(page.locator("#blend-note")).to_have_text(SHOWN)
        expect(page.locator("#legend")).to_have_text("score", use_inner_text=True)
        page.locator("#list .song .choose").first.click()
        heads = page.locator("#list .parts thead th")
        expect(heads).to_have_text(["Because of", "Score"])
        score = page.locator("#list .song .sum").first.inner_text()
        assert page.locator("#list .parts tfoot td").all_inner_texts() == [score]
        page.locator("#maptable summary").click()
        columns = page.locator("#maptable thead th:visible")
        expect(columns).to_have_text(
            ["Song", "Artist", "Rank", "Place on the map"], use_inner_text=True
        )
        body = page.locator("body").inner_text()
        assert "taste" not in body.lower()
        assert seen == Seen()


def test_copy_of_the_explorer_holds_the_sentence(root: Path, tmp_path: Path) -> None:
    export_explorer(Library.open(root), tmp_path / "page")
    about = json.loads((tmp_path / "page" / "data" / "library.json").read_text(encoding="utf-8"))
    assert about["one_space"] == SENTENCE
